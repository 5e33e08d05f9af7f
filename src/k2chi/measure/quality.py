"""How far a map is from the truth: the error measures of the QSM challenges, in one table.

Every measure looks at the whole mask of the truth, and both maps are set to zero outside it. A voxel that
a method eroded away, or that is not finite, counts as zero: giving up the rim is not free. A constant
offset is no error, for the dipole cannot see it: `quality` takes each map's mean in the mask away, except
where the source of a measure keeps it (`xsim_uniform`, `hfen`, `rmse_percent`, `ssim_challenge`). One line
for each measure is in `k2chi.measure.definitions`.
"""

from math import inf, isfinite, log10, nan

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import max_pool3d

from k2chi.data import Vector
from k2chi.measure.calcification import LABEL as CALCIFICATION
from k2chi.measure.calcification import calcification
from k2chi.measure.similarity import Mask, Volume, hfen, ssim, ssim_challenge, xsim, xsim_uniform

Labels = Shaped[Tensor, "x y z"]

DEEP_GREY = (1, 2, 3, 4, 5, 6)
"""Caudate, pallidum, putamen, red nucleus, dentate, substantia nigra with the nucleus below it."""
TISSUE = (7, 8, 9)
"""Thalamus, white matter, grey matter."""
BLOOD = 11


def quality(
    chi: Volume,
    truth: Volume,
    mask: Mask,
    labels: Labels | None = None,
    voxel_mm: Vector = (1.0, 1.0, 1.0),
) -> dict[str, float]:
    """All measures of `chi` against `truth` (both ppm) over `mask`, the truth's own mask.

    With `labels` in the challenge's numbering also the detrended errors of tissue, blood (one voxel around
    it included) and deep grey matter, the slope of the deep nuclei and, where a calcification is labelled,
    its moment's deviation [ppm mm³] and its streaks; the size of a voxel matters to that moment only. A
    measure that is not defined, such as the error of a region that is not there, is nan.
    """
    a, t = (torch.where(mask & m.isfinite(), m, torch.zeros_like(m)) for m in (chi, truth))
    width = span(t, mask)
    a0, t0 = (torch.where(mask, m - m[mask].mean(), torch.zeros_like(m)) for m in (a, t))
    out = {
        "nrmse": nrmse(a, t, mask),
        "nrmse_detrend": nrmse_detrend(a, t, mask),
        "correlation": correlation(a, t, mask),
        "rmse_percent": rmse_percent(a, t, mask),
        "rmse_ppb": rmse_ppb(a, t, mask),
        "mae_ppb": mae_ppb(a, t, mask),
        "xsim": xsim(a0, t0, mask),
        "xsim_uniform": xsim_uniform(a, t, mask),
        "ssim": ssim(a0, t0, mask, width),
        "ssim_challenge": ssim_challenge(a, t, mask),
        "psnr_db": psnr_db(a, t, mask, width),
        "range_ppm": width,
        "hfen": hfen(a, t, mask),
        "nmi": mutual_information(a, t, mask),
        "coverage": float((a[mask] != 0).double().mean()) if mask.any() else nan,
    }
    if labels is not None:
        slope = region_slope(a, t, mask, labels, DEEP_GREY)
        tissue, deep = (mask & among(labels, wanted) for wanted in (TISSUE, DEEP_GREY))
        out |= {
            "nrmse_tissue": nrmse_detrend(a, t, tissue),
            "nrmse_tissue_eroded": nrmse_detrend(a, t, ~dilate(~tissue)),
            "nrmse_blood": nrmse_detrend(a, t, mask & dilate(mask & (labels == BLOOD))),
            "nrmse_dgm": nrmse_detrend(a, t, deep),
            "nrmse_dgm_eroded": nrmse_detrend(a, t, ~dilate(~deep)),
            "dgm_slope": slope,
            "dgm_deviation": abs(1 - slope),
        }
        if (there := mask & (labels == CALCIFICATION)).any():
            scored = calcification(a0, t0, there, voxel_mm)
            out |= {"calc_deviation": scored.deviation_ppm_mm3, "calc_streak": scored.streak}
    return out


# ---- voxel by voxel


def _demeaned(a: Volume, t: Volume, mask: Mask) -> tuple[Tensor, Tensor]:
    x, y = a[mask].double(), t[mask].double()
    return x - x.mean(), y - y.mean()


def nrmse(a: Volume, t: Volume, mask: Mask) -> float:
    """100 ‖a − t‖ / ‖t‖ [%], both demeaned in the mask: the challenge's main score."""
    x, y = _demeaned(a, t, mask)
    return _ratio(100 * float((x - y).norm()), float(y.norm()))


def nrmse_detrend(a: Volume, t: Volume, mask: Mask) -> float:
    """The same after dividing a by its slope on t [%]: 100 √(1/ρ² − 1). Can exceed `nrmse`; inf at ρ = 0.

    Bilgic et al. 2021, Magn Reson Med 86:1241, doi:10.1002/mrm.28754. Regressing the other way round would
    give 100 √(1 − ρ²), which never exceeds 100 and is not what the challenge reports.
    """
    x, y = _demeaned(a, t, mask)
    slope = _ratio(float(x @ y), float(y @ y))
    if slope == 0:
        return inf
    return _ratio(100 * float((x / slope - y).norm()), float(y.norm()))


def correlation(a: Volume, t: Volume, mask: Mask) -> float:
    """Pearson's ρ in the mask."""
    x, y = _demeaned(a, t, mask)
    return _ratio(float(x @ y), float(x.norm() * y.norm()))


def rmse_percent(a: Volume, t: Volume, mask: Mask) -> float:
    """100 ‖a − t‖ / ‖t‖ [%] with the means kept: an offset between the maps counts.

    Langkammer et al. 2018, Magn Reson Med 79:1661, doi:10.1002/mrm.26830.
    """
    x, y = a[mask].double(), t[mask].double()
    return _ratio(100 * float((x - y).norm()), float(y.norm()))


def rmse_ppb(a: Volume, t: Volume, mask: Mask) -> float:
    """Root mean square difference [ppb], both demeaned."""
    x, y = _demeaned(a, t, mask)
    return 1e3 * float((x - y).square().mean().sqrt())


def mae_ppb(a: Volume, t: Volume, mask: Mask) -> float:
    """Mean absolute difference [ppb], both demeaned."""
    x, y = _demeaned(a, t, mask)
    return 1e3 * float((x - y).abs().mean())


def span(t: Volume, mask: Mask) -> float:
    """Largest minus smallest value of t in the mask [ppm]: the range that `ssim` and `psnr_db` refer to."""
    return float(t[mask].max() - t[mask].min()) if mask.any() else nan


def psnr_db(a: Volume, t: Volume, mask: Mask, range_ppm: float) -> float:
    """20 log₁₀(range / rms difference) [dB], both demeaned. Means nothing without the range it refers to."""
    rms = rmse_ppb(a, t, mask) / 1e3
    return 20 * log10(range_ppm / rms) if rms > 0 and range_ppm > 0 else (inf if rms == 0 else nan)


def mutual_information(a: Volume, t: Volume, mask: Mask, bins: int = 64) -> float:
    """Normalised mutual information (H(a) + H(t)) / H(a, t): 1 if unrelated, 2 if one follows from the other.

    Studholme et al. 1999, Pattern Recognit 32:71, doi:10.1016/S0031-3203(98)00091-0. Histograms of `bins`
    equal steps between the 0.5th and 99.5th percentile of each map; what lies beyond counts at the ends.
    """
    if not mask.any():
        return nan
    index = []
    for m in (a, t):
        v = m[mask].double()
        ordered = v.sort().values
        low, high = ordered[int(0.005 * (len(v) - 1))], ordered[int(0.995 * (len(v) - 1))]
        index.append(((v - low) / (high - low).clamp_min(1e-30) * bins).long().clamp(0, bins - 1))
    joint = torch.bincount(index[0] * bins + index[1], minlength=bins * bins).double().reshape(bins, bins)
    joint /= joint.sum()

    def entropy(p: Tensor) -> float:
        p = p[p > 0]
        return -float((p * p.log()).sum())

    return _ratio(entropy(joint.sum(0)) + entropy(joint.sum(1)), entropy(joint.flatten()))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 and isfinite(above) else nan


# ---- regions


def among(labels: Labels, wanted: tuple[int, ...]) -> Mask:
    """Voxels whose label is one of `wanted`."""
    return torch.isin(labels, torch.tensor(wanted, device=labels.device, dtype=labels.dtype))


def dilate(mask: Mask) -> Mask:
    """One voxel more in all 26 directions."""
    return max_pool3d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0


def region_slope(a: Volume, t: Volume, mask: Mask, labels: Labels, wanted: tuple[int, ...]) -> float:
    """Slope of a's region means on those of t: 1 is right, less is underestimated; nan below two regions."""
    regions = [r for r in (mask & (labels == n) for n in wanted) if r.any()]
    if len(regions) < 2:
        return nan
    x, y = (torch.stack([m[r].double().mean() for r in regions]) for m in (a, t))
    x, y = x - x.mean(), y - y.mean()
    return _ratio(float(x @ y), float(y @ y))

"""How much ghost is left: the lines of all coils depend on each other less when polarities do not fit."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import pi, tau

import torch
from jaxtyping import Complex, Float64, Int64
from scipy.optimize import minimize
from torch import Tensor

from k2chi.recon.readouts import Readouts

WINDOW = 4
"""Neighbouring lines that are looked at together."""
NEAR = 3
"""Voxels along the readout whose windows are pooled."""
FLOOR = 1e-2
"""Added to the eigenvalues, over their mean: less is noise or rounding."""
SLICES = 8
"""As many slices tell enough of a scan that has one correction."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The lines of one slice, or of the central partition, along the first phase encoding."""

    data: Complex[Tensor, "line coil x"]
    ky: Int64[Tensor, "line"]
    sign: Int64[Tensor, "line"]
    """1 where the readout was reversed, −1 where not."""


def planes(readouts: Readouts) -> dict[int, Plane]:
    """The lines of each slice, first average; a 3D scan gives its central partition. Those of one polarity
    alone tell nothing and are left out."""
    e, found = readouts.raw.encoding, {}
    parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for lines in readouts.lines():
        first = lines.average == 0
        for z in torch.unique(lines.kz).tolist():
            here = first & (lines.kz == z)
            if (e.slices or z == e.centre[2]) and here.any():
                parts.setdefault(z, []).append((lines.data[here], lines.ky[here], lines.reverse[here]))
    for z, rows in parts.items():
        data, ky, reverse = (torch.cat(column) for column in zip(*rows, strict=True))
        ky, order = torch.sort(ky.cpu())
        if reverse.any() and not reverse.all():
            found[z] = Plane(data[order], ky, torch.where(reverse.cpu()[order], 1, -1))
    return found


def cost(found: list[Plane]) -> Callable[[float, float], float]:
    """(offset, slope) → mean log of the eigenvalues of the covariance of neighbouring lines of all coils.

    Without a ghost the object fills part of the field of view and coils see it alike, so few eigenvalues are
    large; a ghost adds to their number. Polarities take half of the phase each, so their sum stays.
    """
    few = found[:: max(1, len(found) // SLICES)]
    grams = [_grams(plane) for plane in few]
    n = grams[0][1].shape[1]
    x = torch.arange(n, dtype=torch.float64) - n // 2

    def value(offset: float, slope: float) -> float:
        half = -0.5 * (offset + slope * x)
        return sum(_log_eigenvalues(sign, gram, half) for sign, gram in grams) / len(grams)

    return value


def _grams(plane: Plane) -> tuple[Int64[Tensor, "pattern row"], Complex[Tensor, "pattern x row row"]]:
    """Σ v vᴴ over the windows that have one pattern of polarities, at each place along the readout; v are
    the samples of a window's lines in all coils."""
    step = int(plane.ky.diff().mode().values)
    even = (plane.ky.diff() == step).tolist()
    rows: dict[tuple[int, ...], list[Tensor]] = {}
    for first in range(len(even) - WINDOW + 2):
        if all(even[first : first + WINDOW - 1]):
            window = slice(first, first + WINDOW)
            rows.setdefault(tuple(plane.sign[window].tolist()), []).append(plane.data[window].flatten(0, 1))
    if not rows:
        raise ValueError(
            f"no {WINDOW} lines of k-space at equal distances: the ghost cannot be found in the lines "
            "themselves; correct it by navigators"
        )
    sign = torch.tensor(list(rows)).repeat_interleave(plane.data.shape[1], 1)
    v = [torch.stack(r).permute(2, 1, 0).to(torch.complex64) for r in rows.values()]  # x row window
    return sign, torch.stack([part @ part.mH for part in v])


def _log_eigenvalues(
    sign: Int64[Tensor, "pattern row"],
    gram: Complex[Tensor, "pattern x row row"],
    half: Float64[Tensor, "x"],
) -> float:
    """Mean log of the eigenvalues after reversed lines were turned by `half` and forward ones by −`half`."""
    turn = torch.exp(1j * sign[:, None] * half[:, None]).to(gram)  # pattern x row
    whole = (turn[..., None] * gram * turn[..., None, :].conj()).sum(0)
    n = len(whole) // NEAR * NEAR
    near = whole[:n].reshape(-1, NEAR, *whole.shape[1:]).sum(1).to(torch.complex128)
    size = near.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    least = FLOOR * size + 1e-9 * size.max().clamp_min(1e-30)
    near = near + torch.diag_embed(least[:, None].expand(-1, near.shape[-1])).to(near)
    diagonal = torch.linalg.cholesky(near).diagonal(dim1=-2, dim2=-1).real
    return 2 * float(diagonal.log().mean())


def least(
    value: Callable[[float, float], float], voxels: int, shift: float, whole: bool
) -> tuple[float, float, float]:
    """Offset and slope of the least `value`, and how far it lies below that of no correction; offsets within
    π/2, or any if `whole`."""
    reach, most = tau * shift / voxels, pi if whole else pi / 2
    offsets = torch.linspace(-most, most, 33 if whole else 17).tolist()[:-1]
    slopes = torch.linspace(-reach, reach, 2 * round(6 * shift) + 1).tolist()
    best = min(product(offsets, slopes), key=lambda at: value(*at))
    simplex = [best, (best[0] + 0.1, best[1]), (best[0], best[1] + reach / 20)]
    options = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-9, "maxiter": 200}
    found = minimize(lambda at: value(*map(float, at)), best, method="Nelder-Mead", options=options)
    offset, slope = (float(v) for v in found.x)
    return offset, slope, value(0.0, 0.0) - float(found.fun)


def central(found: list[Plane], offset: float, slope: float) -> float:
    """That of `offset` and `offset` ± π which leaves more signal in the middle half of the image."""
    turned = offset - pi if offset > 0 else offset + pi
    inside = [sum(_middle(plane, o, slope) for plane in found) for o in (offset, turned)]
    return turned if inside[1] > inside[0] else offset


def _middle(plane: Plane, offset: float, slope: float) -> float:
    """Energy of the image of a plane in the middle half of the field of view."""
    voxels = plane.data.shape[-1]
    x = torch.arange(voxels, dtype=torch.float64) - voxels // 2
    turn = torch.exp(-0.5j * plane.sign[:, None] * (offset + slope * x)).to(plane.data)
    n = int(plane.ky.max()) + 1
    k = plane.data.new_zeros(n, *plane.data.shape[1:])
    k[plane.ky.to(k.device)] = plane.data * turn[:, None]
    image = torch.fft.fftshift(torch.fft.ifft(k, dim=0), dim=0)
    return float(image[n // 4 : n - n // 4].abs().square().sum())

"""The Nyquist ghost of EPI: forward and reversed readouts brought onto each other."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Complex
from scipy.optimize import minimize
from torch import Tensor

from k2chi.data import Lines
from k2chi.recon.readouts import Phase, Readouts, both, group


@dataclass(frozen=True)
class Navigated:
    """Phase of reversed against forward readouts from navigators: an offset and a slope along the readout.

    d(x) = Σ_coils conj((n₋₁ + n₊₁)/2) n₀ of neighbouring navigators, so that phase growing steadily with time
    drops out; slope = ∠Σ conj(d(x)) d(x+1), offset = ∠Σ d(x) e^(−i slope x); half of it is taken off either
    polarity, the same for all coils.
    Heid 2000, US patent 6,043,651 (three navigators);
    Ahn & Cho 1987, IEEE TMI 6:32, doi:10.1109/TMI.1987.4307795 (slope by autocorrelation).
    A wrong offset shows little in the magnitude and much in the phase. Costs next to nothing.
    """

    each: Literal["shot", "slice", "scan"] = "shot"
    """What has a correction of its own; where it has no navigators it takes that of the whole scan."""

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None where there is nothing to compare."""
        navigators = readouts.navigators()
        if navigators is None:
            if readouts.raw.encoding.train > 1:
                warnings.warn(
                    "EPI without navigators: the ghost is not corrected; take Refined(start=None)",
                    stacklevel=2,
                )
            return None
        n = navigators.reverse.numel()
        if not navigators.reverse.any() or navigators.reverse.all() or n < 2:
            return None
        pooled = torch.zeros(navigators.data.shape[-1], dtype=torch.complex128)
        found = {}
        for key, index in group(navigators, self.each).items():
            d = difference(navigators.data[index], navigators.reverse[index])
            pooled += d
            if d.abs().sum() > 0:
                found[key] = offset_and_slope(d, readouts.middle)
        whole = offset_and_slope(pooled, readouts.middle)
        return _halves(found, whole, self.each)


@dataclass(frozen=True)
class Refined:
    """Offset and slope between polarities at which the image has the least ghost, from no extra readouts.

    Minimises the entropy −Σ (|I|/B) ln(|I|/B), B² = Σ|I|², of the coil images I₊ e^(iθ/2) + I₋ e^(−iθ/2):
    I± are the images of forward and reversed readouts alone and θ is offset + slope · x. A table of values
    around `start`, then a simplex search.
    Clare 2003, Proc ISMRM 11:1041 (entropy);
    McKay et al. 2019, MRM 81:2624, doi:10.1002/mrm.27563 (such methods compared).
    An offset wrong by π gives an image moved by half the field of view and no other sign of it: without
    navigators the one with more signal in the middle is taken. Undersampled readouts and phases of shots
    mislead it, whatever `sure` is; where neither is the case, try it beside `Navigated`. Looks at the central
    partition of a 3D scan. About 400 images of one slice.
    """

    start: Navigated | None = Navigated()
    """Where the search begins; None where there are no navigators."""
    each: Literal["slice", "scan"] = "scan"
    """Slices each on their own, or all together; a 3D scan is one."""
    shift: float = 0.5
    """Largest shift between the polarities beyond `start` [samples of k-space, without oversampling]."""
    sure: float = 0.002
    """Share by which the entropy has to fall below that of `start`, or `start` is believed; navigators that
    are right lose up to 0.0001 by chance, those of a real phantom scan that were not lost 0.01."""

    def __post_init__(self) -> None:
        if self.sure < 0:
            raise ValueError(f"Refined sure {self.sure} is no share: choose 0 or more")
        if not 0 < self.shift <= 8:
            raise ValueError(f"Refined shift {self.shift} is out of range: choose 0 < shift <= 8")

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None where all have one polarity."""
        start = self.start(readouts) if self.start is not None else None
        planes = _planes(readouts if start is None else readouts.without(start), self.each)
        if not planes:
            return start
        found = {}
        for key, plane in planes.items():
            offset, slope, gain = _least(*plane, self.shift, start is None)
            found[key] = (offset, slope) if start is None or gain > self.sure else (0.0, 0.0)
        rest = _halves(found, next(iter(found.values())), self.each)
        return rest if start is None else both(start, rest)


GhostCorrection = Navigated | Refined


def difference(n: Complex[Tensor, "line coil x"], reverse: Bool[Tensor, "line"]) -> Complex[Tensor, "x"]:
    """conj(forward) · reversed, summed over coils and over all neighbours in a row of navigators."""
    n = n.to(torch.complex128)
    out = torch.zeros(n.shape[-1], dtype=n.dtype, device=n.device)
    last = len(n) - 1
    for i in range(len(n)):
        near = [j for j in (i - 1, i + 1) if 0 <= j <= last and reverse[j] != reverse[i]]
        if len(near) == 2 or (last == 1 and near and not reverse[i]):
            other = sum((n[j] for j in near), torch.zeros_like(n[i])) / len(near)
            d = (other.conj() * n[i]).sum(0)
            out += d if reverse[i] else d.conj()
    return out.cpu()


def offset_and_slope(d: Complex[Tensor, "x"], middle: int) -> tuple[float, float]:
    """Phase of d at `middle` [rad] and its slope [rad/voxel], by autocorrelation: no wrap is in the way."""
    slope = torch.angle((d[:-1].conj() * d[1:]).sum())
    x = torch.arange(len(d), dtype=torch.float64) - middle
    return float(torch.angle((d * torch.exp(-1j * slope * x)).sum())), float(slope)


def _halves(
    found: dict[tuple[int, ...], tuple[float, float]], whole: tuple[float, float], each: str
) -> Phase:
    """Half of what was found for each group to reversed readouts, minus half to forward ones."""

    def phase(lines: Lines) -> tuple[Tensor, Tensor]:
        half = torch.where(lines.reverse, 0.5, -0.5).double()
        values = torch.empty(len(half), 2, dtype=torch.float64)
        for key, index in group(lines, each).items():
            values[index] = torch.tensor(found.get(key, whole), dtype=torch.float64)
        return half * values[:, 0].to(half), half * values[:, 1].to(half)

    return phase


# ---- the least ghost ---------------------------------------------------------------------------------------


def _planes(readouts: Readouts, each: str) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
    """Coil images (slice, coil, x, y) of forward and of reversed readouts alone; a 3D scan gives that of its
    central partition. Empty where all readouts have one polarity."""
    e, n = readouts.raw.encoding, readouts.raw.grid.shape
    depth = n[2] if e.slices else 1
    images: dict[bool, Tensor] = {}
    for lines in readouts.lines():
        first = lines.average == 0
        for polarity in (False, True):
            here = first & (lines.reverse == polarity) & (e.slices or lines.kz == e.centre[2])
            if not here.any():
                continue
            data = lines.data[here]
            if polarity not in images:
                images[polarity] = data.new_zeros(depth, data.shape[1], data.shape[2], n[1])
            z = lines.kz[here] if e.slices else 0 * lines.kz[here]
            images[polarity][z, :, :, (lines.ky[here] - e.centre[1]) % n[1]] = data
    if len(images) < 2:
        return {}
    forward, reverse = (torch.fft.ifft(images[p], norm="ortho").roll(n[1] // 2, -1) for p in (False, True))
    if each == "scan" or not e.slices:
        return {(0,): (forward, reverse)}
    return {(z,): (forward[z : z + 1], reverse[z : z + 1]) for z in range(depth)}


def _least(forward: Tensor, reverse: Tensor, shift: float, free: bool) -> tuple[float, float, float]:
    """Offset and slope of `reverse` that leave the least entropy, and the share by which it falls; offsets
    within π/2, or any if `free`."""
    n = forward.shape[2]
    x = torch.arange(n, dtype=torch.float64, device=forward.device) - n // 2

    def image(offset: float, slope: float) -> Tensor:
        half = torch.exp(-0.5j * (offset + slope * x)).to(forward)[:, None]
        return forward * half.conj() + reverse * half

    def entropy(at: Iterable[float]) -> float:
        a = image(*(float(v) for v in at)).abs()
        a = a / a.norm()
        return -float(torch.special.xlogy(a, a).sum())

    reach = 2 * torch.pi * shift / n
    table = [
        (offset, slope)
        for offset in torch.linspace(-torch.pi / 2, torch.pi / 2, 16).tolist()[:-1]
        for slope in torch.linspace(-reach, reach, 2 * round(6 * shift) + 1).tolist()
    ]
    best = min(table, key=entropy)
    simplex = [best, (best[0] + 0.1, best[1]), (best[0], best[1] + reach / 20)]
    options = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-9, "maxiter": 200}
    least = minimize(entropy, best, method="Nelder-Mead", options=options)
    offset, slope = (float(v) for v in least.x)
    gain = entropy((0.0, 0.0)) / float(least.fun) - 1
    if free:
        turned = offset - torch.pi if offset > 0 else offset + torch.pi
        middle = slice(forward.shape[3] // 4, -(forward.shape[3] // 4))
        inside = [float(image(o, slope)[..., middle].abs().square().sum()) for o in (offset, turned)]
        offset = turned if inside[1] > inside[0] else offset
    return offset, slope, gain

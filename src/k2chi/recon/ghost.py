"""The Nyquist ghost of EPI: forward and reversed readouts brought onto each other."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from k2chi.data import Lines
from k2chi.recon.ghostrank import central, cost, least, planes
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
    """Offset and slope between polarities at which lines depend on each other most, from no extra readouts.

    Minimises log det C, summed over places along the readout; C is the covariance of four neighbouring lines
    of all coils after each polarity took half of the phase. A ghost widens the object and looks to the coils
    as no object can, and C gets more large eigenvalues.
    Peterson et al. 2015, Proc ISMRM 23:75 (least energy of the small singular values);
    McKay et al. 2019, MRM 81:2624, doi:10.1002/mrm.27563 (such methods compared).
    Undersampled readouts do no harm while their lines lie at equal distances; phases of shots do some. In a
    scan whose lines alternate one by one an offset wrong by π gives an image moved by half the field of view
    and no other sign of it: without navigators the one with more signal in the middle is taken, which says
    nothing where lines were left out. Looks at the central partition of a 3D scan. A second for a slice.
    """

    start: Navigated | None = Navigated()
    """Where the search begins; None where there are no navigators."""
    each: Literal["slice", "scan"] = "scan"
    """Slices each on their own, or all together; a 3D scan is one."""
    shift: float = 0.5
    """Largest shift between the polarities beyond `start` [samples of k-space, without oversampling]."""
    sure: float = 0.005
    """How far the mean log of the eigenvalues has to fall below that of `start`, or `start` is believed;
    navigators that are right lose up to 0.002, those of a real phantom scan that were not lost 0.02."""

    def __post_init__(self) -> None:
        if self.sure < 0:
            raise ValueError(f"Refined sure {self.sure} is no distance: choose 0 or more")
        if not 0 < self.shift <= 8:
            raise ValueError(f"Refined shift {self.shift} is out of range: choose 0 < shift <= 8")

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None where all have one polarity."""
        start = self.start(readouts) if self.start is not None else None
        seen = planes(readouts if start is None else readouts.without(start))
        if not seen:
            return start
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        voxels = readouts.raw.grid.shape[0]
        apart = self.each == "slice" and readouts.raw.encoding.slices
        parts = {(z,): [p] for z, p in seen.items()} if apart else {(0,): list(seen.values())}
        for key, these in parts.items():
            offset, slope, gain = least(cost(these), voxels, self.shift, start is None)
            if start is None:
                offset = central(these, offset, slope)
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

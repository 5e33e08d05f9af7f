"""What the numbers in a phase file mean: scanners and converters store a turn in many ways."""

from dataclasses import dataclass
from math import pi, tau

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class PhaseScale:
    """radians = factor × value + offset, with what was concluded in words."""

    factor: float
    offset: float
    header: bool
    """True if the value is the file's after its header scaling, False if as stored."""
    unwrapped: bool
    says: str

    def __call__(self, value: Tensor) -> Tensor:
        return value * self.factor + self.offset


def jumps(
    value: Float[Tensor, "echo x y z"], over: float, where: Bool[Tensor, "x y z"] | None = None
) -> float:
    """Share of neighbouring voxels that differ by more than `over`; zeros and non-finite are left out."""
    counted = far = 0
    good = torch.isfinite(value) & (value != 0)
    if where is not None:
        good &= where
    for axis in (1, 2, 3):
        n = value.shape[axis] - 1
        both = good.narrow(axis, 1, n) & good.narrow(axis, 0, n)
        apart = (value.narrow(axis, 1, n) - value.narrow(axis, 0, n)).abs()
        counted += int(both.sum())
        far += int((apart[both] > over).sum())
    return far / max(counted, 1)


def spikes(value: Float[Tensor, "x y z"]) -> float:
    """Share of voxels that lie half the range above, or below, both neighbours along the first axis."""
    half = float(value.max() - value.min()) / 2
    step = value.diff(dim=0)
    return float(
        ((step[1:].abs() > half) & (step[:-1].abs() > half) & (step[1:] * step[:-1] < 0)).float().mean()
    )


def _range(value: Tensor) -> tuple[float, float]:
    finite = value[torch.isfinite(value)]
    if not finite.numel():
        raise ValueError("holds no finite number")
    return float(finite.min()), float(finite.max())


def _turn(lo: float, hi: float) -> bool:
    return -pi * 1.002 <= lo and hi <= pi * 1.002 and hi - lo > 0.9 * tau


def _integers(lo: float, hi: float) -> tuple[float, float, str] | None:
    """Factor, offset and words for a range of whole numbers that a scanner is known to write."""
    top = max(abs(lo), abs(hi))
    if abs(top - 1000 * pi) < 2 and lo < -1000 * pi * 0.95:
        return 1e-3, 0.0, "−3142…3142 mrad"
    if lo < 0 and 175 <= top <= 180:
        return pi / 180, 0.0, "−180…180 degrees"
    if lo >= 0 and 350 <= top <= 360:
        return pi / 180, -pi, "0…360 degrees"
    for full in (128, 512, 2048, 4096, 8192, 16384, 32768):
        if lo < 0 and 0.9 * full < top <= full and -lo > 0.5 * full and hi > 0.5 * full:
            return pi / full, 0.0, f"−{full}…{full - 1 if hi < full else full}"
        if lo >= 0 and 0.9 * 2 * full < hi + 1 <= 2 * full + 1:
            return pi / full, -pi, f"0…{2 * full - 1 if hi < 2 * full else 2 * full}"
    return None


def phase_scale(
    stored: Float[Tensor, "echo x y z"],
    slope: float = 1.0,
    inter: float = 0.0,
    trusted: Bool[Tensor, "x y z"] | None = None,
    unwrapped: bool = False,
) -> PhaseScale:
    """Conclude from range and wraps how phase is stored.

    `trusted` marks voxels with signal; wraps are looked for there. `unwrapped` says that the user knows
    the phase to be in radians and without wraps. Raises ValueError where nothing fits.
    """
    value = stored * slope + inter
    lo, hi = _range(value)
    if lo == hi:
        raise ValueError(f"is {lo:g} everywhere: this is no phase; give the phase file")
    if unwrapped:
        return PhaseScale(1.0, 0.0, True, True, f"unwrapped phase in radians, {lo:.4g}…{hi:.4g}, as you said")
    if _turn(lo, hi):
        return PhaseScale(1.0, 0.0, True, False, "phase in radians, −π…π")
    raw = _range(stored)
    if (slope, inter) != (1.0, 0.0) and _turn(*raw):
        says = f"stored phase is −π…π already: its header slope {slope:.4g} is stray and was ignored"
        return PhaseScale(1.0, 0.0, False, False, says)
    if lo >= 0 and 0.9 * tau < hi <= 1.002 * tau:
        return PhaseScale(1.0, 0.0, True, False, "phase in radians, 0…2π")
    sample = value[torch.isfinite(value)][:: max(1, value.numel() // 100_000)]
    whole = bool((sample == sample.round()).all())
    known = _integers(lo, hi)
    wrapped = jumps(value, (hi - lo) / 2, trusted) > 1e-3
    if known and (whole or wrapped):
        return PhaseScale(known[0], known[1], True, False, f"phase stored as {known[2]}, scaled to −π…π")
    step = jumps(value, pi, trusted)
    if not whole and hi - lo > 1.02 * tau and step < 0.01:
        says = f"phase runs from {lo:.4g} to {hi:.4g} rad without wraps: taken as unwrapped already"
        return PhaseScale(1.0, 0.0, True, True, says)
    if not whole and max(-lo, hi) <= 3 * pi and hi - lo > 1.02 * tau:
        return PhaseScale(
            1.0, 0.0, True, False, f"phase in radians, {lo:.3g}…{hi:.3g}, wrapped again to −π…π"
        )
    if wrapped:
        factor = tau / (hi - lo)
        says = f"unknown phase unit: its range {lo:.6g}…{hi:.6g} was taken as one turn, −π…π"
        return PhaseScale(factor, -pi - lo * factor, True, False, says)
    if not whole and hi - lo <= 1.02 * tau:
        return PhaseScale(1.0, 0.0, True, False, f"phase taken as radians, {lo:.3g}…{hi:.3g} (no wraps seen)")
    raise ValueError(
        f"runs from {lo:g} to {hi:g} and shows no wraps: its unit cannot be told; "
        "scale it to radians, or pass --unwrapped if it is unwrapped phase in radians"
    )

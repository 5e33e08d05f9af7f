"""What to do about the phase that is there at TE = 0."""

from dataclasses import dataclass, replace
from math import tau
from typing import Literal

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from k2chi.data import Echoes, Vector
from k2chi.field.brain import BrainMask
from k2chi.field.romeo import unwrap_in_space
from k2chi.field.smooth import smooth_phase
from k2chi.ops.smooth import finite
from k2chi.progress import track

OddEven = Literal["smooth", "ramp"]
"""What echoes read backwards may carry: any smooth phase, or a constant and a slope along each axis."""


@dataclass(frozen=True)
class KeepOffset:
    """Leave the phase as it is: for offsets already removed, or fits that have an intercept.

    No source: nothing is computed.
    """

    def __call__(self, echoes: Echoes) -> Echoes:
        """The very same echoes."""
        return echoes


@dataclass(frozen=True)
class MCPC3DS:
    """Subtract the phase at TE = 0, found from the first two echoes and smoothed.

    The Hermitian inner product of echoes 1 and 2 carries the phase gained between them; unwrapped in space
    and scaled by TE₁/(TE₂ − TE₁) it predicts that of echo 1 without offset: φ₀ = φ₁ − φ_gain. The offset is
    smoothed as a phasor, in a way that keeps its slope at the edge of the head (`smooth_phase`). A whole turn
    in the gain changes offset and field by a constant only.

    Eckstein et al. 2018, Magn Reson Med 79:2996, doi:10.1002/mrm.26963; echoes here are combined over coils,
    `MCPC3DSCoils` combines them.
    Bipolar read-out, three echoes or more: echoes 2, 4, … carry an extra smooth phase d, which the offset
    takes in too; φ₁ + φ₃ − kφ₂ with k = (TE₁ + TE₃)/TE₂ shows it, and it is smoothed likewise (mostly a ramp
    along the read-out: Li et al. 2015, MAGMA 28:347) and removed. With two bipolar echoes d cannot be told
    from the field and stays; with uneven echo times the mean field must be within half a turn at TE₂.
    One echo is returned unchanged. Only voxels inside the mask are looked at, since the chemical shift of fat
    would mislead; without one, `BrainMask` finds it. About 4 s at 164×205×205.
    """

    sigma_mm: float = 10.0
    """Standard deviation of the Gaussian [mm]; larger than any anatomy, smaller than the head."""
    odd_even: OddEven = "smooth"
    """What even echoes of a bipolar scan may carry: any `smooth` phase, or a `ramp` along the three axes."""

    def __post_init__(self) -> None:
        check_sigma("MCPC3DS", self.sigma_mm)

    def __call__(self, echoes: Echoes) -> Echoes:
        """Echoes whose phase is proportional to TE, apart from noise and flow."""
        te = echoes.scan.te_s
        if len(te) < 2:
            return echoes
        product = finite(echoes.signal[1]) * finite(echoes.signal[0]).conj()
        mask = mask_of(echoes)
        gain = unwrap_in_space(product.angle(), product.abs().sqrt(), mask)
        return without_offset(echoes, gain, te[0] / (te[1] - te[0]), mask, self.sigma_mm, self.odd_even)


def check_sigma(who: str, sigma_mm: float) -> None:
    """Refuse a Gaussian without width."""
    if sigma_mm <= 0:
        raise ValueError(f"{who} sigma_mm {sigma_mm}: choose a positive width in mm")


def mask_of(echoes: Echoes) -> Bool[Tensor, "x y z"]:
    """The echoes' mask, or one that `BrainMask` finds."""
    mask = (echoes if echoes.mask is not None else BrainMask()(echoes)).mask
    assert mask is not None
    return mask


def without_offset(
    echoes: Echoes,
    gain_rad: Float[Tensor, "x y z"],
    m: float,
    mask: Bool[Tensor, "x y z"],
    sigma_mm: float,
    odd_even: OddEven,
) -> Echoes:
    """Take off the smoothed φ₁ − m·gain and, in bipolar scans, what even echoes carry more than odd ones."""
    first, voxel = finite(echoes.signal[0]), echoes.grid.voxel_mm
    strength = (finite(echoes.signal[1]).abs() * first.abs()).sqrt() * mask
    apart = first * torch.polar(strength, -m * gain_rad)
    offset = smooth_phase(apart, sigma_mm, voxel).on_voxels(echoes.grid.shape)
    signal = echoes.signal * torch.polar(torch.ones_like(offset), -offset)
    if echoes.scan.bipolar:
        take_off_odd_even(signal, echoes.scan.te_s, mask, sigma_mm, voxel, odd_even)
    return replace(echoes, signal=signal)


def take_off_odd_even(
    signal: Complex[Tensor, "echo x y z"],
    te: tuple[float, ...],
    mask: Bool[Tensor, "x y z"],
    sigma_mm: float,
    voxel_mm: Vector,
    odd_even: OddEven,
) -> None:
    """Change `signal`, whose offset was found from echoes 1 and 2, so that odd and even echoes agree."""
    if len(te) < 3:
        return
    extra = _odd_even(finite(signal[:3] * mask), te, sigma_mm, voxel_mm, odd_even == "ramp")
    m = te[0] / (te[1] - te[0])
    for k in track(len(te), "bipolar correction"):
        share = m if k % 2 == 0 else m + 1
        signal[k] *= torch.polar(torch.ones_like(extra), -share * extra)


def _odd_even(
    s: Complex[Tensor, "3 x y z"], te: tuple[float, ...], sigma_mm: float, voxel_mm: Vector, ramp: bool
) -> Float[Tensor, "x y z"]:
    """Phase [rad] of the even echoes against the odd ones, from the first three after offset removal."""
    k, m = (te[0] + te[2]) / te[1], te[0] / (te[1] - te[0])
    gain = (2 - k) * m - k
    weight = s.abs().amin(0)
    second = s[1].angle()
    if abs(k - round(k)) > 1e-3:  # whole turns of echo 2 matter only then
        second = unwrap_in_space(second, weight)
    shown = torch.polar(weight, s[0].angle() + s[2].angle() - k * second)
    nx, ny, nz = weight.shape
    extra = smooth_phase(shown, sigma_mm, voxel_mm, ramp).on_voxels((nx, ny, nz))
    # A whole turn here is a constant in the field: take the one nearest to zero.
    middle = float((extra * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny))
    return (extra - tau * round(middle / tau)) / gain

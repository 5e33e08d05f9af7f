"""What to do about the phase that is there at TE = 0."""

from dataclasses import dataclass, replace
from math import tau

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Echoes, Vector
from k2chi.field.romeo import unwrap_in_space
from k2chi.field.smooth import gaussian
from k2chi.progress import track


@dataclass(frozen=True)
class KeepOffset:
    """Leave the phase as it is: for offsets already removed, or fits that have an intercept."""

    def __call__(self, echoes: Echoes) -> Echoes:
        """The very same echoes."""
        return echoes


@dataclass(frozen=True)
class MCPC3DS:
    """Subtract the phase at TE = 0, found from the first two echoes and smoothed.

    The Hermitian inner product of echoes 1 and 2 carries the phase gained between them; unwrapped in space
    and scaled by TE₁/(TE₂ − TE₁) it predicts that of echo 1 without offset: φ₀ = φ₁ − φ_gain. The offset is
    smoothed as a phasor, twice: what the first pass leaves is smoothed again and added, which keeps the
    slope of the offset at the edge of the head. A whole turn in the gain changes offset and field by a
    constant only.

    Eckstein et al. 2018, Magn Reson Med 79:2996, doi:10.1002/mrm.26963; echoes here are combined over coils.
    Bipolar read-out, three echoes or more: echoes 2, 4, … carry an extra smooth phase d, which the offset
    takes in too; φ₁ + φ₃ − kφ₂ with k = (TE₁ + TE₃)/TE₂ shows it, and it is removed as a ramp along each
    axis (Li et al. 2015, MAGMA 28:347, doi:10.1007/s10334-014-0466-1) and a smoothed rest. With two bipolar
    echoes d cannot be told from the field and stays. One echo is returned unchanged. About 4 s at
    164×205×205 on two cores.
    """

    sigma_mm: float = 10.0
    """Standard deviation of the Gaussian [mm]; larger than any anatomy, smaller than the head."""

    def __post_init__(self) -> None:
        if self.sigma_mm <= 0:
            raise ValueError(f"MCPC3DS sigma_mm {self.sigma_mm}: choose a positive width in mm")

    def __call__(self, echoes: Echoes) -> Echoes:
        """Echoes whose phase is proportional to TE, apart from noise and flow."""
        te = echoes.scan.te_s
        if len(te) < 2:
            return echoes
        s = torch.where(echoes.signal.isfinite(), echoes.signal, torch.zeros_like(echoes.signal))
        voxel = echoes.grid.voxel_mm
        m = te[0] / (te[1] - te[0])
        product = s[1] * s[0].conj()
        strength = product.abs().sqrt()
        gain = unwrap_in_space(product.angle(), strength, echoes.mask)
        apart = torch.polar(s[0].abs(), s[0].angle() - m * gain) * strength
        offset = smooth_phasor(apart, self.sigma_mm, voxel)
        signal = echoes.signal * offset.conj()
        if echoes.scan.bipolar and len(te) >= 3:
            extra = _odd_even(signal[:3], te, self.sigma_mm, voxel)
            for k in track(len(te), "bipolar correction"):
                share = m if k % 2 == 0 else m + 1
                signal[k] *= torch.polar(torch.ones_like(extra), -share * extra)
        return replace(echoes, signal=signal)


def smooth_phasor(x: Complex[Tensor, "x y z"], sigma_mm: float, voxel_mm: Vector) -> Complex[Tensor, "x y z"]:
    """Unit phasor of `x` smoothed by a Gaussian, plus the smoothed remainder; magnitude is the weight."""
    first = _unit(gaussian(x, sigma_mm, voxel_mm))
    rest = _unit(gaussian(x * first.conj(), sigma_mm, voxel_mm))
    return first * rest


def _unit(x: Tensor) -> Tensor:
    size = x.abs()
    return torch.where(size > 0, x / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(x))


def _odd_even(
    s: Complex[Tensor, "3 x y z"], te: tuple[float, ...], sigma_mm: float, voxel_mm: Vector
) -> Float[Tensor, "x y z"]:
    """Phase [rad] of the even echoes against the odd ones, from the first three after offset removal."""
    k, m = (te[0] + te[2]) / te[1], te[0] / (te[1] - te[0])
    gain = (2 - k) * m - k
    weight = s.abs().amin(0)
    second = s[1].angle()
    if abs(k - round(k)) > 1e-3:  # whole turns of echo 2 matter only then
        second = unwrap_in_space(second, weight)
    weight = torch.where(weight.isfinite(), weight, torch.zeros_like(weight))
    phase = (s[0].angle() + s[2].angle() - k * second).nan_to_num()
    shown = torch.polar(weight, phase)
    ramp = torch.zeros_like(weight)
    for axis in range(3):
        n = shown.shape[axis]
        slope = (shown.narrow(axis, 1, n - 1) * shown.narrow(axis, 0, n - 1).conj()).sum().angle()
        at = torch.arange(n, device=weight.device, dtype=weight.dtype) - n // 2
        ramp = ramp + slope * at.reshape([-1 if a == axis else 1 for a in range(3)])
    rest = shown * torch.polar(torch.ones_like(ramp), -ramp)
    middle = rest.sum().angle()
    rest = smooth_phasor(rest * torch.polar(torch.ones_like(middle), -middle), sigma_mm, voxel_mm).angle()
    # A whole turn in what is shown is a constant in the field: take the constant nearest to zero.
    middle = middle - tau * torch.round(middle / tau)
    return (ramp + middle + rest) / gain

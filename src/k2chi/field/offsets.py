"""What to do about the phase that is there at TE = 0."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import tau

import torch
import torch.nn.functional as functional
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Echoes, Vector
from k2chi.field.brain import BrainMask
from k2chi.field.romeo import unwrap_in_space
from k2chi.field.smooth import gaussian
from k2chi.progress import track


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

    Eckstein et al. 2018, Magn Reson Med 79:2996, doi:10.1002/mrm.26963; echoes here are combined over coils.
    Bipolar read-out, three echoes or more: echoes 2, 4, … carry an extra smooth phase d, which the offset
    takes in too; φ₁ + φ₃ − kφ₂ with k = (TE₁ + TE₃)/TE₂ shows it, and it is smoothed likewise (mostly a ramp
    along the read-out: Li et al. 2015, MAGMA 28:347) and removed. With two bipolar echoes d cannot be told
    from the field and stays. One echo is returned unchanged. Only voxels inside the mask are looked at, since
    the chemical shift of fat would mislead; without one, `BrainMask` finds it. About 4 s at 164×205×205.
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
        mask = (echoes if echoes.mask is not None else BrainMask()(echoes)).mask
        assert mask is not None
        gain = unwrap_in_space(product.angle(), strength, mask)
        apart = torch.polar(s[0].abs(), s[0].angle() - m * gain) * strength * mask
        offset = smooth_phase(apart, self.sigma_mm, voxel)
        signal = echoes.signal * torch.polar(torch.ones_like(offset), -offset)
        if echoes.scan.bipolar and len(te) >= 3:
            extra = _odd_even(signal[:3] * mask, te, self.sigma_mm, voxel)
            for k in track(len(te), "bipolar correction"):
                share = m if k % 2 == 0 else m + 1
                signal[k] *= torch.polar(torch.ones_like(extra), -share * extra)
        return replace(echoes, signal=signal)


def smooth_phase(x: Complex[Tensor, "x y z"], sigma_mm: float, voxel_mm: Vector) -> Float[Tensor, "x y z"]:
    """The smooth phase [rad] underneath `x`, whose magnitude is its weight.

    Smoothing a slope drags it inwards at the edge of the head, and smoothing a bowl lifts it. So a quadratic
    is fitted and taken off first, the rest is smoothed as a phasor, and so is what that leaves. All of it on
    blocks of a quarter of `sigma_mm`.
    """
    size = [max(1, round(sigma_mm / 4 / v)) for v in voxel_mm]
    edge = (voxel_mm[0] * size[0], voxel_mm[1] * size[1], voxel_mm[2] * size[2])
    blocks = _block_means(x, size)
    rough = gaussian(blocks, sigma_mm / 2, edge)
    bowl = unwrap_in_space(rough.angle(), rough.abs())
    terms, fine = _quadratic(bowl.shape, size, x), _quadratic(x.shape, [1, 1, 1], x)
    design = torch.stack([t.expand(bowl.shape).reshape(-1) for t in terms]).double()
    weight = blocks.abs().reshape(-1).double()
    gram = (design * weight) @ design.T + 1e-9 * weight.sum() * torch.eye(len(terms)).to(design)
    coarse, smooth = torch.zeros_like(bowl), torch.zeros_like(x.real)
    misses, rest = bowl, blocks
    for _ in range(4):  # first to the smoothed phase, then to what that leaves of the phase itself
        factors = torch.linalg.solve(gram, (design * weight) @ misses.reshape(-1).double())
        for factor, c, f in zip(factors.tolist(), terms, fine, strict=True):
            coarse += factor * c
            smooth += factor * f
        rest = blocks * torch.polar(torch.ones_like(coarse), -coarse)
        misses = rest.angle()
    first = _unit(gaussian(rest, sigma_mm, edge))
    second = _unit(gaussian(rest * first.conj(), sigma_mm, edge))
    parts = torch.view_as_real(first * second).movedim(-1, 0)[None]
    full = [n * k for n, k in zip(bowl.shape, size, strict=True)]
    real, imaginary = functional.interpolate(parts, size=full, mode="trilinear")[0]
    nx, ny, nz = x.shape
    return smooth + torch.atan2(imaginary, real)[:nx, :ny, :nz]


def _block_means(x: Tensor, size: list[int]) -> Tensor:
    """Means over blocks of `size` voxels; zeros beyond the end of the array."""
    pad = [(-n) % k for n, k in zip(x.shape, size, strict=True)]
    parts = torch.view_as_real(x).movedim(-1, 0)
    parts = functional.pad(parts, (0, pad[2], 0, pad[1], 0, pad[0]))
    mean = functional.avg_pool3d(parts[None], size)[0]
    return torch.complex(mean[0], mean[1])


def _quadratic(shape: Sequence[int], size: Sequence[int], like: Tensor) -> list[Tensor]:
    """1, x, y, z and their products at the centres of blocks of `size` voxels, for broadcasting."""
    axes = []
    for a, (n, k) in enumerate(zip(shape, size, strict=True)):
        at = (torch.arange(n, device=like.device, dtype=torch.float64) + 0.5) * k / 100
        axes.append(at.to(like.real.dtype).reshape([-1 if a == j else 1 for j in range(3)]))
    linear = [torch.ones_like(axes[0]), *axes]
    return [*linear, *(axes[i] * axes[j] for i in range(3) for j in range(i, 3))]


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
    phase = s[0].angle() + s[2].angle() - k * second
    shown = torch.polar(weight.nan_to_num(0, 0, 0), phase.nan_to_num(0, 0, 0))
    extra = smooth_phase(shown, sigma_mm, voxel_mm)
    # A whole turn here is a constant in the field: take the one nearest to zero.
    inside = weight.nan_to_num(0, 0, 0)
    middle = float((extra * inside).sum() / inside.sum().clamp_min(torch.finfo(inside.dtype).tiny))
    return (extra - tau * round(middle / tau)) / gain

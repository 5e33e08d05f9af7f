"""Smoothing with a Gaussian of any width in mm, and of phase, at a cost that does not depend on the width."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as functional
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from k2chi.data import Size, Vector
from k2chi.field.romeo import unwrap_in_space


def _gaussian_rows(n: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """Row i holds a Gaussian around voxel i, cut off at the ends of the axis and not renormalised."""
    at = torch.arange(n, device=device, dtype=torch.float64)
    rows = torch.exp(-0.5 * ((at[:, None] - at) / max(sigma, 1e-3)).square())
    return (rows / rows.sum(1).max()).to(dtype)


def gaussian(
    x: Shaped[Tensor, "*batch x y z"], sigma_mm: float, voxel_mm: Vector
) -> Shaped[Tensor, "*batch x y z"]:
    """Smooth a real or complex volume over its last three axes; zeros are assumed beyond the array.

    Each axis is one product with a dense matrix: 164×205×205 takes 0.15 s a real volume on two cores at
    any width. Divide by the smoothed weight to undo the loss at the border.
    """
    if x.is_complex():
        parts = torch.view_as_real(x).movedim(-1, 0)
        return torch.complex(gaussian(parts[0], sigma_mm, voxel_mm), gaussian(parts[1], sigma_mm, voxel_mm))
    nx, ny, nz = x.shape[-3:]
    sx, sy, sz = (sigma_mm / v for v in voxel_mm)
    out = x @ _gaussian_rows(nz, sz, x.device, x.dtype).T
    out = _gaussian_rows(ny, sy, x.device, x.dtype) @ out
    flat = out.reshape(*x.shape[:-3], nx, ny * nz)
    return (_gaussian_rows(nx, sx, x.device, x.dtype) @ flat).reshape(x.shape)


def block_of(edge_mm: float, voxel_mm: Vector) -> Size:
    """How many voxels make a block of about `edge_mm`, one or more along each axis."""
    x, y, z = (max(1, round(edge_mm / v)) for v in voxel_mm)
    return x, y, z


def block_mm(block: Size, voxel_mm: Vector) -> Vector:
    """Edges of a block [mm]."""
    return voxel_mm[0] * block[0], voxel_mm[1] * block[1], voxel_mm[2] * block[2]


def block_means(x: Complex[Tensor, "x y z"], block: Size) -> Complex[Tensor, "i j k"]:
    """Means over blocks of voxels; zeros beyond the end of the array."""
    pad = [(-n) % k for n, k in zip(x.shape, block, strict=True)]
    parts = torch.view_as_real(x.resolve_conj()).movedim(-1, 0)
    parts = functional.pad(parts, (0, pad[2], 0, pad[1], 0, pad[0]))
    mean = functional.avg_pool3d(parts[None], block)[0]
    return torch.complex(mean[0], mean[1])


def refined(x: Complex[Tensor, "i j k"], block: Size, shape: Size) -> Complex[Tensor, "x y z"]:
    """From blocks back to voxels, linear between the centres of blocks."""
    if prod(block) > 1:
        parts = torch.view_as_real(x).movedim(-1, 0)[None]
        full = [n * k for n, k in zip(x.shape, block, strict=True)]
        real, imaginary = functional.interpolate(parts, size=full, mode="trilinear")[0]
        x = torch.complex(real, imaginary)
    return x[: shape[0], : shape[1], : shape[2]]


@dataclass(frozen=True, eq=False)
class SmoothPhase:
    """A smooth phase: a quadratic in x, y and z, and on blocks of voxels what differs from it."""

    factors: tuple[float, ...]
    """Of 1, x, y, z and perhaps xx, xy, xz, yy, yz, zz, in 100 voxels from the corner of the array."""
    rest: Complex[Tensor, "i j k"]
    """Unit phasor of the phase that the quadratic leaves."""
    block: Size

    def phasor(self) -> Complex[Tensor, "i j k"]:
        """exp i of the phase at the centres of the blocks."""
        return self.rest * torch.polar(
            torch.ones_like(self.rest.real), self._quadratic(self.block, self.rest)
        )

    def on_voxels(self, shape: Size) -> Float[Tensor, "x y z"]:
        """The phase [rad] in each voxel, free of wraps."""
        rest = refined(self.rest, self.block, shape).angle()
        return rest + self._quadratic((1, 1, 1), rest)

    def _quadratic(self, block: Size, like: Tensor) -> Tensor:
        total = torch.zeros_like(like.real if like.is_complex() else like)
        for factor, term in zip(self.factors, quadratic_terms(like.shape, block, total), strict=False):
            total += factor * term
        return total


def smooth_phase(
    x: Complex[Tensor, "x y z"], sigma_mm: float, voxel_mm: Vector, ramp: bool = False
) -> SmoothPhase:
    """The smooth phase under `x`, whose magnitude is its weight; with `ramp` only a plane in x, y and z.

    Smoothing a slope drags it inwards at the edge of the head, and smoothing a bowl lifts it. So a quadratic
    is fitted and taken off first, the rest is smoothed as a phasor, and so is what that leaves. All of it on
    blocks of a quarter of `sigma_mm`.
    """
    block = block_of(sigma_mm / 4, voxel_mm)
    edge = block_mm(block, voxel_mm)
    blocks = block_means(x, block)
    rough = gaussian(blocks, sigma_mm / 2, edge)
    bowl = unwrap_in_space(rough.angle(), rough.abs())
    terms = quadratic_terms(bowl.shape, block, bowl)
    design = torch.stack([t.expand(bowl.shape).reshape(-1) for t in terms[: 4 if ramp else 10]]).double()
    weight = blocks.abs().reshape(-1).double()
    ridge = 1e-9 * weight.sum() + torch.finfo(weight.dtype).tiny
    gram = (design * weight) @ design.T + ridge * torch.eye(len(design)).to(design)
    total = torch.zeros(len(design), dtype=torch.float64, device=x.device)
    misses, rest = bowl, blocks
    for _ in range(4):  # first to the smoothed phase, then to what that leaves of the phase itself
        total += torch.linalg.solve(gram, (design * weight) @ misses.reshape(-1).double())
        coarse = (total @ design).reshape(bowl.shape).to(bowl.dtype)
        rest = blocks * torch.polar(torch.ones_like(coarse), -coarse)
        misses = rest.angle()
    if ramp:
        return SmoothPhase(tuple(total.tolist()), torch.ones_like(rest), block)
    first = unit(gaussian(rest, sigma_mm, edge))
    second = unit(gaussian(rest * first.conj(), sigma_mm, edge))
    return SmoothPhase(tuple(total.tolist()), first * second, block)


def quadratic_terms(shape: Sequence[int], block: Size, like: Float[Tensor, "..."]) -> list[Tensor]:
    """1, x, y, z and their products at the centres of blocks, for broadcasting."""
    axes = []
    for a, (n, k) in enumerate(zip(shape, block, strict=True)):
        at = (torch.arange(n, device=like.device, dtype=torch.float64) + 0.5) * k / 100
        axes.append(at.to(like.dtype).reshape([-1 if a == j else 1 for j in range(3)]))
    linear = [torch.ones_like(axes[0]), *axes]
    return [*linear, *(axes[i] * axes[j] for i in range(3) for j in range(i, 3))]


def unit(x: Complex[Tensor, "*shape"]) -> Complex[Tensor, "*shape"]:
    """x / |x|, and 1 where x is 0."""
    size = x.abs()
    return torch.where(size > 0, x / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(x))

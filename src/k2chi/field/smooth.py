"""The smooth phase under an image that is noisy and wraps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Size, Vector
from k2chi.field.romeo import unwrap_in_space
from k2chi.ops.smooth import block_means, block_mm, block_of, gaussian, refined, unit


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

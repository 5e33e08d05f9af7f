"""Finite differences per mm, on a grid that wraps around."""

from math import pi

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.linear import Linear


def forward_difference(
    x: Float[Tensor, "*batch x y z"], axis: int, voxel_mm: float
) -> Float[Tensor, "*batch x y z"]:
    """(x[i+1] − x[i]) / v along one of the last three axes (−3, −2, −1)."""
    return (torch.roll(x, -1, axis) - x) / voxel_mm


def gradient(grid: Grid, device: torch.device | str = "cpu") -> Linear:
    """∇: volume to three forward differences, stacked before space. Its adjoint is −divergence."""
    v = grid.voxel_mm

    def apply(x: Tensor) -> Tensor:
        return torch.stack([forward_difference(x, a - 3, v[a]) for a in range(3)], dim=-4)

    def adjoint(g: Tensor) -> Tensor:
        parts = g.unbind(-4)
        out = torch.zeros_like(parts[0])
        for a in range(3):
            out += (torch.roll(parts[a], 1, a - 3) - parts[a]) / v[a]
        return out

    return Linear(apply, adjoint)


def laplacian(grid: Grid, device: torch.device | str = "cpu") -> Linear:
    """∇²: the seven-point stencil, its own adjoint."""
    v = grid.voxel_mm

    def apply(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for a in range(3):
            out += (torch.roll(x, 1, a - 3) + torch.roll(x, -1, a - 3) - 2 * x) / v[a] ** 2
        return out

    return Linear(apply, apply)


def gradient_symbol(shape: Size, voxel_mm: Vector) -> list[Complex[Tensor, "x y h"]]:
    """Multipliers of `forward_difference` on the half spectrum, as broadcastable axes."""
    out = []
    for a, (n, v) in enumerate(zip(shape, voxel_mm, strict=True)):
        k = torch.fft.rfftfreq(n) if a == 2 else torch.fft.fftfreq(n)
        symbol = (torch.exp(2j * pi * k.double()) - 1) / v
        out.append(symbol.to(torch.complex64).reshape([-1 if a == j else 1 for j in range(3)]))
    return out


def laplacian_symbol(shape: Size, voxel_mm: Vector) -> Float[Tensor, "x y h"]:
    """Multiplier of −`laplacian` on the half spectrum: Σ|E|², zero at the origin, else positive."""
    parts = [e.abs().square() for e in gradient_symbol(shape, voxel_mm)]
    return parts[0] + parts[1] + parts[2]

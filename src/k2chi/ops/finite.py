"""Finite differences per mm, on a grid that wraps around."""

from math import pi

import numba
import numpy as np
import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.linear import Linear


def forward_difference(
    x: Inexact[Tensor, "*batch x y z"], axis: int, voxel_mm: float
) -> Inexact[Tensor, "*batch x y z"]:
    """(x[i+1] − x[i]) / v along one of the last three axes (−3, −2, −1)."""
    return (torch.roll(x, -1, axis) - x) / voxel_mm


def differences(x: Inexact[Tensor, "*batch x y z"], voxel_mm: Vector) -> Inexact[Tensor, "*batch 3 x y z"]:
    """∇x: three forward differences, stacked before space."""
    return torch.stack([forward_difference(x, a - 3, voxel_mm[a]) for a in range(3)], dim=-4)


def differences_adjoint(
    g: Inexact[Tensor, "*batch 3 x y z"], voxel_mm: Vector
) -> Inexact[Tensor, "*batch x y z"]:
    """∇ᵀg, which is −div g."""
    parts = [(torch.roll(g[..., a, :, :, :], 1, a - 3) - g[..., a, :, :, :]) / voxel_mm[a] for a in range(3)]
    return parts[0] + parts[1] + parts[2]


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def divergence_cpu(w: np.ndarray, out: np.ndarray, per_mm: np.ndarray) -> None:
    """∇ᵀw, which is −div w, into `out`; real or complex."""
    _, nx, ny, nz = w.shape
    ix, iy, iz = per_mm
    for i in numba.prange(nx):
        i0 = i - 1 if i else nx - 1
        for j in range(ny):
            j0 = j - 1 if j else ny - 1
            for k in range(nz):
                k0 = k - 1 if k else nz - 1
                out[i, j, k] = (
                    (w[0, i0, j, k] - w[0, i, j, k]) * ix
                    + (w[1, i, j0, k] - w[1, i, j, k]) * iy
                    + (w[2, i, j, k0] - w[2, i, j, k]) * iz
                )


def gradient(grid: Grid, device: torch.device | str = "cpu") -> Linear:
    """∇: volume to three forward differences, stacked before space. Its adjoint is −divergence."""
    v = grid.voxel_mm
    return Linear(lambda x: differences(x, v), lambda g: differences_adjoint(g, v))


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _laplacian_cpu(x: np.ndarray, out: np.ndarray, per_mm2: np.ndarray) -> None:
    nx, ny, nz = x.shape
    a, b, c = per_mm2
    centre = 2 * (a + b + c)
    for i in numba.prange(nx):
        i0, i1 = (i - 1 if i else nx - 1), (i + 1 if i + 1 < nx else 0)
        for j in range(ny):
            j0, j1 = (j - 1 if j else ny - 1), (j + 1 if j + 1 < ny else 0)
            for k in range(nz):
                k0, k1 = (k - 1 if k else nz - 1), (k + 1 if k + 1 < nz else 0)
                out[i, j, k] = (
                    a * (x[i0, j, k] + x[i1, j, k])
                    + b * (x[i, j0, k] + x[i, j1, k])
                    + c * (x[i, j, k0] + x[i, j, k1])
                    - centre * x[i, j, k]
                )


def laplacian(grid: Grid, device: torch.device | str = "cpu") -> Linear:
    """∇²: the seven-point stencil, its own adjoint."""
    per_mm2 = [1 / v**2 for v in grid.voxel_mm]

    def apply(x: Tensor) -> Tensor:
        if x.ndim == 3 and x.device.type == "cpu" and not x.requires_grad:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            _laplacian_cpu(x.contiguous().numpy(), out.numpy(), np.array(per_mm2, dtype=out.numpy().dtype))
            return out
        out = torch.zeros_like(x)
        for a, weight in enumerate(per_mm2):
            out += (torch.roll(x, 1, a - 3) + torch.roll(x, -1, a - 3) - 2 * x) * weight
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

"""Means over spheres whose radius is in mm."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.fourier import convolution, padded_size
from k2chi.ops.linear import Linear


def sphere_weights(voxel_mm: Vector, radius_mm: float, supersample: int = 4) -> Float[Tensor, "i j k"]:
    """Share of each voxel that a sphere covers, normalised to sum one; odd box, sphere in the middle."""
    half = [max(ceil(radius_mm / v - 0.5), 0) for v in voxel_mm]
    axes = []
    for a, (h, v) in enumerate(zip(half, voxel_mm, strict=True)):
        fine = (torch.arange((2 * h + 1) * supersample, dtype=torch.float64) + 0.5) / supersample - h - 0.5
        axes.append((fine * v).square().reshape([-1 if a == j else 1 for j in range(3)]))
    inside = (axes[0] + axes[1] + axes[2] <= radius_mm**2).double()
    w = torch.nn.functional.avg_pool3d(inside[None, None], supersample)[0, 0]
    if w.sum() == 0:  # a sphere smaller than the samples: the voxel itself
        w[tuple(h for h in half)] = 1
    return (w / w.sum()).float()


def sphere_kernel(voxel_mm: Vector, radius_mm: float, shape: Size) -> Float[Tensor, "x y h"]:
    """Multiplier of the spherical mean on the half spectrum of an array of `shape` voxels."""
    w = sphere_weights(voxel_mm, radius_mm)
    if any(a > b for a, b in zip(w.shape, shape, strict=True)):
        raise ValueError(
            f"a sphere of {radius_mm} mm does not fit into {shape} voxels: choose a smaller radius"
        )
    box = torch.zeros(shape, dtype=w.dtype)
    box[: w.shape[0], : w.shape[1], : w.shape[2]] = w
    centred = torch.roll(box, [-(n // 2) for n in w.shape], (0, 1, 2))
    kernel: Tensor = torch.fft.rfftn(centred).real
    return kernel


def spherical_mean(grid: Grid, radius_mm: float, device: torch.device | str = "cpu") -> Linear:
    """Mean over a sphere around each voxel, zeros beyond the array; its own adjoint."""
    reach = 2 * ceil(radius_mm / min(grid.voxel_mm)) + 1
    outer = padded_size(grid.shape, least=reach // 2 + 1)
    outer = padded_size((max(outer[0], reach), max(outer[1], reach), max(outer[2], reach)))
    return convolution(sphere_kernel(grid.voxel_mm, radius_mm, outer).to(device), grid.shape, outer)

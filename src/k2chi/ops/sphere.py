"""Means over spheres whose radius is in mm."""

from math import ceil

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.box import Box, box_around
from k2chi.ops.fourier import SPACE, convolution, padded_size
from k2chi.ops.linear import Linear


def sphere_weights(voxel_mm: Vector, radius_mm: float, supersample: int = 4) -> Float[Tensor, "i j k"]:
    """Share of each voxel that a sphere covers, normalised to sum one; odd box, sphere in the middle.

    Shares spread the sphere over whole voxels, which adds v²/12 to its second moment along each axis, more
    along long edges. Moving some between the centre and its neighbours makes the three moments equal again,
    as the mean value of a harmonic field needs.
    """
    half = [max(ceil(radius_mm / v - 0.5), 0) for v in voxel_mm]
    axes = []
    for a, (h, v) in enumerate(zip(half, voxel_mm, strict=True)):
        fine = (torch.arange((2 * h + 1) * supersample, dtype=torch.float64) + 0.5) / supersample - h - 0.5
        axes.append((fine * v).square().reshape([-1 if a == j else 1 for j in range(3)]))
    inside = (axes[0] + axes[1] + axes[2] <= radius_mm**2).double()
    w = torch.nn.functional.avg_pool3d(inside[None, None], supersample)[0, 0]
    if w.sum() == 0:  # a sphere smaller than the samples: the voxel itself
        w[tuple(h for h in half)] = 1
    w /= w.sum()
    if min(half) > 0:
        places = [torch.arange(-h, h + 1) * v for h, v in zip(half, voxel_mm, strict=True)]
        moments = [
            float((w.sum([i for i in range(3) if i != a]) * x.square()).sum()) for a, x in enumerate(places)
        ]
        for a, v in enumerate(voxel_mm):
            moved = (sum(moments) / 3 - moments[a]) / (2 * v**2)
            centre, before, after = list(half), list(half), list(half)
            before[a] -= 1
            after[a] += 1
            w[tuple(centre)] -= 2 * moved
            w[tuple(before)] += moved
            w[tuple(after)] += moved
    return w.float()


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


def spheres_in(
    mask: Bool[Tensor, "x y z"], grid: Grid, radius_mm: float, who: str
) -> tuple[Box, Float[Tensor, "X Y H"], Bool[Tensor, "X Y Z"]]:
    """A box around the mask, 1 − S on its half spectrum, and the voxels whose whole sphere lies in the mask.

    S is the spherical mean. Raises ValueError in the name of `who` if the sphere fits nowhere, or is too
    small to reach a neighbour along each axis.
    """
    voxel = grid.voxel_mm
    if radius_mm < max(voxel):
        raise ValueError(
            f"{who}: a sphere of {radius_mm} mm in voxels of {max(voxel):.3g} mm is no sphere: "
            "choose a radius of at least the longest edge"
        )
    box = box_around(mask, margin=ceil(radius_mm / min(voxel)) + 2)
    s = sphere_kernel(voxel, radius_mm, box.shape).to(mask.device)
    m = box.take(mask)
    share = torch.fft.irfftn(torch.fft.rfftn(m.to(s.dtype), dim=SPACE) * s, s=box.shape, dim=SPACE)
    inside = (share > 1 - 1e-4) & m
    if not inside.any():
        raise ValueError(
            f"{who}: no sphere of {radius_mm} mm fits into the mask: use a fuller mask or a smaller radius"
        )
    return box, 1 - s, inside

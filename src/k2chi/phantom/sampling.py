"""From a fine grid to a coarser one of the same box: as a scanner sees it, and as truth should be told."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from k2chi.data import Grid, Size, as_affine


def regrid(grid: Grid, shape: Size) -> Grid:
    """The same box with another number of voxels; index n//2 keeps its place, as a crop of k-space needs."""
    a = np.asarray(grid.affine, dtype=float)
    ratio = [n / m for n, m in zip(grid.shape, shape, strict=True)]
    centre = a[:3, 3] + a[:3, :3] @ [n // 2 for n in grid.shape]
    b = np.eye(4)
    b[:3, :3] = a[:3, :3] * ratio
    b[:3, 3] = centre - b[:3, :3] @ [m // 2 for m in shape]
    return replace(grid, shape=shape, affine=as_affine(b))


def central(x: Shaped[Tensor, "i j k"], shape: Size) -> Shaped[Tensor, "x y z"]:
    """The fine voxel nearest to each coarse voxel's centre: for labels and masks."""
    at = [
        ((torch.arange(n) - n // 2) * (m / n) + m // 2).round().long().clamp(0, m - 1)
        for n, m in zip(shape, x.shape, strict=True)
    ]
    return x[at[0]][:, at[1]][:, :, at[2]].contiguous()


def averaged(x: Float[Tensor, "i j k"], shape: Size) -> Float[Tensor, "x y z"]:
    """Mean over each voxel of a coarser grid of the same box, aligned as by `regrid`; cut voxels by share."""
    for axis, (m, n) in enumerate(zip(x.shape, shape, strict=True)):
        if m == n:
            continue
        ratio = n / m  # fine voxel in coarse voxels
        low = (torch.arange(m, dtype=torch.float64) - m // 2 - 0.5) * ratio + n // 2 + 0.5
        rows = torch.arange(n, dtype=torch.float64)[:, None]
        share = (torch.minimum(rows + 1, low + ratio) - torch.maximum(rows, low)).clamp(min=0)
        share = (share / share.sum(1, keepdim=True)).to(x.dtype)
        x = torch.tensordot(share, x, dims=([1], [axis])).movedim(0, axis)
    return x.contiguous()


def crop_kspace(x: Complex[Tensor, "i j k"], shape: Size) -> Complex[Tensor, "x y z"]:
    """Keep the inner `shape` frequencies: what a scanner with larger voxels would have measured."""
    for axis in (2, 1, 0):
        m, n = x.shape[axis], shape[axis]
        x = torch.fft.fft(torch.fft.ifftshift(x, dim=axis), dim=axis, norm="forward")
        if n < m:  # cropping each axis at once makes the next one cheaper
            upper = (n + 1) // 2
            x = torch.cat([x.narrow(axis, 0, upper), x.narrow(axis, m - n // 2, n // 2)], dim=axis)
    out: Tensor = torch.fft.fftshift(torch.fft.ifftn(x, norm="forward"))
    return out

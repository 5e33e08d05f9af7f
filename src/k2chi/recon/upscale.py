"""Finer grids by zero-filling k-space."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from k2chi.data import Echoes, Grid, Size, as_affine


@dataclass(frozen=True)
class Sinc:
    """Interpolate complex images by zeros around their k-space: more voxels, no more resolution.

    x'(r) = Σ_k X(k) e^(2πi k·r) on a finer grid; voxel 0 stays where it is, and at whole factors so do all
    others. Du et al. 1994, J Magn Reson Imaging 4:733, doi:10.1002/jmri.1880040517.
    Phase is never interpolated by itself, so wraps do no harm. Noise becomes correlated between voxels.
    Along a stack of 2D slices, leave the factor at 1.
    """

    factor: tuple[float, float, float] = (2.0, 2.0, 2.0)
    """New over old number of voxels along each axis, 1 or more; rounded to whole voxels."""

    def __post_init__(self) -> None:
        if min(self.factor) < 1:
            raise ValueError(f"Sinc factor {self.factor} throws data away: choose 1 or more along each axis")

    def __call__(self, echoes: Echoes) -> Echoes:
        """Echoes on the finer grid; a mask goes along, unwrapped phase does not."""
        grid = self.grid(echoes.grid)
        fine = torch.stack([padded(x, grid.shape) for x in echoes.signal])
        mask = None if echoes.mask is None else _nearest(echoes.mask, grid.shape)
        return replace(echoes, signal=fine, grid=grid, mask=mask, unwrapped_rad=None)

    def grid(self, acquired: Grid) -> Grid:
        """The finer grid: voxel 0 in its place, voxels smaller."""
        x, y, z = (round(n * f) for n, f in zip(acquired.shape, self.factor, strict=True))
        shrink = [n / m for n, m in zip(acquired.shape, (x, y, z), strict=True)]
        affine = np.asarray(acquired.affine, dtype=float) @ np.diag([*shrink, 1.0])
        return replace(acquired, shape=(x, y, z), affine=as_affine(affine))

    def facts(self, acquired: Grid) -> dict[str, tuple[float, ...]]:
        """For sidecars: the voxels that were measured and those that were made [mm]."""
        return {
            "AcquisitionVoxelSize": acquired.voxel_mm,
            "InterpolatedVoxelSize": self.grid(acquired).voxel_mm,
        }


def padded(x: Complex[Tensor, "*batch x y z"], shape: Size) -> Complex[Tensor, "*batch X Y Z"]:
    """The band-limited image through the values of `x`, on a grid of `shape` ≥ points, origin on origin."""
    for axis, m in enumerate(shape):
        n = x.shape[axis - 3]
        if m == n:
            continue
        k = torch.fft.fft(x, dim=axis - 3)
        low, high = (n + 1) // 2, n // 2
        wide = k.new_zeros([*x.shape[: axis - 3 + x.ndim], m, *x.shape[axis - 2 + x.ndim :]])
        wide.narrow(axis - 3, 0, low).copy_(k.narrow(axis - 3, 0, low))
        wide.narrow(axis - 3, m - high, high).copy_(k.narrow(axis - 3, n - high, high))
        if n % 2 == 0:  # the frequency at the border belongs to both sides
            wide.narrow(axis - 3, m - high, 1).mul_(0.5)
            wide.narrow(axis - 3, high, 1).add_(k.narrow(axis - 3, high, 1), alpha=0.5)
        x = torch.fft.ifft(wide, dim=axis - 3) * (m / n)
    return x


def _nearest(mask: Bool[Tensor, "x y z"], shape: Size) -> Bool[Tensor, "X Y Z"]:
    """Each fine voxel as the coarse one that is nearest."""
    for axis, m in enumerate(shape):
        n = mask.shape[axis]
        at = (torch.arange(m, device=mask.device) * n / m).round().long().clamp_max(n - 1)
        mask = mask.index_select(axis, at)
    return mask

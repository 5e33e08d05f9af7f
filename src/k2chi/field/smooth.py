"""Smoothing with a Gaussian of any width in mm, at a cost that does not depend on the width."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from k2chi.data import Vector


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

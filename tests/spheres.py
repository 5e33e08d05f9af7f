"""A sphere in a uniform field, written down in scanner coordinates; it uses no operator of k2chi."""

from itertools import product

import numpy as np
import torch
from torch import Tensor

from k2chi.data import Grid, Vector


def positions_mm(grid: Grid) -> np.ndarray:
    """Scanner position of each voxel's centre; (3, x, y, z)."""
    index = np.indices(grid.shape, dtype=np.float64)
    affine = np.asarray(grid.affine)
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)


def occupancy(grid: Grid, radius_mm: float, centre_mm: Vector = (0.0, 0.0, 0.0), fine: int = 4) -> Tensor:
    """Share of each voxel inside the sphere, from `fine`³ points a voxel."""
    r = positions_mm(grid) - np.reshape(centre_mm, (3, 1, 1, 1))
    distance = np.sqrt(np.square(r).sum(0))
    edge = np.abs(distance - radius_mm) < np.linalg.norm(grid.voxel_mm) / 2
    share = (distance < radius_mm).astype(np.float64)
    points, near = (np.arange(fine) + 0.5) / fine - 0.5, r[:, edge]
    axes = np.asarray(grid.affine)[:3, :3]
    share[edge] = 0
    for offset in product(points, repeat=3):
        share[edge] += np.square(near + (axes @ offset)[:, None]).sum(0) <= radius_mm**2
    share[edge] /= fine**3
    return torch.from_numpy(share).float()


def sphere_field(grid: Grid, radius_mm: float, centre_mm: Vector = (0.0, 0.0, 0.0)) -> tuple[Tensor, Tensor]:
    """Field [ppm] of a sphere of 1 ppm, a³/3 (3 cos²θ − 1)/r³ outside, 0 inside; and the distance [mm]."""
    r = positions_mm(grid) - np.reshape(centre_mm, (3, 1, 1, 1))
    b = np.asarray(grid.b0_world) / np.linalg.norm(grid.b0_world)
    distance = np.sqrt(np.square(r).sum(0))
    along = np.einsum("i,ixyz->xyz", b, r)
    far = np.maximum(distance, radius_mm)
    field = radius_mm**3 / 3 * (3 * along**2 - distance**2) / far**5 * (distance > radius_mm)
    return torch.from_numpy(field).float(), torch.from_numpy(distance).float()

"""Vessels on a grid: the share of each voxel that thin tubes fill."""

import numpy as np
import torch
from jaxtyping import Float
from numba import njit

from k2chi.data import Vector
from k2chi.phantom.veins import Vessel
from k2chi.phantom.warp import Warp


@njit(cache=True)
def _paint(occupied, ends, radii, voxel_mm, sub):  # type: ignore[no-untyped-def]
    """Share of each voxel inside the capped cones `ends` (voxel coordinates); the larger share wins."""
    nx, ny, nz = occupied.shape
    vx, vy, vz = voxel_mm
    for n in range(ends.shape[0]):
        ax, ay, az = ends[n, 0], ends[n, 1], ends[n, 2]
        bx, by, bz = ends[n, 3], ends[n, 4], ends[n, 5]
        ra, rb = radii[n, 0], radii[n, 1]
        r = max(ra, rb)
        dx, dy, dz = (bx - ax) * vx, (by - ay) * vy, (bz - az) * vz
        length2 = max(dx * dx + dy * dy + dz * dz, 1e-12)
        i0, i1 = max(int(np.floor(min(ax, bx) - r / vx)), 0), min(int(np.ceil(max(ax, bx) + r / vx)), nx - 1)
        j0, j1 = max(int(np.floor(min(ay, by) - r / vy)), 0), min(int(np.ceil(max(ay, by) + r / vy)), ny - 1)
        k0, k1 = max(int(np.floor(min(az, bz) - r / vz)), 0), min(int(np.ceil(max(az, bz) + r / vz)), nz - 1)
        for i in range(i0, i1 + 1):
            for j in range(j0, j1 + 1):
                for k in range(k0, k1 + 1):
                    inside = 0
                    for u in range(sub * sub * sub):
                        px = (i - ax + (u // (sub * sub) + 0.5) / sub - 0.5) * vx
                        py = (j - ay + (u // sub % sub + 0.5) / sub - 0.5) * vy
                        pz = (k - az + (u % sub + 0.5) / sub - 0.5) * vz
                        t = min(max((px * dx + py * dy + pz * dz) / length2, 0.0), 1.0)
                        ex, ey, ez = px - t * dx, py - t * dy, pz - t * dz
                        rt = ra + (rb - ra) * t
                        if ex * ex + ey * ey + ez * ez <= rt * rt:
                            inside += 1
                    share = inside / (sub * sub * sub)
                    if share > occupied[i, j, k]:
                        occupied[i, j, k] = share


def occupancy(
    vessels: list[Vessel],
    warp: Warp,
    shape: tuple[int, int, int],
    affine: Float[torch.Tensor, "4 4"],
    voxel_mm: Vector,
) -> Float[torch.Tensor, "x y z"]:
    """Share of each voxel that vessels fill. Radii stay as given; the paths follow the person's warp."""
    share = np.zeros(shape, dtype=np.float32)
    if not vessels:
        return torch.from_numpy(share)
    counts = [len(v.nodes) for v in vessels]
    nodes = warp.back(torch.tensor([n for v in vessels for n in v.nodes], dtype=torch.float32))
    inverse = torch.linalg.inv(affine.double())
    at = (nodes.double() @ inverse[:3, :3].T + inverse[:3, 3]).numpy()
    radii = np.array([r for v in vessels for r in v.radii_mm])
    first = np.concatenate(
        [np.arange(c - 1) + o for c, o in zip(counts, np.cumsum([0, *counts[:-1]]), strict=True)]
    )
    ends = np.hstack([at[first], at[first + 1]])
    _paint(share, ends, np.stack([radii[first], radii[first + 1]], -1), voxel_mm, 4)
    return torch.from_numpy(share)

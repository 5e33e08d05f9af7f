"""A mask of lesions taken apart into single lesions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int32
from scipy import ndimage
from torch import Tensor

from k2chi.data import Grid

Labels = Int32[Tensor, "x y z"]
Mask = Bool[Tensor, "x y z"]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Components:
    """Connected parts of a mask, numbered from 1, the largest first.

    Call it once, on the grid on which the mask was drawn, and keep the numbers: parts found again after
    resampling differ. Among parts of one size the order is that of their centres in the scanner: from left
    to right, then from back to front, then from below upwards; it does not depend on how the array is stored.
    The connectivity matters: of thirty expert masks (Lesjak 2018, Neuroinformatics 16:51,
    doi:10.1007/s12021-017-9348-7), 26 neighbours make 3,115 lesions and 6 make 4,749.
    """

    connectivity: Literal[6, 18, 26] = 26
    """Neighbours that belong to one lesion: those that share a face (6), an edge (18) or a corner (26)."""

    def __post_init__(self) -> None:
        if self.connectivity not in (6, 18, 26):
            raise ValueError(f"a connectivity of {self.connectivity}: choose 6, 18 or 26 neighbours")

    def __call__(self, mask: Mask, grid: Grid) -> Labels:
        """The number of the lesion in each voxel, 0 outside. Raises ValueError for an empty mask."""
        if tuple(mask.shape) != grid.shape:
            raise ValueError(f"the mask has {tuple(mask.shape)} voxels, its grid {grid.shape}; give its own")
        if not mask.any():
            raise ValueError("the lesion mask is empty: give one with lesions in it")
        found, count = ndimage.label(mask.cpu().numpy(), structure=self.structure())
        sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
        a = np.asarray(grid.affine)
        at = np.array(ndimage.center_of_mass(found > 0, found, np.arange(1, count + 1)))
        mm = np.round(at @ a[:3, :3].T + a[:3, 3], 3)
        order = np.lexsort((mm[:, 2], mm[:, 1], mm[:, 0], -sizes))
        number = np.zeros(count + 1, dtype=np.int32)
        number[order + 1] = np.arange(1, count + 1)
        return torch.from_numpy(number[found]).to(mask.device)

    def structure(self) -> np.ndarray:
        """The 3×3×3 neighbourhood."""
        built: np.ndarray = ndimage.generate_binary_structure(3, (6, 18, 26).index(self.connectivity) + 1)
        return built


def boxes(labels: np.ndarray) -> dict[int, Box]:
    """The box around each label, by number; the array's own type must be a whole number."""
    return {n + 1: b for n, b in enumerate(ndimage.find_objects(labels)) if b is not None}


def around(box: Box, margin_mm: float, grid: Grid) -> Box:
    """A box with a margin on every side, within the grid."""
    a, b, c = (
        slice(max(s.start - int(np.ceil(margin_mm / v)), 0), min(s.stop + int(np.ceil(margin_mm / v)), n))
        for s, v, n in zip(box, grid.voxel_mm, grid.shape, strict=True)
    )
    return a, b, c

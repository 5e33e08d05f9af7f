"""Lesions brought from the grid they were drawn on to the grid of χ."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy import ndimage

from k2chi.data import Affine, Grid
from k2chi.measure.lesions.parts import Box, Components, Labels, boxes
from k2chi.progress import track

STILL: Affine = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Fate:
    """What became of one lesion on the way."""

    label: int
    """Its number, the same on both grids."""
    drawn_mm3: float
    """Volume on the grid it was drawn on [mm³]."""
    native_mm3: float
    """Volume on χ's grid [mm³]; 0 if it vanished."""
    largest_share: float
    """Largest share of a voxel of χ that it fills, 0 to 1."""
    off_grid: float
    """Share of its voxels whose centre lies off χ's grid, 0 to 1."""
    pieces: int
    """Pieces it lies in on χ's grid; one lesion it stays all the same."""
    lost: str
    """Why it vanished; nothing if it did not."""


@dataclass(frozen=True, eq=False)
class Moved:
    """Lesions on χ's grid, and what became of each."""

    labels: Labels
    fates: tuple[Fate, ...]


@dataclass(frozen=True)
class ToNative:
    """Numbered lesions on another grid, each moved on its own, so that none merges or is renumbered.

    The occupancy of each lesion (1 inside, 0 outside) is interpolated linearly and averaged over each voxel
    of the new grid: the share that the lesion fills. Each lesion claims the voxels with its largest shares,
    as many as make up its volume (of equal shares the first in the array), or, if `share` is given, those
    whose share reaches it. A voxel goes to the claim with the largest share, of equal ones to the smaller
    number. A lesion that gets no voxel has vanished and is listed with the reason. One that falls into
    pieces keeps one number. Of 37 real lesions drawn at 1 mm and brought to turned voxels of
    0.8×0.8×1.5 mm, a share of 0.5 lost 7 and left 0.85 of the volume, since the blur of interpolation eats
    thin and small lesions; the rule by volume lost none and left 1.00. Costs about 10 ms a lesion.
    """

    share: float | None = None
    """Share of a voxel that a lesion must fill, above 0 up to 1; none: as many voxels as keep its volume."""
    transform: Affine = STILL
    """Rigid motion: a position [mm] in the scan on which the lesions were drawn to that in χ's scan."""
    pieces: Components = Components()
    """Neighbours by which pieces are counted on the new grid."""

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"a share of {self.share}: choose a value above 0, up to 1")
        m = np.asarray(self.transform, dtype=float)
        if m.shape != (4, 4) or not np.isfinite(m).all() or np.abs(m[3] - [0, 0, 0, 1]).max() > 1e-6:
            raise ValueError("the transform must be a 4×4 matrix with the last row 0 0 0 1")
        r = m[:3, :3]
        if np.abs(r.T @ r - np.eye(3)).max() > 1e-2 or np.linalg.det(r) < 0:
            raise ValueError(
                "the transform is not rigid (it stretches, shears or mirrors): lesions would change size; "
                "give a rotation and a shift"
            )

    def __call__(self, labels: Labels, drawn: Grid, native: Grid) -> Moved:
        """Move `labels` from their grid to χ's. Raises ValueError if no lesion lies on χ's grid."""
        if tuple(labels.shape) != drawn.shape:
            raise ValueError(f"labels have {tuple(labels.shape)} voxels, their grid {drawn.shape}")
        number = labels.cpu().numpy()
        to_native = _index_map(drawn, native, self.transform)
        best = np.zeros(native.shape, dtype=np.float32)
        winner = np.zeros(native.shape, dtype=np.int32)
        found = boxes(number)
        if not found:
            raise ValueError("there are no lesions: every label is 0")
        most, off = {}, {}
        names = list(found)
        for i in track(len(names), "lesions to χ's grid"):
            n = names[i]
            here = number[found[n]] == n
            at = np.argwhere(here) + [s.start for s in found[n]]
            there = at @ to_native[:3, :3].T + to_native[:3, 3]
            outside = (there < -0.5) | (there > np.asarray(native.shape) - 0.5)
            off[n], most[n] = float(outside.any(1).mean()), 0.0
            for window, share in _shares(here, found[n], to_native, native):
                most[n] = float(share.max())
                there_mm3 = len(at) * (1 - off[n]) * drawn.voxel_volume_mm3
                wins = self._claims(share, there_mm3 / native.voxel_volume_mm3) & (share > best[window])
                winner[window][wins] = n
                best[window][wins] = share[wins]
        if all(v == 1 for v in off.values()):
            raise ValueError(
                "no lesion lies on χ's grid: the two images do not overlap; "
                "check their headers and the transform"
            )
        before, after, left = np.bincount(number.ravel()), np.bincount(winner.ravel()), boxes(winner)
        fates = [
            Fate(
                label=n,
                drawn_mm3=float(before[n]) * drawn.voxel_volume_mm3,
                native_mm3=float(after[n]) * native.voxel_volume_mm3 if n in left else 0.0,
                largest_share=most[n],
                off_grid=off[n],
                pieces=self._pieces(winner[left[n]] == n) if n in left else 0,
                lost="" if n in left else self._why(most[n], off[n]),
            )
            for n in names
        ]
        return Moved(torch.from_numpy(winner).to(labels.device), tuple(fates))

    def _pieces(self, lesion: np.ndarray) -> int:
        return int(ndimage.label(lesion, structure=self.pieces.structure())[1])

    def _claims(self, share: np.ndarray, voxels: float) -> np.ndarray:
        """Voxels that a lesion of so many voxels would take, if no other lesion filled more of them."""
        if self.share is not None:
            enough: np.ndarray = share >= self.share - 1e-5
            return enough
        first = np.argsort(-np.round(share, 5), axis=None, kind="stable")[: round(voxels)]
        claimed = np.zeros(share.size, dtype=bool)
        claimed[first] = True
        return claimed.reshape(share.shape) & (share > 0)

    def _why(self, most: float, off: float) -> str:
        """Why a lesion vanished."""
        if off == 1:
            return "lies off χ's grid"
        if self.share is not None and most < self.share - 1e-5:
            return f"fills at most {most:.2f} of any voxel of χ; {self.share:g} is needed"
        return "is smaller than half a voxel of χ, or a neighbour fills more of every voxel it lies in"


def _index_map(drawn: Grid, native: Grid, transform: Affine) -> np.ndarray:
    """Voxel index on the first grid to voxel index on the second, 4×4."""
    a, b, m = (np.asarray(x, dtype=float) for x in (drawn.affine, native.affine, transform))
    found: np.ndarray = np.linalg.inv(b) @ m @ a
    return found


def _shares(
    here: np.ndarray, box: Box, to_native: np.ndarray, native: Grid
) -> Iterator[tuple[Box, np.ndarray]]:
    """The part of χ's grid that a lesion may reach, with its share of each voxel; nothing if it is off it."""
    corners = np.array(list(product(*[(s.start - 1, s.stop) for s in box])), dtype=float)
    reach = corners @ to_native[:3, :3].T + to_native[:3, 3]
    low = np.clip(np.floor(reach.min(0)).astype(int) - 1, 0, native.shape)
    high = np.clip(np.ceil(reach.max(0)).astype(int) + 2, 0, native.shape)
    if (high <= low).any():
        return
    back = np.linalg.inv(to_native)
    parts = np.maximum(np.ceil(np.abs(back[:3, :3]).max(0) - 1e-2), 1).astype(int)
    occupied = np.pad(here.astype(np.float32), 1)
    origin = np.array([s.start - 1 for s in box], dtype=float)
    index = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"))
    total = np.zeros(index.shape[1:], dtype=np.float32)
    for sub in product(*[range(n) for n in parts]):
        shift = (np.array(sub) + 0.5) / parts - 0.5
        p = index + shift[:, None, None, None]
        q = np.tensordot(back[:3, :3], p, 1) + (back[:3, 3] - origin)[:, None, None, None]
        total += ndimage.map_coordinates(occupied, np.round(q, 6), order=1, mode="constant", cval=0.0)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    yield (window[0], window[1], window[2]), total / float(parts.prod())

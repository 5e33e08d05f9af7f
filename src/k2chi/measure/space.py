"""From the positions of one scan to those of another: chains of matrices and warps, and images sampled there.

A transform is used as ITK and ANTs store it: it takes a position in the fixed scan to the position in the
moving scan whose value belongs there. All positions are scanner (RAS) positions in mm.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, Shaped
from scipy import ndimage
from torch import Tensor

from k2chi.data import Affine, Echoes, Grid, Scan, as_affine

CHUNK = 400_000
"""Positions of labels that are looked at in one go."""
Points = Float64[np.ndarray, "*n 3"]
Numbers = Int32[Tensor, "x y z"]


@dataclass(frozen=True, eq=False)
class Warp:
    """A displacement for each voxel of a grid; zero outside of it."""

    shift_mm: Float[np.ndarray, "x y z 3"]
    """Displacement to the right, to the front and up [mm]."""
    grid: Grid

    def __post_init__(self) -> None:
        if self.shift_mm.shape[:3] != self.grid.shape:
            raise ValueError(f"a warp of {self.shift_mm.shape[:3]} voxels on a grid of {self.grid.shape}")


@dataclass(frozen=True, eq=False)
class Transform:
    """Steps that are taken one after the other: fixed position to moving position."""

    steps: tuple[Affine | Warp, ...] = ()
    """4×4 matrices and warps, the first one applied first; none is the identity."""

    def __call__(self, at: Points) -> Points:
        """Positions [mm] in the moving scan for positions in the fixed one."""
        for step in self.steps:
            if isinstance(step, Warp):
                index = _apply(np.linalg.inv(np.asarray(step.grid.affine)), at)
                where = np.moveaxis(index, -1, 0)
                moved = [
                    ndimage.map_coordinates(step.shift_mm[..., k], where, order=1, mode="constant")
                    for k in range(3)
                ]
                at = at + np.stack(moved, -1)
            else:
                at = _apply(np.asarray(step), at)
        return at

    @property
    def matrix(self) -> Affine:
        """The chain as one matrix. Raises ValueError if there is a warp in it."""
        out = np.eye(4)
        for step in self.steps:
            if isinstance(step, Warp):
                raise ValueError("the transform has a warp: it is no matrix; register with --kind rigid")
            out = np.asarray(step) @ out
        return as_affine(out)

    def then(self, other: "Transform") -> "Transform":
        """This transform, and `other` from where it leads."""
        return Transform((*self.steps, *other.steps))


def _apply(matrix: np.ndarray, at: np.ndarray) -> np.ndarray:
    moved: np.ndarray = at @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def inverse(matrix: Affine) -> Affine:
    """The way back."""
    return as_affine(np.linalg.inv(np.asarray(matrix)))


def centres(grid: Grid) -> Points:
    """Positions [mm] of all voxels of a grid, as `x y z 3`."""
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in grid.shape], indexing="ij"), -1)
    return _apply(np.asarray(grid.affine), index)


def overlap(fixed: Grid, moving: Grid, transform: Transform | None = None) -> float:
    """Share of the fixed grid that lies on the moving one, from every eighth voxel or so along each axis."""
    steps = [np.linspace(0, n - 1, min(n, 24)) for n in fixed.shape]
    index = np.stack(np.meshgrid(*steps, indexing="ij"), -1)
    at = _apply(np.asarray(fixed.affine), index)
    there = _apply(np.linalg.inv(np.asarray(moving.affine)), (transform or Transform())(at))
    inside = ((there >= -0.5) & (there <= np.asarray(moving.shape) - 0.5)).all(-1)
    return float(inside.mean())


def require_overlap(fixed: Grid, moving: Grid, transform: Transform | None, what: str) -> None:
    """Raise ValueError, beginning with `what`, if two images have no place in common."""
    if overlap(fixed, moving, transform) == 0:
        raise ValueError(
            f"{what}: the two images do not overlap; check their headers, and that the transform belongs "
            "to these two scans in this order"
        )


def brought(
    image: Shaped[Tensor, "x y z"], grid: Grid, to: Grid, transform: Transform, order: int = 1
) -> Float[Tensor, "i j k"]:
    """An image of the moving scan on the grid `to` of the fixed one; 0 where it does not reach.

    `order` 1 is linear, 0 the nearest voxel, 3 a cubic spline, which may overshoot.
    """
    index = _apply(np.linalg.inv(np.asarray(grid.affine)), transform(centres(to)))
    values = image.detach().cpu().numpy().astype(np.float32)
    found = ndimage.map_coordinates(values, np.moveaxis(index, -1, 0), order=order, mode="grid-constant")
    return torch.from_numpy(found.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Carried:
    """Labels on another grid."""

    labels: Numbers
    share: Float[Tensor, "x y z"]
    """Share of each voxel, 0 to 1, that its label fills."""
    lost: tuple[int, ...]
    """Labels that have no voxel there."""


def carried(labels: Shaped[Tensor, "i j k"], grid: Grid, to: Grid, transform: Transform) -> Carried:
    """Labels of the moving scan on the grid `to`: each label's own occupancy, linearly; the largest wins.

    Numbers are never mixed. A voxel stays 0 where what is outside all labels fills more than any of them.
    Where the new voxels are larger than the old ones, each is sampled at several points. Raises ValueError
    if no label is left.
    """
    number = labels.detach().cpu().numpy().round().astype(np.int32)
    if not number.any():
        raise ValueError("every label is 0: there is nothing to bring over; give an image with labels")
    parts = [
        int(np.clip(np.ceil(b / a - 0.05), 1, 4))
        for a, b in zip(sorted(grid.voxel_mm), sorted(to.voxel_mm), strict=True)
    ]
    fine, body = max(parts), np.asarray(to.affine)[:3, :3]
    offsets = [body @ ((np.array(sub) + 0.5) / fine - 0.5) for sub in product(range(fine), repeat=3)]
    back, padded = np.linalg.inv(np.asarray(grid.affine)), np.pad(number, 2)
    at = centres(to).reshape(-1, 3)
    winner, best = np.zeros(len(at), np.int32), np.zeros(len(at), np.float32)
    for start in range(0, len(at), CHUNK // len(offsets)):
        here = slice(start, start + CHUNK // len(offsets))
        around = [_corners(padded, _apply(back, transform(at[here] + offset))) for offset in offsets]
        labels_near, weight = (np.concatenate(part, 1) for part in zip(*around, strict=True))
        winner[here], best[here] = _largest(labels_near, weight / len(offsets))
    if not winner.any():
        raise ValueError(
            "no label lies on the new grid: the images do not overlap; check headers and transform"
        )
    left = set(np.unique(winner).tolist())
    return Carried(
        torch.from_numpy(winner.reshape(to.shape)),
        torch.from_numpy(best.reshape(to.shape)),
        tuple(int(n) for n in np.unique(number) if n and int(n) not in left),
    )


def _corners(padded: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the eight voxels round each position, and their linear weights; `padded` by 2."""
    low = np.floor(index)
    part = index - low
    low = np.clip(low.astype(np.int64) + 2, 0, np.array(padded.shape) - 2)
    steps = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    first = low @ steps
    labels = np.stack([padded.ravel()[first + np.dot(c, steps)] for c in product((0, 1), repeat=3)], 1)
    near = np.stack([1 - part, part])
    weight = np.stack(
        [near[a, :, 0] * near[b, :, 1] * near[c, :, 2] for a, b, c in product((0, 1), repeat=3)], 1
    )
    return labels, weight


def _largest(labels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label of the largest summed weight in each row, and that weight; 0 loses ties."""
    winner = labels[:, 0].copy()
    best = np.where(winner > 0, 1.0, 0.0).astype(np.float32)
    mixed = np.flatnonzero((labels != labels[:, :1]).any(1))
    order = np.argsort(labels[mixed], 1, kind="stable")
    number, part = (np.take_along_axis(v[mixed], order, 1) for v in (labels, weight))
    upto = part.cumsum(1)
    last = np.concatenate([number[:, 1:] != number[:, :-1], np.ones((len(mixed), 1), bool)], 1)
    before = np.zeros_like(upto)
    before[:, 1:] = np.maximum.accumulate(np.where(last, upto, 0), 1)[:, :-1]
    share = np.where(last, upto - before, -1) - 1e-9 * (number == 0)
    top = share.argmax(1)[:, None]
    winner[mixed] = np.take_along_axis(number, top, 1)[:, 0]
    best[mixed] = np.where(winner[mixed] > 0, np.take_along_axis(share, top, 1)[:, 0], 0)
    return winner, best


def turned(grid: Grid, to: Grid, motion: Affine) -> Grid:
    """The grid `to` for a head that was moved there: B0 turns with the head.

    `motion` takes a position on `grid` to one on `to`. In the head's own axes B0 keeps its direction, so
    the dipole of the resampled data is the right one.
    """
    m = np.asarray(motion, dtype=float)[:3, :3]
    if np.abs(m.T @ m - np.eye(3)).max() > 1e-2 or np.linalg.det(m) < 0:
        raise ValueError(
            "the motion is not rigid (it stretches, shears or mirrors): a field has no meaning after it; "
            "keep χ where it is and bring labels to it"
        )
    x, y, z = m @ np.asarray(grid.b0_world, dtype=float)
    return replace(to, b0_world=(float(x), float(y), float(z)))


def moved(echoes: Echoes, to: Grid, motion: Affine) -> Echoes:
    """Complex echoes on the grid `to`, by cubic splines of real and imaginary part; B0 turns with the head.

    Phase itself is never interpolated: it would be wrong at every wrap.
    """
    grid = turned(echoes.grid, to, motion)
    way = Transform((inverse(motion),))
    require_overlap(to, echoes.grid, way, "resampling")
    parts = [
        torch.complex(*(brought(part, echoes.grid, to, way, 3) for part in (s.real, s.imag)))
        for s in echoes.signal
    ]
    mask = None
    if echoes.mask is not None:
        mask = brought(echoes.mask.float(), echoes.grid, to, way) > 0.5
    return Echoes(torch.stack(parts), grid, Scan(**vars(echoes.scan)), mask)

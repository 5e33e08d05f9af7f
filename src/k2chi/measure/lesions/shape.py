"""Where a lesion lies and how large it is."""

from dataclasses import dataclass

import numpy as np

from k2chi.data import Grid, Vector
from k2chi.measure.lesions.parts import Labels, boxes


@dataclass(frozen=True)
class Shape:
    """Place and size of one lesion on the grid it was drawn on; x, y and z are the axes of that array.

    A voxel counts with its whole body, so one voxel is one edge long. "Seen along x" means in the slice
    across x with the largest area of the lesion.
    """

    label: int
    """Number of the lesion; the largest is 1."""
    voxels: int
    """Voxels that it fills."""
    volume_mm3: float
    """Volume [mm³]."""
    centre_voxel: Vector
    """Mean index of its voxels, from 0."""
    centre_mm: Vector
    """The same in the scanner [mm]: right, anterior, superior."""
    first_slice: tuple[int, int, int]
    """First slice that it reaches, from 0."""
    last_slice: tuple[int, int, int]
    """Last slice that it reaches."""
    extent_mm: Vector
    """Extent along each axis [mm]; the smallest is what the 3 mm rule looks at."""
    long_mm: Vector
    """Longest diameter, seen along each axis [mm]."""
    short_mm: Vector
    """Diameter across the longest, seen along each axis [mm]."""
    longest_mm: float
    """Longest calliper width in space [mm], over 400 directions."""
    narrowest_mm: float
    """Narrowest calliper width in space [mm], over the same directions."""


def shapes(labels: Labels, grid: Grid) -> tuple[Shape, ...]:
    """A row for each lesion, by number."""
    number = labels.cpu().numpy()
    if tuple(number.shape) != grid.shape:
        raise ValueError(f"labels have {tuple(number.shape)} voxels, their grid {grid.shape}")
    a = np.asarray(grid.affine)
    rows = []
    for n, box in boxes(number).items():
        at = np.argwhere(number[box] == n) + [s.start for s in box]
        centre = at.mean(0)
        first, last = at.min(0), at.max(0)
        seen = [_seen_along(at, axis, grid.voxel_mm) for axis in range(3)]
        widths = width(at, sphere(400), grid.voxel_mm)
        rows.append(
            Shape(
                label=n,
                voxels=len(at),
                volume_mm3=len(at) * grid.voxel_volume_mm3,
                centre_voxel=_vector(centre),
                centre_mm=_vector(a[:3, :3] @ centre + a[:3, 3]),
                first_slice=(int(first[0]), int(first[1]), int(first[2])),
                last_slice=(int(last[0]), int(last[1]), int(last[2])),
                extent_mm=_vector((last - first + 1) * np.asarray(grid.voxel_mm)),
                long_mm=_vector(np.array([s[0] for s in seen])),
                short_mm=_vector(np.array([s[1] for s in seen])),
                longest_mm=float(widths.max()),
                narrowest_mm=float(widths.min()),
            )
        )
    return tuple(rows)


def width(at: np.ndarray, directions: np.ndarray, voxel_mm: Vector) -> np.ndarray:
    """Calliper width [mm] of voxels with whole bodies, along each of some unit vectors in voxel axes."""
    v = np.asarray(voxel_mm)
    along = (at * v) @ directions.T
    found: np.ndarray = along.max(0) - along.min(0) + np.abs(directions) @ v
    return found


def sphere(count: int) -> np.ndarray:
    """Unit vectors spread evenly over half a sphere (a golden spiral), and the three axes."""
    k = np.arange(count) + 0.5
    z, turn = k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.concatenate([np.eye(3), np.stack([r * np.cos(turn), r * np.sin(turn), z], 1)])


def _seen_along(at: np.ndarray, axis: int, voxel_mm: Vector) -> tuple[float, float]:
    areas = np.bincount(at[:, axis])
    flat = at[at[:, axis] == areas.argmax()]
    one, two = (i for i in range(3) if i != axis)
    angle = np.deg2rad(np.arange(0, 180, 3))
    way = np.zeros((len(angle), 3))
    way[:, one], way[:, two] = np.cos(angle), np.sin(angle)
    widths = width(flat, way, voxel_mm)
    longest = int(widths.argmax())
    return float(widths[longest]), float(widths[(longest + 30) % 60])


def _vector(v: np.ndarray) -> Vector:
    return float(v[0]), float(v[1]), float(v[2])

"""The head around the brain: scalp, skull, air spaces, face, neck. Signed distances in atlas coordinates.

Everything is written down as smooth shapes at MNI152 coordinates, except the brain's own envelope, which
comes from the MNI152 tissue maps.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

from k2chi.data import Vector
from k2chi.phantom.cortex import brain_maps
from k2chi.phantom.geometry import (
    OUTSIDE_MM,
    Distance,
    Points,
    ellipsoid,
    mirrored,
    rounded_box,
    smooth_union,
    tube,
)
from k2chi.phantom.nuclei import REGIONS, regions
from k2chi.phantom.warp import Volume

ORIGIN_MM, STEP_MM, SHAPE = (-112.0, -154.0, -176.0), 2.0, (113, 147, 143)
SURFACES = ("skin", "soft", "bone", "marrow", "inner", "air", "orbit", "hull", "cord", *REGIONS)
"""Order of the distances: head surface; under the fat; bone; diploe; inside of the skull; air; fat of the
orbits; envelope of the brain; spinal cord; then the regions of the brain."""

Shape = Callable[[Points], Distance]


def _closed(away_mm: np.ndarray, radius_mm: float) -> Distance:
    """Signed distance [mm] of a mask after closing gaps narrower than twice the radius.

    `away_mm` is the distance of each point to the mask.
    """
    wide = np.pad(away_mm <= radius_mm, 1, mode="edge")
    closed = binary_fill_holes(distance_transform_edt(wide)[1:-1, 1:-1, 1:-1] * STEP_MM > radius_mm)
    signed = distance_transform_edt(closed) - distance_transform_edt(~closed)
    return torch.from_numpy(gaussian_filter((signed * STEP_MM).astype(np.float32), 1.0))


class _Canvas:
    """Distances on the reference grid; a shape is evaluated only near itself."""

    def __init__(self) -> None:
        axes = [o + STEP_MM * torch.arange(n) for o, n in zip(ORIGIN_MM, SHAPE, strict=True)]
        self.points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def window(self, low: Vector, high: Vector) -> tuple[slice, slice, slice]:
        at = [
            slice(max(int((a - o) / STEP_MM), 0), min(int((b - o) / STEP_MM) + 2, n))
            for a, b, o, n in zip(low, high, ORIGIN_MM, SHAPE, strict=True)
        ]
        return at[0], at[1], at[2]

    def empty(self) -> Distance:
        return torch.full(SHAPE, OUTSIDE_MM)

    def add(self, onto: Distance, shape: Shape, low: Vector, high: Vector, blend_mm: float = 0.0) -> None:
        """Union of `shape` into `onto`, inside the box from `low` to `high`."""
        at = self.window(low, high)
        new = shape(self.points[at])
        onto[at] = smooth_union(onto[at], new, blend_mm) if blend_mm else torch.maximum(onto[at], new)


def _face(c: _Canvas, vault: Distance) -> Distance:
    """Skin: vault and scalp, face, nose, chin, ears, neck."""
    skin = vault + 12.5
    far: tuple[Vector, Vector] = ((-110, -154, -176), (110, 138, 60))
    c.add(skin, lambda p: rounded_box(p, (0, 36, -66), (62, 50, 62), 42), *far, 22)
    c.add(skin, lambda p: ellipsoid(p, (0, -36, -150), (60, 62, 110)), *far, 26)
    c.add(
        skin,
        lambda p: tube(p, [(0, 84, -16), (0, 96, -44), (0, 101, -54)], [6, 8, 10]),
        (-30, 60, -80),
        (30, 130, 20),
        10,
    )
    c.add(skin, lambda p: ellipsoid(p, (0, 74, -116), (26, 18, 16)), (-60, 40, -150), (60, 110, -80), 16)
    c.add(skin, lambda p: ellipsoid(p, (0, 84, -88), (24, 8, 12)), (-60, 60, -120), (60, 110, -60), 8)
    c.add(
        skin,
        lambda p: ellipsoid(mirrored(p), (84, -34, -38), (4.5, 15, 27), (0.93, -0.34, 0), (0.34, 0.93, 0.1)),
        (-110, -70, -90),
        (110, 10, 10),
        5,
    )
    return skin


def _bone(c: _Canvas, vault: Distance, inner: Distance) -> Distance:
    """Bone: vault, base, face, jaw, spine, petrous ridges."""
    x, y, z = c.points.unbind(-1)
    thick = 6.3 + 1.5 * ((-70 - y) / 30).clamp(0, 1) + 0.8 * ((y - 40) / 30).clamp(0, 1)
    thick = thick - 2.6 * (1 - ((x.abs() - 66).square() + 0.5 * (z + 18).square()).sqrt() / 45).clamp(0, 1)
    bone = vault + thick
    bone = torch.minimum(bone, inner + 11)  # no thick slab below the base where the vault bridges a gap

    def paired(shape: Shape) -> Shape:
        return lambda p: shape(mirrored(p))

    for shape, low, high in (
        (lambda p: rounded_box(p, (0, 52, -62), (42, 26, 28), 14), (-60, 10, -110), (60, 100, -20)),
        (lambda p: ellipsoid(p, (0, 14, -38), (21, 19, 14)), (-40, -20, -70), (40, 50, -10)),
        (lambda p: ellipsoid(p, (0, 78, -2), (28, 8, 16)), (-50, 55, -40), (50, 110, 30)),
        (paired(lambda p: tube(p, [(44, 64, -52), (64, 34, -52), (71, 2, -44)], [6, 3.5, 4])), (-90, -20, -80), (90, 90, -20)),
        (paired(lambda p: tube(p, [(50, 2, -52), (49, 4, -100), (40, 34, -116), (18, 68, -124), (0, 76, -124)], [5, 7, 7, 7, 8])), (-80, -30, -150), (80, 110, -30)),
        (paired(lambda p: tube(p, [(26, 34, -94), (24, 56, -94), (11, 73, -94), (0, 77, -94)], [6, 6, 5.5, 5])), (-60, 10, -120), (60, 110, -70)),
        (paired(lambda p: tube(p, [(54, -28, -42), (36, -20, -37), (14, -8, -36)], [10, 8, 5])), (-90, -60, -70), (90, 20, -10)),
        (paired(lambda p: ellipsoid(p, (57, -36, -54), (12, 15, 22))), (-90, -70, -95), (90, 0, -20)),
        (paired(lambda p: tube(p, [(18, 70, -24), (34, 78, -26), (47, 66, -30), (50, 62, -46), (36, 72, -56)], [4, 4, 4.5, 5, 5])), (-80, 40, -80), (80, 110, 0)),
    ):  # fmt: skip
        c.add(bone, shape, low, high)
    below = torch.where(z < -70, 0.0, OUTSIDE_MM)
    gap = 1.5 * torch.cos(z * (2 * torch.pi / 17)).clamp(min=0.4) - 1.5
    column = torch.maximum(12 - torch.hypot(x / 1.25, y + 22) + 6 * gap, 16 - torch.hypot(x, y + 43))
    column = torch.maximum(
        column, torch.minimum(5 - x.abs() + 2 * gap, torch.minimum(-56 - y, y + 84) + 4 * gap)
    )
    spine = torch.minimum(column + below, (z + 178) * 1.0)
    bone = torch.maximum(bone, spine)
    return bone


def _air(c: _Canvas) -> Distance:
    """Air spaces, drawn large: bone under the brain and skin in front bound them later."""
    air = c.empty()
    x = c.points[..., 0]

    def paired(shape: Shape) -> Shape:
        return lambda p: shape(mirrored(p))

    for shape, low, high in (
        (lambda p: ellipsoid(p, (13, 77, 2), (13, 6, 15)), (-5, 60, -30), (40, 100, 30)),
        (lambda p: ellipsoid(p, (-11, 77, -1), (11, 6, 12)), (-40, 60, -30), (5, 100, 30)),
        (paired(lambda p: rounded_box(p, (8, 46, -35), (7, 19, 12), 5)), (-30, 10, -60), (30, 80, -10)),
        (paired(lambda p: ellipsoid(p, (8, 16, -38), (8.5, 13, 10))), (-30, -10, -60), (30, 45, -15)),
        (paired(lambda p: ellipsoid(p, (29, 50, -64), (12.5, 15, 16))), (-60, 20, -95), (60, 80, -35)),
        (paired(lambda p: rounded_box(p, (5, 52, -60), (4.5, 34, 17), 3)), (-25, 5, -90), (25, 105, -30)),
        (paired(lambda p: tube(p, [(6, 80, -64), (6, 94, -66)], [4.5, 4.5])), (-25, 60, -85), (25, 115, -50)),
        (lambda p: tube(p, [(0, 24, -62), (0, 10, -72), (0, 4, -95), (0, 6, -118), (0, 10, -180)], [9, 8, 6, 8, 8.5]), (-30, -25, -176), (30, 50, -45)),
        (lambda p: ellipsoid(p, (0, 50, -84), (22, 22, 2.2)), (-40, 10, -100), (40, 85, -70)),
        (paired(lambda p: tube(p, [(46, -22, -43), (62, -22, -45), (92, -27, -45)], [4, 3, 3.5])), (-110, -45, -65), (110, 0, -25)),
        (paired(lambda p: ellipsoid(p, (46, -20, -41), (5, 6, 8))), (-65, -40, -60), (65, 0, -20)),
        (paired(lambda p: ellipsoid(p, (56, -37, -48), (9, 12, 16))), (-80, -65, -80), (80, -10, -20)),
    ):  # fmt: skip
        c.add(air, shape, low, high)
    turbinates = c.empty()
    for shape in (
        lambda p: tube(mirrored(p), [(8, 34, -66), (8, 72, -68)], [3.6, 3.6]),
        lambda p: tube(mirrored(p), [(8, 34, -54), (8, 68, -55)], [2.6, 2.6]),
    ):
        c.add(turbinates, shape, (-25, 20, -80), (25, 85, -40))
    septum = 0.8 - x.abs()  # nasal septum and the walls between paired sinuses
    septum = torch.where(c.points[..., 2] < -72, OUTSIDE_MM, septum)
    return torch.minimum(air, -torch.maximum(turbinates, septum))


@lru_cache(maxsize=1)
def surfaces() -> Volume:
    """The distances of `SURFACES` on a 2 mm grid in atlas coordinates. Made once a process (seconds)."""
    c = _Canvas()
    brain = brain_maps()
    cord = tube(c.points, [(0, -41, -55), (0, -43, -80), (0, -44, -200)], [6.5, 5.5, 5.0])
    box = c.window((-106, -142, -104), (106, 112, 112))  # distances are dear; the neck needs none
    filled = (brain(c.points[box]).sum(0) > 0.35).numpy() | (cord[box] > 0).numpy()
    away = distance_transform_edt(~binary_fill_holes(filled)).astype(np.float32) * STEP_MM
    above = filled & (c.points[box][..., 2] > -66).numpy()
    hull, snug, round_ = c.empty(), c.empty(), c.empty()
    hull[box], snug[box] = _closed(away, 5.0), _closed(away, 9.0)
    round_[box] = _closed(distance_transform_edt(~above).astype(np.float32) * STEP_MM, 24.0)
    vault = round_ + 2.8
    inner = torch.minimum(snug + 2.6, vault)
    c.add(inner, lambda p: tube(p, [(0, -42, -60), (0, -43, -80), (0, -44, -190)], [13, 9.5, 9.0]), (-30, -80, -176), (30, -10, -50), 6)  # fmt: skip
    petrous = c.empty()
    c.add(petrous, lambda p: tube(mirrored(p), [(56, -28, -38), (38, -20, -33), (15, -8, -33)], [9, 7, 4]), (-90, -60, -70), (90, 20, -10))  # fmt: skip
    inner = torch.maximum(torch.minimum(inner, -petrous), torch.minimum(hull + 1.5, inner))
    skin, bone, air = _face(c, vault), _bone(c, vault, inner), _air(c)
    x, y, z = c.points.unbind(-1)
    air = torch.minimum(air, -inner - 2.0)
    sinus = torch.where((z > -78) & (y > -70), torch.minimum(air, skin - 5), OUTSIDE_MM)
    bone = torch.maximum(bone, torch.where((y > 62) & (z < -58), OUTSIDE_MM, sinus + 1.8))
    orbit = c.empty()
    c.add(orbit, lambda p: tube(mirrored(p), [(13, 22, -31), (27, 46, -35), (32, 62, -38)], [3, 12, 17]), (-60, 5, -70), (60, 95, -10))  # fmt: skip
    c.add(bone, lambda p: torch.minimum(tube(mirrored(p), [(13, 22, -31), (27, 46, -35), (32, 60, -38)], [5, 14, 19]), 66 - p[..., 1]), (-60, 5, -70), (60, 95, -10))  # fmt: skip
    orbit = torch.minimum(orbit, -inner - 2.5)
    air = torch.minimum(air, torch.where(z > -52, -orbit - 1.2, -OUTSIDE_MM))
    # scalp fat: thin over the temples and the crown, thick in cheeks and neck
    fat = 5.0 + 4.0 * ((-40 - z) / 40).clamp(0, 1) - 1.2 * ((z - 60) / 20).clamp(0, 1)
    soft = skin - fat
    bone = torch.minimum(bone, skin - 3.0)
    marrow = torch.minimum(bone - 1.7, -inner - 1.7)
    stack = torch.stack(
        [skin, soft, bone, marrow, inner, air, orbit, hull, cord, *regions(c.points).values()]
    )
    return Volume(stack.float().contiguous(), ORIGIN_MM, STEP_MM)

"""The head around the brain: scalp, skull, air spaces, face, neck. Signed distances in atlas coordinates.

Everything is written down as smooth shapes at MNI152 coordinates, except the brain's own envelope, which
comes from the MNI152 tissue maps.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

from k2chi.phantom.cortex import brain_maps
from k2chi.phantom.geometry import OUTSIDE_MM, Ball, Box, Distance, Shape, Tube, smooth_union
from k2chi.phantom.nuclei import REGIONS, regions
from k2chi.phantom.warp import Volume

ORIGIN_MM, STEP_MM, SHAPE = (-112.0, -154.0, -176.0), 2.0, (113, 147, 143)
SURFACES = ("skin", "soft", "bone", "marrow", "inner", "air", "orbit", "hull", "cord", *REGIONS)
"""Order of the distances: head surface; under the fat; bone; diploe; inside of the skull; air; fat of the
orbits; envelope of the brain; spinal cord; then the regions of the brain."""

# Shape, and over how many mm it blends into what is there.
_FACE: tuple[tuple[Shape, float], ...] = (
    (Box((0, 36, -66), (62, 50, 62), 42), 22),  # face
    (Ball((0, -36, -150), (60, 62, 110)), 26),  # neck
    (Tube(((0, 84, -16), (0, 96, -44), (0, 101, -54)), (6, 8, 10)), 10),  # nose
    (Ball((0, 74, -116), (26, 18, 16)), 16),  # chin
    (Ball((0, 84, -88), (24, 8, 12)), 8),  # lips
    (Ball((84, -34, -38), (4.5, 15, 27), (0.93, -0.34, 0), (0.34, 0.93, 0.1), True), 5),  # ears
)
_BONES: tuple[Shape, ...] = (
    Box((0, 52, -62), (42, 26, 28), 14),  # maxilla
    Ball((0, 14, -38), (21, 19, 14)),  # body of the sphenoid
    Ball((0, 78, -2), (28, 8, 16)),  # brow
    Tube(((44, 64, -52), (64, 34, -52), (71, 2, -44)), (6, 3.5, 4), True),  # cheek
    Tube(
        ((50, 2, -52), (49, 4, -100), (40, 34, -116), (18, 68, -124), (0, 76, -124)), (5, 7, 7, 7, 8), True
    ),  # mandible
    Tube(((26, 34, -94), (24, 56, -94), (11, 73, -94), (0, 77, -94)), (6, 6, 5.5, 5), True),  # teeth
    Tube(((54, -28, -42), (36, -20, -37), (14, -8, -36)), (10, 8, 5), True),  # petrous ridge
    Ball((57, -36, -54), (12, 15, 22), paired=True),  # mastoid
    Tube(
        ((18, 70, -24), (34, 78, -26), (47, 66, -30), (50, 62, -46), (36, 72, -56)), (4, 4, 4.5, 5, 5), True
    ),  # rim of the orbit
)
_SPACES: tuple[Shape, ...] = (
    Ball((13, 77, 2), (13, 6, 15)),  # frontal sinuses, unequal as in life
    Ball((-11, 77, -1), (11, 6, 12)),
    Box((8, 46, -35), (7, 19, 12), 5, True),  # ethmoid
    Ball((8, 16, -38), (8.5, 13, 10), paired=True),  # sphenoid
    Ball((29, 50, -64), (12.5, 15, 16), paired=True),  # maxillary
    Box((5, 52, -60), (4.5, 34, 17), 3, True),  # nasal cavity
    Tube(((6, 80, -64), (6, 94, -66)), (4.5, 4.5), True),  # nostrils
    Tube(((0, 24, -62), (0, 10, -72), (0, 4, -95), (0, 6, -118), (0, 10, -180)), (9, 8, 6, 8, 8.5)),  # throat
    Ball((0, 50, -84), (22, 22, 2.2)),  # mouth
    Tube(((46, -22, -43), (62, -22, -45), (92, -27, -45)), (4, 3, 3.5), True),  # ear canals
    Ball((46, -20, -41), (5, 6, 8), paired=True),  # middle ears
    Ball((56, -37, -48), (9, 12, 16), paired=True),  # mastoid cells
)
_TURBINATES: tuple[Shape, ...] = (
    Tube(((8, 34, -66), (8, 72, -68)), (3.6, 3.6), True),
    Tube(((8, 34, -54), (8, 68, -55)), (2.6, 2.6), True),
)
_PETROUS = Tube(((56, -28, -38), (38, -20, -33), (15, -8, -33)), (9, 7, 4), True)
_CORD = Tube(((0, -41, -55), (0, -43, -80), (0, -44, -200)), (6.5, 5.5, 5.0))
_CANAL = Tube(((0, -42, -60), (0, -43, -80), (0, -44, -190)), (13, 9.5, 9.0))
_ORBIT = ((13, 22, -31), (27, 46, -35), (32, 62, -38))


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

    def window(self, low: Sequence[float], high: Sequence[float]) -> tuple[slice, slice, slice]:
        at = [
            slice(max(int((a - o) / STEP_MM), 0), min(int((b - o) / STEP_MM) + 2, n))
            for a, b, o, n in zip(low, high, ORIGIN_MM, SHAPE, strict=True)
        ]
        return at[0], at[1], at[2]

    def empty(self) -> Distance:
        return torch.full(SHAPE, OUTSIDE_MM)

    def add(self, onto: Distance, shape: Shape, blend_mm: float = 0.0) -> None:
        """Union of `shape` into `onto`, near the shape only."""
        low, high = (np.asarray(corner) for corner in shape.bounds())
        room = 12 + blend_mm
        at = self.window(tuple(low - room), tuple(high + room))
        new = shape(self.points[at])
        onto[at] = smooth_union(onto[at], new, blend_mm) if blend_mm else torch.maximum(onto[at], new)


def _skin(c: _Canvas, vault: Distance) -> Distance:
    """Head surface: scalp, face, nose, chin, ears, neck."""
    skin = vault + 12.5
    for shape, blend_mm in _FACE:
        c.add(skin, shape, blend_mm)
    return skin


def _bone(c: _Canvas, vault: Distance, inner: Distance) -> Distance:
    """Bone: vault, base, face, jaw, spine, petrous ridges."""
    x, y, z = c.points.unbind(-1)
    thick = 6.3 + 1.5 * ((-70 - y) / 30).clamp(0, 1) + 0.8 * ((y - 40) / 30).clamp(0, 1)
    thick = thick - 2.6 * (1 - ((x.abs() - 66).square() + 0.5 * (z + 18).square()).sqrt() / 45).clamp(0, 1)
    bone = vault + thick
    bone = torch.minimum(bone, inner + 11)  # no thick slab below the base where the vault bridges a gap

    for shape in _BONES:
        c.add(bone, shape)
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
    air, turbinates, x = c.empty(), c.empty(), c.points[..., 0]
    for shape in _SPACES:
        c.add(air, shape)
    for shape in _TURBINATES:
        c.add(turbinates, shape)
    septum = 0.8 - x.abs()  # nasal septum and the walls between paired sinuses
    septum = torch.where(c.points[..., 2] < -72, OUTSIDE_MM, septum)
    return torch.minimum(air, -torch.maximum(turbinates, septum))


@lru_cache(maxsize=1)
def surfaces() -> Volume:
    """The distances of `SURFACES` on a 2 mm grid in atlas coordinates. Made once a process (seconds)."""
    c = _Canvas()
    brain = brain_maps()
    cord = c.empty()
    c.add(cord, _CORD)
    box = c.window((-106, -142, -104), (106, 112, 112))  # distances are dear; the neck needs none
    filled = (brain(c.points[box]).sum(0) > 0.35).numpy() | (cord[box] > 0).numpy()
    away = distance_transform_edt(~binary_fill_holes(filled)).astype(np.float32) * STEP_MM
    above = filled & (c.points[box][..., 2] > -66).numpy()
    hull, snug, round_ = c.empty(), c.empty(), c.empty()
    hull[box], snug[box] = _closed(away, 5.0), _closed(away, 9.0)
    round_[box] = _closed(distance_transform_edt(~above).astype(np.float32) * STEP_MM, 24.0)
    vault = round_ + 2.8
    inner = torch.minimum(snug + 2.6, vault)
    c.add(inner, _CANAL, 6)
    petrous = c.empty()
    c.add(petrous, _PETROUS)
    inner = torch.maximum(torch.minimum(inner, -petrous), torch.minimum(hull + 1.5, inner))
    skin, bone, air = _skin(c, vault), _bone(c, vault, inner), _air(c)
    _, y, z = c.points.unbind(-1)
    air = torch.minimum(air, -inner - 2.0)
    sinus = torch.where((z > -78) & (y > -70), torch.minimum(air, skin - 5), OUTSIDE_MM)
    bone = torch.maximum(bone, torch.where((y > 62) & (z < -58), OUTSIDE_MM, sinus + 1.8))
    orbit, wall = c.empty(), c.empty()
    c.add(orbit, Tube(_ORBIT, (3, 12, 17), True))
    c.add(wall, Tube(_ORBIT, (5, 14, 19), True))
    bone = torch.maximum(bone, torch.minimum(wall, 66 - y))
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

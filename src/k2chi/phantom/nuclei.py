"""Deep nuclei and other small parts of the brain, as ellipsoids and tubes at MNI152 coordinates.

Places and sizes follow published atlases (subcortical nuclei: Pauli 2018, Sci Data 5:180063,
doi:10.1038/sdata.2018.63); each nucleus is a union of a few ellipsoids on the right, mirrored to the left.
"""

import torch

from k2chi.data import Vector
from k2chi.phantom.geometry import Ball, Distance, Points, Tube, coverage, mirrored, smooth_union

NUCLEI: dict[str, tuple[Ball, ...]] = {
    "thalamus": (
        Ball((7, -8, 9.5), (7.5, 5.5, 6.5), (0.5, 0.86, 0.1), (0.86, -0.5, 0)),
        Ball((11.5, -17.5, 7.5), (14, 9, 9.8), (0.42, -0.9, 0), (0.9, 0.42, 0)),
        Ball((17, -28, 5.5), (9.3, 7.8, 7.8), (0.8, -0.6, 0), (0.6, 0.8, 0)),
    ),
    "caudate": (
        Ball((12.4, 17.7, -3.0), (9.2, 7.7, 4.9), (0.57, 0.74, 0.35), (0.25, 0.26, -0.93)),
        Ball((15.8, 16.6, 8.9), (12.4, 6.1, 4.9), (0.03, -0.63, 0.78), (0.49, 0.69, 0.54)),
        Ball((10.2, 11.6, 6.4), (11.7, 7.3, 3.9), (-0.16, 0.57, -0.81), (-0.19, -0.82, -0.54)),
        Ball((14.9, 3.5, 17.5), (12.5, 7.1, 4.1), (-0.10, 0.91, -0.41), (-0.64, -0.37, -0.67)),
        Ball((18.0, -13.8, 22.5), (14.4, 3.9, 2.7), (0.19, -0.98, -0.12), (-0.57, -0.01, -0.82)),
        Ball((24.5, -30.0, 18.0), (8.0, 3.0, 2.0), (0.45, -0.60, -0.66), (-0.6, -0.7, 0.2)),
    ),
    "putamen": (
        Ball((20.6, 10.7, -6.4), (9.0, 6.8, 5.6), (-0.10, 0.99, 0.11), (-0.75, 0, -0.66)),
        Ball((23.1, 9.1, 3.5), (12.9, 7.3, 4.9), (-0.15, 0.76, -0.63), (-0.42, -0.62, -0.66)),
        Ball((28.0, 2.9, -2.2), (14.5, 8.2, 4.5), (-0.23, 0.97, -0.03), (-0.23, -0.08, -0.97)),
        Ball((27.3, -3.3, 7.4), (11.9, 7.4, 5.1), (0.18, -0.98, 0.01), (-0.16, -0.02, 0.99)),
        Ball((30.2, -13.0, -0.4), (12.1, 8.1, 3.5), (-0.09, -0.34, 0.94), (-0.13, 0.94, 0.33)),
    ),
    "pallidum externum": (
        Ball((15.9, 3.4, -2.6), (6.4, 4.2, 3.8), (0.87, -0.49, -0.02), (-0.04, -0.03, -1.0)),
        Ball((17.8, 0.5, 2.4), (7.6, 3.7, 3.5), (-0.46, 0.81, -0.36), (0.80, 0.55, 0.24)),
        Ball((22.3, -4.2, -0.3), (7.8, 6.3, 2.8), (0.38, -0.92, 0.11), (-0.38, -0.05, 0.92)),
    ),
    "pallidum internum": (
        Ball((15.0, -2.7, -4.9), (5.3, 4.5, 3.1), (-0.85, 0.45, -0.27), (0, -0.52, -0.86)),
        Ball((19.3, -6.5, -3.5), (6.0, 4.3, 2.9), (0.59, -0.78, -0.19), (0.04, 0.26, -0.96)),
    ),
    "subthalamic": (
        Ball((9.2, -10.9, -8.7), (4.0, 3.3, 2.0), (0.68, -0.58, 0.46), (0.32, 0.79, 0.52)),
        Ball((12.4, -13.9, -6.8), (4.2, 3.4, 1.9), (-0.53, 0.84, -0.13), (-0.47, -0.42, -0.78)),
    ),
    "nigra reticulata": (
        Ball((8.6, -14.3, -14.2), (6.2, 4.1, 2.0), (0.32, 0.69, 0.65), (-0.80, 0.56, -0.20)),
        Ball((11.8, -18.2, -12.7), (6.6, 4.5, 1.9), (-0.18, -0.86, -0.48), (0.55, -0.49, 0.68)),
    ),
    "nigra compacta": (
        Ball((7.6, -17.1, -13.4), (4.7, 3.3, 1.4), (0.53, 0.32, 0.78), (-0.56, 0.83, 0.04)),
        Ball((8.8, -21.2, -14.2), (4.9, 3.6, 1.5), (0.45, 0.26, 0.85), (-0.31, 0.94, -0.12)),
    ),
    "red nucleus": (Ball((5.1, -19.5, -9.4), (5.3, 4.1, 3.6), (-0.02, 0.78, 0.62), (-0.59, 0.49, -0.64)),),
    "dentate": (Ball((14.8, -58.0, -34.5), (9.6, 6.6, 6.2), (0.42, -0.88, 0.22), (0.9, 0.4, -0.1)),),
}
"""In the order in which they are painted; later ones lie on earlier ones."""


def _crumpled(p: Points, lobe: Ball) -> Distance:
    """The dentate: a folded sheet around a core of white matter, open towards the midline and the front."""
    outer = lobe(p)
    q = p - p.new_tensor(lobe.centre)
    fold = torch.sin(1.35 * q[..., 1] + 0.8 * q[..., 0]) * torch.sin(1.2 * q[..., 2] + 0.5)
    sheet = 1.15 - (outer - 1.5 + 0.8 * fold).abs()
    opening = -q[..., 0] * 0.75 + q[..., 1] * 0.65 - 2.5
    return torch.minimum(sheet, -opening)


def nucleus(name: str, p: Points) -> Distance:
    """Signed distance of the right nucleus; mirror the points for the left one."""
    lobes = NUCLEI[name]
    if name == "dentate":
        return _crumpled(p, lobes[0])
    out = lobes[0](p)
    for lobe in lobes[1:]:
        out = smooth_union(out, lobe(p), 2.0)
    return out


def bounds(name: str) -> tuple[Vector, Vector]:
    """Corners of a box that holds the right nucleus."""
    lobes = NUCLEI[name]
    low = [min(lobe.centre[a] - max(lobe.semi) for lobe in lobes) - 1.0 for a in range(3)]
    high = [max(lobe.centre[a] + max(lobe.semi) for lobe in lobes) + 1.0 for a in range(3)]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


# Where white matter is more (or less) diamagnetic than its mean: centre, semi-axes [mm], change of χ [ppm].
TRACTS: tuple[tuple[Vector, Vector, float], ...] = (
    ((31, -62, 6), (5, 26, 11), -0.028),  # optic radiation
    ((0, -37, 13), (20, 7, 9), -0.012),  # splenium
    ((0, 27, 8), (16, 7, 10), -0.006),  # genu
    ((23, -15, 6), (4.5, 12, 14), -0.022),  # posterior limb of the internal capsule
    ((14, -17, -16), (5, 5, 9), -0.012),  # cerebral peduncle
    ((22, 30, 12), (12, 18, 16), 0.006),  # frontal white matter
)

_BODY = Tube(
    ((6, 32, 0), (9, 16, 13), (12, 0, 19), (18, -25, 20), (25, -40, 12), (25, -62, 8), (23, -82, 5)),
    (8, 9, 9, 9, 10, 8, 6),
)
_HORN = Tube(((25, -40, 12), (32, -28, -9), (31, -12, -20)), (9, 6, 6))
_STEM = Tube(((0, -22, -12), (0, -28, -36), (0, -40, -56), (0, -44, -190)), (15, 15, 10, 7))

REGIONS = (
    "lateral ventricle",
    "third ventricle",
    "fourth ventricle",
    "cerebellum",
    "brainstem",
    "deep",
    "tract",
)
"""Parts that re-label or modulate tissue; the last is the change of χ by white-matter tract [ppm]."""


def regions(p: Points) -> dict[str, Distance]:
    """Signed distances of `REGIONS`: where CSF is ventricle, where cortex is cerebellar, …"""
    m = mirrored(p)
    x, y, z = m.unbind(-1)
    tract = torch.zeros_like(x)
    for centre, semi, ppm in TRACTS:
        tract += ppm * coverage(Ball(centre, semi)(m), 4.0)
    return {
        "lateral ventricle": torch.minimum(torch.maximum(_BODY(m), _HORN(m)), x - 0.5),
        "third ventricle": torch.minimum(torch.minimum(5 - x, 18 - (y + 9).abs()), 12 - (z + 4).abs()),
        "fourth ventricle": Ball((0, -44, -33), (9, 8, 15))(m),
        "cerebellum": torch.maximum(
            Ball((24, -64, -38), (33, 33, 27))(m), Ball((0, -62, -26), (14, 30, 27))(m)
        ),
        "brainstem": _STEM(p),
        "deep": Ball((0, -6, 2), (31, 30, 18))(m),
        "tract": tract,
    }


PLEXUS = Tube(
    ((14, -16, 16.5), (20, -34, 15), (24, -43, 7), (29, -37, -4), (32, -22, -14)), (1.2, 1.8, 3.8, 2.0, 1.0)
)
"""Choroid plexus of the right lateral ventricle."""

_ORBIT_MUSCLES = ((10.0, 0.0), (-9.0, 0.0), (0.0, 9.0), (0.0, -9.0))
EYE: tuple[tuple[str, tuple[Ball | Tube, ...]], ...] = (
    (
        "muscle",
        tuple(
            Tube(((28 + a, 58, -37 + b), (22 + 0.9 * a, 42, -34 + 0.9 * b), (14, 24, -32)), (1.4, 2.2, 1.0))
            for a, b in _ORBIT_MUSCLES
        ),
    ),
    ("brainstem", (Tube(((30, 52, -37.5), (23, 40, -35), (14, 24, -32)), (2.0, 1.9, 2.0)),)),
    ("skin", (Ball((32, 63, -38), (13.1, 13.1, 13.1)),)),
    ("eye", (Ball((32, 63, -38), (12.5, 12.5, 12.5)),)),
    ("muscle", (Ball((32, 72, -38), (4.5, 2.2, 4.5)),)),
)
"""The right orbit, in the order of painting: straight muscles, optic nerve, sclera, vitreous, lens."""

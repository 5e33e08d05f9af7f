"""The venous tree: dural sinuses, cortical and deep veins, down to medullary veins of 0.3 mm."""

from dataclasses import dataclass

import numpy as np
import torch

from k2chi.data import Vector
from k2chi.phantom.warp import Volume


@dataclass(frozen=True)
class Vessel:
    """A tube in atlas coordinates."""

    kind: str
    """Label name: dural sinus, deep vein or cortical vein."""
    nodes: tuple[Vector, ...]
    radii_mm: tuple[float, ...]


def _vessel(kind: str, nodes: np.ndarray, radii: np.ndarray) -> Vessel:
    return Vessel(kind, tuple((float(a), float(b), float(c)) for a, b, c in nodes), tuple(map(float, radii)))


def _smooth(nodes: list[Vector], radii: list[float], step_mm: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A Catmull–Rom curve through the nodes."""
    p = np.asarray(nodes, dtype=float)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    out, r = [], []
    for i in range(1, len(p) - 2):
        n = max(int(np.ceil(np.linalg.norm(p[i + 1] - p[i]) / step_mm)), 1)
        t = np.arange(n)[:, None] / n
        a, b, c, d = p[i - 1], p[i], p[i + 1], p[i + 2]
        out.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
        r.append(radii[i - 1] + (radii[i] - radii[i - 1]) * t[:, 0])
    return np.vstack([*out, p[-2]]), np.append(np.concatenate(r), radii[-1])


class _Surface:
    """The inside of the skull, to lay vessels on."""

    _STENCIL = np.vstack([np.zeros(3), 1.5 * np.eye(3), -1.5 * np.eye(3)])

    def __init__(self, distance: Volume) -> None:
        self.distance = distance

    def __call__(self, p: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.distance(torch.as_tensor(p, dtype=torch.float32))[0].numpy()
        return out

    def look(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances, and unit vectors pointing inwards."""
        d = self(p[..., None, :] + self._STENCIL)
        g = d[..., 1:4] - d[..., 4:7]
        inwards: np.ndarray = g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-6)
        return d[..., 0], inwards

    def normal(self, p: np.ndarray) -> np.ndarray:
        """Unit vectors pointing inwards."""
        return self.look(p)[1]

    def project(self, p: np.ndarray, depth_mm: float, rounds: int = 3) -> np.ndarray:
        """Move points along the normal to `depth_mm` under the surface."""
        for _ in range(rounds):
            d, n = self.look(p)
            p = p + n * (depth_mm - d)[..., None]
        return p


# Right side and midline; kind, nodes, radii [mm].
_FIXED: tuple[tuple[str, list[Vector], list[float]], ...] = (
    (
        "dural sinus",
        [(0, -39, 4), (0, -46, 9), (0, -60, 6), (0, -78, -2), (0, -96, -12)],
        [1.6, 2.0, 1.9, 2.1, 2.4],
    ),
    (
        "dural sinus",
        [(0, 38, 22), (0, 20, 40), (0, -5, 47), (0, -28, 40), (0, -46, 24), (0, -46, 9)],
        [0.5, 0.8, 0.9, 1.0, 1.1, 1.2],
    ),
    (
        "deep vein",
        [(3.5, 3, 9), (2.2, -10, 12), (2.0, -24, 12), (1.6, -34, 8), (0, -39, 4)],
        [0.7, 0.95, 1.1, 1.2, 1.5],
    ),
    ("deep vein", [(6, 33, 6), (4.0, 22, 9), (3.0, 12, 10), (3.5, 3, 9)], [0.35, 0.5, 0.6, 0.6]),
    (
        "deep vein",
        [(22, -30, 20), (18, -20, 18), (14, -10, 17), (9, -1, 13), (3.5, 3, 9)],
        [0.4, 0.5, 0.6, 0.7, 0.7],
    ),
    (
        "deep vein",
        [
            (30, -10, -18),
            (20, -2, -19),
            (14, -8, -18),
            (18, -20, -12),
            (14, -32, -4),
            (6, -39, 2),
            (0, -40, 4),
        ],
        [0.5, 0.6, 0.7, 0.9, 1.0, 1.1, 1.3],
    ),
    (
        "deep vein",
        [(30, -62, 10), (26, -48, 16), (16, -42, 14), (6, -40, 9), (0, -40, 6)],
        [0.4, 0.6, 0.7, 0.8, 0.9],
    ),
    ("deep vein", [(16, 24, 14), (10, 18, 14), (5, 10, 12), (3.5, 3, 9)], [0.35, 0.45, 0.5, 0.5]),
    ("deep vein", [(5, -52, -14), (3, -50, -4), (1, -44, 3), (0, -41, 4)], [0.4, 0.6, 0.7, 0.8]),
)


def _sinuses(s: _Surface, seed: int, variation: float) -> list[Vessel]:
    """Superior sagittal, transverse and sigmoid sinuses, laid against the skull."""
    turns = np.linspace(np.radians(-14), np.radians(192), 60)
    ray = np.stack([np.zeros_like(turns), np.cos(turns), np.sin(turns)], -1)
    start = np.array([0, -15, 0]) + ray * 150.0
    for _ in range(30):  # walk inwards until the surface is met
        start = start - ray * np.clip(-s(start) + 1.8, -4, 12)[:, None] * 0.8
    start[:, 0] = 0
    rise = np.linspace(0, 1, len(turns))
    top = _vessel("dural sinus", start, 1.1 + 2.5 * rise**0.8)
    torcula = start[-1]
    out = [top]
    way = np.array([torcula, (22, -98, -17), (42, -84, -20), (57, -64, -22), (60, -50, -28)])
    way[1:] = s.project(way[1:], 1.5)
    low = s.project(np.array([(55.0, -44, -40), (44.0, -45, -52)]), 1.5)
    jugular = np.array([(33.0, -40, -60), (34, -30, -75), (36, -22, -100), (38, -20, -175)])
    uneven = 0.2 * variation * float(np.random.default_rng([seed, 8]).standard_normal())
    for side, size in ((1, np.exp(uneven)), (-1, np.exp(-uneven))):
        nodes = np.vstack([way, low, jugular]) * [side, 1, 1]
        p, r = _smooth(
            [(a, b, c) for a, b, c in nodes], [3.2, 3.2, 3.3, 3.4, 3.3, 3.2, 3.2, 3.4, 3.8, 4.5, 5]
        )
        out.append(_vessel("dural sinus", p, r * size))
    return out


def _wander(rng: np.random.Generator, count: int, amount: float) -> np.ndarray:
    """A smooth random path that starts at zero."""
    steps = np.cumsum(rng.standard_normal((count, 3)), axis=0) * amount
    path = np.cumsum(steps, axis=0) / count
    out: np.ndarray = path - path[0]
    return out


def _cortical(s: _Surface, rng: np.random.Generator) -> list[Vessel]:
    """Veins on the brain's surface that drain upwards into the sagittal sinus, with side branches."""
    out = []
    for y0 in np.arange(62, -98, -12.0):
        angle = np.radians(90 - (y0 + 15) * 0.55)
        spread = rng.uniform(-0.2, 0.2)
        a = np.array([2.0, y0 + rng.uniform(-4, 4), 100.0])
        p = s.project(a[None], 2.0)[0]
        heading = np.array([1.0, -0.35 * np.cos(angle) + spread, -0.1])
        length = int(rng.uniform(20, 40))
        path = [p]
        turn = 0.0
        for _ in range(length):
            turn = 0.75 * turn + 0.13 * rng.standard_normal()
            n = s.normal(p[None])[0]
            side = np.cross(n, heading)
            heading = heading + 0.45 * turn * side / max(float(np.linalg.norm(side)), 1e-6)
            heading = heading - n * (heading @ n)
            heading = heading / np.linalg.norm(heading) + np.array([0.05, 0, -0.06])
            p = s.project((p + 2.8 * heading)[None], 2.6 + 0.7 * np.sin(0.6 * len(path)), 2)[0]
            if p[0] < 1.5:
                break
            path.append(p)
        nodes = np.asarray(path)
        big = rng.uniform(0.9, 1.6)
        radii = big * np.linspace(1, 0.35, len(nodes))
        out.append(_vessel("cortical vein", nodes, radii))
        for at in range(3, len(nodes) - 2, 3):  # branches sink into the nearest sulci
            n = s.normal(nodes[at][None])[0]
            go = n + 0.9 * rng.standard_normal(3)
            m = int(rng.uniform(3, 8))
            branch = nodes[at] + np.arange(m)[:, None] * 2.2 * go / np.linalg.norm(go) + _wander(rng, m, 0.5)
            if (s(branch) > 0.5).all() and branch[:, 0].min() > 1:
                out.append(_vessel("cortical vein", branch, radii[at] * np.linspace(0.7, 0.35, m)))
    for nodes0 in (
        [
            (38.0, 22, -18),
            (48, 14, -6),
            (56, 0, 6),
            (60, -18, 14),
            (60, -36, 20),
        ],  # superficial middle cerebral
        [(60.0, -36, 20), (58, -48, 4), (56, -56, -8), (58, -58, -22)],  # Labbé
        [(56.0, 0, 6), (58, -12, 28), (48, -22, 52), (28, -26, 70), (6, -28, 78)],  # Trolard
    ):
        p, r = _smooth([(a, b, c) for a, b, c in nodes0], [1.0] * len(nodes0))
        p = s.project(p + 0.6 * _wander(rng, len(p), 0.6), 2.4)
        out.append(_vessel("cortical vein", p, r * rng.uniform(0.9, 1.3)))
    return out


def _medullary(rng: np.random.Generator, count: int) -> list[Vessel]:
    """Fine veins that fan out from the lateral ventricle into white matter."""
    wall, _ = _smooth(
        [(13, 26, 8), (15, 12, 18), (17, -4, 23), (21, -22, 24), (27, -38, 20), (30, -56, 12)], [1.0] * 6
    )
    out = []
    for i in range(count):
        root = wall[int(rng.uniform(0, len(wall)))] + rng.normal(0, 0.8, 3)
        go = np.array([rng.uniform(0.45, 1.0), rng.normal(0, 0.35), rng.uniform(0.1, 1.1)])
        m = int(rng.uniform(6, 13))
        nodes = root + np.arange(m)[:, None] * 2.4 * go / np.linalg.norm(go) + _wander(rng, m, 0.35)
        out.append(_vessel("deep vein", nodes, rng.uniform(0.3, 0.55) * np.linspace(1, 0.55, m)))
        if i % 3 == 0 and m > 8:
            fork = nodes[m // 2] + np.arange(5)[:, None] * 2.2 * (
                go + rng.normal(0, 0.5, 3)
            ) / np.linalg.norm(go)
            out.append(_vessel("deep vein", fork, np.full(5, 0.3)))
    return out


def venous_tree(inner: Volume, seed: int, variation: float = 1.0, medullary: int = 46) -> list[Vessel]:
    """All veins of one person, in atlas coordinates. `inner` is the signed distance of the skull's inside.

    With `variation` 0 the left side is the mirror image of the right one.
    """
    s = _Surface(inner)
    out = _sinuses(s, seed, variation)
    for side in (1, -1):
        rng = np.random.default_rng([seed, 3, 0 if variation == 0 or side > 0 else 1])
        half = []
        for kind, nodes, radii in _FIXED:
            p, r = _smooth(nodes, radii)
            midline = max(abs(q[0]) for q in nodes) < 1
            bend = 0.25 * variation * _wander(rng, len(p), 0.5) * (0 if midline else 1)
            if side > 0 or not midline:
                half.append(_vessel(kind, p + bend * np.hanning(len(p))[:, None], r))
        half += _cortical(s, rng) + _medullary(rng, medullary)
        out += [Vessel(v.kind, tuple((side * a, b, c) for a, b, c in v.nodes), v.radii_mm) for v in half]
    return out

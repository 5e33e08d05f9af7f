"""Implicit shapes: signed distances in mm, positive inside, on points of any shape.

Distances are exact for spheres and tubes and close near the surface for the others; that is enough for
edges that are one voxel wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Vector

Points = Float[Tensor, "*shape 3"]
Distance = Float[Tensor, "*shape"]
X: Vector = (1.0, 0.0, 0.0)
Y: Vector = (0.0, 1.0, 0.0)
OUTSIDE_MM = -40.0
"""Distance that stands for "far outside"."""


def ellipsoid(p: Points, centre: Vector, semi_mm: Vector, long: Vector = X, wide: Vector = Y) -> Distance:
    """Ellipsoid whose first semi-axis points along `long` and whose second lies towards `wide`."""
    q = p - p.new_tensor(centre)
    if (long, wide) != (X, Y):
        a = np.asarray(long) / np.linalg.norm(long)
        b = np.asarray(wide) - np.dot(wide, a) * a
        b /= np.linalg.norm(b)
        q = q @ torch.as_tensor(np.stack([a, b, np.cross(a, b)]).T, dtype=p.dtype)
    s = p.new_tensor(semi_mm)
    k0 = (q / s).norm(dim=-1)
    k1 = (q / s.square()).norm(dim=-1)
    return torch.where(k1 < 1e-6, min(semi_mm) + torch.zeros_like(k0), k0 * (1 - k0) / k1.clamp(min=1e-6))


def rounded_box(p: Points, centre: Vector, semi_mm: Vector, round_mm: float) -> Distance:
    """Box with rounded edges."""
    q = (p - p.new_tensor(centre)).abs() - (p.new_tensor(semi_mm) - round_mm)
    out: Tensor = round_mm - q.clamp(min=0).norm(dim=-1) - q.amax(-1).clamp(max=0)
    return out


def tube(p: Points, nodes: Sequence[Vector], radii_mm: Sequence[float]) -> Distance:
    """Chain of straight pieces whose radius changes linearly from node to node."""
    best = torch.full(p.shape[:-1], OUTSIDE_MM, dtype=p.dtype)
    for (a, ra), (b, rb) in zip(
        zip(nodes[:-1], radii_mm[:-1], strict=True), zip(nodes[1:], radii_mm[1:], strict=True), strict=True
    ):
        start, along = p.new_tensor(a), p.new_tensor(b) - p.new_tensor(a)
        t = ((p - start) @ along / along.square().sum().clamp(min=1e-9)).clamp(0, 1)
        best = torch.maximum(best, ra + (rb - ra) * t - (p - start - t[..., None] * along).norm(dim=-1))
    return best


def smooth_union(a: Distance, b: Distance, blend_mm: float) -> Distance:
    """Union whose seam is rounded over `blend_mm`."""
    h = (blend_mm - (a - b).abs()).clamp(min=0) / blend_mm
    out: Tensor = torch.maximum(a, b) + h.square() * blend_mm / 4
    return out


def coverage(distance_mm: Distance, edge_mm: float) -> Distance:
    """Share of a voxel that lies inside: a ramp as wide as the voxel."""
    return (0.5 + distance_mm / edge_mm).clamp(0, 1)


def mirrored(p: Points) -> Points:
    """Points folded onto the right half (x → |x|), for shapes that exist on both sides."""
    return torch.cat([p[..., :1].abs(), p[..., 1:]], dim=-1)


@dataclass(frozen=True)
class Ball:
    """An ellipsoid, once or on both sides."""

    centre: Vector
    semi: Vector
    long: Vector = X
    wide: Vector = Y
    paired: bool = False

    def __call__(self, p: Points) -> Distance:
        q = mirrored(p) if self.paired else p
        return ellipsoid(q, self.centre, self.semi, self.long, self.wide)

    def bounds(self) -> tuple[Vector, Vector]:
        return _around([self.centre], max(self.semi), self.paired)


@dataclass(frozen=True)
class Box:
    """A box with rounded edges, once or on both sides."""

    centre: Vector
    semi: Vector
    round_mm: float
    paired: bool = False

    def __call__(self, p: Points) -> Distance:
        return rounded_box(mirrored(p) if self.paired else p, self.centre, self.semi, self.round_mm)

    def bounds(self) -> tuple[Vector, Vector]:
        return _around([self.centre], max(self.semi), self.paired)


@dataclass(frozen=True)
class Tube:
    """A chain of straight pieces, once or on both sides."""

    nodes: tuple[Vector, ...]
    radii: tuple[float, ...]
    paired: bool = False

    def __call__(self, p: Points) -> Distance:
        return tube(mirrored(p) if self.paired else p, self.nodes, self.radii)

    def bounds(self) -> tuple[Vector, Vector]:
        return _around(self.nodes, max(self.radii), self.paired)


Shape = Ball | Box | Tube


def _around(points: Sequence[Vector], reach_mm: float, paired: bool) -> tuple[Vector, Vector]:
    """Corners of a box that holds the shape."""
    low, high = np.min(points, axis=0) - reach_mm, np.max(points, axis=0) + reach_mm
    if paired:
        low[0] = -high[0]
    return (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))

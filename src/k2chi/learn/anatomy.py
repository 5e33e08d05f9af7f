"""χ for training, on the training device: antialiased bodies, fractal tissue, texture, strong sources."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Size, Vector, mean_edge
from k2chi.learn.batch import Draw
from k2chi.ops.fourier import SPACE


@dataclass(frozen=True, eq=False)
class Bodies:
    """One body in each cube: an ellipsoid, or with `square` a rounded box, turned at random."""

    centre_mm: Float[Tensor, "n 3"]
    axes_mm: Float[Tensor, "n 3"]
    """Semi-axes [mm]."""
    turn: Float[Tensor, "n 3 3"]
    square: bool = False

    def share(self, shape: Size, voxel_mm: Vector) -> Float[Tensor, "n x y z"]:
        """Share of each voxel that the body fills, from the distance to its surface.

        The distance is the implicit function over its slope; a voxel's share falls from 1 to 0 over the
        voxel's width across the surface. Exact for flat faces along an axis.
        """
        rows = self.turn / self.axes_mm[:, :, None]
        q = []
        for a in range(3):
            parts = [
                (
                    rows[:, a, i, None] * (_axis(shape[i], voxel_mm[i], rows) - self.centre_mm[:, i, None])
                ).reshape(len(rows), *(-1 if i == j else 1 for j in range(3)))
                for i in range(3)
            ]
            q.append(parts[0] + parts[1] + parts[2])
        powers = [x.square() * x if self.square else x for x in q]
        level = sum((p * x for p, x in zip(powers, q, strict=True)), torch.zeros_like(q[0]))
        slope = [
            sum((p * rows[:, a, i, None, None, None] for a, p in enumerate(powers)), torch.zeros_like(q[0]))
            for i in range(3)
        ]
        g = level.clamp_min(1e-12).pow(0.25 if self.square else 0.5)
        length = (slope[0].square() + slope[1].square() + slope[2].square()).sqrt().clamp_min(1e-12)
        across = sum(((s * v).square() for s, v in zip(slope, voxel_mm, strict=True)), torch.zeros_like(g))
        width = across.sqrt() / length  # the ramp that has the variance of a box seen along the normal
        depth = (1 - g) * (g.pow(3) if self.square else g) / length
        share: Tensor = (0.5 + depth / width.clamp_min(1e-12)).clamp(0, 1)
        return torch.where(g > 1e-2, share, torch.ones_like(share))


def _axis(n: int, voxel_mm: float, like: Tensor) -> Float[Tensor, " n"]:
    return (torch.arange(n, device=like.device, dtype=like.dtype) - n // 2) * voxel_mm


def random_bodies(
    draw: Draw, n: int, shape: Size, voxel_mm: Vector, smallest: float, largest: float
) -> Bodies:
    """Sizes even in their logarithm, from `smallest` voxels to the share `largest` of a cube; some long."""
    width = torch.tensor([s * v for s, v in zip(shape, voxel_mm, strict=True)], device=draw.device)
    mean_voxel = mean_edge(voxel_mm)
    size = draw.log_uniform(n, 1, low=smallest * mean_voxel, high=largest * float(width.min()))
    axes = size * draw.log_uniform(n, 3, low=0.5, high=2.0)
    kind = int(draw.number(0, 4))
    if kind == 1:  # a rod
        axes[:, 0] *= 8
    elif kind == 2:  # a sheet
        axes[:, :2] *= 4
    centre = (draw.uniform(n, 3) - 0.5) * 0.8 * width
    axes = axes.clamp(min=0.6 * mean_voxel)
    return Bodies(centre, axes, draw.rotations(n), square=kind == 3)


def painted(
    draw: Draw, n: int, shape: Size, voxel_mm: Vector, count: int, smallest: float = 1.0, largest: float = 0.4
) -> Float[Tensor, "n x y z"]:
    """Bodies over one another: most replace what lies below, some add to it."""
    chi = torch.zeros(n, *shape, device=draw.device)
    for i in range(count):
        bound = largest * (1 - i / count) + 0.1 * i / count  # large ones first, or nothing else is seen
        share = random_bodies(draw, n, shape, voxel_mm, smallest, bound).share(shape, voxel_mm)
        value = draw.normal(n, 1, 1, 1)
        chi = chi + share * (value - chi * draw.happens(0.7, n, 1, 1, 1))
    return chi


def noise_field(
    draw: Draw, n: int, shape: Size, low: float, power: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n x y z"]:
    """Random fields of unit variance with spectrum (low² + k²)^(−power/2), k in cycles a voxel."""
    axes = [torch.fft.fftfreq(s, device=draw.device) for s in shape]
    axes[2] = torch.fft.rfftfreq(shape[2], device=draw.device)
    k2 = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    spectrum = torch.fft.rfftn(draw.normal(n, *shape), dim=SPACE) * (low**2 + k2).pow(-power / 2)
    spectrum[:, 0, 0, 0] = 0
    x = torch.fft.irfftn(spectrum, s=shape, dim=SPACE)
    out: Tensor = x / x.std(SPACE, keepdim=True).clamp_min(1e-12)
    return out


def fractal(draw: Draw, n: int, shape: Size, levels: int = 4) -> Float[Tensor, "n x y z"]:
    """Folded layers: a rough field cut at several heights, with soft edges one voxel wide."""
    f = noise_field(draw, n, shape, draw.number(0.01, 0.06), draw.uniform(n, 1, 1, 1, low=2.2, high=3.5))
    steps = [(torch.roll(f, -1, a) - torch.roll(f, 1, a)) / 2 for a in SPACE]
    slope = (steps[0].square() + steps[1].square() + steps[2].square()).sqrt().clamp_min(0.02)
    chi = torch.zeros_like(f)
    for _ in range(levels):
        at = draw.uniform(n, 1, 1, 1, low=-1.3, high=1.3)
        chi = chi + draw.normal(n, 1, 1, 1) * (0.5 + (f - at) / slope).clamp(0, 1)
    return chi


def scaled(
    chi: Float[Tensor, "n x y z"], support: Bool[Tensor, "n x y z"], size: Float[Tensor, "n 1 1 1"]
) -> Float[Tensor, "n x y z"]:
    """Mean zero and standard deviation `size` in the support."""
    chi = demeaned(chi, support)
    count = support.sum(SPACE, keepdim=True).clamp_min(1)
    now = (chi.square().sum(SPACE, keepdim=True) / count).sqrt()
    return chi * (size / now.clamp_min(1e-9))


def demeaned(chi: Float[Tensor, "n x y z"], support: Bool[Tensor, "n x y z"]) -> Float[Tensor, "n x y z"]:
    """Mean zero in the support, zero outside."""
    s = support.to(chi)
    return (chi - (chi * s).sum(SPACE, keepdim=True) / s.sum(SPACE, keepdim=True).clamp_min(1)) * s


def strong_sources(
    draw: Draw, n: int, shape: Size, voxel_mm: Vector, vessels: int, rare: float
) -> Float[Tensor, "n x y z"]:
    """Veins of 0.1 to 0.45 ppm, and in the share `rare` of cubes a calcification or a bleed."""
    chi = torch.zeros(n, *shape, device=draw.device)
    mean_voxel = mean_edge(voxel_mm)
    width = torch.tensor([s * v for s, v in zip(shape, voxel_mm, strict=True)], device=draw.device)
    for _ in range(vessels):
        radius = draw.log_uniform(n, 1, low=0.6, high=2.0) * mean_voxel
        long = draw.log_uniform(n, 1, low=6, high=30) * mean_voxel
        centre = (draw.uniform(n, 3) - 0.5) * 0.7 * width
        tube = Bodies(centre, torch.cat([long, radius, radius], 1), draw.rotations(n))
        value = draw.uniform(n, 1, 1, 1, low=0.1, high=0.45) * draw.happens(0.7, n, 1, 1, 1)
        chi = torch.maximum(chi, tube.share(shape, voxel_mm) * value)
    radius = draw.log_uniform(n, 1, low=1.0, high=4.0) * mean_voxel * draw.uniform(n, 3, low=0.7, high=1.4)
    lump = Bodies((draw.uniform(n, 3) - 0.5) * 0.6 * width, radius, draw.rotations(n))
    there = draw.happens(rare, n, 1, 1, 1)
    dark = draw.happens(0.6, n, 1, 1, 1)
    size = draw.log_uniform(n, 1, 1, 1, low=0.3, high=1.0)
    value = torch.where(dark, -4 * size, 1.5 * size) * there
    return chi + lump.share(shape, voxel_mm) * value

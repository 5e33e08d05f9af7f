"""Training data made on the fly: our generator. A call with a number gives the batch of that number."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool3d

from k2chi.data import Grid, Size, Vector
from k2chi.learn.anatomy import demeaned, fractal, noise_field, painted, scaled, strong_sources
from k2chi.learn.batch import Batch, Draw
from k2chi.learn.heads import pieces
from k2chi.learn.measured import Measurement, blob, decayed, geometry, imaged, outside_field, two_fold
from k2chi.ops.dipole import dipole, dipole_kernel, fitting
from k2chi.ops.fourier import crop_to, pad_to
from k2chi.ops.linear import Linear

Anatomy = Literal["bodies", "fractal", "head"]


@dataclass(frozen=True)
class Anything:
    """Cubes of bodies, fractal tissue and pieces of the digital head, measured at random.

    Sources lie in the cube; χ has mean zero in the mask, so that the field of the label is the local field.
    What is added: noise that varies in space, patches off by whole turns, and fields of sources outside the
    mask, weak ones as a background removal leaves behind, or with `total` far stronger than the local field.
    No source: made for this package.
    """

    size: int = 48
    """Edge of a cube [voxels]."""
    batch: int = 8
    """Cubes of one geometry."""
    voxel_mm: tuple[float, float] = (0.4, 2.5)
    """Range of a voxel's edges [mm]."""
    anisotropy: float = 4.0
    """Largest ratio of a voxel's edges."""
    oblique: float = 0.5
    """Share of batches whose B0 is not along the last axis."""
    bodies: float = 0.35
    """Share of batches made of bodies."""
    heads: float = 0.3
    """Share of batches that are pieces of digital heads; the rest is fractal tissue."""
    persons: int = 3
    """Digital heads that pieces are taken from, 1 to 3; each costs some 15 s when it is first needed."""
    spread_ppm: tuple[float, float] = (0.03, 0.1)
    """Range of the standard deviation of χ before strong sources [ppm]."""
    strong: float = 0.15
    """Share of cubes with a calcification or a bleed."""
    residual: float = 0.15
    """Largest background left in a local field, relative to the local field."""
    total: bool = False
    """True for the total field: the background is 3 to 40 times the local field."""
    finer: float = 0.0
    """Share of batches drawn, and their field made, on a grid twice as fine; then both are averaged over the
    voxels. As in a scan, no map of voxels then has exactly the field that is given."""
    imaged: float = 0.0
    """Share of those batches whose field is the phase of an image with k-space cut, in place of the mean."""
    measurement: Measurement = Measurement()
    """Noise and faults."""

    def __post_init__(self) -> None:
        if self.size < 8 or self.batch < 1 or self.anisotropy < 1:
            raise ValueError("training cubes need an edge of 8 voxels, a batch of one, an anisotropy of one")

    def __call__(self, number: int, device: torch.device | str = "cpu") -> Batch:
        """Batch `number`: the same number gives the same batch on the same device."""
        draw = Draw(number, device)
        n, shape = self.batch, (self.size, self.size, self.size)
        voxel, b0 = geometry(draw, self.voxel_mm, self.anisotropy, self.oblique)
        grid = Grid.of(shape, voxel, b0)
        support = blob(draw, n, shape)
        kind = self._kind(draw.number())
        parts = 2 if self.finer and draw.number() < self.finer else 1
        fine, small = _refined(grid, parts), (self.size * parts,) * 3
        if kind == "head":
            chi, brain = pieces(draw, n, small, fine.voxel_mm, self.persons)
            kept = support & (_averaged(brain.float(), parts) > 0.5)
            enough = kept.sum((-3, -2, -1), keepdim=True) > 0.2 * support.sum((-3, -2, -1), keepdim=True)
            support = torch.where(enough, kept, support)
        else:
            chi = self._drawn(draw, kind, n, small, fine.voxel_mm)
        inside = _repeated(support, parts)
        size = draw.log_uniform(n, 1, 1, 1, low=self.spread_ppm[0], high=self.spread_ppm[1])
        chi = scaled(chi, inside, size)
        vessels = 0 if kind == "head" else int(draw.number(0, 5))
        chi = demeaned(chi + strong_sources(draw, n, small, fine.voxel_mm, vessels, self.strong), inside)
        d, wide = two_fold(grid, draw.device)
        if parts == 1:
            seen = local = crop_to(d(pad_to(chi, wide)), shape)
            magnitude = decayed(chi)
        else:
            sharp, small_chi = dipole(fine, draw.device, pad=2)(chi), chi
            local, chi = _averaged(sharp, parts), _averaged(chi, parts)
            seen, magnitude = local, decayed(chi)
            if self.imaged and draw.number() < self.imaged:
                turns = self.measurement.rad_per_ppm
                seen, magnitude = imaged(draw, sharp, small_chi, inside, local, turns)
        field, weight, noise = self.measurement(
            draw, seen + self._beyond(draw, d, wide, local, support), magnitude, support
        )
        kernel = dipole_kernel(grid, shape, fitting(grid)).to(draw.device)
        return Batch(chi, field, local, weight, support, kernel, grid.voxel_mm, grid.b0_dir, noise)

    def _kind(self, u: float) -> Anatomy:
        return "bodies" if u < self.bodies else "head" if u < self.bodies + self.heads else "fractal"

    def _drawn(
        self, draw: Draw, kind: Anatomy, n: int, shape: Size, voxel: Vector
    ) -> Float[Tensor, "n x y z"]:
        """Bodies alone, or fractal tissue with a few; some with smooth texture."""
        if kind == "bodies":
            chi = painted(draw, n, shape, voxel, count=int(draw.number(8, 40)))
        else:
            chi = fractal(draw, n, shape) + 0.5 * painted(draw, n, shape, voxel, 6, largest=0.2)
        texture = noise_field(draw, n, shape, 0.05, draw.uniform(n, 1, 1, 1, low=1.5, high=3.5))
        return chi + 0.25 * draw.uniform(n, 1, 1, 1) * texture

    def _beyond(
        self, draw: Draw, d: Linear, wide: Size, local: Tensor, support: Tensor
    ) -> Float[Tensor, "n x y z"]:
        """Fields of sources outside the mask."""
        n = local.shape[0]
        w = support.to(local)
        count = w.sum((-3, -2, -1), keepdim=True).clamp_min(1)
        size = ((local * w).square().sum((-3, -2, -1), keepdim=True) / count).sqrt()
        if self.total:
            ratio = draw.log_uniform(n, 1, 1, 1, low=3, high=40)
        else:
            ratio = self.residual * draw.uniform(n, 1, 1, 1)
        return size * ratio * outside_field(draw, d, wide, support)


def _refined(grid: Grid, parts: int) -> Grid:
    """The cube in voxels `parts` times as small."""
    x, y, z = grid.shape
    u, v, w = grid.voxel_mm
    return Grid.of((x * parts, y * parts, z * parts), (u / parts, v / parts, w / parts), grid.b0_dir)


def _averaged(x: Float[Tensor, "n x y z"], parts: int) -> Float[Tensor, "n u v w"]:
    return x if parts == 1 else avg_pool3d(x[:, None], parts)[:, 0]


def _repeated(x: Bool[Tensor, "n u v w"], parts: int) -> Bool[Tensor, "n x y z"]:
    for axis in (1, 2, 3):
        x = x.repeat_interleave(parts, axis)
    return x

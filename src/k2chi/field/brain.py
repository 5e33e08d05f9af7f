"""The brain without scalp, skull, eyes and neck, from the magnitude alone."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import ndimage

from k2chi.data import Echoes, Grid, Vector
from k2chi.field.shapes import (
    Array,
    combined_magnitude,
    dilate,
    erode,
    fill_holes,
    largest_part,
    otsu,
    with_mask,
)
from k2chi.ops.smooth import gaussian

WORK_MM = 2.0
"""Voxel [mm] on which the shape is found; the edge is then drawn on the full grid."""
MOST_LITRES = 2.2
"""No brain with its CSF is larger than this."""
DEEP_MM = 5.0
"""Deeper than this [mm] below the surface of the shape, dark voxels are brain too."""


@dataclass(frozen=True)
class BrainMask:
    """Find the brain as the thickest bright body, cut loose where the skull leaves it thin bridges.

    On 2 mm voxels: brightness is judged against the smooth brightness of what is surely brain, so that coil
    shading does no harm; bright tissue is eroded until the brain falls apart from scalp, eyes and neck (the
    smallest depth from 2 mm up at which 1 mm more changes little), grown back, and closed over the sulci.
    On the full grid the edge is where brightness falls to `edge` of the brain's nearby; holes (nuclei, veins,
    drop-out inside) are filled; the spinal cord is cut where the section falls below 4 % of the largest.

    No source: our own; needs no template and no weights. Takes the outermost CSF in, and the dural sinuses in
    part; leaves out brain whose signal has dropped out at the rim. A brain already cut out (zeros around) is
    kept whole. Small bodies on bridges thicker than 4 mm may stay, such as an eye on its nerve in thick
    slices. About 5 s at 164×205×205.
    """

    edge: float = 0.55
    """Where the edge lies between dark (0) and the brain nearby (1)."""
    close_mm: float = 7.0
    """Sulci and drop-out narrower than twice this [mm] are closed over."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.edge <= 0.9:
            raise ValueError(f"BrainMask edge {self.edge}: choose 0.1 to 0.9")
        if self.close_mm < 0:
            raise ValueError(f"BrainMask close_mm {self.close_mm}: choose 0 mm or more")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with the mask."""
        size = combined_magnitude(echoes).cpu().numpy()
        if not (size > 0).any():
            return with_mask(echoes, size > 0, "BrainMask")
        steps = tuple(max(1, round(WORK_MM / v)) for v in echoes.grid.voxel_mm)
        small = _coarsen(size, steps)
        x, y, z = (v * s for v, s in zip(echoes.grid.voxel_mm, steps, strict=True))
        shape, reference = _find(small, (x, y, z), self.edge, self.close_mm)
        depth = ndimage.distance_transform_edt(shape, sampling=(x, y, z))
        fine = [_refine(part, steps, size.shape) for part in (shape, depth, reference)]
        mask = _draw(size, fine[0] > 0.3, fine[1] > DEEP_MM, fine[2], echoes.grid.voxel_mm, self.edge)
        return with_mask(echoes, _whole_if_cut_out(_without_cord(mask, echoes.grid), size), "BrainMask")


def _coarsen(x: Array, steps: tuple[int, ...]) -> Array:
    """Means over blocks."""
    pad = [(0, (-n) % s) for n, s in zip(x.shape, steps, strict=True)]
    x = np.pad(x, pad, mode="edge")
    a, b, c = (n // s for n, s in zip(x.shape, steps, strict=True))
    mean: Array = x.reshape(a, steps[0], b, steps[1], c, steps[2]).mean((1, 3, 5))
    return mean


def _refine(x: Array, steps: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Linear interpolation from blocks back to voxels."""
    parts = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None, None]
    full = [n * s for n, s in zip(x.shape, steps, strict=True)]
    fine = torch.nn.functional.interpolate(parts, size=full, mode="trilinear")[0, 0].numpy()
    cut: Array = fine[: shape[0], : shape[1], : shape[2]]
    return cut


def _smooth(x: Array, sigma_mm: float, voxel_mm: Vector) -> Array:
    smooth: Array = gaussian(torch.from_numpy(x.astype(np.float32)), sigma_mm, voxel_mm).numpy()
    return smooth


def _find(size: Array, voxel_mm: Vector, edge: float, close_mm: float) -> tuple[Array, Array]:
    """Rough shape of the brain, and the brightness of brain around each voxel."""
    top = np.percentile(size[size > 0], 97)
    bright = size > 0.7 * otsu(np.minimum(size[size > 0], top))
    reference = np.full_like(size, np.median(size[bright]))
    for _ in range(3):
        core = _thickest(bright, 6.0, voxel_mm)
        inner = core & (size > 0.5 * reference) & (size < 2 * reference)
        share = _smooth(inner, 15.0, voxel_mm)
        near = _smooth(size * inner, 15.0, voxel_mm) / np.maximum(share, 1e-9)
        reference = np.where(share > 1e-6, near, np.median(size[inner]))
        bright = size > edge * 0.9 * reference
    chosen = _loose(size, reference, edge, voxel_mm)
    shape = erode(dilate(chosen, close_mm, voxel_mm), close_mm, voxel_mm) | chosen
    return fill_holes(shape), reference


def _loose(size: Array, reference: Array, edge: float, voxel_mm: Vector) -> Array:
    """Bright tissue eroded just deep enough to let go of the rest, and grown back.

    Deep enough: going a step deeper takes less than 3 %, and the volume is a brain's. If no depth is, bridges
    are cut by asking for more brightness.
    """
    loose = size > 0
    start = max(2.0, 1.2 * max(voxel_mm))  # thinner bridges than a voxel are not seen
    for harder in (0.9, 1.1, 1.3):
        bright = size > harder * edge * reference
        tries = (_cut_loose(bright, start + deeper, voxel_mm) for deeper in range(7))
        for loose, deeper in pairwise(tries):
            litres = loose.sum() * np.prod(voxel_mm) / 1e6
            if litres < MOST_LITRES and deeper.sum() > 0.97 * loose.sum():
                return loose
    return loose


def _thickest(bright: Array, depth_mm: float, voxel_mm: Vector) -> Array:
    """The part of the eroded bright tissue with the most depth in sum; less erosion if nothing is left."""
    solid = fill_holes(bright, round(5000 / np.prod(voxel_mm)))
    depth = ndimage.distance_transform_edt(solid, sampling=voxel_mm)
    parts, count = ndimage.label(depth > min(depth_mm, 0.5 * depth.max()))
    if count < 2:
        return np.asarray(parts > 0)
    total = np.bincount(parts.ravel(), weights=depth.ravel())
    total[0] = 0
    thickest: Array = parts == total.argmax()
    return thickest


def _cut_loose(bright: Array, depth_mm: float, voxel_mm: Vector) -> Array:
    """Erode, keep the brain, grow it back inside the bright tissue."""
    core = _thickest(bright, depth_mm, voxel_mm)
    solid = fill_holes(bright, round(5000 / np.prod(voxel_mm)))
    return largest_part(dilate(core, depth_mm + 0.5 * min(voxel_mm), voxel_mm) & solid)


def _draw(size: Array, region: Array, deep: Array, reference: Array, v: Vector, edge: float) -> Array:
    """The edge on the full grid: what is bright in the region, or deep inside it, smoothed and filled."""
    bright = largest_part(region & (size > edge * reference) | deep)
    closed = erode(dilate(bright, 3.0, v), 3.0, v) & region & (size > 0.5 * edge * reference)
    mask = fill_holes(bright | closed)
    soft = _smooth(mask, 0.6 * max(v), v) > 0.5
    return _fill_slices(fill_holes(largest_part(np.asarray(soft))), v)


def _fill_slices(mask: Array, voxel_mm: Vector) -> Array:
    """Fill what is closed in within any one slice, up to 4 cm²: drop-out that reaches in from below."""
    for axis in range(3):
        within = np.zeros((3, 3, 3), bool)
        np.moveaxis(within, axis, 0)[1] = ndimage.generate_binary_structure(2, 1)
        parts, count = ndimage.label(~mask, within)
        area = np.bincount(parts.ravel(), minlength=count + 1) * np.prod(voxel_mm) / voxel_mm[axis]
        fill = area <= 400
        for other in {0, 1, 2} - {axis}:
            fill[parts.take(0, other)] = False
            fill[parts.take(-1, other)] = False
        fill[0] = False
        mask = mask | fill[parts]
    return mask


def _without_cord(mask: Array, grid: Grid) -> Array:
    """Cut below the brain where the section across the body falls under 4 % of the largest."""
    rows = np.asarray(grid.affine)[2, :3] / np.asarray(grid.voxel_mm)
    axis = int(np.abs(rows).argmax())
    area = mask.sum(tuple(a for a in range(3) if a != axis))
    order = np.arange(len(area)) if rows[axis] > 0 else np.arange(len(area))[::-1]
    widest = int(np.argmax(area[order]))
    thin = np.nonzero(area[order][:widest] < 0.04 * area.max())[0]
    if len(thin):
        mask = mask.copy()
        np.moveaxis(mask, axis, 0)[order[: thin.max() + 1]] = False
    return mask


def _whole_if_cut_out(mask: Array, size: Array) -> Array:
    """All voxels with signal, where these are little more than the brain found."""
    signal = fill_holes(largest_part(size > 0))
    return signal if (signal & ~mask).sum() < 0.15 * signal.sum() else mask

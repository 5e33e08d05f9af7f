"""How far two images still lie apart, read from the images themselves: would a shifted copy fit better?

A single score of resemblance cannot tell a poor registration of one person from a good one of two persons. A
comparison of the score with that of shifted copies can: where the registration is right, every shift makes
it worse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import nan, sqrt

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool3d, pad

from k2chi.data import Grid

Image = Float[Tensor, "x y z"]
Mask = Bool[Tensor, "x y z"]
BLOCK_MM = 3.0
"""Edge of the blocks that are averaged, so that noise of single voxels does not count [mm]."""
SIZE = 5
"""Blocks along a window of the local correlation."""
FARTHEST = 3
"""Blocks up to which copies are shifted."""
FLAT = 1e-4
"""Local variance, of the whole image's, below which a window shows nothing."""
FEWEST = 20
"""Blocks that an octant must have."""
TELLS = 0.04
"""Score that some copy must reach; below, two images have nothing in common there."""
ENDS = (("left", "right"), ("back", "front"), ("lower", "upper"))


@dataclass(frozen=True)
class Octant:
    """One eighth of the brain's box."""

    where: str
    """Such as `left front upper`."""
    shift_mm: tuple[float, float, float]
    """By how much the moved image would have to move along each axis of the grid to fit best [mm].

    nan where that cannot be told."""
    score: float
    """Local correlation as it lies, 0 to 1."""
    best: float
    """The largest among shifted copies."""

    @property
    def apart_mm(self) -> float:
        """Length of the shift [mm]."""
        return sqrt(sum(v * v for v in self.shift_mm))


def local_correlation(a: Image, b: Image, inside: Mask, grid: Grid) -> float:
    """Mean squared correlation of two images in windows of 5 blocks of 3 mm, over those `inside`; 0 to 1.

    1 for images that are linear functions of each other around every block; windows without contrast count
    0. Avants et al. 2008, Med Image Anal 12:26, doi:10.1016/j.media.2007.06.004. Blocks, because at 1 mm and
    3 % noise a window of 5 voxels shows noise: there the score fell where the labels' overlap rose.
    """
    blocks = _blocks(grid)
    within = _pooled(inside, blocks) > 0.5
    if not within.any():
        return nan
    return float(_Scored(_pooled(a, blocks), within)(_pooled(b, blocks))[within].mean())


def octants(fixed: Image, moved: Image, inside: Mask, grid: Grid) -> tuple[Octant, ...]:
    """What is left between two registered images in each eighth of the brain's box.

    The moved image is shifted by up to 9 mm along each axis; the peak of a parabola through the best score
    and its neighbours is the shift. Octants with too few blocks are left out. Of a known rigid misplacement
    it finds about the length (LOG.md). Costs 0.5 s at 1 mm.
    """
    blocks = _blocks(grid)
    within = _pooled(inside, blocks) > 0.5
    if not within.any():
        return ()
    scored = _Scored(_pooled(fixed, blocks), within)
    parts = [(where, part) for where, part in _eighths(within, grid) if int(part.sum()) >= FEWEST]
    still = scored(_pooled(moved, blocks))
    score = [float(still[part].mean()) for _, part in parts]
    shifts: list[list[float]] = [[] for _ in parts]
    best = list(score)
    for axis in range(3):
        lines: list[list[tuple[float, float]]] = [[(0.0, s)] for s in score]
        for mm, copy in _copies(moved, blocks, axis, grid.voxel_mm[axis]):
            found = scored(copy)
            for line, (_, part) in zip(lines, parts, strict=True):
                line.append((mm, float(found[part].mean())))
        for k, line in enumerate(lines):
            shifts[k].append(_peak(sorted(line)))
            best[k] = max(best[k], *(s for _, s in line))
    return tuple(
        Octant(where, (s[0], s[1], s[2]) if top > TELLS else (nan, nan, nan), at, top)
        for (where, _), s, at, top in zip(parts, shifts, score, best, strict=True)
    )


class _Scored:
    """The local correlation with one image, whose own means are taken once."""

    def __init__(self, fixed: Image, within: Mask) -> None:
        self.within, self.weight = within, within.double()
        self.share = _windowed(self.weight).clamp_min(1e-9)
        self.fixed = self._standard(fixed)
        self.mean = self._local(self.fixed)
        self.variance = self._local(self.fixed * self.fixed) - self.mean * self.mean

    def _standard(self, image: Image) -> Image:
        values = image.double()
        seen = values[self.within]
        return (values - seen.mean()) / seen.std(correction=0).clamp_min(1e-30)

    def _local(self, values: Image) -> Image:
        return _windowed(values * self.weight) / self.share

    def __call__(self, moved: Image) -> Image:
        """r² around each block."""
        other = self._standard(moved)
        mean = self._local(other)
        variance = self._local(other * other) - mean * mean
        both = self._local(self.fixed * other) - self.mean * mean
        good = (self.variance > FLAT) & (variance > FLAT)
        found = both * both / (self.variance * variance).clamp_min(1e-12)
        return torch.where(good, found, 0.0).clamp(0, 1)


def _windowed(values: Image) -> Image:
    """Means over windows, one axis after the other; what lies outside counts as 0."""
    out = values[None]
    for axis in range(3):
        size, edges = [1, 1, 1], [0] * 6
        size[axis], edges[4 - 2 * axis], edges[5 - 2 * axis] = SIZE, SIZE // 2, SIZE // 2
        out = avg_pool3d(pad(out, edges), tuple(size), 1)
    return out[0]


def _blocks(grid: Grid) -> tuple[int, int, int]:
    """Voxels of a block along each axis, no more than there are."""
    x, y, z = (min(max(round(BLOCK_MM / v), 1), n) for v, n in zip(grid.voxel_mm, grid.shape, strict=True))
    return x, y, z


def _pooled(image: Float[Tensor, "i j k"] | Bool[Tensor, "i j k"], blocks: tuple[int, int, int]) -> Image:
    return avg_pool3d(image.float()[None], blocks, blocks)[0]


def _copies(
    moved: Image, blocks: tuple[int, int, int], axis: int, voxel_mm: float
) -> Iterator[tuple[float, Image]]:
    """Copies shifted along an axis, in blocks: by about 1 mm, and by whole blocks."""
    near = max(round(1 / voxel_mm), 1)
    far = [k * blocks[axis] for k in range(1, FARTHEST + 1)]
    for voxels in sorted({near, *far}):
        for by in (-voxels, voxels):
            yield by * voxel_mm, _pooled(_shifted(moved, by, axis), blocks)


def _shifted(image: Image, by: int, axis: int) -> Image:
    """The image moved by whole voxels; zero where nothing comes in."""
    out, n = torch.zeros_like(image), image.shape[axis]
    if abs(by) < n:
        out.narrow(axis, max(by, 0), n - abs(by)).copy_(image.narrow(axis, max(-by, 0), n - abs(by)))
    return out


def _peak(line: list[tuple[float, float]]) -> float:
    """The top of a parabola through the largest value and its neighbours; the end if that is largest."""
    k = max(range(len(line)), key=lambda i: line[i][1])
    if k in (0, len(line) - 1):
        return line[k][0]
    (a, fa), (b, fb), (c, fc) = line[k - 1 : k + 2]
    above, below = (
        (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa),
        (b - a) * (fb - fc) - (b - c) * (fb - fa),
    )
    return b - above / (2 * below) if below else b


def _eighths(within: Mask, grid: Grid) -> Iterator[tuple[str, Mask]]:
    """The eighths of the mask's box, named by the directions of the scanner that its axes are nearest to."""
    axes = np.asarray(grid.affine)[:3, :3] / np.asarray(grid.voxel_mm)
    world = [int(np.abs(axes[:, k]).argmax()) for k in range(3)]
    rising = [bool(axes[w, k] > 0) for k, w in enumerate(world)]
    at = torch.nonzero(within)
    low, high = at.amin(0), at.amax(0) + 1
    middle = [(int(a) + int(b)) // 2 for a, b in zip(low, high, strict=True)]
    for ends in product((False, True), repeat=3):
        part = within.clone()
        for k, upper in enumerate(ends):
            part.narrow(k, *((0, middle[k]) if upper else (middle[k], part.shape[k] - middle[k]))).zero_()
        words = sorted((w, ENDS[w][upper == up]) for w, upper, up in zip(world, ends, rising, strict=True))
        yield " ".join(word for _, word in words), part

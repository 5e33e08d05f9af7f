"""Work on a box around the mask: less to compute, and an array size that transforms fast."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from k2chi.data import Grid, Size, Vector
from k2chi.ops.fourier import fast_size


@dataclass(frozen=True)
class Box:
    """A box of voxels; it may reach beyond the array, where there are zeros."""

    start: Size
    shape: Size

    def take(self, x: Shaped[Tensor, "*batch x y z"]) -> Shaped[Tensor, "*batch X Y Z"]:
        """The voxels in the box."""
        out = x.new_zeros((*x.shape[:-3], *self.shape))
        (a, b, c), (i, j, k) = self._overlap(x)
        out[..., a, b, c] = x[..., i, j, k]
        return out

    def put(self, y: Shaped[Tensor, "*batch X Y Z"], shape: Size) -> Shaped[Tensor, "*batch x y z"]:
        """The box laid back into an array of `shape`, zeros elsewhere."""
        out = y.new_zeros((*y.shape[:-3], *shape))
        (a, b, c), (i, j, k) = self._overlap(out)
        out[..., i, j, k] = y[..., a, b, c]
        return out

    def grid(self, grid: Grid) -> Grid:
        """Where the box lies."""
        return grid.window(self.start, self.shape)

    def _overlap(self, x: Tensor) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        inner, outer = [], []
        for a, n, size in zip(self.start, self.shape, x.shape[-3:], strict=True):
            low = min(max(a, 0), size)
            high = max(min(a + n, size), low)  # a box beside the array has nothing of it
            outer.append(slice(low, high))
            inner.append(slice(low - a, high - a))
        return tuple(inner), tuple(outer)


def box_around(mask: Bool[Tensor, "x y z"], factor: float = 1.0, margin: int = 0) -> Box:
    """The mask's bounding box, `factor` times as large or `margin` voxels wider each side, at a fast size."""
    start, shape = [], []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        hit = torch.nonzero(mask.any(others[1]).any(others[0])).flatten()
        low, high = int(hit[0]), int(hit[-1]) + 1
        size = fast_size(max(int(-(-(high - low) * factor // 1)), high - low + 2 * margin))
        start.append((low + high - size) // 2)
        shape.append(size)
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


def grown(
    mask: Shaped[Tensor, "*batch x y z"], by_mm: float, voxel_mm: Vector
) -> Shaped[Tensor, "*batch x y z"]:
    """The mask and all voxels within `by_mm` of it, centre to centre; wraps around the array."""
    u, v, w = voxel_mm
    a, b, c = (int(by_mm / e) for e in voxel_mm)
    out = mask
    for i in range(-a, a + 1):
        for j in range(-b, b + 1):
            for k in range(-c, c + 1):
                if (i * u) ** 2 + (j * v) ** 2 + (k * w) ** 2 <= by_mm**2:
                    out = torch.maximum(out, torch.roll(mask, (i, j, k), (-3, -2, -1)))
    return out


def faces(mask: Shaped[Tensor, "*batch x y z"]) -> Float[Tensor, "*batch x y z"]:
    """One where a voxel and its next neighbours lie in the mask: a jump at its border is no edge."""
    inside = mask > 0
    out = inside.clone()
    for axis in (-3, -2, -1):
        out &= torch.roll(inside, -1, axis)
    return out.float()

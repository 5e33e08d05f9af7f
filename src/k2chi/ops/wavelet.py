"""An orthonormal wavelet transform of volumes of any size."""

from math import sqrt

import torch
from jaxtyping import Shaped
from torch import Tensor

from k2chi.data import Size
from k2chi.ops.linear import Linear

_R = sqrt(3.0)
LOW = tuple(c / (4 * sqrt(2.0)) for c in (1 + _R, 3 + _R, 3 - _R, 1 - _R))
"""Daubechies' filter of four taps: constants and slopes leave no details."""
HIGH = (LOW[3], -LOW[2], LOW[1], -LOW[0])
LEAST = 4
"""Axes shorter than this are not split."""


def wavelet(shape: Size, levels: int) -> Linear:
    """Volume to its averages and details, at each level along each axis; its adjoint is its inverse.

    Daubechies 1988, Comm Pure Appl Math 41:909, doi:10.1002/cpa.3160410705. The volume wraps around. Of an
    odd number of places the last is left among the averages, so that every size has an orthonormal transform.
    """
    sizes = [shape]
    for _ in range(levels):
        x, y, z = (n - n // 2 if n >= LEAST else n for n in sizes[-1])
        sizes.append((x, y, z))

    def apply(x: Tensor) -> Tensor:
        out = x.clone()
        for size in sizes[:-1]:
            inner = out[..., : size[0], : size[1], : size[2]]
            part = inner
            for axis in (-3, -2, -1):
                part = _split(part, axis)
            inner.copy_(part)
        return out

    def adjoint(w: Tensor) -> Tensor:
        out = w.clone()
        for size in reversed(sizes[:-1]):
            inner = out[..., : size[0], : size[1], : size[2]]
            part = inner
            for axis in (-1, -2, -3):
                part = _join(part, axis)
            inner.copy_(part)
        return out

    return Linear(apply, adjoint)


def averages(shape: Size, levels: int) -> Size:
    """Size of the corner of the transform that holds averages, not details."""
    for _ in range(levels):
        x, y, z = (n - n // 2 if n >= LEAST else n for n in shape)
        shape = (x, y, z)
    return shape


def _split(x: Shaped[Tensor, "*n"], axis: int) -> Shaped[Tensor, "*n"]:
    """Averages, then the odd place that is left over, then details."""
    n = x.shape[axis]
    if n < LEAST:
        return x
    whole = x.narrow(axis, 0, n - n % 2).movedim(axis, 0)
    even, odd = whole[0::2].movedim(0, axis), whole[1::2].movedim(0, axis)
    even2, odd2 = torch.roll(even, -1, axis), torch.roll(odd, -1, axis)
    low = LOW[0] * even + LOW[1] * odd + LOW[2] * even2 + LOW[3] * odd2
    high = HIGH[0] * even + HIGH[1] * odd + HIGH[2] * even2 + HIGH[3] * odd2
    return torch.cat([low, x.narrow(axis, n - n % 2, n % 2), high], axis)


def _join(w: Shaped[Tensor, "*n"], axis: int) -> Shaped[Tensor, "*n"]:
    """Undoes `_split`."""
    n = w.shape[axis]
    if n < LEAST:
        return w
    h = n // 2
    low, left, high = w.narrow(axis, 0, h), w.narrow(axis, h, n % 2), w.narrow(axis, n - h, h)
    even = LOW[0] * low + HIGH[0] * high + torch.roll(LOW[2] * low + HIGH[2] * high, 1, axis)
    odd = LOW[1] * low + HIGH[1] * high + torch.roll(LOW[3] * low + HIGH[3] * high, 1, axis)
    place = even.ndim + axis
    pairs = torch.stack([even, odd], place + 1).flatten(place, place + 1)
    return torch.cat([pairs, left], axis)

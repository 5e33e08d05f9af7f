"""The fully sampled centre of k-space, which calibrates coils; and maps from its grid to the voxels'."""

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from k2chi.data import KSpace, Size
from k2chi.ops.fourier import SPACE, ifft

LEAST = 6
"""Fewer points than this along an encoded axis show nothing of the coils."""


def calibration(kspace: KSpace, points: int) -> Complex[Tensor, "echo coil rx ry rz"]:
    """The fully sampled centre, at most `points` along each axis, zero frequency at index n//2.

    From the reference scan, if there is one (then one echo); else the largest box about the centre in which
    all was measured. ValueError if there is hardly any.
    """
    data, seen = kspace.data, kspace.sampled.all(0)
    if kspace.reference is not None:
        data = kspace.reference[None]
        return _cut(data, _at_most(points, data.shape[-3:]))
    nx, ny, nz = kspace.grid.shape
    full = torch.fft.fftshift(seen.expand(nx, ny, nz), dim=SPACE)
    if not full.any():
        raise ValueError("the sampling mask is empty: nothing was measured; check how the data were read")
    box = _largest_box(full, _at_most(points, full.shape))
    if any(m < min(LEAST, n) for m, n in zip(box, full.shape, strict=True)):
        raise ValueError(
            f"the centre of k-space is fully sampled over {'×'.join(map(str, box))} points only, too few to "
            f"calibrate coils: scan reference lines, or sample {LEAST} or more (better 24) in each direction"
        )
    return _lowest(data, box)


def _largest_box(full: Bool[Tensor, "x y z"], most: Size) -> Size:
    """The box about index n//2 without a hole, at most so large, that holds most points."""
    middle = full[:, full.shape[1] // 2, full.shape[2] // 2]
    long = max((m for m in range(1, most[0] + 1) if _cut1(middle, m).all()), default=0)
    plane = _cut(full, (long, *most[1:])).all(0)
    best = (0, 0)
    for a in range(1, most[1] + 1):
        rows = _cut1(plane, a).all(0)
        b = max((m for m in range(1, most[2] + 1) if _cut1(rows, m).all()), default=0)
        # a box of few lines is of no use however long they are
        best = max(best, (a, b), key=lambda n: (min(LEAST, *n), n[0] * n[1]))
    return long, *best


def _cut1(x: Tensor, m: int) -> Tensor:
    """The m places about index n//2 of the first axis."""
    return x.narrow(0, len(x) // 2 - m // 2, m)


def _at_most(points: int, shape: torch.Size | Size) -> Size:
    x, y, z = (min(points, n) for n in shape)
    return x, y, z


def _cut(x: Tensor, box: Size) -> Tensor:
    """The box about index n//2."""
    for axis, m in enumerate(box):
        n = x.shape[axis - 3]
        x = x.narrow(axis - 3, n // 2 - m // 2, m)
    return x


def _lowest(x: Complex[Tensor, "*batch kx ky kz"], box: Size) -> Complex[Tensor, "*batch rx ry rz"]:
    """The lowest frequencies of k-space with its zero at index 0; theirs at index n//2."""
    for axis, m in zip((-1, -2, -3), reversed(box), strict=True):
        n = x.shape[axis]
        x = torch.cat([x.narrow(axis, n - m // 2, m // 2), x.narrow(axis, 0, m - m // 2)], axis)
    return x


def on_grid(centre: Complex[Tensor, "*batch rx ry rz"], shape: Size) -> Complex[Tensor, "*batch x y z"]:
    """Images of the calibration data on a grid of `shape` points over the same field of view.

    Point 0 lies where voxel 0 does. Frequencies that the grid cannot hold are cut off. Values are those of
    the image that `ops.fourier.ifft` gives of the whole k-space, up to a constant.
    """
    held = _cut(centre, _at_most_of(centre.shape[-3:], shape))
    out = centre.new_zeros((*centre.shape[:-3], *shape))
    _cut(out, (held.shape[-3], held.shape[-2], held.shape[-1])).copy_(held)
    return ifft(torch.fft.ifftshift(out, dim=SPACE))


def _at_most_of(size: torch.Size, shape: Size) -> Size:
    x, y, z = (min(m, n) for m, n in zip(size, shape, strict=True))
    return x, y, z


def windowed(centre: Complex[Tensor, "*batch rx ry rz"]) -> Complex[Tensor, "*batch rx ry rz"]:
    """Faded out to its border with a Hann window, so that small images of it do not ring."""
    for axis in SPACE:
        n = centre.shape[axis]
        if n > 1:
            at = (torch.arange(n, device=centre.device) - n // 2) / (n / 2 + 1)
            w = 0.5 + 0.5 * torch.cos(torch.pi * at)
            centre = centre * w.to(centre.real).reshape([-1] + [1] * (-axis - 1))
    return centre


def interpolated(x: Float[Tensor, "*batch i j k"], shape: Size) -> Float[Tensor, "*batch x y z"]:
    """From a coarse grid to a fine one over the same field of view, point 0 on point 0; cubic, real numbers.

    Complex maps are interpolated as complex numbers, real and imaginary part each: never their phase.
    """
    for axis, n in zip(SPACE, shape, strict=True):
        if x.shape[axis] != n:
            rows = _cubic(x.shape[axis], n).to(x)
            x = torch.tensordot(rows, x, dims=([1], [x.ndim + axis])).movedim(0, axis)
    return x.contiguous()


def _cubic(m: int, n: int) -> Float[Tensor, "n m"]:
    """Weights of m coarse points in each of n fine ones: Keys' cubic, held constant beyond the last point."""
    at = torch.arange(n, dtype=torch.float64) * m / n
    low = at.floor().long()
    t = at - low
    out = torch.zeros(n, m, dtype=torch.float64)
    a, b = t.square(), t.square() * t
    for step, w in (
        (-1, -t / 2 + a - b / 2),
        (0, 1 - 2.5 * a + 1.5 * b),
        (1, t / 2 + 2 * a - 1.5 * b),
        (2, (b - a) / 2),
    ):
        out.scatter_add_(1, (low + step).clamp(0, m - 1)[:, None], w[:, None])
    return out

"""On which lattice an undersampled scan lies, found from the mask itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor

import numpy as np
from jaxtyping import Bool
from torch import Tensor

Pair = tuple[int, int]
Flags = np.ndarray[tuple[int, int], np.dtype[np.bool_]]

MOST = 16
"""Largest acceleration that is looked for."""
FEW = 0.01
"""Share of stray lines outside the centre that is borne with."""


@dataclass(frozen=True)
class Lattice:
    """Points i (a, s) + j (0, d) + offset of frequencies along both phase encodings."""

    rows: int
    """a: every a-th line of the first phase encoding is sampled."""
    shear: int
    """s: shift along the second phase encoding from one such line to the next."""
    columns: int
    """d: every d-th line of the second phase encoding is sampled, within a line of the first."""
    offset: Pair = (0, 0)
    """One point of the lattice."""

    @property
    def acceleration(self) -> int:
        """Lines for each one that is sampled."""
        return self.rows * self.columns

    def holds(self, fy: np.ndarray, fz: np.ndarray) -> Flags:
        """True at points of the lattice."""
        y, z = fy - self.offset[0], fz - self.offset[1]
        return np.asarray((y % self.rows == 0) & ((z - y // self.rows * self.shear) % self.columns == 0))

    @property
    def steps(self) -> tuple[Pair, Pair]:
        """The two shortest steps from point to point, the one more along the first axis first."""
        p, q = (self.rows, self.shear), (0, self.columns)
        while True:
            if _dot(p, p) > _dot(q, q):
                p, q = q, p
            times = floor(_dot(p, q) / _dot(p, p) + 0.5)
            if times == 0:
                return (p, q) if abs(p[0]) * abs(q[1]) >= abs(q[0]) * abs(p[1]) else (q, p)
            q = (q[0] - times * p[0], q[1] - times * p[1])

    @property
    def gaps(self) -> tuple[Pair, ...]:
        """Places of the cell between the two steps that are not sampled, relative to its corner."""
        (a, b), (c, d) = self.steps
        area = a * d - b * c
        found = []
        for y in range(self.rows):
            for z in range(self.columns):
                i, j = (y * d - z * c) // area, (z * a - y * b) // area
                found.append((y - i * a - j * c, z - i * b - j * d))
        return tuple(found[1:])

    def around(self, count: Pair) -> tuple[Pair, ...]:
        """Steps from the corner of a cell to the points about it, `count` along each direction.

        Where all gaps lie on lines of points in a direction, an even count is lowered by one, so that there
        are as many on either side.
        """
        (a, b), (c, d) = self.steps
        along = _about(count[0], any(y * d != z * c for y, z in self.gaps))
        across = _about(count[1], any(z * a != y * b for y, z in self.gaps))
        return tuple((i * a + j * c, i * b + j * d) for i in along for j in across)

    def __str__(self) -> str:
        """In words."""
        if self.acceleration == 1:
            return "fully sampled"
        sheared = f", shifted by {self.shear}" if self.shear else ""
        return f"every line of {self.rows}×{self.columns}{sheared}"


def _dot(p: Pair, q: Pair) -> int:
    return p[0] * q[0] + p[1] * q[1]


def _about(count: int, between: bool) -> range:
    """Whole numbers about the middle of 0 and 1, or about 0."""
    half = (count - 1) // 2
    return range(-half, count - half) if between else range(-half, half + 1)


def find_lattice(sampled: Bool[Tensor, "ky kz"]) -> Lattice:
    """The lattice that the lines outside the full centre fill; zero frequency at index 0.

    The full centre may be a box or not much larger than one. Of lattices that fit beyond it, the one that
    leaves fewest lines near it unexplained. ValueError for lines without order, which only iterative
    methods can use.
    """
    mask, fy, fz = centred(sampled)
    spanned = reach(mask)
    if (spanned & ~mask).sum() <= FEW * spanned.sum():
        return Lattice(1, 0, 1)
    outside = mask & ~_centre(mask, 1.5)
    if outside.sum() < 8:
        outside = mask & ~_centre(mask, 1.0)
    y, z = np.nonzero(outside)
    first = np.argmin((y - len(fy) // 2) ** 2 + (z - fz.size // 2) ** 2)
    at = (int(y[first]) - len(fy) // 2, int(z[first]) - fz.size // 2)
    near = mask & ~_centre(mask, 1.0)
    fits: list[tuple[int, int, int, Lattice]] = []
    for found in _lattices(at):
        on = found.holds(fy, fz)
        if _fits(on, mask, outside, spanned):
            fits.append((int((near & ~on).sum()), -found.acceleration, len(fits), found))
    if fits:
        return min(fits)[-1]
    raise ValueError(
        "the lines outside the centre of k-space lie on no lattice (random undersampling, or lines are "
        "missing): GRAPPA needs regular or CAIPI undersampling; reconstruct with CGSENSE"
    )


def _lattices(at: Pair) -> Iterator[Lattice]:
    """Every lattice through one point, up to the largest acceleration."""
    for r in range(1, MOST + 1):
        for rows in (a for a in range(1, r + 1) if r % a == 0):
            for shear in range(r // rows):
                drift = at[0] // rows * shear
                yield Lattice(rows, shear, r // rows, (at[0] % rows, (at[1] - drift) % (r // rows)))


def centred(sampled: Bool[Tensor, "ky kz"]) -> tuple[Flags, np.ndarray, np.ndarray]:
    """The mask with zero frequency in the middle, and the frequencies of its rows and columns."""
    mask = np.fft.fftshift(sampled.cpu().numpy())
    fy, fz = (np.arange(n) - n // 2 for n in mask.shape)
    return mask, fy[:, None], fz[None, :]


def reach(mask: Flags) -> Flags:
    """The region that the lines span: what lies between two of a row or column, twice over."""
    return _between(_between(mask))


def _between(mask: Flags) -> Flags:
    out = np.zeros_like(mask)
    for axis in (0, 1):
        before = np.maximum.accumulate(mask, axis)
        after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis)
        out |= before & after
    return out


def _fits(on: Flags, mask: Flags, outside: Flags, spanned: Flags) -> bool:
    """All but a few lines outside the centre are on the lattice, and the lattice has none missing."""
    if (outside & ~on).sum() > FEW * outside.sum():
        return False
    wanted = on & spanned
    return bool((wanted & ~mask).sum() <= FEW * wanted.sum())


def _centre(mask: Flags, margin: float) -> Flags:
    """The largest full box about the centre that grows evenly, made larger by `margin`."""
    middle = [n // 2 for n in mask.shape]
    low, high = list(middle), [m + 1 for m in middle]
    out = np.zeros_like(mask)
    if not mask[middle[0], middle[1]]:
        return out
    growing = True
    while growing:
        growing = False
        for axis in (0, 1):
            for side in (-1, 1):
                box = [slice(low[a], high[a]) for a in (0, 1)]
                edge = low[axis] - 1 if side < 0 else high[axis]
                box[axis] = slice(edge, edge + 1)
                if 0 <= edge < mask.shape[axis] and mask[box[0], box[1]].all():
                    low[axis], high[axis] = min(low[axis], edge), max(high[axis], edge + 1)
                    growing = True
    y, z = (
        slice(max(0, m - int(margin * (m - a) + 0.5)), m + int(margin * (b - m) + 0.5))
        for m, a, b in zip(middle, low, high, strict=True)
    )
    out[y, z] = True
    return out

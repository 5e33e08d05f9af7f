"""Which lines of k-space to measure, over the two phase encodings: regular, sheared or random patterns."""

import warnings
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool
from numba import njit
from torch import Tensor

Flags = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
Reals = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which lines are measured, and what that saves."""

    sampled: Bool[Tensor, "echo ky kz"]
    """True where a line is measured; zero frequency at index 0, as in `KSpace`."""
    calibration: tuple[int, int]
    """Lines along each axis of the block about the centre that every echo samples fully."""
    spacing: float = 0.0
    """Distance that random lines keep at the centre of k-space [lines]; 0 for lattices."""

    @property
    def acceleration(self) -> tuple[float, ...]:
        """All lines of the rectangle over those measured, for each echo: what scan time is divided by."""
        lines = self.sampled.shape[1] * self.sampled.shape[2]
        return tuple(lines / int(e.sum()) for e in self.sampled)

    @property
    def acceleration_ellipse(self) -> tuple[float, ...]:
        """The same within the inscribed ellipse, for a scan that would leave out the corners anyway."""
        inside = _to_fft_order([_ellipse(_frequencies(self.sampled.shape[1:]))])[0]
        return tuple(int(inside.sum()) / max(int((e & inside).sum()), 1) for e in self.sampled)

    @property
    def overlap(self) -> float:
        """Mean share of an echo's lines outside the calibration block that another echo measures, too."""
        echoes = self.sampled.shape[0]
        outside = ~_to_fft_order([_block(_frequencies(self.sampled.shape[1:]), self.calibration)])[0]
        rows = (self.sampled & outside).flatten(1).double()
        both, each = rows @ rows.T, rows.sum(1).clamp(min=1)
        pairs = (both / each[:, None]).sum() - (both.diagonal() / each).sum()
        return float(pairs / (echoes * (echoes - 1))) if echoes > 1 else 0.0

    def __str__(self) -> str:
        """One sentence for reports."""
        echoes, ny, nz = self.sampled.shape
        return (
            f"{echoes} echoes of {ny}×{nz} lines, true acceleration "
            f"{sum(self.acceleration) / echoes:.2f} ({sum(self.acceleration_ellipse) / echoes:.2f} within "
            f"the ellipse), centre of {self.calibration[0]}×{self.calibration[1]} lines full, "
            f"{100 * self.overlap:.0f} % of the other lines of an echo also in another"
        )


@dataclass(frozen=True)
class Regular:
    """Every R-th line along each phase encoding, and a full centre.

    Sampled where ky ≡ 0 mod R₁ and kz ≡ 0 mod R₂, counted from the centre of k-space.
    Griswold et al. 2002, MRM 47:1202, doi:10.1002/mrm.10171.
    Aliases lie on a regular lattice, which `GRAPPA` needs. The true acceleration is below R₁R₂ because of the
    full centre.
    """

    acceleration: tuple[int, int] = (2, 1)
    """Undersampling along the first and second phase encoding."""
    calibration: tuple[int, int] = (24, 24)
    """Lines of the full centre along each axis; more than there are means all; 0: none."""
    ellipse: bool = False
    """Leave out the corners of k-space, 21 % of all lines."""
    partial_fourier: tuple[float, float] = (1.0, 1.0)
    """Share of lines kept along each axis, above 1/2; the most negative frequencies go."""
    alternate: bool = False
    """Shift the lines from echo to echo, so that echoes complement each other."""

    def __post_init__(self) -> None:
        _check_lattice("Regular", self.acceleration)
        _check_common("Regular", self.calibration, self.partial_fourier)

    def __call__(self, size: tuple[int, int], echoes: int = 1) -> Pattern:
        """The pattern for `size` lines along the first and second phase encoding."""
        ry, rz = self.acceleration
        shifts = [(e % ry, e // ry % rz) if self.alternate else (0, 0) for e in range(echoes)]
        f = _frequencies(size)
        lattices = [((f[0] - a) % ry == 0) & ((f[1] - b) % rz == 0) for a, b in shifts]
        return _finished(lattices, f, self.calibration, self.ellipse, self.partial_fourier)


@dataclass(frozen=True)
class CAIPI:
    """Every R-th line along each phase encoding, sheared so that aliases fall where coils differ more.

    Sampled where ky = i R₁ and kz ≡ iΔ mod R₂, counted from the centre of k-space.
    Breuer et al. 2006, MRM 55:549, doi:10.1002/mrm.20787.
    With a shift of 0 it is `Regular`. Noise amplification is lower where the object does not fill the field
    of view. `GRAPPA` finds the shear itself.
    """

    acceleration: tuple[int, int] = (2, 2)
    """Undersampling along the first and second phase encoding."""
    shift: int = 1
    """Shift of the second axis from one sampled step of the first to the next [lines], 0 to R₂-1."""
    calibration: tuple[int, int] = (24, 24)
    """Lines of the full centre along each axis; more than there are means all; 0: none."""
    ellipse: bool = False
    """Leave out the corners of k-space, 21 % of all lines."""
    partial_fourier: tuple[float, float] = (1.0, 1.0)
    """Share of lines kept along each axis, above 1/2; the most negative frequencies go."""
    alternate: bool = False
    """Shift the lines from echo to echo, so that echoes complement each other."""

    def __post_init__(self) -> None:
        _check_lattice("CAIPI", self.acceleration)
        _check_common("CAIPI", self.calibration, self.partial_fourier)
        if not 0 <= self.shift < self.acceleration[1]:
            raise ValueError(
                f"CAIPI shift {self.shift} repeats a smaller one: choose 0 to {self.acceleration[1] - 1}, "
                "one less than the acceleration along the second phase encoding"
            )

    def __call__(self, size: tuple[int, int], echoes: int = 1) -> Pattern:
        """The pattern for `size` lines along the first and second phase encoding."""
        ry, rz = self.acceleration
        shifts = [(e % ry, e // ry % rz) if self.alternate else (0, 0) for e in range(echoes)]
        f = _frequencies(size)
        step = [(f[0] - a) // ry for a, _ in shifts]
        lattices = [
            ((f[0] - a) % ry == 0) & ((f[1] - b - i * self.shift) % rz == 0)
            for (a, b), i in zip(shifts, step, strict=True)
        ]
        return _finished(lattices, f, self.calibration, self.ellipse, self.partial_fourier)


@dataclass(frozen=True)
class PoissonDisk:
    """Random lines that keep a distance, growing outward, and complement each other from echo to echo.

    Darts fall on lines in random order; one stays if it is at least (r(k) + r(k'))/2 from all before it, with
    r(k) = s (1 + a |k|/kmax) (1 ± jitter). Bisection on s reaches the acceleration; surplus lines are taken
    away at random, which keeps the distances. Lines that earlier echoes measured come last.
    Bridson 2007, SIGGRAPH sketches, doi:10.1145/1278780.1278807; in MRI with varying density: Lustig & Pauly
    2010, MRM 64:457, doi:10.1002/mrm.22428.
    Aliases look like noise, which regularised and learned reconstructions need; `GRAPPA` cannot use it. At an
    acceleration of 2 the inner part of k-space is nearly full. Small matrices get a smaller full centre, with
    a warning.
    """

    acceleration: float = 4.0
    """All lines of the rectangle over those measured, 1 to 20; corners left out count as saved."""
    calibration: tuple[int, int] = (24, 24)
    """Lines of the full centre along each axis."""
    falloff: float = 3.0
    """The spacing at the edge is 1 plus this many times that at the centre; 0: even density."""
    jitter: float = 0.3
    """Each line's own spacing varies at random by this share: without it, whole-number distances between
    lines make steps of density."""
    ellipse: bool = True
    """Leave out the corners of k-space."""
    partial_fourier: tuple[float, float] = (1.0, 1.0)
    """Share of lines kept along each axis, above 1/2; the rest gets denser, the acceleration stays."""
    complementary: bool = True
    """Echoes measure different lines as far as possible; False gives every echo the same."""
    seed: int = 0
    """The same seed gives the same pattern; give each person another."""

    def __post_init__(self) -> None:
        _check_common("PoissonDisk", self.calibration, self.partial_fourier)
        if not 1 <= self.acceleration <= 20:
            raise ValueError(f"PoissonDisk acceleration {self.acceleration} is out of range: choose 1 to 20")
        if not 0 <= self.falloff <= 20:
            raise ValueError(f"PoissonDisk falloff {self.falloff} is out of range: choose 0 to 20")
        if not 0 <= self.jitter <= 0.5:
            raise ValueError(f"PoissonDisk jitter {self.jitter} is out of range: choose 0 to 0.5")

    def __call__(self, size: tuple[int, int], echoes: int = 1) -> Pattern:
        """The pattern for `size` lines along the first and second phase encoding."""
        f = _frequencies(size)
        target = max(1, round(size[0] * size[1] / self.acceleration))
        calibration = _affordable(size, self.calibration, target)
        centre = _block(f, calibration)
        allowed = _allowed(f, self.ellipse, self.partial_fourier) | centre
        if allowed.sum() < target:
            warnings.warn(
                f"corners and partial Fourier leave {allowed.sum()} of {size[0]}×{size[1]} lines, less than "
                f"an acceleration of {self.acceleration:g} needs: all of them are taken",
                stacklevel=2,
            )
        rng = np.random.default_rng(self.seed)
        shape = 1 + self.falloff * np.minimum(_radius(f), 1.0)
        shape = shape * (1 + self.jitter * rng.uniform(-1, 1, size))
        used = np.zeros(size, dtype=np.int64)
        masks: list[Flags] = []
        spacing = 0.0
        for _ in range(echoes if self.complementary else 1):
            order = _order(used, rng)
            spacing = spacing or _widest(allowed, centre, shape, order, target)
            mask = _throw(allowed, centre, shape * spacing, order)
            while mask.sum() < min(target, allowed.sum()):
                spacing *= 0.98
                mask = _throw(allowed, centre, shape * spacing, order)
            masks.append(_thinned(mask, centre, used, target, rng))
            used += masks[-1]
        masks = masks if self.complementary else masks * echoes
        return Pattern(_to_fft_order(masks), calibration, spacing)


Sampling = Regular | CAIPI | PoissonDisk
"""Number of phase encodings → which of them to measure."""


def _check_lattice(name: str, acceleration: tuple[int, int]) -> None:
    if min(acceleration) < 1 or max(acceleration) > 12:
        raise ValueError(f"{name} acceleration {acceleration} is out of range: choose 1 to 12 for each axis")


def _check_common(name: str, calibration: tuple[int, int], partial: tuple[float, float]) -> None:
    if min(calibration) < 0:
        raise ValueError(f"{name} calibration {calibration} is negative: choose 0 or more lines")
    if not all(0.5 < p <= 1 for p in partial):
        raise ValueError(
            f"{name} partial_fourier {partial} is out of range: choose above 0.5 (nothing tells the "
            "missing half's phase at 0.5) up to 1"
        )


def _frequencies(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whole-number frequencies of both axes, centred, as a column and a row."""
    fy, fz = (np.arange(n) - n // 2 for n in size)
    return fy[:, None], fz[None, :]


def _radius(f: tuple[np.ndarray, np.ndarray]) -> Reals:
    """Distance from the centre, 1 on the inscribed ellipse."""
    y, z = (a / (a.size / 2) for a in f)
    return np.asarray(np.hypot(y, z))


def _ellipse(f: tuple[np.ndarray, np.ndarray]) -> Flags:
    return np.asarray(_radius(f) <= 1)


def _block(f: tuple[np.ndarray, np.ndarray], lines: tuple[int, int]) -> Flags:
    """The full centre: `lines` frequencies of each axis about zero."""
    y, z = ((a >= -(n // 2)) & (a < n - n // 2) for a, n in zip(f, lines, strict=True))
    return np.asarray(y & z)


def _allowed(f: tuple[np.ndarray, np.ndarray], ellipse: bool, partial: tuple[float, float]) -> Flags:
    """Lines that shutter and partial Fourier leave."""
    y, z = (a >= a.min() + a.size - ceil(p * a.size) for a, p in zip(f, partial, strict=True))
    return np.asarray((y & z) & (_ellipse(f) if ellipse else True))


def _to_fft_order(masks: list[Flags]) -> Bool[Tensor, "echo ky kz"]:
    return torch.from_numpy(np.fft.ifftshift(np.stack(masks), axes=(1, 2)))


def _finished(
    lattices: list[Flags],
    f: tuple[np.ndarray, np.ndarray],
    calibration: tuple[int, int],
    ellipse: bool,
    partial: tuple[float, float],
) -> Pattern:
    """Lattices with their full centre, within what is allowed."""
    block = (min(calibration[0], f[0].size), min(calibration[1], f[1].size))
    allowed = _allowed(f, ellipse, partial)
    return Pattern(_to_fft_order([(lattice | _block(f, block)) & allowed for lattice in lattices]), block)


def _affordable(size: tuple[int, int], wanted: tuple[int, int], target: int) -> tuple[int, int]:
    """The calibration block, shrunk where it would take more than half of the lines."""
    block = (min(wanted[0], size[0]), min(wanted[1], size[1]))
    y, z = block
    while y * z > max(target / 2, 1):
        y, z = (y - 1, z) if y * size[1] >= z * size[0] else (y, z - 1)
    if (y, z) != block:
        warnings.warn(
            f"a full centre of {block[0]}×{block[1]} lines takes more than half of the {target} lines: "
            f"{y}×{z} is taken; ask for a smaller centre or a lower acceleration",
            stacklevel=3,
        )
    return y, z


def _order(used: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines in random order, those least used before others."""
    order: np.ndarray = np.lexsort((rng.random(used.size), used.ravel()))
    return order


def _widest(allowed: Flags, centre: Flags, shape: Reals, order: np.ndarray, target: int) -> float:
    """The widest spacing that still leaves `target` lines."""
    low, high = 0.0, float(max(allowed.shape))
    for _ in range(22):
        middle = (low + high) / 2
        enough = _throw(allowed, centre, shape * middle, order).sum() >= target
        low, high = (middle, high) if enough else (low, middle)
    return low or 1e-3


def _thinned(mask: Flags, centre: Flags, used: np.ndarray, target: int, rng: np.random.Generator) -> Flags:
    """`mask` with exactly `target` lines: surplus goes at random, lines other echoes have first."""
    out = mask.copy()
    free = np.flatnonzero((mask & ~centre).ravel())
    surplus = max(int(mask.sum()) - target, 0)
    ranked = free[np.lexsort((rng.random(free.size), -used.ravel()[free]))]
    out.ravel()[ranked[:surplus]] = False
    return out


@njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _throw(allowed, centre, radius, order):  # type: ignore[no-untyped-def]
    """Take lines in `order` that keep the mean of their radii from all taken; the centre is taken first."""
    ny, nz = allowed.shape
    taken = centre.copy()
    blocked = ~allowed
    widest = radius.max()
    for turn in range(2):
        for k in range(order.size):
            y, z = order[k] // nz, order[k] % nz
            if centre[y, z] != (turn == 0) or (turn == 1 and blocked[y, z]):
                continue
            taken[y, z] = True
            r = radius[y, z]
            reach = int(min((r + widest) / 2, ny + nz)) + 1
            for v in range(max(0, y - reach), min(ny, y + reach + 1)):
                for w in range(max(0, z - reach), min(nz, z + reach + 1)):
                    d = np.sqrt(float((v - y) ** 2 + (w - z) ** 2))
                    if d < (r + radius[v, w]) / 2:
                        blocked[v, w] = True
    return taken

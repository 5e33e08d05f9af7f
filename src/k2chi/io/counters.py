"""What counters say of each readout, in any format: what it is for, and which excitation took it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from k2chi.data import Encoding, Grid, Lines, Raw, Scan

BLOCK_BYTES = 64e6
"""Samples that are read at once."""
CENTRE = 8
"""Neighbouring lines of the centre that must be there to tell coils apart in accelerated scans."""


class Kind(IntEnum):
    """What a readout is for."""

    image, navigator, reference, noise, other = range(5)


@dataclass(frozen=True, eq=False)
class Counters:
    """One value for each readout of a file, in the order in which they were taken."""

    kind: Int64[np.ndarray, "line"]
    ky: Int64[np.ndarray, "line"]
    kz: Int64[np.ndarray, "line"]
    """Second phase encoding, or the slice."""
    echo: Int64[np.ndarray, "line"]
    average: Int64[np.ndarray, "line"]
    repetition: Int64[np.ndarray, "line"]
    samples: Int64[np.ndarray, "line"]
    coils: Int64[np.ndarray, "line"]
    reverse: Bool[np.ndarray, "line"]
    shot: Int64[np.ndarray, "line"]
    """Number of the excitation within echo and average."""
    time_s: Float32[np.ndarray, "line"] | None = None


def excitations(
    nav: Bool[np.ndarray, "line"],
    echo: Int64[np.ndarray, "line"],
    turn: Int64[np.ndarray, "line"],
    train: int,
) -> Int64[np.ndarray, "line"]:
    """Number of the excitation that each readout belongs to, from their order.

    A new one begins where a navigator follows an image line of the same or a later echo, where the echo
    number falls, where `turn` (slice, average, …) changes within an echo, and where an echo has had its
    `train` of lines.
    """
    out = np.zeros(len(nav), dtype=np.int64)
    now = had = 0
    for i in range(1, len(nav)):
        had = had + (not nav[i - 1]) if echo[i] == echo[i - 1] else 0
        fresh = nav[i] and not nav[i - 1] and echo[i] <= echo[i - 1]
        fresh |= echo[i] < echo[i - 1] or (echo[i] == echo[i - 1] and turn[i] != turn[i - 1])
        if fresh or (had >= train and not nav[i] and echo[i] == echo[i - 1]):
            now, had = now + 1, 0
        out[i] = now
    return out


def following(kind: Int64[np.ndarray, "line"]) -> Int64[np.ndarray, "line"]:
    """For each navigator the image readout after it, for others themselves: what a navigator belongs to.

    Counters of navigators mean other things than those of the image, for instance its average.
    """
    image, out = np.flatnonzero(kind == Kind.image), np.arange(len(kind))
    aside = np.flatnonzero(kind == Kind.navigator)
    if len(image):
        out[aside] = image[np.searchsorted(image, aside).clip(max=len(image) - 1)]
    return out


def ranked(value: Int64[np.ndarray, "line"], group: Int64[np.ndarray, "line"]) -> Int64[np.ndarray, "line"]:
    """Place of each value among the different ones of its group, from 0."""
    out = np.zeros(len(value), dtype=np.int64)
    for g in np.unique(group):
        here = group == g
        out[here] = np.unique(value[here], return_inverse=True)[1]
    return out


@dataclass(frozen=True, eq=False)
class Readouts:
    """A file of readouts, opened: counters of all of them, and how to fetch the samples of some."""

    path: Path
    counters: Counters
    fetch: Callable[[Int64[np.ndarray, "some"]], np.ndarray]
    """Samples of readouts of one size, as (line, coil, sample)."""

    def raw(
        self,
        grid: Grid,
        scan: Scan,
        encoding: Encoding,
        facts: dict[str, str | float | tuple[float, ...]],
        warnings: list[str],
        repetition: int = 0,
        noise: torch.Tensor | None = None,
    ) -> Raw:
        """The scan, checked against its own header; `noise` is that of another measurement."""
        self._check(scan, encoding)
        c, told = self.counters, list(warnings)
        first = int(np.flatnonzero(c.kind == Kind.image)[0])
        coils = int(c.coils[first])
        like = (c.samples == c.samples[first]) & (c.coils == coils)
        image = self._of_repetition(np.flatnonzero(c.kind == Kind.image), repetition, told)
        reference = np.flatnonzero((c.kind == Kind.reference) & like)
        aside = np.flatnonzero((c.kind == Kind.navigator) & like)
        for what, kept in ((Kind.navigator, aside), (Kind.reference, reference)):
            if lost := int((c.kind == what).sum()) - len(kept):
                told.append(
                    f"{lost} {what.name} readouts have other samples or coils than the image: left out"
                )
        self._calibration(encoding, image, len(reference))
        if (c.repetition[aside] == repetition).any():
            aside = aside[c.repetition[aside] == repetition]
        noise = self._noise(coils) if noise is None else noise
        if len(reference):
            reference = reference[c.echo[reference] == c.echo[reference].min()]
        return Raw(
            grid,
            scan,
            encoding,
            coils,
            lambda echo: self.blocks(image[c.echo[image] == echo]),
            (lambda echo: self._navigators(aside, echo)) if len(aside) else None,
            (lambda: self.blocks(reference)) if len(reference) else None,
            noise,
            facts,
            tuple(told),
        )

    def _of_repetition(
        self, image: Int64[np.ndarray, "some"], repetition: int, told: list[str]
    ) -> Int64[np.ndarray, "kept"]:
        number = self.counters.repetition[image]
        held = np.unique(number)
        if repetition not in held:
            raise ValueError(
                f"{self.path}: holds repetitions {held[0] + 1} to {held[-1] + 1}, not {repetition + 1}"
            )
        if len(held) > 1:
            told.append(f"holds {len(held)} repetitions; number {repetition + 1} was read")
        kept: np.ndarray = image[number == repetition]
        return kept

    def blocks(self, index: Int64[np.ndarray, "some"]) -> Iterator[Lines]:
        """Readouts in blocks that fit in memory."""
        if not len(index):
            return
        c = self.counters
        step = max(1, int(BLOCK_BYTES // (8 * c.coils[index[0]] * c.samples[index[0]])))
        for start in range(0, len(index), step):
            yield self._lines(index[start : start + step])

    def _lines(self, index: Int64[np.ndarray, "some"]) -> Lines:
        c = self.counters
        ky, kz, average, shot = (torch.from_numpy(v[index]) for v in (c.ky, c.kz, c.average, c.shot))
        time = None if c.time_s is None else torch.from_numpy(c.time_s[index])
        data = torch.from_numpy(self.fetch(index))
        return Lines(data, ky, kz, average, shot, torch.from_numpy(c.reverse[index]), time)

    def _navigators(self, aside: Int64[np.ndarray, "some"], echo: int) -> Lines | None:
        """Those of the echo, or of the first one that has any: one set may serve a whole train."""
        of = self.counters.echo[aside]
        own = aside[of == (echo if (of == echo).any() else of.min())]
        return self._lines(own)

    def _noise(self, coils: int) -> torch.Tensor | None:
        c = self.counters
        index = np.flatnonzero((c.kind == Kind.noise) & (c.coils == coils))
        if not len(index):
            return None
        parts = [self.fetch(index[i : i + 1])[0] for i in range(len(index))]
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def _check(self, scan: Scan, e: Encoding) -> None:
        c = self.counters
        image = c.kind == Kind.image
        for name, values in (("samples", c.samples), ("coils", c.coils)):
            if len(sizes := np.unique(values[image])) > 1:
                raise ValueError(
                    f"{self.path}: image readouts have {', '.join(map(str, sizes))} {name}: one matrix size "
                    "a scan is supported; split the file into scans"
                )
        for name, values, points in (
            ("line", c.ky, e.matrix[1]),
            ("slice" if e.slices else "partition", c.kz, e.matrix[2]),
            ("echo", c.echo, len(scan.te_s)),
        ):
            low, high = int(values[image].min()), int(values[image].max())
            if low < 0 or high >= points:
                wrong = high if high >= points else low
                raise ValueError(
                    f"{self.path}: a readout says {name} {wrong}, but the header has {points} of them: "
                    "the counters are damaged or of a sequence that is not supported; "
                    "export the scan again, or write it as arrays with a header of your own"
                )
        missing = sorted(set(range(len(scan.te_s))) - set(np.unique(c.echo[image]).tolist()))
        if missing:
            raise ValueError(
                f"{self.path}: no readouts of echo {missing[0] + 1}, though the header has "
                f"{len(scan.te_s)} echo times: the file is cut short; copy or export it again"
            )

    def _calibration(self, e: Encoding, image: Int64[np.ndarray, "some"], reference: int) -> None:
        """ValueError if an accelerated scan has nothing to tell its coils apart by."""
        if max(e.acceleration) == 1 or reference or self.counters.coils[image[0]] == 1:
            return
        c = self.counters
        seen = np.zeros(e.matrix[1:], dtype=bool)
        first = image[c.echo[image] == c.echo[image[0]]]
        seen[c.ky[first], c.kz[first]] = True
        half = [min(CENTRE // 2, at, n - at) for at, n in zip(e.centre[1:], e.matrix[1:], strict=True)]
        y, z = (slice(at - h, at + max(h, 1)) for at, h in zip(e.centre[1:], half, strict=True))
        if not seen[y, :].any(1).all() or not (e.slices or seen[y, z].all()):
            raise ValueError(
                f"{self.path}: accelerated {e.acceleration[0]}×{e.acceleration[1]}, but it holds no "
                "reference readouts and its centre is not fully sampled: coils cannot be told apart; "
                "export the scan with its reference (calibration) lines"
            )


# ---- what every format refuses


def of_image(path: Path, kind: Int64[np.ndarray, "line"]) -> Int64[np.ndarray, "some"]:
    """Indices of the readouts of the image. ValueError where there are none."""
    image = np.flatnonzero(kind == Kind.image)
    if not len(image):
        found = ", ".join(f"{int((kind == k).sum())} {k.name}" for k in Kind if (kind == k).any())
        raise ValueError(
            f"{path}: holds {found or 'no'} readouts, but none of an image: give the file of the imaging scan"
        )
    return image


def strength(path: Path, b0_tesla: float | None) -> float:
    """The field strength [T]. ValueError where it is not known."""
    if b0_tesla is None:
        raise ValueError(f"{path}: its header has no field strength; give --b0")
    return b0_tesla


def unsupported(path: Path, what: str) -> ValueError:
    """The error for a scan whose readouts lie on no grid, or belong to several slices at once."""
    return ValueError(
        f"{path}: a {what} scan: only Cartesian and echo-planar scans, one slice or slab at a time, are "
        "supported; reconstruct it elsewhere, and give the complex images of each coil or echo as NIfTI"
    )

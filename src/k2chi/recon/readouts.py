"""The readouts of one echo as images along the readout, with the phase errors found so far taken off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Complex, Float, Int64
from torch import Tensor

from k2chi.data import Encoding, Lines, Raw
from k2chi.recon.ramp import RampInverse

Phase = Callable[[Lines], tuple[Float[Tensor, "line"], Float[Tensor, "line"]]]
"""The phase error of each readout: in the middle of the image along it [rad], and its slope [rad/voxel]."""


@dataclass(frozen=True, eq=False)
class Readouts:
    """What corrections look at: readouts turned forward, mixed, without oversampling, transformed along x.

    `Lines.data` is then (line, coil, x), an image in its natural order; everything else about a line stays.
    """

    raw: Raw
    echo: int
    mix: Complex[Tensor, "virtual coil"] | None = None
    """Applied to the coils of each block as it is read."""
    ramp: RampInverse = RampInverse()
    phases: tuple[Phase, ...] = ()
    """Errors to take off."""

    def without(self, phase: Phase) -> "Readouts":
        """The same readouts with one more phase error taken off."""
        return replace(self, phases=(*self.phases, phase))

    @property
    def middle(self) -> int:
        """Voxel along the readout at which a slope of phase turns."""
        return self.raw.grid.shape[0] // 2

    def lines(self) -> Iterator[Lines]:
        """The readouts of the echo, in blocks."""
        return (self.seen(block) for block in self.raw.lines(self.echo))

    def navigators(self) -> Lines | None:
        """The readouts of the echo that have no phase encoding."""
        found = self.raw.navigators(self.echo) if self.raw.navigators is not None else None
        return None if found is None or not len(found.data) else self.seen(found)

    def central(self, points: int, partitions: bool = False) -> Lines:
        """Readouts within `points` about the centre of k-space along each phase encoding; of all slices, and
        of all partitions if asked for."""
        e, found = self.raw.encoding, []
        for block in self.raw.lines(self.echo):
            near = (block.ky - e.centre[1]).abs() <= points // 2
            if not e.slices and not partitions:
                near &= (block.kz - e.centre[2]).abs() <= points // 2
            if near.any():
                found.append(self.seen(block[near]))
        if not found:
            raise ValueError("no readouts at the centre of k-space: check its index in the header")
        times = [block.time_s for block in found if block.time_s is not None]
        return Lines(
            torch.cat([block.data for block in found]),
            torch.cat([block.ky for block in found]),
            torch.cat([block.kz for block in found]),
            torch.cat([block.average for block in found]),
            torch.cat([block.shot for block in found]),
            torch.cat([block.reverse for block in found]),
            torch.cat(times) if len(times) == len(found) else None,
        )

    def seen(self, block: Lines) -> Lines:
        """A block of raw readouts as images along the readout, phase errors taken off."""
        data = block.data
        e = self.raw.encoding
        if tuple(data.shape[1:]) != (self.raw.coils, e.samples):
            raise ValueError(
                f"readouts of {data.shape[1]} coils and {data.shape[2]} samples in a scan of "
                f"{self.raw.coils} coils and {e.samples} samples: read each matrix size as a scan of its own"
            )
        if self.mix is not None:
            data = self.mix.to(data) @ data
        if block.reverse.any():
            data = torch.where(block.reverse[:, None, None], data.flip(-1), data)
        data = self._image(data)
        x = torch.arange(data.shape[-1], dtype=torch.float64) - self.middle
        for phase in self.phases:
            offset, slope = phase(block)
            turn = torch.exp(-1j * (offset.double().cpu()[:, None] + slope.double().cpu()[:, None] * x))
            data = data * turn[:, None].to(data)
        return replace(block, data=data)

    @cached_property
    def _image(self) -> Callable[[Tensor], Tensor]:
        """From samples to the image along the readout, cut to the voxels of the grid."""
        e, n = self.raw.encoding, self.raw.grid.shape[0]
        wide = recorded_size(e, n)
        if e.position:
            start = wide // 2 - n // 2
            matrix = self.ramp(e.position, wide)[start : start + n].mT.contiguous()
            return partial(_times, matrix)
        at = torch.arange(n) - n // 2
        turn = torch.exp(-2j * torch.pi * (e.centre_sample * at % wide).double() / wide)

        def image(data: Tensor) -> Tensor:
            x: Tensor = torch.fft.ifft(data, n=wide, norm="ortho")
            return x.index_select(-1, at.to(x.device) % wide) * turn.to(x)

        return image


def _times(matrix: Tensor, data: Tensor) -> Tensor:
    return data @ matrix.to(data)


def both(first: Phase, second: Phase) -> Phase:
    """The sum of two phase errors."""

    def phase(lines: Lines) -> tuple[Float[Tensor, "line"], Float[Tensor, "line"]]:
        (a, b), (c, d) = first(lines), second(lines)
        return a + c, b + d

    return phase


def group(lines: Lines, each: str) -> dict[tuple[int, ...], Int64[Tensor, "some"]]:
    """Indices of the readouts of each "shot" (average, shot), "slice" (kz), or of the whole "scan"."""
    labels = {"shot": (lines.average, lines.shot), "slice": (lines.kz,), "scan": (0 * lines.kz,)}[each]
    keys, which = torch.unique(torch.stack(labels, 1).cpu(), dim=0, return_inverse=True)
    order = torch.argsort(which, stable=True)
    parts = torch.split(order, torch.bincount(which, minlength=len(keys)).tolist())
    return {tuple(key): part for key, part in zip(keys.tolist(), parts, strict=True)}


def recorded_size(encoding: Encoding, points: int) -> int:
    """Pixels in the field of view of the recorded samples, of which `points` are kept."""
    wide = round(points * encoding.oversampling)
    short = encoding.samples > wide and not encoding.position
    if wide < points or short:
        raise ValueError(
            f"{encoding.samples} samples with oversampling {encoding.oversampling} do not fit {points} "
            f"voxels along the readout: it must be 1 or more, and at least {encoding.samples / points:g}"
        )
    return wide


def measured(encoding: Encoding, points: int) -> Bool[Tensor, "kx"]:
    """Which of `points` places along the readout lie among the samples (not all of an asymmetric echo)."""
    wide = recorded_size(encoding, points)
    if encoding.position:
        first, last = min(encoding.position) - 0.5, max(encoding.position) + 0.5
    else:
        first, last = -encoding.centre_sample, encoding.samples - 1 - encoding.centre_sample
        if first <= -(wide // 2) and last >= (wide - 1) // 2:
            return torch.ones(points, dtype=torch.bool)
    k = torch.fft.fftfreq(points, 1 / points, dtype=torch.float64) * wide / points
    inside: Tensor = (k >= first - 1e-6) & (k <= last + 1e-6)
    return inside

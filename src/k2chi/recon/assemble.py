"""Readouts → k-space on its grid, one echo at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from k2chi.data import Encoding, KSpace, Lines, Raw, Size
from k2chi.recon.averages import AlignedAverages
from k2chi.recon.ghost import GhostCorrection, Navigated
from k2chi.recon.ramp import RampInverse
from k2chi.recon.readouts import Readouts, measured
from k2chi.recon.shots import NavigatedShots, ShotCorrection


@dataclass(frozen=True)
class Assemble:
    """Put the readouts of one echo in their places in k-space, corrected and averaged.

    Reversed readouts are turned, the oversampling of the readout is cut off in the image along it, readouts
    of the same place are averaged as complex numbers, and what was not measured stays zero. Unit noise of a
    sample is unit noise in k-space. Reads block by block: of the scan, only one echo of the (mixed) coils is
    in memory.
    """

    ramp: RampInverse = RampInverse()
    """Turns readouts sampled on gradient ramps into images along the readout."""
    ghost: GhostCorrection | None = Navigated()
    """Brings forward and reversed readouts of EPI onto each other."""
    shots: ShotCorrection | None = NavigatedShots()
    """Takes off the phase of each shot, from navigators or from the data themselves."""
    averages: AlignedAverages | None = AlignedAverages()
    """Takes off the phase by which averages differ."""

    def __call__(self, raw: Raw, echo: int, mix: Complex[Tensor, "virtual coil"] | None = None) -> KSpace:
        """K-space of `echo` (from 0) alone. `mix` maps coils to virtual coils: whitening, compression."""
        _check(raw, echo, mix)
        plain = Readouts(raw, echo, mix, self.ramp)
        turned = _without(plain, self.ghost)
        data, count = self._placed(_without(turned, self.shots))
        if not count.any():
            raise ValueError(f"no readouts of echo {echo + 1}: the file is cut off, or its counters are odd")
        if count.max() > 1:
            data /= count.clamp_min(1)
        data, sampled = _finished(raw.encoding, data, count > 0)
        return KSpace(
            data[None],
            sampled[None],
            raw.grid,
            replace(raw.scan, te_s=(raw.scan.te_s[echo],)),
            raw.noise if raw.noise is None or mix is None else mix.to(raw.noise) @ raw.noise,
            None if raw.reference is None else _reference(raw, plain, turned),
        )

    def _placed(self, readouts: Readouts) -> tuple[Complex[Tensor, "coil kx ky kz"], Float[Tensor, "ky kz"]]:
        """Sum of the readouts at each place, averages brought to one phase; and how many there were."""
        e, shape = readouts.raw.encoding, readouts.raw.grid.shape
        if self.averages is None:
            return _placed(readouts.lines(), e, shape, shape)
        try:
            return _placed(_of_one_average(readouts.lines()), e, shape, shape)
        except _Several:
            pass  # what was placed so far is let go before all is placed anew
        return _placed(_without(readouts, self.averages).lines(), e, shape, shape)


def _without(
    readouts: Readouts, correction: GhostCorrection | ShotCorrection | AlignedAverages | None
) -> Readouts:
    """The readouts without the phase errors that the correction finds in them."""
    phase = correction(readouts) if correction is not None else None
    return readouts if phase is None else readouts.without(phase)


class _Several(Exception):
    """There is more than one average."""


def _of_one_average(blocks: Iterable[Lines]) -> Iterator[Lines]:
    """The blocks, until a second average turns up: whether there is one, nothing says before."""
    first = None
    for block in blocks:
        numbers = set(block.average.tolist()) | ({first} if first is not None else set())
        if len(numbers) > 1:
            raise _Several
        first = next(iter(numbers), None)
        yield block


def _check(raw: Raw, echo: int, mix: Tensor | None) -> None:
    """ValueError unless the echo is there and k-space fits the grid and the coils."""
    if not 0 <= echo < len(raw.scan.te_s):
        raise ValueError(f"no echo {echo} in a scan of {len(raw.scan.te_s)}: echoes count from 0")
    if mix is not None and mix.shape[1] != raw.coils:
        raise ValueError(f"a mix of {mix.shape[1]} coils for a scan of {raw.coils}: give a column for each")
    e, shape = raw.encoding, raw.grid.shape
    if e.slices and e.matrix[2] != shape[2]:
        raise ValueError(f"{e.matrix[2]} slices in a grid of {shape[2]}: give a grid with a voxel for each")
    for axis in (1,) if e.slices else (1, 2):
        first, last, n = -e.centre[axis], e.matrix[axis] - 1 - e.centre[axis], shape[axis]
        if first < -(n // 2) or last > (n - 1) // 2:
            raise ValueError(
                f"k-space from {first} to {last} along axis {axis} does not fit a grid of {n} voxels: "
                "check the centre of k-space, or give a grid of the whole encoded field of view"
            )


def _placed(
    blocks: Iterable[Lines], e: Encoding, shape: Size, whole: Size
) -> tuple[Complex[Tensor, "coil kx ky kz"], Float[Tensor, "ky kz"]]:
    """Sum of the readouts at each place of `shape`, zero frequency at index 0, slices not yet transformed;
    and how many there were. Readouts outside `shape` are left out. The image's corner is that of the grid
    of `whole` voxels, also where `shape` is the centre only."""
    data, count = torch.zeros(0, dtype=torch.complex64), torch.zeros(shape[1] * shape[2])
    for block in blocks:
        _in_range(block, e)
        fy, fz = block.ky - e.centre[1], block.kz - (0 if e.slices else e.centre[2])
        turn = fy.double() * (whole[1] // 2) / whole[1]
        inside = (fy >= -(shape[1] // 2)) & (fy <= (shape[1] - 1) // 2)
        if not e.slices:
            turn = turn + fz.double() * (whole[2] // 2) / whole[2]
            inside &= (fz >= -(shape[2] // 2)) & (fz <= (shape[2] - 1) // 2)
        k = torch.fft.fft(block.data, norm="ortho")
        k *= torch.exp(-2j * torch.pi * turn)[:, None, None].to(k)
        place = fy % shape[1] * shape[2] + fz % shape[2]
        if not inside.all():
            k, place = k[inside], place[inside]
        if not len(data):
            data = k.new_zeros(k.shape[1], shape[0], len(count))
        data.index_add_(2, place.to(k.device), k.permute(1, 2, 0))
        count.index_add_(0, place.cpu(), torch.ones(len(place)))
    return data.reshape(-1, *shape), count.reshape(shape[1:]).to(data.device)


def _in_range(block: Lines, e: Encoding) -> None:
    for name, index, n in (("first", block.ky, e.matrix[1]), ("second", block.kz, e.matrix[2])):
        if len(index) and (index.min() < 0 or index.max() >= n):
            raise ValueError(
                f"readouts at {int(index.min())} to {int(index.max())} of the {name} phase encoding, "
                f"which has {n} points: the counters do not fit the header, so check how the file was made"
            )


def _finished(
    e: Encoding, data: Complex[Tensor, "coil kx ky kz"], seen: Bool[Tensor, "ky kz"]
) -> tuple[Complex[Tensor, "coil kx ky kz"], Bool[Tensor, "#kx ky kz"]]:
    """Zero beyond the samples of an asymmetric echo, slices transformed; and what was measured."""
    along = measured(e, data.shape[1]).to(data.device)
    if along.all():
        along = along[:1]
    else:
        data[:, ~along] = 0
    if e.slices:
        if not (seen == seen[:, :1]).all():
            raise ValueError(
                "slices were sampled in different places of k-space, or some are missing: "
                "reconstruct those that are alike"
            )
        for coil in data:
            coil.copy_(torch.fft.fft(coil, norm="ortho"))
    return data, along[:, None, None] & seen


def _reference(raw: Raw, plain: Readouts, turned: Readouts) -> Complex[Tensor, "coil rx ry rz"]:
    """The largest fully sampled box about the centre of the reference scan, zero frequency at index n//2;
    an EPI of its own loses the ghost, too."""
    assert raw.reference is not None
    e, whole = raw.encoding, raw.grid.shape
    found = list(raw.reference())
    readouts = turned if any(block.reverse.any() for block in found) else plain
    blocks = [readouts.seen(block) for block in found]
    if not sum(len(block.ky) for block in blocks):
        raise ValueError("the reference scan holds no readouts: calibrate from the centre of the scan itself")
    count = torch.zeros(e.matrix[1:])
    for block in blocks:
        _in_range(block, e)
        count[block.ky, block.kz] += 1
    shape = (whole[0], *_box(count > 0, e))
    data, repeats = _placed(blocks, e, shape, whole)
    data = data / repeats
    if e.slices:
        data = torch.fft.fft(data, norm="ortho")
    shifted: Tensor = torch.fft.fftshift(data, dim=(-3, -2, -1))
    return shifted


def _box(seen: Bool[Tensor, "ky kz"], e: Encoding) -> tuple[int, int]:
    """Size of the largest box about the centre without a hole, shrunk where it has most of them."""
    size = [_about(seen.any(1), e.centre[1]), _about(seen.any(0), e.centre[2])]
    if e.slices:
        size[1] = seen.shape[1]
    while min(size) > 0:
        y, z = (c - n // 2 for c, n in zip(e.centre[1:], size, strict=True))
        inside = seen[y : y + size[0], (z := 0 if e.slices else z) : z + size[1]]
        if inside.all():
            return size[0], size[1]
        size[0 if e.slices or size[0] >= size[1] else 1] -= 1
    raise ValueError(
        "the reference scan has holes at the centre of k-space: its readouts are cut off or miscounted; "
        "calibrate from the centre of the scan itself"
    )


def _about(seen: Bool[Tensor, "k"], centre: int) -> int:
    """The most points n from the first to the last one seen whose middle n//2 lies at `centre`."""
    at = torch.nonzero(seen)[:, 0]
    before, after = centre - int(at.min()), int(at.max()) - centre
    return max(0, min(2 * before + 1, 2 * after + 2))

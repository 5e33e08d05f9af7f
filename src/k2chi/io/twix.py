"""Siemens raw data (.dat of VB, VD, VE and XA) to `Raw`.

The receiver of these scanners lets phase grow with the field, and the same convention makes the signal of
a voxel at x along a gradient exp(+2πikx). Images by the inverse transform therefore run against the
directions of the gradients, which the affine says, and keep the sign of the phase: positive where the field
adds to B0. The scanner's position is that of voxel n//2, as its own images have it within the slice; across
a 3D slab its images may lie half a partition away.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64

from k2chi.data import Encoding, Grid, Raw, Scan, Vector, as_affine
from k2chi.io.counters import (
    Counters,
    Kind,
    Readouts,
    excitations,
    following,
    of_image,
    ranked,
    strength,
    unsupported,
)
from k2chi.io.ismrmrdheader import LPS, TICK_S
from k2chi.io.nifti import ALONG_BORE
from k2chi.io.twixheader import CARTESIAN, Protocol
from k2chi.io.twixlines import Heads, Measurement, flag, is_twix, measurements

__all__ = ["is_twix", "read"]
NOT_IMAGE = ("RTFEEDBACK", "HPFEEDBACK", "REFPHASESTABSCAN", "PHASESTABSCAN", "RETRO_DUMMYSCAN", "noname60")
UNSUPPORTED = {"SLICE_ACCEL_REFSCAN": "simultaneous multi-slice", "FIRST_SCAN_IN_BLADE": "BLADE"}


def read(
    path: Path,
    te_s: tuple[float, ...] = (),
    b0_tesla: float | None = None,
    b0_world: Vector = ALONG_BORE,
    repetition: int = 0,
) -> Raw:
    """The last measurement of a file, with the noise of an earlier one.

    `te_s` and `b0_tesla` stand in for what the header lacks. Raises ValueError for what is cut short, not
    Cartesian, or contradicts itself.
    """
    path = Path(path)
    found = measurements(path)
    last = found[-1]
    protocol = Protocol(path, last.header)
    _supported(path, protocol, last.heads)
    kind = kinds(last.heads)
    image = of_image(path, kind)
    warnings: list[str] = []
    grid, place = _grid(protocol, last.heads[image], b0_world)
    echo = _echoes(path, last.heads, kind, protocol.contrasts)
    times = te_s or protocol.te_s()
    count = int(echo[image].max()) + 1
    if len(times) != count and te_s:
        raise ValueError(f"{path}: {count} echoes, but {len(times)} echo times given; give one for each")
    if min(times, default=0) <= 0:
        raise ValueError(f"{path}: its header has no echo times; give --te for each of {count} echoes")
    counters, train = _counters(last.heads, kind, echo, place, protocol)
    encoding = _encoding(protocol, last.heads[image], grid, train)
    b0 = strength(path, b0_tesla or protocol.b0_tesla())
    ways = [counters.reverse[image[echo[image] == n]].any() for n in range(count)]
    scan = Scan(tuple(times), b0, train == 1 and any(ways) and not all(ways))
    fetch = _Fetch(last, encoding, _unsteady(encoding, last.heads[image], grid))
    noise = _noise(found, int(counters.coils[image[0]]), protocol)
    raw = Readouts(path, counters, fetch).raw(
        grid, scan, encoding, protocol.facts(), warnings, repetition, noise
    )
    return raw


def kinds(heads: Heads) -> Int64[np.ndarray, "line"]:
    """What each readout is for."""
    kind = np.full(len(heads), int(Kind.image))
    kind[flag(heads, "PATREFSCAN") & ~flag(heads, "PATREFANDIMASCAN")] = Kind.reference
    kind[flag(heads, *NOT_IMAGE)] = Kind.other
    navigator = flag(heads, "PHASCOR")
    kind[navigator] = np.where(flag(heads, "PATREFSCAN")[navigator], Kind.other, Kind.navigator)
    kind[flag(heads, "NOISEADJSCAN")] = Kind.noise
    return kind


def _supported(path: Path, protocol: Protocol, heads: Heads) -> None:
    trajectory = int(protocol.number("sKSpace", "ucTrajectory", default=CARTESIAN))
    words = {2: "radial", 4: "spiral", 8: "BLADE"}
    found = [] if trajectory == CARTESIAN else [words.get(trajectory, f"trajectory {trajectory}")]
    found += [what for name, what in UNSUPPORTED.items() if flag(heads, name).any()]
    if found:
        raise unsupported(path, found[0])


def directions(quaternion: np.ndarray) -> np.ndarray:
    """Directions of readout, first and second phase encoding in patient axes (LPS), as columns.

    The quaternion (scalar first) turns phase, readout and slice axes into those of the patient. Against the
    gradients, as images by the inverse transform run.
    """
    w, x, y, z = quaternion.astype(float) / np.linalg.norm(quaternion)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return -turn[:, [1, 0, 2]]


def _grid(protocol: Protocol, image: Heads, b0_world: Vector) -> tuple[Grid, Int64[np.ndarray, "slice"]]:
    """The grid, and the place of each slice number in it."""
    (nx, ny, nz), mm, _ = protocol.size()
    where = image["SliceData"]["SlicePos"]
    position = np.stack([where[n] for n in ("Sag", "Cor", "Tra")], axis=1).astype(float)
    axes = directions(image["SliceData"]["Quaternion"][0])
    number = image["Counter"]["Sli"].astype(np.int64)
    middle, place = position[0], np.zeros(1, dtype=np.int64)
    if not protocol.three_d:
        held = np.unique(number)
        nz = int(held[-1]) + 1
        if len(held) != nz:
            raise ValueError(f"{protocol.path}: slices {len(held)} of {nz} are there: the file is cut short")
        first = position[[int(np.argmax(number == n)) for n in held]]
        turned = image["SliceData"]["Quaternion"] @ image["SliceData"]["Quaternion"][0]
        if np.abs(np.abs(turned) - 1).max() > 1e-3:
            raise ValueError(f"{protocol.path}: slices that are not parallel: export one stack at a time")
        along = first @ axes[:, 2]
        order = np.argsort(along, kind="stable")
        place = np.argsort(order)
        middle = first[order[0]]
        if nz > 1:
            gaps = np.diff(along[order])
            if gaps.min() < 0.5 * gaps.max():
                raise ValueError(
                    f"{protocol.path}: slices lie at uneven distances: export one stack at a time"
                )
            mm[2] = gaps.mean()
    elif len(np.unique(number)) > 1:
        raise ValueError(f"{protocol.path}: holds several slabs: export one at a time")
    affine = np.eye(4)
    affine[:3, :3] = LPS @ axes * mm
    centre = np.array([nx // 2, ny // 2, nz // 2 if protocol.three_d else 0])
    affine[:3, 3] = LPS @ middle - affine[:3, :3] @ centre
    return Grid((nx, ny, nz), as_affine(affine), b0_world), place


def _echoes(
    path: Path, heads: Heads, kind: Int64[np.ndarray, "line"], contrasts: int
) -> Int64[np.ndarray, "line"]:
    """The echo of each readout. Where XA software leaves the counter at 0: the how-manieth at its place."""
    echo = heads["Counter"]["Eco"].astype(np.int64)
    image = np.flatnonzero(kind == Kind.image)
    if contrasts == 1 or echo[image].any():
        return echo
    names = ("Lin", "Par", "Sli", "Ave", "Phs", "Rep", "Set")
    places = np.stack([heads["Counter"][n][image] for n in names]).astype(np.int64)
    _, group = np.unique(places, axis=1, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    sizes = np.bincount(group.ravel())
    if (sizes != contrasts).any():
        raise ValueError(
            f"{path}: {contrasts} echoes that the counters do not tell apart, and places of k-space read "
            f"{sizes.min()} to {sizes.max()} times: export the scan as ISMRMRD with its contrast counter"
        )
    turn = np.empty(len(image), dtype=np.int64)
    turn[order] = np.arange(len(image)) % contrasts
    echo[image] = turn
    out: np.ndarray = echo[following(kind)]
    return out


def _counters(
    heads: Heads,
    kind: Int64[np.ndarray, "line"],
    echo: Int64[np.ndarray, "line"],
    place: Int64[np.ndarray, "slice"],
    protocol: Protocol,
) -> tuple[Counters, int]:
    """Columns of all readouts, and how many of an echo follow one excitation."""
    own = following(kind)
    c = {n: heads["Counter"][n].astype(np.int64) for n in ("Lin", "Par", "Sli", "Ave", "Rep", "Set", "Phs")}
    c |= {n: c[n][own] for n in ("Ave", "Rep", "Set", "Phs")}
    reverse = flag(heads, "REFLECT")
    image = kind == Kind.image
    of_first = reverse[image & (echo == echo[image].min())]
    taken = image | (kind == Kind.navigator)
    factor = int(protocol.number("sFastImaging", "lEPIFactor", default=1))
    epi = of_first.any() and not of_first.all()
    train = 1 if not epi else len(kind) if (kind == Kind.navigator).any() else max(1, factor)
    times = np.stack([c["Rep"], c["Set"], c["Phs"]])
    repetition = np.unique(times, axis=1, return_inverse=True)[1].ravel()
    turn = c["Sli"] + 4096 * c["Ave"] + 2**20 * repetition
    shot = np.zeros(len(kind), dtype=np.int64)
    some = excitations(
        (kind == Kind.navigator)[taken], echo[taken], (turn + 2**20 * repetition)[taken], train
    )
    shot[taken] = ranked(some, (c["Ave"] + 4096 * repetition)[taken])
    if epi:
        one = some[image[taken] & (echo[taken] == echo[image].min())]
        train = int(np.unique(one, return_counts=True)[1].max())
    kz = c["Par"] if protocol.three_d else place[c["Sli"].clip(max=len(place) - 1)]
    time = (heads["TimeStamp"].astype(np.int64) - int(heads["TimeStamp"][0])) * TICK_S
    counters = Counters(
        kind,
        c["Lin"],
        kz,
        echo,
        c["Ave"],
        repetition.astype(np.int64),
        heads["SamplesInScan"].astype(np.int64),
        heads["UsedChannels"].astype(np.int64),
        reverse,
        shot,
        time.astype(np.float32),
    )
    return counters, train


def _encoding(protocol: Protocol, image: Heads, grid: Grid, train: int) -> Encoding:
    """How readouts fill k-space."""
    (nx, ny, nz), _, surplus = protocol.size()
    first = image[0]
    samples = int(first["SamplesInScan"])
    at = (int(first["CenterLin"]), int(first["CenterPar"]))
    position = protocol.position(samples, nx)
    wide = round(nx * protocol.oversampling)
    mx = nx if position or samples >= wide else -(-samples * nx // wide)
    my = min(ny, at[0] + (ny + 1) // 2)
    mz = min(nz, at[1] + (nz + 1) // 2) if protocol.three_d else grid.shape[2]
    spacing = protocol.made("lEchoSpacing", protocol.made("EchoSpacing_us", 0)) if train > 1 else 0
    return Encoding(
        (mx, my, mz),
        (mx - (nx - nx // 2), at[0], at[1] if protocol.three_d else grid.shape[2] // 2),
        samples,
        int(first["CenterCol"]),
        protocol.oversampling,
        position,
        not protocol.three_d,
        (
            int(protocol.number("sPat", "lAccelFactPE", default=1)),
            int(protocol.number("sPat", "lAccelFact3D", default=1)),
        ),
        train,
        1e-6 * float(spacing),
        surplus,
    )


def _unsteady(e: Encoding, image: Heads, grid: Grid) -> np.ndarray | None:
    """What turns samples on ramps back: the receiver's shift off centre assumes an even gradient."""
    offset = float(image["ReadOutOffcentre"][0])
    if not e.position or offset == 0:
        return None
    position = np.asarray(e.position)
    step = np.diff(position).max()
    even = step * (np.arange(e.samples) - (e.samples - 1) / 2)
    wide_mm = grid.shape[0] * grid.voxel_mm[0] * e.oversampling
    turn: np.ndarray = np.exp(2j * np.pi * offset / wide_mm * (even - position)).astype(np.complex64)
    return turn


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Samples of a measurement, corrected for the shift of samples on ramps."""

    measurement: Measurement
    encoding: Encoding
    turn: np.ndarray | None

    def __call__(self, index: Int64[np.ndarray, "some"]) -> np.ndarray:
        data = self.measurement.fetch(index)
        if self.turn is not None and data.shape[2] == len(self.turn):
            backwards: Bool[np.ndarray, line] = flag(self.measurement.heads[index], "REFLECT")
            data *= np.where(backwards[:, None], self.turn[::-1], self.turn)[:, None]
        return data


def _noise(found: list[Measurement], coils: int, protocol: Protocol) -> torch.Tensor | None:
    """Noise readouts of the last measurement that has any, as strong as at the bandwidth of the image."""
    for one in reversed(found):
        index = np.flatnonzero((kinds(one.heads) == Kind.noise) & (one.heads["UsedChannels"] == coils))
        if len(index):
            parts = [one.fetch(index[i : i + 1])[0] for i in range(len(index))]
            dwell, own = protocol.dwell_s(), Protocol(one.path, one.header).dwell_s()
            scale = (own / dwell) ** 0.5 if dwell and own else 1.0
            return torch.from_numpy(np.concatenate(parts, axis=1) * np.float32(scale))
    return None

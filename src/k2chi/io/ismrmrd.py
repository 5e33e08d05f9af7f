"""ISMRMRD files (.h5) to `Raw` and back, block by block.

Positions and directions of ISMRMRD are those of the patient: left, posterior, superior. The sign of the
phase is that of whoever wrote the file; ours is that of `k2chi.data`, with images by the inverse transform.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

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
from k2chi.io.ismrmrdheader import BOTH, FLAGS, LPS, REVERSE, TICK_S, Header
from k2chi.io.ismrmrdwrite import write
from k2chi.io.nifti import ALONG_BORE

STEPS = ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "repetition")
__all__ = ["is_ismrmrd", "read", "write"]


def is_ismrmrd(path: Path) -> bool:
    """True for an HDF5 file with a header and readouts as ISMRMRD has them."""
    if not h5py.is_hdf5(path):
        return False
    with _opened(path) as file:
        return group_of(file) is not None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path}: the file is cut short or damaged ({str(error).splitlines()[0]}); copy it again"
        ) from error
    with file:
        yield file


def group_of(file: Any) -> str | None:
    """The first group that holds a header and readouts."""
    for name in ["dataset", *file]:
        if name in file and isinstance(file[name], h5py.Group) and {"xml", "data"} <= set(file[name]):
            return str(name)
    return None


def heads_of(table: Any) -> np.ndarray:
    """Headers of all readouts. Through the library they would cost a read of all samples, so that
    they are cut out of the stored records themselves where these lie plainly."""
    kind, plain = table.id.get_type(), table.dtype["head"]
    at = kind.get_member_offset(kind.get_member_index(b"head"))
    if table.chunks is None or table.id.get_create_plist().get_nfilters() or not plain.isnative:
        return np.asarray(table.fields("head")[:])
    out, step = np.empty(len(table), plain), table.chunks[0]
    for start in range(0, len(table), step):
        _, stored = table.id.read_direct_chunk((start,))
        records = np.frombuffer(stored, np.uint8).reshape(step, kind.get_size())
        heads = np.ascontiguousarray(records[:, at : at + plain.itemsize]).view(plain)[:, 0]
        out[start : start + step] = heads[: len(table) - start]
    return out


@dataclass(frozen=True)
class _Fetch:
    """Samples of some readouts, straight from the file."""

    path: Path
    group: str

    def __call__(self, index: Int64[np.ndarray, "some"]) -> np.ndarray:
        with _opened(self.path) as file:
            table = file[self.group]["data"]
            step = np.diff(index)
            even = len(index) < 2 or ((step == step[0]).all() and step[0] > 0)
            at = slice(int(index[0]), int(index[-1]) + 1, int(step[0]) if len(index) > 1 else 1)
            try:
                head = table.fields("head")[int(index[0])]
                rows = table.fields("data")[at if even else index]
            except OSError as error:
                raise ValueError(
                    f"{self.path}: damaged readouts ({str(error).splitlines()[0]}); copy the file again"
                ) from error
        coils, samples = int(head["active_channels"]), int(head["number_of_samples"])
        if any(len(r) != 2 * coils * samples for r in rows):
            raise ValueError(f"{self.path}: a readout is shorter than its header says; copy the file again")
        return np.stack(rows).view(np.complex64).reshape(len(index), coils, samples)


def _kinds(flags: np.ndarray) -> np.ndarray:
    kind = np.full(len(flags), int(Kind.image))
    for what in (Kind.reference, Kind.other, Kind.navigator, Kind.noise):
        bits = sum(1 << (f - 1) for f in FLAGS[what])
        kind[(flags & np.uint64(bits)) != 0] = what
    both = (flags & np.uint64(1 << (BOTH - 1))) != 0  # calibration and image at once: the image holds it
    kind[both & (kind == Kind.reference)] = Kind.image
    return kind


def read(
    path: Path,
    te_s: tuple[float, ...] = (),
    b0_tesla: float | None = None,
    b0_world: Vector = ALONG_BORE,
    repetition: int = 0,
) -> Raw:
    """An ISMRMRD file as a scan whose readouts come when asked for.

    `te_s` and `b0_tesla` stand in for what the header lacks. Raises ValueError for what is not there, not
    Cartesian, or contradicts itself.
    """
    path = Path(path)
    with _opened(path) as file:
        group = group_of(file)
        if group is None:
            raise ValueError(
                f"{path}: HDF5, but not ISMRMRD (no xml header and data); convert the scan again"
            )
        text = file[group]["xml"][0]
        heads = heads_of(file[group]["data"])
    if not len(heads):
        raise ValueError(f"{path}: holds no readouts; convert the scan again")
    header = Header(text if isinstance(text, bytes) else str(text).encode(), str(path))
    _cartesian(header, heads)
    warnings = list(header.own.get("warnings", ()))
    slices = header.points("slice", 1) > 1 or header.number("encoding/encodedSpace/matrixSize/z") == 1
    kind = _kinds(heads["flags"])
    image = heads[of_image(path, kind)]
    grid, place = _grid(header, image, slices, b0_world)
    encoding = _encoding(path, group, header, heads, kind, grid, slices)
    times = te_s or header.te_s()
    count = int(image["idx"]["contrast"].max()) + 1
    if len(times) < count:
        raise ValueError(
            f"{path}: {count} echoes, but {len(times)} echo times {times} s; give --te for each of them"
        )
    if len(times) > count:
        warnings.append(f"the header has {len(times)} echo times for {count} echoes; the first were taken")
    b0 = strength(path, b0_tesla or header.b0_tesla())
    counters = _counters(header, heads, kind, encoding, place)
    scan = Scan(times[:count], b0, _bipolar(counters, encoding))
    readouts = Readouts(path, counters, _Fetch(path, group))
    return readouts.raw(grid, scan, encoding, header.facts(), warnings, repetition)


def _cartesian(header: Header, heads: np.ndarray) -> None:
    kind = (header.word("encoding/trajectory") or "cartesian").lower()
    if kind not in ("cartesian", "epi") or heads["trajectory_dimensions"].max() > 1:
        raise unsupported(Path(header.where), kind)


def _bipolar(c: Counters, e: Encoding) -> bool:
    """True if the echoes of a scan without trains were read in opposite directions."""
    image = c.kind == Kind.image
    ways = [c.reverse[image & (c.echo == n)].any() for n in np.unique(c.echo[image])]
    return e.train == 1 and any(ways) and not all(ways)


def _grid(header: Header, image: np.ndarray, slices: bool, b0_world: Vector) -> tuple[Grid, np.ndarray]:
    """The grid, and the place of each slice number in it."""
    encoded = "encoding/encodedSpace"
    wide, ny, nz = (int(n) for n in header.size(f"{encoded}/matrixSize"))
    fov = header.size(f"{encoded}/fieldOfView_mm")
    nx = round(wide / _oversampling(header))
    mm = np.array([fov[0] / wide, fov[1] / ny, fov[2] / nz])
    first = image[0]
    axes = np.stack([first["read_dir"], first["phase_dir"], first["slice_dir"]], axis=1).astype(float)
    if np.linalg.norm(axes, axis=0).min() < 0.5:  # phantom files leave directions out
        axes = np.eye(3)
    axes /= np.linalg.norm(axes, axis=0)
    middle = first["position"].astype(float)
    place = np.zeros(1, dtype=np.int64)
    if slices:
        number = image["idx"]["slice"].astype(int)
        count = max(header.points("slice", 1), int(number.max()) + 1)
        at = np.full(count, np.nan)
        at[number] = image["position"].astype(float) @ axes[:, 2]
        place = np.arange(count) if np.isnan(at).any() else np.argsort(np.argsort(at, kind="stable"))
        known = np.sort(at[~np.isnan(at)])
        if len(known) > 1 and (gap := np.diff(known).mean()) > 1e-3:
            mm[2] = gap
            middle = image["position"][number == int(np.nanargmin(at))][0].astype(float)
        nz = count
    affine = np.eye(4)
    affine[:3, :3] = LPS @ axes * mm
    centre = np.array([nx // 2, ny // 2, 0 if slices else nz // 2])
    affine[:3, 3] = LPS @ middle - affine[:3, :3] @ centre
    world = tuple(header.own.get("b0_world", b0_world))
    return Grid((nx, ny, nz), as_affine(affine), (world[0], world[1], world[2])), place


def _oversampling(header: Header) -> float:
    """Encoded over reconstructed field of view along the readout."""
    recon = header.number("encoding/reconSpace/fieldOfView_mm/x", 0)
    return header.number("encoding/encodedSpace/fieldOfView_mm/x") / recon if recon > 0 else 1.0


def _encoding(
    path: Path,
    group: str,
    header: Header,
    heads: np.ndarray,
    kind: np.ndarray,
    grid: Grid,
    slices: bool,
) -> Encoding:
    """How readouts fill k-space, from the header and the first readout of the image."""
    shape, first = grid.shape, heads[kind == Kind.image][0]
    counters = [header.points("kspace_encoding_step_1", shape[1]), shape[2]]
    centre = [header.number("encoding/encodingLimits/kspace_encoding_step_1/center", shape[1] // 2)]
    centre.append(float(shape[2] // 2))
    surplus = [shape[1] - header.number("encoding/reconSpace/matrixSize/y", shape[1]), 0.0]
    if not slices:
        counters[1] = header.points("kspace_encoding_step_2", shape[2])
        centre[1] = header.number("encoding/encodingLimits/kspace_encoding_step_2/center", shape[2] // 2)
        surplus[1] = shape[2] - header.number("encoding/reconSpace/matrixSize/z", shape[2])
    nx, cx = header.own.get("matrix_x", (shape[0], shape[0] // 2))
    position: tuple[float, ...] = ()
    samples, oversampling = int(first["number_of_samples"]), _oversampling(header)
    if first["trajectory_dimensions"] == 1:
        with _opened(path) as file:
            table = file[group]["data"]
            traj = table.fields("traj")[int(np.flatnonzero(kind == Kind.image)[0])]
        position = tuple((traj.astype(float) * round(shape[0] * oversampling)).tolist())
        if first["flags"] & np.uint64(1 << (REVERSE - 1)):
            position = position[::-1]
    factor = "encoding/parallelImaging/accelerationFactor/kspace_encoding_step_"
    return Encoding(
        (int(nx), counters[0], counters[1]),
        (int(cx), int(centre[0]), int(centre[1])),
        samples,
        int(first["center_sample"]),
        oversampling,
        position,
        slices,
        (int(header.number(f"{factor}1", 1)), int(header.number(f"{factor}2", 1))),
        max(1, int(header.number("encoding/echoTrainLength", 1))),
        header.number("sequenceParameters/echo_spacing", 0) / 1e3,
        (max(0, int(surplus[0])), max(0, int(surplus[1]))),
    )


def _counters(
    header: Header, heads: np.ndarray, kind: np.ndarray, e: Encoding, place: np.ndarray
) -> Counters:
    """Columns of all readouts; shots from our own note, or from the order of the readouts."""
    idx = {n: heads["idx"][n].astype(np.int64) for n in STEPS}
    number = idx["slice"]
    kz = place[np.minimum(number, len(place) - 1)] if e.slices else idx["kspace_encode_step_2"]
    kz = np.where(number < len(place), kz, e.matrix[2]) if e.slices else kz
    time = heads["acquisition_time_stamp"].astype(np.float32) * np.float32(TICK_S)
    if "shot" in header.own:
        shot, time = heads["user_int"][:, 0].astype(np.int64), heads["user_float"][:, 0]
    else:
        aside, own = kind == Kind.navigator, following(kind)
        idx |= {n: idx[n][own] for n in ("average", "repetition")}
        turn = number + (number.max() + 1) * idx["average"]
        taken = np.isin(kind, (Kind.image, Kind.navigator))
        shot = np.zeros(len(kind), dtype=np.int64)
        some = excitations(aside[taken], idx["contrast"][taken], turn[taken], e.train)
        shot[taken] = ranked(some, (idx["average"] * 4096 + idx["repetition"])[taken])
    return Counters(
        kind.astype(np.int64),
        idx["kspace_encode_step_1"],
        kz,
        idx["contrast"],
        idx["average"],
        idx["repetition"],
        heads["number_of_samples"].astype(np.int64),
        heads["active_channels"].astype(np.int64),
        (heads["flags"] & np.uint64(1 << (REVERSE - 1))) != 0,
        shot,
        np.ascontiguousarray(time, dtype=np.float32),
    )

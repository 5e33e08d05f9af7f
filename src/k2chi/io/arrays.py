"""Plain arrays of k-space with a TOML header of the same name: the exchange form for what has no reader.

K-space is what a forward transform makes of the image (numpy.fft.fftn, shifted): the image's middle voxel
n//2 is the origin, the centre of k-space lies at index `centre`, and phase grows with the field, unless
`conjugate` says otherwise. Readouts that are zero in all coils were not measured.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from k2chi import config
from k2chi.data import Affine, Encoding, Grid, Lines, Raw, Scan, Size, Vector
from k2chi.io.nifti import ALONG_BORE

AXES = ("echo", "average", "coil", "x", "y", "z")
BLOCK_BYTES = 64e6


@dataclass(frozen=True)
class ArrayHeader:
    """What the TOML file may say; all but field strength, echo times and voxels has a default."""

    b0_tesla: float
    te_s: tuple[float, ...]
    voxel_mm: Vector | None = None
    """Edges of a voxel [mm]; not needed with `affine`."""
    affine: Affine | None = None
    """Voxel index to scanner position (RAS, mm), 4 rows of 4."""
    axes: tuple[str, ...] = ("echo", "coil", "x", "y", "z")
    """What each axis of the array is, in its order; x is the readout. Those left out have length 1."""
    data: str = "kspace"
    """Name of the data set in an HDF5 file."""
    voxels: Size | None = None
    """Voxels of the image, where they are not the points of k-space (partial Fourier, oversampling)."""
    centre: Size | None = None
    """Index of the centre of k-space along x, y, z; n//2 if not given."""
    oversampling: float = 1.0
    """Samples of a readout over voxels along it, where all of them were recorded."""
    slices: bool = False
    """True if z are slices of 2D scans: not transformed."""
    acceleration: tuple[int, int] = (1, 1)
    surplus: tuple[int, int] = (0, 0)
    """Voxels along y and z that only keep wraps away, half at each end."""
    noise: str = ""
    """A .npy file beside: noise-only samples, coil × sample."""
    reference: str = ""
    """A .npy file beside: fully sampled centre from a scan of its own, coil × x × y × z, centre at n//2."""
    conjugate: bool = False
    """True where phase falls with the field."""
    bipolar: bool = False
    """True if odd and even echoes were read in opposite directions."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The protocol by BIDS names: RepetitionTime, FlipAngle, …"""


def header_beside(path: Path) -> Path:
    """The TOML file that belongs to an array by name."""
    return path.with_suffix(".toml")


def read_header(path: Path) -> ArrayHeader:
    """The header of an array. Raises ValueError for what is unknown, missing, or of the wrong kind."""
    if not path.exists():
        raise ValueError(
            f"{path}: an array needs a header of this name that says at least te_s, b0_tesla and voxel_mm; "
            "see docs/raw-data.md"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML ({error}); repair the file") from error
    for key in ("te_s", "b0_tesla"):
        if key not in table:
            raise ValueError(f"{path}: {key} is missing; add it")
    if "voxel_mm" not in table and "affine" not in table:
        raise ValueError(f"{path}: give voxel_mm, or affine (4 rows of 4)")
    facts = table.pop("facts", {})
    try:
        made: ArrayHeader = config.from_table(ArrayHeader, {**table, "method": ArrayHeader.__name__})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return dataclasses.replace(made, facts=facts)


def read(path: Path, b0_world: Vector = ALONG_BORE) -> Raw:
    """An array (.npy or .h5) with its header as a scan whose readouts come when asked for."""
    path = Path(path)
    header = read_header(header_beside(path))
    shape, rows = _opened(path, header)
    size = dict(zip(AXES, shape, strict=True))
    if size["echo"] != len(header.te_s):
        raise ValueError(f"{path}: {size['echo']} echoes but {len(header.te_s)} times in te_s; one for each")
    points: Size = (size["x"], size["y"], size["z"])
    whole = (round(points[0] / header.oversampling), *points[1:])
    voxels = header.voxels or (int(whole[0]), int(whole[1]), int(whole[2]))
    grid = _grid(voxels, header, b0_world)
    encoding = _encoding(path, points, voxels, header)

    def lines(echo: int) -> Iterator[Lines]:
        step = max(1, int(BLOCK_BYTES // (8 * size["coil"] * points[0] * points[2])))
        for average in range(size["average"]):
            for y in range(0, points[1], step):
                yield from _block(path, rows(echo, average, slice(y, y + step)), y, average, header)

    facts = {k: tuple(v) if isinstance(v, list) else v for k, v in header.facts.items()}
    noise = _beside(path, header.noise, "noise", 2, size["coil"]) if header.noise else None
    reference = _reference(path, header, encoding, size["coil"]) if header.reference else None
    scan = Scan(header.te_s, header.b0_tesla, header.bipolar)
    return Raw(grid, scan, encoding, size["coil"], lines, None, reference, noise, facts)


Rows = Callable[[int, int, slice], np.ndarray]


def _opened(path: Path, header: ArrayHeader) -> tuple[tuple[int, ...], Rows]:
    """Shape along `AXES`, and how to read some rows of ky of one echo and average, as coil, x, y, z."""
    unknown = set(header.axes) - set(AXES)
    if unknown or len(set(header.axes)) < len(header.axes) or not {"x", "y"} <= set(header.axes):
        raise ValueError(f"{header_beside(path)}: axes = {header.axes} must be among {AXES}, each once")
    if path.suffix == ".npy":
        try:
            shape, kind = (a := np.load(path, mmap_mode="r", allow_pickle=False)).shape, a.dtype
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: cut short or damaged ({error}); copy it again") from error
    else:
        try:
            with h5py.File(path, "r") as file:
                if header.data not in file:
                    raise ValueError(
                        f"{path}: has no data set {header.data!r} but {list(file)}; name it by data = …"
                    )
                shape, kind = file[header.data].shape, file[header.data].dtype
        except OSError as error:
            raise ValueError(f"{path}: cut short or damaged ({error}); copy it again") from error
    if len(shape) != len(header.axes) or kind.kind != "c":
        raise ValueError(
            f"{path}: holds {kind} of shape {shape}, but complex numbers along {header.axes} are needed; "
            "correct axes in the header, or the array"
        )
    sizes = dict(zip(header.axes, shape, strict=True))

    def rows(echo: int, average: int, y: slice) -> np.ndarray:
        pick = {"echo": echo, "average": average, "y": y}
        at = tuple(pick.get(name, slice(None)) for name in header.axes)
        if path.suffix == ".npy":
            part = np.load(path, mmap_mode="r", allow_pickle=False)[at]
        else:
            with h5py.File(path, "r") as file:
                part = file[header.data][at]
        left = [name for name in header.axes if name in ("coil", "x", "y", "z")]
        for name in ("coil", "z"):
            if name not in left:
                part, left = np.asarray(part)[..., None], [*left, name]
        return np.transpose(part, [left.index(n) for n in ("coil", "x", "y", "z")])

    return tuple(int(sizes.get(name, 1)) for name in AXES), rows


def _grid(voxels: Size, header: ArrayHeader, b0_world: Vector) -> Grid:
    if header.affine is not None:
        return Grid(voxels, header.affine, b0_world)
    mm = header.voxel_mm or (1.0, 1.0, 1.0)
    return Grid.of(voxels, (float(mm[0]), float(mm[1]), float(mm[2])), b0_world)


def _encoding(path: Path, points: Size, voxels: Size, header: ArrayHeader) -> Encoding:
    centre = header.centre or (points[0] // 2, points[1] // 2, points[2] // 2)
    wide = round(voxels[0] * header.oversampling)
    if points[0] > wide or points[1] > voxels[1] or points[2] > voxels[2]:
        raise ValueError(
            f"{header_beside(path)}: {points} points do not fit {voxels} voxels with oversampling "
            f"{header.oversampling:g}; give more voxels, or the oversampling"
        )
    nx = voxels[0] if points[0] == wide else -(-points[0] * voxels[0] // wide)
    try:
        return Encoding(
            (nx, points[1], points[2]),
            (nx - (voxels[0] - voxels[0] // 2), centre[1], centre[2]),
            points[0],
            centre[0],
            header.oversampling,
            slices=header.slices,
            acceleration=header.acceleration,
            surplus=header.surplus,
        )
    except ValueError as error:
        raise ValueError(f"{header_beside(path)}: {error}") from error


def _block(path: Path, part: np.ndarray, y: int, average: int, header: ArrayHeader) -> Iterator[Lines]:
    """The measured readouts of some rows."""
    data = torch.from_numpy(np.array(part, dtype=np.complex64, order="C"))
    if not torch.isfinite(torch.view_as_real(data)).all():
        raise ValueError(f"{path}: holds NaN or infinity; write zeros where nothing was measured")
    seen = (data != 0).any(0).any(0)
    ky, kz = torch.nonzero(seen, as_tuple=True)
    if len(ky):
        values = data[:, :, ky, kz].permute(2, 0, 1)
        values = (values.conj() if header.conjugate else values).resolve_conj().contiguous()
        shot = (ky + y) * seen.shape[1] + kz
        yield Lines(
            values, ky + y, kz, torch.full_like(ky, average), shot, torch.zeros_like(ky, dtype=torch.bool)
        )


def _beside(path: Path, name: str, what: str, axes: int, coils: int) -> Tensor:
    """Another array of the same coils."""
    place = path.with_name(name)
    if not place.exists():
        raise ValueError(f"{place}: there is no such file, though the header names it as {what}")
    array = np.load(place, allow_pickle=False)
    if array.ndim != axes or array.shape[0] != coils or array.dtype.kind != "c":
        raise ValueError(
            f"{place}: {what} is {array.dtype} of shape {array.shape}; give complex numbers of {coils} coils"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.complex64))


def _reference(path: Path, header: ArrayHeader, e: Encoding, coils: int) -> Callable[[], Iterator[Lines]]:
    data = _beside(path, header.reference, "reference", 4, coils)
    if data.shape[1] != e.samples:
        raise ValueError(f"{header.reference}: readouts of {data.shape[1]} samples, the scan has {e.samples}")

    def lines() -> Iterator[Lines]:
        _, _, ny, nz = data.shape
        y, z = torch.meshgrid(torch.arange(ny), torch.arange(nz), indexing="ij")
        none = torch.zeros(ny * nz, dtype=torch.int64)
        ky, kz = y.flatten() - ny // 2 + e.centre[1], z.flatten() - nz // 2 + e.centre[2]
        values = data.permute(2, 3, 0, 1).flatten(0, 1)
        values = (values.conj() if header.conjugate else values).resolve_conj().contiguous()
        yield Lines(values, ky, z.flatten() if e.slices else kz, none, none, none > 0)

    return lines

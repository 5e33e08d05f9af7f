"""Raw data of any supported form, told apart by what the file holds, not by its name."""

from pathlib import Path

import h5py

from k2chi.data import Raw, Vector
from k2chi.io import arrays, ismrmrd, twix
from k2chi.io.nifti import ALONG_BORE

SUPPORTED = "Siemens twix (.dat), ISMRMRD (.h5), or an array (.npy, .h5) with a TOML header of the same name"
KNOWN = {
    b"\x1f\x8b": "compressed data; unpack it first (images: give k2chi qsm their folder)",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x5c\x01\x00\x00": "a NIfTI image; give k2chi qsm its folder",
    b"MATLAB": "a MATLAB file; write the array as .h5 or .npy with a header",
}


def open_raw(
    path: Path,
    te_s: tuple[float, ...] = (),
    b0_tesla: float | None = None,
    b0_world: Vector = ALONG_BORE,
    repetition: int = 0,
) -> Raw:
    """Open raw data; readouts are read when they are asked for.

    `te_s` and `b0_tesla` stand in for what a header lacks. Raises ValueError that says what was found, what
    is supported, and what to do.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file; check the name")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name the file with the raw data: {SUPPORTED}")
    if path.suffix == ".toml":
        path = _array_of(path)
    start = _start(path)
    if h5py.is_hdf5(path):
        if ismrmrd.is_ismrmrd(path):
            return ismrmrd.read(path, te_s, b0_tesla, b0_world, repetition)
        header = arrays.header_beside(path)
        if not header.exists():
            raise ValueError(
                f"{path}: HDF5, but not ISMRMRD (no xml header with readouts), and without {header.name} "
                f"beside it; supported are {SUPPORTED}; see docs/raw-data.md"
            )
        return arrays.read(path, b0_world)
    if start.startswith(b"\x93NUMPY"):
        return arrays.read(path, b0_world)
    if start.startswith(b"\x89HDF"):
        raise ValueError(f"{path}: the file is cut short or damaged (HDF5); copy it again")
    if twix.is_twix(path):
        return twix.read(path, te_s, b0_tesla, b0_world, repetition)
    words = next((w for magic, w in KNOWN.items() if start.startswith(magic)), None)
    if start[128:132] == b"DICM":
        words = "a DICOM image; convert the series to NIfTI and give k2chi qsm its folder"
    found = words or "no raw data that is known"
    raise ValueError(f"{path}: {found}; supported are {SUPPORTED}")


def is_raw(path: Path) -> bool:
    """True for a file, as against a folder of images."""
    return Path(path).is_file() and not str(path).endswith((".nii", ".nii.gz"))


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        start = file.read(256)
    if not start:
        raise ValueError(f"{path}: the file is empty; copy or export it again")
    return start


def _array_of(header: Path) -> Path:
    for ending in (".npy", ".h5"):
        if header.with_suffix(ending).exists():
            return header.with_suffix(ending)
    raise ValueError(f"{header}: no {header.stem}.npy or {header.stem}.h5 beside this header")

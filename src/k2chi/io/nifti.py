"""NIfTI volumes to tensors and back; errors name the file and the remedy."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid, Vector, as_affine

ALONG_BORE: Vector = (0.0, 0.0, 1.0)


TOLERANCE = 0.1
"""How far corners of volumes on one grid may lie apart, in voxels."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One NIfTI file. Values are read when they are asked for."""

    path: Path
    grid: Grid
    echoes: int
    """Volumes along the fourth axis."""
    slope: float
    inter: float
    """Header scaling: value = slope × stored + inter."""
    codes: tuple[int, int]
    """sform and qform codes: which space the affine means."""
    integer: bool
    """True if whole numbers are stored."""

    @cached_property
    def stored(self) -> np.ndarray:
        """Numbers as they lie in the file, space first, float32, echo last."""
        try:
            image: Any = nib.load(self.path)
            data = np.asarray(image.dataobj.get_unscaled(), dtype=np.float32)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ValueError(
                f"{self.path}: the file is cut short or damaged ({error}); copy it again"
            ) from error
        return data.reshape((*self.grid.shape, self.echoes))

    def tensor(self, scaled: bool = True) -> Float[Tensor, "echo x y z"]:
        """The values, echo first; `scaled` applies the header's slope."""
        t = torch.from_numpy(np.moveaxis(self.stored, -1, 0).copy())
        if scaled and (self.slope != 1 or self.inter != 0):
            t = t * self.slope + self.inter
        return t


def read(path: Path, b0_world: Vector = ALONG_BORE) -> Volume:
    """Open a NIfTI file and check that it is a volume.

    Raises ValueError if it is missing, not NIfTI, 2D, complex, or has an unusable affine.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file; check the name")
    try:
        image: Any = nib.load(path)
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a readable NIfTI file ({reason}); convert or copy it again") from error
    is_nifti = isinstance(image, nib.Nifti1Image)  # a name of its own: mypy keeps `image` untyped
    if not is_nifti:
        raise ValueError(f"{path}: not a NIfTI file; convert it to .nii or .nii.gz")
    kind = image.get_data_dtype()
    if kind.kind not in "iufb":
        raise ValueError(f"{path}: holds {kind} values; write real and imaginary part to files of their own")
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise ValueError(
            f"{path}: has shape {tuple(image.shape)}; QSM needs 3D volumes (x, y, z, optional echo)"
        )
    header = image.header
    try:
        grid = Grid((shape[0], shape[1], shape[2]), as_affine(image.affine), b0_world)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Volume(
        path,
        grid,
        shape[3] if len(shape) == 4 else 1,
        float(image.dataobj.slope),
        float(image.dataobj.inter),
        (int(header["sform_code"]), int(header["qform_code"])),
        kind.kind in "iub",
    )


def same_place(a: Volume, b: Volume) -> None:
    """Raise ValueError unless both lie on one grid; corners may differ by a tenth of a voxel."""
    if a.grid.shape != b.grid.shape:
        raise ValueError(
            f"{b.path}: has {b.grid.shape} voxels but {a.path.name} has {a.grid.shape}; "
            "give volumes of one grid (resample masks by nearest neighbour)"
        )
    apart = _apart_mm(a.grid, b.grid)
    if apart > TOLERANCE * min(a.grid.voxel_mm):
        raise ValueError(
            f"{b.path}: lies {apart:.3g} mm away from {a.path.name}; give volumes of one grid, "
            "or repair the header that is wrong"
        )


def same_grid(a: Grid, b: Grid) -> bool:
    """True for the same voxels at the same places; corners may differ by a tenth of a voxel."""
    return a.shape == b.shape and _apart_mm(a, b) <= TOLERANCE * min(a.voxel_mm)


def _apart_mm(a: Grid, b: Grid) -> float:
    """The most that corners of two grids of one shape lie apart along an axis [mm]."""
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.asarray(a.shape) - 1
    return float(np.abs((corners @ (np.asarray(a.affine) - np.asarray(b.affine)).T)[:, :3]).max())


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to `path` on success and removed on failure."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write(
    path: Path,
    data: Tensor,
    grid: Grid,
    codes: tuple[int, int] = (1, 1),
) -> Path:
    """Write a volume (or echoes, echo first) as .nii or .nii.gz: float32, or uint8 for truth values.

    Same values give the same bytes. Either the whole file appears or none.
    """
    array = data.detach().cpu().numpy()
    if array.ndim == 4:
        array = np.moveaxis(array, 0, -1)
    array = array.astype(
        np.uint8 if array.dtype == bool else np.int16 if array.dtype.kind in "iu" else np.float32
    )
    make: Any = nib.Nifti1Image
    image = make(array, np.asarray(grid.affine))
    image.set_sform(image.affine, code=codes[0] or (0 if codes[1] else 1))
    image.set_qform(image.affine, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    with atomic(Path(path)) as part, open(part, "wb") as raw:
        if str(path).endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed:
                packed.write(image.to_bytes())
        else:
            raw.write(image.to_bytes())
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    with atomic(Path(path)) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)

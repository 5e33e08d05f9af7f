"""Transforms as ITK and ANTs store them: matrices, and warps as NIfTI. ITK's axes are LPS, ours RAS."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import io as matlab

from k2chi.data import Affine, Grid, as_affine
from k2chi.measure.space import Transform, Warp

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS to LPS and back."""
MATRIX_KINDS = ("AffineTransform", "MatrixOffsetTransformBase", "Euler3DTransform", "VersorRigid3DTransform")


def read_transform(*files: Path) -> Transform:
    """A chain from files, the first applied first to a fixed position. Raises ValueError for unknown forms.

    ANTs lists its files the other way round: its `-t 1Warp.nii.gz -t 0GenericAffine.mat` is
    `read_transform(warp, affine)` here too, since ANTs applies the last one to the moving image first.
    """
    return Transform(tuple(_warp(f) if _is_nifti(f) else read_matrix(f) for f in files))


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def read_matrix(path: Path) -> Affine:
    """Fixed position to moving position [mm, RAS] from ITK's .mat or .txt, or four rows of plain numbers.

    Plain rows are taken as they are.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file; check the name")
    if path.suffix == ".mat":
        return _from_mat(path)
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("#Insight Transform File"):
            return _from_itk_text(path, text)
        rows = np.loadtxt(path, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: is no text file of numbers; give ITK's .mat or .txt, or four rows of four numbers"
        ) from error
    if rows.shape != (4, 4):
        raise ValueError(f"{path}: holds {rows.shape} numbers; give four rows of four")
    return as_affine(rows)


def from_itk(path: Path) -> bool:
    """Whether a matrix is in a form of ITK, which leads from fixed to moving."""
    return path.suffix == ".mat" or path.read_bytes().startswith(b"#Insight Transform File")


def _from_mat(path: Path) -> Affine:
    try:
        held: dict[str, Any] = matlab.loadmat(path)
    except (matlab.matlab.MatReadError, ValueError, NotImplementedError, TypeError, OSError) as error:
        raise ValueError(f"{path}: is no ITK transform ({error}); give a .mat that ANTs wrote") from error
    kind = next((k for k in held if k.startswith(MATRIX_KINDS)), "")
    if not kind or "fixed" not in held:
        raise ValueError(f"{path}: holds no matrix that ITK wrote; give ANTs' 0GenericAffine.mat")
    return _from_parameters(path, kind, np.ravel(held[kind]), np.ravel(held["fixed"]))


def _from_itk_text(path: Path, text: str) -> Affine:
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    if text.count("Transform:") != 1:
        raise ValueError(f"{path}: holds several transforms; give one matrix")
    values = [np.array(said.get(k, "").split(), dtype=float) for k in ("Parameters", "FixedParameters")]
    return _from_parameters(path, said.get("Transform", "").strip(), *values)


def _from_parameters(path: Path, kind: str, p: np.ndarray, centre: np.ndarray) -> Affine:
    """y = M (x − c) + c + t, in LPS; twelve parameters of a matrix, or three angles and a shift."""
    if len(p) == 12:
        m, t = p[:9].reshape(3, 3), p[9:]
    elif len(p) == 6 and "Euler" in kind:
        (cx, cy, cz), (sx, sy, sz) = np.cos(p[:3]), np.sin(p[:3])
        rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        m, t = rz @ rx @ ry, p[3:]
    else:
        raise ValueError(f"{path}: {kind} of {len(p)} parameters is not understood; give a matrix of twelve")
    c = centre[:3] if len(centre) >= 3 else np.zeros(3)
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = m, t + c - m @ c
    return as_affine(LPS @ out @ LPS)


def write_matrix(path: Path, matrix: Affine) -> Path:
    """Write a matrix as ITK's text form, which ANTs, ITK-SNAP and 3D Slicer read."""
    from k2chi.io.nifti import write_text

    m = LPS @ np.asarray(matrix) @ LPS
    numbers = " ".join(repr(float(v)) for v in (*m[:3, :3].ravel(), *m[:3, 3]))
    return write_text(
        path,
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n",
    )


def _warp(path: Path) -> Warp:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file; check the name")
    try:
        image: Any = nib.load(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise ValueError(f"{path}: not a readable warp ({error}); register again") from error
    if data.ndim != 5 or data.shape[3:] != (1, 3):
        raise ValueError(f"{path}: has shape {data.shape}, which is no warp (x, y, z, 1, 3)")
    x, y, z = data.shape[:3]
    shift = data[:, :, :, 0] * np.array([-1, -1, 1], dtype=np.float32)
    return Warp(shift, Grid((x, y, z), as_affine(image.affine)))

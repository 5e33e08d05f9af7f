"""Volumes in and out: values, place, codes, bytes; and what a damaged file says."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from images import AFFINE, save

from k2chi.data import Grid, as_affine
from k2chi.io import nifti

GRID = Grid((4, 5, 6), as_affine(AFFINE))


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 5, 6)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_round_trip(tmp_path, shape, name):
    """Values, affine and codes come back; another reader sees echo last."""
    data = torch.randn(shape)
    path = nifti.write(tmp_path / name, data, GRID, codes=(4, 2))
    back = nifti.read(path)
    assert torch.equal(back.tensor().reshape(shape), data)
    assert (back.grid.shape, back.codes) == (GRID.shape, (4, 2))
    np.testing.assert_allclose(back.grid.affine, GRID.affine, rtol=1e-6)
    seen = nib.load(path)
    assert seen.get_data_dtype() == np.float32
    np.testing.assert_array_equal(
        np.moveaxis(seen.get_fdata(), -1, 0) if len(shape) == 4 else seen.get_fdata(), data
    )


def test_mask_is_written_as_small_integers(tmp_path):
    path = nifti.write(tmp_path / "m.nii.gz", torch.ones(4, 5, 6, dtype=torch.bool), GRID)
    assert nib.load(path).get_data_dtype() == np.uint8


def test_same_values_same_bytes(tmp_path):
    data = torch.randn(4, 5, 6)
    a, b = (nifti.write(tmp_path / n, data, GRID).read_bytes() for n in ("a.nii.gz", "b.nii.gz"))
    assert a == b


def test_header_scaling_applies_once(tmp_path):
    path = save(tmp_path / "a.nii", np.full((4, 5, 6), 3), dtype=np.int16, slope=0.5, inter=1)
    volume = nifti.read(path)
    assert float(volume.tensor().max()) == 2.5
    assert float(volume.tensor(scaled=False).max()) == 3


def test_failed_write_leaves_nothing(tmp_path):
    """An error on the way keeps the old file and removes the new one's beginning."""
    path = tmp_path / "a.nii.gz"
    path.write_text("old")

    def fail():
        with nifti.atomic(path) as part:
            part.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert path.read_text() == "old"


def singular(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((4, 5, 6)))
    raw = bytearray(path.read_bytes())
    raw[280:296] = bytes(16)  # first row of the sform
    path.write_bytes(raw)
    return path


def truncated(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)))
    path.write_bytes(path.read_bytes()[:1500])
    return path


def cut_in_header(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.ones((4, 5, 6)))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:200]))
    return path


def text(tmp_path):
    path = tmp_path / "a.nii"
    path.write_text("not an image " * 60)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: t / "none.nii", "there is no such file"),
        (truncated, "cut short or damaged"),
        (cut_in_header, "not a readable NIfTI file"),
        (text, "not a readable NIfTI file"),
        (singular, "affine is singular"),
        (lambda t: save(t / "a.nii", np.ones((7, 8))), "needs 3D volumes"),
        (lambda t: save(t / "a.nii", np.ones((7, 8, 1))), "needs 3D volumes"),
        (lambda t: save(t / "a.nii", np.ones((4, 5, 6, 2, 3))), "needs 3D volumes"),
        (lambda t: save(t / "a.nii", np.ones((4, 5, 6)), dtype=np.complex64), "real and imaginary"),
    ],
)
def test_bad_files_are_named(tmp_path, make, says):
    path = make(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        nifti.read(path).tensor()
    assert str(error.value).startswith(str(path))


def test_grids_are_compared_in_mm(tmp_path):
    """A header that differs by rounding passes; half a voxel or another size does not."""
    a = nifti.read(save(tmp_path / "a.nii", np.ones((4, 5, 6))))
    moved = AFFINE.copy()
    moved[0, 3] += 0.01
    nifti.same_place(a, nifti.read(save(tmp_path / "b.nii", np.ones((4, 5, 6)), moved)))
    moved[0, 3] += 0.5
    with pytest.raises(ValueError, match=r"b\.nii: lies 0\.51 mm away"):
        nifti.same_place(a, nifti.read(save(tmp_path / "b.nii", np.ones((4, 5, 6)), moved)))
    with pytest.raises(ValueError, match=r"\(4, 5, 7\) voxels but a.nii has \(4, 5, 6\)"):
        nifti.same_place(a, nifti.read(save(tmp_path / "c.nii", np.ones((4, 5, 7)))))

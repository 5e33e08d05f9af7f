"""Transforms in ITK's files against numbers worked by hand: LPS axes, centres, order of angles."""

import nibabel as nib
import numpy as np
import pytest
from heads import motion
from scipy import io as matlab

from k2chi.data import as_affine
from k2chi.io.transforms import from_itk, read_matrix, read_transform, write_matrix
from k2chi.measure.space import Transform

TURN = "0 -1 0 1 0 0 0 0 1"
"""90° about the long axis: x to y, y to −x."""


def itk(path, kind, parameters, centre):
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}\nParameters: {parameters}\n"
        f"FixedParameters: {centre}\n",
        encoding="utf-8",
    )
    return path


def at(path, *point):
    return Transform((read_matrix(path),))(np.array([point], float))[0]


def test_a_turn_about_a_centre_in_lps(tmp_path):
    """RAS (−11, −20, 30) is LPS (11, 20, 30): 1 mm in x from the centre becomes 1 mm in y; then the shift."""
    path = itk(tmp_path / "a.txt", "AffineTransform_double_3_3", f"{TURN} 1 2 3", "10 20 30")
    assert at(path, -11, -20, 30) == pytest.approx((-11, -23, 33))  # LPS (10, 21, 30) + (1, 2, 3)
    mat = tmp_path / "a.mat"
    columns = {"AffineTransform_double_3_3": [*map(float, TURN.split()), 1, 2, 3], "fixed": [10.0, 20, 30]}
    matlab.savemat(mat, {k: np.array(v)[:, None] for k, v in columns.items()}, format="4")
    assert at(mat, -11, -20, 30) == pytest.approx((-11, -23, 33))
    assert from_itk(path)
    assert from_itk(mat)
    again = write_matrix(tmp_path / "b.txt", read_matrix(path))
    assert np.asarray(read_matrix(again)) == pytest.approx(np.asarray(read_matrix(path)))


def test_euler_angles_turn_about_y_then_x_then_z(tmp_path):
    """ITK: R = Rz Rx Ry. Quarter turns about x and y take +z to +x; in the other order to −y."""
    quarter = np.pi / 2
    path = itk(tmp_path / "e.txt", "Euler3DTransform_double_3_3", f"{quarter} {quarter} 0 0 0 0", "0 0 0")
    assert at(path, 0, 0, 1) == pytest.approx((-1, 0, 0), abs=1e-9)  # LPS +x is RAS −x
    path = itk(tmp_path / "e.txt", "Euler3DTransform_double_3_3", f"{quarter} 0 {quarter} 0 0 0", "0 0 0")
    assert at(path, 0, 0, 1) == pytest.approx((-1, 0, 0), abs=1e-9)  # z to −y by x, −y to +x by z


def test_a_warps_displacement_is_lps_and_its_grid_ras(tmp_path):
    """A chain of files is applied as they are listed: the warp at the fixed position, then the matrix."""
    shift = np.zeros((4, 4, 4, 1, 3), np.float32)
    shift[..., :] = (1, 2, 3)
    warp = tmp_path / "w.nii.gz"
    nib.save(nib.Nifti1Image(shift, np.diag([2.0, 2, 2, 1])), warp)
    assert read_transform(warp)(np.array([[3.0, 3, 3]]))[0] == pytest.approx((2, 1, 6))
    quarter = as_affine(motion((0, 0, 90), (0, 0, 0)))
    turn = write_matrix(tmp_path / "t.txt", quarter)
    assert read_transform(warp, turn)(np.array([[3.0, 3, 3]]))[0] == pytest.approx((-1, 2, 6))
    assert read_transform(turn, warp)(np.array([[3.0, -3, 3]]))[0] == pytest.approx((2, 1, 6))

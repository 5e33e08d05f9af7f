"""Constants worked by hand, and values that refuse to be made wrong."""

from dataclasses import replace
from math import cos, pi, sin

import numpy as np
import pytest
import torch

from k2chi import units
from k2chi.data import Chi, Echoes, Field, Grid, KSpace, Scan

GRID = Grid.of((4, 5, 6), (1.0, 2.0, 3.0))
SCAN = Scan((0.004, 0.012, 0.020), 3.0)


def test_phase_of_one_ppm_worked_by_hand():
    """3 T, 20 ms: 42.577478 · 3 · 0.02 = 2.5546 turns = 16.05 rad; 7 T, 12 ms: 22.47 rad; 127.7 Hz at 3 T."""
    assert units.rad_per_ppm(3.0, 0.020) == pytest.approx(16.051, abs=5e-4)
    assert units.rad_per_ppm(7.0, 0.012) == pytest.approx(22.472, abs=5e-4)
    assert units.hz_per_ppm(3.0) == pytest.approx(127.732434, abs=1e-9)


def test_scan_uses_the_mean_echo_time():
    """(4 + 12 + 20)/3 = 12 ms; at 3 T one ppm is 9.631 rad there."""
    assert SCAN.te_mean_s == pytest.approx(0.012)
    assert SCAN.rad_per_ppm == pytest.approx(9.631, abs=5e-4)


@pytest.mark.parametrize(
    ("te_s", "b0", "message"),
    [
        ((), 3.0, "one for each echo"),
        ((0.0, 0.01), 3.0, "positive and rising"),
        ((0.02, 0.01), 3.0, "rising"),
        ((0.01, 0.01), 3.0, "rising"),
        ((4.0, 8.0), 3.0, "look like ms: give them in seconds"),
        ((0.02,), 0.0, "give it in tesla"),
        ((0.02,), 127.7, "give it in tesla"),
    ],
)
def test_impossible_scans_are_refused(te_s, b0, message):
    """With the remedy."""
    with pytest.raises(ValueError, match=message):
        Scan(te_s, b0)


def affine(edges=(1.0, 1.0, 1.0), turn=0.0, shear=0.0):
    rows = np.diag([*edges, 1.0])
    rows[:3, :3] = np.array([[cos(turn), -sin(turn), 0], [sin(turn), cos(turn), 0], [0, 0, 1]]) @ rows[:3, :3]
    rows[0, 1] += shear
    return tuple(map(tuple, rows.tolist()))


@pytest.mark.parametrize(
    ("shape", "rows", "message"),
    [
        ((8, 8, 0), affine(), "has none"),
        ((8, 8, 8), affine((1.0, 0.0, 1.0)), "singular"),
        ((8, 8, 8), affine((1.0, float("nan"), 1.0)), "finite"),
        ((8, 8, 8), affine()[:3], "4×4"),
        ((8, 8, 8), affine(shear=0.2), "sheared"),
    ],
)
def test_impossible_grids_are_refused(shape, rows, message):
    """No voxels, and affines that are singular, sheared, not finite or not 4×4."""
    with pytest.raises(ValueError, match=message):
        Grid(shape, rows)


def test_grid_needs_a_direction_of_b0():
    """A vector without length points nowhere."""
    with pytest.raises(ValueError, match="direction of B0"):
        Grid((4, 4, 4), affine(), (0.0, 0.0, 0.0))


def test_voxel_size_and_b0_come_from_the_affine():
    """A quarter turn about z exchanges x and y; the direction of B0 has length one whatever its input."""
    grid = Grid((4, 4, 4), affine((0.5, 1.0, 2.0), turn=pi / 2), (2.0, 0.0, 0.0))
    assert grid.voxel_mm == pytest.approx((0.5, 1.0, 2.0))
    assert grid.voxel_volume_mm3 == pytest.approx(1.0)
    assert grid.b0_dir == pytest.approx((0, -1, 0), abs=1e-12)


def test_window_keeps_the_place_of_each_voxel():
    """Voxel (0, 0, 0) of the window lies where voxel `start` lay; negative starts reach out of the grid."""
    grid = Grid((9, 9, 9), affine((1.0, 2.0, 3.0), turn=0.3))
    for start in ((2, 1, 3), (-2, 0, -5)):
        cut = grid.window(start, (4, 5, 6))
        there = np.asarray(grid.affine) @ [*start, 1]
        assert np.asarray(cut.affine)[:, 3] == pytest.approx(there)
        assert (cut.shape, cut.b0_dir) == ((4, 5, 6), pytest.approx(grid.b0_dir))


def test_straight_grid_is_centred():
    """Index n//2 lies at the origin, for odd and even sizes."""
    a = np.asarray(Grid.of((4, 5, 6), (1.0, 2.0, 3.0)).affine)
    assert a @ [2, 2, 3, 1] == pytest.approx([0, 0, 0, 1])


def test_grids_are_values():
    """Equal if all is equal, and usable as keys; the tilted one is another."""
    assert Grid.of((4, 5, 6)) == Grid.of((4, 5, 6))
    assert len({Grid.of((4, 5, 6)), Grid.of((4, 5, 6)), Grid.of((4, 5, 6), b0_dir=(0.0, 1.0, 0.0))}) == 2


def volume(*front, dtype=torch.float32):
    return torch.zeros(*front, *GRID.shape, dtype=dtype)


MASK = volume(dtype=torch.bool).index_fill(0, torch.tensor([1, 2]), True)


def test_arrays_of_another_size_are_refused():
    """Naming the array and both sizes: magnitude and phase of different grids are a common mistake."""
    wrong = torch.zeros(4, 5, 7)
    with pytest.raises(ValueError, match=r"field has \(4, 5, 7\) voxels, but the grid has \(4, 5, 6\)"):
        Field(wrong, wrong > -1, GRID, SCAN)
    with pytest.raises(ValueError, match="signal has"):
        Echoes(torch.zeros(3, 4, 5, 7, dtype=torch.complex64), GRID, SCAN)
    with pytest.raises(ValueError, match="chi has"):
        Chi(wrong, wrong > -1, GRID)
    with pytest.raises(ValueError, match="data has"):
        KSpace(torch.zeros(3, 2, 4, 5, 7, dtype=torch.complex64), torch.ones(1, 4, 5, 7) > 0, GRID, SCAN)


def test_one_echo_time_for_each_echo():
    """Two echoes with three times cannot be."""
    with pytest.raises(ValueError, match="2 echoes but 3 echo times"):
        Echoes(volume(2, dtype=torch.complex64), GRID, SCAN)


def test_shapes_are_checked_while_tests_run():
    """A mask of the wrong size, or a real signal, does not pass the annotations."""
    with pytest.raises(Exception, match="mask"):
        Field(volume(), torch.ones(4, 5, 7) > 0, GRID, SCAN)
    with pytest.raises(Exception, match="signal"):
        Echoes(volume(3), GRID, SCAN)


def test_empty_mask_is_refused():
    """Before an hour of work on nothing."""
    with pytest.raises(ValueError, match="mask is empty"):
        Field(volume(), ~MASK & MASK, GRID, SCAN)
    signal = volume(len(SCAN.te_s), dtype=torch.complex64)
    with pytest.raises(ValueError, match="mask is empty"):
        Echoes(signal, GRID, SCAN, mask=~MASK & MASK)


def test_weight_is_the_mask_unless_given():
    """Trust is one inside and zero outside; a copy with another mask keeps a weight that was given."""
    field = Field(volume(), MASK, GRID, SCAN)
    assert torch.equal(field.weight, MASK.float())
    given = Field(volume(), MASK, GRID, SCAN, weight=0.5 * MASK)
    assert torch.equal(replace(given, local=True).weight, 0.5 * MASK)


def test_a_field_needs_several_slices():
    """A single slice may be reconstructed, but has no field in three dimensions."""
    flat = torch.zeros(8, 8, 1)
    with pytest.raises(ValueError, match="two slices or more"):
        Field(flat, flat > -1, Grid.of((8, 8, 1)), SCAN)

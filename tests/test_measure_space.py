"""Chains of transforms, labels that are carried, B0 that turns, and how well two scans lie on one another."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import torch
from heads import BALLS, motion, seen, straight, turned_grid

from k2chi.data import Echoes, Grid, Scan, as_affine
from k2chi.measure.alignment import Alignment, aligned, dice, jacobian, warnings
from k2chi.measure.residual import local_correlation
from k2chi.measure.space import (
    Transform,
    Warp,
    brought,
    carried,
    centres,
    inverse,
    moved,
    overlap,
    require_overlap,
    turned,
)
from k2chi.ops import dipole

GRID = straight()
MOVE = motion()


def test_steps_are_taken_in_order_and_back_again():
    at = np.array([[1.0, 2, 3], [-4, 0, 7]])
    shift, turn = as_affine(motion((0, 0, 0))), as_affine(motion((0, 0, 90), (0, 0, 0)))
    there = Transform((shift, turn))(at)
    assert there == pytest.approx(np.stack([-(at[:, 1] - 2), at[:, 0] + 3, at[:, 2] + 4], -1))
    both = Transform((shift,)).then(Transform((turn,)))
    assert Transform((inverse(both.matrix),))(there) == pytest.approx(at)
    assert Transform()(at) == pytest.approx(at)


def test_a_warp_of_one_shift_is_a_shift_inside_its_grid_and_nothing_outside():
    warp = Warp(np.full((*GRID.shape, 3), (1.0, -2.0, 0.5), np.float32), GRID)
    at = np.array([[0.0, 0, 0], [500, 0, 0]])
    assert Transform((warp,))(at) == pytest.approx(at + np.array([[1, -2, 0.5], [0, 0, 0]]))
    with pytest.raises(ValueError, match="no matrix"):
        _ = Transform((warp,)).matrix
    with pytest.raises(ValueError, match="on a grid"):
        Warp(np.zeros((2, 2, 2, 3), np.float32), GRID)


def test_an_image_is_pulled_from_where_it_lies():
    """A head sampled on a turned grid of other voxels, brought to a straight one, is the head there."""
    other = turned_grid()
    image, _, _ = seen(other)
    truth, mask, _ = seen(GRID, MOVE)
    found = brought(image, other, GRID, Transform((as_affine(MOVE),)), 3)
    assert float((found - truth)[mask].abs().mean()) < 0.02
    assert float((seen(GRID)[0] - truth)[mask].abs().mean()) > 0.1  # unlike the head that was not moved


def test_labels_come_over_without_mixing_numbers():
    other = turned_grid()
    labels = seen(other)[2]
    truth = seen(GRID, MOVE)[2]
    found = carried(labels, other, GRID, Transform((as_affine(MOVE),)))
    assert set(found.labels.unique().tolist()) == set(range(len(BALLS) + 1))
    for n in range(1, len(BALLS) + 1):
        assert dice(found.labels == n, truth == n) > 0.88, n
    assert found.lost == ()
    inside = found.labels > 0
    assert float(found.share[inside].min()) > 0.15
    assert float(found.share[~inside].abs().max()) == 0


def test_labels_keep_their_volume_where_voxels_grow():
    fine = Grid.of((60, 60, 60), (1.0, 1.0, 1.0))
    at = np.linalg.norm(centres(fine), axis=-1)
    labels = torch.from_numpy((at < 12).astype(np.int16)) * 7
    coarse = Grid.of((20, 20, 20), (3.0, 3.0, 3.0))
    found = carried(labels, fine, coarse, Transform())
    volume = 4 / 3 * np.pi * 12**3
    assert float((found.labels == 7).sum()) * 27 == pytest.approx(volume, rel=0.08)
    assert float(found.share[found.labels == 7].max()) == pytest.approx(1)


def test_labels_that_do_not_arrive_are_named():
    labels = torch.zeros(GRID.shape, dtype=torch.int16)
    labels[16:20, 20:24, 16:20], labels[0:2, 0:2, 0:2] = 3, 9
    found = carried(labels, GRID, GRID.window((10, 10, 10), (16, 20, 16)), Transform())
    assert found.lost == (9,)
    with pytest.raises(ValueError, match="every label is 0"):
        carried(labels * 0, GRID, GRID, Transform())
    away = replace(GRID, affine=as_affine(motion((0, 0, 0), (900, 0, 0)) @ np.asarray(GRID.affine)))
    with pytest.raises(ValueError, match="do not overlap"):
        carried(labels, GRID, away, Transform())
    assert overlap(GRID, away) == 0
    assert overlap(GRID, GRID) == 1
    with pytest.raises(ValueError, match=r"x\.nii: the two images do not overlap"):
        require_overlap(GRID, away, None, "x.nii")


def test_b0_turns_with_the_head():
    """A dipole field brought to a turned head is that of the turned sources along the new B0."""
    grid = Grid.of((48, 48, 48), (1.0, 1.0, 1.0))
    move = motion((0, 35, 0), (0, 0, 0))
    at = centres(grid)

    def source(p):
        return torch.from_numpy(np.exp(-((p - np.array([3.0, -2, 1])) ** 2).sum(-1) / 18).astype(np.float32))

    d = dipole(grid, torch.device("cpu"))
    phase = 20 * d(source(at))
    echoes = Echoes(torch.polar(torch.ones_like(phase), phase)[None], grid, Scan((0.02,), 3.0))
    there = moved(echoes, grid, as_affine(move))
    back = np.linalg.inv(move)
    here = source(at @ back[:3, :3].T + back[:3, 3])
    middle = (slice(12, 36),) * 3
    right = 20 * dipole(there.grid, torch.device("cpu"))(here)
    wrong = 20 * dipole(grid, torch.device("cpu"))(here)
    error = (there.signal[0].angle() - right)[middle].norm() / right[middle].norm()
    naive = (there.signal[0].angle() - wrong)[middle].norm() / right[middle].norm()
    assert error < 0.1
    assert naive > 0.4
    assert there.grid.b0_world == pytest.approx(tuple(move[:3, :3] @ np.array([0, 0, 1.0])))


def test_only_rigid_motions_turn_a_field():
    with pytest.raises(ValueError, match="not rigid"):
        turned(GRID, GRID, as_affine(np.diag([1.1, 1, 1, 1])))
    with pytest.raises(ValueError, match="not rigid"):
        turned(GRID, GRID, as_affine(np.diag([-1.0, 1, 1, 1])))


def test_local_correlation_sees_structure_not_brightness():
    image, mask, _ = seen(GRID)
    shaded = 3 * image + 7
    assert local_correlation(image, image, mask, GRID) == pytest.approx(
        local_correlation(image, -shaded, mask, GRID), abs=1e-3
    )
    noise = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    assert local_correlation(image + 0.3 * noise, noise.roll(3, 0), mask, GRID) < 0.05
    assert isnan(local_correlation(image, image, mask & False, GRID))


def test_volume_change_is_that_of_the_transform():
    scale = as_affine(np.diag([1.1, 1.0, 0.9, 1.0]))
    assert jacobian(Transform((scale,)), GRID) == pytest.approx(np.full(GRID.shape, 0.99))
    at = centres(GRID)
    warp = Warp((0.1 * at).astype(np.float32), GRID)
    change = jacobian(Transform((warp,)), GRID)
    assert change[4:-4, 4:-4, 4:-4] == pytest.approx(1.1**3, rel=1e-3)
    folded = Warp((-2.5 * at).astype(np.float32), GRID)
    assert (jacobian(Transform((folded,)), GRID)[8:-8, 8:-8, 8:-8] < 0).all()


def test_quality_says_what_was_done_and_what_is_wrong():
    image, mask, _ = seen(GRID)
    away, away_mask, _ = seen(GRID, MOVE)
    whole = Transform((as_affine(MOVE),))
    back = brought(image, GRID, GRID, whole)
    good = aligned(away, back, image, (away_mask, away_mask), whole, GRID)
    assert good.turn_deg == pytest.approx(np.degrees(np.arccos((np.trace(MOVE[:3, :3]) - 1) / 2)))
    assert good.lncc > good.lncc_before
    assert good.jacobian_low == pytest.approx(1)
    assert warnings(good, False) == ()
    bad = aligned(away, image, back, (away_mask, mask.roll(12, 0)), Transform(), GRID)
    said = " ".join(warnings(bad, True))
    assert "masks overlap" in said
    assert "made it worse" in said
    torn = " ".join(warnings(Alignment(0.99, 0.1, 0.05, 0.1, 7.0, 0.01), True))
    assert "folds" in torn
    assert "more than brains differ" in torn
    assert isnan(dice(mask & False, mask & False))

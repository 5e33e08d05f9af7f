"""What two images still lie apart, in mm and by place, against misplacements that are known."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import torch
from heads import motion, straight

from k2chi.data import Grid, as_affine
from k2chi.measure.alignment import Alignment, warnings
from k2chi.measure.residual import local_correlation, octants
from k2chi.measure.space import centres

GRID = straight((36, 42, 34), 2.0)


def noisy(image, seed, level=0.03):
    return image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


def shifted(mm):
    """A rigid shift, 4×4."""
    return motion((0, 0, 0), mm)


def texture(at):
    """Structure everywhere: waves of 12 to 40 mm in all directions."""
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(40, 3))
    ways *= (2 * np.pi / rng.uniform(12, 40, 40) / np.linalg.norm(ways, axis=1))[:, None]
    return torch.from_numpy(np.cos(at @ ways.T + rng.uniform(0, 7, 40)).sum(-1).astype(np.float32))


def pair(move=None, bend=None, grid=GRID):
    """A textured head, itself seen after a misplacement, each with noise of its own, and the mask."""
    at = centres(grid)
    mask = torch.from_numpy(((at / np.array([30, 36, 28])) ** 2).sum(-1) < 1)
    there = at if move is None else at @ move[:3, :3].T + move[:3, 3]
    there = there if bend is None else there + bend(there)
    return noisy(texture(at), 1, 0.5), noisy(texture(there), 2, 0.5), mask


@pytest.mark.parametrize("mm", [(0, 0, 0), (1, 0, 0), (0, -2, 0), (0, 0, 3), (1.5, -1.5, 1), (-4, 0, 0)])
def test_a_known_shift_is_found_with_its_direction(mm):
    """Positions sampled `mm` further on: the moved image must go by `mm` to fit."""
    fixed, moved, mask = pair(shifted(mm))
    found = octants(fixed, moved, mask, GRID)
    assert len(found) == 8
    mean = np.mean([o.shift_mm for o in found], 0)
    assert mean == pytest.approx(np.array(mm), abs=0.15 + 0.2 * np.linalg.norm(mm))
    for o in found:
        assert np.linalg.norm(np.array(o.shift_mm) - mm) < 0.4 + 0.4 * np.linalg.norm(mm), o
        assert o.best >= o.score
    said = warnings(Alignment(octants=found), False)
    assert bool(said) == any(mm)


def test_a_turn_misplaces_each_eighth_its_own_way():
    """6° about the long axis: left and right go opposite ways, front and back too; the mean stays."""
    found = octants(*pair(motion((0, 0, 6), (0, 0, 0))), GRID)
    ends = ("left", "right", "front", "back")
    mean = {w: np.mean([o.shift_mm for o in found if w in o.where], 0) for w in ends}
    lever = np.sin(np.deg2rad(6)) * np.array([30, 36]) * 3 / 8  # centre of half an ellipsoid
    assert mean["right"][1] - mean["left"][1] == pytest.approx(2 * lever[0], rel=0.25)
    assert mean["back"][0] - mean["front"][0] == pytest.approx(2 * lever[1], rel=0.25)
    assert np.mean([o.shift_mm for o in found], 0) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_place_is_named_by_the_scanner_whatever_the_axes(flip):
    """A misplacement at the left front upper end only; the array's axes in other order, one turned round."""
    rows = np.zeros((4, 4))
    rows[2, 0], rows[0, 1], rows[1, 2], rows[3, 3] = 2, 2 * flip, 2, 1
    rows[:3, 3] = -rows[:3, :3] @ np.array([17, 18, 21])
    grid = Grid((34, 36, 42), as_affine(rows))

    def bend(at):
        there = 1 / (1 + np.exp(-(np.minimum(np.minimum(-at[..., 0], at[..., 1]), at[..., 2]) - 1)))
        return 3 * there[..., None] * np.array([0.0, 0.0, 1.0])

    found = {o.where: o for o in octants(*pair(None, bend, grid), grid)}
    assert set(found) == {f"{a} {b} {c}" for a in ("left", "right") for b in ("back", "front")
                          for c in ("lower", "upper")}  # fmt: skip
    worst = max(found.values(), key=lambda o: o.apart_mm)
    assert worst.where == "left front upper"
    assert worst.shift_mm[0] > 1.5  # the array's first axis runs upwards
    assert all(o.apart_mm < 1 for o in found.values() if o is not worst)
    (said,) = warnings(Alignment(octants=tuple(found.values())), False)
    assert "left front upper by" in said
    assert "back" not in said


def test_brightness_and_the_sign_of_contrast_do_not_matter():
    fixed, moved, mask = pair(shifted((2, 0, 0)))
    plain, other = octants(fixed, moved, mask, GRID), octants(fixed, 7 - 3 * moved, mask, GRID)
    for a, b in zip(plain, other, strict=True):
        assert b.shift_mm[0] == pytest.approx(a.shift_mm[0], abs=0.1)


def test_images_with_nothing_in_common_are_not_judged():
    image, _, mask = pair()
    found = octants(image, noisy(0 * image, 3), mask, GRID)
    quality = Alignment(lncc=0.02, octants=found)
    assert all(isnan(o.apart_mm) for o in found)
    assert isnan(quality.residual_mm)
    assert quality.numbers()["residual_mm"] is None
    assert "too little to judge" in " ".join(warnings(quality, False))
    assert octants(image, image, mask & False, GRID) == ()


def test_a_slab_thinner_than_a_block_is_one_block_thick():
    grid = straight((60, 60, 4), 0.6)
    image = noisy(texture(centres(grid)), 1)
    mask = torch.ones(grid.shape, dtype=torch.bool)
    assert local_correlation(image, image, mask, grid) == pytest.approx(1)
    assert all(o.apart_mm < 0.5 for o in octants(image, image, mask, grid))


def test_the_worst_eighth_and_the_mean_are_those_of_the_list():
    found = octants(*pair(motion((0, 0, 5), (0, 0, 0))), GRID)
    blind = replace(found[0], shift_mm=(np.nan,) * 3)
    quality = Alignment(octants=(blind, *found[1:]))
    lengths = [np.linalg.norm(o.shift_mm) for o in found[1:]]
    assert quality.worst_mm == pytest.approx(max(lengths))
    assert quality.residual_mm == pytest.approx(np.mean(lengths))
    assert quality.numbers()["octants_mm"][blind.where] is None


def test_noise_of_single_voxels_does_not_rule_the_score():
    """1 mm and much noise: blocks still tell the aligned from the misplaced."""
    grid = straight((60, 70, 56), 1.0)
    image, moved, mask = pair(shifted((3, 0, 0)), grid=grid)
    good, bad = (local_correlation(noisy(image, 1, 5), noisy(m, 2, 5), mask, grid) for m in (image, moved))
    assert good > 0.8
    assert bad < 0.6
    assert isnan(local_correlation(image, image, mask & False, grid))

"""Measures without a truth answer to what they are named after, and to nothing else."""

from dataclasses import replace
from math import isnan

import pytest
import torch
from spheres import occupancy

from k2chi.data import Chi, Grid
from k2chi.measure import blind as b
from k2chi.ops import dipole

GRID = Grid.of((56, 52, 48), (1.0, 1.1, 1.2), (0.2, 0.1, 0.97))
MASK = occupancy(GRID, 24.0) > 0.5
DRAW = torch.Generator().manual_seed(0)


def smooth():
    """Balls of χ with soft edges."""
    chi = torch.zeros(GRID.shape)
    for radius, centre, value in ((6, (8, 0, 0), 0.1), (4, (-9, 5, 2), 0.15), (5, (0, -10, -6), -0.08)):
        chi += value * occupancy(GRID, float(radius), tuple(map(float, centre)))
    return chi * MASK


def noise():
    return torch.randn(GRID.shape, generator=DRAW)


@pytest.mark.parametrize("sigma", [0.002, 0.02])
def test_noise_is_measured_beside_anatomy(sigma):
    assert b.noise_ppb(smooth() + sigma * noise(), MASK) == pytest.approx(1e3 * sigma, rel=0.05)
    assert b.noise_ppb(smooth() + 3.0 + sigma * noise(), MASK) == pytest.approx(1e3 * sigma, rel=0.05)


def test_a_mask_without_four_voxels_in_a_row_has_no_noise_estimate():
    dots = torch.zeros_like(MASK)
    dots[::4, ::4, ::4] = True
    assert isnan(b.noise_ppb(smooth(), dots))


def test_white_noise_has_no_streaks_and_a_divided_field_has():
    """Division by a small D lifts the cone; cutting the cone out empties it. B0 is what matters."""
    white = Chi(noise() * MASK, MASK, GRID)
    assert b.streak_index(white) == pytest.approx(1.0, abs=0.1)
    d = dipole(GRID, pad=1)
    spectrum = torch.fft.fftn(noise())
    kernel = torch.fft.fftn(d(torch.zeros(GRID.shape).index_put_((torch.tensor(0),) * 3, torch.tensor(1.0))))
    small = kernel.real.abs().clamp_min(0.03)
    streaked = Chi(torch.fft.ifftn(spectrum / small).real * MASK, MASK, GRID)
    empty = Chi(torch.fft.ifftn(spectrum * (kernel.real.abs() > 0.1)).real * MASK, MASK, GRID)
    assert b.streak_index(streaked) > 3
    assert b.streak_index(empty) < 0.3
    turned = replace(GRID, b0_world=(1.0, 0.0, 0.0))
    assert b.streak_index(replace(streaked, grid=turned)) < 0.5 * b.streak_index(streaked)


def test_blur_lowers_sharpness_and_contrast_scales_it():
    sharp = smooth()
    soft = torch.nn.functional.avg_pool3d(sharp[None, None], 5, 1, 2)[0, 0]
    one = b.sharpness_ppb_per_mm(Chi(sharp, MASK, GRID))
    assert b.sharpness_ppb_per_mm(Chi(soft, MASK, GRID)) < 0.9 * one
    assert b.sharpness_ppb_per_mm(Chi(2 * sharp, MASK, GRID)) == pytest.approx(2 * one, rel=1e-5)


def test_all_of_them():
    got = b.blind(Chi(smooth() + 0.01 * noise() * MASK, MASK, GRID))
    assert set(got) == {"noise_ppb", "streak_index", "sharpness_ppb_per_mm"}
    assert got["noise_ppb"] == pytest.approx(10, rel=0.1)

"""Sources told apart: closed-form spheres with two pools, pointwise steps by brute force, a head's pools."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from spheres import occupancy, positions_mm, sphere_field

from k2chi.data import Field, Grid, Scan
from k2chi.invert import TKD
from k2chi.measure.quality import nrmse
from k2chi.phantom.pools import pools
from k2chi.separate import ChiSeparation, R2StarSeparation
from k2chi.separate.chisep import fit
from k2chi.separate.decay import amount
from k2chi.separate.r2star import nearest

SHAPE, EDGES = (40, 37, 33), (1.0, 1.1, 1.3)
BALLS = [  # radius and centre [mm], χ₊ and χ₋ [ppm]
    (5.0, (5.0, -3.0, 2.0), 0.15, -0.05),
    (4.5, (-7.0, 4.0, -3.0), 0.04, -0.12),
    (4.0, (3.0, 9.0, 3.0), 0.06, -0.06),
]
R2 = 12.0


def scan(b0=(0.2, -0.3, 0.93), tesla=3.0, noise=5e-4):
    """Field of three balls in a ball-shaped mask, R2′ [1/s] by 137 1/s/ppm at 3 T, and both pools."""
    grid, draw = Grid.of(SHAPE, EDGES, b0), torch.Generator().manual_seed(2)
    ppm = noise * torch.randn(SHAPE, generator=draw)
    para, dia = torch.zeros(SHAPE), torch.zeros(SHAPE)
    for radius, at, plus, minus in BALLS:
        ppm += (plus + minus) * sphere_field(grid, radius, at)[0]
        share = occupancy(grid, radius, at)
        para += plus * share
        dia += minus * share
    mask = torch.from_numpy(np.sqrt(np.square(positions_mm(grid)).sum(0)) < 18)
    rate = 137 * tesla / 3 * (para - dia) * mask
    return Field(ppm * mask, mask, grid, Scan((0.010,), tesla), local=True), rate, para, dia


def means(sources):
    """χ₊ and χ₋ in the middle of each ball [ppm]."""
    out = []
    for radius, at, _, _ in BALLS:
        inside = occupancy(sources.grid, radius - 1.2, at) == 1
        out.append((float(sources.para_ppm[inside].mean()), float(sources.dia_ppm[inside].mean())))
    return out


EVERY = {"ChiSeparation": ChiSeparation(alpha=2e-5), "R2StarSeparation": R2StarSeparation()}
every = pytest.mark.parametrize("method", EVERY.values(), ids=EVERY)


@every
@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), (0.3, -0.4, 0.85)])
@pytest.mark.parametrize("tesla", [3.0, 7.0])
def test_balls_keep_both_pools(method, b0, tesla):
    """Also the one whose pools cancel, which a susceptibility map does not show. Within 10 ppb."""
    local, rate, _, _ = scan(b0, tesla)
    for (para, dia), (_, _, plus, minus) in zip(means(method(local, rate, 0.0)), BALLS, strict=True):
        assert para == pytest.approx(plus, abs=0.010)
        assert dia == pytest.approx(minus, abs=0.010)


@every
def test_signs_hold_and_nothing_lies_outside(method):
    local, rate, _, _ = scan()
    found = method(local, rate + 30 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), 0.0)
    assert float(found.para_ppm.min()) >= 0
    assert float(found.dia_ppm.max()) <= 0
    assert not found.para_ppm[~local.mask].any()
    assert not found.dia_ppm[~local.mask].any()


@every
def test_r2_is_subtracted_as_map_or_number_or_nominal(method):
    """R2′ = R2* − R2 however R2 comes; the nominal one is 11 1/s at 3 T and grows with the root of B0."""
    local, rate, _, _ = scan()
    right = method(local, rate, 0.0)
    inside = local.mask.float()
    for found in (
        method(local, rate + R2 * inside, torch.full(SHAPE, R2)),
        method(local, rate + R2 * inside, R2),
        method(local, rate + 11.0 * inside),
    ):
        torch.testing.assert_close(found.para_ppm, right.para_ppm, atol=2e-5, rtol=1e-3)
    strong, rate7, _, _ = scan(tesla=7.0)
    nominal = amount(strong, rate7 + 11.0 * (7 / 3) ** 0.5 * inside, None, 137.0, 11.0)
    torch.testing.assert_close(nominal, rate7 / (137 * 7 / 3), atol=1e-6, rtol=1e-5)


@every
def test_turning_the_field_round_exchanges_the_pools(method):
    """−f is the field of the same amounts with their signs exchanged."""
    local, rate, _, _ = scan()
    one, other = method(local, rate, 0.0), method(replace(local, ppm=-local.ppm), rate, 0.0)
    torch.testing.assert_close(other.para_ppm, -one.dia_ppm, atol=1e-5, rtol=1e-3)


@every
def test_what_is_not_finite_harms_nobody(method):
    """NaN in R2* and field of a voxel outside the mask, as fits leave them."""
    local, rate, _, _ = scan()
    junk = torch.where(local.mask, 0.0, torch.nan)
    found = method(replace(local, ppm=local.ppm + junk), rate + junk, 0.0)
    torch.testing.assert_close(found.para_ppm, method(local, rate, 0.0).para_ppm)


def test_weights_silence_the_field():
    """A false field where the weight is zero changes nothing."""
    local, rate, _, _ = scan()
    hole = torch.zeros(SHAPE, dtype=torch.bool)
    hole[18:21, 17:20, 15:18] = True
    silent = replace(local, weight=local.mask * ~hole * 1.0)
    false = replace(silent, ppm=silent.ppm + hole)
    method = ChiSeparation(iterations=20)
    torch.testing.assert_close(method(false, rate, 0.0).para_ppm, method(silent, rate, 0.0).para_ppm)


def test_the_joint_fit_beats_the_voxelwise_one():
    """With noise in R2′ of 3 1/s."""
    local, rate, para, dia = scan(noise=2e-3)
    noisy = (rate + 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))) * local.mask
    joint, each = ChiSeparation()(local, noisy, 0.0), R2StarSeparation()(local, noisy, 0.0)
    for name, truth in (("para_ppm", para), ("dia_ppm", dia)):
        a, b = (nrmse(getattr(s, name), truth, local.mask) for s in (joint, each))
        assert a < 0.85 * b


def test_it_converges_and_says_so():
    local, rate, _, _ = scan()
    found = ChiSeparation(iterations=300)(local, rate, 0.0)
    assert found.converged is True
    assert found.updates[-1] <= 1e-3
    assert found.misfits[-1] < 0.2
    assert ChiSeparation(iterations=3)(local, rate, 0.0).converged is False


# ---- the pointwise steps against brute force


def test_the_step_of_the_pools_is_the_minimum():
    """On a fine grid of x, y ≥ 0 nothing is lower, whichever bounds are active."""
    draw = torch.Generator().manual_seed(3)
    a, b, r = (torch.randn(200, 1, 1, generator=draw) for _ in range(3))
    w, mu = torch.rand(200, 1, 1, generator=draw) * 2, 0.4
    x, y = fit(a, b, r.abs(), w, mu, torch.ones(200, 1, 1))
    cost = lambda p, q: w * (p + q - r.abs()) ** 2 + mu * (p - a) ** 2 + mu * (q - b) ** 2  # noqa: E731
    at = torch.linspace(0, 4, 201)
    lowest = cost(at.reshape(1, -1, 1), at.reshape(1, 1, -1)).flatten(1).amin(1)
    found = cost(x, y).flatten()
    assert bool((x >= 0).all())
    assert bool((y >= 0).all())
    assert float((found - lowest).max()) < 1e-6
    assert float((lowest - found).max()) < 1e-2


def test_the_nearest_pools_are_the_minimum():
    draw = torch.Generator().manual_seed(3)
    total, chi = torch.rand(200, 1, 1, generator=draw), torch.randn(200, 1, 1, generator=draw)
    x, y = nearest(total, chi)
    cost = lambda p, q: (p + q - total) ** 2 + (p - q - chi) ** 2  # noqa: E731
    at = torch.linspace(0, 4, 401)
    lowest = cost(at.reshape(1, -1, 1), at.reshape(1, 1, -1)).flatten(1).amin(1)
    assert float((cost(x, y).flatten() - lowest).max()) < 1e-6
    assert float((lowest - cost(x, y).flatten()).max()) < 1e-3


# ---- pools of a head


def test_pools_of_a_head_add_up():
    """Signs, sum and rates in every voxel; deep in a tissue the table's own values."""
    shape = (24, 20, 16)
    group = torch.full(shape, 8, dtype=torch.int16)
    group[12:] = 9
    group[3:5, 3:5, 3:5] = 16
    chi = torch.where(group == 8, -0.030, torch.where(group == 9, 0.020, -2.0))
    brain = torch.ones(shape, dtype=torch.bool)
    brain[:, 0] = False
    found = pools(chi, group, brain, Grid.of(shape), 3.0)
    torch.testing.assert_close(found.para_ppm + found.dia_ppm, chi * brain)
    assert float(found.para_ppm.min()) >= 0
    assert float(found.dia_ppm.max()) <= 0
    assert float(found.para_ppm[8, 10, 8]) == pytest.approx(0.006, abs=1e-3)
    assert float(found.dia_ppm[8, 10, 8]) == pytest.approx(-0.036, abs=1e-3)
    assert float(found.dia_ppm[18, 10, 8]) == pytest.approx(-0.019, abs=1e-3)
    assert float(found.dia_ppm[3, 3, 3]) == pytest.approx(-2.0)
    assert float(found.r2prime_per_s[18, 10, 8]) == pytest.approx(137 * (0.039 + 0.019), rel=0.02)
    assert float(found.r2_per_s[18, 10, 8]) == pytest.approx(0.65 / 0.085, rel=0.02)
    torch.testing.assert_close(found.r2star_per_s, found.r2_per_s + found.r2prime_per_s)
    assert not found.r2star_per_s[~brain].any()


# ---- bad input


@every
def test_maps_of_another_size_or_unit_are_refused(method):
    local, rate, _, _ = scan()
    with pytest.raises(ValueError, match=r"R2\* has \(4, 4, 4\) voxels"):
        method(local, torch.ones(4, 4, 4))
    with pytest.raises(ValueError, match=r"give it in 1/s"):
        method(local, 0.02 + 1e-3 * rate)
    with pytest.raises(ValueError, match=r"not known anywhere"):
        method(local, torch.full(SHAPE, torch.nan))


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.0}, {"beta": -1.0}, {"decay_3t_per_s_ppm": 0.0}, {"iterations": 0}, {"r2_3t_per_s": -1}],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="ChiSeparation"):
        ChiSeparation(**settings)
    with pytest.raises(ValueError, match="R2StarSeparation"):
        R2StarSeparation(invert=TKD(), decay_3t_per_s_ppm=-1)

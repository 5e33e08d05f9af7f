"""Truncated and damped division, substitution, least squares with streaks taken away, and two-step TV."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_invert import small, sphere

from k2chi.data import Field, Grid, Scan
from k2chi.invert import FANSI, ILSQR, ISWIM, RTS, STAR, TKD, TSVD, Tikhonov
from k2chi.invert.ilsqr import NARROW, WIDE
from k2chi.invert.problem import problem
from k2chi.measure.quality import nrmse
from k2chi.ops import gradient
from k2chi.ops.diffusion import diffusion
from k2chi.ops.linear import Linear
from k2chi.solve.lsqr import lsqr

PASSED = {
    # method, published mean over k-space of D times its inverse, for isotropic voxels
    "TKD 0.1": (TKD(0.1), 0.879),
    "TKD 0.15": (TKD(0.15), 0.820),
    "TKD 0.2": (TKD(0.2), 0.761),
    "TSVD 0.1": (TSVD(0.1), 0.759),
    "TSVD 0.15": (TSVD(0.15), 0.642),
    "TSVD 0.2": (TSVD(0.2), 0.529),
    "Tikhonov 0.01": (Tikhonov(0.01), 0.68),
    "Tikhonov 0.01²": (Tikhonov(0.01**2), 0.96),
}


@pytest.mark.parametrize(("method", "psf"), PASSED.values(), ids=PASSED)
def test_rescaling_divides_by_the_published_loss_of_contrast(method, psf):
    """A box of 80 mm, where sums over k-space are near the integral; odd or even, it must not matter."""
    grid = Grid.of((64, 64, 64))
    mask = torch.ones(grid.shape, dtype=torch.bool)
    ppm = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    local = Field(ppm, mask, grid, Scan((0.01,), 3.0), local=True)
    plain, scaled = replace(method, rescale=False)(local).ppm, method(local).ppm
    assert float((plain * scaled).sum() / scaled.square().sum()) == pytest.approx(psf, abs=0.01)


def test_what_division_leaves_out_is_not_in_the_map():
    """TSVD and TKD agree where |D| > t; inside the cone TSVD has nothing."""
    local = small()
    p = problem(local)
    cone = p.kernel.abs() <= 0.1
    wide = replace(local, mask=torch.ones_like(local.mask))  # so that the answer is not cut at the mask
    p = problem(wide)
    full = p.box.put(torch.ones(p.grid.shape), local.grid.shape)
    assert bool((full == 1).all())
    assert bool(cone.any())
    a, b = (p.spectrum(p.box.take(m(wide).ppm)) for m in (TSVD(0.1, False), TKD(0.1, False)))
    assert a.shape == b.shape
    # what the box cuts off mixes frequencies, so the maps agree outside the cone only in the mean
    outside = p.kernel.abs() > 0.2
    assert float((a - b)[outside].norm() / b[outside].norm()) < 0.2
    inside = p.kernel.abs() < 0.05
    assert float(a[inside].norm() / b[inside].norm()) < 0.6


# ---- least squares


def test_lsqr_solves_small_systems_as_dense_algebra_does():
    """Tall, and wide, where it finds the shortest of all solutions; its misfit is the true one."""
    draw = torch.Generator().manual_seed(1)
    for shape in ((12, 7), (7, 12)):
        m = torch.randn(shape, generator=draw, dtype=torch.float64)
        b = torch.randn(shape[0], generator=draw, dtype=torch.float64)
        a = Linear(lambda x, m=m: m @ x, lambda y, m=m: m.T @ y)
        x, updates, misfits = lsqr(a, b, 50, 1e-12)
        torch.testing.assert_close(x, torch.linalg.pinv(m) @ b, rtol=1e-8, atol=1e-8)
        early, _, told = lsqr(a, b, 3)
        assert told[-1] == pytest.approx(float((m @ early - b).norm() / b.norm()), rel=1e-9)
        assert len(updates) == len(misfits) < 50
        assert all(late <= soon for soon, late in pairwise(misfits))


def test_lsqr_of_nothing_is_nothing():
    a = Linear(lambda x: 2 * x, lambda y: 2 * y)
    x, updates, misfits = lsqr(a, torch.zeros(5), 10)
    assert not x.any()
    assert updates == misfits == ()


def test_diffusion_is_the_gradient_weighted_and_back():
    """On an odd, uneven grid, against the two halves applied one after the other."""
    grid = Grid.of((7, 9, 6), (1.0, 0.7, 2.0))
    draw = torch.Generator().manual_seed(2)
    weight = torch.rand((3, *grid.shape), generator=draw)
    x = torch.randn(grid.shape, generator=draw)
    nabla = gradient(grid)
    torch.testing.assert_close(diffusion(grid, weight)(x), nabla.H(weight * nabla(x)))


# ---- streaks


def test_narrow_and_wide_are_shares_of_directions():
    """|D| stays below them in one and in thirty per cent of all directions."""
    u = np.linspace(0, 1, 1_000_001)
    d = np.abs(1 / 3 - u**2)
    assert (d < NARROW).mean() == pytest.approx(0.01, abs=0.001)
    assert (d < WIDE).mean() == pytest.approx(0.30, abs=0.001)


def noisy(scale=0.01):
    local, truth, distance = sphere()
    noise = scale * torch.randn(local.ppm.shape, generator=torch.Generator().manual_seed(5))
    return replace(local, ppm=(local.ppm + noise) * local.mask), truth * local.mask, distance


def test_ilsqr_takes_streaks_away_and_leaves_the_sphere():
    """Noise of 10 ppb. Least squares alone errs by more than the map without its streaks."""
    local, truth, _ = noisy()
    with_streaks = ILSQR(threshold=1e-6)(local).ppm
    without = ILSQR()(local).ppm
    before, after = (nrmse(x, truth, local.mask) for x in (with_streaks, without))
    assert after < 0.8 * before


@pytest.mark.parametrize("method", [ILSQR(iterations=8), RTS(steps=4, tolerance=0)], ids=["ILSQR", "RTS"])
def test_first_steps_keep_their_degree(method):
    """c times the field gives c times the map; for RTS once α follows, for TV is of first degree."""
    local, c = small(), 4.0
    other = method
    if isinstance(method, RTS):
        other = replace(method, alpha=method.alpha, edge_ppm_per_mm=c * method.edge_ppm_per_mm)
        other = replace(other, alpha=c * method.alpha)
    more, one = other(replace(local, ppm=c * local.ppm)).ppm, c * method(local).ppm
    assert float((more - one).norm() / one.norm()) < 1e-4


def test_rts_fills_the_cone_and_keeps_the_rest():
    """The second step changes k-space inside |D| ≤ δ by far more than outside it."""
    local, _, _ = noisy()
    method = RTS(support=False)
    p = problem(local)
    d, w = p.d, p.weight
    fit = Linear(lambda x: d(x) * w, lambda r: d.H(r * w))
    first, _, _ = lsqr(fit, w * p.ppm, method.steps)
    everywhere = replace(local, support=torch.ones_like(local.mask))
    q = problem(everywhere)
    assert q.grid.shape >= p.grid.shape
    second = method(local).ppm
    ill = p.kernel.abs() <= method.delta
    change = p.spectrum(p.box.take(second) - first * p.support)
    share = float(change[ill].norm() / change.norm())
    assert share > 0.8


# ---- structures


def test_iswim_without_structure_fills_the_cone_with_averages():
    """A level that nothing reaches and no average: the cone is empty, as in TSVD, but for one pass only."""
    local = small()
    none = ISWIM(0.1, level_ppm=1e6, smooth_mm=0.0, passes=1)
    gap = none(local).ppm - TSVD(0.1, rescale=False)(local).ppm
    assert float(gap.abs().max()) < 1e-5


def test_iswim_lowers_the_error_of_division():
    """Noise of 10 ppb, sphere of 0.3 ppm."""
    local, truth, _ = noisy()
    divided, substituted = (nrmse(m(local).ppm, truth, local.mask) for m in (TKD(0.1), ISWIM(0.1)))
    assert substituted < 0.8 * divided


# ---- two levels


def test_star_without_strong_sources_is_its_second_level():
    local = small()
    gentle = FANSI(5e-5, nonlinear=False, iterations=20)
    found = STAR(strong_ppm=50.0, iterations=20)(local)
    assert torch.equal(found.ppm, gentle(local).ppm)


def test_star_maps_strong_sources_first():
    """A sphere of 0.3 ppm counts as strong: better than the gentle level alone.

    Measured error: strong level 14.6 %, gentle 37.5 %, both 37.0 %; the first level moves little where the
    field is right within the source.
    """
    local, truth, _ = noisy(0.002)
    strong, gentle = (FANSI(a, nonlinear=False, iterations=60)(local) for a in (1e-3, 5e-5))
    two = STAR(strong_ppm=0.15, iterations=60)(local)
    p = problem(local, inside=True)
    misfit = [p.misfit(p.d(p.box.take(c.ppm))) for c in (two, strong)]
    assert misfit[0] < 0.8 * misfit[1]
    assert nrmse(two.ppm, truth, local.mask) < nrmse(gentle.ppm, truth, local.mask)

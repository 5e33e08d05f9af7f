"""Combination of echoes: the known field comes back, and its noise is the noise that is reported."""

import dataclasses
from math import tau

import pytest
import torch
from echo_cases import ball, hills_hz, make, to_ppm

from k2chi.field import ROMEO, ComplexFit, WeightedFit
from k2chi.field.noise import noise_std

TE = (0.004, 0.012, 0.020, 0.028)
BOTH = [WeightedFit, ComplexFit]
both = pytest.mark.parametrize("fit", BOTH)


def total(fit, echoes):
    """Unwrap, then fit."""
    return fit(ROMEO()(echoes))


@both
@pytest.mark.parametrize("te", [(0.017,), (0.004, 0.009), TE], ids=len)
def test_known_field_comes_back(fit, te):
    """Without noise, exactly; with any number of echoes."""
    f = hills_hz()
    out = total(fit(), make(f, te, r2star=30.0, mask=ball()))
    torch.testing.assert_close(out.ppm[ball()], to_ppm(f)[ball()], rtol=0, atol=1e-9)
    assert not out.ppm[~ball()].any()
    assert not out.weight[~ball()].any()


@both
def test_intercept_takes_up_a_phase_offset(fit):
    """An offset that was kept, of several rad across the head, leaves the field right but for a constant."""
    f, mask = hills_hz(), ball()
    x, y, z = (
        a * 0.5 for a in torch.meshgrid(*[torch.linspace(-1, 1, n).double() for n in f.shape], indexing="ij")
    )
    e = make(f, TE, offset=0.4 + 3 * x + 2 * y**2 - z, mask=mask)
    out = fit(intercept=True)(e if fit is ComplexFit else ROMEO(mode="individual")(e))
    off = (out.ppm - to_ppm(f))[mask]
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-9)


@both
@pytest.mark.parametrize("intercept", [False, True])
def test_reported_noise_is_the_scatter(fit, intercept):
    """Over twelve draws, with decay and uneven magnitude, within 10 % in each of three zones."""
    f, mask = hills_hz(), ball()
    magnitude = 0.4 + 0.6 * (ball(radius=0.5)).double()
    found = []
    for seed in range(12):
        e = make(f, TE, magnitude=magnitude, r2star=25.0, noise=0.02, seed=seed, mask=mask)
        found.append(total(fit(intercept=intercept), e))
    scatter = torch.stack([o.ppm for o in found]).var(0)
    reported = found[0].noise_ppm
    for zone in (ball(radius=0.4), mask & ~ball(radius=0.5), mask):
        ratio = (scatter[zone].mean() / reported[zone].square().mean()).sqrt()
        assert 0.9 < ratio < 1.1


@pytest.mark.parametrize("weights", ["magnitude", "time", "even"])
def test_other_weights_are_those_of_the_formula(weights):
    """Through the origin f = Σ w φ/(TE) / Σ w; and the noise reported is the scatter, never the least."""
    mask, te = ball(), torch.tensor(TE, dtype=torch.float64)[:, None, None, None]
    found = []
    for seed in range(12):
        e = make(hills_hz(), TE, r2star=35.0, noise=0.02, seed=seed, mask=mask)
        found.append(total(WeightedFit(weights=weights), e))
    unwrapped = ROMEO()(e)
    w = {
        "magnitude": e.signal.abs() * te,
        "time": te.expand(len(TE), *mask.shape),
        "even": torch.ones_like(e.signal.real),
    }
    f = (w[weights] * unwrapped.unwrapped_rad / te).sum(0) / w[weights].sum(0) / tau
    torch.testing.assert_close(found[-1].ppm[mask], to_ppm(f)[mask])
    scatter, reported = torch.stack([o.ppm for o in found]).var(0), found[0].noise_ppm
    for zone in (ball(radius=0.4), mask):
        assert 0.9 < (scatter[zone].mean() / reported[zone].square().mean()).sqrt() < 1.1
    assert (found[-1].noise_ppm > WeightedFit()(unwrapped).noise_ppm)[mask].all()


@pytest.mark.parametrize("weights", ["magnitude", "even"])
def test_noise_of_other_weights_with_an_intercept(weights):
    """The scatter again, now about the mean echo time that those weights give."""
    mask, found = ball(), []
    for seed in range(12):
        e = make(0.3 * hills_hz(), TE, r2star=35.0, noise=0.02, seed=seed, mask=mask)
        found.append(total(WeightedFit(weights=weights, intercept=True), e))
    scatter, reported = torch.stack([o.ppm for o in found]).var(0), found[0].noise_ppm
    assert 0.9 < (scatter[mask].mean() / reported[mask].square().mean()).sqrt() < 1.1


def test_noise_is_measured_past_anatomy():
    """Within 5 % of the truth, with edges, slopes of phase, background, and none of it."""
    for magnitude in (1.0, ball().double(), ball().double() + 0.3):
        e = make(hills_hz(), (0.01,), magnitude=torch.as_tensor(magnitude).double(), noise=0.03)
        assert noise_std(e.signal) == pytest.approx(0.03, rel=0.05)
        assert noise_std(e.signal.conj()) == noise_std(e.signal)
    stripped = torch.where(ball(), e.signal, torch.zeros_like(e.signal))
    assert noise_std(stripped) == pytest.approx(0.03, rel=0.05)


@both
def test_weight_is_one_over_noise(fit):
    """Half the magnitude, half the weight; within 0 and 1."""
    magnitude = 0.5 + 0.5 * ball(radius=0.5).double()
    out = total(fit(), make(0 * hills_hz(), TE, magnitude=magnitude, mask=ball()))
    strong, weak = out.weight[ball(radius=0.5)], out.weight[ball() & ~ball(radius=0.5)]
    torch.testing.assert_close(strong, torch.ones_like(strong))
    torch.testing.assert_close(weak, torch.full_like(weak, 0.5))


@both
def test_echoes_off_the_line_cost_weight(fit):
    """One echo half a turn off its line: weight falls below a half there, and only there."""
    e = make(hills_hz(), TE, mask=ball())
    odd = ball(radius=0.2)
    signal = e.signal.clone()
    signal[2, odd] *= -1
    out = total(fit(), dataclasses.replace(e, signal=signal))
    assert out.weight[odd].max() < 0.5
    assert out.weight[ball() & ~odd].min() > 0.99


def test_complex_fit_mends_a_turn_in_time():
    """A late echo taken a turn wrong: the complex fit does not mind, the weighted fit must."""
    f, mask = hills_hz(), ball()
    e = ROMEO()(make(f, TE, r2star=20.0, mask=mask))
    spoilt = e.unwrapped_rad.clone()
    spoilt[0] += tau * 0.1  # a start that is not the answer
    e = dataclasses.replace(e, unwrapped_rad=spoilt)
    assert (ComplexFit()(e).ppm - to_ppm(f))[mask].abs().max() < 1e-8
    assert (WeightedFit()(e).ppm - to_ppm(f))[mask].abs().min() > 1e-4


def test_complex_fit_unwraps_for_itself():
    """Without unwrapped phase it gives the same field."""
    e = make(hills_hz(), TE, noise=0.01, mask=ball())
    torch.testing.assert_close(ComplexFit()(e).ppm, total(ComplexFit(), e).ppm)


@both
def test_voxels_without_signal_leave_no_hole(fit):
    """NaN inside the mask: still in the mask, no weight, a value like the neighbours'."""
    f, mask = hills_hz(), ball()
    e = make(f, TE, mask=mask)
    signal = e.signal.clone()
    hole = torch.zeros_like(mask)
    hole[20:22, 20:23, 15] = True
    signal[1, hole] = complex("nan")
    out = total(fit(), dataclasses.replace(e, signal=signal))
    assert out.mask.equal(mask)
    assert not out.weight[hole].any()
    assert out.ppm.isfinite().all()
    assert out.noise_ppm.isfinite().all()
    assert out.magnitude.isfinite().all()
    assert (out.ppm - to_ppm(f))[hole].abs().max() < 0.05


def test_magnitude_and_missing_mask():
    """Magnitude is the root sum of squares; without a mask all voxels with signal count."""
    e = make(hills_hz(), TE, r2star=40.0, magnitude=2.0)
    out = total(WeightedFit(), e)
    torch.testing.assert_close(out.magnitude, e.signal.abs().square().sum(0).sqrt())
    assert out.mask.all()


def test_what_cannot_be_fitted_is_refused():
    """Each message says what to do."""
    e = make(hills_hz(), (0.01,), mask=ball())
    with pytest.raises(ValueError, match="unwrap first"):
        WeightedFit()(e)
    with pytest.raises(ValueError, match="two echoes"):
        total(WeightedFit(intercept=True), e)
    with pytest.raises(ValueError, match="positive distance"):
        WeightedFit(misfit_rad=0)
    with pytest.raises(ValueError, match="1 to 50"):
        ComplexFit(iterations=0)
    silent = dataclasses.replace(e, signal=torch.zeros_like(e.signal))
    with pytest.raises(ValueError, match="no voxel of the mask has signal"):
        total(WeightedFit(), silent)

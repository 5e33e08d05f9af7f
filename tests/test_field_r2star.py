"""R2*: exact decay comes back; ARLO within the error of Simpson's rule; no pull of the noise floor."""

import dataclasses
from typing import get_args

import pytest
import torch
from echo_cases import ball, hills_hz, make

from k2chi.field import ARLO, LogLinear, NonlinearR2Star, R2Star, t2star_s

EVEN = (0.004, 0.012, 0.020, 0.028)
F = hills_hz()


@pytest.mark.parametrize("method", [LogLinear(), NonlinearR2Star(noise=0.0, tolerance=1e-12)], ids=str)
def test_fits_are_exact(method):
    """Uneven echoes, decay that differs from voxel to voxel."""
    r2star = 5 + 100 * torch.rand(F.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for te in (EVEN, (0.003, 0.007, 0.020), (0.005, 0.01)):
        torch.testing.assert_close(method(make(F, te, r2star=r2star)), r2star, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("rate", "error"), [(50.0, 2e-4), (200.0, 0.027)])
def test_arlo_errs_by_simpsons_rule(rate, error):
    """R2*·Δ of 0.4 and 1.6 with Δ = 8 ms: at most 0.02 % and 2.7 %, and not much less."""
    found = ARLO()(make(F, EVEN, r2star=rate)).mean() / rate - 1
    assert 0.5 * error < abs(found) < 1.05 * error


def test_arlo_is_the_published_formula():
    """By hand, for magnitudes that do not decay exponentially: areas by Simpson's rule, and drops."""
    e = make(F, EVEN)
    size = [1.0, 0.7, 0.6, 0.3]
    s = [0.008 / 3 * (1.0 + 4 * 0.7 + 0.6), 0.008 / 3 * (0.7 + 4 * 0.6 + 0.3)]
    d = [0.4, 0.4]
    sd = s[0] * d[0] + s[1] * d[1]
    hand = (sd + 0.008 / 3 * (d[0] ** 2 + d[1] ** 2)) / (s[0] ** 2 + s[1] ** 2 + 0.008 / 3 * sd)
    scaled = dataclasses.replace(
        e, signal=e.signal * torch.tensor(size, dtype=torch.float64).reshape(-1, 1, 1, 1)
    )
    assert float(ARLO()(scaled).mean()) == pytest.approx(hand, rel=1e-9)


@pytest.mark.parametrize("method", [m() for m in get_args(R2Star)], ids=str)
def test_noise_and_silence_stay_sensible(method):
    """No NaN, nothing negative, zero without signal, and the mean right at SNR 50."""
    e = make(F, EVEN, r2star=30.0, noise=0.02)
    e.signal[:, :4] = 0
    e.signal[1, 5, 5, 5] = complex("nan")
    out = method(e)
    assert out.isfinite().all()
    assert (out >= 0).all()
    assert not out[:4].any()
    assert float(out[6:].mean()) == pytest.approx(30.0, rel=0.01)
    assert (method(dataclasses.replace(e, signal=e.signal.flip(0))) == 0).all()  # growth is no decay


@pytest.mark.parametrize(
    ("rate", "noise", "error"), [(200.0, 0.01, 0.01), (200.0, 0.02, 0.025), (100.0, 0.05, 0.012)]
)
def test_no_bias_from_the_noise_floor(rate, noise, error):
    """SNR 100, 50 and 20 at TE 0: the last echoes are noise, which pulls other fits down."""
    e = make(F, EVEN, r2star=rate, noise=noise)
    assert float(LogLinear()(e).median()) < rate * (1 - 5 * error)
    assert float(NonlinearR2Star()(e).median()) == pytest.approx(rate, rel=error)
    blind = float(NonlinearR2Star(noise=0.0)(e).median())
    assert blind < rate * (1 - 3 * error)  # it is the floor that does it


def test_scatter_is_as_small_as_it_can_be():
    """The bound of Cramér and Rao at SNR 50, for a decay that stays above the noise."""
    rate, noise = 30.0, 0.02
    te = torch.tensor(EVEN, dtype=torch.float64)
    s = torch.exp(-rate * te)
    slopes = torch.stack([s, -te * s])  # by log S₀ and R2*
    bound = noise * float(torch.linalg.inv(slopes @ slopes.T)[1, 1].sqrt())
    found = NonlinearR2Star()(make(F, EVEN, r2star=rate, noise=noise))
    assert float(found.mean()) == pytest.approx(rate, rel=0.002)
    assert float(found.std()) == pytest.approx(bound, rel=0.02)


def test_scale_changes_nothing_and_the_mask_is_kept():
    """Signal in any units; zero outside the mask."""
    e = make(F, EVEN, r2star=100.0, noise=0.02, mask=ball())
    out = NonlinearR2Star()(e)
    assert not out[~ball()].any()
    loud = dataclasses.replace(e, signal=3000 * e.signal)
    torch.testing.assert_close(NonlinearR2Star()(loud), out, rtol=1e-6, atol=1e-6)
    single = dataclasses.replace(e, signal=e.signal.to(torch.complex64))
    torch.testing.assert_close(NonlinearR2Star()(single).double(), out, rtol=1e-3, atol=1e-2)


def test_t2star_is_one_over_r2star():
    """Where no decay was seen there is no time."""
    rate = torch.tensor([[50.0, 0.0], [-3.0, float("nan")]], dtype=torch.float64)
    assert t2star_s(rate).tolist() == [[0.02, 0.0], [0.0, 0.0]]


def test_what_cannot_be_measured_is_refused():
    """One echo for either; two, or uneven ones, for ARLO."""
    with pytest.raises(ValueError, match="at least 2 echoes"):
        LogLinear()(make(F, (0.01,)))
    with pytest.raises(ValueError, match="at least 3 echoes"):
        ARLO()(make(F, (0.01, 0.02)))
    with pytest.raises(ValueError, match="evenly spaced"):
        ARLO()(make(F, (0.01, 0.02, 0.04)))
    with pytest.raises(ValueError, match="at least 2 echoes"):
        NonlinearR2Star()(make(F, (0.01,)))
    with pytest.raises(ValueError, match="choose 0 or more"):
        NonlinearR2Star(noise=-1.0)
    with pytest.raises(ValueError, match="1 to 1000 iterations"):
        NonlinearR2Star(iterations=0)

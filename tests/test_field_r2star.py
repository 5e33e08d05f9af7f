"""R2*: exact decay comes back; ARLO within the error of Simpson's rule."""

import dataclasses

import pytest
import torch
from echo_cases import hills_hz, make

from k2chi.field import ARLO, LogLinear

EVEN = (0.004, 0.012, 0.020, 0.028)
F = hills_hz()


def test_log_linear_is_exact():
    """Uneven echoes, decay that differs from voxel to voxel."""
    r2star = 5 + 100 * torch.rand(F.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for te in (EVEN, (0.003, 0.007, 0.020), (0.005, 0.01)):
        torch.testing.assert_close(LogLinear()(make(F, te, r2star=r2star)), r2star, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("rate", "error"), [(50.0, 2e-4), (200.0, 0.027)])
def test_arlo_errs_by_simpsons_rule(rate, error):
    """R2*·Δ of 0.4 and 1.6 with Δ = 8 ms: at most 0.02 % and 2.7 %, and not much less."""
    found = ARLO()(make(F, EVEN, r2star=rate)).mean() / rate - 1
    assert 0.5 * error < abs(found) < 1.05 * error


@pytest.mark.parametrize("method", [LogLinear(), ARLO()])
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


def test_what_cannot_be_measured_is_refused():
    """One echo for either; two, or uneven ones, for ARLO."""
    with pytest.raises(ValueError, match="at least 2 echoes"):
        LogLinear()(make(F, (0.01,)))
    with pytest.raises(ValueError, match="at least 3 echoes"):
        ARLO()(make(F, (0.01, 0.02)))
    with pytest.raises(ValueError, match="evenly spaced"):
        ARLO()(make(F, (0.01, 0.02, 0.04)))

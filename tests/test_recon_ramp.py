"""Readouts on gradient ramps: against images whose transform is known at any place."""

import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps, trapezoid

from k2chi.ops.fourier import fft
from k2chi.recon.assemble import Assemble
from k2chi.recon.ramp import RampInverse

POINTS, SAMPLES = 128, 160
HILLS = ((1.0, -20.0, 2.0), (0.7 + 0.4j, 3.0, 4.0), (-0.5j, 17.5, 2.5))  # height, place, width [pixels]


def image():
    """Gaussian hills: within the middle half of the field of view, and without high frequencies."""
    x = torch.arange(POINTS, dtype=torch.float64) - POINTS // 2
    return sum(h * torch.exp(-((x - c) ** 2) / (2 * w**2)) for h, c, w in HILLS)


def signal(k):
    """Their continuous transform at k [1/field of view], scaled like an orthonormal one."""
    f = torch.as_tensor(k, dtype=torch.float64) / POINTS
    hills = [
        h * w * (2 * torch.pi) ** 0.5 * torch.exp(-2 * (torch.pi * w * f) ** 2 - 2j * torch.pi * f * c)
        for h, c, w in HILLS
    ]
    return sum(hills) / POINTS**0.5


def off(a):
    return float((a - image()).norm() / image().norm())


def test_the_image_is_exact_and_linear_interpolation_is_not():
    place = trapezoid(SAMPLES, POINTS)
    exact = RampInverse()(place, POINTS) @ signal(place)
    grid = np.arange(POINTS) - POINTS // 2
    linear = torch.from_numpy(np.interp(grid, place, signal(place).numpy()))
    k = torch.arange(POINTS) - POINTS // 2
    x = torch.arange(POINTS) - POINTS // 2
    interpolated = torch.exp(2j * torch.pi * (x[:, None] * k).double() / POINTS) @ linear / POINTS**0.5
    assert off(exact) < 1e-4
    assert off(interpolated) > 100 * off(exact)  # 8 % of the image here, against 2e-6


def test_phase_survives():
    place = trapezoid(SAMPLES, POINTS)
    exact = RampInverse()(place, POINTS) @ signal(place)
    bright = image().abs() > 0.1
    assert float(torch.angle(exact * image().conj())[bright].abs().max()) < 1e-3


def test_even_samples_give_the_transform():
    even = tuple(float(k) for k in range(-POINTS // 2, POINTS // 2))
    m = RampInverse(1e-12)(even, POINTS)
    assert torch.allclose(m @ m.mH, torch.eye(POINTS, dtype=m.dtype), atol=1e-9)
    assert off(m @ signal(even)) < 1e-6


def test_noise_stays_what_it_was():
    m = RampInverse()(trapezoid(SAMPLES, POINTS), POINTS)[POINTS // 4 : -POINTS // 4]
    assert 0.8 < float(m.abs().square().sum(1).mean()) < 1.3


def test_order_of_the_samples_does_not_matter():
    place = trapezoid(SAMPLES, POINTS)
    forward, backward = RampInverse()(place, POINTS), RampInverse()(place[::-1], POINTS)
    assert torch.allclose(forward.flip(1), backward, atol=1e-8)


def test_a_scan_on_ramps_is_a_scan():
    """Ramp samples and reversed readouts through the whole assembly."""
    shape = (32, 12, 4)
    plan = Plan(position=trapezoid(80, 64), shots=3)
    maps, truth = smooth_maps(2, shape), picture(shape)
    k = Assemble()(raw_of(truth[None], maps, plan), 0)
    assert float((k.data[0] - fft(truth * maps)).norm() / fft(truth * maps).norm()) < 0.02


def test_odd_positions_are_refused():
    with pytest.raises(ValueError, match="same place"):
        RampInverse()((0.0, 0.0, 1.0), 4)
    with pytest.raises(ValueError, match="steps"):
        RampInverse()((-9.0, 0.0, 9.0), 8)
    with pytest.raises(ValueError, match="strength"):
        RampInverse(0)

"""Echoes with known offset, field, decay and noise, on odd and uneven grids."""

from math import tau

import torch

from k2chi.data import Echoes, Grid, Scan
from k2chi.units import hz_per_ppm

SHAPE, EDGE = (37, 42, 31), (1.1, 0.9, 1.6)


def axes(shape=SHAPE):
    """Coordinates from −1 to 1 along each axis."""
    return torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")


def ball(shape=SHAPE, radius=0.9):
    """True inside an ellipsoid of this share of the array."""
    return sum(a.square() for a in axes(shape)) < radius**2


def hills_hz(shape=SHAPE, top=120.0):
    """A smooth field [Hz] with two hills and a slope; zero mean over the ball."""
    x, y, z = axes(shape)
    f = top * torch.exp(-((x - 0.2) ** 2 + (y - 0.3) ** 2 + (z + 0.1) ** 2) / 0.15)
    f = f - 0.6 * top * torch.exp(-((x + 0.4) ** 2 + (y + 0.3) ** 2 + z**2) / 0.2) + 20 * z + 15 * x
    return f - f[ball(shape)].mean()


def make(field_hz, te_s, offset=0.0, r2star=0.0, magnitude=1.0, noise=0.0, seed=0, mask=None, **scan):
    """Echoes of a field [Hz]; `noise` is the standard deviation of real and of imaginary part."""
    grid = Grid.of(tuple(field_hz.shape), EDGE)
    draw = torch.Generator().manual_seed(seed)
    signal = []
    for t in te_s:
        s = magnitude * torch.exp(-r2star * t * torch.ones_like(field_hz))
        s = torch.polar(s, offset + tau * field_hz * t)
        signal.append(s + noise * torch.view_as_complex(torch.randn(*s.shape, 2, generator=draw).to(s.real)))
    return Echoes(torch.stack(signal), grid, Scan(tuple(te_s), 3.0, **scan), mask)


def to_ppm(field_hz):
    """Hz to ppm at the 3 T of `make`."""
    return field_hz / hz_per_ppm(3.0)

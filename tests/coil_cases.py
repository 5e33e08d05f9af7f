"""Coil images of an ellipsoid of known field: loops around it by Biot–Savart, noise that they share."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import cos, pi, sin, tau

import torch

from k2chi.data import Coils, Grid, Scan
from k2chi.units import hz_per_ppm

SHAPE, EDGE = (27, 32, 24), (6.8, 6.0, 8.2)  # odd and even, uneven, 184 × 192 × 197 mm


def axes(shape=SHAPE):
    """Coordinates from −1 to 1 along each axis."""
    return torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")


def head(shape=SHAPE, radius=0.85):
    """True inside an ellipsoid of this share of the array."""
    return sum(a.square() for a in axes(shape)) < radius**2


def field_hz(shape=SHAPE, top=60.0):
    """Two hills and a slope."""
    x, y, z = axes(shape)
    f = top * torch.exp(-((x - 0.2) ** 2 + (y - 0.3) ** 2 + (z + 0.1) ** 2) / 0.15)
    f = f - 0.6 * top * torch.exp(-((x + 0.4) ** 2 + (y + 0.3) ** 2 + z**2) / 0.2) + 20 * z + 15 * x
    return f - f[head(shape)].mean()


def pulse_rad(shape=SHAPE):
    """Phase of the radio pulse: a bowl, as at high field."""
    x, y, z = axes(shape)
    return 0.4 + 1.2 * (x**2 + y**2) + 0.5 * z - 0.4 * x * y


@cache
def loops(count, shape=SHAPE, edge=EDGE, wave_mm=260.0):
    """Sensitivity Bx − iBy of loops on three rings about the head, with the phase of a wave as at 3 T."""
    half = [n * e / 2 for n, e in zip(shape, edge, strict=True)]
    at = torch.stack([a * h for a, h in zip(axes(shape), half, strict=True)], -1)
    maps = []
    for c in range(count):
        turn, ring = tau * (c + 0.35 * (c % 3)) / count, (c % 3) - 1
        out = torch.tensor([cos(turn), sin(turn), 0.0], dtype=torch.float64)
        side = torch.tensor([-sin(turn), cos(turn), 0.0], dtype=torch.float64)
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        middle = out * torch.tensor([1.25 * half[0], 1.25 * half[1], 0.0]) + up * (0.6 * ring * half[2])
        b = torch.zeros(*shape, 3, dtype=torch.float64)
        for k in range(16):
            a0, a1 = tau * k / 16, tau * (k + 1) / 16
            p = middle + 45 * (side * cos((a0 + a1) / 2) + up * sin((a0 + a1) / 2))
            step = 45 * (side * (cos(a1) - cos(a0)) + up * (sin(a1) - sin(a0)))
            r = at - p
            b += torch.linalg.cross(step.expand_as(r), r) / r.norm(dim=-1, keepdim=True) ** 3
        away = (at - middle).norm(dim=-1)
        maps.append(
            torch.complex(b[..., 0], -b[..., 1]) * torch.polar(torch.ones_like(away), -tau * away / wave_mm)
        )
    s = torch.stack(maps)
    return s / s.abs().square().sum(0).sqrt()[head(shape)].mean()


@dataclass
class Case:
    """Coil images and what they were made of."""

    coils: Coils
    maps: torch.Tensor
    field_hz: torch.Tensor
    mask: torch.Tensor
    covariance: torch.Tensor
    clean: torch.Tensor


def make(
    te_s=(0.005, 0.010, 0.015),
    count=8,
    noise=0.0,
    shape=SHAPE,
    edge=EDGE,
    r2star=20.0,
    shared=0.5,
    samples=True,
    masked=True,
    seed=0,
    dtype=torch.complex64,
    **scan,
):
    """An ellipsoid of magnitude about one; `noise` is that of one coil, real and imaginary part together."""
    draw = torch.Generator().manual_seed(seed)
    f, mask, maps = field_hz(shape), head(shape), loops(count, shape, edge)
    x, y, z = axes(shape)
    m = mask * (1.0 + 0.3 * torch.cos(5 * x) * torch.cos(4 * y + z))
    image = torch.stack(
        [torch.polar(m * torch.exp(torch.tensor(-r2star * t)), pulse_rad(shape) + tau * f * t) for t in te_s]
    )
    couple = torch.randn(count, count, generator=torch.Generator().manual_seed(99)) / count**0.5
    mix = torch.eye(count) + shared * couple + 0j  # the same coils for every seed
    mix = mix * torch.linspace(0.6, 1.6, count)[:, None]
    mix = mix.to(torch.complex128)

    def grain(*n):
        white = torch.view_as_complex(torch.randn(count, *n, 2, generator=draw, dtype=torch.float64)) / 2**0.5
        return torch.tensordot(mix, white, 1)

    clean = image[:, None] * maps
    signal = clean.clone()
    if noise:
        for s in signal:
            s += noise * grain(*shape)
    scout = noise * grain(4000) if noise and samples else None
    coils = Coils(
        signal.to(dtype),
        Grid.of(shape, edge),
        Scan(te_s, 3.0, **scan),
        mask if masked else None,
        None if scout is None else scout.to(dtype),
    )
    return Case(coils, maps, f, mask, noise**2 * mix @ mix.mH, clean)


def to_ppm(f):
    """Hz to ppm at the 3 T of `make`."""
    return f / hz_per_ppm(3.0)


def vortices(phasor, mask):
    """How many closed loops of four neighbours inside the mask turn by a whole turn."""
    phase, found = phasor.angle(), 0
    for a, b in ((0, 1), (0, 2), (1, 2)):

        def corner(x, i, j, a=a, b=b):
            return x.narrow(a, i, x.shape[a] - 1).narrow(b, j, x.shape[b] - 1)

        ring = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
        inside = torch.stack([corner(mask, *p) for p in ring]).all(0)
        steps = [corner(phase, *q) - corner(phase, *p) for p, q in pairwise(ring)]
        turn = sum(s - tau * torch.round(s / tau) for s in steps)
        found += int(((turn.abs() > pi) & inside).sum())
    return found

"""HARPERELLA: harmonic fields vanish, a sphere's field stays, turns change nothing."""

from dataclasses import replace
from math import tau

import numpy as np
import pytest
import torch
from spheres import positions_mm, sphere_field

from k2chi import units
from k2chi.data import Echoes, Field, Grid, Scan
from k2chi.invert import TKD
from k2chi.joint import HARPERELLA

SCAN = Scan((0.004, 0.009), 3.0)
METHOD = HARPERELLA()


def scene(b0=(0.0, 0.0, 1.0), chi=0.3, air=9.4):
    """A sphere in a ball-shaped mask, air outside it: total and local field, distance from the sphere."""
    grid = Grid.of((42, 44, 36), (1.2, 1.0, 1.5), b0)
    near, distance = sphere_field(grid, 6.0, (2.0, -3.0, 1.5))
    far, _ = sphere_field(grid, 5.0, (0.0, 27.0, 0.0))
    mask = torch.from_numpy(np.sqrt(np.square(positions_mm(grid)).sum(0)) < 18)
    total = Field((chi * near + air * far).float() * mask, mask, grid, SCAN)
    return total, (chi * near).float(), distance


def demeaned(x):
    return x - x.mean()


def test_a_background_vanishes():
    """Air alone: what is left of its field. Measured: 0.3 %."""
    total, _, _ = scene(chi=0.0)
    local = METHOD.local(total)
    inside = local.mask
    assert float(local.ppm[inside].norm()) < 0.01 * float(demeaned(total.ppm[inside]).norm())


@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), (0.3, -0.4, 0.85)])
def test_the_field_of_a_sphere_inside_stays(b0):
    """What it loses is what is smooth over the mask. Measured: 0.54 of the field's norm."""
    total, truth, _ = scene(b0)
    local = METHOD.local(total)
    inside = local.mask
    error = demeaned(local.ppm[inside]) - demeaned(truth[inside])
    assert float(error.norm()) < 0.60 * float(demeaned(truth[inside]).norm())
    assert local.local
    assert torch.equal(local.support, total.mask)


def test_wrapped_echoes_give_the_map_of_the_field():
    """The phase of both echoes wraps; contrast of the sphere after the inversion."""
    total, _, distance = scene()
    s = [units.rad_per_ppm(SCAN.b0_tesla, te) for te in SCAN.te_s]
    signal = torch.stack([torch.polar(torch.ones_like(total.ppm), k * total.ppm) for k in s])
    echoes = Echoes(signal, total.grid, SCAN, total.mask)
    chi = METHOD(echoes).ppm
    contrast = chi[distance < 5].mean() - chi[total.mask & (distance > 8)].mean()
    assert 0.70 < float(contrast) / 0.3 < 1.1


def test_whole_turns_change_nothing():
    total, _, _ = scene()
    n = torch.randint(-3, 4, total.ppm.shape, generator=torch.Generator().manual_seed(0))
    turn = tau / units.rad_per_ppm(SCAN.b0_tesla, SCAN.te_s[0])
    method = HARPERELLA(iterations=10, invert=TKD())
    one, other = method(total).ppm, method(replace(total, ppm=total.ppm + n * turn)).ppm
    assert float((one - other).norm() / one.norm()) < 2e-2  # measured 5e-3: single precision
    half = method(replace(total, ppm=total.ppm + n * turn / 2)).ppm
    assert float((one - half).norm() / one.norm()) > 0.5


def test_what_cannot_work_is_refused():
    total, _, _ = scene()
    signal = torch.ones(2, *total.grid.shape, dtype=torch.complex64)
    with pytest.raises(ValueError, match="mask"):
        HARPERELLA()(Echoes(signal, total.grid, SCAN))
    for bad in ({"radius_mm": 0.0}, {"iterations": 0}, {"reliable": 1.0}, {"margin_mm": -1.0}):
        with pytest.raises(ValueError, match="HARPERELLA"):
            HARPERELLA(**bad)

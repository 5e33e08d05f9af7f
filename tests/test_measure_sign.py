"""The sign of the phase, on fields written down and on digital heads at 3 T and 7 T."""

import dataclasses

import pytest
import torch
from spheres import sphere_field

from k2chi.data import Field, Grid, Scan
from k2chi.io.echoes import conjugate
from k2chi.measure.sign import phase_sign
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, box
from k2chi.pipeline import Pipeline

GRID = Grid.of((64, 64, 56), (2.0, 2.0, 2.0))
SCAN = Scan((0.02,), 3.0)
NUCLEI = (
    (20.0, 10.0, 0.0),
    (-20.0, 10.0, 0.0),
    (12.0, -15.0, 14.0),
    (-12.0, -15.0, 14.0),
    (0.0, 24.0, -16.0),
)


def ball():
    """A round brain with iron spheres that are dark, and an air sphere below its front."""
    _, distance = sphere_field(GRID, 10.0)
    mask = distance < 50
    magnitude = torch.ones(GRID.shape)
    local = 0.002 * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    for centre in NUCLEI:
        field, away = sphere_field(GRID, 5.0, centre)
        local = local + 0.15 * field
        magnitude[away < 5] = 0.6
    air, _ = sphere_field(GRID, 12.0, (0.0, 35.0, -55.0))
    return (
        Field(local * mask, mask, GRID, SCAN, local=True),
        Field((local + 9.4 * air) * mask, mask, GRID, SCAN),
        magnitude,
    )


def negated(field):
    return dataclasses.replace(field, ppm=-field.ppm)


def test_every_trait_points_the_same_way():
    """Iron is dark and positive, air raises the field: each is seen alone, and turns with the sign."""
    local, total, magnitude = ball()
    sign = phase_sign(local, total, magnitude)
    assert min(sign.dark, sign.skew, sign.air) > 0.3
    assert sign.value == 1
    other = phase_sign(negated(local), negated(total), magnitude)
    assert other.value == -1
    assert other.evidence == pytest.approx(-sign.evidence, abs=1e-3)
    assert "turned round" in str(other)


def test_r2star_takes_the_place_of_magnitude():
    local, total, magnitude = ball()
    decay = 20.0 + 50 * (magnitude < 0.9)
    sign = phase_sign(local, total, magnitude=torch.ones_like(magnitude), r2star_per_s=decay)
    assert sign.dark > 0.3


def test_noise_has_no_sign():
    """Without structure the phase is left as it is, and that is said."""
    local, _, magnitude = ball()
    noise = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(1)) * local.mask
    sign = phase_sign(dataclasses.replace(local, ppm=0.01 * noise), None, torch.ones_like(magnitude))
    assert not sign.sure
    assert sign.value == 1
    assert "not certain" in str(sign)


def test_fine_and_anisotropic_voxels():
    """Averaging to 2 mm keeps the answer."""
    grid = Grid.of((96, 96, 40), (1.0, 1.0, 2.4))
    field, away = sphere_field(grid, 5.0, (8.0, 4.0, 0.0))
    _, centre = sphere_field(grid, 5.0)
    mask = centre < 44
    local = Field(0.2 * field * mask, mask, grid, SCAN, local=True)
    assert phase_sign(local, None, 1 - 0.5 * (away < 5)).value == 1
    assert phase_sign(negated(local), None, 1 - 0.5 * (away < 5)).value == -1


@pytest.mark.parametrize(
    ("b0", "te", "turn"), [(3.0, (0.006, 0.014, 0.022), 1), (7.0, (0.004, 0.012), -1), (3.0, (0.030,), -1)]
)
def test_digital_heads(b0, te, turn):
    """From wrapped phase, with a mask that the chain finds; −1: phase as the other vendors write it."""
    echoes = GRE(te, b0, fine_mm=0, seed=1)(DigitalHead(seed=1), box((3.0, 3.0, 3.0))).echoes
    maps = Pipeline()(echoes if turn > 0 else conjugate(echoes), "local")
    sign = phase_sign(maps.local, maps.total, maps.magnitude, maps.r2star_per_s)
    assert sign.sure
    assert sign.value == turn

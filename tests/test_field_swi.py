"""SWI: a closed-form vein gets dark, and only on the right side of phase."""

import dataclasses
from math import cos, pi, radians, sin, tau

import pytest
import torch
from echo_cases import make

from k2chi.data import Echoes, Field, Grid, Scan
from k2chi.field import ROMEO, SWI, minimum_intensity_projection
from k2chi.field.swi import phase_mask
from k2chi.units import hz_per_ppm

SHAPE = (48, 46, 24)
TE = (0.008, 0.016, 0.024)
RADIUS_MM = 1.6


def vein(tilt_deg=20.0, chi_ppm=0.4, noise=0.02, turns=3.0):
    """A paramagnetic cylinder along z, B0 tilted by `tilt_deg` towards x, and a smooth background field.

    Returns the echoes, a mask of the vein's core and one of the tissue beyond its field.
    """
    grid = Grid.of(SHAPE, (0.8, 0.8, 1.6), (sin(radians(tilt_deg)), 0.0, cos(radians(tilt_deg))))
    at = [(torch.arange(n).double() - n / 2) * v for n, v in zip(SHAPE, grid.voxel_mm, strict=True)]
    x, y, z = torch.meshgrid(*at, indexing="ij")
    rho2 = (x**2 + y**2).clamp_min(1e-6)
    inside = rho2 < RADIUS_MM**2
    s2 = sin(radians(tilt_deg)) ** 2
    outer = chi_ppm / 2 * RADIUS_MM**2 / rho2 * s2 * (x**2 - y**2) / rho2
    ppm = torch.where(inside, chi_ppm / 6 * (3 * (1 - s2) - 1), outer)
    hz = ppm * hz_per_ppm(3.0) + turns / TE[-1] * (x / 40 + (y / 25) ** 2 + z / 60)
    e = make(hz, TE, magnitude=torch.where(inside, 0.97, 1.0).double(), r2star=20.0, noise=noise)
    return dataclasses.replace(e, grid=grid), rho2 < 1.0, (rho2 > 25) & (rho2 < 144)


def contrast(image, core, around):
    """How far the core lies below what is around it, in standard deviations of that."""
    return float((image[around].mean() - image[core].mean()) / image[around].std())


@pytest.mark.parametrize("unwrapped", [True, False])
def test_a_vein_gets_dark(unwrapped):
    """Its contrast is more than twice that of the magnitude, from unwrapped phase or by homodyne filter."""
    e, core, around = vein()
    if unwrapped:
        e = ROMEO()(e)
    magnitude = SWI(power=0)(e)
    torch.testing.assert_close(magnitude, e.signal.abs().square().sum(0).sqrt())
    swi = SWI()(e)
    assert swi[core].mean() < 0.75 * magnitude[core].mean()
    assert contrast(swi, core, around) > 2 * contrast(magnitude, core, around)
    assert float((swi[around] / magnitude[around]).mean()) > 0.8  # tissue keeps its brightness


def test_the_sign_of_phase_matters():
    """With the scanner's other sign the vein stays bright, unless the other side is made dark."""
    e, core, around = vein(noise=0.0)
    wrong = dataclasses.replace(e, signal=e.signal.conj())
    assert contrast(SWI()(wrong), core, around) < 0.5 * contrast(SWI()(e), core, around)
    assert (SWI()(wrong) / SWI(power=0)(wrong))[core].min() > 0.99
    torch.testing.assert_close(SWI(darkens="diamagnetic")(wrong), SWI()(e))
    both = SWI(darkens="both")(e)
    assert bool((both <= SWI()(e) + 1e-12).all() and (both <= SWI(darkens="diamagnetic")(e) + 1e-12).all())


def test_a_vein_across_b0_is_dark_beside_itself():
    """The field inside is lower, and raised along B0 next to it: the mask follows the field, not χ."""
    e, core, _ = vein(tilt_deg=90.0, noise=0.0, turns=0.0)
    f = SWI()(e) / SWI(power=0)(e)
    assert f[core].min() > 0.99
    x, y = SHAPE[0] // 2, SHAPE[1] // 2
    assert f[x + 3, y, 12] < 0.9 < f[x, y + 3, 12]  # along B0 and across


def test_phase_mask_is_linear():
    """1 below zero, one half at a quarter turn, 0 from half a turn."""
    phase = torch.tensor([-pi, -1.0, 0.0, pi / 2, pi, 5.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(phase_mask(phase, "paramagnetic"), expected)


def test_a_local_field_is_taken_as_it_is():
    """SWI = M (1 − φ/π)⁴ with φ = 2π · field · TE of the last echo, or of the echo time asked for."""
    e, core, _ = vein(noise=0.0, turns=0.0)
    ppm = 0.05 * core.double()
    local = Field(ppm, torch.ones_like(core), e.grid, e.scan, local=True)
    for te, method in ((TE[-1], SWI()), (0.01, SWI(te_s=0.01))):
        f = (1 - 2 * 0.05 * hz_per_ppm(3.0) * te) ** 4
        ratio = (method(e, local) / SWI(power=0)(e))[core]
        torch.testing.assert_close(ratio, torch.full_like(ratio, f))


def test_whole_turns_and_a_constant_change_nothing():
    """Neither a phase offset that all voxels share, nor a smooth field that is even on the filter's scale."""
    e, _, _ = vein(turns=0.0)
    turned = dataclasses.replace(e, signal=e.signal * torch.polar(*torch.tensor([1.0, 2.0]).double()))
    torch.testing.assert_close(SWI()(turned), SWI()(e))
    one, other = (dataclasses.replace(ROMEO()(e), mask=torch.ones(SHAPE).bool()) for _ in range(2))
    other = dataclasses.replace(other, unwrapped_rad=other.unwrapped_rad + tau)
    torch.testing.assert_close(SWI()(one), SWI()(other), rtol=1e-9, atol=1e-9)


def test_silence_and_nan_stay_zero():
    """No NaN, zero without signal, and no dark rim inside the mask beside it."""
    e, _, _ = vein(noise=0.0, turns=1.0)
    e.signal[:, :5] = 0
    e.signal[1, 30, 30, 10] = complex("nan")
    for echoes in (e, ROMEO()(e)):
        out = SWI()(echoes)
        assert out.isfinite().all()
        assert not out[:5].any()
        assert (out / SWI(power=0)(echoes))[5:9].min() > 0.3


def test_minimum_intensity_projection_by_hand():
    """Slabs along the axis nearest to B0, in mm, cut off at the ends; voxels outside the mask count not."""
    grid = Grid.of((4, 9, 5), (1.0, 2.0, 1.0), (0.1, 0.9, 0.3))
    image = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for mm, before, after in ((2.0, 0, 0), (6.0, 1, 1), (8.5, 2, 1), (100.0, 25, 24)):
        found = minimum_intensity_projection(image, mm, grid)
        for j in range(9):
            hand = image[:, max(0, j - before) : j + after + 1].amin(1)
            torch.testing.assert_close(found[:, j], hand, rtol=0, atol=0)
    mask = image > 0.5
    found = minimum_intensity_projection(image, 6.0, grid, mask)
    assert (found[mask] > 0.5).all()
    torch.testing.assert_close(found[~mask], image[~mask], rtol=0, atol=0)


def test_bad_input_is_refused():
    """Each message says what to choose."""
    grid = Grid.of((4, 4, 4))
    with pytest.raises(ValueError, match="choose 0 to 16"):
        SWI(power=-1)
    with pytest.raises(ValueError, match="above 0 mm"):
        SWI(highpass_mm=0.0)
    with pytest.raises(ValueError, match="in seconds"):
        SWI(te_s=20.0)
    with pytest.raises(ValueError, match="has no thickness"):
        minimum_intensity_projection(torch.zeros(4, 4, 4), 0.0, grid)
    with pytest.raises(ValueError, match="the grid has"):
        minimum_intensity_projection(torch.zeros(4, 4, 5), 2.0, grid)
    single = Echoes(torch.ones(1, 4, 4, 4, dtype=torch.complex64), grid, Scan((0.01,), 3.0))
    torch.testing.assert_close(SWI()(single), torch.ones(4, 4, 4))

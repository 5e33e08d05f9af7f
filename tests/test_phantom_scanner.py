"""The scanner: signal at special values, noise, truth, and the field of what lies around."""

from dataclasses import replace
from math import acos, degrees, exp, tau

import pytest
import torch
from scipy.ndimage import binary_erosion

from k2chi.data import Grid
from k2chi.ops import dipole, laplacian
from k2chi.phantom.exposure import total_field
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.sampling import averaged, crop_kspace, regrid
from k2chi.phantom.scanner import GRE, Simulation, box, quick, shimmed, spoiled
from k2chi.units import GAMMA_BAR_MHZ_PER_T

WHO = DigitalHead(seed=1)
COARSE = box((4.0, 4.0, 4.0))
PLAIN = GRE((0.005, 0.013), 3.0, snr=0.0, fine_mm=0.0)


@pytest.fixture(scope="module")
def plain() -> Simulation:
    """No noise, simulated on the acquired grid: the signal equation itself."""
    return PLAIN(WHO, COARSE)


@pytest.fixture(scope="module")
def scan() -> Simulation:
    """The small recipe that demonstrations use."""
    return quick(WHO)


def test_steady_state() -> None:
    """Full recovery at 90° gives M0; the Ernst angle gives the most."""
    m0, r1 = torch.tensor([0.8]), torch.tensor([0.7])
    assert float(spoiled(m0, r1, 100.0, 90.0)) == pytest.approx(0.8)
    assert float(spoiled(m0, r1, 0.05, 90.0)) == pytest.approx(0.8 * (1 - exp(-0.035)))
    ernst = degrees(acos(exp(-0.035)))
    best = float(spoiled(m0, r1, 0.05, ernst))
    assert best > float(spoiled(m0, r1, 0.05, ernst - 3))
    assert best > float(spoiled(m0, r1, 0.05, ernst + 3))


def test_echoes_follow_the_signal_equation(plain: Simulation) -> None:
    """Phase grows with +2π γ̄ B0 TE f and the magnitude decays with R2*, worked out here again."""
    t, s = plain.truth, plain.echoes.signal
    ratio = (s[1] / s[0])[t.brain]
    turn = tau * GAMMA_BAR_MHZ_PER_T * 3.0 * 0.008 * t.total_ppm[t.brain]
    torch.testing.assert_close(ratio.abs(), torch.exp(-0.008 * t.r2star_per_s[t.brain]), rtol=1e-3, atol=1e-4)
    left = torch.angle(ratio * torch.polar(torch.ones_like(turn), -turn))
    assert float(left.abs().mean()) < 1e-4  # a few voxels at the mask's edge hold a trace of fat
    assert float(left.abs().max()) < 0.1


def test_phase_at_time_zero_is_the_offset(plain: Simulation) -> None:
    """At a vanishing echo time only the offset is left, and it spans what was asked for."""
    first = GRE((1e-7,), 3.0, snr=0.0, fine_mm=0.0, offset_rad=2.0)(WHO, COARSE)
    t = first.truth
    left = torch.angle(first.echoes.signal[0] * torch.polar(torch.ones_like(t.offset_rad), -t.offset_rad))
    assert float(left[t.brain].abs().max()) < 1e-3
    assert 1.5 < float(t.offset_rad.max() - t.offset_rad.min()) < 2.6


def test_noise_has_the_stated_size(plain: Simulation) -> None:
    """Real and imaginary parts each, in every echo alike; another seed draws other noise."""
    noisy = replace(PLAIN, snr=40.0)(WHO, COARSE)
    grain = noisy.echoes.signal - plain.echoes.signal
    expected = float(plain.echoes.signal[0].abs().max()) / 40
    assert noisy.truth.noise == pytest.approx(expected)
    for part in (grain.real, grain.imag):
        for echo in part:
            assert float(echo.std()) == pytest.approx(expected, rel=0.02)
            assert abs(float(echo.mean())) < 0.02 * expected
    between = (grain[0].real * grain[1].real).mean() / expected**2
    assert abs(float(between)) < 0.02


def test_local_truth_is_the_field_of_the_brain(plain: Simulation) -> None:
    """The same as a plain dipole convolution of χ in the mask, padded twofold."""
    t = plain.truth
    expected = dipole(COARSE, pad=2.0)(t.chi_ppm * t.brain)
    error = (t.local_ppm - expected)[t.brain]
    assert float((error - error.mean()).norm() / expected[t.brain].norm()) < 2e-3


def test_background_is_harmonic_in_the_brain(scan: Simulation) -> None:
    """Deep inside, the Laplacian of total minus local is a small part of the total's."""
    t = scan.truth
    inner = torch.from_numpy(binary_erosion(t.brain.numpy(), iterations=4))
    lap = laplacian(t.grid)
    rest, whole = lap(t.total_ppm - t.local_ppm)[inner], lap(t.total_ppm)[inner]
    assert float(rest.norm() / whole.norm()) < 0.1


def test_background_is_as_strong_as_in_life(scan: Simulation) -> None:
    """Tenfold the local field or more, over 1 ppm near the sinuses, and of zero mean after shimming."""
    t = scan.truth
    background = (t.total_ppm - t.local_ppm)[t.brain]
    assert 10 < float(background.std() / t.local_ppm[t.brain].std()) < 60
    assert 1.0 < float(t.total_ppm[t.brain].max()) < 8.0
    assert abs(float(t.total_ppm[t.brain].mean())) < 0.02


def test_signal_is_lost_near_the_sinuses(scan: Simulation) -> None:
    """Some of the mask holds little more than noise at the last echo, but most of it does not."""
    last = scan.echoes.signal[-1].abs()[scan.truth.brain]
    lost = float((last < 5 * scan.truth.noise).float().mean())
    assert 0.002 < lost < 0.15


def test_bipolar_ramp(plain: Simulation) -> None:
    """Even echoes carry a phase that is linear along the readout; odd ones do not."""
    b = replace(PLAIN, bipolar_rad=1.2)(WHO, COARSE)
    assert b.echoes.scan.bipolar
    change = torch.angle(b.echoes.signal * plain.echoes.signal.conj())
    solid = b.truth.brain
    assert float(change[0][solid].abs().max()) < 1e-4
    y = (torch.arange(51)[None, :, None] / 51 - 0.5) * 1.2
    torch.testing.assert_close(change[1][solid], y.expand(41, 51, 51)[solid], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("fine", "coarse"), [(12, 8), (15, 9), (16, 7), (9, 9)])
def test_resampling_keeps_place_and_mean(fine: int, coarse: int) -> None:
    """Averaging keeps a ramp in mm (but for cut voxels); the crop of k-space keeps a slow wave."""
    grid = Grid.of((coarse, 8, 8), (2.0, 2.0, 2.0))
    finer = regrid(grid, (fine, 8, 8))
    assert finer.voxel_mm[0] * fine == pytest.approx(grid.voxel_mm[0] * coarse)
    x_fine = finer.affine[0][3] + finer.voxel_mm[0] * torch.arange(fine).float()
    x = grid.affine[0][3] + 2.0 * torch.arange(coarse).float()
    found = averaged(x_fine[:, None, None].expand(fine, 8, 8), (coarse, 8, 8))[:, 0, 0]
    torch.testing.assert_close(found[1:-1], x[1:-1], atol=0.1, rtol=0)
    extent = 2.0 * coarse
    wave = torch.exp(2j * torch.pi * x_fine / extent)[:, None, None].expand(fine, 8, 8).contiguous()
    seen = crop_kspace(wave, (coarse, 8, 8))[:, 3, 3]
    torch.testing.assert_close(seen, torch.exp(2j * torch.pi * x / extent), atol=1e-5, rtol=0)


def test_shim_removes_its_own_harmonics() -> None:
    """Adding gradients and second-order terms to the field changes nothing after shimming."""
    grid = Grid.of((20, 24, 18), (3.0, 3.0, 4.0))
    brain = torch.zeros(grid.shape, dtype=torch.bool)
    brain[4:16, 5:20, 3:15] = True
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(grid.shape, generator=generator)
    x = torch.arange(20)[:, None, None] * 3.0
    y = torch.arange(24)[None, :, None] * 3.0
    bent = field + 0.02 * x - 0.01 * y + 1e-3 * (x * x - y * y) + 2e-3 * x * y
    torch.testing.assert_close(
        shimmed(bent, brain, grid, 2), shimmed(field, brain, grid, 2), atol=2e-3, rtol=0
    )
    assert abs(float(shimmed(field, brain, grid, 0)[brain].mean())) < 1e-6


def test_field_of_what_lies_around() -> None:
    """A body that goes on outside the volume: as if all of it had been transformed with padding."""
    large = Grid.of((64, 64, 64), (4.0, 4.0, 4.0))
    small = large.window((16, 12, 8), (32, 40, 36))

    def body(grid: Grid) -> torch.Tensor:
        a = torch.tensor(grid.affine)
        p = [a[i, 3] + a[i, i] * torch.arange(grid.shape[i]) for i in range(3)]
        r2 = (
            (p[0][:, None, None] / 60) ** 2
            + (p[1][None, :, None] / 72) ** 2
            + (p[2][None, None, :] / 112) ** 2
        )
        return torch.where(r2 < 1, torch.tensor(0.0), torch.tensor(9.4))

    whole = dipole(large, kind="green", pad=2.0)(body(large) - 9.4)[16:48, 12:52, 8:44]
    inside = body(small) == 0
    for coarse_mm, limit in ((4.0, 1e-4), (8.0, 0.1)):
        found = total_field(body(small), small, body, kernel="green", coarse_mm=coarse_mm, around_mm=256.0)
        error = (found - whole)[inside]
        assert float((error - error.mean()).norm() / whole[inside].norm()) < limit


def test_oblique_slab_has_the_same_field_in_the_head() -> None:
    """The field is a thing of the world: at one place, a tilted and a straight slab agree."""
    affine = (
        (2.5, 0.0, 0.0, -60.0),
        (0.0, 2.35, -0.855, -40.0),
        (0.0, 0.855, 2.35, -62.0),
        (0.0, 0.0, 0.0, 1.0),
    )
    tilted = Grid((48, 48, 48), affine)
    straight = Grid.of((66, 82, 82), (2.5, 2.5, 2.5))
    gre = GRE((0.01,), 3.0, snr=0.0, fine_mm=0.0, shim_order=0)
    a, b = gre(WHO, straight).truth, gre(WHO, tilted).truth
    i = torch.stack(torch.meshgrid(*[torch.arange(12, 36)] * 3, indexing="ij"), -1).reshape(-1, 3).double()
    m = torch.tensor(affine, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.tensor(straight.affine, dtype=torch.float64))
    at = (i @ m[:3, :3].T + m[:3, 3]) @ inverse[:3, :3].T + inverse[:3, 3]
    unit = (2 * at / (torch.tensor(straight.shape) - 1) - 1).flip(-1).float()
    read = torch.nn.functional.grid_sample(
        a.total_ppm[None, None], unit[None, :, None, None], align_corners=True
    )
    there, here = read.flatten(), b.total_ppm[12:36, 12:36, 12:36].flatten()
    solid = b.brain[12:36, 12:36, 12:36].flatten()
    d, t = (here - there)[solid], there[solid]
    assert float((d - d.mean()).std() / t.std()) < 0.1


def test_bad_settings_are_refused() -> None:
    """The message names the remedy."""
    with pytest.raises(ValueError, match="choose 0, 1 or 2"):
        GRE(shim_order=3)
    with pytest.raises(ValueError, match="no noise"):
        GRE(snr=-1)
    with pytest.raises(ValueError, match="give it in tesla"):
        DigitalHead()(COARSE, 7000.0)

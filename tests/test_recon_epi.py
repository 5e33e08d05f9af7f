"""Distortion of EPI: shifts in closed form, and images back where they belong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps

from k2chi.data import Echoes, Encoding, Field, Grid, Scan
from k2chi.io.reconstructed import epi_facts
from k2chi.ops.fourier import ifft
from k2chi.recon.assemble import Assemble
from k2chi.recon.epi import Unwarp, blips_rise, echo_shifts_s, effective_spacing_s, extended, shift_voxels
from k2chi.recon.maps import AdaptiveMaps
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.surplus import image_grid
from k2chi.units import hz_per_ppm

SHAPE = (6, 64, 5)
SPACING = 0.0005
Y = torch.arange(SHAPE[1], dtype=torch.float64) - SHAPE[1] // 2


def test_sidecars_tell_the_spacing_of_the_images_by_hand():
    """Trains of 5 readouts 1.2 ms apart fill 60 lines: 0.1 ms a line of the encoded field of view, 80 voxels.

    Images keep 60 of these voxels and show them as 120: lines of their smaller field of view would lie
    80/60 further apart. 10 Hz turn the phase by 0.001 a line, so move by 80 · 0.001 = 0.08 encoded voxels,
    which are 0.16 of the image's: 10 Hz · spacing · 120.
    """
    encoding = Encoding(
        (64, 60, 1), (32, 30, 0), 128, 64, 2.0, slices=True, train=5, spacing_s=0.0012, surplus=(20, 0)
    )
    told = epi_facts(encoding, 80, 120)
    assert told["EchoTrainLength"] == 5
    assert told["EffectiveEchoSpacing"] == pytest.approx(0.0001 * 80 / 60, abs=1e-9)
    assert 10 * told["EffectiveEchoSpacing"] * 120 == pytest.approx(0.16, rel=1e-5)
    assert told["TotalReadoutTime"] == pytest.approx(0.0158667, abs=1e-6)  # 119 steps of 0.13333 ms
    whole = epi_facts(replace(encoding, surplus=(0, 0)), 80, 80)
    assert whole["EffectiveEchoSpacing"] == pytest.approx(0.0001)
    assert whole["TotalReadoutTime"] == pytest.approx(0.0079)
    assert "EffectiveEchoSpacing" not in epi_facts(replace(encoding, spacing_s=0.0), 80, 80)


def hills():
    """A smooth complex image: Gaussian hills along y, other along x and z."""
    x = torch.linspace(0.6, 1, SHAPE[0], dtype=torch.float64)[:, None, None]
    z = torch.linspace(1, 0.7, SHAPE[2], dtype=torch.float64)
    line = torch.exp(-((Y + 8) ** 2) / 40) + (0.5 + 0.3j) * torch.exp(-((Y - 9) ** 2) / 30)
    return x * line[:, None] * z


def field_hz():
    """A smooth field that shifts by −3 to 3 voxels, and stretches and squeezes."""
    y = 60 * torch.sin(2 * torch.pi * Y / 50 + 0.4) + 20
    return (y[:, None] * torch.linspace(0.7, 1.2, SHAPE[2], dtype=torch.float64)).expand(SHAPE).contiguous()


def seen(image, hz, rising=True, te=0.03):
    """The EPI image by its definition: each line of k-space with the phase that the field gives it."""
    n = SHAPE[1]
    k = torch.arange(n, dtype=torch.float64) - n // 2
    t = te + k * SPACING * (1 if rising else -1)
    e = torch.exp(-2j * torch.pi * k[:, None] * Y / n)
    wave = torch.exp(2j * torch.pi * hz[:, None] * t[:, None, None]) * e[:, :, None]
    lines = torch.einsum("xkyz,xyz->xkz", wave, image.to(torch.complex128))
    return torch.einsum("ky,xkz->xyz", e.conj(), lines) / n


def off(a, b):
    return float((a - b).norm() / b.norm())


def encoding(**more):
    return Encoding((64, 60, 8), (32, 30, 4), 128, 64, 2.0, **{"train": 5, "spacing_s": 0.0012, **more})


def test_effective_spacing_of_a_segmented_scan():
    """60 lines in trains of 5: neighbours along ky are 12 shots apart, so 1.2 ms/12."""
    assert effective_spacing_s(encoding()) == pytest.approx(1e-4)
    assert effective_spacing_s(encoding(train=60)) == pytest.approx(1.2e-3)
    assert effective_spacing_s(encoding(train=20, acceleration=(3, 1))) == pytest.approx(4e-4)
    assert effective_spacing_s(encoding(train=1)) == 0
    shifts = echo_shifts_s(encoding(), 12)
    assert shifts[0] == 0
    assert shifts[1] == pytest.approx(1e-4)
    assert shifts[-1] == pytest.approx(1.1e-3)


@pytest.mark.parametrize("rising", [True, False])
def test_a_uniform_field_shifts_by_whole_voxels(rising):
    """50 Hz · 0.5 ms · 64 = 1.6 voxels; 62.5 Hz gives two."""
    hz = torch.full(SHAPE, 62.5, dtype=torch.float64)
    d = shift_voxels(hz, SPACING, SHAPE[1])
    assert torch.allclose(d, torch.tensor(-2.0, dtype=torch.float64))
    image = hills()
    bright = seen(image, hz, rising, te=0.0)
    assert off(bright, image.roll(-2 if rising else 2, 1).to(bright)) < 1e-9


def test_readouts_of_a_whole_scan_shift_alike():
    """The same shift through simulated readouts and their assembly."""
    shape = (12, 40, 4)
    hz = 2 / (40 * 0.0005)
    raw = raw_of(
        picture(shape)[None],
        smooth_maps(1, shape),
        Plan(shots=1, spacing_s=0.0005, off_hz=hz, navigators=False, tr_s=0.1),
    )
    image = ifft(Assemble(ghost=None)(raw, 0).data[0])
    assert effective_spacing_s(raw.encoding) == pytest.approx(0.0005)
    truth = picture(shape) * smooth_maps(1, shape)
    assert off(image, truth.roll(-2, 2).to(image)) < 1e-4


@pytest.mark.parametrize("rising", [True, False])
def test_complex_images_come_back(rising):
    image, hz = hills(), field_hz()
    bent = seen(image, hz, rising)
    right = image * torch.exp(2j * torch.pi * hz * 0.03)
    straight = Unwarp(SPACING, rising=rising).volume(bent, hz, intensity=True)
    assert off(bent, right) > 0.4
    assert off(straight, right) < 0.03
    turn = torch.angle(straight * right.conj())
    weight = image.abs().square()
    assert float((turn.square() * weight).sum() / weight.sum()) ** 0.5 < 0.02


def test_intensity_is_kept_as_a_whole():
    """Squeezed signal is brighter: without the stretch the sum over the image would be wrong."""
    image, hz = hills().abs().to(torch.complex128), field_hz()
    bent = seen(image, hz, te=0.0)
    u = Unwarp(SPACING)
    whole = float(image.real.sum())
    assert float(u.volume(bent, hz, intensity=True).real.sum()) == pytest.approx(whole, rel=5e-3)
    assert abs(float(u.volume(bent, hz).real.sum()) / whole - 1) > 0.02


def test_maps_move_without_change_of_value():
    """A map that is a function of where it is seen: its values come from there."""
    hz = field_hz()
    u = Unwarp(SPACING)
    wave = torch.sin(2 * torch.pi * Y / SHAPE[1])[:, None].expand(SHAPE)
    place = Y[:, None] + shift_voxels(hz, SPACING, SHAPE[1])
    moved = u.volume(wave.contiguous(), hz)
    assert torch.allclose(moved, torch.sin(2 * torch.pi * place / SHAPE[1]), atol=1e-4)


def test_a_field_map_of_the_distorted_image():
    image, hz = hills(), field_hz()
    bent = seen(image, hz)
    true_places = torch.arange(SHAPE[1], dtype=torch.float64)[:, None] + shift_voxels(hz, SPACING, SHAPE[1])
    u = Unwarp(SPACING, field="distorted")
    fine = 60 * torch.sin(2 * torch.pi * Y / 50 + 0.4) + 20
    strength = torch.linspace(0.7, 1.2, SHAPE[2], dtype=torch.float64)
    hz_seen = torch.stack(
        [_inverted(true_places[0, :, k], fine * strength[k]) for k in range(SHAPE[2])], 1
    ).expand(SHAPE)
    right = image * torch.exp(2j * torch.pi * hz * 0.03)
    assert off(u.volume(bent, hz_seen.contiguous(), intensity=True), right) < 0.05


def _inverted(place, values):
    """Values seen at whole indices, of voxels that are seen at `place`."""
    return torch.from_numpy(np.interp(np.arange(len(place)), place.numpy(), values.numpy()))


def test_axis_and_echoes():
    """Along another axis, and as echoes with a field in ppm."""
    image, hz = hills(), field_hz()
    bent = seen(image, hz)
    straight = Unwarp(SPACING).volume(bent, hz, intensity=True)
    turned = Unwarp(SPACING, axis=0).volume(
        bent.transpose(0, 1).contiguous(), hz.transpose(0, 1).contiguous(), intensity=True
    )
    assert off(turned.transpose(0, 1), straight) < 1e-9
    grid, scan = Grid.of(SHAPE), Scan((0.03,), 3.0)
    field = Field(hz / hz_per_ppm(3.0), torch.ones(SHAPE, dtype=torch.bool), grid, scan)
    echoes = Unwarp(SPACING)(Echoes(bent[None].to(torch.complex64), grid, scan), field)
    assert off(echoes.signal[0], straight.to(torch.complex64)) < 1e-4
    assert (
        off(Unwarp(SPACING)(replace(echoes), replace(field, ppm=0 * field.ppm)).signal, echoes.signal) < 1e-5
    )


def test_folded_voxels_are_empty():
    hz = (200 * torch.sin(2 * torch.pi * Y / 20))[:, None].expand(SHAPE).contiguous()
    out = Unwarp(SPACING).volume(hills(), hz, intensity=True)
    _, stretch = Unwarp(SPACING).places(hz.movedim(1, -1))
    assert (stretch <= 0).any()
    assert not out.movedim(1, -1)[stretch <= 0].any()


def test_spacing_has_to_be_in_seconds():
    with pytest.raises(ValueError, match="seconds"):
        Unwarp(0.5)
    with pytest.raises(ValueError, match="not EPI"):
        Unwarp(0.0)


# ---- as a step of the reconstruction -----------------------------------------------------------------------

RECON = Reconstruct(compression=None, maps=AdaptiveMaps())
TWO_VOXELS_HZ = 2 / (40 * 0.0005)


def train(hz, falling=False):
    """One train for each partition, `hz` off resonance; the lines of k-space rise or fall."""
    shape = (12, 40, 4)
    plan = Plan(
        shots=1, spacing_s=0.0005, off_hz=-hz if falling else hz, navigators=False, tr_s=0.1, noise=1e-4
    )
    raw = raw_of(picture(shape)[None], smooth_maps(2, shape), plan)
    if not falling:
        return raw
    return replace(raw, lines=lambda e: (replace(b, time_s=-b.time_s) for b in raw.lines(e)))


def uniform(raw, hz, share=1.0):
    """A field map that knows the field in a part of the images only."""
    grid = image_grid(raw)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[: round(share * grid.shape[0])] = True
    return Field(mask * hz / hz_per_ppm(3.0), mask, grid, raw.scan)


@pytest.mark.filterwarnings("ignore:EPI without navigators")
@pytest.mark.parametrize("falling", [False, True])
def test_reconstruction_unwarps_by_the_map_that_comes_with_the_scan(falling):
    """Spacing and order of the lines are seen from the readouts."""
    truth = RECON(train(0.0)).signal
    raw = train(TWO_VOXELS_HZ, falling)
    assert blips_rise(raw) is not falling
    moved = RECON(raw).signal
    assert off(moved.abs(), truth.abs().roll(2 if falling else -2, 2)) < 1e-2
    back = RECON(replace(raw, field_map=uniform(raw, TWO_VOXELS_HZ, 0.5))).signal
    assert off(back.abs(), truth.abs()) < 1e-2
    left = replace(RECON, unwarp=None)(replace(raw, field_map=uniform(raw, TWO_VOXELS_HZ))).signal
    assert torch.equal(left, moved)


@pytest.mark.filterwarnings("ignore:EPI without navigators")
def test_unwarping_counts_the_voxels_that_oversampling_adds():
    """A shift is a share of the whole field of view, of which images keep a part."""
    raw = train(TWO_VOXELS_HZ)
    raw = replace(raw, encoding=replace(raw.encoding, surplus=(12, 0)))
    back = RECON(replace(raw, field_map=uniform(raw, TWO_VOXELS_HZ)))
    assert back.grid.shape == (12, 28, 4)
    assert off(back.signal.abs(), RECON(train(0.0)).signal[:, :, 6:34].abs()) < 1e-2


def test_field_maps_that_do_not_fit():
    raw = train(0.0)
    small = Grid.of((6, 40, 4))
    with pytest.raises(ValueError, match="bring it to their grid"):
        RECON(replace(raw, field_map=Field(torch.zeros(6, 40, 4), torch.ones(6, 40, 4) > 0, small, raw.scan)))
    slow = replace(raw, encoding=replace(raw.encoding, spacing_s=0.0), field_map=uniform(raw, 1.0))
    with pytest.raises(ValueError, match=r"recon\.unwarp\.spacing_s"):
        RECON(slow)
    gre = replace(raw, encoding=replace(raw.encoding, train=1), field_map=uniform(raw, 1.0))
    with pytest.raises(ValueError, match="not EPI"):
        RECON(gre)


def test_outside_its_mask_a_field_goes_on():
    values = torch.arange(8.0)[:, None, None].expand(8, 3, 3)
    mask = ((values >= 2) & (values <= 5)).contiguous()
    assert extended(values * mask, mask)[:, 1, 1].tolist() == [2, 2, 2, 3, 4, 5, 5, 5]

"""What every reconstruction promises; a new method joins by being named in `Reconstruction`."""

import dataclasses
from typing import get_args

import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps
from recon_cases import grid_mask, measured

from k2chi.data import KSpace
from k2chi.recon import CGSENSE, Adjoint, ESPIRiT, GeometricCompression, Reconstruction, SVDCompression
from k2chi.recon.reconstruct import Reconstruct

EVERY = [m() for m in get_args(Reconstruction)]
every = pytest.mark.parametrize("method", EVERY, ids=lambda m: type(m).__name__)
SHAPE, EDGE = (9, 20, 16), (12.0, 9.0, 11.0)


def small(sampled=None, **settings):
    """A coarse head: quick, odd and uneven."""
    return measured(sampled, shape=SHAPE, edge=EDGE, count=6, te_s=(0.005, 0.012), **settings)


@every
def test_all_of_kspace_gives_the_image(method):
    """Fully sampled and without noise, with the true maps: the image itself where nothing is regularised."""
    case = small()
    names = {f.name for f in dataclasses.fields(method)}
    plain = dataclasses.replace(method, **dict.fromkeys(names & {"regularisation", "tolerance"}, 0.0))
    torch.testing.assert_close(plain(case.kspace, case.maps), case.truth, rtol=1e-4, atol=1e-4)
    as_it_comes = method(case.kspace, case.maps)
    assert (as_it_comes - case.truth).norm() < 0.03 * case.truth.norm()


@every
def test_no_signal_gives_none(method):
    """Zero in, zero out, and nothing that is not a number."""
    case = small(grid_mask(SHAPE, centre=6))
    silent = dataclasses.replace(case.kspace, data=torch.zeros_like(case.kspace.data))
    assert not method(silent, case.maps).any()


@every
@pytest.mark.parametrize("factor", [2.0**-12, complex(-0.8, 0.6)], ids=str)
def test_follows_scale_and_phase(method, factor):
    """k-space times a number gives the image times it: no hidden unit, no special phase."""
    case = small(grid_mask(SHAPE, centre=6), noise=0.02)
    scaled = dataclasses.replace(case.kspace, data=case.kspace.data * factor)
    a, b = method(case.kspace, case.maps), method(scaled, case.maps)
    torch.testing.assert_close(b / factor, a, rtol=1e-3, atol=1e-3 * float(a.abs().max()))


@every
def test_echoes_are_alone(method):
    """Each echo gives the same image alone as among others, the coils calibrated by a scan of its own."""
    case = small(grid_mask(SHAPE, centre=10), noise=0.02)
    centre = torch.fft.fftshift(case.kspace.data[0], dim=(-3, -2, -1))[:, :, 5:16, 3:14]
    k = dataclasses.replace(case.kspace, reference=centre)
    both = method(k, case.maps)
    scan = dataclasses.replace(k.scan, te_s=k.scan.te_s[1:])
    alone = method(dataclasses.replace(k, data=k.data[1:], scan=scan), case.maps)
    torch.testing.assert_close(alone[0], both[1], rtol=1e-4, atol=1e-5)


@every
def test_wrong_maps_and_empty_masks_are_refused(method):
    """With what to do about it."""
    case = small()
    with pytest.raises(ValueError, match="make the maps from this k-space"):
        method(case.kspace, case.maps[:4])
    nothing = dataclasses.replace(case.kspace, sampled=torch.zeros_like(case.kspace.sampled))
    with pytest.raises(ValueError, match="mask of an echo is empty"):
        method(nothing, case.maps)


def test_sense_unfolds_what_the_adjoint_leaves_folded():
    """Every third line of the first phase encoding: from the true maps the image, to half a percent."""
    case = small(grid_mask(SHAPE, (3, 1), centre=0))
    found = CGSENSE(regularisation=0.0, iterations=60, tolerance=0.0)(case.kspace, case.maps)
    off = (found - case.truth)[:, case.mask].norm() / case.truth[:, case.mask].norm()
    folded = (3 * Adjoint()(case.kspace, case.maps) - case.truth)[:, case.mask].norm()
    assert off < 5e-3
    assert folded / case.truth[:, case.mask].norm() > 0.2


def test_reconstruct_streams_echoes_with_one_set_of_maps():
    """From k-space alone; the phase between echoes is that of the truth."""
    case = small(grid_mask(SHAPE, (2, 1), centre=8), noise=0.005)
    out = Reconstruct()(case.kspace)
    assert out.grid is case.kspace.grid
    between = (out.signal[1] * out.signal[0].conj()) * (case.truth[1] * case.truth[0].conj()).conj()
    assert between[case.mask].angle().abs().median() < 0.03


def test_raw_data_and_kspace_come_to_the_same_images():
    """Readouts with oversampling, from noise and all: whitened, compressed while reading, and unfolded."""
    maps, image = smooth_maps(5), picture()
    raw = raw_of(torch.stack([image, image * 0.5j]), maps, Plan(noise=0.01), te_s=(0.01, 0.02))
    method = Reconstruct(compression=SVDCompression(4))
    out = method(raw)
    one = [method.assemble(raw, e) for e in (0, 1)]
    whole = KSpace(torch.cat([k.data for k in one]), one[0].sampled, raw.grid, raw.scan, raw.noise)
    torch.testing.assert_close(out.signal, method(whole).signal, rtol=1e-3, atol=1e-2)
    inside = image.abs() > 0
    ratio = (out.signal[1] / out.signal[0])[inside]
    assert (ratio - 0.5j).abs().median() < 0.02


def test_noise_of_whitened_images_has_variance_one():
    """Real and imaginary part together, between two draws; fully sampled, after compression too."""
    found = []
    for seed in (1, 2):
        k = measured(count=8, noise=0.05, seed=seed, te_s=(0.005,)).kspace
        first = found[0][0].noise if found else k.noise
        found.append((k, Reconstruct()(dataclasses.replace(k, noise=first)).signal[0]))
    case = measured(count=8, te_s=(0.005,))
    difference = (found[0][1].abs() - found[1][1].abs())[case.mask]
    assert difference.square().mean() == pytest.approx(1.0, rel=0.06)  # half of two draws' 2 in magnitude


def test_missing_noise_is_told_in_words():
    """And can be said to be so."""
    case = small()
    with pytest.warns(UserWarning, match="no noise samples.*whiten = false"):
        Reconstruct()(case.kspace)
    Reconstruct(whiten=False)(case.kspace)


def test_too_few_virtual_coils_are_told_in_words():
    """With the share of the signal that they keep."""
    case = small()
    with pytest.warns(UserWarning, match=r"1 virtual coils keep \d\d\.\d% of the signal"):
        Reconstruct(whiten=False, compression=SVDCompression(1))(case.kspace)


def test_no_calibration_region_is_refused():
    """With what was found and what to scan."""
    case = small(grid_mask(SHAPE, (2, 2), centre=1))
    with pytest.raises(ValueError, match=r"9×1×1 points only.*reference lines"):
        Reconstruct(whiten=False)(case.kspace)


@pytest.mark.parametrize("compression", [None, SVDCompression(8), GeometricCompression(8)], ids=str)
def test_a_reference_scan_unfolds_what_has_no_centre(compression):
    """Every third line, no centre kept for calibration, of a raw scan with a reference of its own."""
    shape = (24, 20, 10)
    keep = torch.zeros(20, 10, dtype=torch.bool)
    keep[1::3] = True
    maps, image = smooth_maps(8), picture()
    whole, half = (
        raw_of(image[None], maps, Plan(reference=(13, 9), keep=k)) for k in (torch.ones_like(keep), keep)
    )
    exact = CGSENSE(regularisation=1e-5, iterations=60, tolerance=0.0)
    method = Reconstruct(
        whiten=False, compression=compression, maps=ESPIRiT(points=12, grid=24), unfold=exact
    )
    a, b = method(whole).signal[0], method(half).signal[0]
    inside = image.abs() > 0
    assert tuple(a.shape) == shape
    assert (a.abs() / maps.abs().square().sum(0).sqrt() - image.abs())[inside].abs().median() < 0.02
    folded = dataclasses.replace(method, unfold=Adjoint())(half).signal[0]
    assert (b - a)[inside].norm() < 0.1 * a[inside].norm()
    assert (3 * folded - a)[inside].norm() > 0.2 * a[inside].norm()


def test_oversampled_phase_encoding_is_cut_off():
    """Voxels that are only there to keep wraps away: gone from image and grid, half at each end."""
    raw = raw_of(picture()[None], smooth_maps(4), Plan())
    whole = Reconstruct(whiten=False)(raw)
    encoding = dataclasses.replace(raw.encoding, surplus=(4, 2))
    cut = Reconstruct(whiten=False)(dataclasses.replace(raw, encoding=encoding))
    assert torch.equal(cut.signal, whole.signal[:, :, 2:18, 1:9])
    assert cut.grid == whole.grid.window((0, 2, 1), (24, 16, 8))


def test_what_reading_found_odd_is_passed_on():
    """Raw data's own warnings reach the user."""
    raw = dataclasses.replace(
        raw_of(picture()[None], smooth_maps(4), Plan()), warnings=("the file is cut off",)
    )
    with pytest.warns(UserWarning, match="the file is cut off"):
        Reconstruct(whiten=False)(raw)

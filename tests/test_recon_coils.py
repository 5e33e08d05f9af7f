"""White noise, virtual coils and coil maps: against truth in closed form and known maps."""

import dataclasses
from typing import get_args

import pytest
import torch
from coil_cases import vortices
from recon_cases import grid_mask, measured

from k2chi.ops.fourier import fft, ifft
from k2chi.recon import CoilMaps, Compression, ESPIRiT, GeometricCompression, SVDCompression
from k2chi.recon.calibrate import calibration, interpolated, on_grid
from k2chi.recon.espirit import eigenmaps, signal_projector
from k2chi.recon.whiten import mixed, noise_factor, whitening

every_compression = pytest.mark.parametrize(
    "method", [m() for m in get_args(Compression)], ids=lambda m: type(m).__name__
)
every_maps = pytest.mark.parametrize(
    "method", [m() for m in get_args(CoilMaps)], ids=lambda m: type(m).__name__
)


def white(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


# ---- whitening


def test_whitened_noise_has_the_identity_for_covariance():
    """Of correlated coils of uneven strength, in other samples than those it was found from."""
    couple = torch.eye(6) + 0.4 * white(6, 6, seed=3)
    couple = couple * torch.linspace(0.1, 4, 6)[:, None]
    w = whitening(couple @ white(6, 50000, seed=1), 6)
    n = w @ couple @ white(6, 50000, seed=2)
    torch.testing.assert_close(n @ n.mH / 50000, torch.eye(6) + 0j, atol=0.03, rtol=0)
    k = couple @ white(6, 60, seed=4)
    torch.testing.assert_close(mixed(k.reshape(6, 3, 4, 5), w).flatten(1), w @ k)


def test_noise_that_tells_nothing_is_refused():
    """Too few samples, a dead coil by its number, noise of another scan."""
    with pytest.raises(ValueError, match="more samples than coils"):
        noise_factor(white(4, 5), 4)
    dead = white(4, 500)
    dead[2] *= 1e-6
    with pytest.raises(ValueError, match="dead coil, number 2"):
        noise_factor(dead, 4)
    with pytest.raises(ValueError, match="noise of 4 coils for 6"):
        noise_factor(white(4, 500), 6)
    assert noise_factor(None, 4) is None


# ---- compression


@every_compression
def test_as_many_virtual_coils_as_there_are_dimensions_keep_everything(method):
    """Twelve coils that are mixtures of three: three virtual coils give the same Σ|s|², everywhere."""
    case = measured(count=3, te_s=(0.005,))
    mixture = torch.linalg.qr(white(12, 3)).Q
    data = mixed(case.kspace.data, mixture)
    centre = calibration(dataclasses.replace(case.kspace, data=data), 16)
    virtual = dataclasses.replace(method, coils=3)(centre, data.shape[2])
    assert virtual.energy == pytest.approx(1.0, abs=1e-5)
    a, b = ifft(data).abs().square().sum(1), ifft(virtual(data)).abs().square().sum(1)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@every_compression
def test_virtual_coils_keep_white_noise_white(method):
    """Rows are orthonormal at each place, and the share they keep is the one told."""
    case = measured(count=8, te_s=(0.005,))
    centre = calibration(case.kspace, 24)
    virtual = dataclasses.replace(method, coils=4)(centre, case.kspace.grid.shape[0])
    eye = torch.eye(4, dtype=torch.complex64).expand(len(virtual.matrix), 4, 4)
    torch.testing.assert_close(virtual.matrix @ virtual.matrix.mH, eye, atol=1e-5, rtol=0)
    held = virtual.on_reference(centre[0]).abs().square().sum() / centre.abs().square().sum()
    assert float(held) == pytest.approx(virtual.energy, rel=1e-4)
    assert 0.7 < virtual.energy < 0.999


def test_geometric_compression_keeps_more_and_is_smooth():
    """Than as many virtual coils that are the same everywhere; neighbouring planes' mixtures are alike."""
    case = measured(count=16, te_s=(0.005,))
    centre, nx = calibration(case.kspace, 24), case.kspace.grid.shape[0]
    found = GeometricCompression(coils=4)(centre, nx)
    assert 1 - found.energy < 0.7 * (1 - SVDCompression(coils=4)(centre, nx).energy)
    overlap = (found.matrix[1:] @ found.matrix[:-1].mH).diagonal(dim1=1, dim2=2).real
    assert overlap[3:-3].min() > 0.9  # the outermost planes are air


# ---- calibration


def test_calibration_is_the_centre_of_what_was_measured():
    """Between lines that were left out, and not beyond; the reference scan goes first."""
    case = measured(grid_mask(step=(3, 2), centre=12))
    k = case.kspace
    centre = calibration(k, 24)
    assert tuple(centre.shape[2:]) == (24, 13, 13)
    whole = torch.fft.fftshift(k.data, dim=(-3, -2, -1))
    torch.testing.assert_close(centre, whole[:, :, 13 - 12 : 13 + 12, 16 - 6 : 16 + 7, 12 - 6 : 12 + 7])
    other = white(8, 27, 10, 9)
    assert torch.equal(
        calibration(dataclasses.replace(k, reference=other), 8), other[None, :, 9:17, 1:9, 0:8]
    )
    nothing = dataclasses.replace(k, sampled=torch.zeros_like(k.sampled))
    with pytest.raises(ValueError, match="mask is empty"):
        calibration(nothing, 24)


@pytest.mark.parametrize("m", [(6, 7, 8), (9, 6, 5)])
def test_coarse_images_lie_on_the_voxels(m):
    """Cut from k-space of a smooth image, odd or even: its values at the places i·n/m, not between."""
    n = (12, 14, 16) if m[0] == 6 else (18, 12, 15)
    k = torch.zeros(n, dtype=torch.complex64)
    for f in ((0, 0, 0), (1, -1, 2), (-2, 1, 0)):
        k[f] = complex(1, 0.5 * f[0])
    image = ifft(k)
    shifted = torch.fft.fftshift(k)
    whole = KSPACE(k)
    coarse = on_grid(calibration(whole, max(m))[0, 0], m)
    scale = (torch.tensor(n).prod() / torch.tensor(m).prod()) ** 0.5
    steps = [a // b for a, b in zip(n, m, strict=True)]
    torch.testing.assert_close(coarse / scale, image[:: steps[0], :: steps[1], :: steps[2]])
    assert shifted.shape == image.shape


def KSPACE(k):
    """One coil, one echo, fully sampled."""
    from k2chi.data import Grid, KSpace, Scan

    everywhere = torch.ones(1, 1, *k.shape[1:], dtype=torch.bool)
    return KSpace(k[None, None], everywhere, Grid.of(tuple(k.shape)), Scan((0.01,), 3.0))


def test_interpolation_is_exact_for_parabolas():
    """Away from the ends, point 0 on point 0."""
    at = torch.arange(12, dtype=torch.float64)
    x = (at**2 - 3 * at)[:, None, None].expand(12, 3, 3)
    fine = interpolated(x, (36, 3, 3))[3:30, 0, 0]
    there = torch.arange(36, dtype=torch.float64)[3:30] / 3
    torch.testing.assert_close(fine, there**2 - 3 * there)


# ---- maps


@every_maps
@pytest.mark.parametrize("undersampled", [False, True])
def test_maps_are_the_true_ones(method, undersampled):
    """Of loops by Biot–Savart, from noisy data: alike to 1 % on average, 5 % in the worst hundredth."""
    mask = grid_mask(step=(2, 2), centre=18) if undersampled else None
    case = measured(mask, count=8, noise=0.01, te_s=(0.005,))
    maps = method(case.kspace)
    torch.testing.assert_close(maps.abs().square().sum(0)[case.mask], torch.ones(int(case.mask.sum())))
    alike = (maps.conj() * case.maps).sum(0).abs()[case.mask]
    assert alike.mean() > 0.99
    assert alike.quantile(0.01) > 0.95


@every_maps
@pytest.mark.parametrize("count", [8, 16])
def test_maps_have_no_singularity(method, count):
    """No closed loop of neighbours inside the head turns by a whole turn against the true maps."""
    case = measured(count=count, noise=0.02, te_s=(0.005,))
    phasor = (method(case.kspace).conj() * case.maps).sum(0)
    assert vortices(phasor, case.mask) == 0
    phase_steps = (phasor[1:] * phasor[:-1].conj()).angle()[case.mask[1:] & case.mask[:-1]]
    assert phase_steps.abs().max() < 1.5


@every_maps
def test_no_signal_gives_no_maps_that_are_not_numbers(method):
    """Zero in, finite out."""
    case = measured(count=4, te_s=(0.005,))
    silent = dataclasses.replace(case.kspace, data=torch.zeros_like(case.kspace.data))
    assert method(silent).isfinite().all()


def test_espirit_leaves_out_where_there_is_nothing():
    """Maps are zero in most of the air, and everywhere in the head there are some."""
    case = measured(count=8, noise=0.01, te_s=(0.005,))
    seen = ESPIRiT()(case.kspace).abs().sum(0) > 0
    assert seen[case.mask].float().mean() > 0.999
    assert seen[~case.mask].float().mean() < 0.5
    assert (ESPIRiT(crop=0.0)(case.kspace).abs().sum(0) > 0).all()


def test_the_eigenvalue_is_one_where_the_model_holds():
    """Maps that are waves of low frequency: neighbourhoods explain each other exactly inside an object."""
    n = 24
    at = torch.arange(n, dtype=torch.float64) * 2 * torch.pi / n
    a, b, c = torch.meshgrid(at, at, at, indexing="ij")
    u, v, w = (torch.exp(1j * t) for t in (a, b, c))
    maps = torch.stack([1 + 0.5 * u, v.conj() + 0.3, 0.6 * w - 1j * v])
    image = white(n, n, n).to(torch.complex128)
    k = torch.fft.fftshift(fft(maps * image), dim=(-3, -2, -1))
    p = signal_projector(k[None, :, 4:20, 4:20, 4:20], (3, 3, 3), 1e-6)
    vectors, value = eigenmaps(p, (n, n, n))
    torch.testing.assert_close(value, torch.ones_like(value), atol=1e-6, rtol=0)
    alike = (vectors.conj() * maps).sum(0).abs() / maps.abs().square().sum(0).sqrt()
    assert alike.min() > 1 - 1e-6


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ESPIRiT(kernel=1), "2 ≤ kernel"),
        (lambda: ESPIRiT(threshold=0.0), "0 < threshold"),
        (lambda: SVDCompression(0), "at least one"),
        (lambda: GeometricCompression(window=0), "1 plane"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()

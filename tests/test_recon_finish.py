"""Windows, partial Fourier and interpolation: closed forms, laws, and the order of phase errors."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from k2chi.data import Echoes, Grid, KSpace, Scan
from k2chi.ops import dipole
from k2chi.ops.fourier import fft, ifft
from k2chi.recon.maps import AdaptiveMaps
from k2chi.recon.partial import POCS, Homodyne, ZeroFill
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.sampling import Regular
from k2chi.recon.sense import Adjoint
from k2chi.recon.upscale import Sinc, padded
from k2chi.recon.window import Tukey

SHAPE = (20, 24, 17)


def echoes(signal, grid=None):
    n = len(signal)
    grid = grid or Grid.of(tuple(signal.shape[1:]), (1.0, 1.5, 2.0))
    return Echoes(signal, grid, Scan(tuple(0.005 * (e + 1) for e in range(n)), 3.0))


def noise(*shape):
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def dipoles(n=40):
    """A magnitude with edges, and the field of small sources as phase at 3 T, 25 ms; voxels of 1 mm."""
    g = Grid.of((n, n, n))
    at = torch.stack(torch.meshgrid(*[torch.arange(n) - n / 2 + 0.5] * 3, indexing="ij"))
    inside = at.square().sum(0).sqrt() < 0.42 * n
    chi = torch.zeros(n, n, n)
    draw = torch.Generator().manual_seed(2)
    for _ in range(30):
        c = (torch.rand(3, generator=draw) - 0.5) * 0.6 * n
        r = 1 + 2.5 * float(torch.rand(1, generator=draw))
        chi[(at - c[:, None, None, None]).square().sum(0).sqrt() < r] += 0.15
    scan = Scan((0.025,), 3.0)
    phase = dipole(g, torch.device("cpu"))(chi) * scan.rad_per_ppm * inside
    magnitude = inside * (1 + 0.3 * (chi != 0) + 0.2 * (at[0] > 3))
    smooth = 0.8 * at[0] * at[1] / n**2 + 1.5 * at[2] / n
    return torch.polar(magnitude, phase + smooth)[None], phase, inside


def slope(x, truth, phase, inside):
    """Regression of the phase found on the phase of the sources."""
    found = phase + (x * truth.conj()).angle()
    return float((found[inside] * phase[inside]).sum() / phase[inside].square().sum())


def test_window_is_the_product_of_closed_forms():
    """One at the centre, half in the middle of the fall, zero at the border."""
    w = Tukey(0.5).weights((64, 32, 1))
    assert w[0, 0, 0] == 1
    assert w[16, 0, 0] == 1
    assert w[24, 0, 0] == pytest.approx(0.5)
    assert w[32, 0, 0] == pytest.approx(0, abs=1e-12)
    assert w[24, 12, 0] == pytest.approx(0.25)
    assert torch.equal(w[1:], w[1:].flip(0))
    hann = Tukey(1.0).weights((8, 1, 1)).flatten()
    assert torch.allclose(hann, 0.5 + 0.5 * torch.cos(torch.pi * torch.fft.fftfreq(8).double() * 2))


def test_window_keeps_the_mean_and_only_smooths():
    """Zero frequency passes, energy never grows, alpha 0 does nothing, axes can be left alone."""
    x = echoes(noise(2, *SHAPE))
    y = Tukey(0.4)(x)
    assert torch.allclose(y.signal.mean((1, 2, 3)), x.signal.mean((1, 2, 3)), atol=1e-5)
    assert y.signal.norm() < x.signal.norm()
    assert Tukey(0.0)(x) is x
    still = Tukey(0.7, (True, True, False)).weights(SHAPE)
    assert torch.equal(still, still[..., :1].expand(SHAPE))


def test_window_removes_ringing_and_costs_phase_slope():
    """What it is for, and its price, which grows with alpha."""
    truth, phase, inside = dipoles()
    slopes = [slope(Tukey(a)(echoes(truth)).signal[0], truth[0], phase, inside) for a in (0.0, 0.25, 0.5)]
    assert slopes[0] == pytest.approx(1, abs=1e-4)
    assert 1 > slopes[1] + 0.01 > slopes[2] + 0.02
    box = torch.zeros(1, 64, 2, 2, dtype=torch.complex64)
    box[:, 20:44] = 1
    k = fft(box)
    k[:, 12:53] = 0  # a coarse scan, finely shown
    sharp = ifft(k)
    assert float(Tukey(1.0)(echoes(sharp)).signal.abs().max()) < float(sharp.abs().max())


def half(share, size=(40, 40)):
    return Regular((1, 1), partial_fourier=(share, 1.0))(size).sampled[:, None]


def test_phase_suffers_in_the_order_zero_fill_pocs_homodyne():
    """At 6/8 and at 5/8; more missing is worse for each."""
    truth, phase, inside = dipoles()
    slopes = {}
    for share in (0.75, 0.625):
        for method in (ZeroFill(), POCS(), Homodyne()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                x = method(ifft(fft(truth) * half(share)), half(share))
            slopes[share, type(method).__name__] = slope(x[0], truth[0], phase, inside)
    for share in (0.75, 0.625):
        zero, pocs, homodyne = (slopes[share, m] for m in ("ZeroFill", "POCS", "Homodyne"))
        assert 1 > zero > pocs + 0.01 > homodyne + 0.05
    for m in ("ZeroFill", "POCS", "Homodyne"):
        assert slopes[0.75, m] > slopes[0.625, m]


@pytest.mark.parametrize("method", [POCS(), Homodyne()])
@pytest.mark.parametrize("side", [1, -1])
def test_an_image_of_smooth_phase_is_restored(method, side):
    """Where phase is that of the centre, the missing side follows from symmetry; either side."""
    real = torch.rand(1, 24, 41, 20, generator=torch.Generator().manual_seed(1)) + 1
    x = (real * torch.polar(torch.ones(1), torch.tensor([0.6]))).to(torch.complex64)
    seen = half(0.7, (41, 20))
    seen = seen if side > 0 else seen.flip(2).roll(1, 2)
    zero = ifft(fft(x) * seen)
    with pytest.warns(UserWarning, match="fine phase is lost"):
        y = method(zero, seen)
    assert (y - x).norm() < 0.02 * (zero - x).norm()


@pytest.mark.parametrize("method", [POCS(), Homodyne(), ZeroFill()])
def test_whole_k_space_is_left_alone(method):
    """Undersampling without partial Fourier, odd and even sizes: no change, no warning."""
    for size in ((24, 17), (25, 16)):
        x = noise(2, 12, *size)
        for pattern in (Regular((1, 1)), Regular((2, 2), (6, 6)), Regular((3, 1), (8, 8), ellipse=True)):
            assert torch.equal(method(x, pattern(size).sampled[:, None]), x)


def test_pocs_keeps_what_was_measured():
    x, seen = noise(1, 16, 40, 20), half(0.7, (40, 20))
    with pytest.warns(UserWarning, match="POCS"):
        y = POCS(3)(ifft(fft(x) * seen), seen)
    assert torch.allclose(fft(y)[..., seen[0, 0]], fft(x)[..., seen[0, 0]], atol=1e-4)
    with pytest.raises(ValueError, match="iterations 0"):
        POCS(0)


def test_homodyne_takes_one_axis():
    seen = Regular((1, 1), partial_fourier=(0.7, 0.7))((32, 32)).sampled[:, None]
    with pytest.raises(ValueError, match="more than one axis"):
        Homodyne()(noise(1, 8, 32, 32), seen)


@pytest.mark.parametrize("shape", [(20, 24, 17), (15, 16, 9)])
@pytest.mark.parametrize("factor", [(2.0, 2.0, 2.0), (1.0, 1.5, 3.0)])
def test_waves_are_interpolated_exactly_where_they_are(shape, factor):
    """A wave at frequencies the grid holds has, on the fine grid, its value at each voxel's place in mm."""
    grid = Grid.of(shape, (1.0, 1.5, 2.0), (0.1, 0.0, 1.0))
    f = [3, -5, 4]
    extent = np.array(shape) * grid.voxel_mm

    def wave(g):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in g.shape], indexing="ij"), -1)
        place = index @ np.asarray(g.affine)[:3, :3].T + np.asarray(g.affine)[:3, 3]
        return torch.from_numpy(np.exp(2j * np.pi * (place / extent) @ f))

    fine = Sinc(factor)(echoes(wave(grid)[None], grid))
    assert fine.grid.shape == tuple(round(n * q) for n, q in zip(shape, factor, strict=True))
    assert torch.allclose(fine.signal[0], wave(fine.grid), atol=1e-9)
    assert np.allclose(np.array(fine.grid.voxel_mm) * fine.grid.shape, extent)
    assert fine.grid.b0_world == grid.b0_world


def test_old_voxels_keep_values_and_real_images_stay_real():
    """At a whole factor; the border frequency of even sizes is shared out."""
    x = noise(3, *SHAPE)
    y = padded(x, tuple(2 * n for n in SHAPE))
    assert torch.allclose(y[:, ::2, ::2, ::2], x, atol=1e-5)
    assert padded(x.real.to(x.dtype), tuple(n + 3 for n in SHAPE)).imag.abs().max() < 1e-6
    assert torch.allclose(padded(x, SHAPE), x)


def test_mask_goes_along_and_sizes_are_kept_for_sidecars():
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[5:9, 6:10, 3:9] = True
    grid = Grid.of(SHAPE, (1.0, 1.5, 2.0))
    fine = Sinc()(Echoes(noise(1, *SHAPE), grid, Scan((0.02,), 3.0), mask))
    assert torch.equal(fine.mask[::2, ::2, ::2], mask)
    assert fine.mask.sum() == pytest.approx(8 * mask.sum(), rel=0.5)
    assert Sinc().facts(grid) == {
        "AcquisitionVoxelSize": grid.voxel_mm,
        "InterpolatedVoxelSize": pytest.approx((0.5, 0.75, 1.0)),
    }
    with pytest.raises(ValueError, match="1 or more"):
        Sinc((0.5, 1, 1))
    with pytest.raises(ValueError, match="alpha 2 is no share"):
        Tukey(2)


def test_in_a_reconstruction():
    """Partial Fourier, window and finer grid come after unfolding."""
    truth, _, _ = dipoles(16)
    seen = half(0.75, (16, 16))
    scan = Scan((0.025,), 3.0)
    kspace = KSpace(fft(truth[:, None]) * seen[:, None], seen, Grid.of((16, 16, 16)), scan)
    plain = Reconstruct(whiten=False, compression=None, maps=AdaptiveMaps(), unfold=Adjoint())
    zero = plain(kspace)
    all_of_it = replace(plain, partial=POCS(2), window=Tukey(0.3), interpolate=Sinc())
    with pytest.warns(UserWarning, match="POCS"):
        done = all_of_it(kspace)
    with pytest.warns(UserWarning, match="POCS"):
        whole = POCS(2)(zero.signal, seen)
    by_hand = Sinc()(Tukey(0.3)(replace(zero, signal=whole)))
    assert torch.allclose(done.signal, by_hand.signal, atol=1e-5)
    assert done.grid == by_hand.grid

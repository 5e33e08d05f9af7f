"""GRAPPA: lattices found from masks, images against the truth and pygrappa, noise against draws."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from coil_cases import axes, head, loops
from hypothesis import given, settings
from hypothesis import strategies as st

from k2chi.data import Grid, KSpace, Scan
from k2chi.ops.fourier import fft, ifft
from k2chi.recon.grappa import GRAPPA
from k2chi.recon.lattice import Lattice, find_lattice
from k2chi.recon.maps import AdaptiveMaps
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.sampling import CAIPI, PoissonDisk, Regular

SHAPE = (24, 36, 32)
INSIDE = head(SHAPE, 0.8)
SMALL = GRAPPA((3, 2, 2))


@cache
def coils(count=8):
    return loops(count, SHAPE, tuple(190 / n for n in SHAPE)).to(torch.complex64)


def image(echo=0):
    """An object with edges and phase that grows from echo to echo."""
    x, y, z = axes(SHAPE)
    m = INSIDE * (1 + 0.5 * torch.sin(5 * x) * torch.cos(6 * y) + 0.3 * (x > 0.1))
    return torch.polar(m, (1 + echo) * (2 * x * y + z**2) + y).to(torch.complex64)


def case(pattern, noise=0.0, echoes=1, reference=0):
    """K-space of the object; with `reference` points of the centre as a scan of its own."""
    full = fft(torch.stack([image(e) for e in range(echoes)])[:, None] * coils())
    full = full + noise * torch.randn(
        full.shape, dtype=full.dtype, generator=torch.Generator().manual_seed(3)
    )
    centre = None
    if reference:
        low = [n // 2 - min(reference, n) // 2 for n in SHAPE[1:]]
        shown = torch.fft.fftshift(full[0], dim=(-3, -2, -1))
        centre = shown[..., low[0] : low[0] + reference, low[1] : low[1] + reference]
    seen = pattern.sampled[:, None]
    scan = Scan(tuple(0.005 * (e + 1) for e in range(echoes)), 3.0)
    return KSpace(full * seen[:, None], seen, Grid.of(SHAPE), scan, reference=centre)


def error(x, echo=0):
    """Relative to the object, where it is."""
    truth = image(echo)[INSIDE]
    return float((x[INSIDE] - truth).norm() / truth.norm())


@given(
    ny=st.integers(60, 100),
    nz=st.integers(60, 100),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    shear=st.integers(0, 3),
    ellipse=st.booleans(),
    partial=st.sampled_from([1.0, 0.75]),
    centre=st.sampled_from([(0, 0), (16, 16), (20, 999)]),
)
@settings(max_examples=25, deadline=None)
def test_lattice_is_found(ny, nz, rows, columns, shear, ellipse, partial, centre):
    """Any shear, shutter, partial Fourier and centre; also in echoes whose lines are shifted."""
    method = CAIPI((rows, columns), shear % columns, centre, ellipse, (partial, 1.0), alternate=True)
    for sampled in method((ny, nz), 2).sampled:
        found = find_lattice(sampled)
        assert (found.rows, found.shear, found.columns) == (rows, shear % columns, columns)


@pytest.mark.parametrize("acceleration", [2, 4, 8])
def test_random_masks_are_refused(acceleration):
    with pytest.raises(ValueError, match=r"lie on no lattice.*reconstruct with CGSENSE"):
        find_lattice(PoissonDisk(acceleration, (16, 16))((96, 80)).sampled[0])


def test_a_hole_in_the_lattice_is_not_overlooked():
    sampled = Regular((2, 1))((64, 64)).sampled[0].clone()
    sampled[20:26] = False
    with pytest.raises(ValueError, match="lie on no lattice"):
        find_lattice(sampled)


@pytest.mark.parametrize("lattice", [Lattice(3, 0, 1), Lattice(2, 1, 2), Lattice(1, 2, 4), Lattice(3, 1, 2)])
def test_neighbours_are_sampled_and_on_all_sides(lattice):
    """Every step from a gap ends on the lattice; sources surround the gap."""
    for gap in lattice.gaps:
        steps = np.array(lattice.around((4, 4))) - gap
        assert lattice.holds(steps[:, 0] + gap[0], steps[:, 1] + gap[1]).all()
        assert len(np.unique(steps, axis=0)) == len(steps)
        assert np.abs(steps.mean(0)).max() <= 1.5
        nearest = min(
            (y - gap[0]) ** 2 + (z - gap[1]) ** 2
            for y in range(-9, 10)
            for z in range(-9, 10)
            if lattice.holds(np.array(y), np.array(z))
        )
        assert (steps**2).sum(1).min() == nearest


@pytest.mark.parametrize(
    "pattern",
    [Regular((2, 1)), Regular((1, 3)), Regular((2, 2)), CAIPI((2, 2), 1), CAIPI((1, 4), 2), CAIPI((3, 2), 1)],
    ids=str,
)
def test_smooth_coils_are_unfolded(pattern):
    """Within a few percent where zero-filling is far off; calibrated by a scan of its own."""
    kspace = case(replace(pattern, calibration=(0, 0))(SHAPE[1:]), reference=20)
    folded = (coils().conj() * ifft(kspace.data[0])).sum(0) / coils().abs().square().sum(0)
    assert error(folded) > 0.5
    assert error(GRAPPA()(kspace, coils())[0]) < 0.05


def test_full_k_space_is_only_combined():
    kspace = case(Regular((1, 1))(SHAPE[1:]))
    assert error(GRAPPA()(kspace, coils())[0]) < 1e-5


def test_measured_samples_stay():
    """Gaps are filled, samples are not touched, and nothing appears beyond an elliptical shutter."""
    kspace = case(CAIPI((2, 2), 1, (20, 20), ellipse=True)(SHAPE[1:]), noise=0.01)
    filled = SMALL.trained(kspace).filled(kspace)
    seen = kspace.sampled[0, 0]
    assert torch.allclose(filled[..., seen], kspace.data[..., seen], atol=1e-4 * kspace.data.abs().max())
    reached = Regular((1, 1), ellipse=True)(SHAPE[1:]).sampled[0]
    power = filled.abs().square().sum((0, 1, 2))
    assert (power[reached] > 0).float().mean() > 0.9
    assert not power[~reached].abs().max() > 1e-9 * power.max()


def test_weights_of_pygrappa_fill_alike():
    """The same neighbours, hardly any regularisation, calibrated on all of k-space."""
    pygrappa = pytest.importorskip("pygrappa")
    kspace = case(Regular((2, 1), (0, 0))(SHAPE[1:]), noise=0.02, reference=36)
    ours = GRAPPA((3, 2, 3), regularisation=1e-3).trained(kspace).filled(kspace)[0]
    ours = torch.fft.fftshift(ours, dim=(-3, -2, -1))
    plain = torch.fft.fftshift(kspace.data[0], dim=(-3, -2, -1)).numpy()
    calib = kspace.reference.numpy().copy()
    theirs = pygrappa.mdgrappa(plain, calib, kernel_size=(3, 3, 3), coil_axis=0, lamda=1e-6)
    gaps = np.s_[:, 1:-1, 1:-1:2, 1:-1]  # at the border, pygrappa trains weights of their own
    difference = (ours - torch.from_numpy(theirs))[gaps].norm() / ours[gaps].norm()
    assert difference < 0.02


def test_reference_scan_calibrates():
    """The same centre from a scan of its own gives the same image."""
    inner = case(Regular((2, 2), (20, 20))(SHAPE[1:]))
    apart = case(Regular((2, 2), (20, 20))(SHAPE[1:]), reference=20)
    a, b = (SMALL(k, coils())[0] for k in (inner, apart))
    assert torch.allclose(a, b, atol=1e-4)
    without = case(Regular((2, 2), (0, 0))(SHAPE[1:]), reference=20)
    assert error(SMALL(without, coils())[0]) < 0.05


def test_one_set_of_weights_for_echoes_that_alternate():
    """Lines shift from echo to echo; weights of the first echo fill them all."""
    kspace = case(CAIPI((2, 2), 1, (20, 20), alternate=True)(SHAPE[1:], 3), echoes=3)
    images = SMALL(kspace, coils())
    assert all(error(images[e], e) < 0.05 for e in range(3))


def test_in_a_reconstruction_the_first_echo_trains():
    """Later echoes without a full centre are unfolded by its weights."""
    first, later = (CAIPI((2, 2), 1, (n, n))(SHAPE[1:]) for n in (20, 0))
    kspace = case(replace(first, sampled=torch.cat([first.sampled, later.sampled])), echoes=2)
    run = Reconstruct(whiten=False, compression=None, maps=AdaptiveMaps(), unfold=SMALL)
    alone = replace(kspace, data=kspace.data[:1], sampled=kspace.sampled[:1], scan=Scan((0.005,), 3.0))
    assert torch.allclose(run(kspace).signal[1], SMALL(kspace, AdaptiveMaps()(alone))[1], atol=1e-5)


def test_echoes_on_different_lattices_are_refused():
    one, other = Regular((2, 1), (20, 20))(SHAPE[1:]), Regular((1, 2), (20, 20))(SHAPE[1:])
    both = replace(one, sampled=torch.cat([one.sampled, other.sampled]))
    with pytest.raises(ValueError, match="undersampled alike"):
        SMALL(case(both, echoes=2), coils())


def test_stack_of_slices():
    """Slices, transformed like the rest, are a direction in which all is sampled."""
    pattern = Regular((2, 1), (20, 999))(SHAPE[1:])
    assert pattern.sampled[0].all(1)[0]
    assert error(SMALL(case(pattern), coils())[0]) < 0.05


def test_g_factor_is_the_noise_that_draws_have():
    """Standard deviation of many reconstructed draws of noise, over that of full sampling and √R."""
    shape, draws = (5, 64, 60), 40
    maps = loops(6, shape, (40.0, 3.0, 3.0)).to(torch.complex64)
    inside = head(shape, 0.8)
    pattern = Regular((2, 2), (0, 0))(shape[1:])
    full = torch.fft.fftshift(fft(inside * maps), dim=(-3, -2, -1))[..., 20:44, 18:42]
    draw = torch.randn(draws, *maps.shape, dtype=maps.dtype, generator=torch.Generator().manual_seed(1))
    scan = Scan(tuple(1e-3 * (k + 1) for k in range(draws)), 3.0)
    few = KSpace(draw * pattern.sampled, pattern.sampled[:, None], Grid.of(shape), scan, reference=full)
    weights = GRAPPA((3, 4, 4)).trained(few)
    ideal = maps.abs().square().sum(0).rsqrt() * 2
    found = (weights(few, maps).abs().square().mean(0).sqrt() / ideal)[inside]
    g = weights.g_factor(maps)[inside]
    assert float((g / found).mean()) == pytest.approx(1, abs=0.05)
    assert float((g / found).std()) < 1.4 * (4 * draws) ** -0.5
    assert g.max() > 1.5 * g.min()


def test_g_factor_grows_with_acceleration():
    """One without undersampling; sheared patterns amplify noise less than straight ones."""
    mean = {
        str(pattern): float(GRAPPA((3, 4, 4)).g_factor(case(pattern(SHAPE[1:])), coils())[INSIDE].mean())
        for pattern in (Regular((1, 1)), Regular((2, 1), (20, 20)), Regular((3, 1), (20, 20)))
    }
    one, two, three = mean.values()
    assert one == pytest.approx(1, abs=1e-5)
    assert one < two < three


def test_small_centres_and_wrong_maps_are_said():
    with pytest.raises(ValueError, match="too small for 5×16 neighbours of 8 coils"):
        GRAPPA()(case(Regular((3, 3), (8, 8))(SHAPE[1:])), coils())
    with pytest.raises(ValueError, match="too few to calibrate coils"):
        GRAPPA()(case(Regular((2, 2), (4, 4))(SHAPE[1:])), coils())
    with pytest.raises(ValueError, match="make the maps from this k-space"):
        SMALL(case(Regular((2, 1), (20, 20))(SHAPE[1:])), coils()[:4])
    with pytest.raises(ValueError, match="odd size along the readout"):
        GRAPPA((4, 4, 4))
    with pytest.raises(ValueError, match="regularisation -1"):
        GRAPPA(regularisation=-1)

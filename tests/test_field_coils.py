"""Coil images to echoes: phase is the field's, noise is the least there can be, and nothing tears."""

import dataclasses
from math import tau
from typing import get_args

import pytest
import torch
from coil_cases import SHAPE, axes, head, make, pulse_rad, to_ppm, vortices

from k2chi.data import Echoes
from k2chi.field import (
    ASPIRE,
    MCPC3DS,
    MDI,
    ROMEO,
    AdaptiveCombine,
    CoilCombination,
    MCPC3DSCoils,
    WeightedFit,
    mdi_r2star,
)
from k2chi.recon.adaptive import combined, sensitivity_maps
from k2chi.recon.whiten import noise_factor

EVERY = [m() for m in get_args(CoilCombination)]
every = pytest.mark.parametrize("method", EVERY, ids=lambda m: type(m).__name__)
OFFSET_FREE = [m for m in EVERY if not isinstance(m, AdaptiveCombine)]
offset_free = pytest.mark.parametrize("method", OFFSET_FREE, ids=lambda m: type(m).__name__)


def beyond_field(out, case):
    """The phasors that the field does not explain, for each echo."""
    te = torch.tensor(out.scan.te_s, dtype=torch.float64)[:, None, None, None]
    turn = -tau * case.field_hz * te
    return out.signal * torch.polar(torch.ones_like(turn), turn)


def phase_error(phasor, mask):
    """Phase [rad] inside the mask, about its mean."""
    return (phasor * (phasor[mask] / phasor[mask].abs()).sum().conj()).angle()[mask]


@offset_free
def test_phase_is_the_fields_and_a_constant(method):
    """Of a pulse's bowl of 3 rad and loops' phases of several turns, less than 0.02 rad rms is left."""
    case = make()
    for phasor in beyond_field(method(case.coils), case):
        error = phase_error(phasor, case.mask)
        assert error.square().mean().sqrt() < 0.02
        assert error.abs().max() < 0.1


@offset_free
@pytest.mark.parametrize("te", [(0.006, 0.009), (0.004, 0.008, 0.012, 0.016)], ids=len)
def test_field_comes_back_from_noisy_coils(method, te):
    """Through unwrapping and fit, within twice the noise that the fit reports, and 4 ppb of smooth error."""
    case = make(te, noise=0.03, seed=2)
    out = WeightedFit()(ROMEO()(method(case.coils)))
    off = (out.ppm - to_ppm(case.field_hz))[case.mask]
    error = (off - off.median()).square().mean().sqrt()
    assert error < 2 * out.noise_ppm[case.mask].square().mean().sqrt() + 0.004


def test_adaptive_combination_leaves_an_ordinary_offset():
    """Its phase at TE = 0 is smooth, so that MCPC-3D-S takes it off; echoes agree to rounding."""
    case = make((0.004, 0.011, 0.019))
    out = AdaptiveCombine()(case.coils)
    left = beyond_field(out, case)
    for later in left[1:]:
        assert (later * left[0].conj()).angle()[case.mask].abs().max() < 1e-4
    free = MCPC3DS()(dataclasses.replace(out, mask=case.mask))
    error = phase_error(beyond_field(free, case)[0], case.mask)
    assert error.square().mean().sqrt() < 0.03


@pytest.mark.parametrize(("count", "noise"), [(8, 0.08), (16, 0.0)])
def test_no_fringe_line_has_an_open_end(count, noise):
    """No closed loop of neighbours turns by a whole turn; one coil's phase, and one virtual coil's, does."""
    case = make(count=count, noise=noise, seed=1, te_s=(0.005,))
    out = AdaptiveCombine()(case.coils)
    assert vortices(beyond_field(out, case)[0], case.mask) == 0
    # The singular value decomposition over all voxels gives the best of all virtual coils.
    s = case.clean[0].flatten(1)
    u = torch.linalg.eigh(s @ s.mH).eigenvectors[:, -1]
    virtual = torch.tensordot(u.conj(), case.maps, 1)
    assert vortices(virtual, case.mask) > 0


@every
def test_order_and_cables_of_coils_do_not_matter(method):
    """Coils in another order, each turned by its own constant phase: the same echoes."""
    case = make(noise=0.03, te_s=(0.005, 0.010), count=8)
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    turn = torch.polar(torch.ones(8), torch.arange(8) * 1.3)
    c = case.coils
    other = dataclasses.replace(
        c, signal=(c.signal * turn[:, None, None, None])[:, order], noise=(c.noise * turn[:, None])[order]
    )
    a, b = method(c).signal, method(other).signal
    inside = case.mask.expand_as(a)
    torch.testing.assert_close(a[inside], b[inside], rtol=2e-3, atol=2e-3 * float(a[inside].abs().mean()))


def gain_of(method, case):
    """The SNR that the weights found in the noisy images give the clean ones, over the best there is."""
    psi, maps = case.covariance, case.maps
    factor = noise_factor(case.coils.noise, len(maps))
    if isinstance(method, AdaptiveCombine):
        found = sensitivity_maps(case.coils.signal, case.coils.grid.voxel_mm, (1, 1, 1), (1, 1, 1), factor)
        one = torch.eye(len(maps), dtype=torch.complex64)[:, :, None, None, None]
        weights = combined(one.expand(-1, -1, *SHAPE), found, (1, 1, 1), factor).conj()
    else:
        # Linear in later echoes, which the offsets are not taken from.
        one = torch.eye(len(maps), dtype=torch.complex64)[:, :, None, None, None].expand(-1, -1, *SHAPE)
        c, te = case.coils, case.coils.scan.te_s
        longer = (*te, *(te[-1] + 0.005 * (k + 1) for k in range(len(maps))))
        scan = dataclasses.replace(c.scan, te_s=longer)
        probed = method(dataclasses.replace(c, signal=torch.cat([c.signal, one]), scan=scan))
        weights = probed.signal[len(te) :].conj()

    def snr(w):
        noise = torch.einsum("cxyz,cd,dxyz->xyz", w.conj(), psi, w).real.sqrt()
        return ((w.conj() * maps).sum(0).abs() / noise)[case.mask]

    best = snr(torch.tensordot(torch.linalg.inv(psi), maps, 1))
    return snr(weights.to(psi)) / best


@pytest.mark.parametrize(
    "method", [AdaptiveCombine(), MCPC3DSCoils(), ASPIRE()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("noise", [0.02, 0.06])
def test_snr_is_the_best_there_is(method, noise):
    """With correlated noise of uneven strength: 99 % of the SNR of known sensitivities."""
    gain = gain_of(method, make((0.005, 0.010), noise=noise, seed=4))
    assert gain.max() < 1 + 1e-4
    assert gain.mean() > 0.99
    assert gain.quantile(0.01) > 0.98


def test_noise_samples_are_worth_it():
    """Without them the same images give a fifth less, since loud and correlated coils are trusted."""
    case = make((0.005, 0.010), noise=0.05, shared=1.0, seed=4)
    deaf = dataclasses.replace(case, coils=dataclasses.replace(case.coils, noise=None))
    assert gain_of(AdaptiveCombine(), deaf).mean() < 0.85 < 0.99 < gain_of(AdaptiveCombine(), case).mean()


@pytest.mark.parametrize(
    "method", [AdaptiveCombine(), MCPC3DSCoils(), ASPIRE()], ids=lambda m: type(m).__name__
)
def test_whitened_echoes_have_noise_of_variance_one(method):
    """Real and imaginary part together, between two draws of noise, where there is signal."""
    one, two = (make((0.005, 0.010), noise=0.05, seed=s).coils for s in (5, 6))
    a, b = method(one), method(dataclasses.replace(two, noise=one.noise))
    difference = (a.signal.abs() - b.signal.abs())[:, head()]
    assert difference.square().mean() == pytest.approx(1.0, rel=0.05)  # two draws, half of each in magnitude


@pytest.mark.parametrize("echoes", [2, 4])
@pytest.mark.parametrize("combine", [False, True])
def test_mdi_magnitude_tells_the_noise_of_its_phase(echoes, combine):
    """Scatter of phase times magnitude is the noise of one image, with decay, from coils and from echoes."""
    te = tuple(0.006 * (k + 1) for k in range(echoes))
    found = []
    for seed in range(5):
        c = make(te, noise=0.04, r2star=60.0, shared=0.0, seed=seed, count=6).coils
        found.append(MDI()(AdaptiveCombine()(c) if combine else c).signal[0])
    found = torch.stack(found)
    scatter = (found * found.mean(0).conj()).angle().var(0)
    ratio = (scatter * found.abs().square().mean(0))[head()].mean()  # one channel's variance is a half
    assert ratio == pytest.approx(0.5, rel=0.12)


def test_mdi_of_echoes_is_the_inner_product_of_two():
    """For one pair and one coil the formula is S₁*S₂; offset and sign of the field show."""
    case = make((0.005, 0.012))
    echoes = Echoes(case.clean.sum(1), case.coils.grid, case.coils.scan)
    out = MDI()(echoes)
    assert out.scan.te_s == pytest.approx((0.007,))
    expected = tau * case.field_hz * 0.007
    error = phase_error(out.signal[0] * torch.polar(torch.ones_like(expected), -expected), case.mask)
    assert error.abs().max() < 1e-9


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_mdi_decay(noise):
    """R2* to rounding without noise; with noise of known size within 1 %, where it was 30 % too large."""
    case = make((0.006, 0.012, 0.018), noise=noise, r2star=45.0)
    mean = float(mdi_r2star(case.coils)[case.mask].median())
    assert mean == pytest.approx(45.0, rel=0.012 if noise else 1e-4)
    assert float(mdi_r2star(case.coils).min()) >= 0
    if noise:
        naive = mdi_r2star(dataclasses.replace(case.coils, noise=None))
        assert naive[case.mask].median() > 1.3 * 45


def backwards(case, ramp):
    """Even echoes turned by `ramp`."""
    signal = case.coils.signal.clone()
    signal[1::2] *= torch.polar(torch.ones_like(ramp), ramp)
    return dataclasses.replace(case.coils, signal=signal.to(case.coils.signal.dtype))


@offset_free
@pytest.mark.parametrize("echoes", [3, 4])
def test_bipolar_coils(method, echoes):
    """Even echoes with a ramp of 2 rad: the field's phase all the same, if the scan is said to be bipolar."""
    x, _y, z = axes()
    ramp = 0.3 + 0.8 * x - 0.5 * z
    te = tuple(0.005 * (k + 1) for k in range(echoes))
    errors = []
    for bipolar in (True, False):
        case = make(te, bipolar=bipolar)
        out = WeightedFit()(ROMEO()(method(backwards(case, ramp))))
        off = (out.ppm - to_ppm(case.field_hz))[case.mask]
        errors.append(float((off - off.mean()).square().mean().sqrt()))
    assert errors[0] < 0.005
    if not (isinstance(method, MDI) and echoes == 3):  # its two pairs cancel the ramp anyway
        assert errors[1] > 4 * errors[0]


def test_magnitude_is_the_root_sum_of_squares():
    """Without noise all coils add up."""
    case = make((0.005, 0.010))
    root = case.clean.abs().square().sum(1).sqrt()
    for method in (AdaptiveCombine(), MCPC3DSCoils(), ASPIRE()):
        size = method(case.coils).signal.abs().double()
        assert (size / root - 1)[:, case.mask].abs().max() < 0.02


@every
def test_bad_voxels_harm_no_others(method):
    """NaN in one coil's voxel: other voxels stay as they were, to what they share a window with."""
    case = make((0.005, 0.010), count=6)
    signal = case.coils.signal.clone()
    signal[0, 2, 10, 20, 15] = complex("nan")
    clean, bad = method(case.coils).signal, method(dataclasses.replace(case.coils, signal=signal)).signal
    away = torch.ones_like(case.mask)
    away[10, 20, 15] = False
    assert bad[:, away].isfinite().all()
    assert (bad - clean)[:, away & case.mask].abs().max() < 0.02 * clean.abs().max()


@every
def test_no_signal_gives_none(method):
    """Zero in, zero out; the mask and the grid travel."""
    case = make((0.005, 0.010), count=4)
    silent = dataclasses.replace(case.coils, signal=torch.zeros_like(case.coils.signal))
    out = method(silent)
    assert not out.signal.any()
    assert out.mask is silent.mask
    assert out.grid is silent.grid


@every
def test_slabs_do_not_show(method, monkeypatch):
    """Worked through in slabs of one plane, the result is the same."""
    case = make((0.005, 0.010), count=6, noise=0.03)
    whole = method(case.coils).signal
    monkeypatch.setattr("k2chi.recon.adaptive.SLAB_BYTES", 1)
    monkeypatch.setattr("k2chi.field.mdi.SLAB_BYTES", 1)
    torch.testing.assert_close(
        method(case.coils).signal, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max())
    )


def test_the_pulse_is_seen_in_adaptive_echoes_alone():
    """So that the tests above would notice if it were forgotten."""
    case = make((0.005, 0.010))
    kept = phase_error(beyond_field(AdaptiveCombine()(case.coils), case)[0], case.mask)
    assert kept.square().mean().sqrt() > 0.2
    assert (pulse_rad()[case.mask]).std() > 0.3


def test_without_a_mask_the_head_is_found():
    """By the magnitude over coils: the same phase as with the mask."""
    case = make((0.005, 0.010), noise=0.02, masked=False, count=8)
    error = phase_error(beyond_field(MCPC3DSCoils()(case.coils), case)[0], head(radius=0.8))
    assert error.square().mean().sqrt() < 0.05


def test_what_cannot_be_combined_is_refused():
    """Each message says what is needed."""
    one, uneven = make((0.005,), count=4).coils, make((0.005, 0.010, 0.018), count=4).coils
    with pytest.raises(ValueError, match="two echoes"):
        MCPC3DSCoils()(one)
    with pytest.raises(ValueError, match="two echoes"):
        ASPIRE()(one)
    with pytest.raises(ValueError, match="MDI needs two echoes"):
        MDI()(one)
    with pytest.raises(ValueError, match=r"5, 8 ms apart.*MCPC"):
        MDI()(uneven)
    with pytest.raises(ValueError, match="equally spaced"):
        mdi_r2star(uneven)
    with pytest.raises(ValueError, match="three echoes of a bipolar scan"):
        MDI()(make((0.005, 0.010), count=4, bipolar=True).coils)
    with pytest.raises(ValueError, match=r"multiple of TE2.*1\.5"):
        ASPIRE()(make((0.006, 0.010), count=4).coils)
    with pytest.raises(ValueError, match="positive width"):
        ASPIRE(sigma_mm=0)
    with pytest.raises(ValueError, match="0 < block_mm"):
        AdaptiveCombine(window_mm=1.0, block_mm=2.0)
    few = dataclasses.replace(one, noise=torch.randn(4, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match="more samples than coils"):
        AdaptiveCombine()(few)
    dead = torch.randn(4, 500, dtype=torch.complex64)
    dead[2] = 0
    with pytest.raises(ValueError, match="dead coil"):
        AdaptiveCombine()(dataclasses.replace(one, noise=dead))


def test_echo_times_of_aspire_may_be_rounded():
    """A multiple to within a hundredth, and any whole multiple."""
    for te in ((0.00492, 0.00982), (0.010, 0.015)):
        case = make(te, count=6)
        error = phase_error(beyond_field(ASPIRE()(case.coils), case)[0], case.mask)
        assert error.square().mean().sqrt() < 0.03

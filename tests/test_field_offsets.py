"""Phase offsets: what is known to be there at TE = 0 is taken off, and the field is left alone."""

import dataclasses
from math import tau

import pytest
import torch
from echo_cases import axes, ball, hills_hz, make, to_ppm

from k2chi.field import ASPIRE, MCPC3DS, MDI, ROMEO, KeepOffset, WeightedFit
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, box

TE = (0.004, 0.011, 0.019, 0.027)
NARROW = MCPC3DS(sigma_mm=5.0)  # the heads here are half as wide as heads are


def bowl():
    """An offset of more than a turn across the head, with a slope at its edge."""
    x, y, z = axes()
    return 0.7 + 3.0 * (x**2 + y**2) - 2.0 * z + 1.5 * x * y + 0.15 * torch.sin(3 * x + z)


def small_turns(x):
    """Radians within half a turn."""
    return x - tau * torch.round(x / tau)


def field_error(echoes, f, mask):
    """Root mean square error of the field [ppm], constants apart."""
    out = WeightedFit()(ROMEO()(echoes))
    off = (out.ppm - to_ppm(f))[mask]
    return float((off - off.mean()).square().mean().sqrt())


@pytest.mark.parametrize("masked", [True, False])
def test_a_smooth_offset_is_removed(masked):
    """Below 0.03 rad of 1.1 rad rms is left, and what is left costs the field under 2 ppb."""
    f, mask = hills_hz(), ball()
    magnitude = torch.where(mask, 1.0, 0.0).double()
    e = make(f, TE, offset=bowl(), magnitude=magnitude, noise=0.01, mask=mask if masked else None)
    out = NARROW(e)
    left = small_turns(out.signal[0].angle() - tau * f * TE[0])[mask]
    left = small_turns(left - torch.polar(torch.ones_like(left), left).sum().angle())
    assert left.square().mean().sqrt() < 0.03
    error = field_error(NARROW(make(f, TE, offset=bowl(), mask=mask)), f, mask)
    assert error < 0.002 < 0.02 < field_error(make(f, TE, offset=bowl(), mask=mask), f, mask)


def test_no_offset_stays_none():
    """With none to remove the signal comes back, but for one constant times TE."""
    f, mask = hills_hz(), ball()
    out = NARROW(make(f, TE, mask=mask))
    assert field_error(out, f, mask) < 1e-4


def test_magnitude_is_untouched():
    """Only phase changes, by the same amount in every echo."""
    e = make(hills_hz(), TE, offset=bowl(), r2star=30.0)
    out = NARROW(e)
    torch.testing.assert_close(out.signal.abs(), e.signal.abs())
    removed = small_turns((out.signal * e.signal.conj()).angle())
    torch.testing.assert_close(
        torch.polar(torch.ones_like(removed), removed - removed[:1]), torch.ones_like(removed) + 0j
    )


@pytest.mark.parametrize("te", [TE, (0.005, 0.010, 0.015)], ids=["uneven", "even"])
def test_bipolar_ramp_is_removed(te):
    """Even echoes with a ramp of 2 rad: gone when the scan says bipolar, an error when it does not."""
    f, mask = hills_hz(), ball()
    x, _y, z = axes()
    ramp = 0.2 + 1.0 * x - 0.3 * z
    errors = []
    for bipolar in (True, False):
        e = make(f, te, offset=bowl(), mask=mask, bipolar=bipolar)
        e.signal[1::2] *= torch.polar(torch.ones_like(ramp), ramp)
        errors.append(field_error(NARROW(e), f, mask))
    assert errors[0] < 0.003
    assert errors[1] > 10 * errors[0]


def test_one_echo_and_keeping():
    """One echo has no offset to find: the same object comes back, as from KeepOffset."""
    one = make(hills_hz(), (0.02,))
    many = make(hills_hz(), TE)
    assert NARROW(one) is one
    assert KeepOffset()(many) is many


def test_bad_voxels_stay_bad_alone():
    """NaN in one voxel does not spread."""
    e = make(hills_hz(), TE, offset=bowl())
    e.signal[0, 5, 6, 7] = complex("nan")
    out = NARROW(e).signal
    assert out.isfinite().logical_not().sum() == 1


def test_width_must_be_positive():
    """The message says so."""
    with pytest.raises(ValueError, match="positive width"):
        MCPC3DS(sigma_mm=0)


@pytest.mark.parametrize("odd_even", ["smooth", "ramp"])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_bipolar_ramp_along_all_axes(odd_even, count):
    """Either model takes off a ramp along three axes, of any number of echoes."""
    f, mask = hills_hz(), ball()
    x, y, z = axes()
    te = tuple(0.004 + 0.006 * k for k in range(count))
    ramp = -0.4 + 0.7 * x + 0.5 * y - 0.6 * z
    e = make(f, te, offset=bowl(), mask=mask, bipolar=True)
    e.signal[1::2] *= torch.polar(torch.ones_like(ramp), ramp)
    assert field_error(dataclasses.replace(NARROW, odd_even=odd_even)(e), f, mask) < 0.003


def test_a_ramp_is_no_more_than_a_ramp():
    """A bent phase between odd and even echoes needs the smooth model: the ramp leaves its bend."""
    f, mask = hills_hz(), ball()
    x, y, _z = axes()
    bent = 0.5 * x + 0.8 * (x**2 - y**2)
    e = make(f, TE, offset=bowl(), mask=mask, bipolar=True)
    e.signal[1::2] *= torch.polar(torch.ones_like(bent), bent)
    smooth, ramp = (field_error(MCPC3DS(5.0, model)(e), f, mask) for model in ("smooth", "ramp"))
    assert smooth < 0.003 < 0.01 < ramp


def test_a_bipolar_scan_of_a_head():
    """On the digital head at 7 T, read-out ramp of 2 rad and noise: 1 ppb, against 5 if it is not told."""
    te = (0.004, 0.012, 0.020, 0.028)
    scan = GRE(te, 7.0, snr=150, fine_mm=0, bipolar_rad=2.0)(DigitalHead(seed=1), box((4.0, 4.0, 4.0)))
    brain = scan.truth.brain
    for count in (3, 4):
        told = dataclasses.replace(scan.echoes.scan, te_s=te[:count])
        silent = dataclasses.replace(told, bipolar=False)
        for method in (MCPC3DS(), MCPC3DS(odd_even="ramp"), MDI()):
            errors = []
            for s in (told, silent):
                e = dataclasses.replace(scan.echoes, signal=scan.echoes.signal[:count], scan=s, mask=brain)
                off = (WeightedFit()(ROMEO()(method(e))).ppm - scan.truth.total_ppm)[brain]
                errors.append(float((off - off.median()).abs().median()))
            assert errors[0] < 0.001
            if not (isinstance(method, MDI) and count == 3):  # its two pairs cancel the ramp anyway
                assert errors[1] > 0.005


@pytest.mark.parametrize("te", [(0.006, 0.012, 0.018), (0.010, 0.015, 0.020)], ids=["m=1", "m=2"])
def test_aspire_is_mcpc_without_unwrapping(te):
    """The field to 2 ppb, and to 0.5 ppb that of MCPC-3D-S, where fields of 120 Hz wrap between echoes."""
    f, mask = hills_hz(), ball()
    e = make(f, te, offset=bowl(), noise=0.01, mask=mask)
    gained = (e.signal[1] * e.signal[0].conj()).angle() - tau * f * (te[1] - te[0])
    wraps = torch.round((gained - gained.median()) / tau)[mask]
    assert (te[0] != 0.006) or wraps.unique().numel() > 1
    free = ASPIRE(sigma_mm=5.0)(e)
    assert field_error(free, f, mask) < 0.0025
    a, b = (WeightedFit()(ROMEO()(m(e))).ppm[mask] for m in (ASPIRE(sigma_mm=5.0), NARROW))
    assert ((a - b) - (a - b).median()).abs().max() < 0.0005


def test_mdi_needs_no_offset():
    """The field without any trace of the offset, whatever it is."""
    f, mask = hills_hz(), ball()
    rough = 3.0 * torch.rand(f.shape, generator=torch.Generator().manual_seed(0)).double()
    out = MDI()(make(f, (0.003, 0.006, 0.009), offset=rough, r2star=40.0, mask=mask))
    assert out.scan.te_s == pytest.approx((0.003,))
    assert field_error(out, f, mask) < 1e-9

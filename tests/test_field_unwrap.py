"""Unwrapping: whole turns only, the truth where there is one, sense on real data."""

import dataclasses
from math import pi, tau
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from echo_cases import SHAPE, ball, hills_hz, make
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import unwrap_phase

from k2chi.data import Echoes, Grid, Scan
from k2chi.field import ROMEO, SEGUE, SPUN, BestPath, LaplacianUnwrap, Unwrapping, quality_map
from k2chi.field.romeo import unwrap_in_space

CROP = Path(__file__).parents[2] / "shared" / "data" / "romeo-crop"
EXACT = [
    ROMEO(),
    ROMEO(mode="individual"),
    ROMEO(regrow_above=0.5),
    *(method(mode=mode) for method in (SPUN, SEGUE, BestPath) for mode in ("template", "individual")),
    LaplacianUnwrap(exact=True),
    LaplacianUnwrap(exact=True, mode="template"),
]
assert {type(m) for m in EXACT} == set(get_args(Unwrapping))
exact = pytest.mark.parametrize("method", EXACT, ids=str)
# One of each, unwrapping in space what can be
ONE_OF_EACH = [m(exact=True) if m is LaplacianUnwrap else m() for m in get_args(Unwrapping)]
every = pytest.mark.parametrize("method", ONE_OF_EACH, ids=lambda m: type(m).__name__)
paths = pytest.mark.parametrize("method", ONE_OF_EACH[:-1], ids=lambda m: type(m).__name__)
assert not any(isinstance(m, LaplacianUnwrap) for m in ONE_OF_EACH[:-1])
TE = (0.005, 0.012, 0.021)


def turns_added(echoes):
    """What unwrapping added to the measured phase, in turns."""
    return (echoes.unwrapped_rad - echoes.signal.angle()) / tau


@exact
@pytest.mark.parametrize("masked", [True, False])
def test_only_whole_turns_are_added(method, masked):
    """Also in noise, in air and where there is no mask."""
    mask = ball()
    magnitude = torch.where(mask, 1.0, 0.02).double()
    out = method(make(hills_hz(), TE, magnitude=magnitude, noise=0.1, mask=mask if masked else None))
    added = turns_added(out)
    torch.testing.assert_close(added, added.round(), rtol=0, atol=1e-9)


@exact
@pytest.mark.parametrize("te", [(0.005,), TE])
def test_smooth_phase_comes_back(method, te):
    """Steps below half a turn: the truth, up to one number of turns for the volume."""
    f = hills_hz() * (1 if len(te) == 3 else 4)
    steps = [(tau * f * te[-1]).diff(dim=a).abs().max() for a in range(3)]
    assert max(steps) < pi
    out = method(make(f, te, mask=ball()))
    inside = ball()
    off = (out.unwrapped_rad - torch.stack([tau * f * t for t in te]))[:, inside]
    assert (tau * f * te[-1])[inside].abs().max() > 1.5 * pi  # there was something to unwrap
    torch.testing.assert_close(off, off[:, :1].expand_as(off), rtol=0, atol=1e-6)


@given(seed=st.integers(0, 999), shape=st.tuples(*[st.integers(2, 9)] * 3))
@settings(max_examples=30, deadline=None)
def test_any_smooth_phase_on_any_small_grid(seed, shape):
    """Random planes with steps up to 0.9 of half a turn."""
    slope = (
        (torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5) * 1.8 * pi
    )
    at = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij")
    true = sum(s * a for s, a in zip(slope, at, strict=True))
    found = unwrap_in_space(torch.polar(torch.ones_like(true), true).angle(), torch.ones_like(true))
    off = found - true
    torch.testing.assert_close(off, off[:1, :1, :1].expand_as(off), rtol=0, atol=1e-6)


@every
def test_template_and_individual_agree_with_noise(method):
    """At SNR 10 both find the true turns in every voxel of the mask, in every echo."""
    f, mask = hills_hz(), ball()
    for mode in ("template", "individual"):
        out = dataclasses.replace(method, mode=mode)(make(f, TE, noise=0.1, mask=mask))
        for k, t in enumerate(TE):
            away = (out.unwrapped_rad[k] - tau * f * t)[mask].abs()
            assert away.max() < pi, (mode, k)


@every
def test_later_template_gives_the_same(method):
    """Echo 1 or echo 2 as template: same turns."""
    e = make(hills_hz(), TE, noise=0.03, mask=ball())
    a, b = method(e).unwrapped_rad, dataclasses.replace(method, template=1)(e).unwrapped_rad
    torch.testing.assert_close(a[:, ball()], b[:, ball()], rtol=0, atol=1e-9)


@every
@pytest.mark.parametrize("gap", [0.0, 1e-3])
def test_parts_that_do_not_touch_agree(method, gap):
    """Two halves with nothing, or noise, between them: offsets by the nearest voxels, or by echo 2."""
    f = hills_hz(top=60.0)
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[17:20] = False
    magnitude = torch.where(mask, 1.0, gap).double()
    for te in ((0.02,), TE):
        out = method(make(f, te, magnitude=magnitude, noise=gap, mask=mask))
        off = (out.unwrapped_rad - torch.stack([tau * f * t for t in te]))[:, mask]
        assert off.round(decimals=1).unique().numel() <= 2
        assert off.std() < 0.02


@every
def test_far_part_follows_its_nearest_voxels(method):
    """One echo, three turns up a ramp from where the large part is centred: no turn is lost in the gap."""
    x = torch.linspace(-1, 1, SHAPE[0]).double()[:, None, None].expand(SHAPE)
    f = 10 * x / tau / 0.02
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[28:31] = False
    out = method(make(f, (0.02,), magnitude=mask.double(), mask=mask))
    off = (out.unwrapped_rad[0] - tau * f * 0.02)[mask]
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-6)


@paths
def test_mask_is_unwrapped_before_what_is_outside(method):
    """A smooth but wrong way round outside (a whole turn gained) does not reach noisy voxels inside."""
    phase = 0.4 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[17:20] = False
    phase[17:20] = torch.linspace(0, tau, SHAPE[1]).double()[:, None]
    e = make(0 * phase, (0.01,), offset=phase, mask=mask)
    assert method(e).unwrapped_rad[0][mask].abs().max() < pi


@every
def test_second_echo_decides_between_turns(method):
    """A part 130 Hz off: the nearest voxels mislead by a turn of echo 1, the second echo does not."""
    f = torch.zeros(SHAPE, dtype=torch.float64)
    f[20:] = 130.0
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[17:20] = False
    out = method(make(f, (0.005, 0.012), mask=mask))
    torch.testing.assert_close(out.unwrapped_rad[0][mask], (tau * f * 0.005)[mask], rtol=0, atol=1e-6)


def sphere_hz(te_s, radius=9.0, pole_rad=12.0, shape=(46, 45, 50)):
    """Closed-form field of a sphere off the centre [Hz], `pole_rad` at its pole, and what is outside it."""
    at = [torch.arange(n, dtype=torch.float64) - m for n, m in zip(shape, (22, 24, 23), strict=True)]
    x, y, z = torch.meshgrid(*at, indexing="ij")
    r = (x**2 + y**2 + z**2).sqrt()
    outside = r > radius
    f = pole_rad / 2 * radius**3 * (3 * z**2 - r**2) / r.clamp_min(1) ** 5
    return (f + 0.15 * y) * outside / (tau * te_s), outside


@every
@pytest.mark.parametrize("silent", [True, False])
def test_several_turns_around_a_sphere(method, silent):
    """A hole without signal, or with noise that the mask leaves out; phase gains three turns around it."""
    f, mask = sphere_hz(0.01)
    phase = tau * f * 0.01
    assert (phase[mask].max() - phase[mask].min()) > 3 * tau
    both = [mask.narrow(a, 1, n - 1) & mask.narrow(a, 0, n - 1) for a, n in enumerate(mask.shape)]
    assert max(float(phase.diff(dim=a)[both[a]].abs().max()) for a in range(3)) < pi
    e = make(f, (0.01,), magnitude=mask.double(), mask=mask)
    if not silent:
        e = dataclasses.replace(e, signal=e.signal + ~mask * make(0 * f, (0.01,), 0.0, noise=1.0).signal)
    off = (method(e).unwrapped_rad[0] - phase)[mask]
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-6)


@paths
def test_noise_is_walked_around(method):
    """A wall of noise with a door of 9 voxels, and a slope of phase: both rooms get the same turns."""
    y = torch.linspace(-4, 4, SHAPE[1]).double()[None, :, None].expand(SHAPE)
    e = make(0 * y, (0.01,), offset=2 * y)
    wall = make(0 * y, (0.01,), magnitude=torch.zeros(SHAPE).double(), noise=1.0, seed=5)
    noisy = torch.zeros(SHAPE, dtype=torch.bool)
    noisy[16:19] = True
    noisy[:, 19:22, 14:17] = False
    e = dataclasses.replace(e, signal=torch.where(noisy, wall.signal, e.signal))
    off = (method(e).unwrapped_rad[0] - 2 * y)[~noisy]
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-6)


def share_wrong(unwrapped, true, mask):
    """Share of voxels that are not nearest to the truth, up to one number of turns for all."""
    turns = ((unwrapped - true)[mask] / tau).round()
    return float((turns != turns.mode().values).double().mean())


@every
def test_few_voxels_are_wrong_at_low_snr(method):
    """SNR 3 and steps of up to half a turn: unwrapped line by line 6 % are wrong, here less than 2.5 %."""
    f, mask = hills_hz(top=200.0), ball()
    e = make(f, (0.02,), noise=0.3, mask=mask)
    true = tau * f * 0.02
    lines = torch.from_numpy(np.unwrap(np.unwrap(np.unwrap(e.signal[0].angle(), axis=0), axis=1), axis=2))
    assert share_wrong(lines, true, mask) > 0.05
    assert share_wrong(method(e).unwrapped_rad[0], true, mask) < 0.025


@every
def test_calcification_spoils_only_its_surface(method):
    """−3.3 ppm, 4 voxels of radius, 7 T, 12 ms: 49 rad at its pole, with steps of several turns."""
    shape = (48, 50, 52)
    f, outside = sphere_hz(
        0.012, radius=4.0, pole_rad=-2 / 3 * 3.3 * tau * 42.577478 * 7 * 0.012, shape=shape
    )
    e = make(f, (0.012,), magnitude=0.1 + 0.9 * outside.double(), noise=0.1, mask=ball(shape) | ~outside)
    wrong = share_wrong(method(e).unwrapped_rad[0], tau * f * 0.012, ball(shape) & outside)
    assert wrong < 0.02


@pytest.mark.parametrize("borders", ["array", "periodic"])
def test_laplacian_in_one_transform(borders):
    """Waves that fit into the array, three turns high: the smooth solution is the truth."""
    x, y, z = torch.meshgrid(*[torch.arange(n).double() / n for n in SHAPE], indexing="ij")
    phase = 9 * torch.cos(tau * (x - 2 * y)) + 2 * torch.sin(tau * z)
    e = make(0 * x, (0.01,), offset=phase)
    out = LaplacianUnwrap(borders=borders)(e).unwrapped_rad[0]
    off = out - phase
    torch.testing.assert_close(off, off[:1, :1, :1].expand_as(off), rtol=0, atol=1e-9)
    ramp = phase + 20 * x
    away = LaplacianUnwrap(borders=borders)(make(0 * x, (0.01,), offset=ramp)).unwrapped_rad[0] - ramp
    assert (away.std() < 1e-9) == (borders == "array")  # a ramp does not fit where faces touch


def test_laplacian_means_follow_from_echo_to_echo():
    """A mean of four turns at the last echo, and a part of the mask three turns higher."""
    f = 160 + hills_hz()
    mask = ball()
    mask[19:22] = False
    f[22:] += 90
    assert (tau * f * TE[-1])[mask].mean() > 4 * tau
    out = LaplacianUnwrap(iterations=300, tolerance=1e-9)(make(f, TE, mask=mask)).unwrapped_rad
    true = torch.stack([tau * f * t for t in TE])
    torch.testing.assert_close(out[:, mask], true[:, mask], rtol=0, atol=1e-5)


@every
def test_single_precision_and_device_are_kept(method):
    """What comes in as complex64 goes out as float32, where it came from."""
    e = make(hills_hz(), TE, mask=ball())
    single = dataclasses.replace(e, signal=e.signal.to(torch.complex64))
    out = method(single).unwrapped_rad
    assert out.dtype == torch.float32
    assert out.device == e.signal.device
    torch.testing.assert_close(out.double(), method(e).unwrapped_rad, rtol=0, atol=1e-4)


def test_no_nan_comes_out():
    """NaN, infinite and zero voxels are left out and the others come back."""
    f, mask = hills_hz(), ball()
    e = make(f, TE, mask=mask)
    bad = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.03
    for value in (complex("nan"), complex("inf"), 0):
        spoilt = e.signal.clone()
        spoilt[1, bad] = value
        for method in EXACT:
            out = method(dataclasses.replace(e, signal=spoilt)).unwrapped_rad
            assert out.isfinite().all()
            good = mask & ~bad
            off = (out[2] - tau * f * TE[2])[good]
            assert (off - off.median()).abs().max() < 1e-6


def test_laplacian_finds_smooth_phase_inside_a_mask():
    """Noise outside the mask does no harm: the smooth solution itself is right."""
    f, mask = hills_hz(), ball()
    e = make(f, TE, magnitude=torch.where(mask, 1.0, 0.0).double(), mask=mask)
    e = dataclasses.replace(e, signal=e.signal + ~mask * make(0 * f, TE, 0.0, noise=1.0).signal)
    out = LaplacianUnwrap(iterations=200, tolerance=1e-9)(e).unwrapped_rad
    off = (out[2] - tau * f * TE[2])[mask]
    torch.testing.assert_close(off, off[:1].expand_as(off), rtol=0, atol=1e-5)


def test_quality_is_high_in_signal_and_low_in_noise():
    """One where phase is flat, below one half in noise."""
    mask = ball()
    e = make(0 * hills_hz(), TE, magnitude=torch.where(mask, 1.0, 0.0).double(), noise=1e-3)
    q = quality_map(e)
    assert q[ball(radius=0.7)].min() > 0.95
    assert q[~ball(radius=1.0)].mean() < 0.5


@every
def test_turns_agree_with_another_program(method):
    """scikit-image's sorting by reliability, on the same noisy volume."""
    e = make(2 * hills_hz(), (0.01,), noise=0.1)
    ours = method(e).unwrapped_rad[0].numpy()
    theirs = unwrap_phase(e.signal[0].angle().numpy())
    off = ours - theirs
    assert np.abs(off - np.median(off)).max() < 1e-6


def test_bad_settings_are_refused():
    """Each message says what to choose."""
    with pytest.raises(ValueError, match="counted from 0"):
        ROMEO(template=-1)
    with pytest.raises(ValueError, match="there are 1 echoes"):
        ROMEO(template=2)(make(hills_hz(), (0.01,)))
    with pytest.raises(ValueError, match="share from 0 to 1"):
        ROMEO(regrow_above=2)
    with pytest.raises(ValueError, match="at least 1 iteration"):
        LaplacianUnwrap(iterations=0)
    with pytest.raises(ValueError, match="choose exact = true"):
        LaplacianUnwrap(mode="template")
    with pytest.raises(ValueError, match="choose 4 to 100"):
        SEGUE(bins=1)
    with pytest.raises(ValueError, match="choose 1 to 128"):
        SPUN(classes=0)
    for method in get_args(Unwrapping):
        with pytest.raises(ValueError, match=f"{method.__name__} template -1"):
            method(template=-1)


def crop():
    """The real crop: raw stored values are already radians, the header's slope is a trap."""
    if not CROP.exists():
        pytest.skip("the romeo-crop data are not beside the repository")
    import nibabel

    phase = nibabel.load(CROP / "Phase.nii")
    raw = np.asarray(phase.dataobj.get_unscaled(), np.float32)
    assert np.abs(raw).max() <= pi + 1e-3
    size = np.asarray(nibabel.load(CROP / "Mag.nii").dataobj.get_unscaled(), np.float32)
    signal = torch.from_numpy(size * np.exp(1j * raw)).movedim(-1, 0).to(torch.complex64).contiguous()
    grid = Grid.of(tuple(signal.shape[1:]), tuple(map(float, phase.header.get_zooms()[:3])))
    return Echoes(signal, grid, Scan((0.004, 0.008, 0.012), 7.0))


@pytest.mark.shared
@every
def test_real_crop_is_smooth_and_consistent(method):
    """Few steps beyond half a turn where signal is strong, and the two modes agree on most voxels."""
    e = crop()
    strong = (e.signal.abs() > 0.3 * e.signal.abs().amax((1, 2, 3), keepdim=True)).all(0)
    e = dataclasses.replace(e, mask=strong)
    a, b = (dataclasses.replace(method, mode=m)(e).unwrapped_rad for m in ("template", "individual"))
    for k in range(3):
        for axis in range(3):
            both = strong.narrow(axis, 1, strong.shape[axis] - 1) & strong.narrow(
                axis, 0, strong.shape[axis] - 1
            )
            big = a[k].diff(dim=axis)[both].abs() > pi
            assert big.float().mean() < 0.002
        assert ((a[k] - b[k])[strong].abs() < 0.1).float().mean() > 0.98
    # Differences between successive echoes are one field, seen twice (4 ms each).
    first, second = (a[1] - a[0])[strong], (a[2] - a[1])[strong]
    assert (first - second).abs().median() < 0.3


@pytest.mark.shared
def test_real_phase_with_nan():
    """The stored volume with NaN comes back finite."""
    if not CROP.exists():
        pytest.skip("the romeo-crop data are not beside the repository")
    import nibabel

    raw = np.asarray(nibabel.load(CROP / "phase_with_nan.nii").dataobj, np.float32)
    assert np.isnan(raw).any()
    for one in torch.from_numpy(raw).unbind(-1):
        out = unwrap_in_space(one, torch.ones_like(one))
        assert out.isfinite().all()
        added = ((out - one) / tau)[one.isfinite()]
        assert (added - added.round()).abs().max() < 1e-5

"""Phases of shots: known errors are found and taken off, the image keeps its own phase."""

from dataclasses import replace

import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps

from k2chi.ops.fourier import ifft
from k2chi.recon.assemble import Assemble
from k2chi.recon.averages import AlignedAverages
from k2chi.recon.readouts import Readouts, group
from k2chi.recon.shotrank import FittedShots
from k2chi.recon.shots import NavigatedShots, SteadyDrift, relative

SHAPE = (24, 20, 6)
OBJECT = picture(SHAPE, wide=0.9)
TRUTH = OBJECT * smooth_maps(3, SHAPE)


def scan(**plan):
    return raw_of(OBJECT[None], smooth_maps(3, SHAPE), Plan(**{"shots": 4, **plan}))


def error(k, truth=TRUTH):
    """What is left after one phase for the whole image is taken out."""
    image = ifft(k.data[0])
    turn = torch.angle((image * truth.conj()).sum())
    return float((image * torch.exp(-1j * turn) - truth).norm() / truth.norm())


def test_relative_finds_phases_with_mean_zero():
    generator = torch.Generator().manual_seed(1)
    n = torch.randn(3, 2, 9, dtype=torch.complex128, generator=generator)
    rad = torch.tensor([0.5, -0.8, 0.1, 0.2], dtype=torch.float64)
    found = relative(n * torch.exp(1j * rad)[:, None, None, None])
    mean = torch.angle(torch.exp(1j * rad).mean())
    assert torch.allclose(found, rad - mean, atol=1e-9)


def test_each_shot_gets_its_phase_back():
    raw = scan(shot_rad=0.5)
    assert error(Assemble(shots=None)(raw, 0)) > 0.2
    assert error(Assemble(shots=NavigatedShots("constant"))(raw, 0)) < 1e-4


def test_slices_are_compared_with_themselves():
    raw = scan(shot_rad=0.5, slices=True)
    image, truth = ifft(Assemble(shots=NavigatedShots("constant"))(raw, 0).data[0]), TRUTH
    inner = (image * truth.conj()).sum((0, 1, 2))
    ratio = inner.abs() / truth.abs().square().sum((0, 1, 2)).clamp_min(1e-9)
    assert ratio[1:-1].min() > 1 - 1e-3


def test_a_field_shift_grows_with_time():
    """Shots off by some Hz: a navigator sees little of the phase at the echo time; `field` knows how much."""
    raw = scan(tr_s=0.1)
    hz = 10 * torch.randn(1000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def moved(block):
        since = block.time_s - 0.1 * torch.floor(block.time_s / 0.1)
        return replace(
            block, data=block.data * torch.exp(2j * torch.pi * hz[block.shot] * since)[:, None, None]
        )

    bad = replace(
        raw,
        lines=lambda echo: (moved(b) for b in raw.lines(echo)),
        navigators=lambda echo: moved(raw.navigators(echo)),
    )
    kept = error(Assemble(shots=None)(bad, 0))
    assert kept > 0.3
    constant = error(Assemble(shots=NavigatedShots("constant"))(bad, 0))
    assert constant > kept / 2
    assert error(Assemble()(bad, 0)) < 0.02
    timeless = replace(
        bad,
        lines=lambda echo: (replace(b, time_s=None) for b in bad.lines(echo)),
        navigators=lambda echo: replace(bad.navigators(echo), time_s=None),
    )
    with pytest.warns(UserWarning, match="held constant"):
        assert error(Assemble()(timeless, 0)) == pytest.approx(constant, rel=1e-6)
    coarse = replace(bad, navigators=lambda echo: replace(n := bad.navigators(echo), time_s=n.time_s - 1))
    with pytest.warns(UserWarning, match="too coarse"):
        Assemble()(coarse, 0)


def test_steady_drift_is_found_without_navigators():
    """A drift by known Hz over a scan whose shots interleave."""
    raw = scan(drift_hz=15.0, navigators=False)
    clean = scan(navigators=False)
    assert error(Assemble(ghost=None)(raw, 0)) > 0.1
    fixed = Assemble(ghost=None, shots=SteadyDrift())(raw, 0)
    assert error(fixed) < 0.05 or _moved(fixed, Assemble(ghost=None)(clean, 0)) < 0.02


def _moved(a, b):
    """Difference of magnitudes: a drift along the slow encoding is also a shift."""
    x, y = ifft(a.data[0]).abs(), ifft(b.data[0]).abs()
    return float((x - y).norm() / y.norm())


def test_drift_in_closed_form():
    """The polynomial that comes out is the one that went in, up to its mean."""
    raw = scan(drift_hz=15.0, navigators=False, tr_s=0.05)
    readouts = Readouts(raw, 0)
    lines = readouts.central(100)
    phase = SteadyDrift(points=100)(readouts)
    offset, slope = phase(lines)
    expected = 2 * torch.pi * 15.0 * 0.02 * lines.time_s / lines.time_s.max()
    assert not slope.any()
    fit = torch.stack([lines.time_s, torch.ones_like(lines.time_s)], 1)
    found = torch.linalg.lstsq(fit, offset[:, None]).solution[0]
    true = torch.linalg.lstsq(fit, expected[:, None]).solution[0]
    assert float(found) == pytest.approx(float(true), rel=0.05)


def test_where_nothing_drifts_nothing_is_found():
    assert SteadyDrift()(Readouts(scan(navigators=False), 0)) is None


WIDE = (24, 40, 12)
SPREAD = picture(WIDE, wide=0.9)


def without_navigators(**plan):
    """Five interleaved shots for each partition or slice, six coils."""
    plan = {"shots": 5, "navigators": False, "tr_s": 0.05, "block": 10**4, **plan}
    return raw_of(SPREAD[None], smooth_maps(6, WIDE), Plan(**plan))


def every(step):
    """Lines at a distance."""
    keep = torch.zeros(WIDE[1:], dtype=torch.bool)
    keep[::step] = True
    return keep


def test_shots_fit_where_every_second_line_was_read():
    """The folded images lose most of their error."""
    folded, bad = (without_navigators(keep=every(2), shot_rad=r) for r in (0.0, 0.4))
    truth = ifft(Assemble(ghost=None)(folded, 0).data[0])
    found = [error(Assemble(ghost=None, shots=s)(bad, 0), truth) for s in (None, FittedShots(points=40))]
    assert found[0] > 0.2
    assert found[1] < 0.08


def test_lines_at_uneven_distances_are_told():
    """Nothing is found where no three lines follow each other evenly."""
    keep = torch.zeros(WIDE[1:], dtype=torch.bool)
    keep[[0, 1, 3, 7, 8, 12, 14, 15, 19, 20, 22, 26, 28, 33, 34, 38]] = True
    with pytest.warns(UserWarning, match="equal distances"):
        assert FittedShots()(Readouts(without_navigators(keep=keep), 0)) is None


@pytest.mark.parametrize("plan", [{}, {"averages": 2}, {"noise": 0.02}], ids=str)
def test_shots_fit_without_navigators(plan):
    """Random phases of 0.4 rad: a quarter or less of the error stays in the images of each average."""
    raw, truth = without_navigators(shot_rad=0.4, **plan), SPREAD * smooth_maps(6, WIDE)
    found = {}
    for shots in (None, FittedShots()):
        for average in range(plan.get("averages", 1)):
            one = replace(raw, lines=lambda echo, n=average: (b[b.average == n] for b in raw.lines(echo)))
            found[shots, average] = error(Assemble(ghost=None, shots=shots, averages=None)(one, 0), truth)
    both = Assemble(ghost=None, shots=FittedShots(), averages=AlignedAverages())(raw, 0)
    left = [v for (shots, _), v in found.items() if shots is not None]
    assert min(v for (shots, _), v in found.items() if shots is None) > 0.3
    assert max(*left, error(both, truth)) < 0.09


def test_a_fitted_phase_grows_with_time_and_reaches_every_partition():
    """In proportion to the time since the pulse, 20 ms at the shot's mean; also where no line is central."""
    raw = without_navigators(shot_rad=0.4, spacing_s=0.002)
    lines = next(raw.lines(0))
    found, _ = FittedShots(points=8)(Readouts(raw, 0))(lines)
    assert found[(lines.kz - 6).abs() > 4].abs().min() > 0
    found, _ = FittedShots(points=40)(Readouts(raw, 0))(lines)
    for index in group(lines, "shot").values():
        since = 0.02 + lines.time_s[index] - lines.time_s[index].mean()
        assert since.max() - since.min() > 0.01
        rate = found[index] / since
        assert torch.allclose(rate, rate.mean(), rtol=1e-4, atol=0)


def test_slices_are_left_alone():
    """A slice has too few lines; that is told."""
    with pytest.warns(UserWarning, match="3D scans only"):
        assert FittedShots()(Readouts(without_navigators(slices=True), 0)) is None


def test_shots_that_fit_are_left_alone():
    """Nothing wrong but noise: nothing found."""
    assert FittedShots()(Readouts(without_navigators(noise=0.05), 0)) is None


def test_nothing_to_do():
    raw = scan(shots=0)
    assert NavigatedShots()(Readouts(raw, 0)) is None
    one = scan(shots=1)
    assert all(len(i) == SHAPE[1] for i in group(Readouts(one, 0).central(100), "shot").values())


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="order"):
        SteadyDrift(order=0)
    with pytest.raises(ValueError, match="points"):
        SteadyDrift(points=4)

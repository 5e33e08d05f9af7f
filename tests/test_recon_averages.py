"""Averages that differ by phase and drift add up to the image they have in common."""

from dataclasses import replace

import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps

from k2chi.ops.fourier import ifft
from k2chi.recon.assemble import Assemble
from k2chi.recon.averages import AlignedAverages
from k2chi.recon.readouts import Readouts

SHAPE = (24, 20, 6)
OBJECT = picture(SHAPE, wide=0.9)
TRUTH = OBJECT * smooth_maps(3, SHAPE)


def scan(**plan):
    return raw_of(OBJECT[None], smooth_maps(3, SHAPE), Plan(**{"averages": 2, **plan}))


def error(k):
    image = ifft(k.data[0])
    turn = torch.angle((image * TRUTH.conj()).sum())
    return float((image * torch.exp(-1j * turn) - TRUTH).norm() / TRUTH.norm())


def gain(k):
    """Signal of the image over that of the truth: what phases that disagree cancel."""
    image = ifft(k.data[0])
    return float((image * TRUTH.conj()).sum().abs() / TRUTH.abs().square().sum())


@pytest.mark.parametrize("averages", [2, 3])
def test_a_steady_drift_between_and_within_averages_goes(averages):
    raw = scan(averages=averages, drift_hz=20.0)
    assert gain(Assemble(averages=None)(raw, 0)) < 0.9
    assert gain(Assemble()(raw, 0)) > 0.9999
    assert error(Assemble()(raw, 0)) < 5e-3


def test_steps_between_averages_go():
    """A phase of each average and none within: one offset each."""
    base = scan()
    raw = _stepped(base, (0.0, 1.4))
    assert error(Assemble(averages=AlignedAverages(steady=False))(raw, 0)) < 1e-3
    assert gain(Assemble(averages=None)(raw, 0)) == pytest.approx(
        torch.cos(torch.tensor(0.7)).item(), abs=1e-4
    )


def test_offset_in_closed_form():
    readouts = Readouts(_stepped(scan(), (0.0, 1.4)), 0)
    phase = AlignedAverages(steady=False)(readouts)
    lines = readouts.central(100)
    offset, slope = phase(lines)
    assert torch.allclose(offset, torch.where(lines.average == 1, 0.7, -0.7).double(), atol=1e-4)
    assert slope.abs().max() < 1e-6


def test_along_an_epi_train_the_phase_grows():
    """A field shift of one average moves its image along the phase encoding as well."""
    base = scan(shots=1, spacing_s=0.0005, navigators=False)
    raw = _off(base, 8.0)
    phase = AlignedAverages(steady=False)(Readouts(raw, 0))
    lines = Readouts(raw, 0).central(100)
    since = lines.time_s % 0.05
    expected = 2 * torch.pi * 8.0 * since * torch.where(lines.average == 1, 0.5, -0.5)
    assert torch.allclose(phase(lines)[0], expected, atol=0.01)
    aligned = Assemble(ghost=None, averages=AlignedAverages(steady=False))(raw, 0)
    assert error(aligned) < 0.02
    assert error(Assemble(ghost=None, averages=None)(raw, 0)) > 0.1


def test_opposite_polarities_cancel_half_the_ghost():
    """Averages that start with opposite polarities: what would be a ghost becomes a small loss of signal."""
    both = Assemble(ghost=None)(scan(shots=1, alternate=True, ghost=(0.4, 0.0), navigators=False), 0)
    same = Assemble(ghost=None)(scan(shots=1, alternate=False, ghost=(0.4, 0.0), navigators=False), 0)
    assert error(both) < 0.03  # 1 − cos 0.2
    assert error(same) > 0.15


def test_interleaved_averages_have_one_offset_each():
    """Readouts averaged line by line have no drift to tell: times overlap, so offsets stay constant."""
    raw = _interleaved(_stepped(scan(), (0.0, 1.0)))
    assert error(Assemble()(raw, 0)) < 1e-3


def test_noise_falls_as_averages_rise():
    noise = 0.2
    one = raw_of(OBJECT[None], smooth_maps(3, SHAPE), Plan(noise=noise, drift_hz=20.0))
    four = scan(averages=4, noise=noise, drift_hz=20.0)
    assert error(Assemble()(four, 0)) < 0.6 * error(Assemble()(one, 0))


def test_without_common_readouts_it_says_so():
    base = scan()
    raw = replace(base, lines=lambda echo: (b[(b.ky % 2 == b.average)] for b in base.lines(echo)))
    with pytest.raises(ValueError, match="in common"):
        Assemble()(raw, 0)
    with pytest.raises(ValueError, match="points"):
        AlignedAverages(points=0)


def _turned(raw, rad):
    return replace(
        raw,
        lines=lambda echo: (
            replace(b, data=b.data * torch.exp(1j * rad(b))[:, None, None]) for b in raw.lines(echo)
        ),
    )


def _stepped(raw, steps):
    steps = torch.tensor(steps, dtype=torch.float64)
    return _turned(raw, lambda b: steps[b.average])


def _off(raw, hz):
    """The second average off by `hz`, from the excitation on."""
    return _turned(
        raw, lambda b: 2 * torch.pi * hz * b.average * (b.time_s - 0.05 * torch.floor(b.time_s / 0.05))
    )


def _interleaved(raw):
    def lines(echo):
        blocks = list(raw.lines(echo))
        labels = ("data", "ky", "kz", "average", "shot", "reverse")
        whole = type(blocks[0])(*(torch.cat([getattr(b, n) for b in blocks]) for n in labels))
        order = torch.argsort(whole.ky * 1000 + whole.kz * 10 + whole.average)
        yield replace(whole[order], time_s=torch.arange(len(order), dtype=torch.float64) * 0.05)

    return replace(raw, lines=lines)

"""Forward and reversed readouts come onto each other: against ghosts of known size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps
from scipy.ndimage import binary_dilation, binary_fill_holes

from k2chi.io import twix
from k2chi.ops.fourier import fft, ifft
from k2chi.recon.assemble import Assemble
from k2chi.recon.ghost import Navigated, Refined, difference, offset_and_slope
from k2chi.recon.ghostrank import cost, planes
from k2chi.recon.readouts import Readouts

SHAPE = (32, 24, 4)
OBJECT = picture(SHAPE, wide=0.95)
TRUTH = OBJECT * smooth_maps(3, SHAPE)


def epi(**plan):
    plan = {"shots": 1, "ghost": (0.4, 0.06), **plan}
    return raw_of(OBJECT[None], smooth_maps(3, SHAPE), Plan(**plan))


def phase_error(k, truth=TRUTH):
    """Root mean square of the phase left in the object [rad], weighted by the signal."""
    image = ifft(k.data[0])
    d = image * truth.conj()
    d = d * torch.exp(-1j * torch.angle(d.sum()))
    weight = truth.abs().square()
    return float(((torch.angle(d).square() * weight).sum() / weight.sum()).sqrt())


def test_offset_and_slope_of_a_known_phase():
    x = torch.arange(40, dtype=torch.float64) - 20
    d = (x.abs() < 15) * torch.exp(1j * (0.7 - 0.31 * x)) * (1 + 0.3 * torch.cos(x))
    assert offset_and_slope(d, 20) == pytest.approx((0.7, -0.31), abs=1e-9)


def test_steady_growth_between_navigators_drops_out():
    """Phase that grows with time (off-resonance) is no difference between the polarities."""
    n = (
        torch.ones(3, 2, 9, dtype=torch.complex128)
        * torch.exp(1j * torch.tensor([0.0, 0.5, 1.0]))[:, None, None]
    )
    d = difference(n, torch.tensor([False, True, False]))
    assert torch.allclose(torch.angle(d), torch.zeros(9, dtype=torch.float64), atol=1e-6)
    n[1] *= torch.exp(torch.tensor(0.2j))
    assert torch.allclose(
        torch.angle(difference(n, torch.tensor([False, True, False]))), torch.tensor(0.2).double()
    )
    assert torch.allclose(
        torch.angle(difference(n, torch.tensor([True, False, True]))), torch.tensor(-0.2).double()
    )


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize(
    "ghost", [Navigated(), Navigated("slice"), Navigated("scan"), Refined(), Refined(None)]
)
def test_the_ghost_goes_and_the_phase_is_right(ghost, shots):
    raw = epi(shots=shots)
    before = phase_error(Assemble(ghost=None)(raw, 0))
    after = phase_error(Assemble(ghost=ghost)(raw, 0))
    assert before > 0.02
    assert after < (1e-4 if isinstance(ghost, Navigated) else 0.003)


def test_a_constant_left_in_is_an_error_of_phase():
    """cos and sin of half the angle: image and ghost of a single-shot scan in closed form."""
    raw = epi(ghost=(0.5, 0.0))
    image = ifft(Assemble(ghost=None)(raw, 0).data[0])
    ghost = TRUTH.roll(SHAPE[1] // 2, 2)
    angle = torch.tensor(0.25, dtype=torch.float64)
    expected = torch.cos(angle) * TRUTH - 1j * torch.sin(angle) * ghost
    other = torch.cos(angle) * TRUTH + 1j * torch.sin(angle) * ghost
    assert min(float((image - e).norm() / TRUTH.norm()) for e in (expected, other)) < 1e-5


def test_either_polarity_takes_half():
    readouts = Readouts(epi(), 0)
    lines = next(readouts.lines())
    offset, slope = Navigated()(readouts)(lines)
    sign = torch.where(lines.reverse, 1.0, -1.0).double()
    assert torch.allclose(offset, 0.2 * sign, atol=1e-4)
    assert torch.allclose(slope, 0.03 * sign, atol=1e-5)


def test_shots_have_their_own_ghost():
    """Shots whose ghosts differ are corrected by their own navigators, not by the mean of all."""
    base = epi(shots=2, ghost=(0.0, 0.0))

    def bent(block):
        sign = torch.where(block.reverse, 0.5, -0.5) * torch.where(block.shot % 2 == 0, 0.6, -0.6)
        return replace(block, data=block.data * torch.exp(1j * sign)[:, None, None])

    raw = replace(
        base,
        lines=lambda echo: (bent(b) for b in base.lines(echo)),
        navigators=lambda echo: bent(base.navigators(echo)),
    )
    assert phase_error(Assemble(ghost=Navigated("shot"))(raw, 0)) < 1e-4
    assert phase_error(Assemble(ghost=Navigated("scan"))(raw, 0)) > 0.01


def test_refined_mends_navigators_that_lie():
    base = epi(ghost=(0.4, 0.06))
    lie = replace(
        base,
        navigators=lambda echo: replace(
            n := base.navigators(echo),
            data=n.data * torch.exp(0.5j * torch.where(n.reverse, 1.0, 0.0))[:, None, None],
        ),
    )
    assert phase_error(Assemble(ghost=Navigated())(lie, 0)) > 0.02
    assert phase_error(Assemble(ghost=Refined())(lie, 0)) < 0.003


def test_navigators_that_are_right_are_left_alone():
    """By chance noise lowers the cost a little: that is not believed, unless one asks for it."""
    raw = epi(noise=0.1)
    seen = {how: Assemble(ghost=how)(raw, 0).data for how in (Navigated(), Refined(), Refined(sure=0))}
    assert torch.allclose(seen[Refined()], seen[Navigated()], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(seen[Refined(sure=0)], seen[Navigated()], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("step", [2, 3])
def test_lines_left_out_do_no_harm(step):
    """Every second or third line in six coils, noise, and navigators that are wrong by half a radian."""
    shape = (32, 48, 4)
    keep = torch.zeros(shape[1:3], dtype=torch.bool)
    keep[1::step] = True
    plan = Plan(shots=step, keep=keep, ghost=(0.4, 0.06), noise=0.01)
    base = raw_of(picture(shape, wide=0.95)[None], smooth_maps(6, shape), plan)
    block = next(base.lines(0))
    for wrong in (0.5, -0.5):
        lie = replace(base, navigators=lambda echo, by=wrong: turned(base.navigators(echo), by))
        found = {type(how): how(Readouts(lie, 0))(block) for how in (Navigated(), Refined())}
        sign = torch.where(block.reverse, 0.5, -0.5).double()
        offset, slope = found[Refined]
        assert (found[Navigated][0] - sign * 0.4).abs().max() > 0.2
        assert (offset - sign * 0.4).abs().max() < 0.02
        assert (slope - sign * 0.06).abs().max() < 0.005


def turned(navigators, by_rad):
    """Navigators whose reversed readouts carry a phase that the scan has not."""
    phase = torch.where(navigators.reverse, by_rad, 0.0)
    return replace(navigators, data=navigators.data * torch.exp(1j * phase)[:, None, None])


def test_the_cost_is_the_mean_log_eigenvalue_of_windows_of_lines():
    """Windows of all coils written out one by one, turned by half of the phase, pooled over three voxels."""
    seen = list(planes(Readouts(epi(shots=2, noise=0.05), 0)).values())
    offset, slope = 0.3, -0.04
    (plane,), n = seen, SHAPE[0]
    data, sign = plane.data.numpy().astype(complex), plane.sign.numpy()
    logs = []
    for x in range(0, n // 3 * 3, 3):
        windows = [
            np.concatenate(
                [
                    data[k + i, :, v] * np.exp(-0.5j * sign[k + i] * (offset + slope * (v - n // 2)))
                    for i in range(4)
                ]
            )
            for v in range(x, x + 3)
            for k in range(len(data) - 3)
        ]
        values = np.linalg.svd(np.stack(windows), compute_uv=False) ** 2
        values = np.pad(values, (0, 12 - len(values)))
        logs.append(np.log(values + 0.01 * values.mean()).mean())
    assert cost(seen)(offset, slope) == pytest.approx(np.mean(logs), rel=1e-4)


def test_lines_at_uneven_distances_are_refused():
    """With what to do instead."""
    keep = torch.zeros(SHAPE[1:3], dtype=torch.bool)
    keep[[0, 1, 3, 6, 10, 11, 13, 16, 20, 21]] = True
    raw = epi(keep=keep)
    with pytest.raises(ValueError, match="correct it by navigators"):
        Refined()(Readouts(raw, 0))


def test_slices_may_differ():
    base = epi(slices=True, ghost=(0.0, 0.0))

    def bent(block):
        sign = torch.where(block.reverse, 0.5, -0.5) * (block.kz - 1.5) * 0.4
        return replace(block, data=block.data * torch.exp(1j * sign)[:, None, None])

    raw = replace(base, lines=lambda echo: (bent(b) for b in base.lines(echo)), navigators=None)
    with pytest.warns(UserWarning, match="without navigators"):
        assert phase_error(Assemble()(raw, 0)) > 0.01
    assert phase_error(Assemble(ghost=Refined(None, "slice"))(raw, 0)) < 0.004


def test_a_reference_that_is_epi_loses_its_ghost_too():
    base = epi()
    raw = replace(base, reference=lambda: base.lines(0))
    clean = replace(epi(ghost=(0.0, 0.0)), reference=lambda: epi(ghost=(0.0, 0.0)).lines(0))
    truth = Assemble()(clean, 0).reference
    assert float((Assemble()(raw, 0).reference - truth).norm() / truth.norm()) < 1e-4
    assert float((Assemble(ghost=None)(raw, 0).reference - truth).norm() / truth.norm()) > 0.1


def test_noise_moves_the_correction_little():
    raw = epi(noise=0.02)
    assert (
        phase_error(Assemble()(raw, 0)) < phase_error(Assemble()(epi(noise=0.02, ghost=(0.0, 0.0)), 0)) + 2e-3
    )


def test_one_polarity_needs_nothing():
    raw = raw_of(OBJECT[None], smooth_maps(3, SHAPE))
    for ghost in (Navigated(), Refined(), None):
        k = Assemble(ghost=ghost)(raw, 0)
        assert float((k.data[0] - fft(TRUTH)).norm() / TRUTH.norm()) < 1e-5


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="shift"):
        Refined(shift=0)
    with pytest.raises(ValueError, match="sure"):
        Refined(sure=-1)


@pytest.mark.shared
def test_a_real_epi_scan_loses_most_of_its_ghost():
    """A phantom at 3 T: signal beside it, where the ghost lies, over signal in it, noise taken out."""
    path = Path(__file__).parents[2] / "shared/data/twix/epi.dat"
    if not path.exists():
        pytest.skip("no ../shared/data/twix")
    raw = twix.read(path)
    images = {
        name: ifft(Assemble(ghost=how)(raw, 0).data)[0, ..., 0].abs().square().sum(0)
        for name, how in {"none": None, "navigated": Navigated(), "refined": Refined()}.items()
    }
    root = images["refined"].sqrt()
    inside = torch.from_numpy(binary_fill_holes((root > 0.2 * root.quantile(0.99)).numpy()))
    near = torch.from_numpy(binary_dilation(inside.numpy(), iterations=3))
    shifted = torch.from_numpy(binary_dilation(inside.roll(40, 1).numpy(), iterations=2))
    ghost, quiet = inside.roll(40, 1) & ~near, ~shifted & ~near
    level = {
        name: float(((im[ghost].mean() - im[quiet].mean()) / im[inside].mean()).clamp(min=0).sqrt())
        for name, im in images.items()
    }
    assert level["none"] > 0.15
    assert level["navigated"] < level["none"] / 2
    assert level["refined"] < level["none"] / 3.5

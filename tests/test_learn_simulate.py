"""Training data: fields that follow from their labels, statistics as promised, and seeds that hold."""

from dataclasses import fields, replace
from math import tau

import pytest
import torch

from k2chi.data import Grid
from k2chi.learn.anatomy import Bodies, demeaned, noise_field, scaled
from k2chi.learn.batch import Draw
from k2chi.learn.closedform import ClosedForm, cylinder, sphere
from k2chi.learn.measured import (
    Measurement,
    blob,
    decayed,
    geometry,
    halved,
    imaged,
    outside_field,
    two_fold,
    worn,
)
from k2chi.learn.simulate import Anything
from k2chi.ops import dipole
from k2chi.ops.dipole import fitting
from k2chi.ops.fourier import crop_to, pad_to
from k2chi.phantom import Cylinder, Sphere

CLEAN = Measurement(snr=(1e6, 1e7), faults=0.0, worn=0.0)
DATA = Anything(size=24, batch=2, heads=0.0)


def tensors(batch):
    return {
        f.name: getattr(batch, f.name)
        for f in fields(batch)
        if isinstance(getattr(batch, f.name), torch.Tensor)
    }


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        replace(DATA, total=True),
        replace(DATA, finer=0.5),
        replace(DATA, finer=1.0, imaged=1.0),
        ClosedForm(16, 2),
    ],
    ids=["ours", "total", "finer", "imaged", "closed"],
)
def test_a_number_is_a_batch(data):
    """The same number gives the same bytes, another number other data."""
    one, again, other = data(7), data(7), data(8)
    for name, value in tensors(one).items():
        assert torch.equal(value, getattr(again, name)), name
    assert not torch.equal(one.chi, other.chi)


@pytest.mark.parametrize("number", range(6))
def test_the_field_is_that_of_the_label(number):
    """Against the dipole operator on an array twice as large; nothing outside, nothing unlabelled."""
    batch = replace(DATA, measurement=CLEAN, residual=0.0)(number)
    s = batch.support
    assert not batch.chi[~s].any()
    assert float(batch.chi[s].abs().max()) > 0.02
    assert float(demeaned(batch.chi, s).sub(batch.chi).abs().max()) < 1e-6
    grid = Grid.of((24, 24, 24), batch.voxel_mm, batch.b0_dir)
    expected = dipole(grid, kind=fitting(grid), pad=2)(batch.chi)
    size = float(expected[s].std())
    assert float((batch.field - expected)[s].abs().max()) < 0.02 * size
    assert float((batch.local - expected).abs().max()) < 1e-4 * size
    assert not batch.field[~s].any()


@pytest.mark.parametrize("number", range(4))
def test_finer_cubes_have_the_mean_field_of_a_finer_map(number):
    """Near the field of the label, not that field itself; the label still has mean zero and its size."""
    batch = replace(DATA, measurement=CLEAN, residual=0.0, finer=1.0)(number)
    s = batch.support
    assert not batch.chi[~s].any()
    assert float(demeaned(batch.chi, s).sub(batch.chi).abs().max()) < 1e-6
    grid = Grid.of((24, 24, 24), batch.voxel_mm, batch.b0_dir)
    off = (batch.local - dipole(grid, kind=fitting(grid), pad=2)(batch.chi)) * s
    share = off.flatten(1).norm(dim=1) / (batch.local * s).flatten(1).norm(dim=1)
    assert float(share.min()) > 0.01
    assert float(share.max()) < 0.5


@pytest.mark.parametrize("turns", [(0, 0, 0), (3, -2, 5), (-5, 5, -6)])
def test_a_halved_image_shows_waves_in_its_voxels_middles(turns):
    """A wave within its band has there the value of the wave itself; one beyond is gone."""
    fine = torch.arange(24.0)
    middles = torch.arange(12) * 2 + 0.5

    def wave(at, k):
        a, b, c = (torch.polar(torch.ones_like(at), tau * q / 24 * at) for q in k)
        return torch.einsum("x,y,z->xyz", a, b, c)[None]

    torch.testing.assert_close(halved(wave(fine, turns)), wave(middles, turns), atol=2e-5, rtol=0)
    beyond = (turns[0] + 12, turns[1], turns[2])
    assert float(halved(wave(fine, beyond)).abs().max()) < 2e-5


def test_a_smooth_field_survives_imaging_and_strong_sources_take_signal():
    """Phase over the turn is the mean field, wraps and all; inside a steep field signal cancels."""
    n = 32
    x = torch.arange(2.0 * n) - n
    r2 = x[:, None, None].square() + x[None, :, None].square() + x.square()
    smooth = 0.8 * (-r2 / 600).exp()[None]  # up to six radians
    none, all_of_it = torch.zeros_like(smooth), torch.ones_like(smooth, dtype=torch.bool)
    mean = torch.nn.functional.avg_pool3d(smooth[:, None], 2)[:, 0]
    draw = Draw(2)
    seen, bright = imaged(draw, smooth, none, all_of_it, mean, (8.0, 8.001))
    middle = (slice(None), *(slice(6, -6),) * 3)
    assert float((seen - mean)[middle].abs().max()) < 0.02 * 0.8
    steep = smooth + 0.2 * torch.where(r2 < 36, (x[:, None, None] + 1.5).sign(), 0.0)
    mean = torch.nn.functional.avg_pool3d(steep[:, None], 2)[:, 0]
    _, dark = imaged(Draw(2), steep, none, all_of_it, mean, (8.0, 8.001))
    at = n // 2
    assert float(dark[0, at - 1, at, at]) < 0.4 * float(bright[0, at - 1, at, at])


def test_an_image_shows_a_fine_wave_where_the_mean_flattens_it():
    """A wave of 4.8 voxels, of which the mean over two samples keeps 0.79; k-space keeps all of it."""
    fine, middles = torch.arange(24.0), torch.arange(12) * 2 + 0.5
    lines = [0.01 * torch.cos(tau * 5 / 24 * at) for at in (fine, middles)]
    field, wave = (x.reshape(1, -1, 1, 1).expand(1, *(len(x),) * 3).contiguous() for x in lines)
    mean = torch.nn.functional.avg_pool3d(field[:, None], 2)[:, 0]
    everywhere = torch.ones_like(field, dtype=torch.bool)
    seen, _ = imaged(Draw(4), field, torch.zeros_like(field), everywhere, mean, (8.0, 8.001))
    assert float((seen - wave).norm()) < 0.7 * float((mean - wave).norm())


def test_strong_tissue_is_dark_in_images_and_dark_voxels_weigh_little():
    """0.5 ppm leaves 1/e of the signal; half the magnitude is half the weight and twice the noise."""
    zero = torch.zeros(1, 16, 16, 16)
    mean, everywhere = torch.zeros(1, 8, 8, 8), torch.ones_like(zero, dtype=torch.bool)
    _, bright = imaged(Draw(1), zero, zero, everywhere, mean, (8.0, 9.0))
    _, dark = imaged(Draw(1), zero, zero + 0.5, everywhere, mean, (8.0, 9.0))
    torch.testing.assert_close(dark, bright * 0.36788, rtol=1e-4, atol=1e-6)
    shaded = torch.ones(1, 16, 16, 16)
    shaded[:, 8:] = 0.5
    plain = replace(CLEAN, flat=0.0)
    _, w, n = plain(Draw(1), zero, torch.ones_like(zero), everywhere)
    _, w_shaded, n_shaded = plain(Draw(1), zero, shaded, everywhere)
    for a, b, factor in ((w, w_shaded, 0.5), (n, n_shaded, 2.0)):
        ratio = b / a
        assert float(ratio[:, 8:].mean() / ratio[:, :8].mean()) == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_fields_from_images_are_near_the_mean_field(number):
    """As far from it as scans of a digital head of 2 mm are, some tenth; weights follow the image."""
    clean = replace(CLEAN, flat=0.0)
    batch = replace(DATA, measurement=clean, residual=0.0, finer=1.0, imaged=1.0)(number)
    means = replace(DATA, measurement=clean, residual=0.0, finer=1.0)(number)
    assert torch.equal(batch.chi, means.chi)
    assert torch.equal(batch.local, means.local)
    off = demeaned(batch.field - batch.local, batch.support).flatten(1).norm(dim=1)
    share = off / (batch.local * batch.support).flatten(1).norm(dim=1)
    assert float(share.min()) > 0.02
    assert float(share.max()) < 0.5
    assert not torch.equal(batch.weight, means.weight)


def test_strong_tissue_decays():
    """To 1/e at 0.5 ppm of either sign."""
    left = decayed(torch.tensor([0.0, 0.5, -0.5]).reshape(1, 1, 3))
    assert left[0, 0].tolist() == pytest.approx([1, 0.3679, 0.3679], abs=1e-4)


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.6)])
def test_a_round_body_is_the_closed_form_sphere(voxel):
    """Share of each voxel as by sampling it, and the field far from the surface."""
    grid = Grid.of((32, 32, 32), voxel, (0.3, 0.4, 0.85))
    ball = Sphere(radius_mm=5.0, centre_mm=(0.3, -0.2, 0.4))
    body = Bodies(torch.tensor([ball.centre_mm]), torch.full((1, 3), 5.0), torch.eye(3)[None])
    share = body.share(grid.shape, grid.voxel_mm)[0]
    source = ball.source(grid)
    assert float((share - source).abs().max()) < 0.13
    assert float(share.sum() / source.sum()) == pytest.approx(1, abs=0.02)
    d, wide = two_fold(grid, torch.device("cpu"))
    made, true = crop_to(d(pad_to(share, wide)), grid.shape), ball.field(grid)
    edge = (source > 0) & (source < 1)
    near = torch.nn.functional.max_pool3d(edge[None, None].float(), 3, 1, 1)[0, 0] > 0
    assert float((made - true)[~near].norm() / true[~near].norm()) < 0.04


def test_rounded_boxes_and_rods_have_their_volume():
    """|x|⁴ + |y|⁴ + |z|⁴ < 1 holds 0.8 of its bounding box (Γ(5/4)³/Γ(7/4)); an ellipsoid π/6."""
    centre, axes = torch.zeros(1, 3), torch.tensor([[6.0, 4.0, 3.0]])
    turn = Draw(0).rotations(1)
    for square, part in ((True, 0.8102), (False, 0.5236)):
        share = Bodies(centre, axes, turn, square).share((32, 32, 32), (0.8, 1.0, 0.9))
        assert 0.72 * float(share.sum()) == pytest.approx(part * 8 * 72, rel=0.03)


def test_random_fields_have_unit_variance_and_their_power():
    draw = Draw(0)
    x = noise_field(draw, 2, (32, 32, 32), 0.02, torch.full((2, 1, 1, 1), 3.0))
    assert x.std((-3, -2, -1)).tolist() == pytest.approx([1, 1], abs=1e-4)
    white = noise_field(draw, 2, (32, 32, 32), 0.02, torch.zeros(2, 1, 1, 1))
    assert float(x.diff(dim=1).std()) < 0.3 * float(white.diff(dim=1).std())


def test_scaling_sets_mean_and_size():
    draw = Draw(1)
    s = blob(draw, 3, (20, 20, 20))
    size = torch.tensor([0.03, 0.05, 0.1]).reshape(3, 1, 1, 1)
    x = scaled(draw.normal(3, 20, 20, 20) + 5, s, size)
    for i in range(3):
        assert float(x[i][s[i]].mean()) == pytest.approx(0, abs=1e-5)
        assert float(x[i][s[i]].std()) == pytest.approx(float(size[i]), rel=1e-2)


def test_masks_leave_a_rim_and_are_not_empty():
    """A box a quarter wider than the mask, as inference pads."""
    for seed in range(5):
        s = blob(Draw(seed), 4, (30, 30, 30))
        assert s.flatten(1).any(1).all()
        assert not s[:, :3].any()
        assert not s[..., -3:].any()
        w = worn(Draw(seed), s, 1.0)
        assert not (w & ~s).any()
        assert w.sum() < s.sum()
        assert w.flatten(1).any(1).all()


def test_the_background_is_harmonic_inside():
    """Its Laplacian, off the mask's edge, is small beside that of a local field of the same size."""
    grid = Grid.of((32, 32, 32), (1.0, 1.0, 1.0))
    draw = Draw(3)
    s = blob(draw, 1, grid.shape)
    d, wide = two_fold(grid, torch.device("cpu"))
    far = outside_field(draw, d, wide, s)
    near = crop_to(d(pad_to(draw.normal(1, 32, 32, 32) * s, wide)), grid.shape)
    inside = ~(torch.nn.functional.max_pool3d((~s).float()[:, None], 5, 1, 2)[:, 0] > 0)

    def bend(f):
        return (
            sum((f.roll(1, a) + f.roll(-1, a) - 2 * f) for a in (1, 2, 3))[inside].norm() / f[inside].norm()
        )

    assert float(bend(far)) < 0.05 * float(bend(near))
    assert float(far[s].mean()) == pytest.approx(0, abs=1e-4)
    assert float(far[s].square().mean()) == pytest.approx(1, abs=1e-3)


def test_noise_is_one_over_the_weight():
    """Standard deviation 1/(SNR · rad per ppm · signal); nothing outside the mask."""
    draw = Draw(5)
    s = blob(draw, 4, (32, 32, 32))
    zero = torch.zeros(4, 32, 32, 32)
    field, weight, size = Measurement((50, 50.001), (16, 16.001), 0.0, 0.0)(draw, zero, zero + 1, s)
    assert not field[~s].any()
    assert not weight[~s].any()
    assert float(weight.max()) == 1
    ratio = (field * weight * 50 * 16)[s]
    assert float(ratio.std()) == pytest.approx(1, abs=0.02)
    assert not size[~s].any()
    assert float((field / size)[s].std()) == pytest.approx(1, abs=0.02)


def test_faults_are_whole_turns():
    draw = Draw(5)
    s = blob(draw, 4, (32, 32, 32))
    zero = torch.zeros(4, 32, 32, 32)
    field, *_ = Measurement((1e7, 1.001e7), (10, 10.0001), 1.0, 0.0)(draw, zero, zero + 1, s)
    turns = field[s] * 10 / tau
    assert float((turns - turns.round()).abs().max()) < 1e-3
    assert 0 < float((turns.round() != 0).float().mean()) < 0.05


def test_geometry_keeps_its_limits():
    """Edges 0.4 to 2.5 mm, ratio to 4, B0's components in rising order; and it uses its room."""
    got = [geometry(Draw(i), (0.4, 2.5), 4.0, 0.5) for i in range(300)]
    edges, b = torch.tensor([g[0] for g in got]), torch.tensor([g[1] for g in got])
    assert edges.min() >= 0.4 - 1e-6
    assert edges.max() <= 2.5 + 1e-6
    ratio = edges.amax(1) / edges.amin(1)
    assert 3 < ratio.max() <= 4.001
    assert torch.allclose(b.norm(dim=1), torch.ones(300), atol=1e-5)
    assert (b.abs().diff(dim=1) >= -1e-6).all()
    assert 0.35 < float((b[:, 2] == 1).float().mean()) < 0.65


def test_total_fields_are_far_stronger_than_local_ones():
    local, total = DATA(3), replace(DATA, total=True)(3)
    s = total.support
    assert float(total.field[s].std() / total.local[s].std()) > 2.5
    assert float(local.field[s].std() / local.local[s].std()) < 2.5


# ---- the published recipe


def grid_lines(n):
    line = torch.arange(n).double() - n // 2
    return line.reshape(1, -1, 1, 1), line.reshape(1, 1, -1, 1), line.reshape(1, 1, 1, -1)


def test_its_sphere_is_the_closed_form():
    grid = Grid.of((21, 21, 21))
    inside, far = sphere(*grid_lines(21), torch.tensor(5.5).reshape(1, 1, 1, 1))
    torch.testing.assert_close(far[0].float(), Sphere(5.5).field(grid), atol=1e-6, rtol=1e-4)
    assert float(inside.sum()) == pytest.approx(4 / 3 * torch.pi * 5.5**3, rel=0.07)


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.3, -0.5, 0.81), (0.0, 0.0, 1.0)])
def test_its_cylinder_is_the_corrected_closed_form(axis):
    """ρ², not ρ, and positive where B0 lies across."""
    grid = Grid.of((21, 21, 21))
    u = torch.tensor(axis).double()
    u = u / u.norm()
    _, far = cylinder(*grid_lines(21), torch.tensor(4.5).double().reshape(1, 1, 1, 1), u[None])
    torch.testing.assert_close(far[0].float(), Cylinder(4.5, axis=axis).field(grid), atol=1e-5, rtol=1e-3)


def test_text_and_code_differ_as_they_do():
    """Text: at most 128 spheres of 0.01 ppm and a mask of ones. Code: up to 256 of 0.1, noise in the mask."""
    text, code = ClosedForm(16, 400), ClosedForm(16, 400, released=True)
    n_text, n_code = text._count(Draw(0), 128), code._count(Draw(0), 128)
    assert n_text.max() <= 128
    assert n_text.mean() == pytest.approx(64, abs=5)
    assert 200 < n_code.max() <= 256
    assert n_code.mean() == pytest.approx(128, abs=6)
    few = replace(text, batch=3, spheres=6, cylinders=2)
    one, two = few(0), replace(few, released=True)(0)
    assert bool((one.weight == 1).all())
    leak = two.weight - two.weight.round()
    torch.testing.assert_close(leak, two.field - two.local, atol=1e-6, rtol=0)
    assert float(two.chi.abs().max()) > 3 * float(one.chi.abs().max())


def test_bad_generators_are_refused():
    with pytest.raises(ValueError, match="training cubes"):
        Anything(size=4)
    with pytest.raises(ValueError, match="closed-form cubes"):
        ClosedForm(size=8)

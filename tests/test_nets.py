"""Networks: sizes as published, physics inside ours, and laws that hold whatever the weights."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from k2chi.data import Field, Grid, Scan
from k2chi.invert.problem import Problem
from k2chi.invert.splits import TV, Splits, quadratic
from k2chi.nets import (
    DEEPQSM,
    QSMNET,
    AdaptiveTVConfig,
    Given,
    NetworkConfig,
    SIQSMConfig,
    UNetConfig,
    UnrolledConfig,
)
from k2chi.nets.adaptivetv import Splitting
from k2chi.nets.boxes import bounds
from k2chi.nets.record import from_record, to_record
from k2chi.nets.regulariser import Regulariser
from k2chi.nets.unet import Convolution
from k2chi.ops import dipole_kernel
from k2chi.ops.box import Box
from k2chi.ops.finite import differences

SMALL = {
    "SI-QSM": SIQSMConfig(width=4),
    "U-Net": UNetConfig(width=2, levels=3),
    "unrolled": UnrolledConfig(2, (4, 6), 1),
    "unrolled, own regularisers": UnrolledConfig(2, (4,), shared=False),
    "adaptive": AdaptiveTVConfig(2, 2, (4, 6), 1),
    "adaptive, own guides": AdaptiveTVConfig(2, 2, (4,), shared=False),
    "total": UnrolledConfig(2, (4, 6), 1, total=True, start=5),
    "adaptive total": AdaptiveTVConfig(2, 2, (4, 6), 1, total=True, start=5),
    "adaptive, relaxed": AdaptiveTVConfig(2, 4, (4, 6), 1, relax=1.8),
}
every = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)


def given(shape=(14, 18, 12), voxel=(1.0, 1.2, 2.0), b0=(0.1, 0.3, 0.95), n=2):
    """Noise for a field, in a box with a rim, unequal weights."""
    draw = torch.Generator().manual_seed(0)
    grid = Grid.of(shape, voxel, b0)
    support = torch.zeros(n, *shape)
    support[:, 2:-2, 3:-3, 2:-1] = 1
    weight = support * torch.rand(n, *shape, generator=draw)
    field = 0.1 * torch.randn(n, *shape, generator=draw) * support
    return Given(field, weight, support, dipole_kernel(grid, shape, "green"), grid.voxel_mm, grid.b0_dir)


def taught(config):
    """A network whose weights are all drawn anew, so that nothing hides behind a zero."""
    torch.manual_seed(0)
    network = config.build().eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_si_qsm_has_its_published_size():
    """23.35 million parameters, and 33, 80, 160, 320 and 384 channels at its levels."""
    network = SIQSMConfig().build()
    assert parameters(network) == pytest.approx(23.35e6, abs=0.1e6)
    seen = []
    for module in (network.phase, *network.deepen, network.bottom):
        module.register_forward_hook(lambda m, i, out: seen.append(out.shape[1]))
    with torch.no_grad():
        out = network(torch.zeros(1, 16, 16, 16), torch.ones(1, 16, 16, 16))
    assert seen == [33, 80, 160, 320, 384]
    assert out.shape == (1, 16, 16, 16)


def test_the_u_nets_have_their_sizes():
    """QSMnet's 99.4 million; ours for DeepQSM, whose widths are not known."""
    assert parameters(QSMNET.build()) == pytest.approx(99.4e6, abs=0.1e6)
    assert parameters(DEEPQSM.build()) == pytest.approx(5.64e6, abs=0.01e6)


@pytest.mark.parametrize("config", [SIQSMConfig(width=4), UNetConfig(2, 3)], ids=["SI-QSM", "U-Net"])
def test_sizes_that_do_not_divide_are_refused_by_the_layers(config):
    network = config.build()
    volumes = [torch.zeros(1, 16, 18, 16)] * 2
    with pytest.raises(ValueError, match="divide by"):
        network(*volumes)


@every
def test_any_size_zero_outside_and_every_weight_learns(config):
    """`invert` pads and crops; each parameter has a gradient."""
    network, g = taught(config), given()
    answer = network.invert(g)
    assert answer.chi.shape == g.field.shape
    assert not answer.chi[g.support == 0].any()
    (answer.chi.square().sum() + (0 if answer.spread is None else answer.spread.sum())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


OURS = pytest.mark.parametrize("config", list(SMALL.values())[2:], ids=list(SMALL)[2:])


@OURS
def test_ours_scales_with_the_field_exactly(config):
    """Powers of two, so that rounding stays out; either sign of scale is another matter."""
    network, g = taught(config), given()
    with torch.no_grad():
        one, more = network.invert(g), network.invert(replace(g, field=4 * g.field))
    torch.testing.assert_close(more.chi, 4 * one.chi, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(more.spread, 4 * one.spread, rtol=1e-4, atol=1e-6)


@OURS
def test_ours_gives_nothing_for_nothing(config):
    answer = taught(config).invert(replace(given(), field=torch.zeros(2, 14, 18, 12)))
    assert not answer.chi.any()
    assert not answer.spread.any()


@OURS
def test_ours_does_not_look_where_the_weight_is_zero(config):
    network, g = taught(config), given()
    wild = replace(g, field=torch.where(g.weight > 0, g.field, 7.0))
    with torch.no_grad():
        torch.testing.assert_close(network.invert(wild).chi, network.invert(g).chi, rtol=1e-3, atol=1e-6)


@OURS
def test_cubes_of_a_batch_do_not_mix(config):
    """The second cube alone gives what it gives beside the first, but for the background's common steps."""
    network, g = taught(config), given()
    alone = replace(g, field=g.field[1:], weight=g.weight[1:], support=g.support[1:])
    with torch.no_grad():
        a, b = network.invert(alone).chi[0], network.invert(g).chi[1]
    assert float((a - b).norm() / b.norm()) < (0.3 if getattr(config, "total", False) else 1e-4)


def test_fresh_ours_descends_the_misfit_for_the_true_geometry():
    """Untaught it is data consistency alone: more steps fit better, and the right kernel matters."""
    g = given(n=1)
    truth = torch.randn(1, 14, 18, 12, generator=torch.Generator().manual_seed(1)) * g.support
    g = replace(g, field=g.d(truth) * g.support, weight=g.support)
    turned = dipole_kernel(Grid.of((14, 18, 12), (1, 1, 1), (1, 0, 0)), (14, 18, 12), "green")

    def misfit(steps, kernel):
        with torch.no_grad():
            chi = UnrolledConfig(steps, (4,)).build().invert(replace(g, kernel=kernel)).chi
        return float(((g.d(chi) - g.field) * g.weight).norm() / g.field.norm())

    assert misfit(8, g.kernel) < misfit(2, g.kernel) < 0.5
    assert misfit(8, turned) > 0.6


TOTALS = {
    "unrolled": UnrolledConfig(3, (4,), total=True, start=60),
    "adaptive": AdaptiveTVConfig(3, 6, (4,), total=True, start=60),
}


@pytest.mark.parametrize("config", TOTALS.values(), ids=TOTALS)
def test_total_explains_a_background_by_sources_outside(config):
    """A field ten times as strong from outside changes the fresh network's map little."""
    g = given(shape=(24, 24, 24), voxel=(1, 1, 1), n=1)
    s = torch.zeros(1, 24, 24, 24)
    s[:, 8:16, 8:16, 8:16] = 1
    inside, outside = torch.zeros(1, 24, 24, 24), torch.zeros(1, 24, 24, 24)
    inside[:, 11:13, 11:13, 11:13] = 0.1
    outside[:, 10:14, 10:14, 3:5] = 9.0
    far = g.d(outside) * s
    near = g.d(inside) * s
    assert far.norm() > 5 * near.norm()
    network = config.build()
    g = replace(g, weight=s, support=s)
    with torch.no_grad():
        both = network.invert(replace(g, field=near + far)).chi
        silent = network.invert(replace(g, field=far)).chi
    assert both[0, 11:13, 11:13, 11:13].mean() > 0.02
    assert silent.norm() < 0.5 * both.norm()


def test_regulariser_is_told_of_the_geometry_and_starts_silent():
    x, told = torch.randn(1, 3, 8, 8, 8), torch.randn(5)
    fresh = Regulariser(3, 2, (4, 6, 8), 1, told=5)
    assert not fresh(x, told).any()
    torch.nn.init.normal_(fresh.last.weight)
    assert not torch.allclose(fresh(x, told), fresh(x, told + 1))


def test_layers_that_grew_do_not_silence_the_regulariser():
    """Weights a hundred times as large inside leave what its last layers see as large as it was."""
    torch.manual_seed(0)
    net, x, told = Regulariser(3, 2, (4, 6, 8), 1, told=5), torch.randn(1, 3, 12, 12, 12), torch.randn(5)
    seen = []
    net.join.register_forward_hook(
        lambda _, given, __: seen.append(given[0].detach().square().mean(1).sqrt())
    )
    net(x, told)
    with torch.no_grad():
        for block in (*net.blocks, *net.after, net.first, net.up):
            for p in block.parameters():
                p.mul_(100)
    net(x, told)
    for rms in seen:
        assert float(rms.max()) < 1.01
    assert float(seen[1].min()) > 0.5


def test_half_precision_gradients_of_small_volumes_are_right():
    """On a CPU, torch 2.13 leaves them unset for kernels wider than the volume; ours must not be."""
    torch.manual_seed(0)
    net = UNetConfig(8, levels=4, kernel=5, unit_ppm=0.03).build()
    x = 0.05 * torch.randn(2, 32, 32, 32)
    found = []
    for half in (False, True, True, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = net(x, x)
        (out.float() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.down[-1].parameters()]))
    for g in found[1:]:
        assert float((g - found[0]).norm() / found[0].norm()) < 0.3


def test_half_precision_leaves_the_last_level_of_a_used_network_single():
    """Or χ itself would be rounded; while learning, speed counts. χ is single precision in both."""
    net = UNetConfig(8, levels=3, unit_ppm=0.03).build()
    x = 0.05 * torch.randn(1, 16, 16, 16)
    kinds = []
    for level in (net.merge[-1], net.merge[0]):
        level.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    for learning in (False, True):
        with torch.set_grad_enabled(learning), torch.autocast("cpu", torch.bfloat16):
            assert net(x, x).dtype == torch.float32
    assert kinds == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (2, 8, 3), (4, 4, 4), (6, 6, 6)])
def test_weights_that_meet_only_zeros_change_nothing(size):
    """Volumes smaller than the kernel: the same map and gradients as a plain convolution of all weights."""
    torch.manual_seed(0)
    ours, plain = Convolution(3, 4, 5, bias=True), nn.Conv3d(3, 4, 5, padding=2)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, *size)
    for layer in (ours, plain):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)


@every
def test_configurations_survive_json(config):
    classes = get_args(NetworkConfig)
    assert from_record(to_record(config), classes) == config


def test_unknown_and_unfitting_records_are_refused():
    with pytest.raises(ValueError, match="none of"):
        from_record({"kind": "Nothing"}, (SIQSMConfig,))
    with pytest.raises(ValueError, match="train it anew"):
        from_record({"kind": "SIQSMConfig", "height": 3}, (SIQSMConfig,))


def test_bad_configurations_are_refused():
    with pytest.raises(ValueError, match="at least one step"):
        UnrolledConfig(steps=0)
    with pytest.raises(ValueError, match="odd kernel"):
        UNetConfig(kernel=4)


# ---- total variation with a guide

ADAPTIVE = AdaptiveTVConfig(3, 4, (4, 6), 1)


def plain_tv(g, alpha, edge, rounds):
    """Total variation of a batch's first cube by the iterations that classical methods share."""
    scale = float(g.scale()[0])
    mean = float(torch.tensor(g.voxel_mm).log().mean().exp())
    grid = Grid.of(g.field.shape[1:], tuple(v / mean for v in g.voxel_mm), g.b0_dir)
    mask = g.weight[0] > 0
    field = Field(g.field[0], mask, grid, Scan((0.02,), 3.0), local=True)
    box = Box((0, 0, 0), grid.shape)
    p = Problem(field, box, grid, g.field[0] / scale, g.weight[0], g.support[0] > 0, g.kernel)
    prior = TV(p, alpha, edge, torch.ones_like(p.ppm), free_border=True)
    splits = Splits(p, prior, 0.1, 0.01)
    splits.run(quadratic(0.1), rounds)
    return splits.chi * scale * g.support[0]


def test_before_it_has_learned_the_guide_leaves_total_variation_as_it_is():
    """The same iterations as FANSI's linear ones, whose code is another."""
    g, network = given(n=1), ADAPTIVE.build()
    with torch.no_grad():
        network.rise.zero_()
        chi = network.invert(g).chi[0]
    torch.testing.assert_close(chi, plain_tv(g, 3e-3 * 1.5, 1.5, 12), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("relax", [1.0, 1.7])
def test_adaptive_steps_are_the_same_with_and_without_gradients(relax):
    """Stencils in place for inference, operations on tensors for learning."""
    network, g = taught(replace(ADAPTIVE, relax=relax)), given()
    learning = network.invert(g).chi.detach()
    with torch.no_grad():
        torch.testing.assert_close(network.invert(g).chi, learning, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("total", [False, True])
def test_relaxed_steps_arrive_sooner_at_the_same_map(total):
    """Before the guide has learned: nearer to the end after as many iterations."""
    g = given()

    def after(iterations: int, relax: float) -> torch.Tensor:
        config = AdaptiveTVConfig(1, iterations, (4,), total=total, start=20, relax=relax)
        network = config.build().requires_grad_(False)
        chi: torch.Tensor = network.invert(g).chi
        return chi

    end = after(1000, 1.0)
    torch.testing.assert_close(after(600, 1.7), end, rtol=0, atol=0.01 * float(end.abs().max()))
    assert (after(30, 1.7) - end).norm() < 0.95 * (after(30, 1.0) - end).norm()


def test_a_scene_twice_as_large_in_voxels_twice_as_large_has_the_same_map():
    network, g = taught(ADAPTIVE), given()
    wide = replace(g, voxel_mm=tuple(2 * v for v in g.voxel_mm))
    with torch.no_grad():
        torch.testing.assert_close(network.invert(wide).chi, network.invert(g).chi, rtol=1e-4, atol=1e-6)


def test_the_guide_can_lower_the_strength_at_an_edge_alone():
    """Where it answers −6 in a half of the volume, gradients there are hardly shrunk."""
    g = given()
    network = ADAPTIVE.build().requires_grad_(False)
    plain = network.invert(g).chi
    half = torch.zeros_like(g.field)
    half[:, :7] = -6

    def run(module, looks, told):
        said = module(looks, told)
        low = half[(..., *bounds(g.support))]
        return torch.stack([said[:, 0] + low, said[:, 1], said[:, 2]], 1)

    guided = network.invert(g, run).chi
    rough = [differences(x[0], g.voxel_mm).abs() * g.support[0] for x in (plain, guided)]
    assert float(rough[1][:, 3:6].mean()) > 1.2 * float(rough[0][:, 3:6].mean())
    assert float(rough[1][:, 8:11].mean()) < 1.05 * float(rough[0][:, 8:11].mean())


def test_noise_makes_it_stronger_and_its_absence_changes_nothing():
    """The first round's misfit tells: a noisy field is smoothed more, a clean one as before."""
    g = given(n=1)
    axes = torch.meshgrid(*(torch.linspace(-3, 3, n) for n in (14, 18, 12)), indexing="ij")
    truth = torch.exp(-sum(a.square() for a in axes))[None] * g.support
    clean = replace(g, field=g.d(truth) * g.support, weight=g.support)
    noisy = replace(clean, field=clean.field + clean.scale() * torch.sign(g.field))
    errors = []
    for rise in (0.0, 3.0):
        network = AdaptiveTVConfig(3, 8, (4, 6), 1).build().requires_grad_(False)
        network.rise.fill_(rise)
        maps = [network.invert(x).chi - truth for x in (clean, noisy)]
        errors.append([float((m - m[g.support > 0].mean())[g.support > 0].norm()) for m in maps])
    assert errors[1][0] == pytest.approx(errors[0][0], rel=1e-3)
    assert errors[1][1] < 0.8 * errors[0][1]


def test_a_voxel_off_by_far_loses_weight_in_networks_for_total_fields():
    """As wrapped phase is: with the weight on, it would pull at the map around it."""
    g = given(shape=(20, 20, 20), voxel=(1, 1, 1), n=1)
    axes = torch.meshgrid(*(torch.linspace(-3, 3, 20) for _ in range(3)), indexing="ij")
    truth = torch.exp(-sum(a.square() for a in axes))[None] * g.support
    clean = replace(g, field=g.d(truth) * g.support, weight=g.support)
    wrong = clean.field.clone()
    wrong[0, 9, 9, 12] += 30 * clean.scale()[0, 0, 0, 0]
    off = []
    for total in (True, False):
        network = AdaptiveTVConfig(4, 6, (4,), total=total, start=20).build().requires_grad_(False)
        network.rise.zero_()
        network.log_tv.fill_(-5.0)
        network.log_edge.fill_(0.5)
        maps = [network.invert(x).chi for x in (clean, replace(clean, field=wrong))]
        off.append(float((maps[1] - maps[0]).norm()))
    assert off[0] < 0.5 * off[1]


def test_dim_weights_leave_the_map_of_a_total_field():
    """Only ratios of weights matter: one bright voxel must not make everything else smooth."""
    g, network = given(), AdaptiveTVConfig(2, 4, (4,), total=True, start=5).build().requires_grad_(False)
    dim = network.invert(replace(g, weight=0.25 * g.weight)).chi
    torch.testing.assert_close(dim, network.invert(g).chi, rtol=1e-3, atol=1e-5)


def test_new_weights_of_the_splits_leave_the_multipliers_as_they_are():
    """Weight times scaled dual is the multiplier of a split, which a new weight must not move."""
    g = given()
    state = Splitting(g, g.support, g.support, 1.0)

    def multipliers():
        tv, data, support = state.mu
        return (tv * torch.stack([e.s for e in state.edges]), data * state.dual, support * state.outside)

    state.begin(*torch.tensor([3e-3, 0.1, 0.01]), torch.full_like(g.field, 0.02))
    for _ in range(3):
        state.step()
    before = multipliers()
    state.begin(*torch.tensor([7e-3, 0.3, 0.05]), torch.full_like(g.field, 0.05))
    for one, other in zip(before, multipliers(), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(other, one)


def test_the_first_step_of_a_round_is_plain():
    """Copies made with other weights must not be relaxed against."""
    g, maps = given(), []
    for relax in (1.7, 1.0):
        state = Splitting(g, g.support, g.support, 1.7)
        for edge in (0.02, 0.05):
            state.begin(*torch.tensor([3e-3, 0.1, 0.01]), torch.full_like(g.field, edge))
            if edge == 0.02:
                for _ in range(3):
                    state.step()
        state.relax = relax
        for split in state.edges:
            split.relax = relax
        state.step()
        maps.append(state.chi)
    torch.testing.assert_close(maps[0], maps[1])

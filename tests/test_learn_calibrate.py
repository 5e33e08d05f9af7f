"""Stated uncertainty: calibrated where the truth is known, checked where it was not; storage that keeps χ."""

from dataclasses import replace

import pytest
import torch

from k2chi.invert.learned import Learned
from k2chi.learn.batch import Draw
from k2chi.learn.calibrate import CALIBRATE, Held, calibrated, coverage, held, noise_gain, steadier
from k2chi.learn.checkpoint import Checkpoint
from k2chi.learn.recipes import CUBES, Recipe
from k2chi.learn.ship import ship
from k2chi.learn.simulate import Anything
from k2chi.nets import Answer, UnrolledConfig
from k2chi.nets.weights import Card, read

CONFIG = UnrolledConfig(2, (4, 6), 1)
CARD = Card("mine", CONFIG, "local", (0.4, 2.5), 4.0, "cubes", 10, 0.1, "cpu", "none", "none")
DATA = Anything(size=16, batch=2, heads=0.0, bodies=0.0)
RECIPE = Recipe(CONFIG, DATA, steps=1)


def spoiled(seed, factor, noisy=0.0):
    """A held-back batch whose answer errs by `factor` times its stated spread, and by some of its noise."""
    batch, draw = DATA(CALIBRATE + seed), Draw(seed)
    spread = 0.01 * draw.uniform(*batch.chi.shape, low=0.2, high=3.0)
    assert batch.noise_ppm is not None
    wrong = factor * spread * draw.normal(*batch.chi.shape)
    wrong = wrong + noisy * batch.noise_ppm * draw.normal(*batch.chi.shape)
    return Held(Answer(batch.chi + wrong * batch.support, spread), batch)


@pytest.mark.parametrize(("factor", "noisy"), [(0.4, 0.0), (3.0, 0.0), (1.5, 2.0)])
def test_calibration_finds_the_factor_that_was_put_in(factor, noisy):
    """And 90 % of other errors lie within the stated interval, which holds them neither by noise alone."""
    card = replace(CARD, noise_gain=noisy)
    card = calibrated(card, [spoiled(i, factor, noisy) for i in range(4)])
    assert card.spread_scale == pytest.approx(factor, rel=0.06)
    other = [spoiled(i, factor, noisy) for i in range(4, 8)]
    assert 0.88 < coverage(card, other) < 0.92
    assert coverage(replace(card, spread_scale=card.spread_scale / 2), other) < 0.75


@pytest.mark.parametrize("noisy", [0.0, 4.0])
def test_noise_is_added_only_where_the_spread_does_not_know_it(noisy):
    """Batches whose noise differs tell a spread that lacks it from one that holds it."""
    known = [spoiled(i, 1.0, noisy) for i in range(6)]
    cards = [calibrated(replace(CARD, noise_gain=gain), known) for gain in (0.0, 4.0)]
    assert steadier(cards, known).noise_gain == noisy


def test_standard_deviations_add_as_squares():
    card = replace(CARD, spread_scale=2.0, noise_gain=3.0)
    spread, noise = torch.full((2, 2, 2), 2.0), torch.ones(2, 2, 2)
    noise[0, 0, 0] = torch.nan
    got = card.sd(spread, noise)
    assert float(got[1, 1, 1]) == pytest.approx(5.0)
    assert float(got[0, 0, 0]) == pytest.approx(4.0)  # noise that is not known adds nothing
    assert torch.equal(card.sd(spread, None), 2 * spread)


def test_the_gain_of_noise_is_that_of_a_linear_map():
    """An untaught network is nearly linear: noise twice as large comes out twice as large."""
    weights = CONFIG.build().state_dict()
    known = held(RECIPE, weights, range(CALIBRATE, CALIBRATE + 2))
    gain = noise_gain(RECIPE, weights, known)
    assert 1 < gain < 6  # 1/D² has a mean above that of any field
    doubled = [
        replace(h, batch=replace(h.batch, noise_ppm=2 * n))
        for h in known
        if (n := h.batch.noise_ppm) is not None
    ]
    assert noise_gain(RECIPE, weights, doubled) == pytest.approx(gain, rel=0.05)
    silent = [replace(h, batch=replace(h.batch, noise_ppm=None)) for h in known]
    assert noise_gain(RECIPE, weights, silent) == 0


def state(sharp=1.0):
    torch.manual_seed(0)
    network = CONFIG.build()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * sharp * torch.randn_like(p))
    weights = network.state_dict()
    return Checkpoint(RECIPE, 7, 3600.0, "cpu", weights, weights, {})


def test_what_is_shipped_tells_what_it_holds(tmp_path):
    card = ship(state(), "mine", tmp_path / "a.safetensors", batches=2)
    assert read(tmp_path / "a.safetensors").card == card
    assert card.steps == 7
    assert card.hours == 1
    assert "90 % interval held" in card.errors
    assert "stored as float32" in card.errors


@pytest.mark.parametrize("asked", ["int8", "float16"])
def test_coarse_storage_is_used_only_where_the_map_stays(tmp_path, asked):
    """Below 0.2 ppb as asked; where it would be more, finer, and the card tells which."""
    fine = ship(state(), "a", tmp_path / "a.safetensors", "float32", batches=1)
    assert "stored as float32." in fine.errors
    card = ship(state(), "b", tmp_path / "b.safetensors", asked, batches=1)
    words = card.errors.split("stored as ")[1]
    kind = words.split(",")[0].rstrip(".")
    stored = read(tmp_path / "b.safetensors").network.state_dict()
    batch = DATA(CALIBRATE)
    from k2chi.learn.calibrate import said

    exact, found = (said(RECIPE, w, batch).chi[batch.support] for w in (state().average, stored))
    change = float((exact - found).square().mean().sqrt())
    assert change < 2e-4
    if kind != "float32" and change:
        assert f"changes χ by {1e3 * change:.2g} ppb" in words


# ---- the weights in the package


def test_the_shipped_network_states_honest_intervals():
    """Tissue and bodies of the kind it learned from, held back, any geometry: 85 to 95 % of errors."""
    from k2chi.data import Field, Grid, Scan

    data = replace(CUBES, heads=0.0)
    hits, voxels = 0.0, 0
    for number in range(6):
        b = data(CALIBRATE + 500 + number)
        for i in range(2):
            grid = Grid.of((32, 32, 32), b.voxel_mm, b.b0_dir)
            local = Field(
                b.field[i], b.weight[i] > 0, grid, Scan((0.02,), 3.0), b.weight[i], b.noise_ppm[i],
                support=b.support[i], local=True,
            )  # fmt: skip
            chi = Learned()(local)
            e = (chi.ppm - b.chi[i])[chi.mask]
            hits += float(((e - e.mean()).abs() <= 1.645 * chi.sd_ppm[chi.mask]).sum())
            voxels += int(chi.mask.sum())
    assert 0.85 < hits / voxels < 0.95

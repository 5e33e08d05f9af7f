"""The loop: it learns, it stops and goes on as if it had not stopped, and it keeps no pickle."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from k2chi.learn.checkpoint import NAME, load
from k2chi.learn.losses import LOSSES, relative
from k2chi.learn.png import save_png
from k2chi.learn.recipes import CLASSES, RECIPES, Recipe
from k2chi.learn.simulate import Anything
from k2chi.learn.train import Run, _gradients, pace, stretched, train
from k2chi.nets import AdaptiveTVConfig, Answer, SIQSMConfig, UNetConfig, UnrolledConfig
from k2chi.nets.record import from_record, to_record

DATA = Anything(size=12, batch=2, heads=0.0, bodies=0.0)
TINY = Recipe(UnrolledConfig(2, (4, 4), 1), DATA, steps=6, warmup=2, accumulate=2, average=0.9)


def run(folder, **changes):
    return replace(Run(folder, save_every=100, look_every=3), **changes)


def test_a_few_steps_lower_the_loss(tmp_path):
    """On one batch shown again and again; the fresh network's loss is the first."""

    class Same:
        batch = 2

        def __call__(self, number, device="cpu"):
            return DATA(1, device)

    recipe = replace(TINY, steps=25, accumulate=1, learning_rate=5e-3)
    object.__setattr__(recipe, "data", Same())
    network = recipe.network.build()
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    losses = []
    for _ in range(25):
        batch = DATA(1)
        loss = relative(network.invert(batch.given()), batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]


def test_training_lowers_the_held_back_error(tmp_path):
    """By the loop itself, on data that change with every step."""
    recipe = replace(TINY, steps=40, accumulate=1, learning_rate=5e-3, warmup=4)
    train(recipe, run(tmp_path / "a", look_every=1000))
    lines = (tmp_path / "a" / "held-back.csv").read_text().splitlines()
    train(replace(recipe, steps=1), run(tmp_path / "b", look_every=1))
    first = (tmp_path / "b" / "held-back.csv").read_text().splitlines()
    assert float(lines[-1].split(",")[1]) < float(first[-1].split(",")[1]) - 2


@pytest.mark.parametrize(
    "network",
    [
        UnrolledConfig(2, (4, 4), 1),
        UnrolledConfig(1, (4,), 1, total=True, start=2),
        AdaptiveTVConfig(2, 2, (4,), 1),
        SIQSMConfig(4),
        UNetConfig(2, 2, 3, True),
    ],
    ids=["unrolled", "total", "adaptive", "SI-QSM", "normalised U-Net"],
)
def test_stop_and_go_is_as_if_never_stopped(tmp_path, network):
    """Bit for bit: weights, running mean and the optimiser's memory."""
    recipe = replace(TINY, network=network, steps=4, accumulate=1)
    train(recipe, run(tmp_path / "through"))
    calls = []

    def stop_after_two(words):
        calls.append(words)

    train(replace(recipe, steps=4), run(tmp_path / "halves", minutes=0.0), stop_after_two)
    assert load(tmp_path / "halves" / NAME).step == 0
    for _ in range(2):  # two updates a call
        state = load(tmp_path / "halves" / NAME)
        _steps(recipe, tmp_path / "halves", state.step + 2)
    a, b = load(tmp_path / "through" / NAME), load(tmp_path / "halves" / NAME)
    assert a.step == b.step == 4
    for part in ("weights", "average", "optimiser"):
        one, two = getattr(a, part), getattr(b, part)
        assert one.keys() == two.keys()
        assert one
        for key in one:
            assert torch.equal(one[key], two[key]), key


def _steps(recipe, folder, until, clock=None):
    """Go on up to a step and stop there, as when the minutes are over."""
    import k2chi.learn.train as loop

    made = []
    real = loop.perf_counter
    start = load(folder / NAME).step

    def timed():
        # the loop asks for the time before each update: let it be late once enough are done
        done = len((folder / "curves.csv").read_text().splitlines()) - 1 if made else start
        made.append(1)
        return 1e9 if done >= until else 0.0

    loop.perf_counter = timed
    try:
        train(recipe, run(folder, resume=True, minutes=1.0))
    finally:
        loop.perf_counter = real


def test_accumulated_gradients_are_those_of_the_mean_loss():
    """Of the very batches whose numbers follow from the update's."""
    network, other = TINY.network.build(), TINY.network.build()
    other.load_state_dict(network.state_dict())
    loss = _gradients(replace(TINY, seed=3), network, torch.device("cpu"), 5, 0, 1)
    losses = []
    for number in (10, 11):
        batch = DATA(3 * 2**40 + number)
        losses.append(relative(other.invert(batch.given()), batch))
    (sum(losses) / 2).backward()
    assert loss == pytest.approx(float(sum(losses).detach()) / 2)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_the_running_mean_follows_the_weights(tmp_path):
    """Its memory grows from 1/11 to the recipe's: the first weights are soon forgotten."""
    train(TINY, run(tmp_path, minutes=0.0))
    means = [load(tmp_path / NAME).average]
    for n in (1, 2):
        _steps(TINY, tmp_path, n)
        state, memory = load(tmp_path / NAME), min(0.9, n / (n + 10))
        for k, now in state.weights.items():
            torch.testing.assert_close(state.average[k], memory * means[-1][k] + (1 - memory) * now)
        means.append(state.average)


def test_half_precision_learns_nearly_the_same_and_keeps_whole_weights(tmp_path):
    """bfloat16 in the layers changes the loss by a little, and not by nothing."""
    found = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace(TINY, precision=precision, steps=3, accumulate=1)
        state = train(recipe, run(tmp_path / precision, look_every=1000))
        assert all(w.dtype == torch.float32 for w in state.weights.values())
        lines = (tmp_path / precision / "curves.csv").read_text().splitlines()[1:]
        found[precision] = [float(line.split(",")[1]) for line in lines]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)
    assert found["bfloat16"][1:] != found["float32"][1:]


def test_an_update_whose_gradients_are_not_finite_is_left_out(tmp_path, monkeypatch):
    """One batch in four is broken: the others are learned from as if it had not come."""
    fields = Anything.__call__

    def broken(data, number, device="cpu"):
        batch = fields(data, number, device)
        return replace(batch, field=batch.field * float("nan")) if number == 2 else batch

    monkeypatch.setattr(Anything, "__call__", broken)
    said = []
    recipe = replace(TINY, accumulate=1, steps=4)
    before = train(replace(recipe, steps=2), run(tmp_path / "a", look_every=1000)).weights
    after = train(replace(recipe, steps=4), run(tmp_path / "b", look_every=1000), said.append).weights
    assert all(w.isfinite().all() for w in after.values())
    assert any((after[k] != w).any() for k, w in before.items())
    assert [words for words in said if "left out" in words] == [
        "step 2: gradients are not finite, this update is left out"
    ]


def test_two_processes_learn_what_one_learns_from_twice_the_batches(tmp_path):
    """Gradients are averaged over processes, which `torchrun` tells of each other by these variables."""
    whole = train(replace(TINY, steps=3, accumulate=2), run(tmp_path / "one"))
    code = (
        "from test_learn_train import *\n"
        f"train(replace(TINY, steps=3, accumulate=1), run(Path({str(tmp_path / 'two')!r})))"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": paths}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **told, "RANK": rank})
        for rank in ("0", "1")
    ]
    try:
        assert [p.wait(timeout=300) for p in both] == [0, 0]
    finally:
        for p in both:
            p.kill()
    half = load(tmp_path / "two" / NAME)
    assert half.step == 3
    for part in ("weights", "average", "optimiser"):
        for key, value in getattr(whole, part).items():
            torch.testing.assert_close(getattr(half, part)[key], value, rtol=1e-4, atol=1e-6)
    losses = (tmp_path / "two" / "curves.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in losses] == ["step", "1", "2", "3"]


@pytest.mark.cuda
def test_a_run_goes_on_on_another_device(tmp_path):
    """Weights and memory are those of the CPU; only the random data differ there."""
    train(TINY, run(tmp_path, minutes=0.0))
    _steps(TINY, tmp_path, 2)
    before = load(tmp_path / NAME)
    after = train(TINY, run(tmp_path, resume=True, device="cuda"))
    assert (before.step, after.step, after.device) == (2, TINY.steps, "cuda")
    again = train(replace(TINY, steps=TINY.steps + 1), run(tmp_path, resume=True))
    assert again.step == TINY.steps + 1


def test_a_checkpoint_tells_its_recipe_and_holds_no_pickle(tmp_path):
    train(replace(TINY, steps=1), run(tmp_path / "a"))
    with safe_open(tmp_path / "a" / NAME, framework="pt") as file:
        assert file.metadata()["step"] == "1"
    state = load(tmp_path / "a" / NAME)
    assert state.recipe == replace(TINY, steps=1)
    assert state.seconds > 0
    assert (tmp_path / "a" / "curves.csv").read_text().splitlines()[1].startswith("1,")
    assert list((tmp_path / "a").glob("step-*.png"))


def test_folders_are_not_mixed_up(tmp_path):
    with pytest.raises(ValueError, match="leave out --resume"):
        train(TINY, run(tmp_path / "a", resume=True))
    train(replace(TINY, steps=1), run(tmp_path / "a"))
    with pytest.raises(ValueError, match="give --resume"):
        train(TINY, run(tmp_path / "a"))
    with pytest.raises(ValueError, match="another folder"):
        train(replace(TINY, network=UnrolledConfig(3)), run(tmp_path / "a", resume=True))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / NAME).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "b" / NAME)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name):
    assert from_record(to_record(RECIPES[name]), CLASSES) == RECIPES[name]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_least_at_the_truth(name):
    """The truth costs less than the truth with noise, and the loss has a gradient."""
    batch = DATA(2)
    draw = torch.Generator().manual_seed(0)
    noisy = batch.chi + 0.05 * torch.randn(batch.chi.shape, generator=draw) * batch.support
    chi = noisy.clone().requires_grad_()
    loss = LOSSES[name](Answer(chi), batch)
    assert float(LOSSES[name](Answer(batch.chi), batch)) < 0.9 * float(loss.detach())
    loss.backward()
    assert chi.grad.abs().sum() > 0


def test_the_spread_is_taught_the_size_of_the_error():
    """Of all constant spreads the right one costs least."""
    batch = DATA(2)
    draw = torch.Generator().manual_seed(0)
    chi = batch.chi + 0.02 * torch.randn(batch.chi.shape, generator=draw)
    costs = [float(relative(Answer(chi, torch.full_like(chi, s)), batch)) for s in (0.01, 0.02, 0.04)]
    assert costs[1] < min(costs[0], costs[2])


def test_scaling_augmentation_scales_all_alike():
    batch = DATA(2)
    other = stretched(batch, 4.0, 3)
    factor = float(other.chi.abs().max() / batch.chi.abs().max())
    assert 1 < factor < 4
    torch.testing.assert_close(other.field.abs(), batch.field.abs() * factor)
    assert stretched(batch, 1.0, 3) is batch


def test_the_learning_rate_rises_and_falls():
    recipe = replace(TINY, steps=100, warmup=10)
    rates = [pace(s, recipe) for s in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert pace(50, replace(recipe, warmup=0)) == 1.0


def test_pictures_can_be_read(tmp_path):
    save_png(tmp_path / "a.png", torch.tensor([[0.0, 0.5, 1.0], [2.0, -1.0, 0.25]]), 0.0, 1.0)
    image = Image.open(tmp_path / "a.png")
    assert image.size == (3, 2)
    assert [image.getpixel((x, y)) for y in range(2) for x in range(3)] == [0, 128, 255, 255, 0, 64]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"average": 1.0}, {"learning_rate": 0.0}])
def test_recipes_that_cannot_work_are_refused(bad):
    with pytest.raises(ValueError):
        replace(TINY, **bad)

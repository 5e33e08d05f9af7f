"""`k2chi train`: what it makes, and how it refuses."""

import pytest
from typer.testing import CliRunner

from k2chi.app.cli import app
from k2chi.learn import recipes
from k2chi.learn.simulate import Anything
from k2chi.nets import UnrolledConfig
from k2chi.nets.weights import read


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A recipe that takes no time."""
    data = Anything(size=12, batch=1, heads=0.0, bodies=0.0)
    recipe = recipes.Recipe(UnrolledConfig(1, (4, 4), 1), data, steps=1, warmup=0)
    monkeypatch.setitem(recipes.RECIPES, "tiny", recipe)


def call(*args):
    return CliRunner().invoke(app, ["train", *(str(a) for a in args)])


def test_train_resume_and_weights(tmp_path):
    """One step, then one more from the checkpoint, then weights that can be read, and their card."""
    first = call("tiny", "--out", tmp_path / "run")
    assert first.exit_code == 0, first.output
    assert "step 1 of 1" in first.output
    file = tmp_path / "mine.safetensors"
    more = call("tiny", "--out", tmp_path / "run", "--resume", "--steps", 2, "--weights", file)
    assert more.exit_code == 0, more.output
    assert read(file).card.steps == 2
    assert "held-back cubes" in (tmp_path / "mine.md").read_text()


def test_refusals(tmp_path):
    assert "choose one of" in call("nothing").output
    assert "above zero" in call("tiny", "--out", tmp_path, "--minutes", 0).output
    call("tiny", "--out", tmp_path / "run")
    again = call("tiny", "--out", tmp_path / "run")
    assert again.exit_code == 2
    assert "--resume" in again.output


def test_list_names_every_recipe():
    text = call("list").output
    assert all(name in text for name in recipes.RECIPES)

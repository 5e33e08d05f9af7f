"""The text that help pages, reports and the site are made of is there."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from types import UnionType
from typing import get_args

import pytest
from typer.testing import CliRunner

import k2chi
from k2chi.app.cli import app

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(k2chi.__path__, "k2chi.")
    if not info.name.endswith("__main__")
]


def unions():
    """Every choice of methods: a module-level union of frozen dataclasses that can be called on data."""
    for module in MODULES:
        if module.__name__.startswith("k2chi.phantom"):  # shapes, which are called on a grid
            continue
        for name, value in vars(module).items():
            members = get_args(value) if isinstance(value, UnionType) else ()
            if members and all(dataclasses.is_dataclass(m) and "__call__" in vars(m) for m in members):
                yield name, members


METHODS = sorted({m for _, members in unions() for m in members}, key=lambda m: m.__name__)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def field_texts(cls):
    """The sentence under each field, from the source."""
    body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0].body
    texts = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            texts[node.target.id] = str(after.value.value) if told else ""
    return texts


def test_the_unions_are_found():
    """The stages of the pipeline are among them, or the tests below would look at nothing."""
    names = {name for name, _ in unions()}
    assert names >= {
        "Offsets",
        "Masking",
        "Unwrapping",
        "Combination",
        "Background",
        "Inversion",
        "Reference",
    }


@every_method
def test_a_method_is_frozen_and_every_setting_has_a_default(method):
    """So that it can be a key, be stored, and be made without thinking."""
    assert method.__dataclass_params__.frozen
    assert hash(method()) == hash(method())


@every_method
def test_a_method_tells_what_it_does_and_where_it_is_from(method):
    """One plain sentence first; then a DOI, or why there is none."""
    text = inspect.cleandoc(method.__doc__)
    first = text.splitlines()[0]
    assert first.endswith("."), first
    assert not first.startswith(f"{method.__name__}("), "the docstring was left to dataclass"
    assert re.search(r"doi:10\.\d{4,}/\S+", text) or re.search(r"[Nn]o source:", text), "no DOI and no reason"
    assert method.__call__.__doc__


@every_method
def test_every_setting_has_its_sentence(method):
    """The text under a field is its help page."""
    for name, text in field_texts(method).items():
        assert text.strip().endswith("."), f"{method.__name__}.{name}: {text!r}"


def public(module):
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if own and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
            yield name, value


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_everything_public_is_explained(module):
    """Modules, functions and classes."""
    assert module.__doc__, "the module has no docstring"
    for name, value in public(module):
        assert (value.__doc__ or "").strip(), f"{module.__name__}.{name}"
        if inspect.isclass(value):
            assert not value.__doc__.startswith(f"{name}("), f"{name}: the docstring was left to dataclass"


def test_help_keeps_units_in_brackets():
    """Square brackets are markup to some help formatters, which swallow them."""
    text = CliRunner().invoke(app, ["qsm", "--help"], env={"COLUMNS": "200"}).output
    assert "Echo time [s]" in text
    assert "Field strength [T]" in text

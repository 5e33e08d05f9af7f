"""Recipes: exact round trip, strict reading, one-line changes. On a toy tree."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2chi import about, config
from k2chi.joint import TGV
from k2chi.pipeline import Pipeline as Chain


@dataclass(frozen=True)
class Stop:
    """When to stop."""

    tolerance: float = 1e-3
    """Relative update; 0 never stops."""


@dataclass(frozen=True)
class Gold:
    """Divide by gold. A second sentence.

    y = x / Au. Works in radians. Müller-Lüd et al. 2009, MRM 62:1510, doi:10.1002/mrm.22135; the rest after
    Smith & Jones 2011 Phys Med 3:4 doi:10.1000/xyz-1.
    """

    purity: float = 0.999
    """Share of gold [0 to 1]."""
    carats: int = 24
    ring: bool = False
    name: str = "au"
    shape: tuple[int, int, int] = (1, 2, 3)
    radii_mm: tuple[float, ...] = (1.0,)
    kind: Literal["soft", "hard"] = "soft"
    limit: float | None = None
    weights: Path | None = None
    stop: Stop = Stop()

    def __post_init__(self) -> None:
        if not 0 <= self.purity <= 1:
            raise ValueError(f"purity {self.purity} is no share: choose 0 to 1")


@dataclass(frozen=True)
class Lead:
    """Divide by lead."""

    purity: float = 0.5
    density: float = 11.3


@dataclass(frozen=True)
class Works:
    """A toy pipeline."""

    metal: Gold | Lead = Gold()
    """The metal."""
    coat: Lead | None = None
    """What covers it."""
    rounds: int = 1


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    purity=st.floats(0, 1),
    carats=st.integers(-(2**40), 2**40),
    ring=st.booleans(),
    name=st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(lambda t: t != "none"),
    shape=st.tuples(*[st.integers(0, 9)] * 3),
    radii_mm=st.lists(finite, max_size=4).map(tuple),
    limit=st.none() | finite,
)
def test_round_trip_is_exact(**settings):
    """Any settings come back as the same value, nested and optional ones too."""
    works = Works(Gold(**settings, weights=Path("a/b"), stop=Stop(0.1 + 0.2)), coat=Lead())
    assert config.loads(config.dumps(works), Works) == works


def test_default_leaves_out_optional_stage():
    assert config.loads(config.dumps(Works()), Works) == Works()
    assert 'coat = "none"' in config.dumps(Works())


def test_whole_number_is_a_float_but_not_the_reverse():
    made = config.loads('[metal]\nmethod = "Lead"\ndensity = 11', Works)
    assert type(made.metal.density) is float
    with pytest.raises(ValueError, match=r"metal.carats = 1.5 does not fit: give a whole number"):
        config.change(Works(), ["metal.carats = 1.5"])
    with pytest.raises(ValueError, match=r"metal\.purity"):
        config.change(Works(), ["metal.purity = true"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[metal]\nmethod = "Gold"\npurty = 0.1',
            r"Gold has no setting 'purty' \(did you mean purity\?\); it has",
        ),
        (
            '[metal]\nmethod = "gold"',
            r"metal has no method 'gold' \(did you mean Gold\?\); it has Gold, Lead",
        ),
        ("[metal]\npurity = 0.1", "metal names no method: add method = one of Gold, Lead"),
        ("[metals]\npurity = 0.1", r"Works has no setting 'metals' \(did you mean metal\?\)"),
        ('metal = "Gold"', "metal must be a table"),
        ('metal = "none"', "metal must be a table"),
        ('[metal]\nmethod = "Gold"\nkind = "firm"', "give 'soft' or 'hard'"),
        ('[metal]\nmethod = "Gold"\nshape = [1, 2]', "give a list"),
        ('[metal]\nmethod = "Gold"\npurity = 2', "choose 0 to 1"),
        (
            '[metal]\nmethod = "Gold"\n[metal.stop]\nmethod = "Stop"\ntolerance = "x"',
            "metal.stop.tolerance = 'x'",
        ),
        ("[metal", "recipe.toml: not TOML"),
    ],
)
def test_refuses_with_place_and_remedy(text, says):
    with pytest.raises(ValueError, match=says) as error:
        config.loads(text, Works, "recipe.toml")
    assert str(error.value).startswith("recipe.toml: ")


def test_change_keeps_the_rest():
    made = config.change(
        Works(Gold(carats=9)), ["metal.purity = 0.25", "rounds = 3", "metal.stop.tolerance = 0"]
    )
    assert made == Works(Gold(carats=9, purity=0.25, stop=Stop(0.0)), rounds=3)


def test_change_of_method_drops_the_old_settings():
    """purity is a setting of both; the new method starts from its own default."""
    made = config.change(Works(Gold(purity=0.25)), ['metal.method = "Lead"'])
    assert made == Works(Lead())
    assert config.change(Works(Lead(purity=0.25)), ['metal.method = "Lead"']) == Works(Lead(purity=0.25))
    both = config.change(Works(), ['metal = {method = "Lead", density = 2.0}', 'coat.method = "Lead"'])
    assert both == Works(Lead(density=2.0), coat=Lead())
    assert config.change(both, ['coat.method = "none"']).coat is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("metal.method = Lead", "text needs quotes"),
        ("coat.density = 2", "coat is none; choose a method for it first"),
        ("metal.density = 2", "Gold has no setting 'density'"),
    ],
)
def test_change_refuses(line, says):
    with pytest.raises(ValueError, match=says):
        config.change(Works(), [line])


def test_recipes_by_name_and_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("rounds = 7")
    assert config.recipe(file, Works).rounds == 7
    assert "default" in config.shipped()
    with pytest.raises(ValueError, match=r"no recipe 'defualt' \(did you mean default\?\)"):
        config.recipe("defualt", Works)


def test_about_reads_docstrings():
    gold = next(a for a in about.methods(Works) if a.name == "Gold")
    assert (gold.stage, gold.sentence) == ("metal", "Divide by gold.")
    assert gold.citations == (
        "Müller-Lüd et al. (2009). MRM 62:1510. https://doi.org/10.1002/mrm.22135",
        "Smith & Jones (2011). Phys Med 3:4. https://doi.org/10.1000/xyz-1",
    )
    purity = gold.settings[0]
    assert (purity.name, purity.type, purity.default) == ("purity", "a number", 0.999)
    assert purity.help == "Share of gold [0 to 1]."
    assert [a.name for a in about.methods(Works)] == ["Gold", "Lead", "Lead"]
    assert about.differences(Gold(carats=9)) == {"carats": 9}


def test_used_lists_stages_in_order():
    works = Works(Lead(), coat=Lead())
    assert [s for s, _ in about.used(works)] == [f.name for f in dataclasses.fields(works)[:2]]


def test_the_study_recipe_is_the_studys_method():
    """Said once in the method and once in the recipe, so they must not drift apart."""
    assert config.recipe("tgv-ms-study", Chain).invert == TGV.study()
    assert config.recipe("tgv", Chain).invert == TGV()

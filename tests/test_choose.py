"""Rules that choose a setting: against the known error of a closed-form problem, and what they warn of."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from spheres import occupancy, positions_mm, sphere_field
from test_cli import call, data_set

from k2chi import config
from k2chi.app.figures import choice_plot
from k2chi.choose import Discrepancy, FrequencyAnalysis, LCurve, UCurve, with_setting
from k2chi.choose.trial import try_all
from k2chi.data import Field, Grid, Scan
from k2chi.invert import FANSI, NDI, TKD, ClosedFormL2, TwoPass
from k2chi.measure.quality import nrmse
from k2chi.pipeline import Pipeline

RULES = [LCurve(), LCurve("corner"), UCurve(), FrequencyAnalysis(), Discrepancy()]
every = pytest.mark.parametrize("rule", RULES, ids=["L", "corner", "U", "frequency", "discrepancy"])
ALPHAS = tuple(np.logspace(-5, -2, 7))


@pytest.fixture(scope="module")
def noisy():
    """Three balls with noise that matters, and their χ."""
    grid, draw = Grid.of((36, 34, 30), (1.0, 1.1, 1.2)), torch.Generator().manual_seed(1)
    sigma = 0.004
    ppm, truth = sigma * torch.randn(grid.shape, generator=draw), torch.zeros(grid.shape)
    for radius, at, chi in [(5.0, (4, -3, 2), 0.15), (4.0, (-6, 4, -3), -0.08), (3.0, (2, 8, 5), 0.1)]:
        ppm += chi * sphere_field(grid, radius, at)[0]
        truth += chi * occupancy(grid, radius, at)
    mask = torch.from_numpy(np.sqrt(np.square(positions_mm(grid)).sum(0)) < 15)
    noise = torch.full(grid.shape, sigma)
    local = Field(ppm * mask, mask, grid, Scan((0.008,), 3.0), noise_ppm=noise, local=True)
    return local, truth


METHOD = FANSI(nonlinear=False, iterations=30)


@pytest.fixture(scope="module")
def errors(noisy):
    """Error of the map for each α [%]."""
    local, truth = noisy
    return {a: nrmse(replace(METHOD, alpha=a)(local).ppm, truth, local.mask) for a in ALPHAS}


@every
def test_the_chosen_value_is_one_of_those_tried(rule, noisy):
    choice = rule(METHOD, noisy[0], "alpha", ALPHAS)
    assert choice.chosen in choice.values
    assert choice.values == pytest.approx(ALPHAS)
    assert choice.method == replace(METHOD, alpha=choice.chosen)
    assert torch.equal(choice.chi.ppm, choice.method(noisy[0]).ppm)
    assert list(choice.misfit) == sorted(choice.misfit)
    assert list(choice.roughness) == sorted(choice.roughness, reverse=True)


@pytest.mark.parametrize(
    ("rule", "points"),
    [(Discrepancy(), 3), (FrequencyAnalysis(), 30), (UCurve(), 30)],
    ids=["discrepancy", "frequency", "U"],
)
def test_its_error_is_near_the_best(rule, points, noisy, errors):
    """Points above the best of those tried [%]; the worst is far off."""
    chosen = rule(METHOD, noisy[0], "alpha", ALPHAS).chosen
    best, worst = min(errors.values()), max(errors.values())
    assert worst > best + 60
    assert errors[chosen] < best + points


def test_discrepancy_stops_iterations_early(noisy):
    """More iterations fit the noise; the count whose misfit is the noise's errs least, or nearly so."""
    local, truth = noisy
    method = NDI(momentum=False, tolerance=0.0)
    counts = [4, 8, 16, 32, 64, 128]
    choice = Discrepancy()(method, local, "iterations", counts)
    off = {n: nrmse(replace(method, iterations=n)(local).ppm, truth, local.mask) for n in counts}
    assert isinstance(choice.method.iterations, int)
    assert off[128] > min(off.values()) + 10
    assert off[int(choice.chosen)] < min(off.values()) + 6


def test_discrepancy_follows_the_noise_it_is_told(noisy):
    local, _ = noisy
    told = {s: replace(local, noise_ppm=torch.full_like(local.ppm, s)) for s in (0.002, 0.004, 0.012)}
    chosen = [Discrepancy()(METHOD, f, "alpha", ALPHAS).chosen for f in told.values()]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


# ---- curves whose bend is known


@dataclass(frozen=True)
class Known:
    """A stand-in for a method: only its setting counts."""

    strength: float = 1.0
    """The setting."""


def given(monkeypatch, rule, misfit, roughness, values):
    """Let `rule` see these curves instead of a method's."""
    import k2chi.choose.lcurve as lcurve
    import k2chi.choose.ucurve as ucurve

    local = Field(
        torch.ones(4, 4, 4), torch.ones(4, 4, 4, dtype=torch.bool), Grid.of((4, 4, 4)), Scan((0.01,), 3.0)
    )
    real = try_all(TKD(), "threshold", [0.1, 0.2, 0.3], replace(local, ppm=torch.rand(4, 4, 4)))
    made = replace(
        real,
        setting="strength",
        values=tuple(values),
        maps=(real.maps[0],) * len(values),
        methods=tuple(Known(v) for v in values),
        misfit=tuple(misfit),
        roughness=tuple(roughness),
    )
    for module in (lcurve, ucurve):
        monkeypatch.setattr(module, "try_all", lambda *a, **k: made)
    return rule(Known(), local, "strength", [float(v) for v in values])


def test_the_corner_of_a_hyperbola(monkeypatch):
    """log y = 1/(log x + c): the bend is sharpest where its slope is −1, here at the middle value."""
    values = np.logspace(-3, 3, 13)
    t = np.linspace(-3, 3, 13)
    x, y = np.exp(np.log1p(np.exp(2 * t)) / 2), np.exp(np.log1p(np.exp(-2 * t)) / 2)
    choice = given(monkeypatch, LCurve("corner"), x, y, values)
    assert choice.chosen == pytest.approx(1.0)
    assert not choice.warnings


def test_the_bottom_of_a_u(monkeypatch):
    """misfit = λ and roughness = 1/λ: the sum of inverse squares is least where both are one."""
    values = np.logspace(-2, 2, 9)
    choice = given(monkeypatch, UCurve(), values, 1 / values, values)
    assert choice.chosen == pytest.approx(1.0)


def test_a_straight_line_has_no_corner(monkeypatch):
    values = np.logspace(-2, 2, 9)
    choice = given(monkeypatch, LCurve("corner"), values, 1 / values, values)
    assert any("no corner" in w for w in choice.warnings)


def test_values_where_the_misfit_rises_again_are_not_used(monkeypatch):
    values = np.logspace(-2, 2, 9)
    misfit = np.where(values < 0.05, 1 / values, values)
    choice = given(monkeypatch, UCurve(), misfit, 1 / values, values)
    assert choice.chosen > 0.05
    assert any("not used" in w for w in choice.warnings)
    assert np.isnan(choice.score[0])


# ---- warnings, nesting, refusals


def test_an_optimum_at_the_edge_is_told(noisy):
    choice = Discrepancy()(METHOD, noisy[0], "alpha", [1e-5, 2e-5])
    assert any("largest value tried: add larger" in w for w in choice.warnings)
    assert choice.chosen == 2e-5
    assert any("not converged" in w for w in choice.warnings)


def test_dots_lead_into_a_method_inside():
    method = with_setting(TwoPass(TKD()), "inner.threshold", 0.3)
    assert method == TwoPass(TKD(0.3))
    assert with_setting(NDI(), "iterations", 20.0).iterations == 20


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda f: LCurve()(TKD(), f, "treshold", (0.1, 0.2, 0.3, 0.4, 0.5)),
            "no setting 'treshold'; it has",
        ),
        (lambda f: LCurve()(TKD(), f, "rescale", (1.0, 2, 3, 4, 5)), "is no number"),
        (lambda f: LCurve()(NDI(), f, "iterations", (1.5, 2, 3, 4, 5)), "whole number"),
        (lambda f: LCurve()(TKD(), f, "threshold", (0.1, 0.2)), "too few"),
        (lambda f: UCurve()(TKD(), f, "threshold", (-0.1, 0.2, 0.3)), "must be positive"),
        (lambda f: UCurve()(TKD(), f, "threshold", (0.1, 0.2, 0.9)), "threshold 0.9 is out of range"),
        (
            lambda f: Discrepancy()(TKD(), replace(f, noise_ppm=None), "threshold", (0.1, 0.2)),
            "needs the noise",
        ),
        (
            lambda f: UCurve()(TKD(), replace(f, ppm=0 * f.ppm), "threshold", (0.1, 0.2, 0.3)),
            "nothing to balance",
        ),
        (lambda f: FrequencyAnalysis(near=(0.3, 0.2)), "is empty"),
        (lambda f: FrequencyAnalysis(factor=0.0), "must be positive"),
        (lambda f: Discrepancy(factor=0.0), "must be positive"),
    ],
)
def test_what_cannot_be_tried_is_refused(call, says, noisy):
    with pytest.raises(ValueError, match=says):
        call(noisy[0])


# ---- plot and command


def test_the_plot_marks_the_choice(noisy):
    choice = Discrepancy()(ClosedFormL2(), noisy[0], "penalty_mm2", (1e-3, 1e-2, 1e-1))
    figure = choice_plot(choice)
    left, right = figure.axes
    assert left.lines[1].get_xdata()[0] == choice.misfit[choice.best]
    assert right.lines[1].get_xdata()[0] == choice.chosen
    assert "discrepancy" in figure.get_suptitle()


STEPS = [*("--set", 'unwrap.method = "LaplacianUnwrap"'), *("--set", "background.largest_mm = 4.0")]


def test_the_command_writes_table_plot_and_recipe(tmp_path):
    """The recipe reads back with the chosen value in it."""
    root, out = data_set(tmp_path / "raw"), tmp_path / "out"
    args = ["choose", root, out, *STEPS, "--set", 'invert.method = "TKD"', "--field", "invert.threshold"]
    result = call(*args, "--values", "0.05,0.1,0.2,0.3", "--rule", "ucurve", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    table = [line.split("\t") for line in (out / "choice.tsv").read_text().splitlines()]
    assert table[0] == ["threshold", "misfit", "roughness_ppm_per_mm", "score", "chosen"]
    chosen = [float(row[0]) for row in table[1:] if row[-1] == "1"]
    assert chosen == [told["chosen"]]
    assert config.loads((out / "choice.toml").read_text(), Pipeline).invert.threshold == told["chosen"]
    assert (out / "choice.png").read_bytes().startswith(b"\x89PNG")
    again = call(*args, "--values", "0.05,0.1,0.2,0.3", "--rule", "ucurve")
    assert again.exit_code == 2
    assert "--overwrite" in again.output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--field", "invert.treshold", "--values", "0.1,0.2"], "no setting 'treshold'"),
        (["--field", "mask.size", "--values", "0.1,0.2"], "a setting of the inversion"),
        (["--field", "invert.threshold", "--values", "0.1,x"], "give numbers with commas"),
        (["--field", "invert.threshold", "--values", "0.1,0.9"], "out of range"),
    ],
)
def test_the_command_refuses_with_code_2(changes, says, tmp_path):
    root = data_set(tmp_path / "raw")
    result = call("choose", root, tmp_path / "out", "--set", 'invert.method = "TKD"', *changes)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()

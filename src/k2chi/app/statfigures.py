"""Figures of `k2chi stats`: Bland–Altman, scatter with fit, lines of persons, forest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from k2chi.app.statdata import Grid
from k2chi.app.statout import Row
from k2chi.measure.result import Result, number

BLUE, RED, GREY = "#1f5fa8", "#b3312c", "#7a7a7a"
KINDS = ("png", "svg", "pdf")
STYLE: Any = {
    "svg.hashsalt": "k2chi",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """As PNG, SVG and PDF; the same bytes for the same figure."""
    FigureCanvasAgg(figure)
    made = []
    for kind in KINDS:
        path = stem.with_name(f"{stem.name}.{kind}")
        told = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        with mpl.rc_context(STYLE):
            figure.savefig(path, dpi=200, metadata=told)
        made.append(path)
    return made


def _blank(width: float = 4.6, height: float = 3.6) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


def _axis(words: str, unit: str) -> str:
    return f"{words} [{unit}]" if unit else words


def bland_altman(grid: Grid, found: Sequence[Result], unit: str, title: str = "") -> Figure:
    """Differences against means; bias and limits as lines, their intervals as bands."""
    figure, axes = _blank()
    a, b = grid.values[:, 0], grid.values[:, 1]
    _dots(axes, (a + b) / 2, a - b, grid)
    for r, colour in zip(found[:3], (BLUE, RED, RED), strict=True):
        if r.estimate is None:
            continue
        axes.axhline(r.estimate, color=colour, lw=1, ls="-" if colour == BLUE else "--")
        if r.ci:
            axes.axhspan(*r.ci, color=colour, alpha=0.12, lw=0)
        place = (1.0, r.estimate)
        axes.annotate(
            number(r.estimate), place, xycoords=("axes fraction", "data"), xytext=(-2, 2), color=colour,
            textcoords="offset points", ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
    axes.axhline(0, color=GREY, lw=0.6)
    one, two = grid.levels
    axes.set(
        xlabel=_axis(f"mean of {one} and {two}", unit), ylabel=_axis(f"{one} − {two}", unit), title=title
    )
    return figure


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, grid: Grid) -> None:
    """One dot a pair; a colour for each person only where a person has several."""
    if grid.repeated and len(names := sorted(set(grid.subject))) <= 20:
        colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
        for k, name in enumerate(names):
            here = grid.subject == name
            axes.plot(x[here], y[here], "o", ms=4, alpha=0.7, mew=0, color=colours[k % 20], label=name)
        axes.legend(fontsize=6, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(1, 1))
        return
    axes.plot(x, y, "o", ms=4, alpha=0.6, mew=0, color="#333333")


def scatter(grid: Grid, found: Sequence[Result], unit: str, title: str = "") -> Figure:
    """Second against first on one scale, the line of identity, and the fitted line if there is one."""
    figure, axes = _blank(4.0, 3.8)
    a, b = grid.values[:, 0], grid.values[:, 1]
    _dots(axes, a, b, grid)
    if len(a):
        low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
        edge = 0.05 * (high - low) or 1.0
        ends = np.array([low - edge, high + edge])
        axes.plot(ends, ends, color=GREY, lw=0.8, ls=":", label="identity")
        slope = next((r for r in found if "slope (" in r.name), None)
        offset = next((r for r in found if r.name.endswith("intercept")), None)
        if slope and offset and slope.estimate is not None and offset.estimate is not None:
            axes.plot(ends, offset.estimate + slope.estimate * ends, color=BLUE, lw=1.2, label="fit")
        axes.set(xlim=ends, ylim=ends, aspect="equal")
    once = [r for r in found if r.estimate is not None and "bootstrap" not in r.name]
    lines = [f"{r.name.split(' (')[0]} {number(r.estimate)}" for r in once][:2]
    paper = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
    axes.text(0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7, bbox=paper)
    axes.set(xlabel=_axis(grid.levels[0], unit), ylabel=_axis(grid.levels[1], unit), title=title)
    return figure


def trend(grid: Grid, found: Result, unit: str, title: str = "") -> Figure:
    """Value against covariate, and the line of the adjusted slope through the middle of the points."""
    figure, axes = _blank()
    x, y = grid.values[:, 0], grid.values[:, 1]
    axes.plot(x, y, "o", ms=4, alpha=0.6, mew=0, color="#333333")
    if found.estimate is not None and len(x):
        ends = np.array([x.min(), x.max()])
        lines = (found.estimate, *(found.ci or ()))
        for slope, width in zip(lines, (1.4, 0.7, 0.7), strict=False):
            line = y.mean() + slope * (ends - x.mean())
            axes.plot(ends, line, color=BLUE, lw=width, ls="-" if width > 1 else "--")
        axes.text(
            0.03, 0.97, f"slope {number(found.estimate)}", transform=axes.transAxes, va="top", fontsize=7
        )
    axes.set(xlabel=grid.levels[0], ylabel=_axis(grid.levels[1], unit), title=title)
    return figure


def persons(grid: Grid, unit: str, title: str = "") -> Figure:
    """A line from first to second for each person; the mean of those with several lesions."""
    figure, axes = _blank(3.2, 3.8)
    names = list(dict.fromkeys(grid.subject))
    for name in names:
        mean = grid.values[grid.subject == name].mean(0)
        axes.plot([0, 1], mean, "o-", ms=3, lw=0.7, color=BLUE if mean[1] >= mean[0] else RED, alpha=0.6)
    if names:
        overall = np.mean([grid.values[grid.subject == n].mean(0) for n in names], 0)
        axes.plot([0, 1], overall, "s-", ms=5, lw=2.2, color="black")
    axes.set_xticks([0, 1], list(grid.levels))
    axes.set(
        xlim=(-0.3, 1.3), ylabel=_axis("mean of a person" if grid.repeated else "value", unit), title=title
    )
    return figure


def forest(rows: Sequence[Row], unit: str, name: str = "") -> Figure | None:
    """One estimate for each row with its interval, so far as it can be drawn; None for fewer than two.

    Rows are told apart by their group, or, if a `name` for the axis is given, by what was estimated.
    """
    drawn = [r for r in rows if r.result.estimate is not None]
    if len(drawn) < 2:
        return None
    figure, axes = _blank(6.4 if name else 5.2, 0.8 + 0.28 * len(drawn))
    for k, row in enumerate(reversed(drawn)):
        value = row.result.estimate or 0.0
        naive = any(note.startswith("naive") for note in row.result.notes)
        colour = GREY if naive else BLUE
        if row.result.ci:
            low, high = (e if np.isfinite(e) else value for e in row.result.ci)
            axes.plot([low, high], [k, k], color=colour, lw=1.4)
        axes.plot([value], [k], "o" if naive else "s", color=colour, ms=5)
    labels = [r.result.name if name else r.group for r in reversed(drawn)]
    axes.set_yticks(range(len(drawn)), labels, fontsize=7 if name else 9)
    first = drawn[0].result
    if any(w in first.name for w in (" − ", "Pearson", "Spearman", "slope", "κ", "Bias")):
        null = 1.0 if "slope (" in first.name and "mean" not in first.name else 0.0
        axes.axvline(null, color=GREY, lw=0.7, ls=":")
    axes.set(ylim=(-0.7, len(drawn) - 0.3), xlabel=_axis(name or first.name, unit if first.in_unit else ""))
    if name and any(note.startswith("naive") for r in drawn for note in r.result.notes):
        axes.set_title("grey: lesions taken as independent; blue: by patient", fontsize=7, loc="left")
    return figure

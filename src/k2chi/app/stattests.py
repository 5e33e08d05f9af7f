"""Each test of `k2chi stats`: which columns it takes, and which function answers."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np

from k2chi.app.statdata import Grid, Wish, gather, levels, pair_of
from k2chi.io.table import Table
from k2chi.measure import agreement as agree
from k2chi.measure import association as assoc
from k2chi.measure.agreement.accuracy import flags
from k2chi.measure.clustered import clustered_difference, gee
from k2chi.measure.clustered_agreement import clustered_accuracy, clustered_kappa, clustered_mcnemar
from k2chi.measure.result import Result


class Statistic(StrEnum):
    """What `k2chi stats` can compute."""

    paired_t = "paired-t"
    wilcoxon = "wilcoxon"
    sign = "sign"
    clustered = "clustered"
    bland_altman = "bland-altman"
    tost = "tost"
    icc = "icc"
    ccc = "ccc"
    deming = "deming"
    passing_bablok = "passing-bablok"
    pearson = "pearson"
    spearman = "spearman"
    kappa = "kappa"
    mcnemar = "mcnemar"
    fleiss = "fleiss"
    ac1 = "ac1"
    krippendorff = "krippendorff"
    accuracy = "accuracy"
    linear = "linear"
    hc3 = "hc3"
    robust = "robust"
    mixed = "mixed"
    gee = "gee"
    trend = "trend"


S = Statistic
NUMBERS = (
    *(
        S.paired_t,
        S.wilcoxon,
        S.sign,
        S.clustered,
        S.bland_altman,
        S.tost,
        S.ccc,
    ),
    *(S.deming, S.passing_bablok, S.pearson, S.spearman),
)
"""Tests of a pair of numbers."""
MODELS = (S.linear, S.hc3, S.robust, S.mixed, S.gee, S.trend)
"""Tests of a value and its covariates."""
DEPENDENT = "several rows of a person are taken as independent: see --test clustered, mixed or gee"


def run(test: Statistic, table: Table, wish: Wish) -> tuple[tuple[Result, ...], Grid | None]:
    """The results of one test, and the values it saw (none for models)."""
    if len(wish.value) == 1 and not wish.by and test in (S.pearson, S.spearman) and wish.covariates:
        return _against_covariate(test, table, wish), None
    if test in MODELS:
        return _model(test, table, wish), _along(table, wish) if test is S.trend else None
    if test in NUMBERS:
        grid = gather(table, wish, pair_of(table, wish), numbers=True)
        return _named(_pair(test, grid, wish), grid), grid
    if test is S.icc:
        wanted = wish.pair or levels(table, wish)
        grid = gather(table, wish, wanted, numbers=True)
        form: Any = wish.form
        found = agree.icc(grid.values, form, wish.confidence)
        return (found.noting(*grid.notes, *_warn(grid)),), grid
    return _classes(test, table, wish)


def _pair(test: Statistic, grid: Grid, wish: Wish) -> Iterable[Result]:
    a, b = grid.values[:, 0], grid.values[:, 1]
    level, warn = wish.confidence, _warn(grid)
    if test is S.clustered:
        return clustered_difference(a, b, grid.subject, level, wish.seed)
    if test is S.bland_altman:
        if grid.repeated:
            return agree.repeated_limits(a, b, grid.subject, level)
        return agree.limits(a, b, level)
    if test is S.tost:
        if wish.margin is None:
            raise ValueError(
                "tost needs --margin: the largest difference that does not matter, set beforehand"
            )
        return [agree.equivalence(a, b, wish.margin, 1 - wish.confidence).noting(*warn)]
    if test is S.deming:
        return [r.noting(*warn) for r in agree.deming(a, b, wish.ratio, level)]
    if test is S.passing_bablok:
        return [r.noting(*warn) for r in agree.passing_bablok(a, b, level)]
    simple: dict[Statistic, Callable[..., Result]] = {
        S.paired_t: assoc.paired_t,
        S.wilcoxon: assoc.wilcoxon,
        S.sign: assoc.sign_test,
        S.ccc: agree.concordance,
        S.pearson: assoc.pearson,
        S.spearman: assoc.spearman,
    }
    return [simple[test](a, b, level=level).noting(*warn)]


def _warn(grid: Grid) -> tuple[str, ...]:
    return (DEPENDENT,) if grid.repeated else ()


def _named(found: Iterable[Result], grid: Grid) -> tuple[Result, ...]:
    """Say what a and b are."""
    a, b = grid.levels

    def said(words: str) -> str:
        for old, new in (
            ("a − b", f"{a} − {b}"),
            ("b on a", f"{b} on {a}"),
            ("by a − by b", f"by {a} − {b}"),
        ):
            words = words.replace(old, new)
        for old, new in (("a is larger", f"{a} is larger"), ("a is smaller", f"{a} is smaller")):
            words = words.replace(old, new)
        return words.replace("by a only", f"by {a} only").replace("by b only", f"by {b} only")

    return tuple(replace(r, name=said(r.name), reading=said(r.reading)).noting(*grid.notes) for r in found)


def scale_of(table: Table, wish: Wish, needed: str = "") -> tuple[str, ...]:
    """The classes: as said, or those that occur where the whole scale does not matter."""
    if wish.classes:
        return wish.classes
    used = wish.seen or sorted({w for name in wish.value for w in table.words(name) if w})
    if needed:
        raise ValueError(
            f"{needed} depends on the whole scale, also on classes nobody used: "
            f"give it in order with --classes, for example --classes {','.join(used)}"
        )
    if len(used) > 20:
        raise ValueError(f"{table.path}: {wish.value[0]} has {len(used)} different values; are they classes?")
    return tuple(used) if len(used) > 1 else (*used, "(another class)")


def _classes(test: Statistic, table: Table, wish: Wish) -> tuple[tuple[Result, ...], Grid]:
    level = wish.confidence
    if test in (S.fleiss, S.ac1, S.krippendorff):
        wanted = wish.pair or tuple(v for v in levels(table, wish) if v != wish.truth)
        grid = gather(table, wish, wanted, numbers=False, gaps=True)
        kind: Any = wish.scale
        ordered = test is S.krippendorff and kind != "nominal"
        needed = "AC1" if test is S.ac1 else f"α ({kind})" if ordered else ""
        scale = scale_of(table, wish, needed)
        if test is S.krippendorff:
            one = agree.krippendorff(grid.values, scale, kind, level, seed=wish.seed)
        else:
            one = (agree.fleiss if test is S.fleiss else agree.ac1)(grid.values, scale, level)
        return (one.noting(*grid.notes, *_warn(grid)),), grid
    if test is S.accuracy:
        return _accuracy(table, wish)
    grid = gather(table, wish, pair_of(table, wish), numbers=False)
    a, b, who = grid.values[:, 0], grid.values[:, 1], grid.subject
    if test is S.mcnemar:
        x, y = flags(a, _finding(table, wish)), flags(b, _finding(table, wish))
        found: Iterable[Result] = (
            clustered_mcnemar(x, y, who, level, wish.seed) if grid.repeated else [agree.mcnemar(x, y, level)]
        )
        return _named(found, grid), grid
    weights: Any = wish.weights
    scale = scale_of(table, wish, "" if weights == "none" else "weighted κ")
    rows: list[Result] = []
    if weights == "none":
        whole = agree.agreement(a, b, scale, level)
        rows = [whole.raw, whole.kappa, whole.ac1, whole.pabak, *whole.specific]
        if not wish.classes:
            rows = [
                r.noting("AC1 and PABAK count the classes that occur; give --classes for the whole scale")
                if r.name in ("Gwet's AC1", "PABAK")
                else r
                for r in rows
            ]
    else:
        rows = [agree.kappa(a, b, scale, weights, level)]
    if grid.repeated:
        both = clustered_kappa(a, b, scale, who, weights, level, wish.seed)
        rows = [r.noting(*both.naive.notes[-1:]) for r in rows]
        rows.append(both.clustered)
    return _named(rows, grid), grid


def _finding(table: Table, wish: Wish) -> str:
    there = {*wish.seen, *(w for name in wish.value for w in table.words(name) if w)}
    if wish.positive and wish.positive in there | set(wish.classes):
        return wish.positive
    raise ValueError(
        f"say with --positive which of {', '.join(sorted(there)[:8])} counts as a finding"
        + (f"; {wish.positive!r} does not occur" if wish.positive else "")
    )


def _accuracy(table: Table, wish: Wish) -> tuple[tuple[Result, ...], Grid]:
    """Each method or reader against the reference."""
    if not wish.truth:
        raise ValueError("accuracy needs --truth: the reader or method that is the reference")
    yes, rows = _finding(table, wish), []
    others = [v for v in (wish.pair or levels(table, wish)) if v != wish.truth]
    for other in others:
        grid = gather(table, wish, (other, wish.truth), numbers=False)
        found, true = flags(grid.values[:, 0], yes), flags(grid.values[:, 1], yes)
        if grid.repeated:
            pairs = clustered_accuracy(found, true, grid.subject, wish.confidence, wish.seed)
            made = [r for both in pairs for r in both]
        else:
            made = list(agree.accuracy(found, true, wish.confidence))
        rows += [replace(r, name=f"{r.name}, {other} against {wish.truth}").noting(*grid.notes) for r in made]
    return tuple(rows), grid


def _columns(table: Table, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {n: table.numbers(n) if table.numeric(n) else np.array(table.words(n), dtype=str) for n in names}


def _model(test: Statistic, table: Table, wish: Wish) -> tuple[Result, ...]:
    y, x, level = table.numbers(wish.value[0]), _columns(table, wish.covariates), wish.confidence
    if test is S.trend and not x:
        raise ValueError("trend needs --covariate: the column to follow, such as age")
    if test in (S.mixed, S.gee):
        if not wish.subject:
            raise ValueError(f"{test} needs --subject: the column of persons")
        who = np.array(table.words(wish.subject), dtype=str)
        return (assoc.mixed if test is S.mixed else gee)(y, x, who, level)
    if not x:
        raise ValueError(f"{test} needs --covariate: what explains {wish.value[0]}")
    warn = (DEPENDENT,) if wish.subject and len(table.levels(wish.subject)) < len(table) else ()
    if test is S.trend:
        return (assoc.trend(y, x, level).noting(*warn),)
    kind: Any = {S.linear: "ols", S.hc3: "hc3", S.robust: "huber"}[test]
    return tuple(r.noting(*warn) for r in assoc.linear(y, x, kind, level))


def _along(table: Table, wish: Wish) -> Grid:
    """First covariate and value, side by side, for the figure."""
    names = (wish.covariates[0], wish.value[0])
    columns = [table.numbers(n) for n in names]
    there = ~np.isnan(columns[0]) & ~np.isnan(columns[1])
    return Grid(np.stack([c[there] for c in columns], 1), names, np.arange(int(there.sum())).astype(str))


def _against_covariate(test: Statistic, table: Table, wish: Wish) -> tuple[Result, ...]:
    """Correlation of the value with each covariate."""
    y, rows = table.numbers(wish.value[0]), []
    how = assoc.pearson if test is S.pearson else assoc.spearman
    for name in wish.covariates:
        found = how(table.numbers(name), y, wish.confidence)
        rows.append(replace(found, name=f"{found.name}, {wish.value[0]} with {name}"))
    return tuple(rows)

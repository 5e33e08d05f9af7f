"""Each test of `k2chi stats`: which columns it takes, and which function answers."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from k2chi.app.statdata import Grid, Wish, gather, levels, pair_of
from k2chi.app.statkinds import DEPENDENT, MODELS, NUMBERS, S, Statistic
from k2chi.app.statmodels import against_covariate, along, model
from k2chi.io.table import Table
from k2chi.measure import agreement as agree
from k2chi.measure import association as assoc
from k2chi.measure.agreement.accuracy import flags
from k2chi.measure.clustered import clustered_difference
from k2chi.measure.clustered_agreement import (
    NAIVE,
    clustered_accuracy,
    clustered_agreement,
    clustered_coefficient,
    clustered_kappa,
    clustered_mcnemar,
)
from k2chi.measure.clustered_lines import clustered_deming, clustered_passing_bablok
from k2chi.measure.result import Result


def run(test: Statistic, table: Table, wish: Wish) -> tuple[tuple[Result, ...], Grid | None]:
    """The results of one test, and the values it saw (none for models)."""
    if len(wish.value) == 1 and not wish.by and test in (S.pearson, S.spearman) and wish.covariates:
        return against_covariate(test, table, wish), None
    if test in MODELS:
        return model(test, table, wish), along(table, wish) if test is S.trend else None
    if test in NUMBERS:
        grid = gather(table, wish, pair_of(table, wish), numbers=True)
        return _named(_pair(test, grid, wish), grid), grid
    if test is S.icc:
        wanted = wish.pair or levels(table, wish)
        grid = gather(table, wish, wanted, numbers=True)
        form: Any = wish.form

        def of(rows: np.ndarray) -> Result:
            return agree.icc(grid.values[rows], form, wish.confidence)

        if not grid.repeated:
            return (of(np.arange(len(grid.values))).noting(*grid.notes),), grid
        naive = replace(of(np.arange(len(grid.values))), counted="lesions")
        return _noted(_both(naive, lambda k: of(k).estimate, grid, wish), grid), grid
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
        one = agree.equivalence(a, b, wish.margin, 1 - wish.confidence)
        return [one.noting(*warn), _of_means(grid, wish)] if grid.repeated else [one]
    if test is S.deming:
        if grid.repeated:
            return clustered_deming(a, b, grid.subject, wish.ratio, level, wish.seed)
        return agree.deming(a, b, wish.ratio, level)
    if test is S.passing_bablok:
        if grid.repeated:
            return clustered_passing_bablok(a, b, grid.subject, level, wish.seed)
        return agree.passing_bablok(a, b, level)
    simple: dict[Statistic, Callable[..., Result]] = {
        S.paired_t: assoc.paired_t,
        S.wilcoxon: assoc.wilcoxon,
        S.sign: assoc.sign_test,
        S.ccc: agree.concordance,
        S.pearson: assoc.pearson,
        S.spearman: assoc.spearman,
    }
    one = simple[test](a, b, level=level)
    if grid.repeated and test in (S.ccc, S.pearson, S.spearman):
        how = agree.concordance if test is S.ccc else assoc.pearson
        seen: Callable[..., Any] = stats.rankdata if test is S.spearman else np.asarray
        return _both(one, lambda k: how(seen(a[k]), seen(b[k]), level).estimate, grid, wish)
    return [one.noting(*warn)]


def _both(
    naive: Result, estimate: Callable[[np.ndarray], float | None], grid: Grid, wish: Wish
) -> tuple[Result, ...]:
    return clustered_coefficient(naive, estimate, grid.subject, wish.confidence, wish.seed)


def _noted(found: Iterable[Result], grid: Grid) -> tuple[Result, ...]:
    return tuple(r.noting(*grid.notes) for r in found)


def _of_means(grid: Grid, wish: Wish) -> Result:
    """Equivalence with one mean for each patient."""
    names = list(dict.fromkeys(grid.subject))
    a, b = np.array([grid.values[grid.subject == n].mean(0) for n in names]).T
    one = agree.equivalence(a, b, wish.margin or 0.0, 1 - wish.confidence)
    return replace(one, name="Mean of patients' means of a − b (equivalence)", counted="patients")


def _warn(grid: Grid) -> tuple[str, ...]:
    return (DEPENDENT,) if grid.repeated else ()


def _named(found: Iterable[Result], grid: Grid) -> tuple[Result, ...]:
    """Say what a and b are."""
    a, b = grid.levels

    def said(words: str) -> str:
        for old, new in (
            ("by a − share by b", f"by {a} − by {b}"),
            ("a − b", f"{a} − {b}"),
            ("b on a", f"{b} on {a}"),
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
        return _raters(test, grid, scale, wish), grid
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
        rows = [r.noting(NAIVE) for r in rows]
        if weights == "none":
            rows += clustered_agreement(a, b, scale, who, level, wish.seed)
        else:
            rows.append(clustered_kappa(a, b, scale, who, weights, level, wish.seed).clustered)
    return _named(rows, grid), grid


def _raters(test: Statistic, grid: Grid, scale: tuple[str, ...], wish: Wish) -> tuple[Result, ...]:
    """Many readers, with gaps; patients drawn anew where they have several lesions."""
    kind: Any = wish.scale

    def of(rows: np.ndarray, draws: int = 1) -> Result:
        if test is S.krippendorff:
            return agree.krippendorff(grid.values[rows], scale, kind, wish.confidence, draws, wish.seed)
        return (agree.fleiss if test is S.fleiss else agree.ac1)(grid.values[rows], scale, wish.confidence)

    one = of(np.arange(len(grid.values)), 1000)
    found = _both(one, lambda k: of(k).estimate, grid, wish) if grid.repeated else (one,)
    return _noted(found, grid)


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

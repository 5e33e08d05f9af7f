"""The models of `k2chi stats`: a value and its covariates."""

from dataclasses import replace
from typing import Any

import numpy as np

from k2chi.app.statdata import Grid, Wish
from k2chi.app.statkinds import DEPENDENT, S, Statistic
from k2chi.io.table import Table
from k2chi.measure import association as assoc
from k2chi.measure.clustered import gee
from k2chi.measure.result import Result


def _columns(table: Table, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {n: table.numbers(n) if table.numeric(n) else np.array(table.words(n), dtype=str) for n in names}


def model(test: Statistic, table: Table, wish: Wish) -> tuple[Result, ...]:
    """Coefficients of a value on its covariates."""
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


def along(table: Table, wish: Wish) -> Grid:
    """First covariate and value, side by side, for the figure."""
    names = (wish.covariates[0], wish.value[0])
    columns = [table.numbers(n) for n in names]
    there = ~np.isnan(columns[0]) & ~np.isnan(columns[1])
    return Grid(np.stack([c[there] for c in columns], 1), names, np.arange(int(there.sum())).astype(str))


def against_covariate(test: Statistic, table: Table, wish: Wish) -> tuple[Result, ...]:
    """Correlation of the value with each covariate."""
    y, rows = table.numbers(wish.value[0]), []
    how = assoc.pearson if test is S.pearson else assoc.spearman
    for name in wish.covariates:
        found = how(table.numbers(name), y, wish.confidence)
        rows.append(replace(found, name=f"{found.name}, {wish.value[0]} with {name}"))
    return tuple(rows)

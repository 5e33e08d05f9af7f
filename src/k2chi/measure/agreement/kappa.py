"""Two readers and their classes: Cohen's κ, and the figures without which κ misleads."""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from k2chi.measure.agreement.accuracy import WILSON, proportion
from k2chi.measure.agreement.classes import Label, coded, crossed
from k2chi.measure.agreement.raters import ac1
from k2chi.measure.result import Result, absent, confidence

Weights = Literal["none", "linear", "quadratic"]
SOURCES = {
    "none": "Cohen 1960, Educ Psychol Meas 20:37, doi:10.1177/001316446002000104",
    "linear": "Cohen 1968, Psychol Bull 70:213, doi:10.1037/h0026256",
    "quadratic": "Cohen 1968, Psychol Bull 70:213, doi:10.1037/h0026256",
}
INTERVAL = "Fleiss, Cohen & Everitt 1969, Psychol Bull 72:323, doi:10.1037/h0028106"
PABAK = "Byrt, Bishop & Carlin 1993, J Clin Epidemiol 46:423, doi:10.1016/0895-4356(93)90018-V"
SPECIFIC = "Cicchetti & Feinstein 1990, J Clin Epidemiol 43:551, doi:10.1016/0895-4356(90)90159-M"


class Agreement(NamedTuple):
    """κ with what belongs beside it."""

    raw: Result
    kappa: Result
    ac1: Result
    pabak: Result
    specific: tuple[Result, ...]
    """For each class, the share of its uses on which both agree."""


def weight_matrix(q: int, weights: Weights) -> Float[np.ndarray, "q q"]:
    """How far two of q ordered classes count as agreement, 0 to 1."""
    apart = np.abs(np.subtract.outer(np.arange(q), np.arange(q))) / (q - 1)
    made: np.ndarray = (
        1 - apart if weights == "linear" else 1 - apart**2 if weights == "quadratic" else np.eye(q)
    )
    return made


def kappa_of(table: Float[np.ndarray, "q q"], weights: Weights = "none") -> float | None:
    """κ = (p_o − p_e) / (1 − p_e) of a table; None where a rater used one class only."""
    if (table.sum(0) > 0).sum() < 2 or (table.sum(1) > 0).sum() < 2:
        return None
    p, w = table / table.sum(), weight_matrix(len(table), weights)
    by_chance = float(p.sum(1) @ w @ p.sum(0))
    return (float((w * p).sum()) - by_chance) / (1 - by_chance)


def kappa(
    a: Shaped[np.ndarray, " n"],
    b: Shaped[np.ndarray, " n"],
    categories: Sequence[Label],
    weights: Weights = "none",
    level: float = 0.95,
) -> Result:
    """Agreement beyond chance of two readers; weights give credit to near misses on an ordered scale.

    Cohen 1960, doi:10.1177/001316446002000104, and 1968, doi:10.1037/h0026256; interval for large samples of
    independent cases: Fleiss, Cohen & Everitt 1969, doi:10.1037/h0028106. `categories` is the whole scale:
    a class that nobody used still sets the weights. κ depends on how common the classes are.
    """
    alpha = confidence(level)
    table, gone = crossed(a, b, categories)
    n, q = int(table.sum()), len(table)
    name = "Cohen's κ" if weights == "none" else f"Cohen's κ, {weights} weights"
    source = f"{SOURCES[weights]}; interval: {INTERVAL}"
    value = kappa_of(table, weights) if n else None
    if value is None:
        who = [
            r for r, k in (("the first", table.sum(1)), ("the second", table.sum(0))) if (k > 0).sum() == 1
        ]
        why = f"{' and '.join(who)} reader used one class only" if who else "there are no cases"
        return absent(name, n, source, f"{why}; see raw agreement and AC1", "cases").noting(gone)
    p, w = table / n, weight_matrix(q, weights)
    rows, columns = p.sum(1), p.sum(0)
    by_chance = float(rows @ w @ columns)
    expected = np.add.outer(w @ columns, w.T @ rows)
    spread = (p * (w - expected * (1 - value)) ** 2).sum() - (value - by_chance * (1 - value)) ** 2
    null = (np.outer(rows, columns) * (w - expected) ** 2).sum() - by_chance**2
    error, error0 = (sqrt(max(float(v), 0) / n) / (1 - by_chance) for v in (spread, null))
    half = float(stats.norm.ppf(1 - alpha / 2)) * error
    wide = value < 1 and error > 0
    z = value / error0 if error0 else None
    empty = [str(c) for c, used in zip(categories, rows + columns, strict=True) if not used]
    return Result(
        name, value, n, source, (max(-1.0, value - half), min(1.0, value + half)) if wide else None, level,
        float(2 * stats.norm.sf(abs(z))) if z is not None else None, ("z", z) if z is not None else None,
        "cases", "p is against agreement by chance",
    ).noting(
        gone,
        "" if wide else "no interval: the readers never differ, and the large-sample interval has no width",
        f"classes nobody used: {', '.join(empty)}" if empty else "",
    )  # fmt: skip


def agreement(
    a: Shaped[np.ndarray, " n"], b: Shaped[np.ndarray, " n"], categories: Sequence[Label], level: float = 0.95
) -> Agreement:
    """Raw agreement, κ, AC1, PABAK and agreement on each class.

    κ is low where one class is rare, however well the readers agree; notes give prevalence and bias for two
    classes. Byrt et al. 1993, doi:10.1016/0895-4356(93)90018-V; Cicchetti & Feinstein 1990,
    doi:10.1016/0895-4356(90)90159-M, with intervals on the logit scale.
    """
    table, gone = crossed(a, b, categories)
    n, q, same = int(table.sum()), len(table), int(np.trace(table))
    raw = proportion("Raw agreement", same, n, level, "cases").noting(gone)
    main = kappa(a, b, categories, level=level)
    if q == 2 and n:
        skew = abs(table[1, 1] - table[0, 0]) / n
        tilt = abs(table[0, 1] - table[1, 0]) / n
        main = main.noting(f"prevalence index {skew:.2f}, bias index {tilt:.2f}")
    name, source = "PABAK", f"{PABAK}; interval from raw agreement: {WILSON}"
    if raw.estimate is None or raw.ci is None:
        adjusted = absent(name, n, source, "there are no cases", "cases")
    else:
        value, low, high = ((q * v - 1) / (q - 1) for v in (raw.estimate, *raw.ci))
        adjusted = Result(name, value, n, source, (low, high), level, counted="cases")
    both = np.stack([coded(a, categories), coded(b, categories)], 1)
    gwet = ac1(both, range(q), level)
    return Agreement(
        raw, main, gwet, adjusted, tuple(_specific(table, k, categories[k], level) for k in range(q))
    )


def _specific(table: np.ndarray, k: int, label: Label, level: float) -> Result:
    """2a / (2a + those that only one reader called so)."""
    name, n = f"Agreement on {label}", int(table.sum())
    both, single = float(table[k, k]), float(table[k].sum() + table[:, k].sum() - 2 * table[k, k])
    if both + single == 0:
        return absent(name, n, SPECIFIC, "nobody used this class", "cases")
    value, ci = 2 * both / (2 * both + single), None
    if both and single:
        half = float(stats.norm.ppf((1 + level) / 2)) * sqrt(1 / both + 1 / single)
        low, high = (1 / (1 + exp(-(log(2 * both / single) + s * half))) for s in (-1, 1))
        ci = low, high
    return Result(name, value, n, SPECIFIC, ci, level, counted="cases").noting(
        "" if ci else "no interval: the readers always or never agree on it"
    )

"""Intraclass correlation, with its form named."""

from typing import Literal

import numpy as np
from jaxtyping import Num
from scipy import stats

from k2chi.measure.result import Result, absent, complete, confidence

SOURCE = (
    "Shrout & Fleiss 1979, Psychol Bull 86:420, doi:10.1037/0033-2909.86.2.420; "
    "McGraw & Wong 1996, Psychol Methods 1:30, doi:10.1037/1082-989X.1.1.30"
)
Form = Literal["1,1", "2,1", "3,1", "1,k", "2,k", "3,k"]
MEANT = {
    "1": "one-way random: each subject has raters of its own",
    "2": "two-way random, absolute agreement: raters stand for others, and their shifts count",
    "3": "two-way mixed, consistency: these raters only, and their shifts do not count",
}

NEGATIVE = "negative: ratings within subjects differ as much as between them"


def icc(scores: Num[np.ndarray, "subjects raters"], form: Form = "2,1", level: float = 0.95) -> Result:
    """Share of variance that lies between subjects; `form` as Shrout & Fleiss name it.

    1: one-way random; 2: two-way random, absolute agreement, also called A; 3: two-way mixed, consistency,
    also called C. The second part is 1 for a single rating, k for the mean of all raters. Shrout & Fleiss
    1979, doi:10.1037/0033-2909.86.2.420; intervals as in McGraw & Wong 1996, doi:10.1037/1082-989X.1.1.30.
    The p-value tests 0. Subjects with a missing rating are left out.
    """
    there, gone = complete(scores)
    x = np.asarray(scores, float)[there]
    n, k = x.shape
    name, (kind, many) = f"ICC({form})", form.split(",")
    if n < 2 or k < 2 or np.ptp(x) == 0:
        why = "all ratings are equal" if n > 1 and k > 1 else "2 subjects and 2 raters are needed"
        return absent(name, n, SOURCE, why, "subjects").noting(gone)
    alpha, grand = confidence(level), x.mean()
    rows = float(k * ((x.mean(1) - grand) ** 2).sum() / (n - 1))
    columns = float(n * ((x.mean(0) - grand) ** 2).sum() / (k - 1))
    total = float(((x - grand) ** 2).sum())
    inside = max(total - (n - 1) * rows, 0.0) / (n * (k - 1))
    rest = max(total - (n - 1) * rows - (k - 1) * columns, 0.0) / ((n - 1) * (k - 1))
    error, df = (inside, n * (k - 1)) if kind == "1" else (rest, (n - 1) * (k - 1))
    tiny = 1e-14 * total
    if kind == "2":
        value = (rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n)
        low, high = (
            _absolute(rows, columns, rest, n, k, value, alpha)
            if rest > tiny or columns > tiny
            else (value, value)
        )
    elif error <= tiny:
        value = low = high = 1.0
    else:
        value = (rows - error) / (rows + (k - 1) * error)
        f = rows / error
        fl = f / stats.f.ppf(1 - alpha / 2, n - 1, df)
        fu = f * stats.f.ppf(1 - alpha / 2, df, n - 1)
        low, high = float((fl - 1) / (fl + k - 1)), float((fu - 1) / (fu + k - 1))
    if many == "k":
        value, low, high = (_stepped(v, k) for v in (value, low, high))
    ratio = rows / error if error > tiny else None
    return Result(
        name, value, n, SOURCE, (low, high), level, counted="subjects",
        p=float(stats.f.sf(ratio, n - 1, df)) if ratio is not None else None,
        statistic=(f"F({n - 1}, {df})", ratio) if ratio is not None else None,
        reading=f"{MEANT[kind]}; {'mean of' if many == 'k' else 'one of'} {k} raters",
        notes=("p is one-sided, against no difference between subjects",) if ratio is not None else (),
    ).noting(gone, NEGATIVE if value < 0 else "")  # fmt: skip


def _stepped(single: float, k: int) -> float:
    """Spearman–Brown: reliability of the mean of k raters."""
    return k * single / (1 + (k - 1) * single)


def _absolute(
    rows: float, columns: float, rest: float, n: int, k: int, value: float, alpha: float
) -> tuple[float, float]:
    """Interval of ICC(2,1): the degrees of freedom of its error by Satterthwaite."""
    if value >= 1:
        return 1.0, 1.0
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    df = (a * columns + b * rest) ** 2 / (
        (a * columns) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1))
    )
    up, down = stats.f.ppf(1 - alpha / 2, n - 1, df), stats.f.ppf(1 - alpha / 2, df, n - 1)
    spread = k * columns + (k * n - k - n) * rest
    low = n * (rows - up * rest) / (up * spread + n * rows)
    high = n * (down * rows - rest) / (spread + n * down * rows)
    return float(low), float(high)

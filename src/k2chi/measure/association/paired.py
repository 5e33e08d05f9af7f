"""Paired differences: t, Wilcoxon's signed ranks with exact p also for ties, signs."""

from math import sqrt
from typing import Literal

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, confidence, fewest

STUDENT = "Student 1908, Biometrika 6:1, doi:10.1093/biomet/6.1.1"
WILCOXON = "Wilcoxon 1945, Biometrics Bull 1:80, doi:10.2307/3001968"
LEHMANN = "Hodges & Lehmann 1963, Ann Math Stat 34:598, doi:10.1214/aoms/1177704172"
PRATT = "Pratt 1959, J Am Stat Assoc 54:655, doi:10.1080/01621459.1959.10501526"
SIGN = "Dixon & Mood 1946, J Am Stat Assoc 41:557, doi:10.1080/01621459.1946.10501898"
EXACT = 200
"""Largest number of pairs for which the distribution of signed ranks is written out."""


def _differences(a: Values, b: Values) -> tuple[Float[np.ndarray, " m"], str]:
    there, gone = complete(a, b)
    return np.asarray(a, float)[there] - np.asarray(b, float)[there], gone


def paired_t(a: Values, b: Values, level: float = 0.95) -> Result:
    """Mean of a − b with Student's interval and test.

    Student 1908, doi:10.1093/biomet/6.1.1. Assumes that differences are independent and their mean normal.
    """
    d, gone = _differences(a, b)
    alpha, n, name = confidence(level), len(d), "Mean of a − b (paired t)"
    if n < 2:
        return absent(name, n, STUDENT, "2 pairs are needed").noting(gone)
    mean, error = float(d.mean()), float(d.std(ddof=1)) / sqrt(n)
    if error == 0:
        equal = Result(name, mean, n, STUDENT, level=level, in_unit=True)
        return equal.noting(gone, "all differences are equal: no interval and no test")
    t, half = mean / error, float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return Result(
        name, mean, n, STUDENT, (mean - half, mean + half), level, float(2 * stats.t.sf(abs(t), n - 1)),
        (f"t({n - 1})", t), in_unit=True, reading=direction(mean - half, mean + half),
    ).noting(gone)  # fmt: skip


def wilcoxon(a: Values, b: Values, level: float = 0.95, zeros: Literal["drop", "pratt"] = "drop") -> Result:
    """Signed-rank test of a − b: p by writing out every sign of the ranks, ties or not.

    Wilcoxon 1945, doi:10.2307/3001968; the estimate is the median of all means of two differences, Hodges &
    Lehmann 1963, doi:10.1214/aoms/1177704172. `zeros` drop leaves differences of zero out, pratt ranks them
    and then leaves their ranks out (Pratt 1959, doi:10.1080/01621459.1959.10501526). With ties the interval
    is approximate. Beyond 200 pairs p is normal with Wilcoxon's tie correction.
    """
    d, gone = _differences(a, b)
    alpha, name = confidence(level), "Pseudomedian of a − b (Wilcoxon)"
    cited = f"{WILCOXON}; {LEHMANN}" + (f"; {PRATT}" if zeros == "pratt" else "")
    ranks, none = stats.rankdata(np.abs(d)), int((d == 0).sum())
    if zeros == "drop":
        d = d[d != 0]
        ranks = stats.rankdata(np.abs(d))
    moved, n = d != 0, len(d)
    m = int(moved.sum())
    if m == 0:
        why = "no pairs" if not len(a) else "every difference is zero"
        return absent(name, len(a), cited, why).noting(gone)
    plus = float(ranks[moved & (d > 0)].sum())
    if m <= EXACT:
        p = _flip_p(ranks[moved], plus)
    else:
        spread = sqrt(float((ranks[moved] ** 2).sum()) / 4)
        p = float(2 * stats.norm.sf(abs(plus - ranks[moved].sum() / 2) / spread))
    i, j = np.triu_indices(n)
    walsh = np.sort((d[i] + d[j]) / 2)
    first = _rank_of_end(n, alpha)
    ci = (float(walsh[first - 1]), float(walsh[-first])) if first else None
    ties = len(np.unique(np.abs(d[moved]))) < m
    return Result(
        name, float(np.median(walsh)), n, cited, ci, level, p, ("W⁺", plus), in_unit=True,
        reading=direction(*ci) if ci else "",
    ).noting(
        gone,
        f"{none} differences are zero" + (" and left out" if zeros == "drop" else "") if none else "",
        "ties: p is exact, the interval approximate" if ties and m <= EXACT else "",
        f"{n} pairs are too few for a {100 * level:g} % interval" if not first else "",
        fewest(m),
    )  # fmt: skip


def _flip_p(ranks: Float[np.ndarray, " m"], plus: float) -> float:
    """Two-sided p of the sum of positive ranks when every sign is equally likely."""
    doubled = np.rint(2 * ranks).astype(int)  # midranks are halves
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for r in doubled:
        moved = np.zeros_like(chance)
        moved[r:] = chance[: len(chance) - r]
        chance = (chance + moved) / 2
    far = abs(2 * plus - doubled.sum() / 2)
    return float(min(1.0, chance[np.abs(np.arange(len(chance)) - doubled.sum() / 2) >= far - 1e-9].sum()))


def _rank_of_end(n: int, alpha: float) -> int:
    """Which of the sorted Walsh means ends the interval, from 1; 0 if n is too small for one."""
    total = n * (n + 1) // 2
    if n > EXACT:
        spread = sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return max(1, int(np.floor(total / 2 - float(stats.norm.ppf(1 - alpha / 2)) * spread)))
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for r in range(1, n + 1):
        moved = np.zeros_like(chance)
        moved[r:] = chance[: total + 1 - r]
        chance = (chance + moved) / 2
    return int((np.cumsum(chance) <= alpha / 2 + 1e-12).sum())


def sign_test(a: Values, b: Values, level: float = 0.95) -> Result:
    """How many differences are above zero, exactly; estimate and interval are those of the median.

    Dixon & Mood 1946, doi:10.1080/01621459.1946.10501898. Asks nothing of the shape; zeros do not count
    in the test.
    """
    d, gone = _differences(a, b)
    alpha, n, name = confidence(level), len(d), "Median of a − b (sign test)"
    if n == 0:
        return absent(name, 0, SIGN, "there are no pairs").noting(gone)
    up, down = int((d > 0).sum()), int((d < 0).sum())
    p = float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0
    first = int((stats.binom.cdf(np.arange(n // 2 + 1), n, 0.5) <= alpha / 2).sum())
    ordered = np.sort(d)
    ci = (float(ordered[first - 1]), float(ordered[-first])) if first else None
    return Result(
        name, float(np.median(d)), n, SIGN, ci, level, p, ("positive", float(up)), in_unit=True,
        reading=f"{up} differences above zero, {down} below",
    ).noting(
        gone,
        f"{n - up - down} differences are zero" if n > up + down else "",
        f"{n} pairs are too few for a {100 * level:g} % interval" if not first else "",
        fewest(up + down),
    )  # fmt: skip


def direction(low: float, high: float) -> str:
    """What the interval of a difference says."""
    return "a is larger" if low > 0 else "a is smaller" if high < 0 else "the interval includes zero"


def flips(n: int) -> Num[np.ndarray, "patterns n"]:
    """Every pattern of n signs, the unflipped one first."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    signs: np.ndarray = 1 - 2 * bits
    return signs

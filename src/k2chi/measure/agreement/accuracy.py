"""Against a reference: sensitivity, specificity and predictive values; and two methods on the same cases."""

from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy import stats

from k2chi.measure.result import Flags, Result, absent, confidence

WILSON = "Wilson 1927, J Am Stat Assoc 22:209, doi:10.1080/01621459.1927.10502953"
MCNEMAR = "McNemar 1947, Psychometrika 12:153, doi:10.1007/BF02295996, exact"
PRICE = "Bonett & Price 2012, J Educ Behav Stat 37:479, doi:10.3102/1076998611411915"


class Accuracy(NamedTuple):
    """Shares of right calls."""

    sensitivity: Result
    specificity: Result
    ppv: Result
    npv: Result
    correct: Result


def proportion(name: str, hits: int, n: int, level: float = 0.95, counted: str = "cases") -> Result:
    """A share with Wilson's score interval, which stays inside 0 and 1 and has a width at both ends.

    Wilson 1927, doi:10.1080/01621459.1927.10502953. For independent cases.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{name}: {hits} of {n} is no share")
    if n == 0:
        return absent(name, 0, WILSON, f"there are no such {counted}", counted)
    z = float(stats.norm.ppf(1 - confidence(level) / 2))
    share, scale = hits / n, 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    half = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    ci = max(0.0, centre - half) if hits else 0.0, min(1.0, centre + half) if hits < n else 1.0
    return Result(name, share, n, WILSON, ci, level, counted=counted, reading=f"{hits} of {n}")


def accuracy(found: Flags, truth: Flags, level: float = 0.95) -> Accuracy:
    """Sensitivity, specificity, predictive values and share correct, each with Wilson's interval.

    Wilson 1927, doi:10.1080/01621459.1927.10502953. Predictive values hold for the prevalence of these
    cases. A reference made from the same readers' answers flatters them.
    """
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} calls and {len(truth)} true answers: give both for each case")
    tp, fp, fn, tn = (
        int((found == f).__and__(truth == t).sum()) for t, f in ((1, 1), (0, 1), (1, 0), (0, 0))
    )
    return Accuracy(
        proportion("Sensitivity", tp, tp + fn, level, "positive cases"),
        proportion("Specificity", tn, tn + fp, level, "negative cases"),
        proportion("Positive predictive value", tp, tp + fp, level, "positive calls"),
        proportion("Negative predictive value", tn, tn + fn, level, "negative calls"),
        proportion("Share correct", tp + tn, len(found), level),
    )


def mcnemar(a: Flags, b: Flags, level: float = 0.95) -> Result:
    """Do two methods call different shares of the same cases positive? Exact, from the discordant ones.

    McNemar 1947, doi:10.1007/BF02295996; p from the binomial distribution. Estimate: share by a minus share
    by b; interval: Bonett & Price 2012, doi:10.3102/1076998611411915.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} calls: give both methods' calls for each case")
    name, n, source = "Share positive by a − share by b (McNemar)", len(a), f"{MCNEMAR}; interval: {PRICE}"
    if n == 0:
        return absent(name, 0, source, "there are no cases", "cases")
    first, second = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
    up, down = (first + 1) / (n + 2), (second + 1) / (n + 2)
    z = float(stats.norm.ppf(1 - confidence(level) / 2))
    half = z * sqrt((up + down - (up - down) ** 2) / (n + 2))
    ci = max(-1.0, up - down - half), min(1.0, up - down + half)
    told = f"{first} cases by a only, {second} by b only"
    few = ""
    if 0 < first + second <= 10:
        few = f"{first + second} discordant cases cannot reach p < {2.0 ** (1 - first - second):.3g}"
    return Result(name, (first - second) / n, n, source, ci, level, p, counted="cases", reading=told).noting(
        few
    )


def flags(answers: np.ndarray, positive: object) -> Flags:
    """Which answers are `positive`."""
    return np.array([str(v).strip() == str(positive).strip() for v in np.ravel(answers)], dtype=bool)

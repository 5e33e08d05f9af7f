"""Bland–Altman: by how much two methods differ, and how far a single difference may stray."""

from functools import cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, confidence, number

SOURCE = "Bland & Altman 1986, Lancet 327:307, doi:10.1016/S0140-6736(86)90837-8"
EXACT = "Carkeet 2015, Optom Vis Sci 92:e71, doi:10.1097/OPX.0000000000000513"
TREND = "Bland & Altman 1999, Stat Methods Med Res 8:135, doi:10.1177/096228029900800204"
REPEATED = "Bland & Altman 2007, J Biopharm Stat 17:571, doi:10.1080/10543400701329422"
ZOU = "Zou 2013, Stat Methods Med Res 22:630, doi:10.1177/0962280211402548"
LARGE = 1000
"""Pairs beyond which the normal approximation of the limits' interval is as good as the exact one."""


class Limits(NamedTuple):
    """Bias, limits of agreement, and how the difference grows with the size."""

    bias: Result
    lower: Result
    upper: Result
    trend: Result


def limits(a: Values, b: Values, level: float = 0.95, agreement: float = 0.95) -> Limits:
    """Mean of a − b and mean ± 1.96 SD, with exact intervals, and the slope on the mean of both.

    Bland & Altman 1986, Lancet 327:307, doi:10.1016/S0140-6736(86)90837-8; intervals of the limits from the
    non-central t distribution, Carkeet 2015, doi:10.1097/OPX.0000000000000513. `agreement` is the share of
    differences between the limits. That slope is the proportional bias; unequal spread of the two methods
    alone can make one.
    """
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    d, n = x - y, len(x)
    if n < 2:
        return _absent(n, f"{n} pairs, at least 2 are needed")
    mean, sd, z = float(d.mean()), float(d.std(ddof=1)), _z(agreement)
    t = float(stats.t.ppf(1 - alpha / 2, n - 1))
    half = t * sd / sqrt(n)
    tail = "one constant difference" if sd == 0 else ""
    bias = Result(
        "Bias (mean of a − b)", mean, n, SOURCE, (mean - half, mean + half), level, in_unit=True,
        p=float(2 * stats.t.sf(abs(mean) * sqrt(n) / sd, n - 1)) if sd else None,
        statistic=(f"t({n - 1})", mean * sqrt(n) / sd) if sd else None,
        reading=_excludes(mean - half, mean + half),
    ).noting(gone, tail)  # fmt: skip
    low, high = _quantile_interval(n, z, alpha)
    share = f"{100 * agreement:g} % of differences lie between the limits, if they are normal"
    made = [
        Result(
            f"{name} limit of agreement", mean + s * z * sd, n, f"{SOURCE}; interval: {EXACT}",
            (mean + sd * min(s * low, s * high), mean + sd * max(s * low, s * high)), level,
            in_unit=True, reading=share,
        )
        for name, s in (("Lower", -1), ("Upper", 1))
    ]  # fmt: skip
    return Limits(bias, made[0], made[1], _trend(x, y, level))


def repeated_limits(
    a: Values, b: Values, subject: Shaped[np.ndarray, " n"], level: float = 0.95, agreement: float = 0.95
) -> Limits:
    """Limits for several pairs from each subject, whose true value may change from pair to pair.

    The variance of a single difference is that between subjects plus that within them, from a one-way
    analysis of variance: Bland & Altman 2007, J Biopharm Stat 17:571, doi:10.1080/10543400701329422. Bias
    and intervals weigh subjects equally and recover variances: Zou 2013, doi:10.1177/0962280211402548; so
    the limits' centre differs from the mean over pairs where subjects have unequal numbers of pairs.
    """
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y, who = np.asarray(a, float)[there], np.asarray(b, float)[there], np.asarray(subject)[there]
    d, (names, code) = x - y, np.unique(who, return_inverse=True)
    n, k, m = len(d), len(names), np.bincount(code, minlength=len(names))
    if k < 2 or n == k:
        return _absent(n, f"{k} subjects with {n} pairs: 2 subjects and one repeat are needed")
    means = np.bincount(code, d) / m
    within = float(((d - means[code]) ** 2).sum() / (n - k))
    between = float(means.var(ddof=1))
    rest = 1 - float((1 / m).mean())  # 1 − 1 / harmonic mean of the repeats
    total, centre = between + rest * within, float(means.mean())
    z, zc = _z(agreement), float(stats.norm.ppf(1 - alpha / 2))
    sd, t = sqrt(total), float(stats.t.ppf(1 - alpha / 2, k - 1))

    def end(share: float) -> float:
        a1 = between * (1 - (k - 1) / stats.chi2.ppf(share, k - 1))
        a2 = rest * within * (1 - (n - k) / stats.chi2.ppf(share, n - k))
        return float(np.hypot(a1, a2))

    low, high = sqrt(max(total - end(1 - alpha / 2), 0)), sqrt(total + end(alpha / 2))
    mean_var = between / k
    inner, outer = (sqrt(zc**2 * mean_var + z**2 * (sd - e) ** 2) for e in (low, high))
    half = t * sqrt(mean_var)
    note = f"{k} subjects, SD of a single difference {sd:.4g} ({sqrt(within):.4g} within subjects)"
    plain = _by_pairs(d, m, means, within, z)
    bias = Result(
        "Bias (mean of a − b)", centre, n, REPEATED, (centre - half, centre + half), level, in_unit=True,
        p=float(2 * stats.t.sf(abs(centre) / sqrt(mean_var), k - 1)) if mean_var else None,
        statistic=(f"t({k - 1})", centre / sqrt(mean_var)) if mean_var else None,
        reading=_excludes(centre - half, centre + half),
    ).noting(gone, note, plain)  # fmt: skip
    cited = f"{REPEATED}; interval: {ZOU}"
    lo, hi = centre - z * sd, centre + z * sd
    lower = Result("Lower limit of agreement", lo, n, cited, (lo - outer, lo + inner), level, in_unit=True)
    upper = Result("Upper limit of agreement", hi, n, cited, (hi - inner, hi + outer), level, in_unit=True)
    ma, mb = np.bincount(code, x) / m, np.bincount(code, y) / m
    return Limits(bias, lower, upper, _trend(ma, mb, level, "subjects"))


def _by_pairs(d: np.ndarray, m: np.ndarray, means: np.ndarray, within: float, z: float) -> str:
    """Bias and limits with every pair weighing the same, as in the paper of 2007."""
    n, k, bias = len(d), len(m), float(d.mean())
    between = float((m * (means - bias) ** 2).sum()) / (k - 1)
    typical = (n - float((m**2).sum()) / n) / (k - 1)
    half = z * sqrt(max((between - within) / typical, 0) + within)
    return f"over pairs: bias {number(bias)}, limits {number(bias - half)} to {number(bias + half)}"


def _trend(x: np.ndarray, y: np.ndarray, level: float, counted: str = "pairs") -> Result:
    """Slope of the difference on the mean of both."""
    name, n, d, size = "Proportional bias (slope of a − b on the mean)", len(x), x - y, (x + y) / 2
    if n < 3 or np.ptp(size) == 0:
        return absent(name, n, TREND, "3 pairs of different size are needed", counted)
    fit = stats.linregress(size, d)
    if fit.stderr == 0 or np.ptp(d) == 0:
        return Result(name, float(fit.slope), n, TREND, level=level, counted=counted)
    half = float(stats.t.ppf((1 + level) / 2, n - 2) * fit.stderr)
    slope = float(fit.slope)
    clear = _excludes(slope - half, slope + half, "the difference grows with the size", "it falls")
    return Result(
        name, slope, n, TREND, (slope - half, slope + half), level, float(fit.pvalue),
        (f"t({n - 2})", float(slope / fit.stderr)), counted, clear,
    )  # fmt: skip


@cache
def _quantile_interval(n: int, z: float, alpha: float) -> tuple[float, float]:
    """Ends, in SD from the mean, of the interval of μ + zσ."""
    if n > LARGE:
        half = float(stats.norm.ppf(1 - alpha / 2)) * sqrt(1 / n + z**2 / (2 * (n - 1)))
        return z - half, z + half
    low, high = (float(stats.nct.ppf(q, n - 1, z * sqrt(n))) / sqrt(n) for q in (alpha / 2, 1 - alpha / 2))
    return low, high


def _z(agreement: float) -> float:
    if not 0.5 <= agreement < 1:
        raise ValueError(f"share of agreement {agreement}: choose 0.5 ≤ share < 1, for example 0.95")
    return float(stats.norm.ppf((1 + agreement) / 2))


def _excludes(low: float, high: float, up: str = "a is larger", down: str = "a is smaller") -> str:
    return up if low > 0 else down if high < 0 else "the interval includes zero"


def _absent(n: int, why: str) -> Limits:
    names = ("Bias (mean of a − b)", "Lower limit of agreement", "Upper limit of agreement")
    rows = [absent(name, n, SOURCE, why) for name in names]
    return Limits(rows[0], rows[1], rows[2], absent("Proportional bias", n, TREND, why))

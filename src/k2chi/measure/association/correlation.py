"""Correlation of two measurements, straight and by ranks."""

from itertools import permutations
from math import atanh, sqrt, tanh

import numpy as np
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, confidence

PEARSON = "Fisher 1915, Biometrika 10:507, doi:10.1093/biomet/10.4.507"
SPEARMAN = "Spearman 1904, Am J Psychol 15:72, doi:10.2307/1412159"
WRIGHT = "Bonett & Wright 2000, Psychometrika 65:23, doi:10.1007/BF02294183"
FALLING = "one falls as the other rises"
FEW = 8
"""Largest number of pairs for which every order of the ranks is tried."""


def pearson(a: Values, b: Values, level: float = 0.95) -> Result:
    """Linear correlation, with the interval of its z-transform and the t test.

    Fisher 1915, doi:10.1093/biomet/10.4.507. Says nothing on agreement: a shift or a scale leaves it at 1.
    """
    return _correlation("Pearson's r", PEARSON, a, b, level)


def spearman(a: Values, b: Values, level: float = 0.95) -> Result:
    """Correlation of ranks; p by trying every order for up to 8 pairs, else by t.

    Spearman 1904, doi:10.2307/1412159; interval: Bonett & Wright 2000, doi:10.1007/BF02294183.
    """
    return _correlation("Spearman's ρ", f"{SPEARMAN}; interval: {WRIGHT}", a, b, level)


def _correlation(name: str, source: str, a: Values, b: Values, level: float) -> Result:
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        why = "3 pairs are needed" if n < 3 else "one of the two does not vary"
        return absent(name, n, source, why).noting(gone)
    ranked = name.startswith("Spearman")
    if ranked:
        x, y = stats.rankdata(x), stats.rankdata(y)
    dx, dy = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((dx @ dx) * (dy @ dy)))
    r = min(1.0, max(-1.0, float(dx @ dy) / scale))
    if 1 - abs(r) < 1e-14:
        r = float(np.sign(r))
    t = r * sqrt((n - 2) / (1 - r**2)) if abs(r) < 1 else float(np.sign(r) * np.inf)
    p = float(2 * stats.t.sf(abs(t), n - 2))
    exact = ranked and n <= FEW
    if exact:
        orders = np.array(list(permutations(range(n))))
        p = float((np.abs(dy[orders] @ dx) >= abs(r) * scale - 1e-9).mean())
    ci = None
    if n > 3:
        half = float(stats.norm.ppf(1 - alpha / 2)) * sqrt((1 + (r**2 / 2 if ranked else 0)) / (n - 3))
        ci = (tanh(atanh(r) - half), tanh(atanh(r) + half)) if abs(r) < 1 else None
    statistic = (f"t({n - 2})", t) if not exact and np.isfinite(t) else None
    return Result(
        name, r, n, source, ci, level, p, statistic,
        reading="" if ci is None else "rising together" if ci[0] > 0 else FALLING if ci[1] < 0 else "",
    ).noting(
        gone,
        "p is exact: every order was tried" if exact else "",
        "" if ci else "no interval: the points lie on a line" if abs(r) == 1 else "no interval from 3 pairs",
    )  # fmt: skip

"""Lin's concordance: correlation around the line of identity."""

from math import atanh, sqrt, tanh

import numpy as np
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, confidence

SOURCE = "Lin 1989, Biometrics 45:255, doi:10.2307/2532051; variance: Lin 2000, Biometrics 56:324"
NAME = "Concordance correlation (Lin)"


def concordance(a: Values, b: Values, level: float = 0.95) -> Result:
    """ρc = 2 s_ab / (s_a² + s_b² + (ā − b̄)²), with the interval of its z-transform.

    Lin 1989, Biometrics 45:255, doi:10.2307/2532051, with the variance corrected in 2000. Variances divide
    by n. The value depends on how different the subjects are: compare only between like samples.
    """
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    n = len(x)
    if n < 2 or (np.ptp(x) == 0 and np.ptp(y) == 0):
        return absent(NAME, n, SOURCE, "2 pairs that differ are needed").noting(gone)
    vx, vy, shift = float(x.var()), float(y.var()), float(x.mean() - y.mean())
    cov = float(((x - x.mean()) * (y - y.mean())).mean())
    rc = 2 * cov / (vx + vy + shift**2)
    reading = "1 is identity; it falls with scatter, shift and scale alike"
    ci = None
    if n > 2 and cov != 0 and abs(rc) < 1:
        r, u2 = cov / sqrt(vx * vy), shift**2 / sqrt(vx * vy)
        var = (
            (1 - r**2) * rc**2 / ((1 - rc**2) * r**2)
            + 2 * rc**3 * (1 - rc) * u2 / (r * (1 - rc**2) ** 2)
            - rc**4 * u2**2 / (2 * r**2 * (1 - rc**2) ** 2)
        ) / (n - 2)
        half = float(stats.norm.ppf(1 - alpha / 2)) * sqrt(max(var, 0))
        ci = tanh(atanh(rc) - half), tanh(atanh(rc) + half)
    return Result(NAME, rc, n, SOURCE, ci, level, reading=reading).noting(
        gone, "" if ci else "no interval: 3 pairs that scatter around the line are needed"
    )

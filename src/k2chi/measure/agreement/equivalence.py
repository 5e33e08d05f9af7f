"""Equivalence: is the mean difference surely inside a margin that was set before?"""

from math import sqrt

import numpy as np
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, number

SOURCE = "Schuirmann 1987, J Pharmacokinet Biopharm 15:657, doi:10.1007/BF01068419"
NAME = "Mean of a − b (equivalence)"


def equivalence(a: Values, b: Values, margin: float | tuple[float, float], alpha: float = 0.05) -> Result:
    """Two one-sided paired t tests: p is the larger of both, and the interval has confidence 1 − 2α.

    Schuirmann 1987, J Pharmacokinet Biopharm 15:657, doi:10.1007/BF01068419. Equivalent at α if the interval
    lies within the margin. No significant difference is not equivalence; the margin must be set beforehand.
    """
    low, high = margin if isinstance(margin, tuple) else (-margin, margin)
    if not low < high:
        raise ValueError(f"margin {low:g} to {high:g} is empty: give a positive margin, or (low, high)")
    if not 0 < alpha < 0.25:
        raise ValueError(f"alpha {alpha}: choose 0 < alpha < 0.25, for example 0.05")
    there, gone = complete(a, b)
    d = np.asarray(a, float)[there] - np.asarray(b, float)[there]
    n = len(d)
    if n < 2:
        return absent(NAME, n, SOURCE, "2 pairs are needed").noting(gone)
    mean, error = float(d.mean()), float(d.std(ddof=1)) / sqrt(n)
    if error == 0:
        p = 0.0 if low < mean < high else 1.0
        note = "all differences are equal"
    else:
        above, below = stats.t.sf((mean - low) / error, n - 1), stats.t.cdf((mean - high) / error, n - 1)
        p, note = float(max(above, below)), ""
    half = float(stats.t.ppf(1 - alpha, n - 1)) * error
    range_ = f"{number(low)} to {number(high)}"
    reading = f"equivalent within {range_}" if p < alpha else f"equivalence within {range_} not shown"
    statistic = None
    if error:
        nearer = low if mean - low < high - mean else high
        statistic = (f"t({n - 1})", (mean - nearer) / error)
    return Result(
        NAME, mean, n, SOURCE, (mean - half, mean + half), 1 - 2 * alpha, p, statistic, reading=reading,
        in_unit=True, notes=("p is that of the two one-sided tests",),
    ).noting(gone, note)  # fmt: skip

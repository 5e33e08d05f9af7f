"""Lines between two methods measured on lesions within patients: intervals that draw patients."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from k2chi.measure.agreement.lines import (
    Line,
    Slopes,
    deming,
    deming_line,
    of_scale,
    of_shift,
    passing_bablok,
)
from k2chi.measure.clustered import Groups, from_draws, redrawn
from k2chi.measure.clustered_agreement import NAIVE
from k2chi.measure.result import Result, Values, complete

Rows = Int[np.ndarray, " m"]


def clustered_deming(
    a: Values,
    b: Values,
    cluster: Groups,
    ratio: float = 1.0,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 1000,
) -> tuple[Result, ...]:
    """Deming's line with the jackknife's intervals, and with intervals from patients drawn anew.

    Linnet 1993, doi:10.1093/clinchem/39.3.424; Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x.
    """
    there, _ = complete(a, b)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]

    def line(rows: Rows) -> tuple[float, float]:
        return deming_line(x[rows], y[rows], ratio)

    return _both(deming(a, b, ratio, level), line, np.asarray(cluster)[there], level, seed, draws)


def clustered_passing_bablok(
    a: Values, b: Values, cluster: Groups, level: float = 0.95, seed: int = 0, draws: int = 1000
) -> tuple[Result, ...]:
    """Passing and Bablok's line with their intervals, and with intervals from patients drawn anew.

    Passing & Bablok 1983, doi:10.1515/cclm.1983.21.11.709; Field & Welsh 2007,
    doi:10.1111/j.1467-9868.2007.00593.x.
    """
    there, _ = complete(a, b)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    slopes = Slopes(x, y)

    def line(rows: Rows) -> tuple[float, float]:
        slope = slopes.middle(np.bincount(rows, minlength=len(x)))[0]
        return slope, float(np.median(y[rows] - slope * x[rows])) if np.isfinite(slope) else slope

    return _both(passing_bablok(a, b, level), line, np.asarray(cluster)[there], level, seed, draws)


def _both(
    naive: Line,
    line: Callable[[Rows], tuple[float, float]],
    who: Groups,
    level: float,
    seed: int,
    draws: int,
) -> tuple[Result, ...]:
    """Slope and intercept, each naive and by patient."""
    if naive.slope.estimate is None:  # too few values, or methods unrelated
        return tuple(naive)
    lines = [v for v in redrawn(line, who, draws, seed) if np.isfinite(v).all()]
    found: list[Result] = []
    for k, (one, reading) in enumerate(zip(naive, (of_scale, of_shift), strict=True)):
        assert one.estimate is not None
        name = f"{one.name} (cluster bootstrap)"
        again = from_draws(name, one.estimate, [v[k] for v in lines], who, draws, level, one.counted)
        found += [one.noting(NAIVE), replace(again, reading=reading(again.ci), in_unit=one.in_unit)]
    return tuple(found)

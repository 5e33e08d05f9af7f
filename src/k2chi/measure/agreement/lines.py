"""Straight lines where both methods err: Deming and Passing–Bablok."""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from k2chi.measure.result import Result, Values, absent, complete, confidence, p_words

DEMING = "Linnet 1993, Clin Chem 39:424, doi:10.1093/clinchem/39.3.424"
PASSING = "Passing & Bablok 1983, J Clin Chem Clin Biochem 21:709, doi:10.1515/cclm.1983.21.11.709"

AROUND_ZERO = (
    "as published, the interval of the intercept counts the slope's error only: too narrow for values of "
    "both signs; see the bootstrap, or Deming's"
)


class Line(NamedTuple):
    """b = intercept + slope · a."""

    slope: Result
    intercept: Result


def deming(a: Values, b: Values, ratio: float = 1.0, level: float = 0.95) -> Line:
    """The line of least squares when both are measured with error; intervals by the jackknife.

    `ratio` is the variance of b's error over that of a's. Linnet 1993, Clin Chem 39:424,
    doi:10.1093/clinchem/39.3.424. With ratio 1 swapping a and b gives the inverse line.
    """
    if not ratio > 0:
        raise ValueError(f"ratio of error variances {ratio}: give a positive number; 1 if both err alike")
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return _absent("Deming", DEMING, n, "3 pairs that vary in both methods are needed", gone)

    best = np.array(deming_line(x, y, ratio))
    if np.isnan(best).any():
        return _absent("Deming", DEMING, n, "the two are uncorrelated: no direction is better", gone)
    keep = ~np.eye(n, dtype=bool)
    pseudo = np.array([n * best - (n - 1) * np.array(deming_line(x[k], y[k], ratio)) for k in keep])
    error = pseudo.std(0, ddof=1) / sqrt(n)
    half = stats.t.ppf(1 - alpha / 2, n - 2) * error
    ends = [(float(v - h), float(v + h)) if np.isfinite(h) else None for v, h in zip(best, half, strict=True)]
    return _line("Deming", DEMING, n, (float(best[0]), float(best[1])), (ends[0], ends[1]), level, gone)


def deming_line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], ratio: float) -> tuple[float, float]:
    """Slope and intercept alone; nan where no direction is better."""
    dx, dy = x - x.mean(), y - y.mean()
    xx, yy, xy = float(dx @ dx), float(dy @ dy), float(dx @ dy)
    if xy == 0:
        return float("nan"), float("nan")
    slope = (yy - ratio * xx + sqrt((yy - ratio * xx) ** 2 + 4 * ratio * xy**2)) / (2 * xy)
    return slope, float(y.mean() - slope * x.mean())


def passing_bablok(a: Values, b: Values, level: float = 0.95) -> Line:
    """The shifted median of all slopes between two points: ranks only, so outliers do little.

    Passing & Bablok 1983, J Clin Chem Clin Biochem 21:709, doi:10.1515/cclm.1983.21.11.709. Meant for
    positively related methods of equal relative error; a vertical pair counts as a slope of +∞, a pair with
    slope −1 or of equal points is left out. A note gives their test of linearity. Their interval of the
    intercept follows from that of the slope alone: in studies with values around zero it held 18 %; a note
    says so there. Costs n²/2 slopes.
    """
    (there, gone), alpha = complete(a, b), confidence(level)
    x, y = np.asarray(a, float)[there], np.asarray(b, float)[there]
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return _absent("Passing–Bablok", PASSING, n, "3 pairs that vary in both methods are needed", gone)
    slopes = Slopes(x, y)
    slope, total, shift, at = slopes.middle()
    if not np.isfinite(slope):
        why = "the methods fall against each other: turn the sign of one"
        return _absent("Passing–Bablok", PASSING, n, why, gone)
    half = float(stats.norm.ppf(1 - alpha / 2)) * sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = int(np.floor((total - half) / 2 + 0.5))
    low, high = at(first + shift), at(total - first + 1 + shift)
    offset = float(np.median(y - slope * x))
    ends = tuple(float(np.median(y - e * x)) if np.isfinite(e) else -np.sign(e) * np.inf for e in (high, low))
    notes = [gone, _straight(x, y, slope, offset)]
    if shift > total / 4:
        notes.append("many slopes fall: the methods are hardly related, and the line means little")
    line = _line(
        "Passing–Bablok", PASSING, n, (slope, offset), ((low, high), (ends[0], ends[1])), level, *notes
    )
    return line._replace(intercept=line.intercept.noting(AROUND_ZERO if x.min() < 0 < x.max() else ""))


class Slopes:
    """The slopes between any two points, sorted once, so that points can be drawn anew without sorting."""

    def __init__(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> None:
        i, j = np.triu_indices(len(x), 1)
        dx, dy = x[j] - x[i], y[j] - y[i]
        apart = (dx != 0) | (dy != 0)
        s = np.full(int(apart.sum()), np.inf)
        np.divide(dy[apart], dx[apart], out=s, where=dx[apart] != 0)
        order = np.argsort(s, kind="stable")
        order = order[s[order] != -1]
        self.sorted, self.i, self.j = s[order], i[apart][order], j[apart][order]

    def middle(
        self, times: Int[np.ndarray, " n"] | None = None
    ) -> tuple[float, int, int, Callable[[int], float]]:
        """Shifted median, number of slopes, shift, and the slope at a rank.

        `times` says how often each point is there; copies of one have no slope between them. The median is
        infinite for methods that fall against each other.
        """
        s = self.sorted
        upto = np.arange(1, len(s) + 1) if times is None else np.cumsum(times[self.i] * times[self.j])
        total = int(upto[-1]) if len(s) else 0
        below = int(np.searchsorted(s, -1))
        shift = int(upto[below - 1]) if below else 0

        def at(rank: int) -> float:
            if 1 <= rank <= total:
                return float(s[np.searchsorted(upto, rank)])
            return float("inf" if rank > total else "-inf")

        odd = at((total + 1) // 2 + shift)
        return (
            odd if total % 2 else (at(total // 2 + shift) + at(total // 2 + 1 + shift)) / 2,
            total,
            shift,
            at,
        )


def _straight(x: np.ndarray, y: np.ndarray, slope: float, offset: float) -> str:
    """Passing and Bablok's test of linearity: runs of points above or below the line."""
    d = y - offset - slope * x
    above, below = int((d > 0).sum()), int((d < 0).sum())
    if not above or not below:
        return ""
    score = np.where(d > 0, sqrt(below / above), np.where(d < 0, -sqrt(above / below), 0.0))
    run = np.cumsum(score[np.argsort(y + x / slope if slope else x, kind="stable")])
    p = float(stats.kstwobign.sf(np.abs(run).max() / sqrt(below + 1)))
    told = "a straight line does not fit" if p < 0.05 else "no sign of a bend"
    return f"test of linearity {p_words(p)}: {told}"


def _line(
    name: str,
    source: str,
    n: int,
    best: tuple[float, float],
    ends: tuple[tuple[float, float] | None, tuple[float, float] | None],
    level: float,
    *notes: str,
) -> Line:
    slope, offset = (None if e is None or np.isnan(e).any() else e for e in ends)
    return Line(
        Result(f"{name} slope (b on a)", best[0], n, source, slope, level, reading=of_scale(slope)).noting(
            *notes
        ),
        Result(
            f"{name} intercept", best[1], n, source, offset, level, reading=of_shift(offset), in_unit=True
        ),
    )


def of_scale(ci: tuple[float, float] | None) -> str:
    """What the interval of a slope says."""
    return _told(ci, 1, "a difference of scale")


def of_shift(ci: tuple[float, float] | None) -> str:
    """What the interval of an intercept says."""
    return _told(ci, 0, "a constant shift")


def _told(ci: tuple[float, float] | None, null: float, what: str) -> str:
    if ci is None:
        return ""
    inside = ci[0] <= null <= ci[1]
    found, shown = ("includes", "not shown") if inside else ("excludes", "shown")
    return f"the interval {found} {null:g}: {what} is {shown}"


def _absent(name: str, source: str, n: int, why: str, gone: str) -> Line:
    return Line(
        absent(f"{name} slope (b on a)", n, source, why).noting(gone),
        absent(f"{name} intercept", n, source, why),
    )

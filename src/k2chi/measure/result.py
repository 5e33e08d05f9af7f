"""What every statistic returns: one number with its uncertainty, its source and a sentence about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan

import numpy as np
from jaxtyping import Bool, Float, Num

Values = Num[np.ndarray, " n"]
Flags = Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Result:
    """One estimate. What cannot be estimated is None, never nan, and a note says why."""

    name: str
    """What was estimated."""
    estimate: float | None
    """Its value."""
    n: int
    """Observations used: pairs, subjects or lesions, as `counted` says."""
    citation: str
    """Where the method is from."""
    ci: tuple[float, float] | None = None
    """Confidence interval; an end may be infinite."""
    level: float = 0.95
    """Confidence of the interval, 0 to 1."""
    p: float | None = None
    """Two-sided p-value, unless a note says otherwise."""
    statistic: tuple[str, float] | None = None
    """Name with degrees of freedom, and value, of the test statistic."""
    counted: str = "pairs"
    """What `n` counts."""
    reading: str = ""
    """What the numbers say, as a clause."""
    notes: tuple[str, ...] = ()
    """What to keep in mind: missing values, ties, what so few data cannot show."""
    in_unit: bool = False
    """The estimate has the unit of the values."""
    p_adjusted: float | None = None
    """The p-value adjusted for the other tests of its family."""
    adjusted_by: str = ""
    """Method of the adjustment and size of the family."""

    def __post_init__(self) -> None:
        numbers = (self.estimate, self.p, self.p_adjusted, self.statistic[1] if self.statistic else None)
        if any(x is not None and isnan(x) for x in (*numbers, *(self.ci or ()))):
            raise ValueError(f"{self.name}: nan in a result; what cannot be estimated is None")

    def sentence(self, unit: str = "") -> str:
        """The result in words; `unit` is that of the values."""
        tail = f" {unit}" if unit and self.in_unit else ""
        if self.estimate is None:
            return f"{self.name}: not estimable from {self.n} {self.counted}."
        inside = (
            [f"{100 * self.level:g} % CI {number(self.ci[0])} to {number(self.ci[1])}"] if self.ci else []
        )
        if self.statistic:
            inside.append(f"{self.statistic[0]} = {number(self.statistic[1])}")
        if self.p is not None:
            inside.append(p_words(self.p))
        if self.p_adjusted is not None:
            inside.append(f"{p_words(self.p_adjusted)} after {self.adjusted_by}")
        inside.append(f"n = {self.n} {self.counted}")
        end = f": {self.reading}" if self.reading else ""
        return f"{self.name}: {number(self.estimate)}{tail} ({'; '.join(inside)}){end}."

    def noting(self, *notes: str) -> "Result":
        """The same with further notes; empty ones are left out."""
        return replace(self, notes=(*self.notes, *(n for n in notes if n and n not in self.notes)))


def number(x: float | None) -> str:
    """Four digits, a true minus sign, and words for what is no finite number."""
    if x is None:
        return "not estimable"
    if not isfinite(x):
        return "∞" if x > 0 else "−∞"
    return f"{x:.4g}".replace("-", "−")


def p_words(p: float) -> str:
    """`p = 0.016`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def absent(name: str, n: int, citation: str, why: str, counted: str = "pairs") -> Result:
    """The result where there is nothing to estimate."""
    return Result(name, None, n, citation, counted=counted, notes=(f"not estimable: {why}",))


def finite(name: str, x: Values) -> Float[np.ndarray, " n"]:
    """As floats; nan stays and stands for a missing value, infinity is refused."""
    out = np.asarray(x, dtype=float)
    if np.isinf(out).any():
        where = int(np.flatnonzero(np.isinf(out))[0])
        raise ValueError(f"{name}: value {where} is infinite; leave it out, or mark it missing with nan")
    return out


def complete(*columns: Num[np.ndarray, "..."]) -> tuple[Flags, str]:
    """Which rows have no missing value, and a note that lists those that have."""
    if len({len(c) for c in columns}) != 1:
        raise ValueError(f"columns have {', '.join(str(len(c)) for c in columns)} rows: give one value a row")
    there = np.ones(len(columns[0]), dtype=bool)
    for k, column in enumerate(columns):
        x = finite(f"column {k + 1}", np.ravel(column)).reshape(np.shape(column))
        there &= ~np.isnan(x).any(axis=tuple(range(1, x.ndim)))
    gone = np.flatnonzero(~there)
    return there, f"{len(gone)} incomplete rows left out ({listed(gone)})" if len(gone) else ""


def listed(items: Sequence[object] | np.ndarray, most: int = 8) -> str:
    """The first few of many, for a sentence."""
    names = [str(i) for i in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def confidence(level: float) -> float:
    """The share outside the interval, after a look at `level`."""
    if not 0.5 <= level < 1:
        raise ValueError(f"confidence level {level}: choose 0.5 ≤ level < 1, for example 0.95")
    return 1 - level


def fewest(n: int, what: str = "pairs") -> str:
    """What so few units cannot show: the smallest two-sided p of any sign-flip or rank test."""
    least = 2.0 ** (1 - n)
    return f"{n} {what} cannot reach p < {least:.3g} in an exact test" if 0 < n <= 10 else ""

"""Covariates as a matrix: numbers as they are, words as steps from a first level."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from k2chi.measure.result import Values, complete, listed


@dataclass(frozen=True, eq=False)
class Design:
    """Outcome and covariates of the complete rows."""

    y: Float[np.ndarray, " n"]
    """Outcome."""
    x: Float[np.ndarray, "n p"]
    """One column a coefficient; the first is 1."""
    names: tuple[str, ...]
    """What each column is."""
    rows: Bool[np.ndarray, " all"]
    """Which rows were complete."""
    note: str
    """Which were not."""
    numbers: frozenset[str] = frozenset()
    """Columns that are numbers, so that their coefficients are per unit of them."""


def design(outcome: Values, covariates: Mapping[str, Shaped[np.ndarray, " n"]]) -> Design:
    """Intercept and covariates; a column of words becomes one column for each level but the first.

    Levels are in alphabetical order, so the first of them is what the others are compared with. Missing
    words are empty, n/a or None. Raises ValueError where columns say the same thing twice.
    """
    columns: list[tuple[str, np.ndarray]] = []
    for name, values in covariates.items():
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            columns.append((name, array.astype(float)))
            continue
        words = np.array([str(v).strip() for v in array])
        missing = np.isin(words, ("", "n/a", "None", "nan"))
        levels = sorted(set(words[~missing]))
        if len(levels) > 20:
            raise ValueError(f"{name}: {len(levels)} different words ({listed(levels, 3)}); is it a number?")
        for word in levels[1:]:
            step = np.where(missing, np.nan, (words == word).astype(float))
            columns.append((f"{name}: {word} − {levels[0]}", step))
    rows, note = complete(outcome, *(c for _, c in columns))
    x = np.stack([np.ones(int(rows.sum())), *(c[rows] for _, c in columns)], 1)
    names = ("intercept", *(n for n, _ in columns))
    if len(x):
        _independent(x, names)
    numeric = frozenset(n for n, v in covariates.items() if np.asarray(v).dtype.kind in "biuf")
    return Design(np.asarray(outcome, float)[rows], x, names, rows, note, numeric)


def _independent(x: np.ndarray, names: tuple[str, ...]) -> None:
    scaled = x / np.maximum(np.linalg.norm(x, axis=0), 1e-300)
    for k in range(1, x.shape[1]):
        if np.linalg.matrix_rank(scaled[:, : k + 1], tol=1e-10) <= min(k, len(x) - 1) and len(x) > k:
            raise ValueError(
                f"covariate {names[k]} does not vary, or follows from {', '.join(names[:k])}: leave it out"
            )

"""Answers of readers as numbers of classes, and tables of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

Label = str | int | float | bool
MISSING = ("", "n/a", "None", "nan")


def coded(answers: Shaped[np.ndarray, "..."], categories: Sequence[Label]) -> Int[np.ndarray, "..."]:
    """Each answer's place in `categories`, −1 where it is missing (None, nan, empty or n/a).

    `categories` is the whole scale in its order, also those classes that nobody used.
    """
    names = [_plain(c) for c in categories]
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"classes {', '.join(names)}: give at least two, each once, in their order")
    place = {name: k for k, name in enumerate(names)} | dict.fromkeys(MISSING, -1)
    flat = [_plain(v) for v in np.ravel(np.asarray(answers, dtype=object))]
    strange = sorted({v for v in flat if v not in place})
    if strange:
        raise ValueError(f"answers {', '.join(strange)} are not among the classes {', '.join(names)}")
    return np.array([place[v] for v in flat], dtype=int).reshape(np.shape(answers))


def _plain(value: object) -> str:
    """One spelling for 1, 1.0, True-like numpy scalars and "1"."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def crossed(
    a: Shaped[np.ndarray, " n"], b: Shaped[np.ndarray, " n"], categories: Sequence[Label]
) -> tuple[Float[np.ndarray, "q q"], str]:
    """Table of a's classes (rows) against b's, and a note on pairs left out."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} answers: give both raters' answers for each case")
    i, j = coded(a, categories), coded(b, categories)
    there = (i >= 0) & (j >= 0)
    table = np.zeros((len(categories), len(categories)))
    np.add.at(table, (i[there], j[there]), 1.0)
    gone = np.flatnonzero(~there)
    note = f"{len(gone)} cases without both answers left out" if len(gone) else ""
    return table, note

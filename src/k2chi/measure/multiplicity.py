"""Many tests at once: p-values adjusted for their number."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from k2chi.measure.result import Result

Method = Literal["holm", "bh"]
SOURCES = {
    "holm": "Holm 1979, Scand J Stat 6:65",
    "bh": "Benjamini & Hochberg 1995, J R Stat Soc B 57:289, doi:10.1111/j.2517-6161.1995.tb02031.x",
}
NAMES = {"holm": "Holm", "bh": "Benjamini–Hochberg"}


def holm(p: Sequence[float] | np.ndarray) -> list[float]:
    """Adjusted p-values that keep the chance of any false alarm in the family at the level.

    Holm 1979, Scand J Stat 6:65. Holds under any dependence between the tests.
    """
    raw, order = _sorted(p)
    stepped = np.maximum.accumulate(raw * np.arange(len(raw), 0, -1)).clip(max=1)
    return _back(stepped, order)


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> list[float]:
    """Adjusted p-values that keep the expected share of false alarms among all alarms at the level.

    Benjamini & Hochberg 1995, J R Stat Soc B 57:289, doi:10.1111/j.2517-6161.1995.tb02031.x. Holds for
    independent tests and for those with positive dependence.
    """
    raw, order = _sorted(p)
    stepped = raw * len(raw) / np.arange(1, len(raw) + 1)
    return _back(np.minimum.accumulate(stepped[::-1])[::-1].clip(max=1), order)


def _sorted(p: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(p, dtype=float)
    if values.size and not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p-values lie from 0 to 1: leave out those that are missing")
    order = np.argsort(values, kind="stable")
    return values[order], order


def _back(stepped: np.ndarray, order: np.ndarray) -> list[float]:
    out = np.empty_like(stepped)
    out[order] = stepped
    return [float(x) for x in out]


def adjust(results: Sequence[Result], method: Method = "holm") -> list[Result]:
    """The results of one family, each with its adjusted p; results without a p stay as they are."""
    tested = [k for k, r in enumerate(results) if r.p is not None]
    how = holm if method == "holm" else benjamini_hochberg
    found = dict(zip(tested, how([results[k].p or 0.0 for k in tested]), strict=True))
    by = f"{NAMES[method]} over {len(tested)} tests"
    return [
        replace(r, p_adjusted=found[k], adjusted_by=by) if k in found else r for k, r in enumerate(results)
    ]

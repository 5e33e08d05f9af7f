"""Many raters and classes: Fleiss' κ, Gwet's AC1, Krippendorff's α."""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from k2chi.measure.agreement.classes import Label, coded
from k2chi.measure.result import Result, absent, confidence

FLEISS = "Fleiss 1971, Psychol Bull 76:378, doi:10.1037/h0031619"
GWET = "Gwet 2008, Br J Math Stat Psychol 61:29, doi:10.1348/000711006X126600"
ALPHA = "Hayes & Krippendorff 2007, Commun Methods Meas 1:77, doi:10.1080/19312450709336664"
Scale = Literal["nominal", "ordinal", "interval", "ratio"]


def fleiss(
    ratings: Shaped[np.ndarray, "cases raters"], categories: Sequence[Label], level: float = 0.95
) -> Result:
    """Agreement beyond chance of many raters, chance being how often each class is used.

    Fleiss 1971, doi:10.1037/h0031619. The interval is over cases, with Gwet's linearised variance (2008,
    doi:10.1348/000711006X126600). With two raters this is Scott's π, not Cohen's κ.
    """
    return _beyond_chance("Fleiss' κ", f"{FLEISS}; interval: {GWET}", ratings, categories, level)


def ac1(
    ratings: Shaped[np.ndarray, "cases raters"], categories: Sequence[Label], level: float = 0.95
) -> Result:
    """Agreement beyond chance that stays high when one class is rare.

    Gwet 2008, doi:10.1348/000711006X126600. Chance is Σ π(1 − π) / (q − 1) with q classes, so it depends on
    the whole scale. Missing ratings are allowed.
    """
    return _beyond_chance("Gwet's AC1", GWET, ratings, categories, level)


def _beyond_chance(
    name: str, source: str, ratings: np.ndarray, categories: Sequence[Label], level: float
) -> Result:
    alpha = confidence(level)
    r, single = counts(ratings, categories)
    n, q, each = len(r), len(categories), r.sum(1)
    more = each >= 2
    if not more.any():
        return absent(name, n, source, "no case has two ratings", "cases")
    agreed = np.where(more, (r * (r - 1)).sum(1) / np.maximum(each * (each - 1), 1), 0.0)
    used = (r / each[:, None]).mean(0)
    per_class = (1 - used) / (q - 1) if name == "Gwet's AC1" else used
    by_chance, observed = float(used @ per_class), float(agreed[more].mean())
    if by_chance >= 1:
        return absent(name, n, source, "all raters used one class only; see AC1", "cases")
    value = (observed - by_chance) / (1 - by_chance)
    parts = n / more.sum() * (agreed - by_chance * more) / (1 - by_chance)
    parts = parts - 2 * (1 - value) * (r @ per_class / each - by_chance) / (1 - by_chance)
    ci = None
    if n > 1 and value < 1:
        half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * sqrt(
            float(((parts - value) ** 2).sum()) / n / (n - 1)
        )
        ci = max(-1.0, value - half), min(1.0, value + half)
    return Result(name, value, n, source, ci, level, counted="cases").noting(
        "" if ci else "no interval: the raters never differ" if n > 1 else "no interval from one case", single
    )


def counts(
    ratings: Shaped[np.ndarray, "cases raters"], categories: Sequence[Label]
) -> tuple[Float[np.ndarray, "rated q"], str]:
    """How many raters put each case into each class; cases that nobody rated are left out."""
    code = coded(ratings, categories)
    r = np.stack([(code == k).sum(1) for k in range(len(categories))], 1).astype(float)
    few, none = int((r.sum(1) == 1).sum()), int((r.sum(1) == 0).sum())
    told = [f"{few} cases with one rating"] * bool(few) + [f"{none} cases with none"] * bool(none)
    return r[r.sum(1) > 0], " and ".join(told)


def krippendorff(
    ratings: Shaped[np.ndarray, "cases raters"],
    categories: Sequence[Label],
    scale: Scale = "nominal",
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """α = 1 − observed / expected disagreement, for any number of raters and with gaps.

    Hayes & Krippendorff 2007, doi:10.1080/19312450709336664. `scale` says how far two classes are apart;
    interval and ratio take the classes as numbers. The interval draws cases anew, and is too narrow for
    fewer than about 20 of them.
    """
    alpha, name = confidence(level), f"Krippendorff's α ({scale})"
    if scale in ("interval", "ratio"):
        try:
            worth = np.array([float(c) for c in categories])
        except ValueError:
            raise ValueError(f"scale {scale}: classes must be numbers; choose ordinal or nominal") from None
    else:
        worth = np.arange(len(categories), dtype=float)
    r, _ = counts(ratings, categories)
    r = r[r.sum(1) >= 2]
    if not len(r) or (r.sum(0) > 0).sum() < 2:
        return absent(name, len(r), ALPHA, "all ratings are of one class", "cases")
    pairs = r[:, :, None] * r[:, None, :]
    pairs[:, np.arange(len(worth)), np.arange(len(worth))] -= r
    pairs /= (r.sum(1) - 1)[:, None, None]
    value = _alpha(pairs.sum(0), worth, scale)
    times = np.random.default_rng(seed).multinomial(len(r), np.full(len(r), 1 / len(r)), draws)
    tables = np.tensordot(times.astype(float), pairs, 1)
    found = [v for v in (_alpha(t, worth, scale) for t in tables) if v is not None]
    ci = None
    if len(r) > 1 and len(found) > 0.95 * draws:
        low, high = np.quantile(found, [alpha / 2, 1 - alpha / 2])
        ci = float(low), float(high)
    few = "fewer than 20 cases: the interval is too narrow" if ci and len(r) < 20 else ""
    return Result(name, value, len(r), ALPHA, ci, level, counted="cases").noting(few)


def _alpha(o: np.ndarray, worth: np.ndarray, scale: Scale) -> float | None:
    """α of a table of coincidences; None where only one class occurs."""
    n, total = o.sum(1), o.sum()
    if scale == "nominal":
        apart = 1 - np.eye(len(n))
    elif scale == "ordinal":
        rank = np.cumsum(n) - n / 2
        apart = np.subtract.outer(rank, rank) ** 2
    else:
        apart = np.subtract.outer(worth, worth) ** 2
        if scale == "ratio":
            size = np.add.outer(worth, worth) ** 2
            apart = np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
    expected = float(n @ apart @ n)
    return 1 - (total - 1) * float((o * apart).sum()) / expected if expected > 0 else None

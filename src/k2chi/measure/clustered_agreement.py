"""Agreement on lesions within patients: coefficients and accuracy with intervals that draw patients."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from k2chi.measure.agreement.accuracy import accuracy, mcnemar
from k2chi.measure.agreement.classes import Label, coded
from k2chi.measure.agreement.kappa import Weights, kappa, kappa_of
from k2chi.measure.clustered import Groups, bootstrap, sign_flip
from k2chi.measure.result import Flags, Result

KANG = "Kang et al. 2013, Stat Med 32:3700, doi:10.1002/sim.5796"
NAIVE = "naive: takes lesions of a patient as independent"


class Both(NamedTuple):
    """The same figure with the interval for independent lesions, and with that of patients drawn anew."""

    naive: Result
    clustered: Result


def clustered_kappa(
    a: Shaped[np.ndarray, " n"],
    b: Shaped[np.ndarray, " n"],
    categories: Sequence[Label],
    cluster: Groups,
    weights: Weights = "none",
    level: float = 0.95,
    seed: int = 0,
) -> Both:
    """Cohen's κ over lesions, with the large-sample interval and with a cluster bootstrap.

    Kang et al. 2013, Stat Med 32:3700, doi:10.1002/sim.5796: the bootstrap is the better one with a
    moderately large number of clusters; with 7 patients neither holds its level.
    """
    i, j, q = coded(a, categories), coded(b, categories), len(categories)
    there = (i >= 0) & (j >= 0)
    cells = (i * q + j)[there]

    def value(rows: Int[np.ndarray, " m"]) -> float | None:
        table = np.bincount(cells[rows], minlength=q * q).reshape(q, q).astype(float)
        return kappa_of(table, weights)

    naive = kappa(a, b, categories, weights, level)
    name = f"{naive.name} (cluster bootstrap)"
    again = bootstrap(name, value, np.asarray(cluster)[there], level, seed=seed, counted="cases")
    return Both(naive.noting(NAIVE), replace(again, citation=f"{again.citation}; {KANG}"))


def clustered_agreement(
    a: Shaped[np.ndarray, " n"],
    b: Shaped[np.ndarray, " n"],
    categories: Sequence[Label],
    cluster: Groups,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Result, ...]:
    """Raw agreement, κ, AC1 and PABAK of two readers, with cluster bootstraps; naive ones: `agreement`.

    Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x. Too narrow with few patients.
    """
    i, j, q = coded(a, categories), coded(b, categories), len(categories)
    there = (i >= 0) & (j >= 0)
    cells, who = (i * q + j)[there], np.asarray(cluster)[there]
    made = clustered_kappa(a, b, categories, cluster, level=level, seed=seed).clustered

    def of(value: Callable[[np.ndarray], float]) -> Callable[[Int[np.ndarray, " m"]], float | None]:
        def again(rows: Int[np.ndarray, " m"]) -> float | None:
            table = np.bincount(cells[rows], minlength=q * q).reshape(q, q)
            return value(table / table.sum()) if len(rows) else None

        return again

    def ac1_of(p: np.ndarray) -> float:
        used = (p.sum(0) + p.sum(1)) / 2
        by_chance = float((used * (1 - used)).sum()) / (q - 1)
        return (float(np.trace(p)) - by_chance) / (1 - by_chance)

    values: dict[str, Callable[[np.ndarray], float]] = {
        "Raw agreement": lambda p: float(np.trace(p)),
        "Gwet's AC1": ac1_of,
        "PABAK": lambda p: (q * float(np.trace(p)) - 1) / (q - 1),
    }
    raw, gwet, pabak = (
        bootstrap(f"{name} (cluster bootstrap)", of(value), who, level, seed=seed, counted="cases")
        for name, value in values.items()
    )
    return raw, made, gwet, pabak


def clustered_coefficient(
    naive: Result,
    estimate: Callable[[Int[np.ndarray, " m"]], float | None],
    cluster: Groups,
    level: float = 0.95,
    seed: int = 0,
) -> Both:
    """Any coefficient over lesions as it is, and with an interval from patients drawn anew.

    Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x. `estimate` gets the rows to use.
    """
    name = f"{naive.name} (cluster bootstrap)"
    again = bootstrap(name, estimate, cluster, level, 1000, seed, naive.counted)
    return Both(naive.noting(NAIVE), again)


def clustered_accuracy(
    found: Flags, truth: Flags, cluster: Groups, level: float = 0.95, seed: int = 0
) -> tuple[Both, ...]:
    """Sensitivity, specificity, predictive values and share correct, Wilson's interval and by patient.

    Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x, for the cluster bootstrap.
    """
    wholes = (truth, ~truth, found, ~found, np.ones_like(truth))
    right = found == truth
    out = []
    for naive, whole in zip(accuracy(found, truth, level), wholes, strict=True):
        again = bootstrap(
            f"{naive.name} (cluster bootstrap)", _share(right, whole), cluster, level, seed=seed,
            counted="cases",
        )  # fmt: skip
        out.append(Both(naive.noting(NAIVE), again))
    return tuple(out)


def _share(hit: Flags, whole: Flags) -> Callable[[Int[np.ndarray, " m"]], float | None]:
    def value(rows: Int[np.ndarray, " m"]) -> float | None:
        among = whole[rows]
        return float(hit[rows][among].mean()) if among.any() else None

    return value


def clustered_mcnemar(a: Flags, b: Flags, cluster: Groups, level: float = 0.95, seed: int = 0) -> Both:
    """Do two methods call different shares positive? McNemar's test, and signs of whole patients turned.

    McNemar 1947, doi:10.1007/BF02295996; Pitman 1937, doi:10.2307/2984124.
    """
    flipped = sign_flip(a.astype(float) - b.astype(float), cluster, level, seed)
    return Both(mcnemar(a, b, level).noting(NAIVE), flipped)

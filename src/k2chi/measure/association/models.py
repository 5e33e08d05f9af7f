"""Linear models: least squares, robust, with a random intercept for each subject; the trend with age."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from scipy import stats

from k2chi.measure.association.design import Design, design
from k2chi.measure.result import Result, Values, absent, confidence

Kind = Literal["ols", "hc3", "huber"]
Columns = Mapping[str, Shaped[np.ndarray, " n"]]
SOURCES = {
    "ols": "ordinary least squares; Gauss 1823",
    "hc3": "MacKinnon & White 1985, J Econometrics 29:305, doi:10.1016/0304-4076(85)90158-7",
    "huber": "Huber 1964, Ann Math Stat 35:73, doi:10.1214/aoms/1177703732",
}
MIXED = "Laird & Ware 1982, Biometrics 38:963, doi:10.2307/2529876"
NAMES = {"ols": "least squares", "hc3": "least squares, HC3 errors", "huber": "robust, Huber"}


def linear(
    outcome: Values, covariates: Columns, kind: Kind = "ols", level: float = 0.95
) -> tuple[Result, ...]:
    """Coefficients of a linear model: plain (ols), with errors that allow unequal spread (hc3), or robust
    against outliers (huber).

    MacKinnon & White 1985, doi:10.1016/0304-4076(85)90158-7; Huber 1964, doi:10.1214/aoms/1177703732. Each
    row is taken as independent; for several rows from a person use `mixed` or a clustered method.
    """
    import statsmodels.api as sm

    d = design(outcome, covariates)
    n, p = d.x.shape
    if n <= p or np.ptp(d.y) == 0:
        why = "the outcome does not vary" if n > p else f"{p} coefficients need more than {n} rows"
        return tuple(absent(f"{name} ({NAMES[kind]})", n, SOURCES[kind], why, "rows") for name in d.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a perfect fit divides by zero in scales that are not used below
        if kind == "huber":
            fit: Any = sm.RLM(d.y, d.x, M=sm.robust.norms.HuberT()).fit()
        else:
            fit = sm.OLS(d.y, d.x).fit(cov_type="HC3" if kind == "hc3" else "nonrobust")
        errors = np.asarray(fit.bse, float)
    title = f"({NAMES[kind]})"
    return coefficients(d, np.asarray(fit.params), errors, n - p, title, SOURCES[kind], level)


def coefficients(
    d: Design, values: np.ndarray, errors: np.ndarray, df: int, title: str, source: str, level: float,
    counted: str = "rows", notes: Sequence[str] = (),
) -> tuple[Result, ...]:  # fmt: skip
    """One result for each coefficient, with intervals and tests from t on `df`."""
    wide, out = float(stats.t.ppf(1 - confidence(level) / 2, df)), []
    tiny = 1e-12 * max(float(np.abs(d.y).max()), 1e-300)
    for name, value, error in zip(d.names, values, errors, strict=True):
        sure = bool(np.isfinite(error)) and error > tiny / max(float(np.abs(d.x).max()), 1e-300)
        t, half = (float(value / error), wide * float(error)) if sure else (0.0, 0.0)
        found = Result(
            f"{name} {title}", float(value), len(d.y), source, level=level, counted=counted,
            in_unit=name not in d.numbers,
        ).noting(d.note, *notes, "" if sure else "no interval: the model fits without error")  # fmt: skip
        if sure:
            ends, p = (float(value) - half, float(value) + half), float(2 * stats.t.sf(abs(t), df))
            found = replace(found, ci=ends, p=p, statistic=(f"t({df})", t))
        out.append(found)
    return tuple(out)


def trend(outcome: Values, covariates: Columns, level: float = 0.95) -> Result:
    """Change of the outcome for one unit of the first covariate (a year of age), with the others held.

    Least squares with HC3 errors, doi:10.1016/0304-4076(85)90158-7. The note gives the partial correlation.
    """
    first = next(iter(covariates), None)
    if first is None or np.asarray(covariates[first]).dtype.kind not in "biuf":
        raise ValueError("a trend needs a first covariate that is a number, such as age")
    found = linear(outcome, covariates, "hc3", level)
    slope, plain = found[1], linear(outcome, covariates, "ols", level)[1]
    note = ""
    if plain.statistic is not None:
        t, df = plain.statistic[1], plain.n - len(found)
        note = f"partial correlation {t / sqrt(t**2 + df):.3f}"
    return slope.noting(note)


def mixed(
    outcome: Values, covariates: Columns, subject: Shaped[np.ndarray, " n"], level: float = 0.95
) -> tuple[Result, ...]:
    """Linear model with a random intercept for each subject, by restricted maximum likelihood.

    Laird & Ware 1982, doi:10.2307/2529876. Intervals use t with as many degrees of freedom as there are
    subjects beyond the coefficients, which is careful for covariates that vary within subjects.
    """
    import statsmodels.api as sm

    d = design(outcome, covariates)
    who = np.unique(np.asarray(subject)[d.rows].astype(str), return_inverse=True)[1]
    n, p = d.x.shape
    many = int(who.max()) + 1 if n else 0
    title = "(mixed by subject)"
    if many <= p or many == n or np.ptp(d.y) == 0:
        why = (
            "the outcome does not vary"
            if n and np.ptp(d.y) == 0
            else f"{n} rows of {many} subjects: repeats, and more subjects than {p} coefficients, are needed"
        )
        return tuple(absent(f"{name} {title}", n, MIXED, why, "rows") for name in d.names)
    scale = float(d.y.std())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            fit: Any = sm.MixedLM(d.y / scale, d.x, who).fit(reml=True)
            errors = np.asarray(fit.bse_fe) * scale
        except np.linalg.LinAlgError:
            why = "the variance between subjects could not be estimated"
            return tuple(absent(f"{name} {title}", n, MIXED, why, "rows") for name in d.names)
    share = float(fit.cov_re[0, 0] / (fit.cov_re[0, 0] + fit.scale))
    notes = [f"{many} subjects; share of the rest that lies between subjects {share:.2f}"]
    if any("onverge" in str(w.message) for w in told):
        notes.append("the fit did not converge: do not rely on it")
    if share < 1e-6:
        notes.append("no variance between subjects was found")
    values = np.asarray(fit.fe_params) * scale
    return coefficients(d, values, errors, many - p, title, MIXED, level, notes=notes)

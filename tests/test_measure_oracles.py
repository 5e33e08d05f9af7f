"""The same numbers as pingouin and statsmodels give; pingouin (GPL) serves tests only."""

import warnings

import numpy as np
import pandas as pd
import pytest

from k2chi.measure.agreement import equivalence, icc, proportion
from k2chi.measure.association import linear, paired_t, pearson, spearman, wilcoxon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pg = pytest.importorskip("pingouin")

RANDOM = np.random.default_rng(11)
A = RANDOM.normal(40, 12, 23)
B = A + RANDOM.normal(1.5, 5, 23)


def quiet(call, *args, **kwargs):
    """pingouin warns of its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def cell(frame, *names):
    """The first row under the first heading there is: pingouin has renamed them."""
    return frame[next(n for n in names if n in frame.columns)].to_numpy()[0]


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("1,1", ("ICC1", "ICC(1,1)")),
        ("2,1", ("ICC2", "ICC(A,1)")),
        ("3,1", ("ICC3", "ICC(C,1)")),
        ("1,k", ("ICC1k", "ICC(1,k)")),
        ("2,k", ("ICC2k", "ICC(A,k)")),
        ("3,k", ("ICC3k", "ICC(C,k)")),
    ],
)
def test_every_icc(form, names):
    scores = np.stack([A, B, A + RANDOM.normal(0, 4, 23)], 1)
    rows = pd.DataFrame(
        [(k, r, scores[k, r]) for k in range(23) for r in range(3)], columns=["who", "rater", "x"]
    )
    table = quiet(pg.intraclass_corr, rows, "who", "rater", "x")
    theirs = table[table["Type"].isin(names)]
    assert len(theirs) == 1
    ours = icc(scores, form)
    assert ours.estimate == pytest.approx(cell(theirs, "ICC"), rel=1e-6)
    assert ours.ci == pytest.approx(cell(theirs, "CI95", "CI95%"), abs=6e-3)  # theirs are rounded
    assert ours.p == pytest.approx(cell(theirs, "pval", "p_val"), rel=1e-6)


@pytest.mark.parametrize(("ours", "method"), [(pearson, "pearson"), (spearman, "spearman")])
def test_correlations(ours, method):
    theirs = quiet(pg.corr, A, B, method=method)
    found = ours(A, B)
    assert found.estimate == pytest.approx(cell(theirs, "r"), rel=1e-9)
    assert found.p == pytest.approx(cell(theirs, "p_val", "p-val"), rel=1e-6)
    if method == "pearson":
        assert found.ci == pytest.approx(cell(theirs, "CI95", "CI95%"), abs=6e-3)


def test_paired_t():
    theirs = quiet(pg.ttest, A, B, paired=True)
    found = paired_t(A, B)
    assert found.statistic[1] == pytest.approx(cell(theirs, "T"), rel=1e-9)
    assert found.p == pytest.approx(cell(theirs, "p_val", "p-val"), rel=1e-9)
    assert found.ci == pytest.approx(cell(theirs, "CI95", "CI95%"), abs=6e-3)


def test_wilcoxon():
    theirs = quiet(pg.wilcoxon, A, B)
    assert wilcoxon(A, B).p == pytest.approx(cell(theirs, "p_val", "p-val"), rel=1e-6)


@pytest.mark.parametrize("margin", [2.0, 4.0])
def test_equivalence(margin):
    theirs = quiet(pg.tost, A, B, bound=margin, paired=True)
    assert equivalence(A, B, margin).p == pytest.approx(cell(theirs, "pval", "p_val"), rel=1e-6)


def test_least_squares():
    rows = pd.DataFrame({"age": A, "other": RANDOM.normal(size=23)})
    theirs = quiet(pg.linear_regression, rows, B)
    ours = linear(B, {"age": A, "other": rows["other"].to_numpy()})
    assert [r.estimate for r in ours] == pytest.approx(theirs["coef"].to_numpy(), rel=1e-9)
    assert [r.p for r in ours] == pytest.approx(
        theirs[next(n for n in ("p_val", "pval") if n in theirs.columns)].to_numpy(), rel=1e-6
    )


def test_wilson_of_the_study():
    """36 of 38: 0.827 to 0.985, as statsmodels' proportion_confint(36, 38, method="wilson") gives."""
    assert proportion("", 36, 38).ci == pytest.approx((0.827, 0.985), abs=5e-4)

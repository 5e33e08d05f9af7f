"""Differences, correlations and models: exact p by enumeration, other libraries, coverage, multiplicity."""

from itertools import permutations, product

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from k2chi.measure.association import (
    design,
    linear,
    mixed,
    paired_t,
    pearson,
    sign_test,
    spearman,
    trend,
    wilcoxon,
)
from k2chi.measure.multiplicity import adjust, benjamini_hochberg, holm
from k2chi.measure.result import Result

# Extra hours of sleep under two drugs, ten patients: Student 1908 (R: sleep).
DRUG1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
DRUG2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
# Depression scores before and after: Hollander & Wolfe 1973 (R: ?wilcox.test).
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def enumerated(d, statistic):
    """Two-sided p of |statistic − its centre| over every choice of signs."""
    ranks = stats.rankdata(np.abs(d))
    found = np.array([statistic(np.array(s), ranks) for s in product((-1, 1), repeat=len(d))])
    own = statistic(np.sign(d), ranks)
    return (np.abs(found) >= abs(own) - 1e-9).mean()


# ---- differences


def test_students_own_example():
    """R: t = −4.0621, df = 9, p = 0.002833, interval −2.4599 to −0.7001, mean −1.58."""
    found = paired_t(DRUG1, DRUG2)
    assert found.statistic == ("t(9)", pytest.approx(-4.0621, abs=5e-5))
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.ci == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert found.reading == "a is smaller"


def test_wilcoxon_as_in_r():
    """R: wilcox.test(x, y, paired = TRUE): V = 40, p = 0.03906."""
    found = wilcoxon(BEFORE, AFTER)
    assert found.statistic == ("W⁺", 40)
    assert found.p == pytest.approx(10 / 256)
    walsh = [(a + b) / 2 for k, a in enumerate(BEFORE - AFTER) for b in (BEFORE - AFTER)[k:]]
    assert found.estimate == pytest.approx(np.median(walsh))


@pytest.mark.parametrize("seed", range(6))
def test_wilcoxon_with_ties_is_exact(seed):
    """Every choice of signs of the midranks is tried by hand."""
    d = np.random.default_rng(seed).integers(-4, 6, 9).astype(float)
    nonzero = d[d != 0]
    found = wilcoxon(d, np.zeros(9))
    assert found.p == pytest.approx(enumerated(nonzero, lambda s, r: (s * r).sum()))
    assert any("ties" in n for n in found.notes) == (len(set(np.abs(nonzero))) < len(nonzero))


@pytest.mark.parametrize("n", [6, 13, 25])
def test_wilcoxon_without_ties_as_scipy(n):
    d = np.random.default_rng(n).normal(size=n) + 0.4
    assert wilcoxon(d, np.zeros(n)).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_wilcoxon_of_many_pairs_as_scipy():
    """Beyond 200 pairs by the normal distribution, ties counted."""
    d = np.random.default_rng(0).integers(-5, 6, 400) + 0.0
    kept = d[d != 0]
    oracle = stats.wilcoxon(kept, method="asymptotic", correction=False)
    assert wilcoxon(d, np.zeros(400)).p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert wilcoxon(d[:200], np.zeros(200)).p == pytest.approx(
        stats.wilcoxon(d[:200][d[:200] != 0]).pvalue, rel=0.05
    )


def test_wilcoxon_pratt_ranks_the_zeros():
    d = np.array([0.0, 0.0, 1.0, 2.0, -3.0, 4.0])
    assert wilcoxon(d, 0 * d, zeros="pratt").statistic[1] == 3 + 4 + 6
    assert wilcoxon(d, 0 * d).statistic[1] == 1 + 2 + 4
    assert wilcoxon(d, 0 * d, zeros="pratt").p == pytest.approx(
        np.mean([abs(np.dot(s, [3, 4, 5, 6])) >= 8 for s in product((-1, 1), repeat=4)])
    )


@pytest.mark.parametrize(("n", "least"), [(5, 0.0625), (6, 0.03125), (7, 0.015625)])
def test_few_pairs_cannot_be_significant(n, least):
    """And the result says so; with 5 pairs there is no 95 % interval at all."""
    found = wilcoxon(np.arange(1.0, n + 1), np.zeros(n))
    assert found.p == pytest.approx(least)
    assert f"{n} pairs cannot reach p < {least:.3g} in an exact test" in found.notes
    assert (found.ci is None) == (n == 5)
    assert sign_test(np.arange(1.0, n + 1), np.zeros(n)).p == pytest.approx(least)


def test_sign_test_by_hand():
    d = np.array([3.0, 1, 2, 5, -1, 4, 6, 0, 7, 8])
    found = sign_test(d, np.zeros(10))
    assert found.p == pytest.approx(stats.binomtest(8, 9).pvalue)
    assert found.ci == (0, 7)  # second and ninth of ten: 97.9 %


@pytest.mark.parametrize("method", [paired_t, wilcoxon, sign_test])
def test_differences_turn_round_shift_and_scale(method):
    a, b = method(DRUG1, DRUG2), method(DRUG2, DRUG1)
    assert a.p == pytest.approx(b.p)
    assert a.ci == pytest.approx((-b.ci[1], -b.ci[0]))
    moved = method(1000 * DRUG1 + 5, 1000 * DRUG2 + 5)
    assert moved.ci == pytest.approx(tuple(1000 * e for e in a.ci))


@pytest.mark.parametrize("method", [paired_t, wilcoxon, sign_test])
def test_intervals_cover_and_tests_keep_their_level(method):
    """Nine skewless differences, 600 draws; discrete methods may only err to the safe side."""
    rng, hits, alarms = np.random.default_rng(1), 0, 0
    for _ in range(600):
        found = method(rng.normal(size=9), np.zeros(9))
        hits += found.ci[0] <= 0 <= found.ci[1]
        alarms += found.p < 0.05
    assert 0.93 <= hits / 600 <= (0.97 if method is paired_t else 0.99)
    assert alarms / 600 <= 0.07


# ---- correlation


def test_correlation_as_scipy():
    rng = np.random.default_rng(2)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    oracle = stats.pearsonr(x, y)
    found = pearson(x, y)
    assert (found.estimate, found.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert found.ci == pytest.approx(tuple(oracle.confidence_interval()))
    ranks = stats.spearmanr(x, y)
    assert (spearman(x, y).estimate, spearman(x, y).p) == pytest.approx((ranks.statistic, ranks.pvalue))
    assert spearman(np.exp(x), y**3).ci == pytest.approx(spearman(x, y).ci)


def test_spearman_of_few_pairs_is_exact():
    """With ties too: every order of one column is tried by hand."""
    x, y = np.array([1.0, 2, 2, 4, 5, 6]), np.array([2.0, 1, 4, 3, 6, 6])
    own = stats.spearmanr(x, y).statistic
    tried = [stats.spearmanr(x, y[list(o)]).statistic for o in permutations(range(6))]
    assert spearman(x, y).p == pytest.approx(np.mean(np.abs(tried) >= abs(own) - 1e-9))


def test_correlations_on_a_line():
    x = np.arange(10.0)
    for method in (pearson, spearman):
        assert method(x, -2 * x).estimate == -1
        assert method(x, -2 * x).ci is None
        assert method(x, 0 * x).estimate is None


@pytest.mark.parametrize("method", [pearson, spearman])
def test_correlation_intervals_cover(method):
    """True r 0.5, and the ρ that belongs to it, 6/π asin(r/2); 25 pairs, 800 draws."""
    rng, hits = np.random.default_rng(3), 0
    truth = 0.5 if method is pearson else 6 / np.pi * np.arcsin(0.25)
    for _ in range(800):
        x = rng.normal(size=25)
        low, high = method(x, 0.5 * x + np.sqrt(0.75) * rng.normal(size=25)).ci
        hits += low <= truth <= high
    assert 0.925 <= hits / 800 <= 0.975


# ---- models


def people(n=60, seed=4):
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(20, 80, n), np.where(rng.random(n) < 0.5, "m", "f")
    return age, sex, 10 + 0.5 * age + 4 * (sex == "m") + 3 * rng.normal(size=n)


def test_linear_as_statsmodels():
    """Words become steps from the first in the alphabet."""
    age, sex, y = people()
    x = np.stack([np.ones(60), age, sex == "m"], 1).astype(float)
    for kind, fit in (
        ("ols", sm.OLS(y, x).fit()),
        ("hc3", sm.OLS(y, x).fit(cov_type="HC3", use_t=True)),
    ):
        found = linear(y, {"age": age, "sex": sex}, kind)
        assert [r.estimate for r in found] == pytest.approx(list(fit.params))
        assert [r.p for r in found] == pytest.approx(list(fit.pvalues))
        assert np.array([r.ci for r in found]) == pytest.approx(np.asarray(fit.conf_int()))
    assert [r.name.split(" (")[0] for r in found] == ["intercept", "age", "sex: m − f"]


def test_robust_shrugs_at_an_outlier():
    age, _, y = people()
    y = y.copy()
    y[np.argmax(age)] += 1000
    assert abs(linear(y, {"age": age}, "huber")[1].estimate - 0.5) < 0.1
    assert abs(linear(y, {"age": age}, "ols")[1].estimate - 0.5) > 0.3


def test_trend_names_the_partial_correlation():
    """It is the correlation of what sex does not explain in either."""
    age, sex, y = people()
    r = [v - np.where(sex == "m", v[sex == "m"].mean(), v[sex == "f"].mean()) for v in (age, y)]
    found = trend(y, {"age": age, "sex": sex})
    assert f"partial correlation {np.corrcoef(*r)[0, 1]:.3f}" in found.notes
    assert found.ci[0] < 0.5 < found.ci[1]
    with pytest.raises(ValueError, match="that is a number"):
        trend(y, {"sex": sex})


def test_mixed_model_finds_both_variances():
    """20 subjects, 8 rows each; a covariate within subjects is found as least squares by subject finds it."""
    rng = np.random.default_rng(5)
    who = np.repeat(np.arange(20), 8)
    x = rng.normal(size=160)
    y = 2 * rng.normal(size=20)[who] + 0.7 * x + rng.normal(size=160)
    found = mixed(y, {"x": x}, who)
    within = [v - (np.bincount(who, v) / 8)[who] for v in (x, y)]
    assert found[1].estimate == pytest.approx(within[0] @ within[1] / (within[0] @ within[0]), abs=0.02)
    assert found[0].estimate == pytest.approx(y.mean() - found[1].estimate * x.mean(), abs=0.01)
    # the interval of the mean is that of 20 subjects, five times wider than that of 160 rows
    wide = np.diff(found[0].ci) / np.diff(linear(y, {"x": x})[0].ci)
    assert wide > 2
    assert "20 subjects" in found[0].notes[0]
    scaled = mixed(1e-4 * y, {"x": x}, who)
    assert np.array([r.ci for r in scaled]) == pytest.approx(1e-4 * np.array([r.ci for r in found]), rel=1e-3)


def test_model_intervals_cover():
    """HC3 with noise that grows with age, where least squares' own interval is too narrow; 500 draws."""
    rng, hits = np.random.default_rng(6), np.zeros(2)
    x = rng.uniform(0, 1, 40) ** 3
    for _ in range(500):
        y = 2 * x + (0.1 + 3 * x) * rng.normal(size=40)
        for k, kind in enumerate(("ols", "hc3")):
            low, high = linear(y, {"x": x}, kind)[1].ci
            hits[k] += low <= 2 <= high
    assert hits[0] / 500 < 0.9
    assert 0.91 <= hits[1] / 500 <= 0.98


def test_covariates_that_say_nothing_new_are_refused():
    age, _, y = people()
    with pytest.raises(ValueError, match="covariate years does not vary, or follows from"):
        linear(y, {"age": age, "years": 2 * age + 1})
    with pytest.raises(ValueError, match="covariate one"):
        linear(y, {"one": np.ones(60)})
    with pytest.raises(ValueError, match="is it a number"):
        design(y, {"id": np.array([f"sub-{k}" for k in range(60)])})


def test_rows_with_gaps_are_left_out_of_models():
    age, sex, y = people()
    holes, words = age.copy(), sex.astype(object)
    holes[3], words[7] = np.nan, "n/a"
    keep = np.delete(np.arange(60), [3, 7])
    found = linear(y, {"age": holes, "sex": words})
    clean = linear(y[keep], {"age": age[keep], "sex": sex[keep]})
    assert found[1].estimate == pytest.approx(clean[1].estimate)
    assert "2 incomplete rows left out (3, 7)" in found[1].notes


# ---- many tests


def test_adjusted_p_as_statsmodels():
    p = np.random.default_rng(7).uniform(size=15) ** 2
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    with pytest.raises(ValueError, match="0 to 1"):
        holm([0.5, np.nan])


def test_results_without_p_do_not_count():
    rows = [Result(str(k), 0.0, 9, "", p=p) for k, p in enumerate((0.01, None, 0.04))]
    a, b, c = adjust(rows)
    assert (a.p_adjusted, b.p_adjusted, c.p_adjusted) == (0.02, None, 0.04)
    assert "p = 0.02 after Holm over 2 tests" in a.sentence()
    assert a.p == 0.01


# ---- what cannot be estimated


@pytest.mark.parametrize("method", [paired_t, wilcoxon, sign_test, pearson, spearman])
@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("flat", [True, False])
def test_few_or_constant_values_never_give_nan(method, n, flat):
    a = np.full(n, 3.0) if flat else np.arange(n) ** 2.0
    found = method(a, np.full(n, 3.0) if flat else 2.0 * np.arange(n) + 1)
    assert found.estimate is not None or "not estimable" in found.notes[0]
    assert found.sentence()


@pytest.mark.parametrize("kind", ["ols", "hc3", "huber"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_models_of_few_rows_never_give_nan(kind, n):
    x = np.arange(float(n))
    for y in (2 * x + 1, 0 * x, x**2):
        assert all(r.sentence() for r in linear(y, {"x": x}, kind))
        assert all(r.sentence() for r in mixed(y, {"x": x}, np.arange(n) // 2))


def test_missing_pairs_are_left_out():
    gaps = np.insert(DRUG1, 2, np.nan), np.insert(DRUG2, 2, 1.0)
    for method in (paired_t, wilcoxon, sign_test, pearson, spearman):
        found = method(*gaps)
        assert found.estimate == pytest.approx(method(DRUG1, DRUG2).estimate)
        assert "1 incomplete rows left out (2)" in found.notes

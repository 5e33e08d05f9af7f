"""Agreement against published worked examples, other libraries, and laws."""

import dataclasses

import numpy as np
import pytest
import statsmodels.stats.inter_rater as rater
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_oracle
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from k2chi.measure.agreement import (
    ac1,
    accuracy,
    agreement,
    concordance,
    deming,
    equivalence,
    fleiss,
    icc,
    kappa,
    krippendorff,
    limits,
    mcnemar,
    passing_bablok,
    proportion,
    repeated_limits,
)
from k2chi.measure.result import Result, complete

# Peak expiratory flow [l/min], first readings by Wright's and the mini meter: Bland & Altman 1986, table 1.
WRIGHT = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427])
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451])

# Cardiac output of 12 subjects by two methods: subject, RV, IC; Bland & Altman 2007, table 1.
CARDIAC = """
1,7.83,6.57 1,7.42,5.62 1,7.89,6.9 1,7.12,6.57 1,7.88,6.35 2,6.16,4.06 2,7.26,4.29 2,6.71,4.26 2,6.54,4.09
3,4.75,4.71 3,5.24,5.5 3,4.86,5.08 3,4.78,5.02 3,6.05,6.01 3,5.42,5.67 4,4.21,4.14 4,3.61,4.2 4,3.72,4.61
4,3.87,4.68 4,3.92,5.04 5,3.13,3.03 5,2.98,2.86 5,2.85,2.77 5,3.17,2.46 5,3.09,2.32 5,3.12,2.43 6,5.92,5.9
6,6.42,5.81 6,5.92,5.7 6,6.27,5.76 7,7.13,5.09 7,6.62,4.63 7,6.58,4.61 7,6.93,5.09 8,4.54,4.72 8,4.81,4.61
8,5.11,4.36 8,5.29,4.2 8,5.39,4.36 8,5.57,4.2 9,4.48,3.17 9,4.92,3.12 9,3.97,2.96 10,4.22,4.35 10,4.65,4.62
10,4.74,3.16 10,4.44,3.53 10,4.5,3.53 11,6.78,7.2 11,6.07,6.09 11,6.52,7.0 11,6.42,7.1 11,6.41,7.4
11,5.76,6.8 12,5.06,4.5 12,4.72,4.2 12,4.9,3.8 12,4.8,3.8 12,4.9,4.2 12,5.1,4.5"""

# Serum and plasma creatinine [mg/dl], the pairs without a gap of R's mcr::creatinine.
CREATININE = """
.82 .79 1.83 1.62 1.39 1.36 .81 1.3 1.72 1.88 3.23 3.35 1.23 1.06 1.37 1.34 1.72 1.56 .96 .94 .76 .69
1.15 1.16 .95 .71 1 .83 1.52 1.44 1.56 1.26 2.45 2.36 1.85 1.9 .89 .95 .82 .77 1.01 .82 .96 .88 3.38 3.42
1.31 1.15 1.1 .96 1.26 1.12 1.15 1.02 1.2 1.29 1.01 .87 1.33 1.13 .87 .82 1.66 1.33 1.41 1.14 1.08 .93
1.17 1.09 1.77 1.89 1.33 1.57 1.23 1.29 1.21 1.13 1.2 1.11 1.49 1.61 .89 .79 1.09 1.19 1.03 .96 1.07 1.25
.89 .87 1.39 1.36 .96 .86 1.06 1.03 1.17 .86 .9 .8 1.39 1.22 .91 .86 2.28 2.25 .9 .87 1.34 1.3 1.32 1.04
1.02 .92 1.04 1.01 1.27 1.21 1.08 1.11 1.1 1.21 1.39 1.54 1.07 .99 .79 .79 1.02 1.06 .94 1.02 1.99 2.15
.7 .56 .84 1.01 .66 .59 1.1 1.17 .9 .82 2.06 2.09 1.31 1.44 1.03 1.22 1.61 1.77 1.52 1.6 1.11 1.13 .85 1.06
1.2 1.38 1.09 1.24 1.27 1.29 2.06 2.08 1.21 1.31 .77 .82 1.06 1.28 1.02 1.15 1 1.04 1.47 1.51 .97 1.13
1.7 1.84 1.78 1.94 .93 1.32 .92 1.36 1.59 1.88 .68 .73 .7 .78 1.08 1.01 .83 .9 1.17 1.3 .98 .96 .77 .61
.91 1.27 1.1 1.05 .8 1.12 .85 .72 .82 .87"""

# Six subjects, four judges: Shrout & Fleiss 1979, table 2.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)

# Thirty patients, six psychiatrists, five diagnoses: Fleiss 1971, table 1.
CODES = """
444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"""
DIAGNOSES = np.array([list(row) for row in CODES.split()]).astype(int)

# Four observers, twelve units, gaps: Krippendorff 2011, "Computing Krippendorff's alpha-reliability".
OBSERVERS = np.array(
    [list(row) for row in ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")], dtype=object
).T
OBSERVERS[OBSERVERS == "."] = None


def cardiac():
    rows = np.array([[float(v) for v in w.split(",")] for w in CARDIAC.split()])
    return rows[:, 0].astype(int), rows[:, 1], rows[:, 2]


def spread(table):
    """Two raters' answers from a table of counts."""
    i, j = np.indices(np.shape(table))
    times = np.ravel(table).astype(int)
    return np.repeat(np.ravel(i), times), np.repeat(np.ravel(j), times)


# ---- Bland–Altman


def test_limits_as_published():
    """Bland & Altman 1986 [l/min]: bias −2.1 (−22.0 to 17.8); limits of 2 SD −79.7 and 75.5."""
    two_sd = 2 * stats.norm.cdf(2) - 1
    found = limits(WRIGHT, MINI, agreement=two_sd)
    assert found.bias.estimate == pytest.approx(-2.1, abs=0.05)
    assert found.bias.ci == pytest.approx((-22.05, 17.81), abs=0.05)
    assert found.lower.estimate == pytest.approx(-79.7, abs=0.1)
    assert found.upper.estimate == pytest.approx(75.5, abs=0.1)
    # their large-sample intervals are −114.3 to −45.1 and 40.9 to 110.1; exact ones reach further out
    assert -135 < found.lower.ci[0] < -114.3
    assert -60 < found.lower.ci[1] < -45.1


def test_repeated_limits_as_published():
    """Bland & Altman 2007 over pairs: bias 0.60, SD 0.99; over subjects as in Zou 2013, written out here."""
    who, a, b = cardiac()
    found = repeated_limits(a, b, who)
    d = a - b
    means = np.array([d[who == k].mean() for k in range(1, 13)])
    assert found.bias.estimate == pytest.approx(means.mean())
    within = sum(((d[who == k] - d[who == k].mean()) ** 2).sum() for k in range(1, 13)) / 48
    half = 1.96 * np.sqrt(means.var(ddof=1) + (1 - (1 / np.bincount(who)[1:]).mean()) * within)
    assert found.upper.estimate - found.bias.estimate == pytest.approx(half, rel=1e-4)
    assert "over pairs: bias 0.6022, limits −1.339 to 2.544" in found.bias.notes
    assert found.lower.ci[0] < found.lower.estimate < found.lower.ci[1]


def test_limits_turn_round_with_the_methods_and_scale_with_the_unit():
    a, b = limits(WRIGHT, MINI), limits(MINI, WRIGHT)
    assert a.bias.estimate == pytest.approx(-b.bias.estimate)
    assert a.lower.ci == pytest.approx((-b.upper.ci[1], -b.upper.ci[0]))
    ppb = limits(1000.0 * WRIGHT, 1000.0 * MINI)
    assert ppb.upper.ci == pytest.approx(tuple(1000 * e for e in a.upper.ci))
    assert ppb.trend.estimate == pytest.approx(a.trend.estimate)


def test_proportional_bias_is_seen():
    rng = np.random.default_rng(1)
    true = rng.uniform(10, 100, 40)
    found = limits(1.2 * true + rng.normal(size=40), true + rng.normal(size=40)).trend
    assert found.estimate == pytest.approx(0.2 / 1.1, abs=0.03)
    assert found.p < 1e-6
    assert "grows" in found.reading


def test_intervals_of_the_limits_cover():
    """Nominal 95 %: bias and limits, 12 pairs, 1,000 draws (standard error 0.7 %)."""
    rng, hits = np.random.default_rng(2), np.zeros(2)
    for _ in range(1000):
        d = rng.normal(size=12)
        found = limits(d, np.zeros(12))
        for k, (r, true) in enumerate(((found.bias, 0), (found.upper, 1.959964))):
            hits[k] += r.ci[0] <= true <= r.ci[1]
    assert (np.abs(hits / 1000 - 0.95) < 0.018).all(), hits / 1000


def test_intervals_of_repeated_limits_cover():
    """15 subjects with 2 to 5 pairs: within 93 to 98 % (Zou's intervals are a little wide)."""
    rng, hits, m = np.random.default_rng(3), np.zeros(3), 300
    who = np.repeat(np.arange(15), rng.integers(2, 6, 15))
    for _ in range(m):
        d = rng.normal(size=15)[who] + 0.7 * rng.normal(size=len(who))
        found = repeated_limits(d, 0 * d, who)
        true = 1.959964 * np.sqrt(1.49)
        for k, (r, t) in enumerate(((found.bias, 0), (found.lower, -true), (found.upper, true))):
            hits[k] += r.ci[0] <= t <= r.ci[1]
    assert ((hits / m > 0.93) & (hits / m < 0.985)).all(), hits / m


# ---- ICC, concordance


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("1,1", 0.166, -0.133, 0.723),  # values: Shrout & Fleiss 1979, table 4; intervals: R psych::ICC
        ("2,1", 0.290, 0.019, 0.761),
        ("3,1", 0.715, 0.342, 0.946),
        ("1,k", 0.443, -0.884, 0.912),
        ("2,k", 0.620, 0.071, 0.927),
        ("3,k", 0.909, 0.676, 0.986),
    ],
)
def test_icc_as_published(form, value, low, high):
    found = icc(JUDGES, form)
    assert (found.estimate, *found.ci) == pytest.approx((value, low, high), abs=6e-4)
    assert f"ICC({form})" in found.sentence()


def test_icc_knows_which_shifts_count():
    """A rater who adds a constant: consistency is blind to it, absolute agreement is not."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(30, 1)) + 0.2 * rng.normal(size=(30, 2))
    shifted = x + np.array([0.0, 3.0])
    assert icc(shifted, "3,1").estimate == pytest.approx(icc(x, "3,1").estimate)
    assert icc(shifted, "2,1").estimate < 0.4 < 0.9 < icc(x, "2,1").estimate
    assert icc(x[:, ::-1], "2,1").ci == pytest.approx(icc(x, "2,1").ci)
    assert icc(1000 * x, "1,1").ci == pytest.approx(icc(x, "1,1").ci)


def test_icc_interval_covers():
    """ICC(3,1) of 0.8 with three raters and 15 subjects, 1,000 draws."""
    rng, hits = np.random.default_rng(5), 0
    for _ in range(1000):
        x = 2 * rng.normal(size=(15, 1)) + rng.normal(size=(15, 3))
        low, high = icc(x, "3,1").ci
        hits += low <= 0.8 <= high
    assert abs(hits / 1000 - 0.95) < 0.02


def test_icc_of_perfect_raters_is_one():
    found = icc(np.repeat(np.arange(5.0)[:, None], 3, 1))
    assert found.estimate == pytest.approx(1)
    assert found.ci == pytest.approx((1, 1))


def test_concordance_is_correlation_times_bias():
    """Lin: ρc = ρ · 2 / (v + 1/v + u²), and it drops with a shift where Pearson's r does not."""
    x, y = WRIGHT.astype(float), MINI.astype(float)
    v, u2 = x.std() / y.std(), (x.mean() - y.mean()) ** 2 / (x.std() * y.std())
    r = np.corrcoef(x, y)[0, 1]
    assert concordance(x, y).estimate == pytest.approx(r * 2 / (v + 1 / v + u2))
    assert concordance(x, y + 100).estimate < 0.75
    assert concordance(x, y).ci == pytest.approx(concordance(1000 * y, 1000 * x).ci)
    assert concordance(x, x).estimate == pytest.approx(1)
    assert concordance(x, x).ci is None


def test_concordance_interval_covers():
    rng, hits = np.random.default_rng(6), 0
    truth = 2 * 0.8 / (1 + 1 + 0.5**2)
    for _ in range(1000):
        x = rng.normal(size=40)
        y = 0.8 * x + 0.6 * rng.normal(size=40) + 0.5
        low, high = concordance(x, y).ci
        hits += low <= truth <= high
    assert 0.93 <= hits / 1000 <= 0.97


# ---- lines


def test_passing_bablok_as_in_mcr():
    """R's mcr, mcreg(method.reg="PaBa", method.ci="analytical"), on its creatinine data.

    Its upper end lies half-way between two neighbouring slopes, 7e-5 below ours.
    """
    v = np.array(CREATININE.split(), float)
    slope, offset = passing_bablok(v[::2], v[1::2])
    assert (slope.estimate, *slope.ci) == pytest.approx((1.0880089, 1.0, 1.173005), abs=1e-4)
    assert slope.estimate == pytest.approx(1.0880089, abs=1e-7)
    assert (offset.estimate, *offset.ci) == pytest.approx((-0.1171729, -0.2001149, -0.02), abs=2e-4)


@pytest.mark.parametrize("method", [deming, passing_bablok])
def test_a_line_does_not_care_which_method_comes_first(method):
    """Swapped, the slope is the inverse; scaled, it is scaled; the order of the rows does nothing."""
    x, y = WRIGHT.astype(float), MINI.astype(float)
    slope, offset = method(x, y)
    back, there = method(y, x)
    assert back.estimate == pytest.approx(1 / slope.estimate)
    assert there.estimate == pytest.approx(-offset.estimate / slope.estimate, rel=1e-6)
    unit, _ = method(1000 * x, 1000 * y)
    assert unit.ci == pytest.approx(slope.ci)
    mixed = np.random.default_rng(0).permutation(len(x))
    assert method(x[mixed], y[mixed])[0].ci == pytest.approx(slope.ci)


def test_vertical_pairs_do_not_depend_on_the_order_of_rows():
    x, y = np.array([1.0, 1, 2, 3, 3, 4]), np.array([1.0, 2, 2, 3, 4, 4])
    a, b = passing_bablok(x, y), passing_bablok(x[::-1].copy(), y[::-1].copy())
    assert a.slope.estimate == b.slope.estimate


@pytest.mark.parametrize("method", [deming, passing_bablok])
def test_a_line_without_error_is_found(method):
    x = np.arange(10.0)
    slope, offset = method(x, 1.5 * x + 2)
    assert slope.estimate == pytest.approx(1.5)
    assert offset.estimate == pytest.approx(2)
    assert slope.ci == pytest.approx((1.5, 1.5))


def test_deming_is_the_principal_axis_and_regression_its_limit():
    x, y = WRIGHT.astype(float), MINI.astype(float)
    axis = np.linalg.eigh(np.cov(x, y))[1][:, 1]
    assert deming(x, y).slope.estimate == pytest.approx(axis[1] / axis[0])
    assert deming(x, y, ratio=1e9).slope.estimate == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-4)


def test_intervals_of_the_slopes_cover():
    """True slope 1.1, errors in both, 30 pairs; the jackknife's is a little wide."""
    rng, hits = np.random.default_rng(7), np.zeros(2)
    for _ in range(150):
        true = rng.uniform(0, 10, 30)
        x, y = true + 0.5 * rng.normal(size=30), 1.1 * true + 0.5 * rng.normal(size=30)
        for k, method in enumerate((deming, passing_bablok)):
            low, high = method(x, y).slope.ci
            hits[k] += low <= 1.1 <= high
    assert ((hits / 150 > 0.91) & (hits / 150 < 0.995)).all(), hits / 150


def test_passing_and_bablok_leave_out_the_intercepts_own_noise():
    """Far from zero the slope's error is all that counts; about zero it is none, and a note says so."""
    rng, hits = np.random.default_rng(8), np.zeros(2)
    for _ in range(100):
        for k, low in enumerate((-4, 4)):
            x, y = rng.uniform(low, low + 8, 30) + 0.3 * rng.normal(size=(2, 30))
            intercept = passing_bablok(x, y).intercept
            hits[k] += intercept.ci[0] <= 0 <= intercept.ci[1]
            assert any("too narrow" in n for n in intercept.notes) == (low < 0)
    assert hits[0] < 50
    assert hits[1] > 88


def test_a_bend_is_seen():
    x = np.linspace(0, 3, 60) + 0.01 * np.random.default_rng(0).normal(size=60)
    assert "does not fit" in " ".join(passing_bablok(x, x**2).slope.notes)
    assert "no sign" in " ".join(
        passing_bablok(*np.random.default_rng(1).normal(size=(2, 60)) * 0.1 + x).slope.notes
    )


# ---- equivalence


@pytest.mark.parametrize("margin", [10.0, 25.0, 60.0])
def test_equivalence_as_statsmodels(margin):
    found = equivalence(WRIGHT, MINI, margin)
    assert found.p == pytest.approx(
        ttost_paired(WRIGHT.astype(float), MINI.astype(float), -margin, margin)[0]
    )
    inside = -margin < found.ci[0] and found.ci[1] < margin
    assert (found.p < 0.05) == inside == ("not shown" not in found.reading)
    assert found.level == pytest.approx(0.9)


# ---- classes


def test_kappa_by_hand():
    """Fleiss, Levin & Paik 2003, table 18.1: κ 0.68; and the textbook's 20, 5, 10, 15: 0.4."""
    a, b = spread([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    assert kappa(a, b, range(3)).estimate == pytest.approx(0.676, abs=5e-4)
    assert kappa(*spread([[20, 5], [10, 15]]), range(2)).estimate == pytest.approx(0.4)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_as_statsmodels_over_the_whole_scale(weights):
    """Also with a class that nobody used in the middle, and one at the end."""
    table = np.array([[11, 3, 0, 1, 0], [2, 9, 0, 4, 0], [0, 0, 0, 0, 0], [1, 2, 0, 8, 0], [0, 0, 0, 0, 0]])
    oracle = rater.cohens_kappa(table, wt=None if weights == "none" else weights)
    found = kappa(*spread(table), range(5), weights)
    assert found.estimate == pytest.approx(oracle.kappa)
    assert found.ci == pytest.approx((oracle.kappa_low, oracle.kappa_upp))
    assert found.statistic[1] == pytest.approx(oracle.z_value)
    assert "classes nobody used: 2, 4" in found.notes


def test_an_unused_class_changes_weighted_kappa_only():
    """The trap: dropping classes 2 and 4 would bring 1 and 3 next to each other."""
    a, b = spread([[11, 3, 0, 1], [2, 9, 0, 4], [0, 0, 0, 0], [1, 2, 0, 8]])
    whole, used = range(4), (0, 1, 3)
    assert kappa(a, b, whole).estimate == pytest.approx(kappa(a, b, used).estimate)
    full, short = (kappa(a, b, c, "quadratic").estimate for c in (whole, used))
    assert abs(full - short) > 0.02


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_does_not_care_who_reads_first_or_what_classes_are_called(weights):
    rng = np.random.default_rng(8)
    a = rng.integers(0, 4, 80)
    b = np.clip(a + rng.integers(-1, 2, 80), 0, 3)
    base = kappa(a, b, range(4), weights)
    assert kappa(b, a, range(4), weights).ci == pytest.approx(base.ci)
    words = np.array(["none", "mild", "moderate", "severe"])
    assert kappa(words[a], words[b], list(words), weights).ci == pytest.approx(base.ci)
    assert kappa(words[a], words[b], list(words[::-1]), weights).ci == pytest.approx(base.ci)
    assert kappa(a.astype(float), b.astype(str), range(4), weights).ci == pytest.approx(base.ci)


def test_kappa_interval_covers():
    """κ = 0.6 from 120 cases: two readers who each keep the truth or guess."""
    rng, hits = np.random.default_rng(9), 0
    cells = np.array([0.5 - 0.1, 0.1, 0.1, 0.5 - 0.1])
    for _ in range(400):
        table = rng.multinomial(120, cells).reshape(2, 2)
        low, high = kappa(*spread(table), range(2)).ci
        hits += low <= 0.6 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_constant_raters_have_no_kappa_but_agree():
    """Never nan: κ is not estimable, raw agreement and AC1 are beside it."""
    same = np.zeros(20, dtype=int)
    both = agreement(same, same, range(2))
    assert both.kappa.estimate is None
    assert "one class only" in both.kappa.notes[0]
    assert both.raw.estimate == 1
    assert both.raw.ci[0] == pytest.approx(0.839, abs=1e-3)
    assert both.ac1.estimate == pytest.approx(1)
    assert both.specific[1].estimate is None
    one = kappa(same, np.arange(20) % 2, range(2))
    assert one.estimate is None
    assert "the first reader" in one.notes[0]
    assert fleiss(np.stack([same, same], 1), range(2)).estimate is None
    assert krippendorff(np.stack([same, same], 1), range(2)).estimate is None


def test_rare_class():
    """421 lesions, 9 % with a rim: κ looks modest while readers agree on 96 %; AC1 and PABAK say so."""
    found = agreement(*spread([[374, 9], [9, 29]]), range(2))
    assert found.kappa.estimate < 0.75 < 0.9 < found.pabak.estimate < found.ac1.estimate
    assert found.specific[0].estimate > 0.97
    assert found.specific[1].estimate == pytest.approx(58 / 76)
    assert found.specific[1].ci[0] < 58 / 76 < found.specific[1].ci[1]
    assert "prevalence index 0.82" in " ".join(found.kappa.notes)
    assert found.pabak.estimate == pytest.approx(2 * found.raw.estimate - 1)


def test_many_raters_as_published():
    """Fleiss 1971: 0.430. Four raters with gaps, R's irrCAC: κ 0.76117 (0.15302), AC1 0.77544 (0.14295)."""
    assert fleiss(DIAGNOSES, range(1, 6)).estimate == pytest.approx(0.4302, abs=1e-4)
    t = stats.t.ppf(0.975, 11)
    k, g = (f(OBSERVERS, "12345") for f in (fleiss, ac1))
    assert k.estimate == pytest.approx(0.76117, abs=1e-5)
    assert (k.estimate - k.ci[0]) / t == pytest.approx(0.15302, abs=1e-5)
    assert g.estimate == pytest.approx(0.77544, abs=1e-5)
    assert (g.estimate - g.ci[0]) / t == pytest.approx(0.14295, abs=1e-5)


@pytest.mark.parametrize(
    ("scale", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorff_as_published(scale, value):
    found = krippendorff(OBSERVERS, range(1, 6), scale)
    assert found.estimate == pytest.approx(value, abs=6e-4)
    assert found.n == 11  # one unit has one value
    assert found.ci[0] < value < found.ci[1]
    assert found.ci == krippendorff(OBSERVERS, range(1, 6), scale).ci  # the seed is kept


def test_raters_can_be_swapped():
    for f in (fleiss, ac1, krippendorff):
        assert f(DIAGNOSES[:, ::-1], range(1, 6)).estimate == pytest.approx(
            f(DIAGNOSES, range(1, 6)).estimate
        )


# ---- accuracy


def test_wilson():
    """36 of 38: 0.827 to 0.985; the ends 0 and n have a width too."""
    found = proportion("", 36, 38)
    assert found.ci == pytest.approx((0.827, 0.985), abs=5e-4)
    for hits in (0, 3, 20):
        assert proportion("", hits, 20).ci == pytest.approx(proportion_confint(hits, 20, method="wilson"))


def test_accuracy_by_hand():
    truth, found = (v.astype(bool) for v in spread([[50, 10], [5, 35]]))
    r = accuracy(found, truth)
    assert [x.estimate for x in r] == pytest.approx([35 / 40, 50 / 60, 35 / 45, 50 / 55, 85 / 100])
    assert [x.n for x in r] == [40, 60, 45, 55, 100]
    healthy = accuracy(found, np.zeros(100, dtype=bool))
    assert healthy.sensitivity.estimate is None
    assert "no such positive cases" in healthy.sensitivity.notes[0]


def test_mcnemar_is_exact():
    a, b = (v.astype(bool) for v in spread([[30, 2], [9, 20]]))
    assert mcnemar(a, b).p == pytest.approx(mcnemar_oracle([[30, 2], [9, 20]], exact=True).pvalue)
    assert mcnemar(a, b).estimate == pytest.approx(7 / 61)
    assert mcnemar(b, a).ci == pytest.approx(tuple(-e for e in mcnemar(a, b).ci[::-1]))
    few = mcnemar(np.array([True] * 3 + [False] * 5), np.zeros(8, dtype=bool))
    assert few.p == 0.25
    assert "cannot reach p < 0.25" in few.notes[0]
    assert mcnemar(a, a).p == 1


# ---- what cannot be estimated, and what is refused


NUMERIC = [
    lambda a, b: list(limits(a, b)),
    lambda a, b: list(deming(a, b)),
    lambda a, b: list(passing_bablok(a, b)),
    lambda a, b: [concordance(a, b), equivalence(a, b, 1.0), icc(np.stack([a, b], 1))],
]


@pytest.mark.parametrize("run", NUMERIC)
@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("flat", [True, False])
def test_few_or_constant_values_never_give_nan(run, n, flat):
    """Results refuse nan when made; here that each method also never raises."""
    a = np.full(n, 3.0) if flat else np.arange(n) ** 2.0
    for r in run(a, np.full(n, 3.0) if flat else 2.0 * np.arange(n)):
        assert isinstance(r, Result)
        assert r.estimate is not None or any("not estimable" in note for note in r.notes)
        assert r.sentence()


@pytest.mark.parametrize("run", NUMERIC)
def test_missing_pairs_are_left_out_and_listed(run):
    a, b = WRIGHT.astype(float), MINI.astype(float)
    gaps = np.insert(a, [3, 9], np.nan), np.insert(b, [3, 9], [400.0, np.nan])
    for r, clean in zip(run(*gaps), run(a, b), strict=True):
        assert r.estimate == clean.estimate
        assert r.n == 17
    assert "2 incomplete rows left out (3, 10)" in " ".join(n for r in run(*gaps) for n in r.notes)


def test_what_is_refused():
    x = np.arange(5.0)
    with pytest.raises(ValueError, match="infinite"):
        limits(np.array([1.0, np.inf]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="5, 4 rows"):
        complete(x, x[:4])
    with pytest.raises(ValueError, match=r"choose 0\.5"):
        limits(x, x, level=95)
    with pytest.raises(ValueError, match="margin"):
        equivalence(x, x, -1.0)
    with pytest.raises(ValueError, match="3 are not among the classes"):
        kappa(np.array([1, 3]), np.array([1, 2]), [1, 2])
    with pytest.raises(ValueError, match="each once"):
        kappa(np.array([1]), np.array([1]), [1, 1])
    with pytest.raises(ValueError, match="must be numbers"):
        krippendorff(np.array([["a", "b"]]), ["a", "b"], "interval")
    with pytest.raises(ValueError, match="positive number"):
        deming(x, x, ratio=0)
    with pytest.raises(ValueError, match="nan in a result"):
        Result("x", float("nan"), 1, "")


def test_every_result_cites_and_speaks():
    found = [
        *limits(WRIGHT, MINI),
        *passing_bablok(WRIGHT, MINI),
        icc(JUDGES),
        *accuracy(WRIGHT > 400, MINI > 400),
    ]
    for r in found:
        assert "doi:" in r.citation
        assert "95 % CI" in r.sentence("l/min")
    assert "−2.118 l/min" in found[0].sentence("l/min")
    assert "p = 0.82" in found[0].sentence()
    assert dataclasses.replace(found[0], p=1e-9).sentence().count("p < 0.001") == 1

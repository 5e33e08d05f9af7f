"""Lesions within patients: who keeps the level when lesions of a patient resemble each other."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from k2chi.measure.clustered import bootstrap, clustered_difference, gee, likeness, sign_flip
from k2chi.measure.clustered_agreement import clustered_accuracy, clustered_kappa, clustered_mcnemar


def lesions(rng, patients=7, each=30, alike=0.15, effect=0.0):
    """Differences with total variance 1, of which `alike` lies between patients."""
    who = np.repeat(np.arange(patients), each)
    d = np.sqrt(alike) * rng.normal(size=patients)[who] + np.sqrt(1 - alike) * rng.normal(size=len(who))
    return d + effect, who


@pytest.mark.parametrize("patients", [7, 20])
def test_only_patient_methods_keep_their_level(patients):
    """No true effect: lesion-wise tests cry wolf in a third of studies or more, the others in 5 %."""
    rng, alarms, runs = np.random.default_rng(1), np.zeros(4), 250 if patients == 7 else 60
    for _ in range(runs):
        d, who = lesions(rng, patients)
        naive = stats.ttest_1samp(d, 0).pvalue
        ranks = stats.wilcoxon(d).pvalue
        flip = sign_flip(d, who, level=0.99).p  # 0.99 skips the interval, which is not needed here
        alarms += np.array([naive, ranks, flip, gee(d, {}, who)[0].p]) < 0.05
    assert (alarms[:2] / runs > 0.3).all(), alarms / runs
    assert (alarms[2:] / runs <= 0.1).all(), alarms / runs


def test_naive_is_right_when_lesions_are_independent():
    """The fault is the resemblance, not the number of lesions."""
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(300):
        d, _ = lesions(rng, alike=0.0)
        alarms += stats.ttest_1samp(d, 0).pvalue < 0.05
    assert alarms / 300 < 0.09


def test_sign_flip_is_exact():
    """Every pattern of patients' signs, by hand; and the p of 7 patients who all agree is 1/64."""
    d, who = lesions(np.random.default_rng(3), 6, 4, effect=0.4)
    sums = np.bincount(who, d)
    tried = [abs(np.dot(s, sums)) for s in product((-1, 1), repeat=6)]
    assert sign_flip(d, who).p == pytest.approx(np.mean(np.array(tried) >= abs(sums.sum()) - 1e-9))
    all_up = sign_flip(np.arange(1.0, 8), np.arange(7))
    assert all_up.p == pytest.approx(1 / 64)
    assert "7 patients cannot reach p < 0.0156 in an exact test" in all_up.notes
    assert sign_flip(np.arange(1.0, 6), np.arange(5)).ci is None


def test_sign_flip_interval_covers():
    """7 patients with 5 to 25 lesions each, mean 1; 300 draws. Exact, so at least 95 %."""
    rng, hits = np.random.default_rng(4), 0
    for _ in range(300):
        who = np.repeat(np.arange(7), rng.integers(5, 26, 7))
        d = 1 + 0.5 * rng.normal(size=7)[who] + rng.normal(size=len(who))
        found = sign_flip(d, who)
        hits += found.ci[0] <= 1 <= found.ci[1]
        assert (found.p <= 0.05) == (not found.ci[0] < 0 < found.ci[1])
    assert 0.93 <= hits / 300 <= 0.995


def test_sign_flip_of_many_patients_is_drawn_and_repeatable():
    d, who = lesions(np.random.default_rng(5), 30, 5, effect=0.3)
    a, b = sign_flip(d, who), sign_flip(d, who)
    assert a == b
    assert "9999 patterns of signs drawn" in " ".join(a.notes)
    means = np.bincount(who, d) / 5
    assert a.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue, abs=0.02)
    assert a.ci == pytest.approx(tuple(stats.ttest_1samp(means, 0).confidence_interval()), abs=0.05)


def test_one_lesion_a_patient_is_the_ordinary_case():
    """Then the cluster methods agree with t."""
    d = np.random.default_rng(6).normal(size=25) + 0.4
    t = stats.ttest_1samp(d, 0)
    assert gee(d, {}, np.arange(25))[0].p == pytest.approx(t.pvalue, rel=0.15)
    assert sign_flip(d, np.arange(25)).p == pytest.approx(t.pvalue, abs=0.02)
    assert likeness(d, np.arange(25)) == (None, 1.0)


def test_likeness_is_found():
    d, who = lesions(np.random.default_rng(7), 300, 20, alike=0.2)
    alike, effect = likeness(d, who)
    assert alike == pytest.approx(0.2, abs=0.04)
    assert effect == pytest.approx(1 + 19 * alike)


def test_bootstrap_draws_whole_patients():
    """Its standard error is that of the patients' means; with 60 patients it covers."""
    rng, hits = np.random.default_rng(8), 0
    for k in range(150):
        d, who = lesions(rng, 60, 5, alike=0.4)
        low, high = bootstrap("m", lambda r, d=d: float(d[r].mean()), who, draws=300, seed=k).ci
        hits += low <= 0 <= high
    assert 0.89 <= hits / 150 <= 0.99
    by_hand = np.bincount(who, d) / 5
    assert high - low == pytest.approx(2 * 1.96 * by_hand.std(ddof=1) / np.sqrt(60), rel=0.15)


def test_bootstrap_warns_of_few_patients_and_keeps_its_seed():
    d, who = lesions(np.random.default_rng(9))
    a, b, c = (bootstrap("m", lambda r: float(d[r].mean()), who, seed=s) for s in (1, 1, 2))
    assert a == b
    assert a.ci != c.ci
    assert "fewer than 20 patients: the interval is too narrow" in a.notes
    assert bootstrap("m", lambda r: float(d[r].mean()), np.zeros(210)).ci is None


def test_every_way_beside_each_other():
    """The order and names of patients do nothing; swapping turns the sign; units scale."""
    rng = np.random.default_rng(10)
    d, who = lesions(rng, 8, 10, effect=0.5)
    b = rng.normal(size=80)
    base = clustered_difference(d + b, b, who)
    assert [r.estimate for r in base if "Wilcoxon" not in r.name] == pytest.approx([d.mean()] * 4, rel=1e-4)
    turned = clustered_difference(1000 * b, 1000 * (d + b), who)
    assert turned.flip.ci == pytest.approx((-1000 * base.flip.ci[1], -1000 * base.flip.ci[0]), rel=1e-6)
    assert turned.gee.p == pytest.approx(base.gee.p, rel=1e-4)
    mixed = rng.permutation(80)
    names = np.array([f"sub-{9 - k}" for k in who])
    other = clustered_difference((d + b)[mixed], b[mixed], names[mixed])
    assert other.flip.p == base.flip.p
    assert other.gee.ci == pytest.approx(base.gee.ci)
    assert base.naive.notes[0].startswith("naive")
    assert base.naive.p < base.flip.p
    assert base.patients.n == 8


def test_gee_with_a_covariate():
    rng = np.random.default_rng(11)
    d, who = lesions(rng, 30, 6)
    x = rng.normal(size=180)
    found = gee(d + 0.5 * x, {"x": x}, who)
    assert found[1].ci[0] < 0.5 < found[1].ci[1]
    assert found[1].p < 1e-4


def readers(rng, patients=7, each=60):
    """Two readers; how common a rim is, and how sure they are, differs between patients."""
    who = np.repeat(np.arange(patients), each)
    common = rng.beta(2, 6, patients)[who]
    truth = rng.random(len(who)) < common
    wrong = rng.beta(2, 18, patients)[who]
    a, b = (truth ^ (rng.random(len(who)) < wrong) for _ in range(2))
    return a, b, truth, who


def test_clustered_kappa_is_the_same_kappa_with_a_wider_interval():
    rng, wider = np.random.default_rng(12), 0
    for _ in range(6):
        a, b, _, who = readers(rng, 12)
        both = clustered_kappa(a.astype(int), b.astype(int), [0, 1], who)
        assert both.clustered.estimate == pytest.approx(both.naive.estimate)
        wider += np.diff(both.clustered.ci)[0] > np.diff(both.naive.ci)[0]
    assert wider >= 5
    assert "naive" in both.naive.notes[-1]


def test_clustered_kappa_of_constant_readers():
    both = clustered_kappa(np.zeros(20, int), np.zeros(20, int), [0, 1], np.arange(20) // 4)
    assert both.naive.estimate is None
    assert both.clustered.estimate is None


def test_clustered_accuracy_and_mcnemar():
    a, b, truth, who = readers(np.random.default_rng(13))
    found = clustered_accuracy(a, truth, who)
    assert found[0].naive.estimate == pytest.approx(a[truth].mean())
    assert found[1].clustered.estimate == pytest.approx((~a)[~truth].mean())
    assert found[0].clustered.ci[0] < found[0].naive.estimate < found[0].clustered.ci[1]
    both = clustered_mcnemar(a, b, who)
    assert both.clustered.estimate == pytest.approx(both.naive.estimate)
    nobody = clustered_accuracy(a, np.zeros_like(truth), who)
    assert nobody[0].clustered.estimate is None


def test_a_lesion_without_a_patient_is_refused():
    with pytest.raises(ValueError, match="row 1 names no patient"):
        sign_flip(np.arange(3.0), np.array(["a", "n/a", "b"]))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("flat", [True, False])
def test_few_or_constant_values_never_give_nan(n, flat):
    a = np.full(n, 3.0) if flat else np.arange(n) ** 2.0
    for r in clustered_difference(a, np.full(n, 3.0), np.arange(n) // 2):
        assert r.sentence()

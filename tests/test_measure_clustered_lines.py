"""Deming and Passing–Bablok on lesions within patients: intervals that hold because they draw patients."""

import numpy as np
import pytest
from scipy import stats

from k2chi.measure.agreement import deming, passing_bablok
from k2chi.measure.agreement.lines import Slopes
from k2chi.measure.clustered_lines import clustered_deming, clustered_passing_bablok


def study(random, patients=25, each=6, shared=0.5, slope=1.1, low=0):
    """Two methods on lesions of patients; a patient's lesions share an error of each method."""
    who = np.repeat(np.arange(patients), each)
    true = random.uniform(low, low + 8, len(who))
    a, b = (
        truth + 0.3 * random.normal(size=len(who)) + shared * random.normal(size=patients)[who]
        for truth in (true, slope * true)
    )
    return a, b, who


@pytest.mark.parametrize(("method", "studies"), [(clustered_deming, 100), (clustered_passing_bablok, 40)])
def test_only_the_interval_by_patient_covers_a_shift_that_patients_share(method, studies):
    """True intercept 0, patients err as wholes: an interval for independent lesions is far too narrow."""
    random, hits = np.random.default_rng(1), np.zeros(2)
    for k in range(studies):
        found = {r.name: r.ci for r in method(*study(random, slope=1.0, low=-4), seed=k, draws=100)}
        name = next(n for n in found if n.endswith("intercept"))
        for j, (low, high) in enumerate((found[name], found[f"{name} (cluster bootstrap)"])):
            hits[j] += low <= 0 <= high
    naive, by_patient = hits / studies
    assert naive < 0.8, naive
    assert 0.87 < by_patient <= 1, by_patient


@pytest.mark.parametrize("method", [clustered_deming, clustered_passing_bablok])
def test_both_intervals_agree_where_lesions_are_independent(method):
    naive, by_patient, offset, offset_by_patient = method(*study(np.random.default_rng(2), 60, 3, shared=0))
    assert (by_patient.estimate, offset_by_patient.estimate) == (naive.estimate, offset.estimate)
    assert np.ptp(by_patient.ci) == pytest.approx(np.ptp(naive.ci), rel=0.25)
    if method is clustered_deming:  # Passing and Bablok's own interval of the intercept leaves out its noise
        assert np.ptp(offset_by_patient.ci) == pytest.approx(np.ptp(offset.ci), rel=0.25)
    assert offset_by_patient.in_unit
    assert not by_patient.in_unit
    assert naive.notes[-1] == "naive: takes lesions of a patient as independent"
    assert by_patient.reading == "the interval excludes 1: a difference of scale is shown"
    assert offset_by_patient.reading == "the interval includes 0: a constant shift is not shown"


def test_points_drawn_several_times_are_as_if_they_stood_there_several_times():
    """Counting copies is a shortcut: the whole method on the drawn points is the oracle; ties and all."""
    random = np.random.default_rng(3)
    x, y = random.integers(0, 8, (2, 14)).astype(float)
    y += x
    slopes = Slopes(x, y)
    for _ in range(30):
        rows = random.integers(0, 14, 14)
        whole = passing_bablok(x[rows], y[rows]).slope
        assert slopes.middle(np.bincount(rows, minlength=14))[0] == whole.estimate
    assert slopes.middle()[0] == slopes.middle(np.ones(14, int))[0]


@pytest.mark.parametrize("method", [clustered_deming, clustered_passing_bablok])
def test_whole_patients_are_drawn(method):
    """Lesions of a patient that are copies of one another add nothing: as with one lesion each."""
    a, b, who = study(np.random.default_rng(4), 25, 1)
    alone = method(a, b, who)
    copies = method(np.repeat(a, 4), np.repeat(b, 4), np.repeat(who, 4))
    assert copies[1].ci == pytest.approx(alone[1].ci, rel=0.1)
    assert np.ptp(copies[0].ci) < 0.6 * np.ptp(copies[1].ci)


def test_what_cannot_be_fitted_is_said_once():
    random = np.random.default_rng(5)
    falling = clustered_passing_bablok(np.arange(12.0), -5 * np.arange(12.0), np.arange(12) // 2)
    assert [r.estimate for r in falling] == [None, None]
    a, b, who = study(random, 12, 3)
    a[4] = np.nan
    for method, plain in ((clustered_deming, deming), (clustered_passing_bablok, passing_bablok)):
        found = method(a, b, who)
        assert {r.n for r in found} == {35}
        assert found[0].estimate == plain(a, b).slope.estimate
        assert found[1].notes[0] == "12 patients"


def test_deming_by_patient_is_the_delta_method_on_patients():
    """Large study: the bootstrap's spread of the slope is the one that patients' own influences give."""
    a, b, who = study(np.random.default_rng(6), 100, 4)
    slope, by_patient, *_ = clustered_deming(a, b, who)
    gone = np.array([deming(a[who != k], b[who != k]).slope.estimate for k in range(100)])
    error = np.sqrt(99 / 100 * ((gone - gone.mean()) ** 2).sum())
    assert np.ptp(by_patient.ci) == pytest.approx(2 * stats.norm.ppf(0.975) * error, rel=0.12)
    assert slope.estimate == pytest.approx(1.1, abs=0.04)

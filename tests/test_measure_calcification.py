"""A calcification with a moment and streaks that are known."""

from math import isnan

import pytest
import torch
from qsm_ci import qsm_eval

from k2chi.measure.calcification import calcification

SHAPE = (40, 36, 32)
HERE = torch.zeros(SHAPE, dtype=torch.bool)
HERE[18:22, 17:20, 15:18] = True
TRUTH = torch.where(HERE, -3.0, 0.02) + 0.05 * torch.randn(
    SHAPE, generator=torch.Generator().manual_seed(0)
).clamp(-1, 1)


def test_the_truth_itself_has_no_deviation_and_no_streak():
    got = calcification(TRUTH, TRUTH, HERE)
    assert got.moment_ppm_mm3 == pytest.approx(float(TRUTH[HERE].sum()), rel=1e-5)
    assert got.deviation_ppm_mm3 == 0
    assert got.streak == pytest.approx(0, abs=1e-6)
    assert -0.06 < got.threshold_ppm < -0.02


def test_a_weaker_calcification_lacks_as_much_moment():
    weak = torch.where(HERE, 0.5 * TRUTH, TRUTH)
    got = calcification(weak, TRUTH, HERE, (1.0, 2.0, 0.5))
    assert got.deviation_ppm_mm3 == pytest.approx(0.5 * abs(float(TRUTH[HERE].sum())), rel=1e-5)
    assert calcification(weak, TRUTH, HERE, (1.0, 2.0, 1.5)).deviation_ppm_mm3 == pytest.approx(
        3 * got.deviation_ppm_mm3
    )


def test_a_slope_is_no_streak_and_a_pattern_is():
    """Half the contrast around it is a matter of slope; waves of 0.1 ppm rms are streaks of 0.1 over 3."""
    assert calcification(torch.where(HERE, TRUTH, 0.5 * TRUTH), TRUTH, HERE).streak < 1e-6
    waves = 0.1 * 2**0.5 * torch.sin(1.7 * torch.arange(36.0))[None, :, None].expand(SHAPE)
    streaked = torch.where(HERE, TRUTH, TRUTH + waves)
    got = calcification(streaked, TRUTH, HERE)
    assert got.streak == pytest.approx(0.1 / 3.0, rel=0.15)
    assert got.threshold_ppm < -0.1  # the waves must not count as calcification


@pytest.mark.parametrize("seed", [1, 2])
def test_as_the_public_scorer(seed):
    """A weak, blurred and streaky copy, scored by the scorer of the public leaderboard."""
    make = torch.Generator().manual_seed(seed)
    labels = torch.where(HERE, 16, 0)
    copy = torch.where(HERE, 0.7 * TRUTH, TRUTH + 0.1 * torch.randn(SHAPE, generator=make))
    moment, streak = qsm_eval.calcification_metrics(
        copy.double().numpy(), TRUTH.double().numpy(), labels.numpy()
    )
    got = calcification(copy, TRUTH, HERE)
    assert (got.deviation_ppm_mm3, got.streak) == pytest.approx((moment, streak), rel=1e-4)


def test_the_true_moment_is_that_of_the_label():
    """Not of what a threshold finds: a voxel of the label above it counts too."""
    truth = TRUTH.clone()
    truth[18, 17, 15] = 0.5
    got = calcification(truth, truth, HERE)
    assert got.deviation_ppm_mm3 == pytest.approx(0.5, abs=1e-3)


def test_where_it_was_not_found_the_streak_is_nan_and_nothing_is_refused_silently():
    flat = torch.zeros(SHAPE)
    got = calcification(flat, TRUTH, HERE)
    assert got.moment_ppm_mm3 == 0
    assert isnan(got.streak)
    with pytest.raises(ValueError, match="nothing to score"):
        calcification(flat, TRUTH, torch.zeros_like(HERE))

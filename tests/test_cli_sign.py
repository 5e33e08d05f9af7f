"""The sign of the phase through a whole run: both vendors' files give the same map."""

import dataclasses

import pytest
import torch
from test_measure_sign import SCAN, ball

from k2chi import config
from k2chi.app.run import Order, compute
from k2chi.data import Echoes
from k2chi.io.echoes import conjugate
from k2chi.pipeline import Pipeline

PIPELINE = config.change(Pipeline(), ['invert.method = "TKD"', 'background.method = "LBV"'])


@pytest.fixture(scope="module")
def echoes():
    """A round brain with dark iron spheres and air nearby; phase grows with the field."""
    _, total, magnitude = ball()
    signal = torch.polar(magnitude * total.mask, total.ppm * SCAN.rad_per_ppm)
    return Echoes(signal[None], total.grid, SCAN, total.mask)


def test_both_signs_give_one_map(echoes):
    a, words, _ = compute(echoes, Order(PIPELINE))
    b, turned, _ = compute(conjugate(echoes), Order(PIPELINE))
    assert "as it should" in words
    assert "turned round" in turned
    torch.testing.assert_close(a.chi.ppm, b.chi.ppm, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(a.total.ppm, b.total.ppm, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(a.local.ppm, b.local.ppm, atol=1e-5, rtol=1e-4)


def test_what_is_made_from_the_phase_itself_is_turned_too(echoes):
    """TGV from wrapped phase and susceptibility weighting see the sign that was found."""
    lines = ['invert = {method = "TGV", iterations = 30}', 'swi.method = "SWI"']
    chain = config.change(PIPELINE, lines)
    a, b = (compute(e, Order(chain))[0] for e in (echoes, conjugate(echoes)))
    torch.testing.assert_close(a.chi.ppm, b.chi.ppm, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(a.swi, b.swi, atol=1e-5, rtol=1e-4)


def test_the_user_has_the_last_word(echoes):
    """+ leaves and − turns, whatever the data look like."""
    kept, words, _ = compute(conjugate(echoes), Order(PIPELINE, sign="+"))
    turned, other, _ = compute(echoes, Order(PIPELINE, sign="-"))
    assert "as you said" in words
    assert "as you said" in other
    torch.testing.assert_close(kept.chi.ppm, turned.chi.ppm, atol=1e-5, rtol=1e-4)


def test_a_field_map_is_taken_at_its_word(echoes):
    """It may look inverted: that is said, but its maker knew the sign."""
    total = compute(echoes, Order(PIPELINE))[0].total
    straight, _, _ = compute(total, Order(PIPELINE))
    inverted, words, sign = compute(dataclasses.replace(total, ppm=-total.ppm), Order(PIPELINE))
    assert sign.value == -1
    assert "looks inverted" in words
    torch.testing.assert_close(inverted.chi.ppm, -straight.chi.ppm, atol=1e-5, rtol=1e-4)

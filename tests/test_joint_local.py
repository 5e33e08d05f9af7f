"""The local field of a joint inversion: the whole mask, and the field of sources at its rim."""

from dataclasses import replace

import pytest
import torch
from test_joint import GRID, METHOD, scene

from k2chi.background import PDF
from k2chi.joint import JointLocal

LOCAL = JointLocal(METHOD)


def error(found, truth, mask):
    """Relative difference in the mask, means removed."""
    a, b = found[mask], truth[mask]
    return float(((a - a.mean()) - (b - b.mean())).norm() / (b - b.mean()).norm())


@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), (0.3, 0.2, 0.93)])
def test_a_source_at_the_rim_keeps_its_field(b0):
    """A sphere 2 mm below the rim, beside air. Projection onto dipoles, on which it rests, loses more."""
    grid = replace(GRID, b0_world=b0)
    field, _ = scene(grid)
    alone, _ = scene(grid, inside_ppm=1e-9)
    truth = field.ppm - alone.ppm
    local = LOCAL(field)
    assert torch.equal(local.mask, field.mask)
    assert torch.equal(local.support, field.mask)
    assert local.local
    assert not local.ppm[~field.mask].any()
    mine, projected = error(local.ppm, truth, field.mask), error(PDF()(field).ppm, truth, field.mask)
    assert mine < 0.35
    assert mine < projected


def test_it_is_the_field_less_what_lies_outside():
    """Local field of the map itself and the residual together: nothing of the measured field is invented."""
    field, _ = scene(GRID)
    found = METHOD.solve(field)
    within = found.box.take(field.mask)
    both = found.field(within) + found.field(~within)
    torch.testing.assert_close(both, found.field(torch.ones_like(within)), atol=1e-6, rtol=1e-4)
    local = LOCAL(field)
    rest = found.box.put(found.field(~within), GRID.shape)
    assert error(local.ppm + rest, field.ppm, field.mask) < 1e-5

"""Weights that doubt what fits badly."""

import torch

from k2chi.ops.robust import trust


def test_trust_falls_with_the_square_beyond_the_limit():
    """Of the robust standard deviation, which the wild voxel hardly moves; either sign."""
    draw = torch.randn(20, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.ones_like(draw) > 0
    draw[3, 4, 5] = -50.0
    got = trust(draw, mask, 5.0)
    assert abs(float(got[3, 4, 5]) - 0.01) < 0.001
    assert float(got[draw.abs() < 4].min()) == 1


def test_an_empty_mask_leaves_all_weights():
    nothing = torch.zeros(4, 4, 4)
    assert torch.equal(trust(nothing, nothing > 0, 5.0), torch.ones(4, 4, 4))

"""Weights that doubt what fits badly."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def trust(
    residual: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], limit: float
) -> Float[Tensor, "x y z"]:
    """Squared weight that falls with the square of residuals beyond `limit` robust standard deviations."""
    size = residual.abs()
    inside = size[mask]
    if not len(inside):
        return torch.ones_like(size)
    spread = 1.4826 * float(inside[:: max(len(inside) // 100_000, 1)].median())
    return (limit * spread / size.clamp_min(1e-30)).clamp_max(1).square()

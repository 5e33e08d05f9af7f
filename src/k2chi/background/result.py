"""What every background removal hands back."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Field
from k2chi.ops.box import Box


def masked(total: Field, box: Box) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The field in the box, zero outside the mask whatever stood there, and the mask."""
    return box.take(torch.where(total.mask, total.ppm, torch.zeros_like(total.ppm))), box.take(total.mask)


def local_field(
    total: Field, box: Box, ppm: Float[Tensor, "x y z"], kept: Bool[Tensor, "x y z"] | None = None
) -> Field:
    """`ppm` in the box as local field of the scan; `kept` is the eroded mask, None keeps it whole.

    The weight is zero where the mask went; the support stays the un-eroded mask.
    """
    mask = total.mask if kept is None else box.put(kept, total.grid.shape)
    full = box.put(ppm, total.grid.shape)
    zero = torch.zeros_like(full)
    return replace(
        total,
        ppm=torch.where(mask, full, zero),
        mask=mask,
        weight=total.weight if kept is None else torch.where(mask, total.weight, zero),
        support=total.mask if total.support is None else total.support,
        local=True,
    )

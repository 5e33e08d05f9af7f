"""What a decay rate says of the amount of susceptibility, whatever its sign."""

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Field

R2_POWER = 0.5
"""Power of B0 with which the nominal R2 grows: about 0.65 of the value at 7 T is left at 3 T."""


def amount(
    local: Field,
    r2star_per_s: Float[Tensor, "x y z"],
    r2_per_s: Float[Tensor, "x y z"] | float | None,
    decay_3t_per_s_ppm: float,
    r2_3t_per_s: float,
) -> Float[Tensor, "x y z"]:
    """|χ₊| + |χ₋| [ppm] = (R2* − R2)/D_r, not below zero; zero where the field or the rate is not known.

    Without `r2_per_s` R2 is nominal: `r2_3t_per_s` times √(B0/3 T), alike in every voxel. D_r grows with B0.
    """
    if tuple(r2star_per_s.shape) != local.grid.shape:
        raise ValueError(
            f"R2* has {tuple(r2star_per_s.shape)} voxels, but the field has {local.grid.shape}: resample it"
        )
    if isinstance(r2_per_s, Tensor) and tuple(r2_per_s.shape) != local.grid.shape:
        raise ValueError(
            f"R2 has {tuple(r2_per_s.shape)} voxels, but the field has {local.grid.shape}: resample it"
        )
    known = local.mask & r2star_per_s.isfinite()
    if not known.any():
        raise ValueError("R2* is not known anywhere in the mask: it needs two echoes or more")
    if float(r2star_per_s[known].max()) < 2:
        raise ValueError("R2* is below 2 1/s in the whole mask: give it in 1/s, not in 1/ms or as T2*")
    b0 = local.scan.b0_tesla / 3
    r2 = r2_3t_per_s * b0**R2_POWER if r2_per_s is None else r2_per_s
    r2prime = torch.where(known, r2star_per_s - r2, torch.zeros_like(r2star_per_s))
    return r2prime.nan_to_num(0.0, 0.0, 0.0).clamp_min(0) / (decay_3t_per_s_ppm * b0)

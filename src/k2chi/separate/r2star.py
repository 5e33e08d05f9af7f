"""Sources told apart voxel by voxel, from a susceptibility map and R2*."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Field, Sources
from k2chi.invert import FANSI, Inversion
from k2chi.separate.decay import amount


@dataclass(frozen=True)
class R2StarSeparation:
    """Half the sum and half the difference of amount and susceptibility: χ± = ((R2* − R2)/D_r ± χ)/2.

    The relation R2* = R2 + D_r (|χ₊| + |χ₋|) is that of Dimov et al. 2022, J Neuroimaging 32:852,
    doi:10.1111/jon.13014, who solve it together with the field; here `invert` makes χ first, so any inversion
    will do, and each voxel is on its own. Where the amount is less than |χ|, one pool is empty and the other
    lies between. Noise and errors of R2* enter both pools by half. Costs `invert`.
    """

    invert: Inversion = FANSI()
    """The inversion that makes χ."""
    decay_3t_per_s_ppm: float = 137.0
    """D_r, R2′ of one ppm at 3 T [1/s/ppm]; taken in proportion to B0."""
    r2_3t_per_s: float = 11.0
    """R2 at 3 T where none is given [1/s]; taken to grow with the root of B0."""

    def __post_init__(self) -> None:
        if self.decay_3t_per_s_ppm <= 0 or self.r2_3t_per_s < 0:
            raise ValueError("R2StarSeparation needs a positive D_r, and an R2 of zero or more")

    def __call__(
        self,
        local: Field,
        r2star_per_s: Float[Tensor, "x y z"],
        r2_per_s: Float[Tensor, "x y z"] | float | None = None,
    ) -> Sources:
        """Both pools from the local field, R2* and, if there is one, a map of R2 (0: it is R2′)."""
        total = amount(local, r2star_per_s, r2_per_s, self.decay_3t_per_s_ppm, self.r2_3t_per_s)
        chi = self.invert(local)
        para, dia = nearest(total, chi.ppm)
        inside = chi.mask
        return Sources(
            para * inside, -dia * inside, inside, chi.grid, chi.updates, chi.misfits, chi.converged
        )


def nearest(total: Tensor, chi: Tensor) -> tuple[Tensor, Tensor]:
    """The pools a, b ≥ 0 with a + b nearest to `total` and a − b nearest to `chi` (least squares)."""
    a, b = (total + chi) / 2, (total - chi) / 2
    zero = torch.zeros_like(a)
    return (
        torch.where(b < 0, (total + chi) / 2, a).clamp_min(0),
        torch.where(a < 0, (total - chi) / 2, b).maximum(zero),
    )

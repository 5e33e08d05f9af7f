"""Two pools in every voxel of a digital head: para- and diamagnetic sources, and the decay they cause.

The truth of a scan knows only their sum χ. Here the diamagnetic pool of each tissue comes from a table, with
the partial volume of the voxel, and the paramagnetic pool is the rest, so that χ₊ + χ₋ = χ in every voxel.
"""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor

from k2chi.data import Grid

DECAY_3T_PER_S_PPM = 137.0
"""R2′ of one ppm of either sign at 3 T [1/s/ppm] (Shin 2021); in proportion to B0."""
FWHM_VOXELS = 1.2
"""Width of the transition between tissues [voxels]."""

# χ₋ [ppm] and T2 at 7 T [s] of the challenge's groups; R2 falls by 0.65 from 7 T to 3 T.
_POOLS = {
    1: (-0.009, 0.057),
    2: (-0.013, 0.041),
    3: (-0.009, 0.050),
    4: (-0.011, 0.044),
    5: (-0.016, 0.072),
    6: (-0.011, 0.047),
    7: (-0.031, 0.057),
    8: (-0.036, 0.046),
    9: (-0.019, 0.085),
    10: (-0.009, 1.030),
    11: (0.0, 0.098),
    16: (-0.05, 0.050),
}


@dataclass(frozen=True, eq=False)
class Pools:
    """Both pools of a head and its decay rates, all zero outside the brain mask."""

    grid: Grid
    para_ppm: Float[Tensor, "x y z"]
    """Paramagnetic susceptibility [ppm], zero or more."""
    dia_ppm: Float[Tensor, "x y z"]
    """Diamagnetic susceptibility [ppm], zero or less."""
    r2_per_s: Float[Tensor, "x y z"]
    """Irreversible decay [1/s], from T2 of the tissue."""
    r2prime_per_s: Float[Tensor, "x y z"]
    """Reversible decay [1/s]: D_r (|χ₊| + |χ₋|)."""
    mask: Bool[Tensor, "x y z"]

    @property
    def r2star_per_s(self) -> Float[Tensor, "x y z"]:
        """R2* = R2 + R2′ [1/s]; not the R2* of the scan's own truth, which knows no pools."""
        return self.r2_per_s + self.r2prime_per_s


def pools(
    chi_ppm: Float[Tensor, "x y z"],
    group: Int16[Tensor, "x y z"],
    brain: Bool[Tensor, "x y z"],
    grid: Grid,
    b0_tesla: float,
) -> Pools:
    """Pools of a head, of which χ, the challenge's labels and the brain mask are known.

    `pools(truth.chi_ppm, truth.group, truth.brain, truth.grid, truth.scan.b0_tesla)` for a simulated scan.
    """
    table, power = torch.zeros(2, 32), log(1 / 0.65) / log(7 / 3)
    for number, (lowest, t2) in _POOLS.items():
        table[:, number] = torch.tensor([lowest, (b0_tesla / 7) ** power / t2])
    inside = brain.to(chi_ppm.dtype)
    share = _blurred(inside).clamp_min(1e-6)
    tabled, r2 = (_blurred(row[group.long()] * inside) / share * inside for row in table.to(chi_ppm))
    chi = chi_ppm * inside
    stone = group == 16  # a calcification has one pool, and does not lend it to its neighbours
    tabled = torch.where(stone, chi, tabled.clamp_min(-0.05))
    dia = torch.minimum(tabled, chi.clamp_max(0))  # paramagnetic sources are never negative
    para = (chi - dia).clamp_min(0)
    r2prime = DECAY_3T_PER_S_PPM * b0_tesla / 3 * (para - dia)
    return Pools(grid, para, dia, r2, r2prime, brain)


def _blurred(x: Tensor) -> Tensor:
    sigma = FWHM_VOXELS / (8 * log(2)) ** 0.5
    w = torch.exp(-0.5 * (torch.arange(-2, 3, dtype=x.dtype, device=x.device) / sigma).square())
    w = w / w.sum()
    for axis in range(3):
        shape = [5 if a == axis else 1 for a in range(3)]
        pad = [2 if a == axis else 0 for a in range(3)]
        x = torch.nn.functional.conv3d(x[None, None], w.reshape(1, 1, *shape), padding=pad)[0, 0]
    return x

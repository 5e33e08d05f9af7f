"""How well a calcification came out: its moment and the streaks around it, as in the 2019 challenge."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Vector

LABEL = 16
"""Number of calcifications in the challenge's labels."""
MARGINS = (3, 7, 11)
"""Voxels around the bounding box: the cube, the rim around it, and the outer box."""
LOWEST_PPM = -3.5
"""Where the search for a threshold ends [ppm]; the first script of the challenge ended at −1.5."""


@dataclass(frozen=True)
class Calcification:
    """Scores of one map around one calcification; nan where it was not found."""

    moment_ppm_mm3: float
    """Sum of χ over the segmented voxels times their volume [ppm mm³]."""
    deviation_ppm_mm3: float
    """Distance of the moment from the true one: the sum of the truth over the labelled voxels [ppm mm³]."""
    streak: float
    """Spread around the calcification that the truth does not explain, over its mean χ [no unit]."""
    threshold_ppm: float
    """Voxels below this belong to the calcification [ppm]."""


def calcification(
    chi_ppm: Float[Tensor, "x y z"],
    truth_ppm: Float[Tensor, "x y z"],
    where: Bool[Tensor, "x y z"],
    voxel_mm: Vector = (1.0, 1.0, 1.0),
) -> Calcification:
    """Score `chi_ppm` around the calcification `where` (ppm, both maps with the same reference).

    Bilgic et al. 2021, Magn Reson Med 86:1241, doi:10.1002/mrm.28754. In the bounding box with three voxels
    more (the cube) all voxels below a threshold are the calcification; the threshold is the first of 0,
    −0.01, … −3.5 ppm below which no voxel of the outer box lies beside the cube. The streak is the residual
    of a straight line through found and true χ in the rim. A map without any voxel below the threshold has
    moment 0. An offset of the map moves threshold and moment: `quality` gives both maps mean 0 in the brain.
    Raises ValueError where there is no calcification.
    """
    found = torch.nonzero(where)
    if not len(found):
        raise ValueError("no voxel is labelled as calcification: there is nothing to score")
    low, high = found.amin(0), found.amax(0) + 1

    def box(margin: int) -> Tensor:
        out = torch.zeros_like(where)
        a, b, c = (slice(max(int(i) - margin, 0), int(j) + margin) for i, j in zip(low, high, strict=True))
        out[a, b, c] = True
        return out

    cube, rim, outer = (box(m) for m in MARGINS)
    rim, outer = rim & ~cube, outer & ~cube
    voxel = voxel_mm[0] * voxel_mm[1] * voxel_mm[2]

    lowest = float(chi_ppm[outer].min()) if outer.any() else 0.0
    threshold = next((t for t in _thresholds() if lowest >= t), LOWEST_PPM)
    mine = chi_ppm[cube & (chi_ppm < threshold)].double()
    moment, true = float(mine.sum()) * voxel, float(truth_ppm[where].double().sum()) * voxel
    x, y = truth_ppm[rim].double(), chi_ppm[rim].double()
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y) / max(float(x @ x), 1e-30)
    spread = float((y - slope * x).square().mean().sqrt())
    streak = spread / abs(float(mine.mean())) if len(mine) else nan
    return Calcification(moment, abs(moment - true), streak, threshold)


def _thresholds() -> Iterator[float]:
    """0, −0.01, …, −3.5 ppm."""
    return (-k / 100 for k in range(round(-100 * LOWEST_PPM) + 1))

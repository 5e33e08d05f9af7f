"""Which voxels to work on, from the echoes alone."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from k2chi.data import Echoes
from k2chi.field.brain import BrainMask
from k2chi.field.romeo import quality_map
from k2chi.field.shapes import (
    combined_magnitude,
    dilate,
    erode,
    fill_holes,
    largest_part,
    otsu,
    with_mask,
)

__all__ = ["BrainMask", "GivenMask", "MagnitudeMask", "PhaseQualityMask"]


@dataclass(frozen=True)
class GivenMask:
    """Use the mask that came with the echoes, as it is.

    No source: nothing is computed.
    """

    def __call__(self, echoes: Echoes) -> Echoes:
        """The very same echoes."""
        if echoes.mask is None:
            raise ValueError("no mask came with the echoes: give one, or choose a method that makes one")
        if not echoes.mask.any():
            raise ValueError("the mask that came with the echoes is empty: give one with voxels inside")
        return echoes


@dataclass(frozen=True)
class MagnitudeMask:
    """Everything that is bright: a robust threshold, smoothed, with its holes filled.

    Threshold: the larger of 5 × the mean of the darkest 15 % and a fifth of the mean of percentiles 80 to 99,
    on the root sum of squares over echoes. Then majority in a box twice, filling holes in between.

    No source: no paper; the figures are those of MriResearchTools (Eckstein, Dymerska et al.). Includes
    scalp, eyes and neck; use `BrainMask` for the brain alone. Two seconds at 164×205×205.
    """

    box_mm: float = 5.0
    """Edge of the box [mm] over which the majority decides."""
    largest_hole: float = 0.05
    """Holes up to this share of the array are filled, 0 to 1."""

    def __post_init__(self) -> None:
        if self.box_mm <= 0 or not 0 <= self.largest_hole <= 1:
            raise ValueError("MagnitudeMask: choose a box_mm above 0 and a largest_hole from 0 to 1")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with the mask."""
        size = combined_magnitude(echoes).cpu().numpy()
        seen = size[size > 0] if (size > 0).any() else size.ravel()
        p15, p80, p99 = np.percentile(seen, [15, 80, 99])
        bright = size[(size >= p80) & (size <= p99)].mean()
        dark = seen[seen <= p15].mean()
        skull_stripped = (size == 0).mean() > 0.15
        threshold = bright / 5 if skull_stripped else max(5 * dark, bright / 5)
        mask = size > min(threshold, p80)
        box = [max(1, 2 * round(self.box_mm / v / 2 - 0.5) + 1) for v in echoes.grid.voxel_mm]
        mask = ndimage.uniform_filter(mask.astype(np.float32), box) > 0.4
        mask = fill_holes(mask, round(self.largest_hole * mask.size))
        mask = ndimage.uniform_filter(mask.astype(np.float32), box) > 0.6
        return with_mask(echoes, mask, "MagnitudeMask")


@dataclass(frozen=True)
class PhaseQualityMask:
    """Where phase can be trusted: quality of the phase times magnitude, split near Otsu's threshold.

    Quality is the mean of the six edge weights of ROMEO (Dymerska et al. 2021, doi:10.1002/mrm.28563); of the
    voxels above the threshold the largest part is kept, closed and filled. Includes the scalp where it
    touches the brain; veins with little signal count as holes and are filled. Three seconds at 164×205×205.
    """

    share: float = 0.7
    """Share of Otsu's threshold above which a voxel is kept, above 0; lower keeps more."""
    close_mm: float = 2.0
    """Gaps narrower than twice this [mm] are closed."""

    def __post_init__(self) -> None:
        if self.share <= 0 or self.close_mm < 0:
            raise ValueError("PhaseQualityMask: choose a share above 0 and a close_mm of 0 or more")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with the mask."""
        size = combined_magnitude(echoes).cpu().numpy()
        quality = quality_map(echoes).cpu().numpy()
        top = np.percentile(size[size > 0], 95) if (size > 0).any() else 1.0
        trust = quality * np.minimum(size / top, 1)
        voxel = echoes.grid.voxel_mm
        mask = largest_part(trust > self.share * otsu(trust[size > 0]))
        mask = fill_holes(erode(dilate(mask, self.close_mm, voxel), self.close_mm, voxel) | mask)
        return with_mask(echoes, mask, "PhaseQualityMask")

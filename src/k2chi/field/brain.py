"""The brain without scalp, skull, eyes and neck, from the magnitude alone."""

from dataclasses import dataclass

import numpy as np

from k2chi.data import Echoes
from k2chi.field.shapes import combined_magnitude, dilate, erode, fill_holes, largest_part, otsu, with_mask


@dataclass(frozen=True)
class BrainMask:
    """Cut the brain from the head where the skull leaves a dark gap."""

    gap_mm: float = 4.0
    """Half the width of the bridges between brain and scalp that are cut [mm]."""

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with the mask."""
        size = combined_magnitude(echoes).cpu().numpy()
        voxel = echoes.grid.voxel_mm
        bright = size > 0.7 * otsu(size[size > 0])
        core = largest_part(erode(bright, self.gap_mm, voxel))
        mask = dilate(core, self.gap_mm + min(voxel), voxel) & bright
        mask = fill_holes(erode(dilate(mask, self.gap_mm, voxel), self.gap_mm, voxel))
        return with_mask(echoes, np.asarray(mask), "BrainMask")

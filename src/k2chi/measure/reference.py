"""Where zero lies. The dipole is blind to a constant, so a map means something only relative to a region."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from k2chi.data import Chi, Grid

Volume = Float[Tensor, "x y z"]


def relative_to(chi: Chi, region: Bool[Tensor, "x y z"], name: str) -> Chi:
    """Subtract the mean over `region` inside the mask: a region of one's own works as well as those below.

    The map stays zero outside the mask. `reference_ppm` grows by what is subtracted.
    """
    inside = region & chi.mask
    if not inside.any():
        raise ValueError(f"the reference region ({name}) holds no voxel of the mask: check labels and grid")
    zero = float(chi.ppm[inside].double().mean())
    ppm = torch.where(chi.mask, chi.ppm - zero, torch.zeros_like(chi.ppm))
    return replace(chi, ppm=ppm, reference=name, reference_ppm=chi.reference_ppm + zero)


@dataclass(frozen=True)
class MaskMean:
    """Zero is the mean over the whole mask.

    QSM Consensus Organization Committee 2024, Magn Reson Med 91:1834, doi:10.1002/mrm.30006.
    Needs no segmentation and is the usual default. It shifts with the mask, and with iron: a brain with
    more of it in the nuclei appears a little less paramagnetic elsewhere.
    """

    def __call__(self, chi: Chi, r2star_per_s: Volume | None = None) -> Chi:
        """Subtract the mean over the mask."""
        return relative_to(chi, chi.mask, "mask mean")


@dataclass(frozen=True)
class CSF:
    """Zero is the mean of the cerebrospinal fluid in the ventricles, found where R2* is low near the centre.

    Region after Liu et al. 2018, Magn Reson Med 79:2795, doi:10.1002/mrm.26946, which also pulls χ to one
    value there; here its mean is subtracted and nothing else changes.
    Needs R2*, and so two echoes or more. Where no such region is found it warns and takes the mask mean;
    `Chi.reference` says which it was. Small ventricles make it noisier than the mask mean.
    """

    r2star_below_per_s: float = 5.0
    """Fluid is where R2* [1/s] is lower; at 3 T fluid has 1 to 2 and tissue 15 or more."""
    within_mm: float = 30.0
    """Only fluid this near [mm] to the mask's centre of mass counts, not that around the brain."""
    erode: int = 1
    """Voxels peeled off the region's surface, where a voxel holds tissue too; 0 or more."""
    least_mm3: float = 200.0
    """A smaller region [mm³] is not trusted."""

    def __post_init__(self) -> None:
        if self.r2star_below_per_s <= 0 or self.within_mm <= 0 or self.erode < 0 or self.least_mm3 < 0:
            raise ValueError(f"{self}: thresholds must be positive, erode and least_mm3 not negative")

    def __call__(self, chi: Chi, r2star_per_s: Volume | None = None) -> Chi:
        """Subtract the mean over the fluid that `r2star_per_s` shows."""
        if r2star_per_s is None:
            raise ValueError("referencing to CSF needs R2*, and so two echoes or more: choose MaskMean")
        region = self.region(chi.mask, r2star_per_s, chi.grid)
        if region is None:
            warnings.warn(
                f"no ventricle of {self.least_mm3:g} mm³ with R2* below {self.r2star_below_per_s:g}/s was "
                "found near the mask's centre: the map is relative to the mask mean instead of CSF",
                stacklevel=2,
            )
            return MaskMean()(chi)
        return relative_to(chi, region, "CSF")

    def region(
        self, mask: Bool[Tensor, "x y z"], r2star_per_s: Volume, grid: Grid
    ) -> Bool[Tensor, "x y z"] | None:
        """The fluid's voxels, or None if there are too few."""
        inside, low = mask.cpu().numpy(), r2star_per_s.cpu().numpy() < self.r2star_below_per_s
        fluid = inside & low
        if self.erode:
            fluid = ndimage.binary_erosion(fluid, iterations=self.erode)
        index = np.indices(grid.shape, dtype=np.float32, sparse=True)
        edges = zip(index, [c.mean() for c in np.nonzero(inside)], grid.voxel_mm, strict=True)
        fluid &= sum(((i - c) * v) ** 2 for i, c, v in edges) < self.within_mm**2
        parts, count = ndimage.label(fluid)
        if not count:
            return None
        sizes = np.bincount(parts.ravel())[1:]
        kept = np.flatnonzero(sizes >= 0.1 * sizes.max()) + 1  # both ventricles, but no crumbs
        if sizes[kept - 1].sum() * grid.voxel_volume_mm3 < self.least_mm3:
            return None
        return torch.from_numpy(np.isin(parts, kept)).to(mask.device)


@dataclass(frozen=True)
class NoReference:
    """Leaves the map as the inversion made it, with a constant that nobody knows.

    No source: nothing is done. For comparing inversions, where the scorer removes the mean itself.
    """

    def __call__(self, chi: Chi, r2star_per_s: Volume | None = None) -> Chi:
        """Return `chi` itself."""
        return chi


Reference = MaskMean | CSF | NoReference

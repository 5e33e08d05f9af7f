"""Background removal by the mean value of harmonic fields, with spheres that shrink towards the edge."""

from dataclasses import dataclass

import torch

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.box import box_around
from k2chi.ops.fourier import SPACE
from k2chi.ops.sphere import sphere_kernel
from k2chi.progress import track


@dataclass(frozen=True)
class VSHARP:
    """Subtract spherical means, each voxel with the largest sphere that fits, then undo what that took.

    f_local = F⁻¹ [F(M′ (f − S_r f)) / (1 − S_R)], division where |1 − S_R| ≥ threshold, else 0.
    Schweser et al. 2011, NeuroImage 54:2789, doi:10.1016/j.neuroimage.2010.10.070; Wu et al. 2012,
    MRM 67:137, doi:10.1002/mrm.23000.
    The deconvolution uses the largest radius R for all voxels. The mask loses the smallest radius.
    Two pairs of transforms for each radius.
    """

    largest_mm: float = 12.0
    """Largest radius [mm]; larger: slower background fields are removed better."""
    smallest_mm: float = 1.0
    """Smallest radius [mm], at least one voxel edge; larger: the mask shrinks more."""
    step_mm: float = 1.0
    """Distance between radii [mm]."""
    threshold: float = 0.05
    """Smallest |1 − S| that is divided by [no unit]; larger: less of the slow local field is restored."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest_mm <= self.largest_mm or self.step_mm <= 0:
            raise ValueError("VSHARP needs 0 < smallest_mm ≤ largest_mm and step_mm > 0")

    def __call__(self, total: Field) -> Field:
        """The local field, and the mask without its rim."""
        voxel = total.grid.voxel_mm
        smallest = max(self.smallest_mm, max(voxel))
        count = max(int((self.largest_mm - smallest) / self.step_mm + 1e-6), 0)
        radii = [smallest + i * self.step_mm for i in range(count, -1, -1)]
        box = box_around(total.mask, margin=int(radii[0] / min(voxel)) + 2)
        f, mask = masked(total, box)
        k, k_mask = torch.fft.rfftn(f, dim=SPACE), torch.fft.rfftn(mask.to(f.dtype), dim=SPACE)
        high, done = torch.zeros_like(f), torch.zeros_like(mask)
        largest = None
        for i in track(len(radii), "V-SHARP"):
            s = sphere_kernel(voxel, radii[i], box.shape).to(f.device)
            fits = (torch.fft.irfftn(k_mask * s, s=box.shape, dim=SPACE) > 1 - 1e-4) & mask & ~done
            if largest is None and fits.any():
                largest = 1 - s
            high = torch.where(fits, f - torch.fft.irfftn(k * s, s=box.shape, dim=SPACE), high)
            done |= fits
        if largest is None:
            raise ValueError(
                f"VSHARP: no sphere of {smallest} mm fits into the mask: use a fuller mask, or LBV or PDF"
            )
        strong = largest.abs() >= self.threshold
        inverse = torch.where(strong, 1 / torch.where(strong, largest, 1), 0)
        local = torch.fft.irfftn(torch.fft.rfftn(high, dim=SPACE) * inverse, s=box.shape, dim=SPACE) * done
        return local_field(total, box, local, done)

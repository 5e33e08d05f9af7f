"""Background removal by the mean value of harmonic fields, with one sphere."""

from dataclasses import dataclass

import torch

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.fourier import SPACE
from k2chi.ops.sphere import spheres_in


@dataclass(frozen=True)
class SHARP:
    """Subtract the spherical mean where the sphere fits into the mask, then divide by what that took.

    f_local = F⁻¹ [F(M′ (f − S f)) / (1 − S)], division where |1 − S| ≥ threshold, else 0.
    Schweser et al. 2011, NeuroImage 54:2789, doi:10.1016/j.neuroimage.2010.10.070.
    The mask loses the radius. Near the new rim the division misses what lay outside. Two pairs of transforms.
    """

    radius_mm: float = 6.0
    """Radius of the sphere [mm], at least a voxel edge; larger: less slow local field is lost, more rim."""
    threshold: float = 0.05
    """Smallest |1 − S| that is divided by [no unit, 0 to 1]; larger: less slow local field is restored."""

    def __post_init__(self) -> None:
        if not self.radius_mm > 0:
            raise ValueError(f"SHARP radius {self.radius_mm} mm must be positive")
        if not 0 < self.threshold < 1:
            raise ValueError(f"SHARP threshold {self.threshold} must lie between 0 and 1")

    def __call__(self, total: Field) -> Field:
        """The local field, and the mask without a rim of the radius."""
        box, high, inside = spheres_in(total.mask, total.grid, self.radius_mm, "SHARP")
        f, _ = masked(total, box)
        k = torch.fft.rfftn(f, dim=SPACE).mul_(high)
        k = torch.fft.rfftn(torch.fft.irfftn(k, s=box.shape, dim=SPACE).mul_(inside), dim=SPACE)
        k *= torch.where(high >= self.threshold, 1 / high.clamp_min(self.threshold), 0)
        return local_field(total, box, torch.fft.irfftn(k, s=box.shape, dim=SPACE), inside)

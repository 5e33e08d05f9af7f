"""Iterative substitution: the map's own structures fill the cone where the kernel says nothing."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.invert.tkd import truncated_inverse
from k2chi.ops.sphere import spherical_mean
from k2chi.progress import track


@dataclass(frozen=True)
class ISWIM:
    """Divide as in TKD; then take the k-space inside the cone from the map's structures, and repeat.

    χ₀ = F⁻¹[F f · D⁻¹ₜ];  χ ← F⁻¹[F χ₀ where |D| ≥ t, F(Sχ) inside the cone], with Sχ = χ where
    |χ| > `level_ppm`, else χ averaged over a small sphere, and zero outside the mask.
    Tang et al. 2013, MRM 69:1396, doi:10.1002/mrm.24384. It was made for veins and has zero in the place of
    the average (`smooth_mm` 0), which takes from all weaker tissue its part of the cone.
    Passes sharpen what streaks have broken up, and then harden what streaks remain, so few are best. Weights
    are not used. One pair of transforms, one for each pass, and one more for its average.
    """

    threshold: float = 0.1
    """Width of the cone, the smallest |D| that is divided by [0 to 2/3]."""
    level_ppm: float = 0.05
    """Susceptibility above which a voxel is structure [ppm], of either sign."""
    smooth_mm: float = 2.0
    """Radius of the sphere over which the rest is averaged [mm]; 0: zero in its place, as published."""
    passes: int = 3
    """Upper limit of substitutions."""
    tolerance: float = 1e-2
    """Stop once a pass changes the map by this fraction; 0 runs all passes."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2 / 3:
            raise ValueError(f"ISWIM threshold {self.threshold} is out of range: choose 0 < threshold < 2/3")
        if self.level_ppm < 0 or self.smooth_mm < 0:
            raise ValueError("ISWIM level_ppm and smooth_mm must not be negative")
        if self.passes < 1:
            raise ValueError("ISWIM needs at least one pass")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local)
        cone = p.kernel.abs() < self.threshold
        known = p.spectrum(p.ppm).mul_(truncated_inverse(p.kernel, self.threshold))
        chi = p.volume(known)
        known.masked_fill_(cone, 0)
        mean = spherical_mean(p.grid, self.smooth_mm, chi.device)
        updates: list[float] = []
        for _ in track(self.passes, "ISWIM"):
            within = chi * p.support
            rest = mean(within) if self.smooth_mm else torch.zeros_like(chi)
            told = torch.where(within.abs() > self.level_ppm, within, rest * p.support)
            before, chi = chi, p.volume(p.spectrum(told).mul_(cone).add_(known))
            updates.append(float((chi - before).norm() / chi.norm().clamp_min(1e-30)))
            if updates[-1] <= self.tolerance:
                break
        return p.answer(chi, updates, (), self.tolerance)

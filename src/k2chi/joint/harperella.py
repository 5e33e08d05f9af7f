"""Unwrapping and background removal as one Laplace problem, followed by an inversion."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi, Echoes, Field, Grid
from k2chi.invert import FANSI, Inversion
from k2chi.joint.curvature import curvature, eroded, steps
from k2chi.joint.tgv import trusted
from k2chi.ops.box import box_around
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.fourier import SPACE
from k2chi.ops.sphere import sphere_kernel
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class HARPERELLA:
    """Integrate the curvature of the wrapped phase, its unknown part outside chosen to leave no background.

    f_local = ∇⁻²(L inside + ℓ outside) with ℓ = argmin ‖M S ∇⁻²(L + ℓ)‖²: background fields are their own
    spherical means S, so means that vanish leave none. Then `invert`. L is the Laplacian of the field from
    wrapped phase steps, so nothing is unwrapped. Li W et al. 2014, NMR Biomed 27:219, doi:10.1002/nbm.3056.
    Slowly varying local fields have spherical means too and are weakened: few conjugate-gradient steps keep
    them. Two pairs of transforms a step, before the inversion.
    """

    radius_mm: float = 3.0
    """Radius of the spheres [mm]; larger: weaker on slowly varying local fields, more so beside the rim."""
    iterations: int = 60
    """Conjugate-gradient steps; more: less background and less of the slowly varying local field."""
    margin_mm: float = 15.0
    """Room around the mask for the curvature that is sought [mm]."""
    reliable: float = 0.4
    """Share of the median trust below which the phase of a voxel is not believed; 0 believes every voxel."""
    invert: Inversion = FANSI(alpha=2e-4)
    """Turns the local field into susceptibility."""

    def __post_init__(self) -> None:
        if not (self.radius_mm > 0 and self.margin_mm > 0):
            raise ValueError("HARPERELLA radius_mm and margin_mm must be positive")
        if self.iterations < 1 or not 0 <= self.reliable < 1:
            raise ValueError("HARPERELLA needs at least one iteration, and reliable of 0 or more, below 1")

    def __call__(self, phase: Echoes | Field) -> Chi:
        """Invert wrapped phase without offset, or the phase of a total field at the first echo time."""
        return self.invert(self.local(phase))

    def local(self, phase: Echoes | Field) -> Field:
        """The local field where its curvature is known; its support is the whole mask."""
        mask, weight = trusted(phase)
        voxel = phase.grid.voxel_mm
        box = box_around(mask, margin=int(max(self.margin_mm, self.radius_mm) / min(voxel)))
        grid, trust = box.grid(phase.grid), box.take(weight)
        tissue = box.take(mask)
        known = eroded(tissue) & (trust >= self.reliable * trust[tissue].median())
        seen = torch.where(known, box.take(curvature(steps(phase), voxel, mask)), 0)
        ppm = integrate(seen, known, tissue, grid, self.radius_mm, self.iterations)
        kept = box.put(known, phase.grid.shape)
        magnitude = phase.magnitude if isinstance(phase, Field) else phase.signal.abs().square().sum(0).sqrt()
        noise = phase.noise_ppm if isinstance(phase, Field) else None
        full = box.put(ppm, phase.grid.shape)
        weight = torch.where(kept, weight, 0)
        return Field(full, kept, phase.grid, phase.scan, weight, noise, mask, magnitude, local=True)


def integrate(
    seen: Float[Tensor, "x y z"],
    known: Bool[Tensor, "x y z"],
    tissue: Bool[Tensor, "x y z"],
    grid: Grid,
    radius_mm: float,
    iterations: int,
) -> Float[Tensor, "x y z"]:
    """The field whose Laplacian is `seen` where `known` and whose spherical means in tissue are least."""
    symbol = laplacian_symbol(grid.shape, grid.voxel_mm).to(seen.device)
    symbol[0, 0, 0] = torch.inf
    inverse = -1 / symbol
    mean = inverse * sphere_kernel(grid.voxel_mm, radius_mm, grid.shape).to(seen.device)
    unknown, inside = (~known).to(seen.dtype), tissue.to(seen.dtype)

    def by(kernel: Tensor, x: Tensor) -> Tensor:
        k = torch.fft.rfftn(x, dim=SPACE).mul_(kernel)
        out: Tensor = torch.fft.irfftn(k, s=grid.shape, dim=SPACE)
        return out

    rest = cg(
        lambda x: unknown * by(mean, inside * by(mean, unknown * x)),
        -unknown * by(mean, inside * by(mean, seen)),
        iterations=iterations,
        tolerance=1e-6,
        what="HARPERELLA",
    )
    return by(inverse, seen + unknown * rest) * inside

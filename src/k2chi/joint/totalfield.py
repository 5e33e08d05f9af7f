"""Background and brain at once: total variation inside the mask, free sources outside it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.ops.box import Box, box_around, faces, grown
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.fourier import SPACE
from k2chi.ops.robust import trust
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track
from k2chi.solve.cg import cg

SETTLED = 10
"""Iterations between two looks at what fits badly: weights that follow each one may go round in circles."""


@dataclass(frozen=True, eq=False)
class Everywhere:
    """Sources in a box that reaches beyond the mask."""

    box: Box
    ppm: Float[Tensor, "x y z"]
    """χ inside and outside the mask [ppm]; outside it is whatever makes the right field inside."""
    kernel: Float[Tensor, "x y h"]
    """D on the half spectrum of the box."""
    updates: list[float]
    misfits: list[float]

    def field(self, where: Bool[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """What the sources `where` in the box make of the field, everywhere in it [ppm]."""
        k = torch.fft.rfftn(self.ppm * where, dim=SPACE)
        made: Tensor = torch.fft.irfftn(k * self.kernel, s=self.box.shape, dim=SPACE)
        return made


@dataclass(frozen=True)
class TotalFieldTV:
    """Explain the total field by a brain smooth between edges and by any sources outside: no mask is lost.

    min over χ of ½‖w (Dχ − f)‖² + α‖∇χ‖₁ inside, χ free outside. Idea of a total-field inversion: Liu Z et
    al. 2017, MRM 78:303, doi:10.1002/mrm.26331; background start: Liu T et al. 2011, doi:10.1002/nbm.1670;
    alternating directions as in FANSI, doi:10.1002/mrm.27073.
    A background removed first takes the field of sources at the rim with it (great veins, cortex); here the
    brain competes for it. The start, projection onto dipoles beyond a gap around the mask, also decides what
    stays ambiguous: harmonic fields that either side could make. Voxels that fit badly lose weight. Two
    pairs of transforms an iteration on a box wider than the mask.
    """

    alpha: float = 1e-4
    """Strength of total variation inside [ppm mm]; larger: flatter between edges."""
    iterations: int = 120
    """Upper limit of the joint iterations."""
    tolerance: float = 2e-3
    """Stop once an update inside the mask is this fraction of the map there; 0 runs all iterations."""
    start: int = 60
    """Conjugate-gradient steps of the background start; more: rim sources lose more to the outside."""
    gap_mm: float = 1.6
    """Width around the mask that counts as tissue [mm]: no free sources so near."""
    margin_mm: float = 30.0
    """Room for sources around the mask [mm]."""
    outlier: float = 5.0
    """Weight falls for residuals beyond this many robust standard deviations; 0 keeps all weights."""
    edge_ppm_per_mm: float = 0.1
    """Gradient of the map at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 0.003
    """Weight μ₂ of the split of the data term [no unit]; only speed depends on it."""
    relax: float = 1.8
    """Over-relaxation of the splits, at least 1, below 2; only speed depends on it."""

    def __post_init__(self) -> None:
        for name in ("alpha", "edge_ppm_per_mm", "margin_mm", "mu_data"):
            if getattr(self, name) <= 0:
                raise ValueError(f"TotalFieldTV {name} {getattr(self, name)} must be positive")
        if self.gap_mm < 0 or self.outlier < 0 or self.start < 1 or self.iterations < 1:
            raise ValueError(
                "TotalFieldTV needs gap and outlier of at least 0, start and iterations of at least 1"
            )
        if not 1 <= self.relax < 2:
            raise ValueError(f"TotalFieldTV relax {self.relax} is out of range: choose 1 or more, below 2")

    def __call__(self, total: Field) -> Chi:
        """Invert the total field. The map is zero outside the mask and has no reference yet."""
        found, inside = self.solve(total), total.mask
        return Chi(
            found.box.put(found.ppm, total.grid.shape) * inside,
            inside,
            total.grid,
            updates=tuple(found.updates),
            misfits=tuple(found.misfits),
            converged=found.updates[-1] <= self.tolerance if self.tolerance else None,
        )

    def solve(self, total: Field) -> "Everywhere":
        """The sources inside and outside the mask that explain the total field."""
        voxel = total.grid.voxel_mm
        box = box_around(total.mask, margin=int(self.margin_mm / min(voxel)))
        grid = box.grid(total.grid)
        mask = box.take(total.mask & torch.isfinite(total.ppm))
        f = box.take(torch.where(total.mask, total.ppm, torch.zeros_like(total.ppm)))
        f = torch.where(mask, f - f[mask].mean(), torch.zeros_like(f))
        w2 = torch.where(mask, box.take(total.weight), torch.zeros_like(f)).square()
        tissue = grown(mask, self.gap_mm, voxel)
        d = dipole_kernel(grid, grid.shape).to(f.device)

        def spectrum(x: Tensor) -> Tensor:
            k: Tensor = torch.fft.rfftn(x, dim=SPACE)
            return k

        def volume(k: Tensor) -> Tensor:
            x: Tensor = torch.fft.irfftn(k, s=grid.shape, dim=SPACE)
            return x

        free = (~tissue).to(f.dtype)
        chi = cg(
            lambda x: free * volume(d * spectrum(w2 * volume(d * spectrum(x)))),
            free * volume(d * spectrum(w2 * f)),
            iterations=self.start,
            tolerance=1e-4,
            what="background start",
        )
        # A last, tiny weight on the step itself keeps the solve regular where neither D nor ∇ acts.
        mu1, mu2, mu3 = self.alpha / self.edge_ppm_per_mm, self.mu_data, 1e-4
        inverse = 1 / (mu1 * laplacian_symbol(grid.shape, voxel).to(d.device) + mu2 * d.square() + mu3)
        tv = TVSplit(grid, self.edge_ppm_per_mm * faces(tissue), self.relax)
        rhs = tv.step(chi)
        v2 = volume(d * spectrum(chi))
        z2 = (w2 * f + mu2 * v2) / (w2 + mu2)
        w = w2.sqrt()
        w2_now, size = w2, max(float((w * f).norm()), 1e-30)
        updates: list[float] = []
        misfits: list[float] = []
        for i in track(self.iterations, "total-field TV"):
            k = spectrum(mu1 * rhs + mu3 * chi)
            k += mu2 * d * spectrum(2 * z2 - v2)
            k *= inverse
            before, chi = chi, volume(k)
            dchi = volume(d * k)
            step = float(((chi - before) * mask).norm() / (chi * mask).norm().clamp_min(1e-30))
            updates.append(step)
            residual = (dchi - f).mul_(w)
            misfits.append(float(residual.norm()) / size)
            if step <= self.tolerance:
                break
            if self.outlier and i > SETTLED and i % SETTLED == 0:
                w2_now = w2 * trust(residual, mask, self.outlier)
            rhs = tv.step(chi)
            v2 += self.relax * (dchi - z2)
            z2 = (w2_now * f + mu2 * v2) / (w2_now + mu2)
        return Everywhere(box, chi, d, updates, misfits)

"""Total variation of sources that are finer than the scan's voxels."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field, Size
from k2chi.invert.problem import problem
from k2chi.invert.splits import refuse
from k2chi.ops.box import faces
from k2chi.ops.pieces import Division, Pieces, pieces_of, refuse_parts
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track


@dataclass(frozen=True)
class SubvoxelTV:
    """Fit each voxel's field as the mean over its pieces: min ½‖w(ADχ − f)‖² + α‖∇χ‖₁, χ on the pieces.

    A voxel that holds two tissues has no χ whose field is the measured one, least where voxels are long or
    B0 is oblique; pieces have. What comes out is the mean over each voxel. Frequencies that the scan cannot
    tell apart (aliases) share one equation of rank one, so χ is still found by division in Fourier space.
    Splits as in `FANSI` with its linear data term, doi:10.1002/mrm.27073; the pieces are this package's own.
    The gain is that of fields which are means over voxels; a scanner that cuts k-space measures no mean, and
    from phase simulated so, with its background, pieces gained nothing (LOG.md): compare with `FANSI`.
    Two pairs of transforms an iteration, one of the scan's size; time and memory grow with the pieces.
    """

    alpha: float = 1e-4
    """Strength of total variation [ppm mm], as in `FANSI`; larger: flatter between edges."""
    parts: Size | None = None
    """Pieces along each axis, one of which must stay 1. Left out: long edges are cut to about the shortest,
    or where voxels are cubic, the two axes nearest to B0 in two."""
    iterations: int = 80
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 0.1
    """Weight μ₂ of the split of the data term [no unit]; only speed depends on it."""
    mu_support: float = 0.01
    """Weight of the split of the support [no unit]; only speed depends on it."""

    def __post_init__(self) -> None:
        refuse(self, ("alpha", "edge_ppm_per_mm", "mu_data", "mu_support"), {"iterations": 1})
        refuse_parts(self.parts, "SubvoxelTV")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local, inside=True)
        fine = Pieces(p.grid, self.parts or pieces_of(p.grid.voxel_mm, p.grid.b0_dir), p.ppm.device)
        mu1, mu2, mu4 = self.alpha / self.edge_ppm_per_mm, self.mu_data, self.mu_support
        solve = Division(fine, mu1 * fine.laplacian() + mu4, mu2)
        inside = fine.repeated(p.support)
        tv = TVSplit(fine.grid, self.edge_ppm_per_mm * faces(inside))
        f, w2 = p.ppm, p.weight.square()
        chi, s_support = (torch.zeros(fine.grid.shape, device=f.device) for _ in range(2))
        field, s = torch.zeros_like(f), torch.zeros_like(f)
        updates, misfits = list[float](), list[float]()
        for _ in track(self.iterations, "sub-voxel TV"):
            rhs = tv.step(chi).mul_(mu1)
            # the support's copy is χ inside and 0 outside, so its dual lives outside only
            s_support = s_support.add_(chi).masked_fill_(inside, 0)
            rhs += mu4 * torch.where(inside, chi, -s_support)
            v = field + s
            z = v + w2 / (w2 + mu2) * (f - v)  # without data: z = v, and no dual
            s = v - z
            before, (chi, field) = chi, solve(rhs, z - s)
            updates.append(float((chi - before).norm() / chi.norm().clamp_min(1e-30)))
            misfits.append(p.misfit(field))
            if 0 < updates[-1] <= self.tolerance:
                break
        return p.answer(fine.averaged(chi), updates, misfits, self.tolerance)

"""Susceptibility from several orientations: what one leaves undetermined, another one sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem
from k2chi.orient.conditioning import orientation_conditioning
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class COSMOS:
    """Fit one map to the fields of several head orientations: min Σᵢ ‖wᵢ (Dᵢχ − fᵢ)‖² + nλ‖χ‖².

    With flat weights in closed form, χ = F⁻¹ [Σ Dᵢ F fᵢ / (Σ Dᵢ² + nλ)], one pair of transforms and one more
    for each orientation; otherwise from there by preconditioned conjugate gradients, two pairs for each
    orientation in an iteration. Liu T et al. 2009, MRM 61:196, doi:10.1002/mrm.21828.
    The fields must be resampled to one array, each keeping its own direction of B0 in its grid. χ is
    taken for a scalar: white matter, whose field depends on its fibres' direction, disagrees.
    """

    damping: float = 3e-4
    """λ [no unit]; matters where D is near zero in every orientation, as with two, or with small tilts."""
    iterations: int = 30
    """Upper limit of conjugate gradients; 0 takes the closed form whatever the weights."""
    tolerance: float = 1e-3
    """Stop once the residual is this fraction of the data."""
    support: bool = True
    """With conjugate gradients, keep χ at zero outside the masks as they were before any erosion."""
    least_angle_deg: float = 10.0
    """Refuse directions of B0 that all lie within this angle [degrees]."""

    def __post_init__(self) -> None:
        if self.damping <= 0 or self.iterations < 0 or self.tolerance <= 0:
            raise ValueError("COSMOS needs positive damping and tolerance, and iterations of 0 or more")
        if not 0 < self.least_angle_deg < 90:
            raise ValueError(f"COSMOS least_angle_deg {self.least_angle_deg} must lie between 0 and 90")

    def __call__(self, locals: Sequence[Field]) -> Chi:
        """One map from two or more local fields. It lives wherever one of the masks does."""
        self._check(locals)
        first = locals[0]
        mask = torch.stack([f.mask & f.ppm.isfinite() for f in locals])
        support = torch.stack([f.mask if f.support is None else f.support for f in locals]).any(0)
        differ = bool((mask != mask[0]).any())
        weighted = differ or any(_uneven(f, m) for f, m in zip(locals, mask, strict=True))
        parts = [problem(replace(f, support=support)) for f in locals]
        d2 = torch.stack([p.kernel.square() for p in parts]).sum(0) + len(parts) * self.damping
        if weighted and self.iterations:
            chi = self._weighted(parts, d2)
        else:
            data = torch.stack([p.spectrum(p.ppm) * p.kernel for p in parts]).sum(0)
            chi = parts[0].volume(data / d2)
        merged = replace(first, mask=mask.any(0), support=support)
        misfit = (sum(p.misfit(p.d(chi)) ** 2 for p in parts) / len(parts)) ** 0.5
        return replace(parts[0], field=merged).answer(chi, misfits=(misfit,))

    def _weighted(self, parts: Sequence[Problem], d2: Tensor) -> Tensor:
        first, weights = parts[0], [p.weight.square() for p in parts]
        inside = first.support.to(d2.dtype) if self.support else torch.ones_like(first.ppm)
        usual = float(torch.stack([w2[w2 > 0].mean() for w2 in weights if w2.any()]).mean())

        def normal(x: Tensor) -> Tensor:
            k, total = first.spectrum(x * inside), torch.zeros_like(first.kernel, dtype=torch.complex64)
            for p, w2 in zip(parts, weights, strict=True):
                total += p.spectrum(w2 * p.volume(k * p.kernel)).mul_(p.kernel)
            return inside * first.volume(total) + len(parts) * self.damping * x

        def nearly(r: Tensor) -> Tensor:
            return inside * first.volume(first.spectrum(r) / (usual * d2))

        spectrum = torch.zeros_like(first.kernel, dtype=torch.complex64)
        for p, w2 in zip(parts, weights, strict=True):
            spectrum += p.spectrum(w2 * p.ppm).mul_(p.kernel)
        data = inside * first.volume(spectrum)
        return cg(
            normal, data, nearly(data), self.iterations, self.tolerance, precondition=nearly, what="COSMOS"
        )

    def _check(self, locals: Sequence[Field]) -> None:
        if len(locals) < 2:
            raise ValueError(
                f"COSMOS got {len(locals)} orientation: it needs the local fields of two or more, better "
                f"three, at least {self.least_angle_deg:g}° apart; for one take an inversion such as FANSI"
            )
        grid = locals[0].grid
        for i, f in enumerate(locals[1:], 2):
            if f.grid.shape != grid.shape:
                raise ValueError(
                    f"orientation {i} has {f.grid.shape} voxels, the first {grid.shape}: "
                    "resample all fields to one array"
                )
            if max(abs(a - b) for a, b in zip(f.grid.voxel_mm, grid.voxel_mm, strict=True)) > 1e-3:
                raise ValueError(
                    f"orientation {i} has voxels of {f.grid.voxel_mm} mm, the first of {grid.voxel_mm}: "
                    "resample all fields to one array"
                )
        found = orientation_conditioning([f.grid.b0_dir for f in locals])
        if found.widest_angle_deg < self.least_angle_deg:
            raise ValueError(
                f"the orientations are too alike ({found}): B0 must turn by {self.least_angle_deg:g}° or "
                "more in voxel axes; check that each grid carries its own b0_world"
            )


def _uneven(local: Field, mask: Tensor) -> bool:
    inside = local.weight[mask]
    return bool(inside.numel()) and float(inside.max() - inside.min()) > 1e-3 * float(inside.max())

"""Morphology-enabled inversion: edges of χ are free where the magnitude has edges, and cost elsewhere."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem
from k2chi.ops.diffusion import diffusion
from k2chi.ops.finite import gradient, laplacian_symbol
from k2chi.ops.sphere import sphere_kernel
from k2chi.progress import track
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class MEDI:
    """Fit the complex signal by a map whose edges lie where the magnitude's do.

    min ‖w(exp iDφ_χ − exp iφ)‖²/(2s²) + α‖M_G∇χ‖₁ (+ κ/2 ‖χ − mean χ‖² in CSF), with s the radians of one
    ppm at the mean echo time and M_G zero at the magnitude's edges, else one.
    Liu J et al. 2012, NeuroImage 59:2560, doi:10.1016/j.neuroimage.2011.08.082; non-linear term, and weights
    that learn from the residual (MERIT): Liu T et al. 2013, MRM 69:467, doi:10.1002/mrm.24272; zero in CSF:
    Liu Z et al. 2018, MRM 79:2795, doi:10.1002/mrm.26946. The support is an addition, and so is that χ may
    jump to zero at its border.
    α is stated for maps in ppm, so that its strength depends neither on echo time nor on B0; the λ of the
    papers, on ‖·‖² of maps in radians, is 1/(2 α s): at 7 T and 12 ms λ = 1000 is α = 2.2e-5. Without a
    magnitude all edges cost. The curvature that Gauss and Newton take, w², is never below the true one,
    w² cos, so no step raises the cost; but from zero a strong source (−3.3 ppm at 7 T) would end in a wrong
    turn, so the first `warm` steps believe the field, which must be unwrapped; only with `warm` 0 do whole
    turns change nothing. Three pairs of transforms an inner iteration, the preconditioner's with it.
    """

    alpha: float = 5e-5
    """Strength of the gradient's penalty [ppm mm]; larger: flatter between edges."""
    edge_share: float = 0.2
    """Share of the magnitude's differences, each component apart, that are edges [0 to 1]; papers: 0.3."""
    iterations: int = 10
    """Upper limit of Gauss–Newton steps."""
    tolerance: float = 2e-2
    """Stop once a step is this fraction of the map; 0 runs all steps."""
    inner_iterations: int = 5
    """Upper limit of conjugate-gradient iterations in a step."""
    inner_tolerance: float = 1e-2
    """Relative residual at which they stop."""
    warm: int = 3
    """Steps that take the field as it is before those that compare complex signals; 0 or more."""
    rounding_ppm_per_mm: float = 1e-3
    """Gradient below which the norm is rounded into a square, to have a slope at zero [ppm/mm]."""
    smv_mm: float = 0.0
    """Radius of the sphere whose mean is taken from field and model, against what is left of the background,
    and by which the data lose their rim [mm]; 0: none; 5 is usual."""
    merit: bool = False
    """Lower the weight of voxels whose residual is an outlier, after every step."""
    csf_weight: float = 0.1
    """κ, how firmly χ is held to its mean in CSF [no unit]; without effect unless CSF is given."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""

    def __post_init__(self) -> None:
        for name in ("alpha", "rounding_ppm_per_mm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"MEDI {name} {getattr(self, name)} must be positive")
        if not 0 <= self.edge_share < 1:
            raise ValueError(f"MEDI edge_share {self.edge_share} is out of range: choose 0 ≤ edge_share < 1")
        if self.iterations < 1 or self.inner_iterations < 1 or self.warm < 0:
            raise ValueError("MEDI needs at least one iteration, and warm must not be negative")
        if self.smv_mm < 0 or self.csf_weight < 0:
            raise ValueError("MEDI smv_mm and csf_weight must not be negative")

    def __call__(self, local: Field, csf: Bool[Tensor, "x y z"] | None = None) -> Chi:
        """Invert `local`. Given `csf`, χ is held flat there, and its mean becomes the map's zero."""
        p, s = problem(local, inside=self.support), local.scan.rad_per_ppm
        if self.smv_mm:
            p = filtered(p, self.smv_mm)
        fluid = None if csf is None else p.box.take(csf & p.field.mask)
        if fluid is not None and not fluid.any():
            raise ValueError("csf has no voxel inside the mask: give a region of it, or none")
        free, w2 = self.edges(p), p.weight.square()
        chi = torch.zeros_like(w2)
        updates: list[float] = []
        misfits: list[float] = []
        for i in track(self.iterations, "MEDI"):
            field = p.d(chi)
            misfits.append(p.misfit(field))
            residual = field.sub_(p.ppm)
            if i >= self.warm:
                residual = torch.sin(s * residual).div_(s)
            if self.merit and i:
                w2 = w2 * doubt(residual * w2.sqrt(), p.weight > 0)
            step = self._step(p, chi, residual, w2, free, fluid)
            chi += step
            updates.append(float(step.norm() / chi.norm().clamp_min(1e-30)))
            if updates[-1] <= self.tolerance and i >= self.warm:
                break
        if fluid is None:
            return p.answer(chi, updates, misfits, self.tolerance)
        zero = float(chi[fluid].mean())
        answer = p.answer(chi - zero, updates, misfits, self.tolerance)
        return replace(answer, reference="CSF", reference_ppm=zero)

    def edges(self, p: Problem) -> Float[Tensor, "3 x y z"]:
        """M_G: zero for the largest `edge_share` of the magnitude's differences within the mask, else one."""
        free = torch.ones((3, *p.grid.shape), dtype=p.ppm.dtype, device=p.ppm.device)
        if self.support:  # the jump to zero at the border is no edge of χ
            free[:] = _pairs(p.support)
        if p.field.magnitude is None or self.edge_share == 0:
            return free
        slopes = gradient(p.grid)(p.box.take(torch.nan_to_num(p.field.magnitude))).abs_()
        within = _pairs(p.box.take(p.field.mask))
        slopes *= within
        values = slopes[within]
        if values.numel() == 0:
            return free
        limit = values.kthvalue(min(int((1 - self.edge_share) * values.numel()) + 1, values.numel())).values
        return free.masked_fill_((slopes >= limit) & (slopes > 0), 0)

    def _step(
        self, p: Problem, chi: Tensor, residual: Tensor, w2: Tensor, free: Tensor, fluid: Tensor | None
    ) -> Tensor:
        """The step that minimises the quadratic which touches the cost at `chi` and lies above it."""
        inside = p.support.to(w2.dtype) if self.support else torch.ones_like(w2)
        length = gradient(p.grid)(chi).mul_(free).square_().sum(0).add_(self.rounding_ppm_per_mm**2).sqrt_()
        flat, d = diffusion(p.grid, free / length), p.d

        def with_penalty(pull: Tensor, x: Tensor) -> Tensor:
            pull = pull.add_(flat(x), alpha=self.alpha)
            if fluid is not None:
                pull = pull.add_((x - x[fluid].mean()) * fluid, alpha=self.csf_weight)
            return pull.mul_(inside)

        # roughly the inverse, were weights and gradients the same everywhere
        trust = float(w2.sum() / inside.sum())
        stiffness = self.alpha * float((inside / length).sum() / inside.sum())
        rough = laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(w2.device).mul_(stiffness)
        rough = (rough + trust * (p.kernel.square() + 0.01)).reciprocal_()
        return cg(
            lambda x: with_penalty(d.H(d(x).mul_(w2)), x),
            with_penalty(d.H(residual.mul_(w2)), chi).neg_(),
            iterations=self.inner_iterations,
            tolerance=self.inner_tolerance,
            precondition=lambda r: p.volume(p.spectrum(r).mul_(rough)).mul_(inside),
            what="MEDI step",
        )


def _pairs(mask: Bool[Tensor, "x y z"]) -> Bool[Tensor, "3 x y z"]:
    """Where a voxel and the next along each axis both lie in the mask."""
    return torch.stack([mask & torch.roll(mask, -1, a) for a in range(3)])


def filtered(p: Problem, radius_mm: float) -> Problem:
    """The problem with its spherical mean taken away: field, model, and the rim where the sphere leaves."""
    sphere = sphere_kernel(p.grid.voxel_mm, radius_mm, p.grid.shape).to(p.kernel.device)
    mask = p.box.take(p.field.mask).to(p.ppm.dtype)
    fits = p.volume(p.spectrum(mask).mul_(sphere)) > 1 - 1e-3
    if not fits.any():
        raise ValueError(f"MEDI smv_mm {radius_mm} leaves no voxel of the mask: choose a smaller radius")
    rest = p.volume(p.spectrum(p.ppm).mul_(1 - sphere))
    return replace(p, ppm=rest * fits, weight=p.weight * fits, kernel=p.kernel * (1 - sphere))


def doubt(residual: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
    """Factor on w²: one, or (6σ/|r|)⁴ where a weighted residual is more than six standard deviations."""
    limit = 6 * residual[mask].std()
    return (limit / residual.abs().clamp_min(1e-30)).clamp_max(1).pow(4)

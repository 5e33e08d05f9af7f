"""Total variation with a linear or a non-linear data term, by alternating directions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track


@dataclass(frozen=True)
class FANSI:
    """Fit the field by a map that is smooth between edges: min ½‖w(Dχ − f)‖² + α‖∇χ‖₁.

    With `nonlinear` the data term is ‖w(exp iDφ_χ − exp iφ)‖²/2 at the mean echo time.
    Milovic et al. 2018, MRM 80:814, doi:10.1002/mrm.27073, and, for the splits, Bilgic 2015, MRM 73:1844.
    α is stated for maps in ppm, so its strength depends neither on echo time nor on B0; ∇ is per mm and
    isotropic. The non-linear solve starts from `warm` linear iterations, without which a strong source
    (−3.3 ppm at 7 T) sends it astray, and its curvature is floored at μ₂. These linear iterations believe
    the field, so it must be unwrapped; only with `warm` 0 do whole turns change nothing. With `support`, χ
    is also split at the mask before erosion. Two pairs of transforms an iteration.
    """

    alpha: float = 5e-5
    """Strength of total variation [ppm mm]; larger: flatter between edges."""
    nonlinear: bool = True
    """Compare complex signals rather than fields."""
    iterations: int = 150
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.01
    """Gradient of the map at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 1.0
    """Weight μ₂ of the split of the data term [no unit]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    mu_support: float = 0.1
    """Weight of the split of the support [no unit]; only speed depends on it."""
    warm: int = 40
    """Linear iterations before the non-linear ones; 0 or more."""

    def __post_init__(self) -> None:
        for name in ("alpha", "edge_ppm_per_mm", "mu_data", "mu_support"):
            if getattr(self, name) <= 0:
                raise ValueError(f"FANSI {name} {getattr(self, name)} must be positive")
        if self.iterations < 1 or self.warm < 0:
            raise ValueError("FANSI needs at least one iteration, and warm must not be negative")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p, to_rad = problem(local), local.scan.rad_per_ppm
        mu1, mu2 = self.alpha / self.edge_ppm_per_mm, self.mu_data
        mu4 = self.mu_support if self.support else 0.0
        d, w2 = p.kernel, p.weight.square()
        e2 = laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(d.device)
        inverse = mu1 * e2 + mu2 * d.square() + mu4
        inverse[0, 0, 0] = 1 if mu4 == 0 else inverse[0, 0, 0]
        inverse = 1 / inverse
        if mu4 == 0:
            inverse[0, 0, 0] = 0

        tv = TVSplit(p.grid, torch.full_like(p.ppm, self.edge_ppm_per_mm))
        outside = ~p.support
        chi = torch.zeros_like(p.ppm)
        s2 = torch.zeros_like(chi)
        s4 = torch.zeros_like(chi)
        blind = self.nonlinear and self.warm == 0
        z2 = _complex_prox(chi, p.ppm, w2, mu2, to_rad) if blind else w2 * p.ppm / (w2 + mu2)
        rhs = torch.zeros_like(chi)
        updates: list[float] = []
        misfits: list[float] = []
        for i in track(self.iterations, "FANSI"):
            k = p.spectrum(mu1 * rhs - mu4 * s4 if mu4 else mu1 * rhs)
            k += p.spectrum(z2 - s2).mul_(mu2 * d)
            k *= inverse
            before, chi = chi, p.volume(k)
            dchi = p.volume(k * d)
            misfits.append(p.misfit(dchi))
            v2 = dchi.add_(s2)
            updates.append(float((chi - before).norm() / chi.norm().clamp_min(1e-30)))
            if updates[-1] <= self.tolerance and (i > self.warm or not self.nonlinear):
                break
            rhs = tv.step(chi)
            if self.nonlinear and i >= self.warm:
                z2 = _complex_prox(v2, p.ppm, w2, mu2, to_rad)
            else:
                z2 = (w2 * p.ppm + mu2 * v2) / (w2 + mu2)
            s2 = v2 - z2
            if mu4:  # z4 = v4 inside the support, 0 outside; so s4 = v4 outside, and z4 − s4 = χ inside
                v4 = chi + s4
                s4 = v4 * outside
                rhs = rhs + (mu4 / mu1) * (v4 * p.support)
        return p.answer(chi, updates, misfits, self.tolerance)


def _complex_prox(v: Tensor, f: Tensor, w2: Tensor, mu: float, to_rad: float) -> Tensor:
    """argmin over z of w²(1 − cos s(z−f))/s² + μ/2 (z−v)², by Newton from v, its curvature floored at μ."""
    z = v
    for _ in range(4):
        angle = to_rad * (z - f)
        slope = w2 * torch.sin(angle) / to_rad + mu * (z - v)
        curve = (w2 * torch.cos(angle)).clamp_min(0) + mu
        z = z - slope / curve
    return z

"""Rapid two-step inversion: least squares where the kernel is large, total variation for the rest."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.linear import Linear
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track
from k2chi.solve.lsqr import lsqr


@dataclass(frozen=True)
class RTS:
    """Keep what few steps of least squares find where |D| > δ, and fill the rest of k-space smoothly.

    First χ₁ from ‖w(Dχ − f)‖² by LSQR; then min ½‖H(Fχ − Fχ₁)‖² + α‖∇χ‖₁ with H = 1 where |D| > δ, else 0.
    Kames et al. 2018, NeuroImage 167:276, doi:10.1016/j.neuroimage.2017.11.018; the support is an addition.
    α is 1/μ of the paper, stated for maps in ppm; ∇ is per mm and isotropic. What the first step leaves out
    where |D| > δ, such as the contrast that more of its steps would find, the second does not bring back.
    Two pairs of transforms a step of least squares, one pair an iteration of the second step.
    """

    steps: int = 30
    """Steps of least squares; more: sharper, noisier."""
    delta: float = 0.15
    """Smallest |D| whose frequencies are kept [0 to 2/3]."""
    alpha: float = 2e-4
    """Strength of total variation [ppm mm]; larger: flatter between edges."""
    iterations: int = 80
    """Upper limit of the second step."""
    tolerance: float = 3e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.003
    """Gradient of the map at which the split begins to shrink [ppm/mm]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    mu_support: float = 0.1
    """Weight of the split of the support [no unit]; only speed depends on it."""

    def __post_init__(self) -> None:
        if not 0 < self.delta < 2 / 3:
            raise ValueError(f"RTS delta {self.delta} is out of range: choose 0 < delta < 2/3")
        for name in ("alpha", "edge_ppm_per_mm", "mu_support"):
            if getattr(self, name) <= 0:
                raise ValueError(f"RTS {name} {getattr(self, name)} must be positive")
        if self.steps < 1 or self.iterations < 1:
            raise ValueError("RTS needs at least one step and at least one iteration")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local, inside=self.support)
        inside = p.support if self.support else torch.ones_like(p.support)
        d, w = p.d, p.weight
        fit = Linear(lambda x: d(x * inside).mul_(w), lambda r: d.H(r * w).mul_(inside))
        chi, updates, misfits = lsqr(fit, w * p.ppm, self.steps, what="RTS")

        mu1, mu4 = self.alpha / self.edge_ppm_per_mm, self.mu_support if self.support else 0.0
        kept = (p.kernel.abs() > self.delta).to(chi.dtype)
        kept[0, 0, 0] = 0 if mu4 else 1  # the mean is free where the support fixes it
        inverse = 1 / (kept + mu1 * laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(kept.device) + mu4)
        kept = p.spectrum(chi).mul_(kept)
        tv = TVSplit(p.grid, torch.full_like(chi, self.edge_ppm_per_mm))
        s = torch.zeros_like(chi)
        changes = list(updates)
        for _ in track(self.iterations, "RTS"):
            rhs = tv.step(chi).mul_(mu1)
            if mu4:  # the split is v inside and 0 outside, so its dual lives outside only
                v = chi + s
                s = v * ~inside
                rhs = rhs.add_(v * inside - s, alpha=mu4)
            before, chi = chi, p.volume(p.spectrum(rhs).add_(kept).mul_(inverse))
            changes.append(float((chi - before).norm() / chi.norm().clamp_min(1e-30)))
            if changes[-1] <= self.tolerance:
                break
        return p.answer(chi, changes, [*misfits, p.misfit(d(chi))], self.tolerance)

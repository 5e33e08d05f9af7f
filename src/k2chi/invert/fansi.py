"""Total variation with a linear or a non-linear data term, by alternating directions."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.invert.splits import TV, Splits, edges, quadratic, refuse, wave
from k2chi.invert.tgv import TGV


@dataclass(frozen=True)
class FANSI:
    """Fit the field by a map that is smooth between edges: min ½‖w(Dχ − f)‖² + α‖R∇χ‖₁.

    With `nonlinear` the data term is ‖w(exp iDφ_χ − exp iφ)‖²/2 at the mean echo time.
    Milovic et al. 2018, MRM 80:814, doi:10.1002/mrm.27073, and, for the splits, Bilgic et al. 2014,
    MRM 72:1444, doi:10.1002/mrm.25029.
    α is stated for maps in ppm, so its strength depends neither on echo time nor on B0; ∇ is per mm and
    isotropic. With `support`, χ is also split at the mask before erosion, its jump to zero there costs
    nothing, and its field does not wrap around. The non-linear solve starts from `warm` linear iterations,
    without which a strong source (−3.3 ppm at 7 T) sends it astray, and bends the data term never down.
    These linear iterations believe the field, so it must be unwrapped; only with `warm` 0 do whole turns
    change nothing. Two pairs of transforms an iteration.
    """

    alpha: float = 5e-5
    """Strength of total variation [ppm mm]; larger: flatter between edges."""
    nonlinear: bool = True
    """Compare complex signals rather than fields."""
    iterations: int = 150
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 0.1
    """Weight μ₂ of the split of the data term [no unit]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    mu_support: float = 0.01
    """Weight of the split of the support [no unit]; only speed depends on it."""
    warm: int = 20
    """Linear iterations before the non-linear ones; 0 or more."""
    edges: bool = False
    """Weaken total variation where the magnitude has edges."""
    tgv: bool = False
    """Second-order total generalised variation instead: slopes cost nothing; five pairs of transforms."""
    second_mm: float = 2.0
    """With `tgv`: strength of the second order relative to the first, α₀/α₁ [mm]."""

    def __post_init__(self) -> None:
        positive = ("alpha", "edge_ppm_per_mm", "mu_data", "mu_support", "second_mm")
        refuse(self, positive, {"iterations": 1, "warm": 0})

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local, inside=self.support)
        r = edges(p) if self.edges else torch.ones_like(p.ppm)
        alpha, edge, free = self.alpha, self.edge_ppm_per_mm, self.support
        prior = TGV(p, alpha, self.second_mm, edge, r, free) if self.tgv else TV(p, alpha, edge, r, free)
        splits = Splits(p, prior, self.mu_data, self.mu_support if self.support else 0.0)
        linear = quadratic(self.mu_data)
        if not self.nonlinear:
            splits.run(linear, self.iterations, self.tolerance, "FANSI")
        else:
            splits.run(linear, min(self.warm, self.iterations), what="FANSI, linear start")
            complex_fit = wave(self.mu_data, local.scan.rad_per_ppm)
            splits.run(complex_fit, self.iterations - self.warm, self.tolerance, "FANSI")
        return splits.answer(self.tolerance)

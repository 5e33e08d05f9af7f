"""Two stages: least absolute deviation finds the voxels that lie, least squares then does without them."""

from dataclasses import dataclass

from k2chi.data import Chi, Field
from k2chi.invert.splits import absolute, begin, quadratic, refuse


@dataclass(frozen=True)
class HDQSM:
    """Fit by least absolute deviation first, then by least squares with less weight where that fit was bad.

    Stage 1: min ‖w(Dχ − f)‖₁ + α₁‖R∇χ‖₁. Discrepancy d = |Dχ − f| / max|Dχ − f|. Stage 2, from there:
    min ½‖w(1 − d)(Dχ − f)‖² + α₂‖R∇χ‖₁.
    Lambert et al. 2022, MRM, doi:10.1002/mrm.29218, where α₁ = √α₂; here both are settings, as they have
    different units. Both terms are linear: the field must be unwrapped, and strong sources do no harm.
    `support` as in FANSI. Two pairs of transforms an iteration.
    """

    alpha: float = 5e-5
    """Strength α₂ of total variation in the second stage [ppm mm]; larger: flatter between edges."""
    alpha_l1: float = 5e-2
    """Strength α₁ of total variation in the first stage [mm]."""
    iterations_l1: int = 100
    """Iterations of the first stage."""
    iterations: int = 150
    """Upper limit of the second stage."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which its split begins to shrink [ppm/mm]; only speed depends on it."""
    error_ppm: float = 0.03
    """Field error at which the first stage's split of the data begins to shrink [ppm]."""
    mu_data: float = 0.1
    """Weight of the second stage's split of the data [no unit]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    edges: bool = False
    """Weaken total variation where the magnitude has edges."""

    def __post_init__(self) -> None:
        strengths = ("alpha", "alpha_l1", "edge_ppm_per_mm", "error_ppm", "mu_data")
        refuse(self, strengths, {"iterations": 1, "iterations_l1": 1})

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        mu, share = 1 / self.error_ppm, 0.1 if self.support else 0.0
        first = begin(local, self.alpha_l1, self.edge_ppm_per_mm, mu, share * mu, self.edges)
        first.run(quadratic(0.1), 20, what="HD, start")  # as strong sources would take long otherwise
        first.run(absolute(mu), self.iterations_l1, what="HD, least absolute deviation")
        wrong = first.residual().abs()
        start, mu = first.chi, self.mu_data
        updates, misfits = first.updates, first.misfits
        del first
        second = begin(local, self.alpha, self.edge_ppm_per_mm, mu, share * mu, self.edges, start)
        second.w *= 1 - wrong / wrong.max().clamp_min(1e-30)
        second.updates, second.misfits = updates, misfits
        second.run(quadratic(mu), self.iterations, self.tolerance, "HD, least squares")
        return second.answer(self.tolerance)

"""Total variation with a data term that forgives outliers."""

from dataclasses import dataclass

from k2chi.data import Chi, Field
from k2chi.invert.splits import absolute, begin, chord, quadratic, refuse


@dataclass(frozen=True)
class L1QSM:
    """Fit the complex signal by least absolute deviation: min ‖w(exp iDφ_χ − exp iφ)‖₁ + α‖R∇χ‖₁.

    Milovic et al. 2022, MRM 87:457, doi:10.1002/mrm.28957. A voxel that contradicts its neighbours costs its
    distance, not the square of it, so it makes no streaks. The data term is divided by the phase of one
    ppm at the mean echo time, so α depends neither on echo time nor on B0. The published split of the
    complex difference is not needed: it has length 2|sin(r/2)|, of which each iteration takes the tangent
    at the present residual r [rad], a weighted absolute value. The first `warm` iterations are least
    squares of fields, else a strong source leads astray; so the field must be unwrapped. `support` as in
    FANSI. Two pairs of transforms an iteration.
    """

    alpha: float = 5e-2
    """Strength of total variation [mm]; larger: flatter between edges."""
    nonlinear: bool = True
    """Compare complex signals rather than fields."""
    iterations: int = 150
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which its split begins to shrink [ppm/mm]; only speed depends on it."""
    error_ppm: float = 0.01
    """Field error at which the split of the data begins to shrink [ppm]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    warm: int = 20
    """Least-squares iterations to start with; 0 or more."""
    edges: bool = False
    """Weaken total variation where the magnitude has edges."""

    def __post_init__(self) -> None:
        refuse(self, ("alpha", "edge_ppm_per_mm", "error_ppm"), {"iterations": 1, "warm": 0})

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        mu = 1 / self.error_ppm
        splits = begin(
            local, self.alpha, self.edge_ppm_per_mm, mu, 0.1 * mu if self.support else 0.0, self.edges
        )
        # Least absolute deviation moves by error_ppm an iteration, which is slow for a strong source.
        splits.run(quadratic(0.1), min(self.warm, self.iterations), what="L1, least-squares start")
        data = chord(mu, local.scan.rad_per_ppm) if self.nonlinear else absolute(mu)
        splits.run(data, self.iterations - self.warm, self.tolerance, "L1")
        return splits.answer(self.tolerance)

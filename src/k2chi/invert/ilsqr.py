"""Least squares, from which an estimate of the streaks is taken away."""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem
from k2chi.ops.diffusion import diffusion
from k2chi.ops.finite import gradient
from k2chi.ops.linear import Linear
from k2chi.ops.sphere import spherical_mean
from k2chi.solve.cg import cg
from k2chi.solve.lsqr import lsqr

NARROW, WIDE = 0.006, 0.167
"""|D| that one and thirty per cent of all directions stay below."""


@dataclass(frozen=True)
class ILSQR:
    """Fit the field, then take away the streaks: the part of the cone that ripples where no edge is known.

    χ₁ from ‖w(Dχ − f)‖² by LSQR; a crude map χ₂ = F⁻¹[sign(D) F f], smoothed inside the cone, tells where
    edges are; streaks s minimise ‖w_G ∇(χ₁ − s)‖² with F s zero where |D| > t; the answer is χ₁ − s.
    Li et al. 2015, NeuroImage 108:111, doi:10.1016/j.neuroimage.2014.12.043; the support is an addition.
    w_G falls from one to zero between two quantiles of each component of |∇χ₂|. LSQR stops early, which
    regularises. Two pairs of transforms a step of LSQR, one pair a step for the streaks.
    """

    iterations: int = 50
    """Upper limit of LSQR steps; more: sharper, noisier."""
    tolerance: float = 5e-3
    """Stop LSQR once an update is this fraction of the map, and the streaks at this relative residual."""
    threshold: float = 0.1
    """Largest |D| where streaks may live [0 to 2/3]."""
    streak_iterations: int = 5
    """Upper limit of conjugate-gradient steps for the streaks."""
    smooth_mm: float = 2.0
    """Radius of the sphere over which the crude map is averaged inside the cone [mm]."""
    flat: float = 0.5
    """Share of the gradient that surely is no edge [0 to 1]."""
    edge: float = 0.7
    """Share of the gradient above which all is edge [0 to 1], not less than `flat`."""
    support: bool = True
    """Keep χ₁ at zero outside the mask as it was before any erosion."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2 / 3:
            raise ValueError(f"ILSQR threshold {self.threshold} is out of range: choose 0 < threshold < 2/3")
        if not 0 <= self.flat <= self.edge <= 1:
            raise ValueError(f"ILSQR needs 0 ≤ flat ≤ edge ≤ 1, not {self.flat} and {self.edge}")
        if self.iterations < 1 or self.streak_iterations < 1:
            raise ValueError("ILSQR needs at least one iteration of each kind")
        if self.smooth_mm <= 0:
            raise ValueError(f"ILSQR smooth_mm {self.smooth_mm} must be positive")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local, inside=self.support)
        inside = p.support if self.support else torch.ones_like(p.support)
        d, w = p.d, p.weight
        fit = Linear(lambda x: d(x * inside).mul_(w), lambda r: d.H(r * w).mul_(inside))
        chi, updates, misfits = lsqr(fit, w * p.ppm, self.iterations, self.tolerance, "ILSQR")
        # where the field is not trusted, the crude map looks at the field of the first one
        field = d(chi)
        field = field + w * (p.ppm - field)
        even = self._flatness(p, _crude(p, field, self.smooth_mm))
        cone = (p.kernel.abs() < self.threshold).to(chi.dtype)
        cone[0, 0, 0] = 0

        def in_cone(x: Tensor) -> Tensor:
            return p.volume(p.spectrum(x).mul_(cone))

        ripple = diffusion(p.grid, even.square())
        streaks = cg(
            lambda s: in_cone(ripple(s)),
            in_cone(ripple(chi)),
            iterations=self.streak_iterations,
            tolerance=self.tolerance,
            what="ILSQR streaks",
        )
        chi = chi - streaks
        return p.answer(chi, updates, [*misfits, p.misfit(d(chi * inside))], self.tolerance)

    def _flatness(self, p: Problem, crude: Float[Tensor, "x y z"]) -> Float[Tensor, "3 x y z"]:
        """w_G: one where the crude map is flat, zero at edges and where either end lies outside."""
        slopes = gradient(p.grid)(crude).abs_()
        for a in range(3):
            pair = p.support & torch.roll(p.support, -1, a)
            values = slopes[a][pair].sort().values
            if values.numel() == 0:
                slopes[a] = 0
                continue
            low, high = (float(values[round(q * (values.numel() - 1))]) for q in (self.flat, self.edge))
            slopes[a] = ((high - slopes[a]) / max(high - low, 1e-30)).clamp_(0, 1) * pair
        return slopes


def _crude(p: Problem, field: Float[Tensor, "x y z"], radius_mm: float) -> Float[Tensor, "x y z"]:
    """sign(D) in place of 1/D, the cone filled twice from the smoothed map: soft edges, hardly any streaks.

    How much of the map itself stays rises with log|D| from `NARROW` to `WIDE`.
    """
    own = ((p.kernel.abs().clamp_min(1e-9) / NARROW).log() / log(WIDE / NARROW)).clamp(0, 1)
    mean = spherical_mean(p.grid, radius_mm, field.device)
    sign = (p.kernel / NARROW).clamp(-1, 1)
    chi = p.volume(p.spectrum(field * p.support).mul_(sign)) * p.support
    for _ in range(2):
        smooth = p.spectrum(mean(chi))
        chi = p.volume(p.spectrum(chi).sub_(smooth).mul_(own).add_(smooth)) * p.support
    return chi

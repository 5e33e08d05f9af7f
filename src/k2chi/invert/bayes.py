"""Least absolute deviation whose voxel weights learn from the residuals and the noise."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.splits import Splits, absolute, begin, chord, quadratic, refuse


@dataclass(frozen=True)
class BayesL1:
    """L1 inversion, weights re-estimated in between: the most probable map and noise scales, in turn.

    Built so: the residual r of voxel i is Laplace-distributed with a scale bᵢ of its own, and bᵢ has an
    inverse-gamma prior whose mode is c·nᵢ. nᵢ is the noise model: the scan's noise [ppm] if it is known,
    else 1/wᵢ; c, one number for all voxels, makes its mean that of |r|, so that the model says where the
    noise is, and the residuals how much. Given χ the most probable scale is bᵢ = (ν c nᵢ + m m̄ᵢ)/(ν +
    m), where m̄ᵢ is the mean of |r| over the m voxels (27, fewer at the rim) around i; given b, χ
    minimises Σ uᵢ|Dχ − f|ᵢ + α‖R∇χ‖₁ with uᵢ = min(1, b̄/bᵢ) and b̄ the mean scale: L1-QSM (Milovic et
    al. 2022, doi:10.1002/mrm.28957) with weights that only fall. Both steps take turns `rounds` times,
    each going on from the last, the first from 20 iterations of least squares. The deep-nuclei study
    names "iterative L1 inversion with dynamically updated Bayesian weights" and gives no formula; this is
    our reading of it. Two pairs of transforms an iteration.
    """

    alpha: float = 5e-2
    """Strength of total variation [mm]; larger: flatter between edges."""
    trust: float = 100.0
    """ν, how many residuals the noise model is worth [voxels]; a neighbourhood has 27."""
    rounds: int = 4
    """How often the weights are estimated."""
    iterations: int = 40
    """Upper limit of iterations between two estimates; twice as many after the last."""
    tolerance: float = 1e-3
    """Stop a round once an update is this fraction of the map; 0 runs all iterations."""
    nonlinear: bool = True
    """Compare complex signals rather than fields, after a first linear round."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which its split begins to shrink [ppm/mm]; only speed depends on it."""
    error_ppm: float = 0.01
    """Field error at which the split of the data begins to shrink [ppm]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    edges: bool = False
    """Weaken total variation where the magnitude has edges."""

    def __post_init__(self) -> None:
        positive = ("alpha", "trust", "edge_ppm_per_mm", "error_ppm")
        refuse(self, positive, {"rounds": 1, "iterations": 1})

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        mu = 1 / self.error_ppm
        splits = begin(
            local, self.alpha, self.edge_ppm_per_mm, mu, 0.1 * mu if self.support else 0.0, self.edges
        )
        noise = self._noise(local, splits)
        splits.w = (noise.median() / noise).clamp_max(1)
        splits.run(quadratic(0.1), 20, what="Bayesian L1, least-squares start")
        data = absolute(mu)
        for i in range(self.rounds):
            splits.run(data, self.iterations, self.tolerance, f"Bayesian L1, round {i + 1}")
            splits.w = self._weights(splits, noise)
            data = chord(mu, local.scan.rad_per_ppm) if self.nonlinear else data
        splits.run(data, 2 * self.iterations, self.tolerance, "Bayesian L1, last round")
        return splits.answer(self.tolerance)

    def _noise(self, local: Field, splits: Splits) -> Float[Tensor, " n"]:
        """The noise model at the voxels with data, in any unit."""
        if local.noise_ppm is None:
            return 1 / splits.w
        noise = torch.where(local.mask, local.noise_ppm, torch.zeros_like(local.noise_ppm))
        known = splits.p.box.take(noise).flatten()[splits.here]
        if not (torch.isfinite(known).all() and (known > 0).any()):
            return 1 / splits.w
        return known.clamp_min(float(known[known > 0].median()) * 1e-2)

    def _weights(self, splits: Splits, noise: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """min(1, b̄/b) from the residuals around each voxel and the noise model."""
        size = splits.residual().abs()
        expected = noise * (size.mean() / noise.mean())
        volume = torch.zeros_like(splits.chi)
        count = torch.zeros_like(volume)
        volume.view(-1)[splits.here] = size
        count.view(-1)[splits.here] = 1

        def around(x: Tensor) -> Tensor:
            total = 27 * torch.nn.functional.avg_pool3d(x[None, None], 3, stride=1, padding=1)
            return total.flatten()[splits.here]

        scale = (self.trust * expected + around(volume)) / (self.trust + around(count))
        return (scale.mean() / scale.clamp_min(1e-12)).clamp_max(1)

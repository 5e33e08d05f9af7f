"""Two inversions, with and without the voxels whose field cannot be trusted, laid over one another."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.fansi import FANSI
from k2chi.invert.problem import problem
from k2chi.invert.single import SinglePass
from k2chi.solve.cg import cg

MEAN_D2 = 4 / 45
"""Mean of D² over all directions: what the field of one voxel, sent back through D, leaves in that voxel."""


@dataclass(frozen=True)
class TwoPass:
    """Invert once from the reliable voxels and once from all of them, and keep each map where it holds.

    χ = χ₁ where the field is reliable, χ₂ elsewhere, after Stewart et al. 2022, MRM 87:1289,
    doi:10.1002/mrm.29048, with weights in the place of their phase quality.
    A strong source (calcification, haemorrhage, clip) has little signal, so its own field is mostly wrong,
    and its map streaks far. Its true field in the reliable voxels would streak too, so it is explained first,
    by sources in the unreliable voxels alone (an addition: published pipelines remove it with the
    background): χ₁ inverts what is left, and those sources are part of the map. χ₂ is shifted to the mean of
    χ₁. Where every voxel is reliable there is one pass. Costs twice `inner` and 20 pairs of transforms.
    """

    inner: SinglePass = FANSI()
    """The inversion that both passes use."""
    threshold: float = 0.2
    """A voxel is reliable if its weight is at least this share of the median weight [0 to 1]."""
    strong_ppm: float = 0.25
    """Unreliable voxels are fitted first where the field around them, projected back, exceeds this [ppm]."""
    fit_iterations: int = 10
    """Steps of the fit of strong sources; more: sharper, until they explain the tissue's field too."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"TwoPass threshold {self.threshold} is out of range: choose 0 < threshold < 1")
        if self.strong_ppm <= 0 or self.fit_iterations < 1:
            raise ValueError("TwoPass needs a positive strong_ppm and at least one fit iteration")

    def __call__(self, local: Field) -> Chi:
        """Invert `local` twice. Iterations and misfit are told of the pass on reliable voxels."""
        support = local.mask if local.support is None else local.support
        local = replace(local, mask=local.mask & local.ppm.isfinite(), support=support)
        good = self.reliable(local)
        if bool((good == local.mask).all()):
            return self.inner(local)
        trusted = replace(local, mask=good)
        strong, explained = self._strong(trusted, local.mask & ~good)
        first = self.inner(replace(trusted, ppm=local.ppm - explained))
        second = self.inner(local)
        shift = first.ppm[good].mean() - second.ppm[good].mean()
        weak = support & ~good & (strong == 0)
        ppm = torch.where(weak, second.ppm + shift, first.ppm + strong)
        both = (first.converged, second.converged)
        sd = first.sd_ppm
        if sd is not None and second.sd_ppm is not None:
            sd = torch.where(weak, second.sd_ppm, sd)
        return replace(first, ppm=ppm, sd_ppm=sd, converged=None if None in both else all(both))

    def reliable(self, local: Field) -> Bool[Tensor, "x y z"]:
        """Voxels of the mask whose weight is not far below the usual one."""
        known = local.mask & local.weight.isfinite()
        believed = local.weight[known & (local.weight > 0)]
        if not believed.numel():
            return local.mask  # nothing to rely on: one pass says what it can
        return known & (local.weight >= self.threshold * believed.median())

    def _strong(self, trusted: Field, bad: Tensor) -> tuple[Tensor, Tensor]:
        """Sources in the voxels `bad` that explain the trusted field, and their field [ppm]."""
        p = problem(trusted, inside=True)
        d, w2 = p.d, p.weight.square()
        seen = d.H(w2 * p.ppm)
        usual = MEAN_D2 * float(w2[w2 > 0].median())
        here = p.box.take(bad) & (seen.abs() > self.strong_ppm * usual)
        shape = trusted.grid.shape
        if not here.any():
            none = torch.zeros_like(trusted.ppm)
            return none, none
        chi = cg(
            lambda x: d.H(w2 * d(x)) * here,
            seen * here,
            iterations=self.fit_iterations,
            tolerance=1e-3,
            what="strong sources",
        )
        return p.box.put(chi, shape), p.box.put(d(chi), shape)

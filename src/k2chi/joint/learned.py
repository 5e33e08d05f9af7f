"""Background and brain at once by a trained network."""

from dataclasses import dataclass, replace

import torch

from k2chi.data import Chi, Field
from k2chi.invert.learned import Learned
from k2chi.invert.problem import problem
from k2chi.nets.weights import trained

ROOM_MM = 30.0
"""Room for sources around the mask, as `TotalFieldTV` has it."""


@dataclass(frozen=True)
class LearnedTotal:
    """Let a trained network explain the total field by a brain it knows and by free sources around it.

    The first guess of the sources outside is that of projection onto dipoles, Liu T et al. 2011, NMR Biomed
    24:1129, doi:10.1002/nbm.1670; each unrolled step then moves inside and outside together, and a
    regulariser corrects the inside, as in `Learned`. Where the background is what limits a map, that is from
    phase nearly always, it errs less than a background step before `Learned` does (see the card). A network
    may invent structure that no data support: compare with `TotalFieldTV`.
    """

    weights: str = "adaptive-tv-total"
    """Name of weights in the package, or a .safetensors file that `k2chi train` made."""
    refine: int | None = None
    """Steps that fit the map, and the sources outside, to this scan's own field. Left out: as many
    as suit the network."""
    half: bool = False
    """Compute the network's layers in bfloat16."""

    def __post_init__(self) -> None:
        if (self.refine or 0) < 0:
            raise ValueError(f"LearnedTotal refine {self.refine} is no number of steps: choose 0 or more")

    def __call__(self, total: Field) -> Chi:
        """Invert the total field. The map is zero outside the mask and has no reference yet."""
        known = trained(self.weights, total.ppm.device)
        if known.card.takes != "total":
            raise ValueError(f"the network {known.card.name} takes the local field: use Learned")
        inside = total.mask & torch.isfinite(total.ppm)
        mean = total.ppm[inside].mean() if inside.any() else total.ppm.new_zeros(())
        centred = replace(total, ppm=torch.where(inside, total.ppm - mean, torch.zeros_like(total.ppm)))
        chi = Learned(self.weights, self.refine, self.half).answered(problem(centred, True, ROOM_MM), known)
        return replace(chi, misfits=())  # those would count the background, which is no part of the map

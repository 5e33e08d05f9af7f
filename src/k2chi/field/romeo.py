"""Exact unwrapping along the most reliable path."""

from dataclasses import dataclass, replace
from math import tau

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Echoes
from k2chi.field import growing
from k2chi.field.turns import (
    Array,
    Mode,
    Regions,
    add_turns,
    as_numpy,
    check_template,
    find_regions,
    magnitude_of,
    number_parts,
    phase_of,
    settled,
    strides,
    unwrap_echoes,
)


@dataclass(frozen=True)
class ROMEO:
    """Unwrap by growing a region along the surest steps first; only whole turns are ever added.

    A step between neighbours is trusted by the product of how small it is, how well it agrees with the
    next echo, how linear the phase is and how even the magnitude is. In template mode one echo is unwrapped
    in space and the others are unwrapped in time: φ_k = ψ_k − 2π round((ψ_k − p_k)/2π), where p_k is the
    weighted fit through the origin of all echoes unwrapped so far (the original predicts from one echo).

    Dymerska et al. 2021, Magn Reson Med 85:2294, doi:10.1002/mrm.28563.
    Remove the phase offset first: time unwrapping believes that phase is zero at TE = 0. Voxels outside the
    mask are unwrapped too, after those inside; voxels that are NaN, infinite or zero get 0. Parts of the
    mask that do not touch take the turns that agree best with the other echoes, or with the nearest voxels
    of the largest part. 164×205×205 with 4 echoes: about 4 s on one core.
    """

    mode: Mode = "template"
    """`template`: one echo in space, the others in time. `individual`: each echo in space."""
    template: int = 0
    """Which echo is unwrapped in space, counted from 0; the first has the fewest wraps."""
    regrow_above: float = 0.0
    """Unwrap voxels in space after all if they miss the prediction in time by more than this share of half a
    turn, 0 to 1; 0 never does."""

    def __post_init__(self) -> None:
        check_template("ROMEO", self.template)
        if not 0 <= self.regrow_above <= 1:
            raise ValueError(f"ROMEO regrow_above {self.regrow_above}: choose a share from 0 to 1")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, which differs from their phase by whole turns."""

        def in_space(k: int, phase: Array, regions: Regions) -> Array:
            return _in_space(phase, _costs(echoes, k, regions.usable), regions)

        def again(k: int, unwrapped: Array, guess: Array, regions: Regions) -> Array:
            sure = np.abs(unwrapped - guess) <= self.regrow_above * tau / 2
            phase = np.where(regions.usable, phase_of(echoes, k), 0)
            return _in_space(phase, _costs(echoes, k, regions.usable), regions, sure, unwrapped)

        return unwrap_echoes(echoes, self.mode, self.template, in_space, again if self.regrow_above else None)


def quality_map(echoes: Echoes, echo: int = 0) -> Float[Tensor, "x y z"]:
    """How far the phase of each voxel can be trusted, 0 to 1: the mean of its six edge weights."""
    costs = _costs(echoes, echo, find_regions(replace(echoes, mask=None)).usable)
    quality = np.empty(costs.shape[1:], np.float32)
    growing.mean_quality(costs, quality)
    return torch.from_numpy(quality).to(echoes.signal.device)


def unwrap_in_space(
    phase: Float[Tensor, "x y z"],
    magnitude: Float[Tensor, "x y z"],
    mask: Bool[Tensor, "x y z"] | None = None,
) -> Float[Tensor, "x y z"]:
    """Unwrap one volume that is no echo (a phase difference, a fitted frequency) by whole turns."""
    psi, size = as_numpy(phase).copy(), as_numpy(magnitude)
    usable = np.isfinite(psi) & np.isfinite(size) & (size > 0)
    psi[~usable] = 0
    inside = usable if mask is None else usable & as_numpy(mask)
    regions = Regions(usable, inside, number_parts(inside))
    costs = np.empty((3, *psi.shape), np.uint8)
    growing.edge_costs(psi, size, usable, psi[:0], 0.0, costs)
    return torch.from_numpy(settled(_in_space(psi, costs, regions), regions.parts)).to(phase.device)


def _costs(echoes: Echoes, k: int, usable: Array) -> Array:
    te = echoes.scan.te_s
    costs = np.empty((3, *echoes.grid.shape), np.uint8)
    twin = (k + 1 if k + 1 < len(te) else k - 1) if len(te) > 1 else k
    phase = phase_of(echoes, k)
    other = phase_of(echoes, twin) if twin != k else phase[:0]
    growing.edge_costs(phase, magnitude_of(echoes, k), usable, other, te[k] / te[twin], costs)
    return costs


def _in_space(
    phase: Array, costs: Array, regions: Regions, known: Array | None = None, start: Array | None = None
) -> Array:
    """Phase plus the whole turns that growing finds, from voxels `known` to be right in `start` if given."""
    state = np.where(regions.usable, growing.TODO, growing.BARRED).astype(np.uint8).ravel()
    turns = np.zeros(phase.size, np.int16)
    if known is not None and start is not None:
        state[(known & regions.usable).ravel()] = growing.KNOWN
        turns[:] = np.rint((start - phase) / tau).ravel()
    growing.grow(
        phase.ravel(), costs.reshape(3, -1), regions.inside.ravel(), strides(phase.shape), state, turns
    )
    return add_turns(phase, turns)

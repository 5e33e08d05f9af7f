"""Whole turns between the parts of a mask and between echoes: what all path-following methods share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import tau
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from k2chi.data import Echoes
from k2chi.progress import track

Array = NDArray[Any]
Mode = Literal["template", "individual"]


@dataclass(frozen=True, eq=False)
class Regions:
    """Where there is a phase to unwrap."""

    usable: Array
    """Voxels with a phase in every echo."""
    inside: Array
    """Those of them inside the mask."""
    parts: Array
    """Numbers of the connected parts of `inside`, the largest 1; 0 outside."""


def check_template(who: str, template: int) -> None:
    """Refuse a template that is no echo of any scan."""
    if template < 0:
        raise ValueError(f"{who} template {template}: echoes are counted from 0")


def unwrap_echoes(
    echoes: Echoes,
    mode: Mode,
    template: int,
    in_space: Callable[[int, Array, Regions], Array],
    again: Callable[[int, Array, Array, Regions], Array] | None = None,
) -> Echoes:
    """The same echoes with `unwrapped_rad`, which differs from their phase by whole turns.

    `in_space(k, phase, regions)` adds turns to the wrapped phase of echo k (0 where not usable), with any
    number of turns for each part of the mask. `again(k, unwrapped, guess, regions)`, if given, mends an echo
    that was unwrapped in time.
    """
    te, who = echoes.scan.te_s, "the template of unwrapping"
    if template >= len(te):
        raise ValueError(f"{who} is echo {template}, but there are {len(te)} echoes, counted from 0")
    regions = find_regions(echoes)
    order = [*range(template, len(te)), *range(template - 1, -1, -1)]
    out = np.empty(echoes.signal.shape, phase_of(echoes, 0).dtype)
    ahead = np.zeros(out.shape[1:], out.dtype)
    power = np.zeros_like(ahead)
    for step in track(len(order), "unwrapping"):
        k = order[step]
        phase, magnitude = phase_of(echoes, k), magnitude_of(echoes, k)
        phase[~regions.usable] = 0
        guess = ahead * np.divide(te[k], power, out=np.zeros_like(power), where=power > 0)
        if step == 0:
            out[k] = settled(in_space(k, phase, regions), regions.parts)
            if len(te) > 1:
                out[k] += tau * _second_opinion(echoes, k, out[k], magnitude, regions.parts)
        elif mode == "individual":
            out[k] = in_space(k, phase, regions)
            out[k] += tau * _whole_turns(out[k] - guess, regions.parts)
        else:
            out[k] = phase + tau * np.rint((guess - phase) / tau)
            if again is not None:
                out[k] = again(k, out[k], guess, regions)
        out[k][~regions.usable] = 0
        weight = np.where(regions.usable, np.square(magnitude), 0)
        ahead += weight * out[k] * te[k]
        power += weight * te[k] ** 2
    return replace(echoes, unwrapped_rad=torch.from_numpy(out).to(echoes.signal.device))


def as_numpy(x: Tensor) -> Array:
    """The values on the CPU, next to each other in memory."""
    return np.ascontiguousarray(x.detach().cpu().numpy())


def phase_of(echoes: Echoes, k: int) -> Array:
    """Wrapped phase of echo k [rad]."""
    return as_numpy(torch.angle(echoes.signal[k]))


def magnitude_of(echoes: Echoes, k: int) -> Array:
    """Magnitude of echo k."""
    return as_numpy(echoes.signal[k].abs())


def find_regions(echoes: Echoes) -> Regions:
    """Usable voxels, those inside the mask, and the parts of these."""
    usable = np.ones(echoes.grid.shape, bool)
    for k in range(len(echoes.scan.te_s)):
        size = magnitude_of(echoes, k)
        usable &= np.isfinite(size) & (size > 0)
    inside = usable if echoes.mask is None else usable & as_numpy(echoes.mask)
    return Regions(usable, inside, number_parts(inside))


def number_parts(inside: Array) -> Array:
    """Number the connected parts of the mask, the largest 1."""
    parts, count = ndimage.label(inside)
    if count > 1:
        size = np.bincount(parts.ravel())
        size[0] = 0
        rank = np.zeros(count + 1, parts.dtype)
        rank[np.argsort(-size)[:count]] = np.arange(1, count + 1)
        parts = rank[parts]
    return np.asarray(parts)


def bordered(x: Array) -> Array:
    """A copy with one more voxel, 0, on every side: flat neighbours never leave the array."""
    return np.pad(x, 1)


def strides(shape: tuple[int, ...]) -> Array:
    """Voxels from a voxel to the next one along each axis of a flat volume."""
    return np.array([shape[1] * shape[2], shape[2], 1], np.int64)


def add_turns(phase: Array, turns: Array) -> Array:
    """Phase plus whole turns, in the precision of the phase."""
    added: Array = phase + (tau * turns.reshape(phase.shape)).astype(phase.dtype)
    return added


def add_bordered_turns(phase: Array, turns: Array) -> Array:
    """Phase plus the turns of a flat volume that `bordered` made larger."""
    nx, ny, nz = phase.shape
    return add_turns(phase, turns.reshape(nx + 2, ny + 2, nz + 2)[1:-1, 1:-1, 1:-1])


def settled(phase: Array, parts: Array) -> Array:
    """Phase with turns added to each part: the largest is centred on zero, others follow what they face."""
    phase = phase + tau * _whole_turns(phase, (parts == 1).astype(np.int32))
    if parts.max(initial=0) < 2:
        return phase
    distance, index = ndimage.distance_transform_edt(parts != 1, return_indices=True)
    weight = (parts > 1) / np.maximum(distance, 1) ** 6  # the side that faces the largest part decides
    moved: Array = phase + tau * _whole_turns(
        phase - phase[tuple(index)], np.where(parts > 1, parts, 0), weight
    )
    return moved


def _whole_turns(excess: Array, parts: Array, weight: Array | None = None) -> Array:
    """Turns to add to each part so that its mean excess is nearest to zero; outside as in part 1."""
    label, last = parts.ravel(), parts.max(initial=0)
    total = np.zeros(last + 1)
    if weight is None:
        total += np.bincount(label, weights=excess.ravel()) / np.maximum(np.bincount(label), 1)
    else:
        heavy = np.bincount(label, weights=weight.ravel())
        total += np.bincount(label, weights=(weight * excess).ravel()) / np.maximum(heavy, 1e-300)
    turns = -np.rint(total / tau)
    turns[0] = turns[1] if last else 0
    whole: Array = turns.astype(excess.dtype)[parts]
    return whole


def _second_opinion(echoes: Echoes, k: int, phase: Array, magnitude: Array, parts: Array) -> Array:
    """Turns to add to each part so that its phase predicts the next echo's, where that is clearly better."""
    te = echoes.scan.te_s
    twin = k + 1 if k + 1 < len(te) else k - 1
    seen, where = phase_of(echoes, twin), parts > 0
    label, weight = parts[where], np.square(magnitude[where])
    misses = []
    candidates = (0, -1, 1, -2, 2)
    for n in candidates:
        miss = 1 - np.cos(seen[where] - (phase[where] + tau * n) * te[twin] / te[k])
        misses.append(np.bincount(label, weights=weight * miss, minlength=parts.max(initial=0) + 1))
    best = np.argmin(misses, axis=0)
    clear = np.min(misses, axis=0) < 0.5 * misses[0]
    turns = np.where(clear, np.array(candidates)[best], 0)
    if turns.size > 1:
        turns[0] = turns[1]
    whole: Array = turns.astype(phase.dtype)[parts]
    return whole

"""Unwrapping from seeds in the order of their quality."""

from dataclasses import dataclass
from math import tau

import numpy as np
from numba import njit
from scipy import ndimage

from k2chi.data import Echoes
from k2chi.field.turns import (
    Array,
    Mode,
    Regions,
    add_bordered_turns,
    bordered,
    check_template,
    strides,
    unwrap_echoes,
)


@dataclass(frozen=True)
class SPUN:
    """Grow a region from voxels of high quality only; a voxel of less quality grows nothing before its turn.

    Quality is how well the steps of phase agree around a voxel: the length of the mean of exp(iΔψ) over the
    steps along one axis in its 3×3×3 neighbourhood, averaged over the axes; 1 for any linear phase, small in
    noise. It is cut into classes. The grown voxel of the best class is the next seed; its neighbours take
    the turns that bring them nearest to the mean of all neighbours that are known, and queue as seeds.

    Ye et al. 2019 (seed-prioritised unwrapping). No source: the paper could not be read, so measure and
    classes are ours, built from its idea that only good voxels may act as seeds.
    A steep but even slope counts as good, other than in `ROMEO`. Looks at phase alone. Voxels outside the
    mask follow after all inside; parts of the mask that do not touch take turns as in `ROMEO`, and echoes
    are made consistent as there.
    """

    classes: int = 128
    """Classes of quality, 1 to 128; within a class the latest seed is next."""
    mode: Mode = "template"
    """`template`: one echo in space, the others in time. `individual`: each echo in space."""
    template: int = 0
    """Which echo is unwrapped in space, counted from 0; the first has the fewest wraps."""

    def __post_init__(self) -> None:
        check_template("SPUN", self.template)
        if not 1 <= self.classes <= 128:
            raise ValueError(f"SPUN classes {self.classes}: choose 1 to 128")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, which differs from their phase by whole turns."""

        def in_space(k: int, phase: Array, regions: Regions) -> Array:
            place = ((1 - _quality(phase, regions.usable)) * self.classes).astype(np.int16)
            place = np.clip(place, 0, self.classes - 1) + np.where(regions.inside, 0, self.classes)
            place = bordered(place.astype(np.uint8)).ravel()
            todo = bordered(regions.usable).ravel()
            seeds = np.flatnonzero(todo).astype(np.int32)
            seeds = seeds[np.argsort(place[seeds], kind="stable")]
            psi = bordered(phase)
            turns = _grow(psi.ravel(), place, todo, seeds, strides(psi.shape))
            return add_bordered_turns(phase, turns)

        return unwrap_echoes(echoes, self.mode, self.template, in_space)


def _quality(phase: Array, usable: Array) -> Array:
    """Agreement of the steps around each voxel, 0 to 1; steps to voxels not usable count as none."""
    z = np.where(usable, np.exp(1j * phase.astype(np.float32)), 0).astype(np.complex64)
    total = np.zeros(phase.shape, np.float32)
    for axis in range(3):
        step = np.zeros_like(z)
        n = z.shape[axis]
        first = tuple(slice(0, n - 1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, n) if a == axis else slice(None) for a in range(3))
        step[first] = z[second] * z[first].conj()
        size = [2 if a == axis else 3 for a in range(3)]
        total += np.abs(ndimage.uniform_filter(step, size, mode="constant"))
    quality: Array = total / 3
    return quality


@njit(cache=True, nogil=True)
def _grow(phase: Array, place: Array, todo: Array, seeds: Array, stride: Array) -> Array:
    """Turns of every voxel `todo` (changed), lowest `place` in the queue first; `seeds` start new regions."""
    turns = np.zeros(phase.size, np.int16)
    known = np.zeros(phase.size, np.bool_)
    head = np.full(256, -1, np.int32)
    behind = np.empty(phase.size, np.int32)
    for start in seeds:
        if not todo[start]:
            continue
        todo[start], known[start] = False, True
        lowest = int(place[start])
        behind[start] = head[lowest]
        head[lowest] = start
        while lowest < 256:
            seed = head[lowest]
            if seed < 0:
                lowest += 1
                continue
            head[lowest] = behind[seed]
            for axis in range(3):
                for new in (seed - stride[axis], seed + stride[axis]):
                    if not todo[new]:
                        continue
                    total, count = 0.0, 0
                    for other in range(3):
                        for near in (new - stride[other], new + stride[other]):
                            if known[near]:
                                total += phase[near] + tau * turns[near]
                                count += 1
                    turns[new] = np.int16(np.rint((total / count - phase[new]) / tau))
                    todo[new], known[new] = False, True
                    behind[new] = head[place[new]]
                    head[place[new]] = new
                    lowest = min(lowest, int(place[new]))
    return turns

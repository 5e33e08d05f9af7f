"""Unwrapping from seeds in the order of their quality."""

from dataclasses import dataclass
from math import pi, tau

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

    Over the steps of phase along one axis in the 3×3×3 neighbourhood of a voxel, the mean of exp(iΔψ) has a
    length r (1 if all steps agree) and an angle α (their slope). Quality is the mean of r (1 − (α/π)⁴) over
    the axes, cut into classes: even slopes are good unless nearly half a turn steep. The grown voxel of the
    best class is the next seed. Its neighbours take the turns that bring them nearest to all the neighbours
    they have that are known, continued along the slope, and queue as seeds.

    Ye et al. 2019 (seed-prioritised unwrapping). No source: the paper could not be read, so measure and
    classes are ours, built from its idea that only good voxels may act as seeds.
    Looks at phase alone. Voxels outside the mask follow after all inside; parts of the mask that do not touch
    take turns as in `ROMEO`, and echoes are made consistent as there. Phase that bends by more than half a
    turn from one step to the next is not followed.
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
            quality, slope = _steps(phase, regions.usable)
            place = np.clip(((1 - quality) * self.classes).astype(np.int16), 0, self.classes - 1)
            place = place + np.where(regions.inside, 0, self.classes)
            place = bordered(place.astype(np.uint8)).ravel()
            todo = bordered(regions.usable).ravel()
            seeds = np.flatnonzero(todo).astype(np.int32)
            seeds = seeds[np.argsort(place[seeds], kind="stable")]
            psi = bordered(phase)
            slopes = np.stack([bordered(s).ravel() for s in slope])
            turns = _grow(psi.ravel(), slopes, place, todo, seeds, strides(psi.shape))
            return add_bordered_turns(phase, turns)

        return unwrap_echoes(echoes, self.mode, self.template, in_space)


EVEN = 0.5
"""Least agreement of steps for their mean to be a slope; else the slope is taken as zero."""


def _steps(phase: Array, usable: Array) -> tuple[Array, list[Array]]:
    """Agreement of the steps around each voxel, 0 to 1, and their mean [rad] along each axis.

    Steps to voxels that are not usable count as none, and so lower the agreement.
    """
    z = np.where(usable, np.exp(1j * phase.astype(np.float32)), 0).astype(np.complex64)
    quality, slope = np.zeros(phase.shape, np.float32), []
    for axis in range(3):
        step = np.zeros_like(z)
        n = z.shape[axis]
        first = tuple(slice(0, n - 1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, n) if a == axis else slice(None) for a in range(3))
        step[first] = z[second] * z[first].conj()
        size = [2 if a == axis else 3 for a in range(3)]
        mean = ndimage.uniform_filter(step, size, mode="constant")
        length, angle = np.abs(mean), np.angle(mean)
        quality += length * (1 - (angle / pi) ** 4) / 3
        slope.append(np.where(length > EVEN, angle, 0).astype(np.float32))
    return quality, slope


@njit(cache=True, nogil=True)
def _grow(phase: Array, slope: Array, place: Array, todo: Array, seeds: Array, stride: Array) -> Array:
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
                        for side in (-1, 1):
                            near = new + side * stride[other]
                            if known[near]:
                                total += phase[near] + tau * turns[near] - side * slope[other, new]
                                count += 1
                    turns[new] = np.int16(np.rint((total / count - phase[new]) / tau))
                    todo[new], known[new] = False, True
                    behind[new] = head[place[new]]
                    head[place[new]] = new
                    lowest = min(lowest, int(place[new]))
    return turns

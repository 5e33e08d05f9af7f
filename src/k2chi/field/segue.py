"""Unwrapping region by region: pieces in which phase cannot wrap are shifted as a whole."""

from dataclasses import dataclass
from math import pi, tau

import numpy as np
from numba import njit

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
class SEGUE:
    """Cut the volume into regions without a wrap and join them, those with the larger border first.

    Connected voxels whose phase lies in the same of `bins` equal ranges of −π … π make a region. Growing
    starts from the largest region. With d the mean of (φ grown − ψ)/2π over the faces that a region shares
    with what is grown, the next region is the one with most faces × (1 − 2|d − round d|); it takes round d
    turns.

    Karsa & Shmueli 2019, IEEE Trans Med Imaging 38:1347, doi:10.1109/TMI.2018.2884093.
    Our own growing from that description; that a border counts less where d lies between two turns is ours
    too. Fast where phase is smooth, since regions are large there; in noise every voxel is a region, and one
    with many neighbours hears them all. Looks at phase alone. Voxels outside the mask follow after all
    inside; parts of the mask that do not touch take turns as in `ROMEO`, and echoes are made consistent as
    there.
    """

    bins: int = 8
    """Ranges into which a turn of phase is cut, 4 to 100; more makes regions smaller (the original: 6)."""
    mode: Mode = "template"
    """`template`: one echo in space, the others in time. `individual`: each echo in space."""
    template: int = 0
    """Which echo is unwrapped in space, counted from 0; the first has the fewest wraps."""

    def __post_init__(self) -> None:
        check_template("SEGUE", self.template)
        if not 4 <= self.bins <= 100:
            raise ValueError(f"SEGUE bins {self.bins}: choose 4 to 100; wider ones hide wraps in noise")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, which differs from their phase by whole turns."""

        def in_space(k: int, phase: Array, regions: Regions) -> Array:
            return _in_space(phase, regions, self.bins)

        return unwrap_echoes(echoes, self.mode, self.template, in_space)


def _in_space(phase: Array, regions: Regions, bins: int) -> Array:
    bin_of = np.clip(((phase + pi) * (bins / tau)).astype(np.int16), 0, bins - 1) + 1
    bin_of = np.where(regions.usable, np.where(regions.inside, bin_of + bins, bin_of), 0).astype(np.uint8)
    label, voxels, start = _regions(bordered(bin_of).ravel(), strides(bordered(bin_of).shape))
    inside = bordered(regions.inside).ravel()[voxels[start[:-1]]]
    seeds = np.lexsort((-np.diff(start), ~inside))
    turns = _grow(
        bordered(phase).ravel(), label, voxels, start, inside, seeds, strides(bordered(bin_of).shape)
    )
    return add_bordered_turns(phase, np.append(turns, 0)[label])


@njit(cache=True, nogil=True)
def _regions(bin_of: Array, stride: Array) -> tuple[Array, Array, Array]:
    """Number the connected voxels of equal bin (bin 0 is outside, −1); list the voxels of each number."""
    label = np.full(bin_of.size, -1, np.int32)
    voxels = np.empty(np.count_nonzero(bin_of), np.int32)
    start = np.empty(voxels.size + 1, np.int32)
    count, end = 0, 0
    for seed in range(bin_of.size):
        if bin_of[seed] == 0 or label[seed] >= 0:
            continue
        start[count] = end
        at = end
        voxels[end] = seed
        label[seed] = count
        end += 1
        while at < end:
            here = voxels[at]
            at += 1
            for axis in range(3):
                for there in (here - stride[axis], here + stride[axis]):
                    if bin_of[there] == bin_of[seed] and label[there] < 0:
                        label[there] = count
                        voxels[end] = there
                        end += 1
        count += 1
    start[count] = end
    return label, voxels, start[: count + 1].copy()


LARGE = 1024
"""Places in the queue: four for each voxel face of a clear border, the last for all that are larger."""


@njit(cache=True, nogil=True)
def _grow(
    phase: Array, label: Array, voxels: Array, start: Array, inside: Array, seeds: Array, stride: Array
) -> Array:
    """Turns of each region. The queue is one stack for each size of border, those inside above the rest."""
    count = inside.size
    turns = np.zeros(count, np.int16)
    done = np.zeros(count, np.bool_)
    faces = np.zeros(count, np.int32)
    apart = np.zeros(count, np.float64)
    touched = np.empty(count, np.int32)
    marked = np.zeros(count, np.bool_)
    head = np.full(2 * LARGE, -1, np.int32)
    entry = np.empty(max(1024, count), np.int32)
    behind = np.empty(entry.size, np.int32)
    used, highest = 0, 0
    for seed in seeds:
        if done[seed]:
            continue
        region = seed
        while True:
            done[region] = True
            if faces[region] > 0:
                turns[region] = np.int16(np.rint(apart[region] / faces[region] / tau))
            many = 0
            for i in range(start[region], start[region + 1]):
                here = voxels[i]
                value = np.float64(phase[here]) + tau * turns[region]
                for axis in range(3):
                    for there in (here - stride[axis], here + stride[axis]):
                        other = label[there]
                        if other < 0 or done[other]:
                            continue
                        faces[other] += 1
                        apart[other] += value - phase[there]
                        if not marked[other]:
                            marked[other] = True
                            touched[many] = other
                            many += 1
            for i in range(many):
                other = touched[i]
                marked[other] = False
                mean = apart[other] / faces[other] / tau
                clear = 1.0 - 2.0 * abs(mean - np.rint(mean))
                level = min(int(4.0 * clear * faces[other]), LARGE - 1)
                if inside[other]:
                    level += LARGE
                if used == entry.size:
                    entry = np.append(entry, np.empty_like(entry))
                    behind = np.append(behind, np.empty_like(behind))
                entry[used] = other
                behind[used] = head[level]
                head[level] = used
                used += 1
                highest = max(highest, level)
            region = -1
            while region < 0:
                top = head[highest]
                if top < 0:
                    if highest == 0:
                        break
                    highest -= 1
                    continue
                head[highest] = behind[top]
                if not done[entry[top]]:  # else it was taken with a larger border before
                    region = entry[top]
            if region < 0:
                break
    return turns

"""Grow a region along the most reliable edges first, adding whole turns of phase.

Edges join a voxel to its next neighbour along one axis. Their cost is one byte: 0 no edge, 1 best, 255
worst. Costs are so few that a queue is one stack for each cost, which makes growing linear in voxels.
Volumes are flat here, last axis fastest; an edge is axis · voxels + first voxel.
"""

from math import pi, tau
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

OUTSIDE = 255
"""Edges not wholly inside the mask cost this much more, and so queue behind all others."""


@njit(cache=True, nogil=True, inline="always")
def wrap(x: Any) -> Any:
    """The angle between −π and π that differs from x by whole turns."""
    return x - tau * np.rint(x / tau)


@njit(cache=True, nogil=True)
def edge_costs(
    phase: Array, magnitude: Array, usable: Array, other: Array, ratio: float, costs: Array
) -> None:
    """Fill `costs` (axis, x, y, z) from four measures of how sure the step between neighbours is.

    Cost falls with the product of 0.1 + 0.9 w over: phase coherence 1 − |Δψ|/π; gradient coherence
    1 − |Δψ − ratio Δψ'| with a second echo ψ' at TE = TE'·ratio (`other`, of size zero if there is none);
    linearity 1 − |second difference|/2 on both sides, 0.9 at borders; magnitude coherence (min/max)².
    """
    shape = phase.shape
    two = other.size > 0
    for axis in range(3):
        dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
        for x in range(shape[0]):
            for y in range(shape[1]):
                for z in range(shape[2]):
                    u, v, w = x + dx, y + dy, z + dz
                    last = u >= shape[0] or v >= shape[1] or w >= shape[2]
                    if last or not usable[x, y, z] or not usable[u, v, w]:
                        costs[axis, x, y, z] = 0
                        continue
                    step = wrap(phase[u, v, w] - phase[x, y, z])
                    trust = 0.1 + 0.9 * (1.0 - abs(step) / pi)
                    if two:
                        twin = wrap(other[u, v, w] - other[x, y, z])
                        trust *= 0.1 + 0.9 * max(0.0, 1.0 - abs(step - ratio * twin))
                    linear = 1.0
                    if x >= dx and y >= dy and z >= dz and usable[x - dx, y - dy, z - dz]:
                        bend = wrap(step - phase[x, y, z] + phase[x - dx, y - dy, z - dz])
                        linear *= max(0.0, 1.0 - abs(bend) / 2.0)
                    else:
                        linear *= 0.9
                    p, q, r = u + dx, v + dy, w + dz
                    if p < shape[0] and q < shape[1] and r < shape[2] and usable[p, q, r]:
                        bend = wrap(phase[p, q, r] - phase[u, v, w] - step)
                        linear *= max(0.0, 1.0 - abs(bend) / 2.0)
                    else:
                        linear *= 0.9
                    trust *= 0.1 + 0.9 * linear
                    a, b = magnitude[x, y, z], magnitude[u, v, w]
                    even = min(a, b) / max(a, b) if a + b > 0 else 0.0
                    trust *= 0.1 + 0.9 * even * even
                    costs[axis, x, y, z] = max(1, min(255, int(np.rint(255.0 * (1.0 - trust)))))


@njit(cache=True, nogil=True)
def mean_quality(costs: Array, quality: Array) -> None:
    """Mean of 1 − cost/255 over the six edges of each voxel; 0 where it has none.

    At the border of the array the mean is over the edges that the array can hold.
    """
    shape = quality.shape
    for x in range(shape[0]):
        for y in range(shape[1]):
            for z in range(shape[2]):
                total, count = 0.0, 0
                for axis in range(3):
                    dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                    if x + dx < shape[0] and y + dy < shape[1] and z + dz < shape[2]:
                        count += 1
                        c = costs[axis, x, y, z]
                        total += (255 - c) / 254 if c > 0 else 0.0
                    if x >= dx and y >= dy and z >= dz:
                        count += 1
                        c = costs[axis, x - dx, y - dy, z - dz]
                        total += (255 - c) / 254 if c > 0 else 0.0
                quality[x, y, z] = total / count


TODO, BARRED, KNOWN = 0, 1, 2
"""State of a voxel: to be visited, never to be visited, and visited (its turns are known)."""


@njit(cache=True, nogil=True, inline="always")
def _queue_edges(
    new: int,
    costs: Array,
    inside: Array,
    stride: Array,
    state: Array,
    head: Array,
    behind: Array,
    lowest: int,
) -> int:
    """Queue the edges from `new` to voxels still to be visited; return the lowest cost queued."""
    for axis in range(3):
        for side in range(2):
            first = new if side == 0 else new - stride[axis]
            if first < 0 or costs[axis, first] == 0:
                continue
            there = new + stride[axis] if side == 0 else first
            if state[there] != TODO:
                continue
            cost = int(costs[axis, first])
            if not (inside[new] and inside[there]):
                cost += OUTSIDE
            edge = axis * inside.size + first
            behind[edge] = head[cost]
            head[cost] = edge
            lowest = min(lowest, cost)
    return lowest


@njit(cache=True, nogil=True)
def grow(phase: Array, costs: Array, inside: Array, stride: Array, state: Array, turns: Array) -> None:
    """Visit every voxel TODO, least cost first, and set its `turns` so that no step exceeds half a turn.

    All arrays are flat, `costs` is (axis, voxel), `stride` is voxels from a voxel to its next on each axis.
    Grows first from voxels that are KNOWN at the start; then, in each region they do not reach, from a seed
    with no turns. Which seed does not matter: the least costly tree through a region is always the same.
    """
    size = phase.size
    head = np.full(OUTSIDE + 256, -1, np.int32)
    behind = np.empty(3 * size, np.int32)
    lowest: Any = OUTSIDE + 256
    for i in range(size):
        if state[i] == KNOWN:
            lowest = _queue_edges(i, costs, inside, stride, state, head, behind, lowest)
    for here in (True, False):
        for seed in range(-1, size):
            if seed >= 0:
                if state[seed] != TODO or inside[seed] != here:
                    continue
                state[seed] = KNOWN
                turns[seed] = 0
                lowest = _queue_edges(seed, costs, inside, stride, state, head, behind, lowest)
            while lowest < head.size:
                edge = np.int64(head[lowest])
                if edge < 0:
                    lowest += 1
                    continue
                head[lowest] = behind[edge]
                axis = edge // size
                old = edge - axis * size
                new = old + stride[axis]
                if state[new] == KNOWN:
                    old, new = new, old
                if state[new] == KNOWN:
                    continue
                step = np.rint((np.float64(phase[old]) - np.float64(phase[new])) / tau)
                turns[new] = turns[old] + int(step)
                state[new] = KNOWN
                lowest = _queue_edges(new, costs, inside, stride, state, head, behind, lowest)

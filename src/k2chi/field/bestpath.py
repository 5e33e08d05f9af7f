"""Unwrapping by joining groups of voxels along the most reliable edges, anywhere in the volume at once."""

from dataclasses import dataclass
from math import pi, tau
from typing import Any

import numpy as np
from numba import njit, prange

from k2chi.data import Echoes
from k2chi.field.growing import wrap
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
class BestPath:
    """Join voxels into groups, the most reliable pair of neighbours in the volume first.

    A voxel is as reliable as one over D = √Σ (w(ψ₋ − ψ) − w(ψ − ψ₊))² over the 13 pairs of opposite
    neighbours, w wrapping to ±π; an edge is as reliable as its two voxels together. Edges are taken in
    falling reliability, and where one joins two groups, the smaller takes the whole turns that make the step
    smaller than half a turn.

    Abdul-Rahman et al. 2007, Appl Opt 46:6623, doi:10.1364/AO.46.006623.
    Looks at phase alone, within one echo. A pair that is not whole (border, hole, air without signal) counts
    as one of pure noise, so borders come late, but do come. Edges are sorted to within 1 % of their
    reliability. Edges outside the mask follow after all inside; parts of the mask that do not touch take
    turns as in `ROMEO`, and echoes are made consistent as there.
    """

    mode: Mode = "template"
    """`template`: one echo in space, the others in time. `individual`: each echo in space."""
    template: int = 0
    """Which echo is unwrapped in space, counted from 0; the first has the fewest wraps."""

    def __post_init__(self) -> None:
        check_template("BestPath", self.template)

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, which differs from their phase by whole turns."""
        return unwrap_echoes(echoes, self.mode, self.template, _in_space)


def _in_space(k: int, phase: Array, regions: Regions) -> Array:
    psi, usable, inside = bordered(phase), bordered(regions.usable), bordered(regions.inside)
    badness = np.empty(psi.shape, np.float32)
    _badness(psi, usable, badness)
    step = strides(psi.shape)
    where = np.flatnonzero(usable).astype(np.int32)
    edges = _sorted_edges(where, badness.ravel(), usable.ravel(), inside.ravel(), step)
    turns = np.zeros(psi.size, np.int16)
    _join(edges, psi.ravel(), step, turns)
    return add_bordered_turns(phase, turns)


@njit(parallel=True, cache=True, nogil=True)
def _badness(phase: Array, usable: Array, out: Array) -> None:
    """Root sum of squares of the second differences along 13 lines; the border of the array is left out."""
    nx, ny, nz = phase.shape
    noise = pi * pi
    for x in prange(1, nx - 1):
        for y in range(1, ny - 1):
            for z in range(1, nz - 1):
                if not usable[x, y, z]:
                    continue
                here, total = phase[x, y, z], 0.0
                for line in range(13):
                    # Numbers 0 … 12 written in base three are one of each two opposite neighbours.
                    dx, dy, dz = line // 9 - 1, line // 3 % 3 - 1, line % 3 - 1
                    if usable[x - dx, y - dy, z - dz] and usable[x + dx, y + dy, z + dz]:
                        before = wrap(phase[x - dx, y - dy, z - dz] - here)
                        after = wrap(here - phase[x + dx, y + dy, z + dz])
                        total += (before - after) ** 2
                    else:
                        total += noise
                out[x, y, z] = np.sqrt(total)


LEVELS = 2048
"""Levels of reliability, spaced evenly in its logarithm over eight decades: 1 % each."""


@njit(cache=True, nogil=True, inline="always")
def _level(a: Any, b: Any, both: Any) -> int:
    """Place in the queue of an edge between voxels of badness a and b: 0 the most reliable."""
    reliability = 1.0 / max(a, 1e-6) + 1.0 / max(b, 1e-6)
    level = int((np.log10(2e6) - np.log10(reliability)) * (LEVELS / 8.0))
    return min(max(level, 0), LEVELS - 1) + (0 if both else LEVELS)


@njit(cache=True, nogil=True)
def _sorted_edges(where: Array, badness: Array, usable: Array, inside: Array, stride: Array) -> Array:
    """Edges (3 · first voxel + axis) in falling reliability, those inside first; by counting."""
    start = np.zeros(2 * LEVELS + 1, np.int64)
    levels = np.empty(3 * where.size, np.int16)
    for i in range(where.size):
        a = where[i]
        for axis in range(3):
            b = a + stride[axis]
            level = -1
            if usable[b]:
                level = _level(badness[a], badness[b], inside[a] and inside[b])
                start[level + 1] += 1
            levels[3 * i + axis] = level
    for level in range(2 * LEVELS):
        start[level + 1] += start[level]
    edges = np.empty(start[2 * LEVELS], np.int64)
    for i in range(where.size):
        for axis in range(3):
            level = levels[3 * i + axis]
            if level >= 0:
                edges[start[level]] = 3 * np.int64(where[i]) + axis
                start[level] += 1
    return edges


@njit(cache=True, nogil=True, inline="always")
def _find(parent: Array, turns: Array, i: int) -> tuple[int, int]:
    """The root of voxel i's group, and the turns of i relative to it; shortens the way there."""
    total = 0
    while parent[i] != i:
        above = parent[i]
        turns[i] += turns[above] if parent[above] != above else 0
        parent[i] = parent[above]
        total += turns[i]
        i = parent[i]
    return i, total


@njit(cache=True, nogil=True)
def _join(edges: Array, phase: Array, stride: Array, turns: Array) -> None:
    """Join along `edges` and leave in `turns` what each voxel has to its group's root."""
    parent = np.arange(phase.size).astype(np.int32)
    size = np.ones(phase.size, np.int32)
    for edge in edges:
        a, axis = edge // 3, edge % 3
        b = a + stride[axis]
        root_a, turns_a = _find(parent, turns, a)
        root_b, turns_b = _find(parent, turns, b)
        if root_a == root_b:
            continue
        # Turns that b's group needs so that b comes within half a turn of a.
        need = turns_a - turns_b + int(np.rint((np.float64(phase[a]) - np.float64(phase[b])) / tau))
        if size[root_a] < size[root_b]:
            root_a, root_b, need = root_b, root_a, -need
        parent[root_b] = root_a
        turns[root_b] = need
        size[root_a] += size[root_b]
    for i in range(phase.size):
        root, total = _find(parent, turns, i)
        turns[i] = total
        parent[i] = root

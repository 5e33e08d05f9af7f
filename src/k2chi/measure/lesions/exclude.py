"""Which lesions a reading leaves out, and why."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from k2chi.data import Grid
from k2chi.measure.lesions.parts import Labels, around, boxes
from k2chi.measure.lesions.shape import shapes

EPS = 1e-4
"""Lengths [mm] closer than this are equal: headers hold rounded numbers."""


@dataclass(frozen=True)
class Exclusion:
    """Reasons to leave a lesion out, on the grid it was drawn on.

    Too small: its extent along one of the array's axes is below `smallest_mm` (Sati 2016, Nat Rev Neurol
    12:714, doi:10.1038/nrneurol.2016.166). Confluent, by either of two rules. Near: no more than `gap_mm` of
    tissue lies between it and another lesion. Several cores: peeled from outside, it falls into parts, two or
    more of which reach `core_mm` deep, while the neck between them is at most `neck` times as deep as they.
    How deep a voxel lies is its distance to the lesion's edge. Lesions that the reader cannot see well have
    no rule: that is a reader's judgement.
    """

    smallest_mm: float = 3.0
    """Least extent along every axis [mm], 0 or more; 0 keeps all."""
    gap_mm: float = 1.0
    """Tissue between two lesions [mm] up to which they are confluent; a value below 0 turns the rule off."""
    core_mm: float = 1.5
    """Depth [mm] that a core reaches, above 0: half the smallest diameter."""
    neck: float = 0.6
    """Depth of the neck between cores over that of the shallower core, 0 to 1; 0 turns the rule off."""

    def __post_init__(self) -> None:
        if not self.smallest_mm >= 0:
            raise ValueError(f"smallest_mm {self.smallest_mm}: choose 0 mm or more")
        if not self.core_mm > 0:
            raise ValueError(f"core_mm {self.core_mm}: choose a depth above 0 mm")
        if not 0 <= self.neck <= 1:
            raise ValueError(f"neck {self.neck}: choose a ratio from 0 to 1")

    def words(self) -> str:
        """The rules with their settings."""
        rules = [f"extent below {self.smallest_mm:g} mm along an axis of the array"]
        if self.gap_mm >= 0:
            rules.append(f"confluent: no more than {self.gap_mm:g} mm of tissue to another lesion")
        if self.neck:
            rules.append(
                f"confluent: several cores {self.core_mm:g} mm deep, the neck between them at most "
                f"{self.neck:g} times as deep"
            )
        return "; ".join(rules)

    def __call__(self, labels: Labels, grid: Grid) -> dict[int, tuple[str, ...]]:
        """Reasons for each lesion, by number; none where it may stay."""
        number, reasons = labels.cpu().numpy(), {}
        for shape in shapes(labels, grid):
            n, why = shape.label, []
            least = min(shape.extent_mm)
            if least < self.smallest_mm - EPS:
                axis = "xyz"[int(np.argmin(shape.extent_mm))]
                why.append(f"small: {least:.3g} mm along {axis}, below {self.smallest_mm:g} mm")
            reasons[n] = why
        for n, box in boxes(number).items():
            near, gap = self._nearest(number, n, box, grid)
            if near:
                reasons[n].append(f"confluent: {gap:.3g} mm of tissue to lesion {near}")
            if self.neck and (many := self.cores(number[box] == n, grid)) > 1:
                reasons[n].append(f"confluent: {many} cores")
        return {n: tuple(why) for n, why in reasons.items()}

    def _nearest(
        self, number: np.ndarray, n: int, box: tuple[slice, slice, slice], grid: Grid
    ) -> tuple[int, float]:
        """The nearest lesion within `gap_mm` and the tissue between [mm]; 0 if there is none."""
        if self.gap_mm < 0:
            return 0, 0.0
        part = number[around(box, self.gap_mm + 2 * max(grid.voxel_mm), grid)]
        other = (part != n) & (part > 0)
        if not other.any():
            return 0, 0.0
        own = np.argwhere(part == n)
        index = ndimage.distance_transform_edt(
            ~other, sampling=grid.voxel_mm, return_distances=False, return_indices=True
        )
        target = np.stack([i[part == n] for i in index], 1)
        steps = np.abs(target - own)
        apart = np.linalg.norm(steps * np.asarray(grid.voxel_mm), axis=1)
        most = steps.max(1)
        gap = apart * (most - 1) / most  # the bodies of both voxels are no tissue between
        least = int(np.lexsort((apart, np.round(gap, 6)))[0])
        if gap[least] > self.gap_mm + EPS:
            return 0, 0.0
        return int(part[tuple(target[least])]), float(gap[least])

    def cores(self, lesion: np.ndarray, grid: Grid) -> int:
        """Number of cores of one lesion, by the rule above; 1 if none is deep enough."""
        depth = depths(np.pad(lesion, 1), grid)
        faces = ndimage.generate_binary_structure(3, 1)
        top, most, peel = float(depth.max()), 1, 0.0
        step = min(grid.voxel_mm) / 4
        while (peel := peel + step) < self.neck * top:
            parts, count = ndimage.label(depth > peel, structure=faces)
            if count > 1:
                peaks = ndimage.maximum(depth, parts, np.arange(1, count + 1))
                deep = (peaks >= self.core_mm - EPS) & (self.neck * peaks >= peel)
                most = max(most, int(deep.sum()))
        return most


def depths(lesion: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance [mm] of each voxel's centre inside to the edge, which runs half way to the voxel outside.

    The array's border counts as inside: pad it, if the lesion ends there.
    """
    if lesion.all():
        return np.full(lesion.shape, np.inf)
    far, index = ndimage.distance_transform_edt(lesion, sampling=grid.voxel_mm, return_indices=True)
    steps = np.abs(index - np.indices(lesion.shape)).max(0)
    found: np.ndarray = far * np.where(steps > 0, 1 - 0.5 / np.maximum(steps, 1), 0.0)
    return found

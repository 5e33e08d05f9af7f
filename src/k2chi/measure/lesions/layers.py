"""χ in layers around a lesion's edge: inside, around, and the rim."""

from dataclasses import dataclass
from math import nan

import numpy as np
import torch

from k2chi.data import Chi, Grid
from k2chi.measure.lesions.exclude import depths
from k2chi.measure.lesions.parts import Box, Labels, around, boxes

SECTORS = np.array(
    [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) != (0,) * 3]
)
"""The 26 directions in which the rim is looked at."""


@dataclass(frozen=True)
class Contrast:
    """A map inside a lesion and in the tissue around it, in the map's own unit; nan without voxels."""

    inside_mean: float = nan
    """Mean inside the lesion."""
    inside_median: float = nan
    """Median inside."""
    inside_sd: float = nan
    """Standard deviation inside."""
    around_mean: float = nan
    """Mean in the tissue around it."""
    around_sd: float = nan
    """Standard deviation in the tissue around it."""
    around_voxels: int = 0
    """Voxels of tissue around it."""
    difference: float = nan
    """Mean inside minus mean around."""
    difference_se: float = nan
    """Standard error of the difference, from the number of voxels that are independent."""
    intensity: float = nan
    """Difference over the standard deviation around: above 0 brighter than around, below 0 darker."""


@dataclass(frozen=True)
class Rim:
    """How far a lesion looks like a bright rim around a darker core; numbers, not a diagnosis."""

    core_median: float = nan
    """Median of the core: voxels deeper than the rim."""
    rim_median: float = nan
    """Median of the rim: voxels no deeper than the rim's thickness."""
    around_median: float = nan
    """Median of the tissue around."""
    core_voxels: int = 0
    """Voxels of the core; without three of them there is no rim to speak of, and values are nan."""
    rim_minus_core: float = nan
    """Rim minus core."""
    rim_minus_around: float = nan
    """Rim minus surroundings."""
    contrast: float = nan
    """The smaller of both differences, over the standard deviation around."""
    bright_share: float = nan
    """Share of directions, of at most 26, in which the rim is brighter than both by its standard error."""
    bright_slices: float = nan
    """Share of slices across z through rim and core in which the rim is brighter than core and around."""
    score: float = nan
    """bright_share · c / (1 + c) with c the contrast, 0 where c < 0; 0: no rim, towards 1: a closed one."""


@dataclass(frozen=True)
class Bin:
    """One step of the profile across a lesion's edge."""

    label: int
    """Number of the lesion."""
    distance_mm: float
    """Middle of the bin [mm]: below 0 inside the lesion, above 0 outside."""
    voxels: int
    """Voxels in the bin; other lesions and what lies outside the mask are left out."""
    mean: float
    """Mean of the map."""
    sd: float
    """Standard deviation of the map; nan for one voxel."""


@dataclass(frozen=True, eq=False)
class Window:
    """The neighbourhood of one lesion on χ's grid."""

    label: int
    box: Box
    grid: Grid
    lesion: np.ndarray
    """True in the lesion, mask or not."""
    usable: np.ndarray
    """True where a value counts: in the mask and in no other lesion."""
    signed_mm: np.ndarray
    """Distance to the lesion's edge [mm], negative inside."""

    def of(self, volume: torch.Tensor) -> np.ndarray:
        """The same part of a map."""
        part: np.ndarray = volume[self.box].detach().cpu().double().numpy()
        return part


@dataclass(frozen=True)
class Layers:
    """Values of a map inside a lesion, in its rim, in its core, in the tissue around, and as a profile.

    Layers are told apart by the distance to the lesion's edge in mm, so voxels need not be cubes. Other
    lesions count nowhere, nor does what lies outside the mask. The tissue around begins a little outside the
    edge, since voxels at the edge hold both. Around lesions beside a ventricle it holds cerebrospinal fluid;
    keep that out by the mask.
    """

    rim_mm: float = 1.25
    """Thickness of the rim, inwards from the edge [mm], above 0; what lies deeper is the core."""
    around_from_mm: float = 0.8
    """Where the tissue around begins, outwards from the edge [mm], 0 or more."""
    around_to_mm: float = 3.0
    """Where it ends [mm]."""
    bin_mm: float = 1.0
    """Width of a bin of the profile [mm], above 0; about a voxel."""
    reach_mm: float = 5.0
    """How far outwards the profile goes [mm]."""

    def __post_init__(self) -> None:
        if not (self.rim_mm > 0 and self.bin_mm > 0 and self.reach_mm > 0):
            raise ValueError("rim_mm, bin_mm and reach_mm must be above 0 mm")
        if not 0 <= self.around_from_mm < self.around_to_mm:
            raise ValueError(
                f"the tissue around from {self.around_from_mm} to {self.around_to_mm} mm: "
                "choose a beginning of 0 mm or more, and a larger end"
            )

    def windows(self, labels: Labels, chi: Chi) -> tuple[Window, ...]:
        """The neighbourhood of each lesion, by number."""
        number, mask = labels.cpu().numpy(), chi.mask.cpu().numpy()
        if tuple(number.shape) != chi.grid.shape:
            raise ValueError(
                f"labels have {tuple(number.shape)} voxels, χ has {chi.grid.shape}: resample labels"
            )
        margin = max(self.reach_mm, self.around_to_mm) + max(chi.grid.voxel_mm)
        found = []
        for n, tight in boxes(number).items():
            box = around(tight, margin, chi.grid)
            part = number[box]
            lesion = part == n
            signed = np.where(lesion, -depths(lesion, chi.grid), depths(~lesion, chi.grid))
            usable = mask[box] & (lesion | (part == 0))
            found.append(Window(n, box, chi.grid, lesion, usable, signed))
        return tuple(found)

    def contrast(self, volume: torch.Tensor, at: Window) -> Contrast:
        """Inside against around."""
        v = at.of(volume)
        inside, ring = at.lesion & at.usable, self._ring(at)
        a, b = v[inside], v[ring]
        if not len(a):
            return Contrast(around_voxels=len(b))
        of_inside = Contrast(float(a.mean()), float(np.median(a)), float(a.std()), around_voxels=len(b))
        if len(b) < 2:
            return of_inside
        difference, sd = float(a.mean() - b.mean()), float(b.std(ddof=1))
        se2 = sum(_error2(v, m) for m in (inside, ring))
        return Contrast(
            of_inside.inside_mean,
            of_inside.inside_median,
            of_inside.inside_sd,
            float(b.mean()),
            sd,
            len(b),
            difference,
            float(np.sqrt(se2)),
            difference / sd if sd > 0 else nan,
        )

    def rim(self, volume: torch.Tensor, at: Window) -> Rim:
        """Rim against core and surroundings."""
        v, ring = at.of(volume), self._ring(at)
        inside = at.lesion & at.usable
        core, edge = inside & (at.signed_mm < -self.rim_mm), inside & (at.signed_mm >= -self.rim_mm)
        count = int(core.sum())
        if count < 3 or edge.sum() < 3 or ring.sum() < 3:
            return Rim(core_voxels=count)
        c, r, s = (float(np.median(v[m])) for m in (core, edge, ring))
        sd = float(v[ring].std(ddof=1))
        contrast = min(r - c, r - s) / sd if sd > 0 else nan
        share = _bright_share(v, edge, at, max(c, s), sd)
        slices = [
            np.mean(v[..., k][edge[..., k]]) > max(np.mean(v[..., k][core[..., k]]), s)
            for k in range(v.shape[2])
            if core[..., k].any() and edge[..., k].any()
        ]
        strong = max(contrast, 0.0)
        return Rim(
            c,
            r,
            s,
            count,
            r - c,
            r - s,
            contrast,
            share,
            float(np.mean(slices)),
            share * strong / (1 + strong),
        )

    def profile(self, volume: torch.Tensor, at: Window) -> tuple[Bin, ...]:
        """The map as a function of the distance to the edge, from the core outwards."""
        v = at.of(volume)[at.usable]
        step = np.floor(at.signed_mm[at.usable] / self.bin_mm).astype(int)
        bins = []
        for k in range(int(step.min()) if len(step) else 0, int(np.ceil(self.reach_mm / self.bin_mm - 1e-9))):
            here = v[step == k]
            if len(here):
                sd = float(here.std(ddof=1)) if len(here) > 1 else nan
                bins.append(Bin(at.label, (k + 0.5) * self.bin_mm, len(here), float(here.mean()), sd))
        return tuple(bins)

    def _ring(self, at: Window) -> np.ndarray:
        far = (at.signed_mm >= self.around_from_mm) & (at.signed_mm <= self.around_to_mm)
        found: np.ndarray = far & at.usable & ~at.lesion
        return found


def _bright_share(v: np.ndarray, edge: np.ndarray, at: Window, level: float, sd: float) -> float:
    """Share of the directions that hold rim in which its mean is above `level` by its standard error."""
    mm = np.asarray(at.grid.voxel_mm)
    where = np.argwhere(edge) * mm
    ways = where - np.argwhere(at.lesion).mean(0) * mm
    unit = SECTORS / np.linalg.norm(SECTORS, axis=1, keepdims=True)
    sector = (ways @ unit.T).argmax(1)
    values = v[edge]
    count = np.bincount(sector, minlength=26)
    mean = np.bincount(sector, values, 26) / np.maximum(count, 1)
    bright = mean > level + sd / np.sqrt(np.maximum(count, 1))
    return float(bright[count > 0].mean())


def _error2(v: np.ndarray, where: np.ndarray) -> float:
    """Squared standard error of the mean over a region, whose neighbours resemble each other.

    The correlation of next neighbours along each axis, ρ, is taken to fall as ρ^(k²) over k voxels, as in
    noise blurred by a Gaussian; 1 + 2 Σ ρ^(k²) voxels then count as one. At least one value is independent.
    """
    rest = np.where(where, v - v[where].mean(), 0.0)
    power, free = float((rest**2).sum() / where.sum()), float(where.sum())
    for axis in range(3):
        a, b = (np.take(where, range(i, where.shape[axis] - 1 + i), axis) for i in (0, 1))
        x, y = (np.take(rest, range(i, where.shape[axis] - 1 + i), axis) for i in (0, 1))
        if (a & b).any() and power > 0:
            rho = min(max(float((x * y).sum() / (a & b).sum()) / power, 0.0), 0.99)
            free /= 1 + 2 * float((rho ** (np.arange(1, 40) ** 2)).sum())
    return power / max(free - 1, 1.0)

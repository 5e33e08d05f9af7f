"""Numbers of labelled regions: what goes into a study's table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float, Int, Shaped
from scipy import stats
from torch import Tensor

from k2chi.data import Chi

Labels = Shaped[Tensor, "x y z"]

DEEP_NUCLEI = {
    "Pu": ("putamen",),
    "Ca": ("caudate",),
    "GPe": ("globus pallidus externa", "pallidum externum", "gpe"),
    "GPi": ("globus pallidus interna", "pallidum internum", "gpi"),
    "RN": ("red nucleus",),
    "SNc": ("substantia nigra pars compacta", "nigra compacta", "snc"),
    "SNr": ("substantia nigra pars reticulata", "nigra reticulata", "snr"),
}
"""The seven nuclei of the deep-grey-matter study, and what atlases call them."""


@dataclass(frozen=True)
class Region:
    """One region's susceptibility. Values are nan where no voxel of the region lies in the mask."""

    label: int
    """Its number in the label map."""
    name: str
    """Its name, or the number again."""
    voxels: int
    """Voxels inside the mask, which the values are taken from."""
    volume_mm3: float
    """Their volume, or that of their weights [mm³]."""
    in_mask: float
    """Share of the region's voxels that lie in the mask, 0 to 1; below 1 the region is cut."""
    mean_ppm: float
    """Mean, weighted where weights were given [ppm]."""
    sd_ppm: float
    """Standard deviation over those voxels [ppm]."""
    median_ppm: float
    """Median [ppm]; of an even number of voxels the mean of the middle two."""
    mad_ppm: float = nan
    """Median distance from the median, times 1.4826 to be a standard deviation of normal values [ppm]."""
    p5_ppm: float = nan
    """Fifth percentile [ppm]."""
    p25_ppm: float = nan
    """First quartile [ppm]."""
    p75_ppm: float = nan
    """Third quartile [ppm]."""
    p95_ppm: float = nan
    """95th percentile [ppm]."""
    iqr_ppm: float = nan
    """Interquartile range, p75 − p25 [ppm]."""
    independent: float = nan
    """Number of independent voxels: neighbours of a map resemble each other, so fewer than `voxels`."""
    ci_low_ppm: float = nan
    """Lower end of the 95 % interval of the mean over the independent voxels [ppm]."""
    ci_high_ppm: float = nan
    """Upper end [ppm]. It says how well the map knows the mean, not how people differ."""


def regions(
    chi: Chi,
    labels: Labels,
    names: Mapping[int, str] | None = None,
    weights: Float[Tensor, "x y z"] | None = None,
) -> tuple[Region, ...]:
    """A row for each label but 0, in rising order; labels named in `names` but absent have a row of nan.

    `weights` (0 to 1, such as the share of a voxel that the region fills) weigh mean, deviation and volume;
    medians and percentiles are of the voxels as they are. Raises ValueError for labels on another grid.
    """
    if tuple(labels.shape) != chi.grid.shape:
        raise ValueError(
            f"labels have {tuple(labels.shape)} voxels, χ has {chi.grid.shape}: resample labels to χ's grid"
        )
    number = whole(labels)
    names = names or {}
    there, many = torch.unique(number[number != 0], return_counts=True)
    counts = dict(zip(there.tolist(), many.tolist(), strict=True))
    counted = chi.mask & (number != 0)  # the background is most of the volume, and never sorted
    order = number[counted].argsort(stable=True)
    inside, values = number[counted][order], chi.ppm[counted][order].double()
    at = torch.nonzero(counted)[order]
    given = torch.ones_like(values) if weights is None else weights[counted][order].double()
    rows = []
    for n in sorted({*counts, *names}):
        first, last = (int(torch.searchsorted(inside, n, right=right)) for right in (False, True))
        v, w, total = values[first:last], given[first:last], counts.get(n, 0)
        rows.append(_row(n, names.get(n, str(n)), v, w, total, chi, at[first:last]))
    return tuple(rows)


def probable(
    chi: Chi, shares: Float[Tensor, "label x y z"], names: Mapping[int, str], least: float = 0.05
) -> tuple[Region, ...]:
    """A row for each map of shares; maps may overlap. Map k, from 1, weighs voxels of `least` and more."""
    rows: list[Region] = []
    for k, share in enumerate(shares.clamp(0, 1), 1):
        label = k * (share >= least)
        rows += regions(chi, label, {k: names.get(k, str(k))}, share)
    return tuple(rows)


def unnamed(labels: Labels, names: Mapping[int, str]) -> tuple[int, ...]:
    """Labels in the image that the table does not name."""
    return tuple(n for n in torch.unique(whole(labels)).tolist() if n and n not in names)


def _row(n: int, name: str, v: Tensor, w: Tensor, total: int, chi: Chi, at: Int[Tensor, "voxel 3"]) -> Region:
    share = len(v) / total if total else nan
    size = float(w.sum())
    if not len(v) or size <= 0:
        return Region(n, name, len(v), 0.0, share, nan, nan, nan)
    mean = float((w * v).sum() / size)
    sd = float(((w * (v - mean).square()).sum() / size).sqrt())
    median = _median(v)
    p5, p25, p75, p95 = torch.quantile(v[: 2**24], v.new_tensor([0.05, 0.25, 0.75, 0.95])).tolist()
    free = _independent(v - mean, at, chi.grid.shape)
    half = nan
    if free > 1:
        half = float(stats.t.ppf(0.975, free - 1)) * sd * (free / (free - 1)) ** 0.5 / free**0.5
    return Region(
        label=n,
        name=name,
        voxels=len(v),
        volume_mm3=size * chi.grid.voxel_volume_mm3,
        in_mask=share,
        mean_ppm=mean,
        sd_ppm=sd,
        median_ppm=median,
        mad_ppm=1.4826 * _median((v - median).abs()),
        p5_ppm=p5,
        p25_ppm=p25,
        p75_ppm=p75,
        p95_ppm=p95,
        iqr_ppm=p75 - p25,
        independent=free,
        ci_low_ppm=mean - half,
        ci_high_ppm=mean + half,
    )


def _median(values: Tensor) -> float:
    ordered, n = values.sort().values, len(values)
    return float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2) if n else nan


def _independent(v: Tensor, at: Int[Tensor, "voxel 3"], shape: tuple[int, int, int]) -> float:
    """n Π (1 − ρ) / (1 + ρ) with ρ the correlation of next neighbours along each axis, never below 1."""
    if len(v) < 2:
        return float(len(v))
    power = float(v.square().mean())
    _, ny, nz = shape
    flat = (at[:, 0] * ny + at[:, 1]) * nz + at[:, 2]
    flat, order = flat.sort()
    v, n = v[order], float(len(v))
    last = at[order] + 1
    for axis, stride in enumerate((ny * nz, nz, 1)):
        inside = last[:, axis] < shape[axis]
        place = torch.searchsorted(flat, flat + stride).clamp_max(len(flat) - 1)
        pair = (flat[place] == flat + stride) & inside
        if pair.any() and power > 0:
            rho = float((v[pair] * v[place[pair]]).mean()) / power
            rho = min(max(rho, 0.0), 0.999)
            n *= (1 - rho) / (1 + rho)
    return max(n, 1.0)


def whole(labels: Labels) -> Int[Tensor, "x y z"]:
    """Labels as whole numbers."""
    return (labels.round() if labels.is_floating_point() else labels).long()


def eroded(labels: Labels, voxels: int) -> Int[Tensor, "x y z"]:
    """Labels without the outer `voxels` layers of each region, by faces, so that no neighbour bleeds in.

    The edge of the array counts as outside.
    """
    number = whole(labels)
    for _ in range(voxels):
        keep = torch.ones_like(number, dtype=torch.bool)
        for axis in range(3):
            edge = torch.zeros_like(number.narrow(axis, 0, 1))
            n = number.shape[axis]
            before = torch.cat([edge, number.narrow(axis, 0, n - 1)], axis)
            after = torch.cat([number.narrow(axis, 1, n - 1), edge], axis)
            keep &= (before == number) & (after == number)
        number = number * keep
    return number


def side_of(name: str) -> tuple[str, str]:
    """A region's name without its side, and the side: left, right, or nothing."""
    text = re.sub(r"[\s_-]+", " ", name.strip()).lower()
    for side, marks in (("left", ("l", "left", "lh")), ("right", ("r", "right", "rh"))):
        for mark in marks:
            if re.search(rf"^{mark} ", text):
                return text[len(mark) + 1 :], side
            if re.search(rf" {mark}$", text):
                return text[: -len(mark) - 1], side
    return text, ""


def merged(labels: Labels, names: Mapping[int, str]) -> tuple[Int[Tensor, "x y z"], dict[int, str]]:
    """Left and right as one region: the smaller of both numbers, and the name without its side."""
    number = whole(labels)
    new: dict[int, str] = {}
    first: dict[str, int] = {}
    for n in sorted(names):
        base, side = side_of(names[n])
        key = base if side else names[n]
        first.setdefault(key, n)
        new[first[key]] = key
        if first[key] != n:
            number = torch.where(number == n, first[key], number)
    return number, new


def nuclei(names: Mapping[int, str]) -> dict[int, str]:
    """Those labels that are one of the seven deep nuclei, with their short name and side."""
    found = {}
    for n, name in names.items():
        base, side = side_of(name)
        for short, words in DEEP_NUCLEI.items():
            if base in words or base == short.lower():
                found[n] = f"{short} {side}".strip()
    return found

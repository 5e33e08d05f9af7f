"""Numbers of labelled regions: what goes into a study's table."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Shaped
from torch import Tensor

from k2chi.data import Chi


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
    """Their volume [mm³]."""
    in_mask: float
    """Share of the region's voxels that lie in the mask, 0 to 1; below 1 the region is cut."""
    mean_ppm: float
    """Mean [ppm]."""
    sd_ppm: float
    """Standard deviation over those voxels [ppm]."""
    median_ppm: float
    """Median [ppm]; of an even number of voxels the mean of the middle two."""


def _median(values: Tensor) -> float:
    ordered, n = values.sort().values, len(values)
    return float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2) if n else nan


def regions(
    chi: Chi, labels: Shaped[Tensor, "x y z"], names: Mapping[int, str] | None = None
) -> tuple[Region, ...]:
    """A row for each label but 0, in rising order; labels named in `names` but absent have a row of nan."""
    if tuple(labels.shape) != chi.grid.shape:
        raise ValueError(
            f"labels have {tuple(labels.shape)} voxels, χ has {chi.grid.shape}: resample labels to χ's grid"
        )
    number = (labels.round() if labels.is_floating_point() else labels).long()
    names = names or {}
    present = [n for n in torch.unique(number).tolist() if n != 0]
    inside, order = number[chi.mask].sort(stable=True)
    values = chi.ppm[chi.mask][order].double()
    rows = []
    for n in sorted({*present, *names}):
        first, last = (int(torch.searchsorted(inside, n, right=right)) for right in (False, True))
        v, whole = values[first:last], int((number == n).sum())
        some = len(v) > 0
        rows.append(
            Region(
                label=n,
                name=names.get(n, str(n)),
                voxels=len(v),
                volume_mm3=len(v) * chi.grid.voxel_volume_mm3,
                in_mask=len(v) / whole if whole else nan,
                mean_ppm=float(v.mean()) if some else nan,
                sd_ppm=float(v.std(correction=0)) if some else nan,
                median_ppm=_median(v),
            )
        )
    return tuple(rows)

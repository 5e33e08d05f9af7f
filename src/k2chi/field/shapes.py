"""Masks as shapes: parts, holes and distances, on the CPU."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from k2chi.data import Echoes, Vector

Array = NDArray[Any]


def largest_part(mask: Array) -> Array:
    """The largest set of voxels that touch by faces."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    size = np.bincount(parts.ravel())
    size[0] = 0
    largest: Array = parts == size.argmax()
    return largest


def fill_holes(mask: Array, most_voxels: int | None = None) -> Array:
    """Add background that does not reach the border of the array, if not larger than `most_voxels`."""
    parts, count = ndimage.label(~mask)
    if not count:
        return mask
    fill = np.ones(count + 1, bool)
    for axis in range(3):
        fill[parts.take(0, axis)] = False
        fill[parts.take(-1, axis)] = False
    if most_voxels is not None:
        fill &= np.bincount(parts.ravel(), minlength=count + 1) <= most_voxels
    fill[0] = False
    filled: Array = mask | fill[parts]
    return filled


def dilate(mask: Array, radius_mm: float, voxel_mm: Vector) -> Array:
    """All voxels within `radius_mm` of the mask."""
    if radius_mm <= 0 or not mask.any():
        return mask
    near: Array = ndimage.distance_transform_edt(~mask, sampling=voxel_mm) <= radius_mm
    return near


def erode(mask: Array, radius_mm: float, voxel_mm: Vector) -> Array:
    """Voxels further than `radius_mm` from all background; the array's border is no background."""
    if radius_mm <= 0 or mask.all():
        return mask
    deep: Array = ndimage.distance_transform_edt(mask, sampling=voxel_mm) > radius_mm
    return deep


def otsu(values: Array, bins: int = 256) -> float:
    """The threshold that best splits `values` into two groups of little spread (Otsu 1979)."""
    count, edges = np.histogram(values, bins)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)
    above = below[-1] - below
    first = np.cumsum(count * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = first / below - (first[-1] - first) / above
    return float(edges[1:][np.nanargmax(np.where(above > 0, below * 1.0 * above * apart**2, -1))])


def combined_magnitude(echoes: Echoes) -> Float[Tensor, "x y z"]:
    """Root sum of squares over echoes, 0 where any echo is not finite."""
    total = torch.zeros_like(echoes.signal[0].real)
    for s in echoes.signal:
        total += s.real.square() + s.imag.square()
    return torch.where(total.isfinite(), total, torch.zeros_like(total)).sqrt()


def with_mask(echoes: Echoes, mask: Array, who: str) -> Echoes:
    """Echoes with `mask`, unless it is empty."""
    found = torch.as_tensor(mask, dtype=torch.bool).to(echoes.signal.device)
    if not found.any():
        raise ValueError(f"{who} found no voxel: is there signal in the magnitude? Give a mask instead")
    return replace(echoes, mask=found)

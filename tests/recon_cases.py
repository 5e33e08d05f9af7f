"""K-space of the coil images of `coil_cases`, with masks, noise and known truth."""

from dataclasses import dataclass

import torch
from coil_cases import SHAPE, make

from k2chi.data import KSpace
from k2chi.ops.fourier import fft


@dataclass
class Case:
    """K-space and what it was made of."""

    kspace: KSpace
    maps: torch.Tensor
    truth: torch.Tensor
    mask: torch.Tensor


def grid_mask(shape=SHAPE, step=(2, 1), centre=10):
    """True at every `step`-th phase encoding and in a square about the centre; zero frequency at index 0."""
    _, ny, nz = shape
    fy, fz = (torch.fft.fftfreq(n) * n for n in (ny, nz))
    y, z = torch.meshgrid(fy.round().long(), fz.round().long(), indexing="ij")
    inner = (y.abs() <= centre // 2) & (z.abs() <= centre // 2)
    return (((y % step[0] == 0) & (z % step[1] == 0)) | inner)[None, None]


def measured(sampled=None, dtype=torch.complex64, **settings):
    """K-space of an ellipsoid seen by loops; truth and maps scaled to maps of unit length."""
    case = make(dtype=dtype, **settings)
    c = case.coils
    sampled = torch.ones(1, 1, *c.grid.shape[1:], dtype=torch.bool) if sampled is None else sampled
    data = fft(c.signal) * sampled[:, None]
    length = case.maps.abs().square().sum(0).sqrt()
    image = case.clean[:, 0] / case.maps[0] * length
    maps = (case.maps / length).to(dtype)
    return Case(KSpace(data, sampled, c.grid, c.scan, c.noise), maps, image.to(dtype), case.mask)

"""What a map says of its own quality, without a truth: noise, streaks and sharpness."""

from math import nan

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi
from k2chi.ops.box import box_around
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.finite import gradient
from k2chi.ops.fourier import SPACE


def noise_ppb(chi_ppm: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]) -> float:
    """Standard deviation of white noise [ppb], from third differences along each axis; nan in a tiny mask.

    Anatomy changes slowly over four voxels, so most differences are noise; their median is taken, for edges
    are few. Noise that an inversion has smoothed or coloured is underestimated. Median of absolute
    deviations: Donoho & Johnstone 1994, Biometrika 81:425, doi:10.1093/biomet/81.3.425.
    """
    found = []
    for axis in range(3):
        n = chi_ppm.shape[axis] - 3
        if n < 1:
            continue
        x = [chi_ppm.narrow(axis, i, n) for i in range(4)]
        inside = torch.stack([mask.narrow(axis, i, n) for i in range(4)]).all(0)
        found.append((x[3] - 3 * x[2] + 3 * x[1] - x[0])[inside].abs())
    steps = torch.cat(found) if found else chi_ppm.new_zeros(0)
    if not len(steps):
        return nan
    return 1e3 * float(steps.median()) / 0.6745 / 20**0.5  # 1 + 9 + 9 + 1 variances add up


def streak_index(chi: Chi) -> float:
    """Power near the cone where the dipole is blind, over the power beside it: 1 if nothing stands out.

    Mean |F χ|² where |D| < 0.1 over that where 0.1 ≤ |D| < 0.25, between a quarter and 0.95 of the lowest
    Nyquist frequency, the mean of shells of equal |k|. Streaks make it rise, an inversion that leaves the
    cone empty makes it fall. No source: our own measure.
    """
    box = box_around(chi.mask, 1.25)
    grid = box.grid(chi.grid)
    inside = box.take(chi.mask)
    x = torch.where(inside, box.take(chi.ppm), 0.0)
    x = torch.where(inside, x - x[inside].mean(), 0.0)
    power = torch.fft.rfftn(x, dim=SPACE).abs().square()
    d = dipole_kernel(grid, grid.shape).to(x.device).abs()
    k = torch.zeros_like(power)
    for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_mm, strict=True)):
        f = torch.fft.rfftfreq(n, v) if axis == 2 else torch.fft.fftfreq(n, v)
        k += f.to(power).square().reshape([-1 if a == axis else 1 for a in range(3)])
    k = k.sqrt() * 2 * max(grid.voxel_mm)
    ratios = []
    for low in torch.linspace(0.25, 0.90, 14).tolist():
        shell = (k >= low) & (k < low + 0.05)
        blind, beside = shell & (d < 0.1), shell & (d >= 0.1) & (d < 0.25)
        if blind.any() and beside.any() and (mean := float(power[beside].mean())) > 0:
            ratios.append(float(power[blind].mean()) / mean)
    return sum(ratios) / len(ratios) if ratios else nan


def sharpness_ppb_per_mm(chi: Chi) -> float:
    """Mean length of the gradient inside the mask [ppb/mm]: blur lowers it, and so does too much smoothing.

    Noise raises it, so compare maps of like noise only.
    """
    steps = gradient(chi.grid)(chi.ppm).norm(dim=0)
    inside = chi.mask.clone()
    for axis in range(3):  # both ends of each forward difference must lie inside
        inside &= torch.roll(chi.mask, -1, axis)
    return 1e3 * float(steps[inside].mean()) if inside.any() else nan


def blind(chi: Chi) -> dict[str, float]:
    """All measures that need no truth."""
    return {
        "noise_ppb": noise_ppb(chi.ppm, chi.mask),
        "streak_index": streak_index(chi),
        "sharpness_ppb_per_mm": sharpness_ppb_per_mm(chi),
    }

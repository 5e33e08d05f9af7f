"""Noise of every coil made white: independent, and of variance one."""

import torch
from jaxtyping import Complex
from torch import Tensor

DEAD = 1e-8
"""A coil whose noise has less than this share of the median coil's variance is not connected."""


def noise_factor(noise: Complex[Tensor, "coil sample"] | None, coils: int) -> Complex[Tensor, "c c"] | None:
    """The lower triangle L with L Lᴴ = covariance of the noise; L⁻¹ whitens. None without noise samples.

    ValueError for noise of other coils, for too few samples, and for coils that are dead.
    """
    if noise is None:
        return None
    count, samples = noise.shape
    if count != coils:
        raise ValueError(f"noise of {count} coils for {coils} coils: give the noise scan of this very scan")
    wide = noise.to(torch.complex128)
    covariance = wide @ wide.mH / max(samples, 1)
    power = covariance.diagonal().real
    silent = [n for n, p in enumerate(power.tolist()) if not p > DEAD * float(power.median())]
    factor, wrong = torch.linalg.cholesky_ex(covariance)
    if samples < 2 * coils or silent or int(wrong) or not factor.isfinite().all():
        reason = (
            f"dead coil, number {', '.join(map(str, silent))} from 0" if silent else "too few, or a dead coil"
        )
        raise ValueError(
            f"{samples} noise samples do not give the covariance of {coils} coils ({reason}): "
            "give many more samples than coils, leave dead coils out, or give no noise"
        )
    whiten: Tensor = factor.to(noise.dtype)
    return whiten


def whitening(noise: Complex[Tensor, "coil sample"], coils: int) -> Complex[Tensor, "c c"]:
    """L⁻¹, which turns samples of all coils into ones whose noise is white and has variance one.

    Variance is that of real and imaginary part together. It passes unchanged through the orthonormal
    transform, so images of whitened coils have it too.
    """
    factor = noise_factor(noise, coils)
    assert factor is not None
    wide = factor.to(torch.complex128)
    eye = torch.eye(coils, dtype=wide.dtype, device=wide.device)
    white: Tensor = torch.linalg.solve_triangular(wide, eye, upper=False).to(noise.dtype)
    return white


def mixed(
    data: Complex[Tensor, "*batch coil kx ky kz"], matrix: Complex[Tensor, "virtual coil"]
) -> Complex[Tensor, "*batch virtual kx ky kz"]:
    """Every sample's coils combined to others: whitened, compressed, or both."""
    flat = matrix @ data.flatten(-3)
    return flat.reshape(*data.shape[:-4], matrix.shape[0], *data.shape[-3:])

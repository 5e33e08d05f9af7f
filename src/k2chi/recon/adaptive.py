"""How each coil sees each place, from the images themselves; on blocks of voxels, for coils see smoothly."""

from math import prod

import torch
import torch.nn.functional as functional
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Size, Vector
from k2chi.ops.smooth import block_mm, finite, refined
from k2chi.progress import track
from k2chi.recon.anchor import free_phase, principal

SLAB_BYTES = 2**27
"""As many planes of blocks are worked on at a time as fit in this, both images and covariances."""


def sensitivity_maps(
    signal: Complex[Tensor, "echo coil x y z"],
    voxel_mm: Vector,
    block: Size,
    radius: Size,
    factor: Complex[Tensor, "c c"] | None = None,
) -> Complex[Tensor, "coil i j k"]:
    """Sensitivities on blocks of voxels, of unit length once whitened, with a smooth phase.

    In each block, and `radius` blocks to each side, the principal eigenvector of Σ s sᴴ over voxels and
    echoes (Walsh 2000); what all coils share, such as the field's phase, cancels. `free_phase` sets theirs.
    Works on slabs, so that no copy of the data is made.
    """
    coils, reach = signal.shape[1], radius[0]
    count = [-(-n // k) for n, k in zip(signal.shape[2:], block, strict=True)]
    maps = signal.new_zeros((coils, count[0], count[1], count[2]))
    strength = signal.real.new_zeros((count[0], count[1], count[2]))
    plane = max(count[1] * count[2] * coils**2, signal[:, :, : block[0]].numel()) * signal.element_size()
    planes = max(1, SLAB_BYTES // plane)
    whiten = None if factor is None else torch.linalg.inv(factor)
    beyond = signal.new_zeros((reach, count[1], count[2], coils, coils))
    held, done = beyond, 0
    for n in track(-(-count[0] // planes), "coil sensitivities"):
        slab = finite(signal[:, :, n * planes * block[0] : (n + 1) * planes * block[0]])
        new = _covariance(slab, block)
        for axis in (1, 2):
            new = _box_sum(new, radius[axis], axis)
        held = torch.cat([held, new, beyond] if (n + 1) * planes >= count[0] else [held, new])
        length = len(held) - 2 * reach
        if length < 1:
            continue
        r = held[:length].clone()
        for k in range(1, 2 * reach + 1):
            r += held[k : k + length]
        if whiten is not None:
            r = whiten @ r @ whiten.mH
        vector, power = principal(r.reshape(-1, coils, coils))
        here = slice(done, done + length)
        maps[:, here] = vector.T.reshape(coils, length, count[1], count[2])
        strength[here] = power.reshape(length, count[1], count[2])
        held, done = held[length:].clone(), done + length
    maps *= free_phase(maps, strength, block_mm(block, voxel_mm))
    return maps if factor is None else (factor @ maps.flatten(1)).reshape(maps.shape)


def _covariance(slab: Complex[Tensor, "echo coil x y z"], block: Size) -> Complex[Tensor, "i j k c c"]:
    """Σ s sᴴ over the voxels and echoes of each block."""
    echoes, coils = slab.shape[:2]
    pad = [(-n) % k for n, k in zip(slab.shape[2:], block, strict=True)]
    if any(pad):
        slab = functional.pad(slab, (0, pad[2], 0, pad[1], 0, pad[0]))
    i, j, k = (n // b for n, b in zip(slab.shape[2:], block, strict=True))
    parts = slab.reshape(echoes, coils, i, block[0], j, block[1], k, block[2])
    parts = parts.permute(2, 4, 6, 1, 0, 3, 5, 7).reshape(-1, coils, echoes * prod(block))
    return (parts @ parts.mH).reshape(i, j, k, coils, coils)


def _box_sum(r: Tensor, radius: int, axis: int) -> Tensor:
    """Sum over `radius` neighbours on each side along `axis`."""
    out, n = r.clone(), r.shape[axis]
    for step in range(1, min(radius, n - 1) + 1):
        out.narrow(axis, step, n - step).add_(r.narrow(axis, 0, n - step))
        out.narrow(axis, 0, n - step).add_(r.narrow(axis, step, n - step))
    return out


def combined(
    signal: Complex[Tensor, "echo coil x y z"],
    maps: Complex[Tensor, "coil i j k"],
    block: Size,
    factor: Complex[Tensor, "c c"] | None = None,
) -> Complex[Tensor, "echo x y z"]:
    """mᴴΨ⁻¹s / √(mᴴΨ⁻¹m) in each voxel: the best SNR that coils with sensitivities m and noise Ψ can give.

    The noise of the result is that of one coil, or has variance one (real and imaginary part together) where
    the covariance of the noise is known. One coil at a time, so that no copy of the data is made.
    """
    echoes, coils = signal.shape[:2]
    nx, ny, nz = signal.shape[2:]
    pull = maps
    if factor is not None:
        pull = torch.cholesky_solve(maps.flatten(1), factor).reshape(maps.shape)
    out = signal.new_zeros((echoes, nx, ny, nz))
    power = signal.real.new_zeros((nx, ny, nz))
    for c in track(coils, "combining coils"):
        by = refined(pull[c], block, (nx, ny, nz)).conj()
        own = by if factor is None else refined(maps[c], block, (nx, ny, nz)).conj()
        power += by.real * own.real + by.imag * own.imag
        for e in range(echoes):
            out[e] += by * signal[e, c]
    out *= power.clamp_min(torch.finfo(power.dtype).tiny).rsqrt()
    return out


def root_sum_of_squares(signal: Complex[Tensor, "coil x y z"]) -> Float[Tensor, "x y z"]:
    """Magnitude of one echo over all coils."""
    total = torch.zeros_like(signal[0].real)
    for s in signal:
        total += s.real.square() + s.imag.square()
    return total.sqrt()

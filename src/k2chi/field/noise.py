"""How noisy a complex image is, from the image alone."""

import torch
from jaxtyping import Complex
from torch import Tensor


def noise_std(signal: Complex[Tensor, "echo x y z"]) -> float:
    """Standard deviation of the noise in the real (and in the imaginary) part of each voxel.

    Differences taken along all three axes at once over blocks of 2×2×2 voxels, which anatomy and smooth
    phase hardly enter; robust (median absolute value) over the darker half of the blocks that hold signal,
    so background where there is some; the smallest over echoes, since anatomy can only add. Blocks with an
    exact zero or a NaN are left out. Zero-filled or filtered images are noisier than neighbours tell.
    Returns 0 when no block is left.
    """
    found = []
    for s in signal:
        nx, ny, nz = (n - n % 2 for n in s.shape)
        s = torch.view_as_real(s[:nx, :ny, :nz].resolve_conj())
        blocks = s.reshape(nx // 2, 2, ny // 2, 2, nz // 2, 2, 2)
        size = blocks.square().sum(-1).sum((1, 3, 5))
        full = (blocks.abs().amin(-1) > 0).all(5).all(3).all(1) & size.isfinite()
        d = blocks[:, 0] - blocks[:, 1]
        d = d[:, :, 0] - d[:, :, 1]
        d = (d[:, :, :, 0] - d[:, :, :, 1])[full]
        # Judged by the blocks beside it: its own brightness would choose blocks by their noise.
        size = (size.roll(1, 0) + size.roll(-1, 0))[full]
        if len(size):
            d = d[size <= size.median()] if len(size) > 64 else d
            found.append(float(d.abs().median()) / 0.67449 / 8**0.5)
    return min(found, default=0.0)

"""The image-space half of a total-variation step, in two passes over memory.

For the split z = ∇x with scaled dual s and threshold t, alternating directions need
v = ∇x + s, z = shrink(v, t), s ← v − z, and then the right-hand side ∇ᵀ(z − s). As s = v − z is v cut
to length t, only s has to be kept, and z − s = v − 2s.
"""

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid, Vector
from k2chi.ops.finite import differences, differences_adjoint, divergence_cpu
from k2chi.ops.fuse import fused


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _shrink_cpu(x: np.ndarray, s: np.ndarray, w: np.ndarray, t: np.ndarray, per_mm: np.ndarray) -> None:
    nx, ny, nz = x.shape
    ix, iy, iz = per_mm
    two = np.float32(2)
    for i in numba.prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                c = x[i, j, k]
                a = (x[i1, j, k] - c) * ix + s[0, i, j, k]
                b = (x[i, j1, k] - c) * iy + s[1, i, j, k]
                d = (x[i, j, k1] - c) * iz + s[2, i, j, k]
                length = np.sqrt(a * a + b * b + d * d)
                keep = np.float32(1) if length <= t[i, j, k] else t[i, j, k] / length
                s[0, i, j, k] = keep * a
                s[1, i, j, k] = keep * b
                s[2, i, j, k] = keep * d
                w[0, i, j, k] = a - two * keep * a
                w[1, i, j, k] = b - two * keep * b
                w[2, i, j, k] = d - two * keep * d


def shrink_step(
    x: Float[Tensor, "x y z"],
    s: Float[Tensor, "3 x y z"],
    threshold: Float[Tensor, "x y z"],
    voxel_mm: Vector,
) -> tuple[Float[Tensor, "3 x y z"], Float[Tensor, "x y z"]]:
    """The new dual and ∇ᵀ(z − s), in tensor operations for any device."""
    v = differences(x, voxel_mm) + s
    size = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt()
    s = v * (threshold / size.clamp_min(1e-30)).clamp_max(1)
    return s, differences_adjoint(v - 2 * s, voxel_mm)


class TVSplit:
    """Keeps the dual of one split z = ∇x with isotropic shrinkage on a grid that wraps around."""

    def __init__(self, grid: Grid, threshold: Float[Tensor, "x y z"]) -> None:
        """`threshold` is α/μ at each voxel [unit of x per mm]; zero leaves that voxel's gradient free."""
        self.threshold = threshold.contiguous()
        self.s = threshold.new_zeros((3, *grid.shape))
        self._w = torch.zeros_like(self.s)
        self._out = torch.zeros_like(threshold)
        self._voxel_mm = grid.voxel_mm
        self._per_mm = (1 / np.asarray(grid.voxel_mm)).astype(np.float32)

    def step(self, x: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Shrink, update the dual, and return ∇ᵀ(z − s); the result is overwritten by the next step."""
        if x.device.type == "cpu":
            x = x.contiguous()
            w, s, t = self._w.numpy(), self.s.numpy(), self.threshold.numpy()
            _shrink_cpu(x.numpy(), s, w, t, self._per_mm)
            divergence_cpu(w, self._out.numpy(), self._per_mm)
            return self._out
        self.s, out = fused(shrink_step, x)(x, self.s, self.threshold, self._voxel_mm)
        return out

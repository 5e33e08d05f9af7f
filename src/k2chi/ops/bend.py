"""The image-space half of a step with second-order total generalised variation, in two passes over memory.

Splits z₁ = ∇x − v and z₀ = ℰv, where ℰv = ½(∂ᵢvⱼ + ∂ⱼvᵢ), scaled duals s. As in `shrink`:
a = (what is split) + s, s ← a cut to the threshold, and z − s = a − 2s goes into the right-hand sides.
"""

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid, Vector
from k2chi.ops.finite import differences, differences_adjoint
from k2chi.ops.fuse import fused


@numba.njit(fastmath=True, cache=True, nogil=True, inline="always")
def _cut(length2: np.float32, limit: np.float32) -> np.float32:
    """What is kept of a vector whose squared length is `length2`."""
    length = np.sqrt(length2)
    return np.float32(1) if length <= limit else limit / length


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _shrink_cpu(
    x: np.ndarray,
    v: np.ndarray,
    s1: np.ndarray,
    s0: np.ndarray,
    w1: np.ndarray,
    w0: np.ndarray,
    t1: np.ndarray,
    t0: np.ndarray,
    per_mm: np.ndarray,
) -> None:
    nx, ny, nz = x.shape
    gx, gy, gz = per_mm
    two, half = np.float32(2), np.float32(0.5)
    for i in numba.prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                c, p, q, r = x[i, j, k], v[0, i, j, k], v[1, i, j, k], v[2, i, j, k]
                a = (x[i1, j, k] - c) * gx - p + s1[0, i, j, k]
                b = (x[i, j1, k] - c) * gy - q + s1[1, i, j, k]
                d = (x[i, j, k1] - c) * gz - r + s1[2, i, j, k]
                keep = _cut(a * a + b * b + d * d, t1[i, j, k])
                s1[0, i, j, k], s1[1, i, j, k], s1[2, i, j, k] = keep * a, keep * b, keep * d
                rest = 1 - two * keep
                w1[0, i, j, k], w1[1, i, j, k], w1[2, i, j, k] = rest * a, rest * b, rest * d
                xx = (v[0, i1, j, k] - p) * gx + s0[0, i, j, k]
                yy = (v[1, i, j1, k] - q) * gy + s0[1, i, j, k]
                zz = (v[2, i, j, k1] - r) * gz + s0[2, i, j, k]
                xy = half * ((v[0, i, j1, k] - p) * gy + (v[1, i1, j, k] - q) * gx) + s0[3, i, j, k]
                xz = half * ((v[0, i, j, k1] - p) * gz + (v[2, i1, j, k] - r) * gx) + s0[4, i, j, k]
                yz = half * ((v[1, i, j, k1] - q) * gz + (v[2, i, j1, k] - r) * gy) + s0[5, i, j, k]
                keep = _cut(xx * xx + yy * yy + zz * zz + two * (xy * xy + xz * xz + yz * yz), t0[i, j, k])
                s0[0, i, j, k], s0[1, i, j, k], s0[2, i, j, k] = keep * xx, keep * yy, keep * zz
                s0[3, i, j, k], s0[4, i, j, k], s0[5, i, j, k] = keep * xy, keep * xz, keep * yz
                rest = 1 - two * keep
                w0[0, i, j, k], w0[1, i, j, k], w0[2, i, j, k] = rest * xx, rest * yy, rest * zz
                w0[3, i, j, k], w0[4, i, j, k], w0[5, i, j, k] = rest * xy, rest * xz, rest * yz


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _gather_cpu(
    w1: np.ndarray,
    w0: np.ndarray,
    mu1: np.float32,
    mu0: np.float32,
    x: np.ndarray,
    v: np.ndarray,
    per_mm: np.ndarray,
) -> None:
    """μ₁∇ᵀw₁ into `x`, μ₀ℰᵀw₀ − μ₁w₁ into `v`."""
    nx, ny, nz = x.shape
    gx, gy, gz = per_mm
    for i in numba.prange(nx):
        h = i - 1 if i else nx - 1
        for j in range(ny):
            g = j - 1 if j else ny - 1
            for k in range(nz):
                f = k - 1 if k else nz - 1
                x[i, j, k] = mu1 * (
                    (w1[0, h, j, k] - w1[0, i, j, k]) * gx
                    + (w1[1, i, g, k] - w1[1, i, j, k]) * gy
                    + (w1[2, i, j, f] - w1[2, i, j, k]) * gz
                )
                for n in range(3):  # row n of the symmetric matrix: xx xy xz, xy yy yz, xz yz zz
                    a = 0 if n == 0 else n + 2
                    b = 1 if n == 1 else (3 if n == 0 else 5)
                    c = 2 if n == 2 else (4 if n == 0 else 5)
                    v[n, i, j, k] = (
                        mu0
                        * (
                            (w0[a, h, j, k] - w0[a, i, j, k]) * gx
                            + (w0[b, i, g, k] - w0[b, i, j, k]) * gy
                            + (w0[c, i, j, f] - w0[c, i, j, k]) * gz
                        )
                        - mu1 * w1[n, i, j, k]
                    )


def bend_step(
    x: Float[Tensor, "x y z"],
    v: Float[Tensor, "3 x y z"],
    s1: Float[Tensor, "3 x y z"],
    s0: Float[Tensor, "3 3 x y z"],
    thresholds: tuple[Tensor, Tensor],
    mu: tuple[float, float],
    voxel_mm: Vector,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The right-hand sides for x and v, and the new duals, in tensor operations for any device."""
    jacobian = differences(v, voxel_mm)
    a, e = differences(x, voxel_mm) - v + s1, (jacobian + jacobian.transpose(0, 1)) / 2 + s0
    s1 = a * (thresholds[0] / a.square().sum(0).sqrt().clamp_min(1e-30)).clamp_max(1)
    s0 = e * (thresholds[1] / e.square().sum((0, 1)).sqrt().clamp_min(1e-30)).clamp_max(1)
    a, e = a - 2 * s1, e - 2 * s0
    right = mu[0] * differences_adjoint(a, voxel_mm)
    return right, mu[1] * differences_adjoint(e, voxel_mm) - mu[0] * a, s1, s0


class TGVSplit:
    """Keeps v and the duals of z₁ = ∇x − v and z₀ = ℰv, shrunk isotropically, on a grid that wraps around."""

    def __init__(
        self,
        grid: Grid,
        first: Float[Tensor, "x y z"],
        second: Float[Tensor, "x y z"],
        mu: tuple[float, float],
    ) -> None:
        """Thresholds of z₁ [unit of x per mm] and z₀ [per mm²], zero: free; `mu` are the splits' weights."""
        self.first, self.second, self.mu = first.contiguous(), second.contiguous(), mu
        self._cpu = first.device.type == "cpu"
        parts = (6,) if self._cpu else (3, 3)
        self.v = first.new_zeros((3, *grid.shape))
        self._s1, self._s0 = torch.zeros_like(self.v), first.new_zeros((*parts, *grid.shape))
        if self._cpu:
            self._w1, self._w0 = torch.zeros_like(self._s1), torch.zeros_like(self._s0)
        self._voxel_mm = grid.voxel_mm
        self._per_mm = (1 / np.asarray(grid.voxel_mm)).astype(np.float32)

    def step(self, x: Float[Tensor, "x y z"]) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "3 x y z"]]:
        """Shrink, update the duals; the right-hand sides for x and v, the latter in place of v."""
        mu1, mu0 = self.mu
        if self._cpu:
            out = torch.empty_like(self.first)
            s1, s0, w1, w0, v = (t.numpy() for t in (self._s1, self._s0, self._w1, self._w0, self.v))
            t1, t0 = self.first.numpy(), self.second.numpy()
            _shrink_cpu(x.contiguous().numpy(), v, s1, s0, w1, w0, t1, t0, self._per_mm)
            _gather_cpu(w1, w0, np.float32(mu1), np.float32(mu0), out.numpy(), v, self._per_mm)
            return out, self.v
        step = fused(bend_step, x)
        thresholds = (self.first, self.second)
        out, self.v, self._s1, self._s0 = step(
            x, self.v, self._s1, self._s0, thresholds, self.mu, self._voxel_mm
        )
        return out, self.v

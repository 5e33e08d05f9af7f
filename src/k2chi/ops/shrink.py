"""The image-space half of a total-variation step, in two passes over memory.

For the split z = ∇x with scaled dual s and threshold t, alternating directions with relaxation ρ need
v ← v + ρ (∇x − z) for v = z + s, then z = shrink(v, t), and then the right-hand side ∇ᵀ(z − s). As s is v
cut to length t, only v has to be kept, and z − s = v − 2s. ρ = 1 is the plain method; between 1 and 2 it
needs fewer iterations (Eckstein and Bertsekas 1992, doi:10.1007/BF01581204).
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
def _shrink_cpu(
    x: np.ndarray, v: np.ndarray, w: np.ndarray, t: np.ndarray, per_mm: np.ndarray, relax: float, known: bool
) -> None:
    nx, ny, nz = x.shape
    ix, iy, iz = per_mm
    zero, one, two, rho = np.float32(0), np.float32(1), np.float32(2), np.float32(relax)
    for i in numba.prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                c, limit = x[i, j, k], t[i, j, k]
                a, b, d = v[0, i, j, k], v[1, i, j, k], v[2, i, j, k]
                length = np.sqrt(a * a + b * b + d * d)
                z = one - limit / length if known and length > limit else zero
                a += rho * ((x[i1, j, k] - c) * ix - z * a)
                b += rho * ((x[i, j1, k] - c) * iy - z * b)
                d += rho * ((x[i, j, k1] - c) * iz - z * d)
                length = np.sqrt(a * a + b * b + d * d)
                turned = one - two * limit / length if length > limit else -one
                v[0, i, j, k], v[1, i, j, k], v[2, i, j, k] = a, b, d
                w[0, i, j, k], w[1, i, j, k], w[2, i, j, k] = turned * a, turned * b, turned * d


def cut(v: Float[Tensor, "3 x y z"], threshold: Float[Tensor, "x y z"]) -> Float[Tensor, "3 x y z"]:
    """The dual s of v = z + s: vectors no longer than the threshold."""
    size = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + 1e-30).sqrt()  # never zero: it has a gradient
    return v * (threshold / size).clamp_max(1)


def shrink_step(
    x: Float[Tensor, "x y z"],
    v: Float[Tensor, "3 x y z"],
    threshold: Float[Tensor, "x y z"],
    voxel_mm: Vector,
    relax: float = 1.0,
    known: bool = True,
) -> tuple[Float[Tensor, "3 x y z"], Float[Tensor, "x y z"]]:
    """The new v and ∇ᵀ(z − s), in tensor operations for any device. Not `known`: `v` is s, z is lost."""
    z = v - cut(v, threshold) if known else 0.0
    v = v + relax * (differences(x, voxel_mm) - z)
    return v, differences_adjoint(v - 2 * cut(v, threshold), voxel_mm)


class TVSplit:
    """Keeps one split z = ∇x with isotropic shrinkage on a grid that wraps around."""

    def __init__(
        self, grid: Grid, threshold: Float[Tensor, "x y z"], relax: float = 1.0, differentiable: bool = False
    ) -> None:
        """`threshold` is α/μ at each voxel [unit of x per mm]; zero leaves that voxel's gradient free."""
        self.threshold, self.relax, self._differentiable = threshold.contiguous(), relax, differentiable
        self.v = threshold.new_zeros((3, *grid.shape))
        self._known = False  # the first step is plain: v = ∇x
        self._w = torch.zeros_like(self.v)
        self._out = torch.zeros_like(threshold)
        self._voxel_mm = grid.voxel_mm
        self._per_mm = (1 / np.asarray(grid.voxel_mm)).astype(np.float32)

    @property
    def s(self) -> Float[Tensor, "3 x y z"]:
        """The scaled dual."""
        return cut(self.v, self.threshold) if self._known else self.v

    def again(self, threshold: Float[Tensor, "x y z"], times: Tensor | float) -> None:
        """Go on with another threshold and weight: the dual is multiplied, z is lost, the next step plain."""
        self.v, self._known = self.s * times, False
        self.threshold = threshold.contiguous()

    def step(self, x: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Shrink, update the dual, and return ∇ᵀ(z − s); the result is overwritten by the next step."""
        relax, known, self._known = (self.relax if self._known else 1.0), self._known, True
        if x.device.type == "cpu" and not self._differentiable:
            x = x.contiguous()
            w, v, t = self._w.numpy(), self.v.numpy(), self.threshold.numpy()
            _shrink_cpu(x.numpy(), v, w, t, self._per_mm, relax, known)
            divergence_cpu(w, self._out.numpy(), self._per_mm)
            return self._out
        step = shrink_step if self._differentiable else fused(shrink_step, x)
        self.v, out = step(x, self.v, self.threshold, self._voxel_mm, relax, known)
        return out

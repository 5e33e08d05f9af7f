"""The quadratic form of a weighted gradient: what reweighted total variation solves with."""

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid
from k2chi.ops.finite import gradient
from k2chi.ops.linear import Linear


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _diffuse_cpu(x: np.ndarray, v: np.ndarray, out: np.ndarray, per_mm2: np.ndarray) -> None:
    nx, ny, nz = x.shape
    ax, ay, az = per_mm2
    for i in numba.prange(nx):
        i0, i1 = (i - 1 if i else nx - 1), (i + 1 if i + 1 < nx else 0)
        for j in range(ny):
            j0, j1 = (j - 1 if j else ny - 1), (j + 1 if j + 1 < ny else 0)
            for k in range(nz):
                k0, k1 = (k - 1 if k else nz - 1), (k + 1 if k + 1 < nz else 0)
                c = x[i, j, k]
                out[i, j, k] = (
                    ax * (v[0, i0, j, k] * (c - x[i0, j, k]) - v[0, i, j, k] * (x[i1, j, k] - c))
                    + ay * (v[1, i, j0, k] * (c - x[i, j0, k]) - v[1, i, j, k] * (x[i, j1, k] - c))
                    + az * (v[2, i, j, k0] * (c - x[i, j, k0]) - v[2, i, j, k] * (x[i, j, k1] - c))
                )


def diffusion(grid: Grid, weight: Float[Tensor, "3 x y z"]) -> Linear:
    """∇ᵀ(V∇x) with forward differences per mm on a grid that wraps around; its own adjoint.

    `weight` is V, one for each component of the gradient. One pass over memory on the CPU.
    """
    nabla = gradient(grid)
    per_mm2 = np.array([1 / v**2 for v in grid.voxel_mm])
    weight = weight.contiguous()

    def apply(x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not x.requires_grad:
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            _diffuse_cpu(
                x.contiguous().numpy(), weight.numpy(), out.numpy(), per_mm2.astype(out.numpy().dtype)
            )
            return out
        return nabla.H(weight * nabla(x))

    return Linear(apply, apply)

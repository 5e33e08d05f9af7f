"""The proximal map of total variation, one step of its dual at a time."""

import numba
import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from k2chi.data import Vector
from k2chi.ops.finite import differences, differences_adjoint, divergence_cpu


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def _dual_cpu(x: np.ndarray, u: np.ndarray, w: np.ndarray, limit: np.float32) -> None:
    nx, ny, nz = x.shape
    a, b, c = w
    for i in numba.prange(nx):
        i1 = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            j1 = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                k1 = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                p = u[0, i, j, k] + (x[i1, j, k] - here) * a
                q = u[1, i, j, k] + (x[i, j1, k] - here) * b
                r = u[2, i, j, k] + (x[i, j, k1] - here) * c
                size = p.real * p.real + p.imag * p.imag
                size += q.real * q.real + q.imag * q.imag + r.real * r.real + r.imag * r.imag
                keep = limit / np.sqrt(size) if size > limit * limit else np.float32(1)
                u[0, i, j, k] = keep * p
                u[1, i, j, k] = keep * q
                u[2, i, j, k] = keep * r


def variation_step(
    v: Complex[Tensor, "x y z"], u: Complex[Tensor, "3 x y z"], threshold: float, edges: Vector
) -> tuple[Complex[Tensor, "x y z"], Complex[Tensor, "3 x y z"]]:
    """The proximal point and the new dual of `TVProx`, in tensor operations for any device."""
    x = v - differences_adjoint(u, edges)
    u = u + differences(x, edges) / norm2(edges)
    size = torch.view_as_real(u).square().sum((0, -1)).sqrt()
    u = u * (threshold / size.clamp_min(1e-30)).clamp_max(1)
    return v - differences_adjoint(u, edges), u


def norm2(edges: Vector) -> float:
    """What ‖∇‖² can reach."""
    return 4 * sum(1 / e**2 for e in edges)


class TVProx:
    """argmin_x ½‖x − v‖² + t Σ|∇x|, x complex: real and imaginary differences along all axes shrink together.

    x = v − ∇ᵀu, u no longer than t. Each call makes one step u ← cut(u + ∇x/‖∇‖², t) from the u of the last
    call: with the same v again and again, or with the v of descent steps that converge, x comes to the
    minimum of the whole. Wraps around.
    Chambolle 2004, J Math Imaging Vis 20:89, doi:10.1023/B:JMIV.0000011325.36760.1e; Loris & Verhoeven 2011,
    Inverse Probl 27:125007, doi:10.1088/0266-5611/27/12/125007.
    """

    def __init__(self, like: Complex[Tensor, "x y z"], threshold: float, edges: Vector) -> None:
        """`threshold` is t; differences are divided by the `edges` of voxels."""
        self.threshold, self.edges = threshold, edges
        self.u = like.new_zeros((3, *like.shape))

    def __call__(self, v: Complex[Tensor, "x y z"]) -> Complex[Tensor, "x y z"]:
        """The proximal point of v, one step nearer."""
        if v.device.type == "cpu":
            return self._compiled(v.contiguous())
        x, self.u = variation_step(v, self.u, self.threshold, self.edges)
        return x

    def _compiled(self, v: Tensor) -> Tensor:
        x, u = torch.empty_like(v), self.u.numpy()
        real = x.real.numpy().dtype.type
        w = 1 / np.asarray(self.edges)
        divergence_cpu(u, x.numpy(), w.astype(real))
        torch.sub(v, x, out=x)
        _dual_cpu(x.numpy(), u, (w / norm2(self.edges)).astype(real), real(self.threshold))
        divergence_cpu(u, x.numpy(), w.astype(real))
        return torch.sub(v, x, out=x)

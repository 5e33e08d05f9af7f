"""What a scanner with several coils does to an image: sensitivities, Fourier transform, mask."""

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from k2chi.ops.fourier import SPACE
from k2chi.ops.linear import Linear

Axes = tuple[int, ...]


def encoding(
    maps: Complex[Tensor, "coil x y z"], sampled: Bool[Tensor, "#kx #ky #kz"], axes: Axes = SPACE
) -> Linear:
    """E: image (x y z) to k-space (coil kx ky kz), (E x)_c = M F (S_c x), zero where nothing was measured.

    F goes along `axes`; leave the readout out for data that are already images along it. One coil at a
    time, so that beside the result nothing has the size of all coils.
    """

    def apply(x: Tensor) -> Tensor:
        if x.requires_grad:
            return torch.stack([_to_k(s * x, axes) * sampled for s in maps])
        out = torch.empty_like(maps)
        for s, k in zip(maps, out, strict=True):
            torch.mul(_to_k(s * x, axes), sampled, out=k)
        return out

    def adjoint(y: Tensor) -> Tensor:
        out = torch.zeros_like(y[0])
        for s, k in zip(maps, y, strict=True):
            out = out.addcmul(s.conj(), _to_image(k * sampled, axes))
        return out

    return Linear(apply, adjoint)


def normal(
    maps: Complex[Tensor, "coil x y z"], sampled: Bool[Tensor, "#kx #ky #kz"], axes: Axes = SPACE
) -> Linear:
    """EᴴE at once, as `encoding(…).H @ encoding(…)` but without k-space of all coils; its own adjoint."""

    def apply(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for s in maps:
            out = out.addcmul(s.conj(), _to_image(_to_k(s * x, axes) * sampled, axes))
        return out

    return Linear(apply, apply)


def _to_k(x: Tensor, axes: Axes) -> Tensor:
    k: Tensor = torch.fft.fftn(x, dim=axes, norm="ortho")
    return k


def _to_image(k: Tensor, axes: Axes) -> Tensor:
    x: Tensor = torch.fft.ifftn(k, dim=axes, norm="ortho")
    return x

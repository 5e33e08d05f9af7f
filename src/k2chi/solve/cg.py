"""Conjugate gradients for a positive semi-definite system."""

from collections.abc import Callable

import torch
from torch import Tensor

from k2chi.progress import track

Map = Callable[[Tensor], Tensor]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.vdot(a.flatten(), b.flatten()).real)


def cg(
    a: Map,
    b: Tensor,
    x: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
    precondition: Map | None = None,
    what: str = "conjugate gradients",
) -> Tensor:
    """Solve A x = b, with `a` symmetric (Hermitian) and positive semi-definite, from `x` or zero.

    Stops at a residual of `tolerance` times |b|. `precondition` applies an approximate, positive inverse.
    """
    p_of = precondition or (lambda r: r)
    start, x = x, torch.zeros_like(b) if x is None else x.clone()
    r = b - a(start) if start is not None else b.clone()
    z = p_of(r)
    p = z.clone()
    rz, stop = _dot(r, z), tolerance * _dot(b, b) ** 0.5
    for _ in track(iterations, what):
        if _dot(r, r) ** 0.5 <= stop:
            break
        ap = a(p)
        step = rz / max(_dot(p, ap), 1e-300)
        x += step * p
        r -= step * ap
        z = p_of(r)
        rz, before = _dot(r, z), rz
        p = z + (rz / max(before, 1e-300)) * p
    return x

"""Alternating directions for  min f(x) + Σ gᵢ(Kᵢx)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from k2chi.progress import track

Map = Callable[[Tensor], Tensor]


def admm(
    solve_x: Callable[[list[Tensor]], Tensor],
    maps: Sequence[Map],
    proxes: Sequence[Map],
    x: Tensor,
    iterations: int,
    tolerance: float = 0.0,
    what: str = "ADMM",
) -> tuple[Tensor, tuple[float, ...]]:
    """Split zᵢ = Kᵢx with scaled duals sᵢ; returns x and the relative change in each iteration.

    `solve_x([zᵢ − sᵢ])` minimises f(x) + Σ μᵢ/2 ‖Kᵢx − (zᵢ − sᵢ)‖², `maps` apply Kᵢ, and `proxes` map
    Kᵢx + sᵢ to zᵢ = argmin gᵢ(z) + μᵢ/2 ‖z − (Kᵢx + sᵢ)‖². The weights μᵢ live in those closures.
    """
    kx = [k(x) for k in maps]
    s = [torch.zeros_like(v) for v in kx]
    z = [prox(v) for prox, v in zip(proxes, kx, strict=True)]
    updates = []
    for _ in track(iterations, what):
        new = solve_x([a - b for a, b in zip(z, s, strict=True)])
        updates.append(float((new - x).norm() / new.norm().clamp_min(1e-30)))
        x = new
        for i, (k, prox) in enumerate(zip(maps, proxes, strict=True)):
            v = k(x) + s[i]
            z[i] = prox(v)
            s[i] = v - z[i]
        if 0 < updates[-1] <= tolerance:  # at exactly zero the duals may still be on their way
            break
    return x, tuple(updates)

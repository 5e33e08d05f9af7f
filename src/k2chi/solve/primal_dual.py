"""Chambolle and Pock's primal-dual iteration for  min g(x) + f(Kx)."""

from collections.abc import Callable

from torch import Tensor

from k2chi.progress import track

Map = Callable[[Tensor], Tensor]


def primal_dual(
    k: Map,
    k_adjoint: Map,
    prox_dual: Callable[[Tensor, float], Tensor],
    prox_primal: Callable[[Tensor, float], Tensor],
    x: Tensor,
    norm: float,
    iterations: int,
    tolerance: float = 0.0,
    what: str = "primal-dual",
) -> tuple[Tensor, tuple[float, ...]]:
    """Returns x and its relative change in each iteration.

    Chambolle & Pock 2011, J Math Imaging Vis 40:120, doi:10.1007/s10851-010-0251-1.

    `prox_dual(y, σ)` is the proximal map of the conjugate of f, `prox_primal(x, τ)` that of g; `norm`
    bounds ‖K‖, and both steps are 1/norm.
    """
    step = 1.0 / norm
    y, ahead, updates = k(x) * 0, x, []
    for _ in track(iterations, what):
        y = prox_dual(y + step * k(ahead), step)
        new = prox_primal(x - step * k_adjoint(y), step)
        updates.append(float((new - x).norm() / new.norm().clamp_min(1e-30)))
        ahead, x = 2 * new - x, new
        if 0 < updates[-1] <= tolerance:  # at exactly zero the duals may still be on their way
            break
    return x, tuple(updates)

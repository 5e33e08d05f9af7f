"""Least squares by Golub and Kahan's bidiagonalisation."""

from math import hypot

import torch
from torch import Tensor

from k2chi.ops.linear import Linear
from k2chi.progress import track


def lsqr(
    a: Linear,
    b: Tensor,
    iterations: int,
    tolerance: float = 0.0,
    what: str = "LSQR",
) -> tuple[Tensor, tuple[float, ...], tuple[float, ...]]:
    """Minimise ‖Ax − b‖ from zero; returns x, its relative change and ‖Ax − b‖/‖b‖ in each iteration.

    Paige & Saunders 1982, ACM Trans Math Softw 8:43, doi:10.1145/355984.355989. Real tensors. In exact
    arithmetic the same iterates as conjugate gradients on the normal equations, but the misfit comes for
    free and the condition number is not squared on the way. Stops at a relative change of `tolerance`.
    """
    u = b.clone()
    beta = float(u.norm())
    v = a.H(u)
    alpha = float(v.norm())
    x = torch.zeros_like(v)
    updates: list[float] = []
    misfits: list[float] = []
    if alpha == 0:  # b is zero, or nothing that A can make
        return x, (), ()
    size, v = beta, v.div_(alpha)
    u, alpha = u.div_(beta), alpha / beta
    w, phi_bar, rho_bar = v.clone(), beta, alpha
    for _ in track(iterations, what):
        u = a(v).sub_(u, alpha=alpha)
        beta = float(u.norm())
        u = u.div_(max(beta, 1e-30))
        v = a.H(u).sub_(v, alpha=beta)
        alpha = float(v.norm())
        v = v.div_(max(alpha, 1e-30))
        rho = hypot(rho_bar, beta)
        c, s = rho_bar / rho, beta / rho
        step = c * phi_bar / rho
        x = x.add_(w, alpha=step)
        updates.append(abs(step) * float(w.norm()) / max(float(x.norm()), 1e-30))
        w = v - (s * alpha / rho) * w
        rho_bar, phi_bar = -c * alpha, s * phi_bar
        misfits.append(phi_bar / size)
        if updates[-1] <= tolerance or rho_bar == 0:
            break
    return x, tuple(updates), tuple(misfits)

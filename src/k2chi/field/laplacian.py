"""Unwrapping by solving a Poisson equation: no paths, so no path to go wrong."""

from dataclasses import dataclass, replace
from math import pi, tau

import torch
from jaxtyping import Float
from scipy import fft
from torch import Tensor

from k2chi.data import Echoes, Size, Vector
from k2chi.progress import track
from k2chi.solve import cg


@dataclass(frozen=True)
class LaplacianUnwrap:
    """Find the smooth phase whose steps between neighbours are closest to the wrapped steps seen.

    min over φ of Σ_edges (∇φ − wrap(∇ψ))² / v² over edges inside the mask: ∇·∇φ = ∇·wrap(∇ψ), the equation of
    Schofield & Zhu 2003, Opt Lett 28:1194, doi:10.1364/OL.28.001194, with free (Neumann) borders and one
    stencil on both sides. Solved by conjugate gradients that a cosine transform preconditions (Ghiglia &
    Romero 1994, J Opt Soc Am A 11:107, doi:10.1364/JOSAA.11.000107); without a mask one step is the solution.

    Where noise tears the phase, the tear is smoothed over instead of shifted by whole turns, so the result is
    not the phase that was measured; with `exact` the nearest whole turns are added to the measured phase. The
    mean inside the mask is that of a phase around zero. About 3 s a step and echo at 164×205×205 on one core.
    """

    exact: bool = False
    """Return the measured phase plus whole turns instead of the smooth solution."""
    iterations: int = 30
    """Most steps of conjugate gradients."""
    tolerance: float = 1e-3
    """Stop at this share of the first residual."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.tolerance < 0:
            raise ValueError("LaplacianUnwrap: choose at least 1 iteration and a tolerance of at least 0")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, 0 where there is no signal."""
        signal, voxel = echoes.signal, echoes.grid.voxel_mm
        usable = (signal.isfinite() & (signal != 0)).all(0)
        inside = usable if echoes.mask is None else usable & echoes.mask
        middle = inside if inside.any() else torch.ones_like(inside)
        out = torch.zeros_like(signal.real)
        for k in track(signal.shape[0], "Laplacian unwrapping"):
            phase = torch.where(usable, signal[k].angle(), 0)
            smooth = _solve(phase, inside, voxel, self.iterations, self.tolerance)
            # The equation leaves the mean open: match the phasor, then the turn nearest to zero.
            apart = torch.polar(middle.to(phase.dtype), phase - smooth).sum().angle()
            smooth = smooth + apart
            smooth = smooth - tau * torch.round(smooth[middle].mean() / tau)
            if self.exact:
                smooth = phase + tau * torch.round((smooth - phase) / tau)
            out[k] = smooth * usable
        return replace(echoes, unwrapped_rad=out)


def _steps(x: Float[Tensor, "x y z"], axis: int) -> Tensor:
    n = x.shape[axis]
    return x.narrow(axis, 1, n - 1) - x.narrow(axis, 0, n - 1)


def _gather(flow: Tensor, axis: int, out: Tensor) -> None:
    """Add the adjoint of `_steps`."""
    n = out.shape[axis]
    out.narrow(axis, 1, n - 1).add_(flow)
    out.narrow(axis, 0, n - 1).sub_(flow)


def _solve(
    phase: Float[Tensor, "x y z"], inside: Tensor, voxel_mm: Vector, iterations: int, tolerance: float
) -> Float[Tensor, "x y z"]:
    open_edges = [
        (inside.narrow(a, 1, n - 1) & inside.narrow(a, 0, n - 1)).to(phase.dtype) / voxel_mm[a] ** 2
        for a, n in enumerate(phase.shape)
    ]

    def normal(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for a in range(3):
            _gather(open_edges[a] * _steps(x, a), a, out)
        return out

    right = torch.zeros_like(phase)
    for a in range(3):
        seen = _steps(phase, a)
        _gather(open_edges[a] * (seen - tau * torch.round(seen / tau)), a, right)
    shape: Size = (phase.shape[0], phase.shape[1], phase.shape[2])
    symbol = _symbol(shape, voxel_mm).to(phase)

    def poisson(r: Tensor) -> Tensor:
        spectrum = fft.dctn(r.cpu().numpy(), type=2, norm="ortho", workers=-1)
        spectrum /= symbol.cpu().numpy()
        spectrum[0, 0, 0] = 0
        back = fft.idctn(spectrum, type=2, norm="ortho", workers=-1, overwrite_x=True)
        return torch.from_numpy(back).to(r)

    return cg(normal, right, None, iterations, tolerance, poisson, "Poisson equation")


def _symbol(shape: Size, voxel_mm: Vector) -> Float[Tensor, "x y z"]:
    """What −∇² with free borders multiplies each cosine by; 1 instead of 0 at the constant."""
    total = torch.zeros(shape, dtype=torch.float64)
    for a, (n, v) in enumerate(zip(shape, voxel_mm, strict=True)):
        part = (2 - 2 * torch.cos(pi * torch.arange(n, dtype=torch.float64) / n)) / v**2
        total += part.reshape([-1 if a == j else 1 for j in range(3)])
    total[0, 0, 0] = 1
    return total

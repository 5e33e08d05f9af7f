"""Unwrapping by solving a Poisson equation: no paths, so no path to go wrong."""

from dataclasses import dataclass
from math import pi, tau
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import fft
from torch import Tensor

from k2chi.data import Echoes, Size, Vector
from k2chi.field.turns import Array, Mode, Regions, as_numpy, check_template, unwrap_echoes
from k2chi.solve import cg

Borders = Literal["mask", "array", "periodic"]


@dataclass(frozen=True)
class LaplacianUnwrap:
    """Find the smooth phase whose steps between neighbours are closest to the wrapped steps seen.

    min over φ of Σ_edges (∇φ − wrap(∇ψ))² / v² over edges inside the mask: ∇·∇φ = ∇·wrap(∇ψ), the equation of
    Schofield & Zhu 2003, Opt Lett 28:1194, doi:10.1364/OL.28.001194, with free (Neumann) borders and one
    stencil on both sides. Solved by conjugate gradients that a cosine transform preconditions (Ghiglia &
    Romero 1994, J Opt Soc Am A 11:107, doi:10.1364/JOSAA.11.000107); without a mask one step is the solution.

    Where noise tears the phase, the tear is smoothed over instead of shifted by whole turns, so the result is
    not the phase that was measured; with `exact` the nearest whole turns are added to the measured phase. The
    equation leaves the mean of each part of the mask open: it is taken from the measured phase, and the turns
    in it from the echoes before. About 3 s a step and echo at 164×205×205 on one core.
    """

    exact: bool = False
    """Return the measured phase plus whole turns instead of the smooth solution."""
    borders: Borders = "mask"
    """Where phase may end: at the mask; at the array, so that phase outside the mask counts (one cosine
    transform); nowhere, as if opposite faces of the array touched (one Fourier transform)."""
    iterations: int = 30
    """Most steps of conjugate gradients, for borders at the mask."""
    tolerance: float = 1e-3
    """Stop at this share of the first residual."""
    mode: Mode = "individual"
    """`individual`: each echo in space. `template`: one echo in space, the others in time; needs `exact`."""
    template: int = 0
    """Which echo comes first, counted from 0."""

    def __post_init__(self) -> None:
        check_template("LaplacianUnwrap", self.template)
        if self.iterations < 1 or self.tolerance < 0:
            raise ValueError("LaplacianUnwrap: choose at least 1 iteration and a tolerance of at least 0")
        if self.mode == "template" and not self.exact:
            raise ValueError("LaplacianUnwrap in template mode adds whole turns: choose exact = true")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes with `unwrapped_rad`, 0 where there is no signal."""
        voxel, device = echoes.grid.voxel_mm, echoes.signal.device

        def in_space(k: int, phase: Array, regions: Regions) -> Array:
            psi, inside = torch.from_numpy(phase).to(device), torch.from_numpy(regions.inside).to(device)
            if self.borders == "mask":
                found = _masked(psi, inside, voxel, self.iterations, self.tolerance)
            else:
                found = _whole(psi, voxel, self.borders == "periodic")
            smooth = as_numpy(found)
            smooth = smooth + _mean_apart(phase - smooth, regions.parts)
            if self.exact:
                smooth = phase + tau * np.rint((smooth - phase) / tau)
            return smooth

        return unwrap_echoes(echoes, self.mode, self.template, in_space)


def _mean_apart(away: Array, parts: Array) -> Array:
    """The angle of the mean phasor of `away` in each part; outside as in part 1."""
    label = parts.ravel()
    real = np.bincount(label, weights=np.cos(away).ravel())
    imag = np.bincount(label, weights=np.sin(away).ravel())
    angle = np.arctan2(imag, real)
    if angle.size > 1:
        angle[0] = angle[1]
    mean: Array = angle.astype(away.dtype)[parts]
    return mean


def _steps(x: Float[Tensor, "x y z"], axis: int) -> Tensor:
    n = x.shape[axis]
    return x.narrow(axis, 1, n - 1) - x.narrow(axis, 0, n - 1)


def _gather(flow: Tensor, axis: int, out: Tensor) -> None:
    """Add the adjoint of `_steps`."""
    n = out.shape[axis]
    out.narrow(axis, 1, n - 1).add_(flow)
    out.narrow(axis, 0, n - 1).sub_(flow)


def _wrapped(steps: Tensor) -> Tensor:
    return steps - tau * torch.round(steps / tau)


def _masked(
    phase: Float[Tensor, "x y z"],
    inside: Bool[Tensor, "x y z"],
    voxel_mm: Vector,
    iterations: int,
    tolerance: float,
) -> Float[Tensor, "x y z"]:
    """Free borders at the mask."""
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
        _gather(open_edges[a] * _wrapped(_steps(phase, a)), a, right)
    symbol = as_numpy(_symbol(_size(phase), voxel_mm, 1).to(phase.dtype))
    return cg(normal, right, None, iterations, tolerance, lambda r: _poisson(r, symbol), "Poisson equation")


def _whole(phase: Float[Tensor, "x y z"], voxel_mm: Vector, periodic: bool) -> Float[Tensor, "x y z"]:
    """Free borders at the array, or none: one transform there and back."""
    symbol = _symbol(_size(phase), voxel_mm, 2 if periodic else 1).to(phase)
    right = torch.zeros_like(phase)
    if not periodic:
        for a, v in enumerate(voxel_mm):
            _gather(_wrapped(_steps(phase, a)) / v**2, a, right)
        return _poisson(right, as_numpy(symbol))
    for a, v in enumerate(voxel_mm):
        flow = _wrapped(phase.roll(-1, a) - phase) / v**2
        right += flow.roll(1, a) - flow
    spectrum = torch.fft.rfftn(right) / symbol[..., : phase.shape[2] // 2 + 1]
    spectrum[0, 0, 0] = 0
    smooth: Tensor = torch.fft.irfftn(spectrum, s=phase.shape)
    return smooth


def _poisson(right: Tensor, symbol: Array) -> Tensor:
    """Solve −∇²x = right with free borders at the array and no mean."""
    spectrum = fft.dctn(as_numpy(right), type=2, norm="ortho", workers=-1)
    spectrum /= symbol
    spectrum[0, 0, 0] = 0
    back = fft.idctn(spectrum, type=2, norm="ortho", workers=-1, overwrite_x=True)
    return torch.from_numpy(back).to(right)


def _size(x: Tensor) -> Size:
    nx, ny, nz = x.shape
    return nx, ny, nz


def _symbol(shape: Size, voxel_mm: Vector, period: int) -> Float[Tensor, "x y z"]:
    """What −∇² multiplies each wave by, 1 instead of 0 at the constant: cosines of half a period in the
    array with `period` 1 (free borders), whole periods with 2 (no borders)."""
    total = torch.zeros(shape, dtype=torch.float64)
    for a, (n, v) in enumerate(zip(shape, voxel_mm, strict=True)):
        part = (2 - 2 * torch.cos(period * pi * torch.arange(n, dtype=torch.float64) / n)) / v**2
        total += part.reshape([-1 if a == j else 1 for j in range(3)])
    total[0, 0, 0] = 1
    return total

"""From wrapped phase to susceptibility in one step, by total generalised variation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi, Echoes, Field
from k2chi.joint.curvature import curvature, eroded, steps, wave_stencil
from k2chi.joint.tgvsteps import (
    Domain,
    State,
    Steps,
    dual_step,
    in_pairs,
    laplacian_of,
    lines,
    primal_step,
    wave_of,
)
from k2chi.ops.box import box_around
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.fourier import SPACE
from k2chi.progress import track

EVERY = 10
"""Iterations between two looks at update and misfit."""
SOFTEN = 0.3
"""Curvature [1/edge²] below which the potential grows no more: waves beyond some 11 voxels."""
BOUNDS = 3.0
"""Steps of the map against those of p and q, over those against η: their sizes differ so much."""


@dataclass(frozen=True)
class TGV:
    """Explain the curvature of the wrapped phase by a map that is smooth between edges: no unwrapping.

    min over χ, w, ψ of ½‖Wψ‖² + α₁‖∇χ − w‖₁ + α₀‖ℰw‖₁ so that ∇²ψ = ∇²Dχ − ∇²f inside the mask: ψ is the
    misfit but for any harmonic field, which is what a background is. ∇²f comes from wrapped phase steps.
    Langkammer et al. 2015, NeuroImage 111:622, doi:10.1016/j.neuroimage.2015.02.041; primal-dual steps:
    Chambolle & Pock 2011, doi:10.1007/s10851-010-0251-1. Several echoes are one problem: their steps are
    averaged by information first, and early echoes tell late ones their turns.
    Published α are in rad at the echo time and for voxels of any size: as a phase of s rad a ppm is asked for
    s times the map, α [ppm] = α [rad]/s, so equal α [rad] smooth a 7 T scan at 35 ms far less than a 3 T scan
    at 4 ms. In ppm the strength depends on neither. Plain steps, as published, hardly move waves longer than
    some 15 voxels in a thousand iterations; their early stop is a high-pass. With the field equation
    measured by its potential they settle in some hundreds. Two passes over the mask and, with the
    potential, one pair of transforms an iteration.
    """

    alpha1: float = 1e-4
    """Strength on ∇χ − w [ppm mm], or [rad] where `unit` is rad; larger: flatter between edges."""
    alpha0: float = 3e-4
    """Strength on the strain of w [ppm mm²], or [rad]; larger: closer to total variation."""
    unit: Literal["ppm", "rad"] = "ppm"
    """What α is stated for: maps in ppm and mm, or phase at the mean echo time and voxels of unit edge."""
    iterations: int = 1500
    """Upper limit; smaller voxels need more; 0: what the successor takes, 1655 at 1 mm³."""
    tolerance: float = 1e-4
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    erosions: int = 0
    """Layers of voxels taken off the mask first; more: safe from bad phase at the rim, less brain."""
    metric: Literal["potential", "plain"] = "potential"
    """How steps on the field equation are measured; only speed depends on it, but plain is slow indeed."""
    step: float = 100.0
    """Size of the map's steps against those of its multipliers; only speed depends on it."""
    weighted: bool = True
    """Weight the misfit by trust in each voxel; otherwise the mask."""
    reliable: float = 0.4
    """Share of the median trust below which the phase of a voxel is not believed; 0 believes every voxel."""

    def __post_init__(self) -> None:
        for name in ("alpha1", "alpha0", "step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TGV {name} {getattr(self, name)} must be positive")
        if min(self.iterations, self.erosions, self.tolerance, self.reliable) < 0:
            raise ValueError("TGV iterations, erosions, tolerance and reliable must not be negative")
        if self.reliable >= 1:
            raise ValueError(f"TGV reliable {self.reliable} would believe less than half: choose below 1")

    @classmethod
    def published_2015(cls) -> "TGV":
        """What the method was published with."""
        return cls(*(0.001, 0.003, "rad", 1000, 0.0, 5, "plain"), step=1.0, weighted=False, reliable=0.0)

    @classmethod
    def level(cls, regularization: int = 2) -> "TGV":
        """The successor's `regularization` level, 1 (sharp) to 4 (smooth)."""
        if not 1 <= regularization <= 4:
            raise ValueError(f"TGV level {regularization}: choose 1, 2, 3 or 4")
        more = regularization - 1
        alpha1, alpha0 = 0.001 + 0.002 * more, 0.001 + 0.001 * more
        return cls(*(alpha1, alpha0, "rad", 0, 0.0, 3, "plain"), step=3.0, weighted=False, reliable=0.0)

    @classmethod
    def study(cls) -> "TGV":
        """As the study of deep nuclei in multiple sclerosis: level 2 with 2500 iterations."""
        return replace(cls.level(2), iterations=2500)

    def __call__(self, phase: Echoes | Field) -> Chi:
        """Invert wrapped phase without offset, or the phase of a total field at the first echo time.

        The map is zero outside the mask and has no reference yet.
        """
        mask, weight = trusted(phase)
        for _ in range(self.erosions):
            mask = eroded(mask)
        if not mask.any():
            raise ValueError(f"TGV: {self.erosions} erosions leave no voxel: use fewer or a fuller mask")
        box, grid = box_around(mask, margin=1), phase.grid
        voxel = grid.voxel_mm
        edge = prod(voxel) ** (1 / 3)
        stencil = wave_stencil(grid) * edge**2
        tissue, trust = box.take(mask), box.take(weight)
        known = eroded(tissue, corners=bool(np.count_nonzero(stencil) > 7))
        known &= trust >= self.reliable * trust[tissue].median()
        seen = box.take(curvature(steps(phase), voxel, mask))
        w = trust if self.weighted else torch.ones_like(trust)
        d = Domain(
            tissue.to(seen.dtype),
            known.to(seen.dtype),
            torch.where(known, seen * edge**2, 0),
            torch.where(tissue, w.square(), 0),
            (edge / voxel[0], edge / voxel[1], edge / voxel[2]),
            in_pairs(stencil),
            lines(tissue),
        )
        if self.unit == "ppm":
            alpha1, alpha0 = self.alpha1 / edge, self.alpha0 / edge**2
        else:
            alpha1, alpha0 = (a / phase.scan.rad_per_ppm for a in (self.alpha1, self.alpha0))
        volume = prod(voxel)
        count = self.iterations or round(max(1000.0, 3200 / volume**0.42) / 3**0.6)
        chi, updates, misfits = self._solve(d, alpha1, alpha0, count)
        return Chi(
            box.put(chi, grid.shape) * mask,
            mask,
            grid,
            updates=tuple(updates),
            misfits=tuple(misfits),
            converged=updates[-1] <= self.tolerance if updates and self.tolerance else None,
        )

    def _solve(
        self, d: Domain, alpha1: float, alpha0: float, count: int
    ) -> tuple[Tensor, list[float], list[float]]:
        shape = d.tissue.shape
        s = State(*(d.tissue.new_zeros((n, *shape)) for n in (5, 5, 10)))
        potential = Potential(d) if self.metric == "potential" else None
        t, factor = self._steps(d, potential, alpha1, alpha0)
        before, residual = torch.zeros_like(d.tissue), torch.zeros_like(d.tissue)
        size = d.curvature.norm().clamp_min(1e-30)
        updates: list[float] = []
        misfits: list[float] = []
        for i in track(count, "TGV"):
            look = i % EVERY == EVERY - 1 or i == count - 1
            if look:
                before.copy_(s.u[1])
            if potential is None:
                dual_step(s, d, t)
            else:
                dual_step(s, d, t, residual.zero_())
                s.y[0].add_(potential(residual), alpha=factor)
            primal_step(s, d, t)
            if look:
                updates.append(float((s.u[1] - before).norm() / s.u[1].norm().clamp_min(1e-30)))
                misfits.append(float((d.known * (wave_of(s.u[1], d.wave) - d.curvature)).norm() / size))
                if 0 < updates[-1] <= self.tolerance:
                    break
        return s.u[1], updates, misfits

    def _steps(
        self, d: Domain, potential: "Potential | None", alpha1: float, alpha0: float
    ) -> tuple[Steps, float]:
        """Step lengths whose products stay below one over the squared norm; and that of η by potential."""
        lap = 4 * sum(i * i for i in d.per_edge)
        nabla = lap**0.5
        if potential is None:
            norm = (2 * lap**2 + 1) ** 0.5
            up, down = 1 / (norm * self.step), self.step / norm
            return Steps(up, up, up, down, down, down, alpha1, alpha0), 1.0
        # Each block by the sum of the norms that act on it: Pock & Chambolle, doi:10.1109/ICCV.2011.6126441.
        to_psi = potential.norm(lambda x: laplacian_of(x, d.per_edge), d)
        to_chi = potential.norm(lambda x: wave_of(x, d.wave), d)
        eta, bound = self.step, BOUNDS * self.step
        return (
            Steps(
                eta=1.0,
                p=1 / ((nabla + 1) * bound),
                q=1 / (nabla * bound),
                psi=eta / to_psi,
                chi=1 / (to_chi / eta + nabla / bound),
                w=bound / (1 + nabla),
                alpha1=alpha1,
                alpha0=alpha0,
            ),
            1 / ((to_psi + to_chi) * eta),
        )


class Potential:
    """(ε − ∇²)⁻¹ on the box, cut to where the field equation is asked: long waves count as short ones do."""

    def __init__(self, d: Domain) -> None:
        self.shape = tuple(d.tissue.shape)
        self.known = d.known
        edges = (1 / d.per_edge[0], 1 / d.per_edge[1], 1 / d.per_edge[2])
        size = (self.shape[0], self.shape[1], self.shape[2])
        self.symbol = 1 / (SOFTEN + laplacian_symbol(size, edges).to(d.known.device))
        self.out = torch.zeros_like(d.known)

    def __call__(self, x: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Overwritten by the next call."""
        k = torch.fft.rfftn(x, dim=SPACE).mul_(self.symbol)
        torch.fft.irfftn(k, s=self.shape, dim=SPACE, out=self.out)
        return self.out.mul_(self.known)

    def norm(self, operator: Callable[[Tensor], Tensor], d: Domain, iterations: int = 10) -> float:
        """Of the symmetric `operator` from tissue to the field equation, by power iteration."""
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(self.shape, generator=draw).to(d.tissue) * d.tissue
        size = 1.0
        for _ in track(iterations, "TGV step length"):
            x = x / x.norm()
            y = operator(self(d.known * operator(x))) * d.tissue
            size, x = float(y.norm()), y
        return float(1.05 * size**0.5)


def trusted(phase: Echoes | Field) -> tuple[Bool[Tensor, "x y z"], Float[Tensor, "x y z"]]:
    """Where there is phase to be believed, and how far: one over its noise, 0 to 1."""
    if isinstance(phase, Field):
        mask = phase.mask & phase.ppm.isfinite()
        return mask, torch.where(mask, phase.weight, 0)
    if phase.mask is None:
        raise ValueError("this method needs a mask: give one with the echoes, or find one first")
    power = phase.signal.real.square() + phase.signal.imag.square()
    mask = phase.mask & (power.isfinite() & (power > 0)).all(0)
    if not mask.any():
        raise ValueError("no voxel of the mask has signal in every echo: check mask and magnitude")
    information = torch.zeros_like(power[0])
    for p, te in zip(power, phase.scan.te_s, strict=True):
        information += torch.where(mask, p, 0) * te**2
    root = information.sqrt()
    inside = root[mask]
    return mask, (root / inside.kthvalue(max(1, round(0.99 * len(inside)))).values).clamp_max(1)

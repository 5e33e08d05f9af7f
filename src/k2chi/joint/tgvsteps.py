"""Operators of the TGV problem and the two halves of its primal-dual step, compiled or in tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.joint.curvature import ahead, behind
from k2chi.joint.tgvkernels import dual_cpu, primal_cpu
from k2chi.ops.fuse import fused


@dataclass(frozen=True, eq=False)
class Domain:
    """What stays fixed: masks, data and stencils, in units of the voxel's mean edge."""

    tissue: Float[Tensor, "x y z"]
    """1 where χ lives; 0 in the array's outermost layer."""
    known: Float[Tensor, "x y z"]
    """1 where the curvature of the field is known: the stencil stays within tissue."""
    curvature: Float[Tensor, "x y z"]
    """∇²f [ppm/edge²]."""
    w2: Float[Tensor, "x y z"]
    """Squared weight of the misfit."""
    per_edge: tuple[float, float, float]
    """Voxels per mean edge, along x, y, z."""
    wave: tuple[float, ...]
    """Wave stencil: its pairs of next neighbours along x, y, z, its middle, and its ten other pairs."""
    lines: np.ndarray
    """First and last + 1 voxel of tissue on each line along z."""


@dataclass(frozen=True, eq=False)
class State:
    """Unknowns ψ, χ, w, their over-relaxed copies, and the duals η, p, q."""

    u: Float[Tensor, "5 x y z"]
    bar: Float[Tensor, "5 x y z"]
    y: Float[Tensor, "10 x y z"]


@dataclass(frozen=True)
class Steps:
    """Step lengths of η, p, q and ψ, χ, w, and the bounds of p and q."""

    eta: float
    p: float
    q: float
    psi: float
    chi: float
    w: float
    alpha1: float
    alpha0: float


def lines(tissue: Bool[Tensor, "x y z"]) -> np.ndarray:
    """First and last + 1 voxel of tissue on each line along z; equal where there is none."""
    t = tissue.cpu().numpy() > 0
    n = t.shape[2]
    first = np.where(t.any(2), t.argmax(2), 0)
    last = np.where(t.any(2), n - t[:, :, ::-1].argmax(2), 0)
    return np.stack([first, last], -1).astype(np.int64)


OTHER_PAIRS = (
    *((0, 1, -1), (0, 1, 1), (1, 0, -1), (1, 0, 1), (1, -1, 0), (1, 1, 0)),
    *((1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1)),
)
"""One of each pair of opposite neighbours across an edge or a corner, in the order of `Domain.wave`."""


def in_pairs(stencil: Float[np.ndarray, "3 3 3"]) -> tuple[float, ...]:
    """A stencil that is even, in the order of `Domain.wave`."""
    at = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0), *OTHER_PAIRS)
    return tuple(float(stencil[1 + i, 1 + j, 1 + k]) for i, j, k in at)


def wave_of(x: Float[Tensor, "x y z"], wave: tuple[float, ...]) -> Float[Tensor, "x y z"]:
    """The even stencil applied; its own adjoint, with zeros beyond the array."""
    out = wave[3] * x
    for a in range(3):
        out += wave[a] * (ahead(x, a) + behind(x, a))
    for at, c in zip(OTHER_PAIRS, wave[4:], strict=True):
        if c:
            there, back = x, x
            for a, step in enumerate(at):
                if step:
                    there, back = (
                        (ahead(there, a), behind(back, a)) if step > 0 else (behind(there, a), ahead(back, a))
                    )
            out += c * (there + back)
    return out


def laplacian_of(x: Float[Tensor, "x y z"], per_edge: tuple[float, float, float]) -> Tensor:
    """Seven-point ∇², zeros beyond the array; its own adjoint."""
    out = torch.zeros_like(x)
    for a, i in enumerate(per_edge):
        out += i * i * (ahead(x, a) + behind(x, a) - 2 * x)
    return out


def gradient_of(x: Tensor, d: Domain) -> Tensor:
    """Forward differences along edges within tissue."""
    return torch.stack(
        [d.tissue * ahead(d.tissue, a) * (ahead(x, a) - x) * i for a, i in enumerate(d.per_edge)]
    )


def divergence_of(p: Tensor, d: Domain) -> Tensor:
    """Minus the adjoint of `gradient_of`, for p that is zero where an edge leaves tissue."""
    return sum((p[a] - behind(p[a], a)) * i for a, i in enumerate(d.per_edge)) * d.tissue


def strain_of(w: Tensor, d: Domain) -> Tensor:
    """xx, yy, zz, xy, xz, yz of the symmetric backward gradient, where all three edges lie within tissue."""
    there = d.tissue * behind(d.tissue, 0) * behind(d.tissue, 1) * behind(d.tissue, 2)
    g = [[(w[c] - behind(w[c], a)) * d.per_edge[a] for a in range(3)] for c in range(3)]
    straight = [g[a][a] for a in range(3)]
    mixed = [0.5 * (g[a][b] + g[b][a]) for a, b in ((0, 1), (0, 2), (1, 2))]
    return torch.stack([*straight, *mixed]) * there


def strain_divergence_of(q: Tensor, d: Domain) -> Tensor:
    """Minus the adjoint of `strain_of`, off-diagonal parts counted twice, for q that is zero where it is."""
    rows = ((0, 3, 4), (3, 1, 5), (4, 5, 2))
    return torch.stack(
        [d.tissue * sum((ahead(q[c], a) - q[c]) * d.per_edge[a] for a, c in enumerate(row)) for row in rows]
    )


def dual_step(s: State, d: Domain, t: Steps, residual: Tensor | None = None) -> None:
    """p and q move uphill from the over-relaxed unknowns and back within their bounds; so does η.

    With `residual`, what the field equation lacks is added there instead, times `t.eta`, and η waits.
    """
    eta = s.y[0] if residual is None else residual
    if s.y.device.type == "cpu":
        dual_cpu(
            s.bar.numpy(),
            eta.numpy(),
            s.y.numpy(),
            d.tissue.numpy(),
            d.known.numpy(),
            d.curvature.numpy(),
            d.lines,
            np.asarray(d.per_edge, np.float32),
            np.asarray(d.wave, np.float32),
            np.asarray([t.eta, t.p, t.q, t.alpha1, t.alpha0], np.float32),
            any(d.wave[4:]),
        )
    else:
        fused(dual_step_plain, s.y)(s, d, t, eta)


def dual_step_plain(s: State, d: Domain, t: Steps, eta: Tensor) -> None:
    """The same in tensor operations, for any device."""
    eta += t.eta * d.known * (laplacian_of(s.bar[0], d.per_edge) - wave_of(s.bar[1], d.wave) + d.curvature)
    edges = d.tissue * torch.stack([ahead(d.tissue, a) for a in range(3)])
    p = s.y[1:4] + t.p * (gradient_of(s.bar[1], d) - edges * s.bar[2:])
    s.y[1:4] = p * (t.alpha1 / p.square().sum(0).add(1e-30).sqrt()).clamp_max(1)
    q = s.y[4:] + t.q * strain_of(s.bar[2:], d)
    size = q[:3].square().sum(0) + 2 * q[3:].square().sum(0)
    s.y[4:] = q * (t.alpha0 / size.add(1e-30).sqrt()).clamp_max(1)


def primal_step(s: State, d: Domain, t: Steps) -> None:
    """ψ, χ and w move downhill, and their over-relaxed copies are made."""
    if s.y.device.type == "cpu":
        primal_cpu(
            s.u.numpy(),
            s.bar.numpy(),
            s.y.numpy(),
            d.tissue.numpy(),
            d.w2.numpy(),
            d.lines,
            np.asarray(d.per_edge, np.float32),
            np.asarray(d.wave, np.float32),
            np.asarray([t.psi, t.chi, t.w], np.float32),
            any(d.wave[4:]),
        )
    else:
        fused(primal_step_plain, s.y)(s, d, t)


def primal_step_plain(s: State, d: Domain, t: Steps) -> None:
    """The same in tensor operations, for any device."""
    old = s.u.clone()
    s.u[0] = (old[0] - t.psi * laplacian_of(s.y[0], d.per_edge)) / (1 + t.psi * d.w2) * d.tissue
    s.u[1] += t.chi * d.tissue * (wave_of(s.y[0], d.wave) + divergence_of(s.y[1:4], d))
    s.u[2:] += t.w * d.tissue * (s.y[1:4] + strain_divergence_of(s.y[4:], d))
    s.bar.copy_(2 * s.u - old)

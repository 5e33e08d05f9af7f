"""The Laplacian of the field straight from wrapped phase, and the stencil that makes it from χ."""

from itertools import product
from math import pi, tau

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi import units
from k2chi.data import Echoes, Field, Grid

Edges = tuple[Tensor, Tensor, Tensor]
"""Field steps [ppm] from each voxel to its next neighbour along x, y and z; zero behind the last."""


def ahead(x: Tensor, axis: int) -> Tensor:
    """The value of the next voxel along `axis` (0, 1, 2), zero behind the last."""
    n = x.shape[axis]
    out = torch.zeros_like(x)
    out.narrow(axis, 0, n - 1).copy_(x.narrow(axis, 1, n - 1))
    return out


def behind(x: Tensor, axis: int) -> Tensor:
    """The value of the voxel before along `axis` (0, 1, 2), zero at the first."""
    n = x.shape[axis]
    out = torch.zeros_like(x)
    out.narrow(axis, 1, n - 1).copy_(x.narrow(axis, 0, n - 1))
    return out


def eroded(mask: Bool[Tensor, "x y z"], corners: bool = False) -> Bool[Tensor, "x y z"]:
    """Voxels whose 6 (with `corners` 26) neighbours lie in the mask too; the array's outermost do not."""
    out = mask.clone()
    for a in range(3):
        part = out if corners else mask
        out = out & ahead(part, a) & behind(part, a)
    return out


def wrapped(x: Tensor) -> Tensor:
    """The angle in [−π, π] that differs from x by whole turns."""
    return x - tau * torch.round(x / tau)


def steps(data: Echoes | Field) -> Edges:
    """Steps of the field between neighbours, from phase steps that are taken to be below half a turn.

    A field is taken for phase at the first echo time, where steps are smallest; its whole turns do not
    matter. Several echoes: each step is the mean over echoes, weighted by its information; a step of a later
    echo is the one, of those a whole turn apart, that is closest to what the earlier echoes say.
    """
    if isinstance(data, Field):
        s = units.rad_per_ppm(data.scan.b0_tesla, data.scan.te_s[0])
        x, y, z = (wrapped(s * (ahead(data.ppm, a) - data.ppm)) / s for a in range(3))
        return x, y, z
    power = data.signal.real.square() + data.signal.imag.square()
    power = torch.where(power.isfinite(), power, 0)
    phase = torch.where(power > 0, data.signal.angle(), 0)
    tiny = torch.finfo(power.dtype).tiny
    out = []
    for a in range(3):
        field, information = torch.zeros_like(power[0]), torch.zeros_like(power[0])
        for p, w, te in zip(phase, power, data.scan.te_s, strict=True):
            s = units.rad_per_ppm(data.scan.b0_tesla, te)
            there = ahead(w, a)
            weight = s * s * w * there / (w + there).clamp_min(tiny)
            step = s * field + wrapped(ahead(p, a) - p - s * field)
            information += weight
            field += (step / s - field) * (weight / information.clamp_min(tiny))
        out.append(field)
    return out[0], out[1], out[2]


def curvature(
    edges: Edges, voxel_mm: tuple[float, float, float], inside: Bool[Tensor, "x y z"]
) -> Float[Tensor, "x y z"]:
    """∇² of the field [ppm/mm²] by the seven-point stencil; edges that leave `inside` count nothing."""
    out = torch.zeros_like(edges[0])
    for a, step in enumerate(edges):
        n, v = step.shape[a], voxel_mm[a]
        flow = torch.where(inside & ahead(inside, a), step / v**2, 0)
        out += flow
        out.narrow(a, 1, n - 1).sub_(flow.narrow(a, 0, n - 1))
    return out


def wave_stencil(grid: Grid) -> Float[np.ndarray, "3 3 3"]:
    """3×3×3 stencil of ∇²D = ∇²/3 − (b·∇)², per mm².

    Its second moments are exact. Along an axis the second differences are all there is. Oblique, where mixed
    second differences come in, the seven moments left free bring its quotient with the seven-point ∇² as
    close to the continuous dipole kernel as 27 points can.
    """
    v, b = np.asarray(grid.voxel_mm), np.asarray(grid.b0_dir)
    moments = np.eye(3) / 3 - np.outer(b, b)
    stencil = np.zeros((3, 3, 3))
    if np.abs(b).max() > 1 - 1e-6:
        for a in range(3):
            at = [1, 1, 1]
            for at[a], c in ((0, 1.0), (1, -2.0), (2, 1.0)):
                stencil[tuple(at)] += c * moments[a, a] / v[a] ** 2
        return stencil
    points = [p for p in product((-1, 0, 1), repeat=3) if p > (0, 0, 0)]  # one of each opposite pair
    at = np.asarray(points) * v
    k = np.stack(np.meshgrid(*(np.linspace(-pi, pi, 15) / e for e in v), indexing="ij"), -1).reshape(-1, 3)
    k = k[(k != 0).any(1)]
    lap = ((2 - 2 * np.cos(k * v)) / v**2).sum(1)
    target = -lap * (1 / 3 - (k @ b) ** 2 / (k * k).sum(1))
    waves = (2 * np.cos(k @ at.T) - 2) / lap[:, None]  # each pair, with minus its sum in the middle
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    exact = np.asarray([at[:, i] * at[:, j] for i, j in pairs])
    want = np.asarray([moments[i, j] for i, j in pairs])
    n, fixed = len(points), len(pairs)
    system = np.zeros((n + fixed, n + fixed))
    system[:n, :n] = waves.T @ waves / len(k)
    system[:n, n:], system[n:, :n] = exact.T, exact
    solution = np.linalg.solve(system, np.concatenate([waves.T @ (target / lap) / len(k), want]))[:n]
    for (i, j, m), c in zip(points, solution, strict=True):
        stencil[1 + i, 1 + j, 1 + m] = stencil[1 - i, 1 - j, 1 - m] = c
    stencil[1, 1, 1] = -stencil.sum()
    return stencil

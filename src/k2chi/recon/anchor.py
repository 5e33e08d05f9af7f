"""The free phase of coil sensitivities: one that has no fringe line with an open end."""

from itertools import product
from math import prod

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Size, Vector
from k2chi.ops.smooth import block_mm, block_of, gaussian, refined

POWER_STEPS = 8
"""Power iterations; where one coil pattern is 5 times as strong as the next, the error is 1e-6 after them."""
CELL_MM = 7.0
"""Edge [mm] of the cells on which the phase is carried along."""
STRIDE = 2.75
"""Cells from one place to the next on a ray; all corners around the nearer one are then settled before."""


def principal(r: Complex[Tensor, "b c c"]) -> tuple[Complex[Tensor, "b c"], Float[Tensor, "b"]]:
    """Unit eigenvector of the largest eigenvalue, and the trace; zero without signal. Changes `r`."""
    diagonal = r.diagonal(dim1=1, dim2=2).real
    trace, tiny = diagonal.sum(1), torch.finfo(diagonal.dtype).tiny
    r /= trace.clamp_min(tiny)[:, None, None]
    # The strongest coil's column is already close, and never at right angles to the answer.
    column = diagonal.argmax(1)[:, None, None].expand(-1, r.shape[1], 1)
    v = r.gather(2, column)
    for _ in range(POWER_STEPS):
        v = r @ v
        v = v / v.abs().square().sum(1, keepdim=True).sqrt().clamp_min(tiny)
    return v[..., 0], trace


def free_phase(
    v: Complex[Tensor, "coil i j k"], strength: Float[Tensor, "i j k"], edge_mm: Vector
) -> Complex[Tensor, "i j k"]:
    """The phasor by which to turn the unit vectors `v` so that they vary smoothly.

    A phase set voxel by voxel is torn, and one set by a coil, real or virtual, turns round the lines on which
    that coil sees nothing. Here the middle of the head sets its own, and along rays from there each place
    takes the phase that makes it most like the place before (parallel transport). Rays do not meet again, so
    nothing has to match, and there are no such lines. Done on cells of 7 mm; cells without signal get
    vectors from those around.
    """
    cell = block_of(CELL_MM, edge_mm)
    covariance = _cells(v, strength, cell)
    count, coils = covariance.shape[2:], len(v)
    edge = block_mm(cell, edge_mm)
    wide = covariance.flatten(0, 1)
    for share, times in ((1e-2, 2.0), (1e-4, 6.0)):
        wide = wide + share * gaussian(covariance.flatten(0, 1), times * CELL_MM, edge)
    vectors, _ = principal(wide.reshape(coils, coils, -1).permute(2, 0, 1).contiguous())
    power = covariance.diagonal().real.sum(-1)
    carried = _carried(vectors.T.reshape(coils, *count), power)
    overlap = torch.zeros_like(v[0])
    i, j, k = strength.shape
    for own, like in zip(v, carried, strict=True):
        overlap += refined(like, cell, (i, j, k)) * own.conj()
    return torch.polar(torch.ones_like(overlap.real), overlap.angle())


def _cells(v: Tensor, strength: Tensor, cell: Size) -> Complex[Tensor, "c c i j k"]:
    """Σ strength · v vᴴ over each cell."""
    x = v * strength.sqrt()
    pad = [(-n) % k for n, k in zip(x.shape[1:], cell, strict=True)]
    x = torch.nn.functional.pad(x, (0, pad[2], 0, pad[1], 0, pad[0]))
    i, j, k = (n // b for n, b in zip(x.shape[1:], cell, strict=True))
    parts = x.reshape(len(v), i, cell[0], j, cell[1], k, cell[2]).permute(1, 3, 5, 0, 2, 4, 6)
    parts = parts.reshape(i * j * k, len(v), prod(cell))
    return (parts @ parts.mH).permute(1, 2, 0).reshape(len(v), len(v), i, j, k)


def _carried(
    v: Complex[Tensor, "coil i j k"], power: Float[Tensor, "i j k"]
) -> Complex[Tensor, "coil i j k"]:
    """Phases carried outwards along rays from the middle of the power."""
    shape = torch.tensor(power.shape, device=v.device)
    every = torch.stack(
        torch.meshgrid(*[torch.arange(n, device=v.device) for n in power.shape], indexing="ij")
    )
    at = every.flatten(1).T.double()
    share = power.flatten().double() / power.sum().double().clamp_min(1e-300)
    middle = (at * share[:, None]).sum(0)
    away = at - middle
    far = away.norm(dim=1)
    out = v.flatten(1).clone()
    seed = out[:, far.argmin()].clone()
    stride = torch.tensor([power.shape[1] * power.shape[2], power.shape[2], 1], device=v.device)
    for shell in range(int(far.max()) + 1):
        here = torch.nonzero((far >= shell) & (far < shell + 1)).flatten()
        if shell <= STRIDE:
            before = seed[:, None]
        else:
            back = middle + away[here] * (1 - STRIDE / far[here])[:, None]
            low = back.floor()
            before = torch.zeros_like(out[:, here])
            for corner in product((0, 1), repeat=3):
                step = torch.tensor(corner, device=v.device)
                weight = torch.where(step > 0, back - low, 1 - (back - low)).prod(1)
                index = ((low + step).long().clamp_min(0).minimum(shape - 1) * stride).sum(1)
                before += out[:, index] * weight.to(out.real.dtype)
        overlap = (before * out[:, here].conj()).sum(0)
        out[:, here] *= torch.polar(torch.ones_like(overlap.real), overlap.angle())
    return out.reshape(v.shape)

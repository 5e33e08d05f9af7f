"""Networks that know cubic voxels and B0 along the last axis: turn and resample to that, and back."""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from k2chi.data import Grid, Size, Vector
from k2chi.nets.given import Answer, Given, Network
from k2chi.nets.running import Run
from k2chi.ops.dipole import dipole_kernel


def axial_invert(network: Network, given: Given, run: Run) -> Answer:
    """Apply the network; first resample, unless voxels are cubic within 2 % and B0 is along the last axis."""
    v, b = given.voxel_mm, given.b0_dir
    if max(v) <= 1.02 * min(v) and abs(b[2]) > 0.9998:
        return network.invert(given, run)
    turn = upright(b).to(given.field)
    x, y, z = given.field.shape[-3:]
    edge, shape = min(v), _covering((x, y, z), v, turn)
    cube: Vector = (edge, edge, edge)
    there = _places(shape, cube, turn.T, (x, y, z), v)
    field, weight, support = (_sampled(t, there) for t in (given.field, given.weight, given.support))
    inside = (support > 0.5).to(support)
    kernel = dipole_kernel(Grid.of(shape, cube), shape).to(field.device)
    found = network.invert(Given(field * inside, weight * inside, inside, kernel, cube, (0.0, 0.0, 1.0)), run)
    back = _places((x, y, z), v, turn, shape, cube)
    return Answer(_sampled(found.chi, back) * given.support)


def upright(b: Vector) -> Float[Tensor, "3 3"]:
    """The shortest turn that brings `b`, or its opposite, to the last axis."""
    u = torch.tensor(b, dtype=torch.float64)
    u = u / u.norm() * (1 if b[2] >= 0 else -1)
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    x, y, w = torch.linalg.cross(u, z).tolist()
    skew = torch.tensor([[0.0, -w, y], [w, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + skew + skew @ skew / (1 + float(u @ z))


def _covering(shape: Size, voxel_mm: Vector, turn: Float[Tensor, "3 3"]) -> Size:
    """Cubic voxels that hold the turned box."""
    half = torch.tensor([s * v / 2 for s, v in zip(shape, voxel_mm, strict=True)])
    reach = turn.abs().cpu().double() @ half.double()
    x, y, z = (ceil(2 * float(r) / min(voxel_mm)) for r in reach)
    return x, y, z


def _places(
    shape: Size, voxel_mm: Vector, turn: Float[Tensor, "3 3"], other: Size, other_mm: Vector
) -> Float[Tensor, "x y z 3"]:
    """Where voxels lie in another array of the same middle, turned, as `grid_sample` counts."""
    axes = [
        (torch.arange(s, device=turn.device) - (s - 1) / 2) * v for s, v in zip(shape, voxel_mm, strict=True)
    ]
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(turn) @ turn.T
    half = torch.tensor([(s - 1) / 2 * v for s, v in zip(other, other_mm, strict=True)]).to(turn)
    return (p / half).flip(-1)


def _sampled(x: Float[Tensor, "n x y z"], places: Float[Tensor, "u v w 3"]) -> Float[Tensor, "n u v w"]:
    found = grid_sample(x[:, None], places.expand(len(x), -1, -1, -1, -1), align_corners=True)
    return found[:, 0]

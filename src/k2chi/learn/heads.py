"""Pieces of digital heads, turned, bent and scaled at random."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool3d, grid_sample

from k2chi.data import Size, Vector, mean_edge
from k2chi.learn.anatomy import noise_field
from k2chi.learn.batch import Draw
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import box

PERSONS = (
    DigitalHead(1000, variation=1.0, microbleeds=6, calcifications=2),
    DigitalHead(1001, age_years=70, ms_lesions=12),
    DigitalHead(1002, age_years=25, variation=1.3),
)
"""Heads that networks learn from; numbers below 1000 are never shown to them."""
EDGE_MM = 1.0


@lru_cache(maxsize=2 * len(PERSONS))
def _volume(person: int, coarse: int, device: torch.device) -> Float[Tensor, "2 x y z"]:
    """χ [ppm] and brain of one person, averaged over `coarse` mm."""
    if coarse > 1:
        return avg_pool3d(_volume(person, 1, device)[None], coarse)[0]
    head = PERSONS[person](box((EDGE_MM,) * 3))
    both = torch.stack([torch.where(head.brain, head.chi_ppm, 0.0), head.brain.float()])
    return both.to(device)


def pieces(
    draw: Draw, n: int, shape: Size, voxel_mm: Vector, persons: int = len(PERSONS)
) -> tuple[Float[Tensor, "n x y z"], Bool[Tensor, "n x y z"]]:
    """χ [ppm] and brain of a random window in each cube.

    The dipole knows no size, so a piece is scaled freely: from fine pieces to a whole head in the cube.
    """
    person = int(draw.number(0, persons))
    zoom = float(draw.log_uniform(1, low=0.6, high=150 / max(shape)))
    coarse = 2 if zoom > 1.8 else 1
    volume = _volume(person, coarse, draw.device)
    mean_voxel = mean_edge(voxel_mm)
    axes = [
        (torch.arange(s, device=draw.device) - s // 2) * (v / mean_voxel * zoom / EDGE_MM / coarse)
        for s, v in zip(shape, voxel_mm, strict=True)
    ]
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    p = torch.einsum("nab,xyzb->nxyza", draw.rotations(n), p)
    bend = torch.stack(
        [
            noise_field(draw, n, shape, 0.03, torch.full((n, 1, 1, 1), 4.0, device=draw.device))
            for _ in range(3)
        ],
        -1,
    )
    p = p + 0.04 * max(shape) * zoom / coarse * draw.uniform(n, 1, 1, 1, 1) * bend
    p = p + _centres(draw, volume[1], n, zoom * max(shape) / coarse)[:, None, None, None]
    size = torch.tensor(volume.shape[1:], device=draw.device)
    unit = (2 * p / (size - 1) - 1).flip(-1)
    found = grid_sample(volume.expand(n, -1, -1, -1, -1), unit, padding_mode="zeros", align_corners=True)
    return found[:, 0], found[:, 1] > 0.5


def _centres(draw: Draw, brain: Float[Tensor, "x y z"], n: int, reach: float) -> Float[Tensor, "n 3"]:
    """Middles of windows: brain voxels, nearer to the brain's middle the wider the window."""
    inside = brain[::4, ::4, ::4].gt(0.5).nonzero() * 4.0
    middle = inside.mean(0)
    picked = inside[(draw.uniform(n) * len(inside)).long().clamp(max=len(inside) - 1)]
    free = max(0.0, 1 - reach / max(brain.shape))
    return middle + (picked - middle) * free

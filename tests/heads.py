"""A small made-up head, defined everywhere, so that it can be sampled on any grid without resampling."""

import numpy as np
import torch

from k2chi.data import Grid, as_affine
from k2chi.measure.space import centres

BALLS = (((12, 8, 4), 9, 0.6), ((-14, 6, 3), 8, 0.4), ((3, -18, 8), 10, 0.8), ((-5, 12, -14), 7, 0.3),
         ((10, -8, -12), 6, 0.9), ((-16, -12, -2), 7, 0.7))  # fmt: skip


def motion(angles_deg=(5.0, -4.0, 7.0), shift_mm=(3.0, -2.0, 4.0)):
    """A rigid motion, 4×4."""
    out = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    out[:3, 3] = shift_mm
    return out


def seen(grid, move=None, bend=None):
    """Image, mask and labels of the head at the positions of `grid`, after `move` and `bend` of positions."""
    at = centres(grid)
    if move is not None:
        at = at @ move[:3, :3].T + move[:3, 3]
    if bend is not None:
        at = at + bend(at)
    inside = (at / np.array([30, 36, 28])) ** 2
    depth = 1 - inside.sum(-1)
    image = 1 / (1 + np.exp(-20 * depth))
    labels = np.zeros(grid.shape, np.int16)
    for n, (centre, radius, value) in enumerate(BALLS, 1):
        away = np.linalg.norm(at - np.array(centre), axis=-1)
        image = image * (1 - value / (1 + np.exp(1.5 * (away - radius))))
        labels[away < radius] = n
    return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(depth > 0), torch.from_numpy(labels)


def straight(shape=(36, 42, 34), voxel=2.0):
    """A grid round the origin."""
    return Grid.of(shape, (voxel, voxel, voxel))


def turned_grid(shape=(30, 40, 32), voxel=(2.4, 2.0, 2.2)):
    """A grid of other voxels, turned and with its first axis to the left."""
    rows = motion((9, 3, -6), (1, 2, -1)) @ np.diag([-voxel[0], voxel[1], voxel[2], 1.0])
    rows[:3, 3] -= rows[:3, :3] @ (np.array(shape) / 2)
    return Grid(shape, as_affine(rows))

"""From scanner to atlas: where the head lies, how large it is, and how it differs from others."""

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from k2chi.data import Vector

BRAIN_SCALE = 0.91
"""Size of a common adult brain relative to the MNI152 template, along each axis."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Maps on a straight grid in atlas coordinates, read between its points by linear interpolation."""

    data: Float[Tensor, "channel x y z"]
    origin_mm: Vector
    step_mm: float

    def __call__(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "channel *shape"]:
        """Values at `points` [mm]; beyond the grid those of its edge."""
        size = points.new_tensor([n - 1 for n in self.data.shape[1:]])
        unit = (points - points.new_tensor(self.origin_mm)) * (2 / self.step_mm) / size - 1
        flat = unit.flip(-1).reshape(1, -1, 1, 1, 3)
        found = torch.nn.functional.grid_sample(
            self.data[None], flat, mode="bilinear", padding_mode="border", align_corners=True
        )
        out: Tensor = found.reshape(self.data.shape[0], *points.shape[:-1])
        return out


def smooth_noise(
    shape: tuple[int, int, int], sigma: float, rng: np.random.Generator
) -> Float[Tensor, "x y z"]:
    """Gaussian random field of unit variance, smooth over `sigma` voxels."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3)
    return torch.from_numpy(field / field.std())


@dataclass(frozen=True, eq=False)
class Warp:
    """Scanner position [mm] to atlas position [mm]: rotate, scale, then move by a smooth random field."""

    matrix: Float[Tensor, "3 3"]
    """Rotation of the head and its scale: atlas = matrix · (scanner − centre) + shift"""
    centre_mm: Vector
    """Scanner position of the atlas origin."""
    shift: Volume
    """Random displacement in atlas coordinates [mm], on the undisplaced position."""

    def __call__(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Atlas positions of scanner positions."""
        straight = (points - points.new_tensor(self.centre_mm)) @ self.matrix.T.to(points.dtype)
        out: Tensor = straight + self.shift(straight).movedim(0, -1)
        return out

    def back(self, points: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Scanner positions of atlas positions, by fixed-point iteration."""
        straight = points
        for _ in range(12):
            straight = points - self.shift(straight).movedim(0, -1)
        inverse = torch.linalg.inv(self.matrix).to(points.dtype)
        out: Tensor = straight @ inverse.T + points.new_tensor(self.centre_mm)
        return out


def rotation(pitch_deg: float, roll_deg: float, yaw_deg: float) -> np.ndarray:
    """Head axes in scanner axes: pitch about left–right, roll about front–back, yaw about the bore."""
    a, b, c = radians(pitch_deg), radians(roll_deg), radians(yaw_deg)
    x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    y = np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])
    z = np.array([[cos(c), -sin(c), 0], [sin(c), cos(c), 0], [0, 0, 1]])
    turn: np.ndarray = z @ y @ x
    return turn


def person(
    seed: int,
    variation: float,
    angles_deg: Vector = (0.0, 0.0, 0.0),
    centre_mm: Vector = (0.0, 14.0, 10.0),
) -> Warp:
    """The warp of one head.

    `variation` 1 scatters the three axes' scale by 3 % and displaces by a field of 2.2 mm (standard
    deviation) that is smooth over 22 mm plus one of 0.7 mm over 8 mm; the map stays one to one.
    """
    rng = np.random.default_rng([seed, 2])
    scale = BRAIN_SCALE * np.exp(0.03 * variation * np.clip(rng.standard_normal(3), -2, 2))
    origin, step = (-120.0, -160.0, -170.0), 4.0
    shape = (61, 76, 72)
    field = torch.stack(
        [
            2.2 * smooth_noise(shape, 22 / step, rng) + 0.7 * smooth_noise(shape, 8 / step, rng)
            for _ in range(3)
        ]
    )
    turn = rotation(*angles_deg)
    matrix = torch.tensor(np.diag(1 / scale) @ turn.T, dtype=torch.float32)
    return Warp(matrix, centre_mm, Volume(field * variation, origin, step))

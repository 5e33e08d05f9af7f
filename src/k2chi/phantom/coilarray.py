"""A receive array around the head: what each loop sees, and the noise that the loops share."""

from dataclasses import dataclass
from math import pi, sqrt, tau

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.interpolate import make_interp_spline
from torch import Tensor

from k2chi.data import Grid, Size, Vector, as_affine

SEGMENTS = 24
"""Straight pieces of a loop."""
WIRE_MM = 6.0
"""Thickness of the wire [mm]: keeps the field finite close to it."""
BLOCK = 4096
"""Points whose field is worked out at once."""


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Sensitivities on a coarse grid, and the matrices that interpolate them to a fine one."""

    coarse: Complex[Tensor, "coil i j k"]
    """Sensitivity at the coarse points; one is the root sum of squares in the head's mean."""
    weights: tuple[Float[Tensor, "x i"], Float[Tensor, "y j"], Float[Tensor, "z k"]]
    """Cubic-spline weights from the coarse points to the voxels of each axis."""
    covariance: Complex[Tensor, "coil coil"]
    """Noise covariance of the coils with a mean variance of one."""

    def planes(self, at: slice = slice(None)) -> Complex[Tensor, "coil x y z"]:
        """Sensitivity in the voxels of some planes of the first axis."""
        wx, wy, wz = (w.to(self.coarse) for w in self.weights)
        s = torch.tensordot(wx[at], self.coarse, dims=([1], [1]))  # x coil j k
        s = torch.tensordot(s, wy, dims=([2], [1]))  # x coil k y
        out: Tensor = torch.tensordot(s, wz, dims=([2], [1])).transpose(0, 1)
        return out


@dataclass(frozen=True)
class CoilArray:
    """Loops on a helmet around the head, by Biot and Savart, with the phase of a wave.

    S = (B_x − iB_y) exp(−2πi d/λ): the field of a current in the loop, d the distance from its middle, λ the
    wavelength in tissue. The noise comes from currents in the head, which neighbouring loops share, and from
    the loops themselves: Ψ_ij ∝ ∫ A_i · A_j* dV + own · δ_ij with the vector potential A. Roemer et al. 1990,
    MRM 16:192, doi:10.1002/mrm.1910160203. Charges on the head's surface and coupling of the circuits are
    left out. Maps are worked out on points `step_mm` apart and interpolated by splines: 2 s for 64 loops.
    """

    count: int = 32
    """Number of loops, 1 to 128."""
    b0_tesla: float = 3.0
    """Field strength [T]: sets the wavelength, 260 mm at 3 T."""
    centre_mm: Vector = (0.0, 4.0, 12.0)
    """Middle of the helmet in scanner coordinates [mm]."""
    semi_mm: Vector = (104.0, 134.0, 118.0)
    """Half-axes of the helmet [mm]."""
    open_below: float = 0.55
    """How far down the helmet reaches, as a share of its half-height below the middle, 0 to 1."""
    own_noise: float = 0.3
    """Share of a loop's noise power that is its own, 0 to 1; the rest comes from the head."""
    jitter: float = 0.05
    """Spread of the loops' places, as a share of the helmet's size; without it left and right are alike."""
    step_mm: float = 9.0
    """Distance of the points at which the maps are worked out [mm]."""
    seed: int = 0
    """Places and sizes of the loops."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 128:
            raise ValueError(f"an array of {self.count} coils is not one: choose 1 to 128")
        if not 0 < self.own_noise <= 1:
            raise ValueError(f"own_noise {self.own_noise} is no share: choose above 0, at most 1")

    def loops(
        self,
    ) -> tuple[Float[Tensor, "coil 3"], Float[Tensor, "coil segment 3"], Float[Tensor, "coil segment 3"]]:
        """Middle of every loop, and the places and steps of its pieces [mm], in scanner coordinates."""
        rng = np.random.default_rng([self.seed, 41])
        n = np.arange(self.count)
        up = 1 - (n + 0.5) / self.count * (1 + self.open_below)  # even over the sphere's area
        turn = n * pi * (3 - sqrt(5)) + pi / 2
        flat = np.sqrt(1 - up**2)
        ball = np.stack([flat * np.cos(turn), flat * np.sin(turn), up], 1)
        ball += self.jitter * rng.standard_normal(ball.shape)
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        semi = np.asarray(self.semi_mm)
        middle = np.asarray(self.centre_mm) + ball * semi
        out = ball / semi
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        side = np.cross(out, rng.standard_normal(out.shape))
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        area = 2 * pi * (1 + self.open_below) * float(np.mean(semi)) ** 2
        radius = 1.15 * sqrt(area / (self.count * pi)) * (1 + 0.1 * rng.uniform(-1, 1, (self.count, 1, 1)))
        radius = np.minimum(radius, 60.0)
        a = tau * np.arange(SEGMENTS + 1)[:, None] / SEGMENTS
        ring = radius * (side[:, None] * np.cos(a) + np.cross(out, side)[:, None] * np.sin(a))
        corners = torch.from_numpy(middle[:, None] + ring)
        return (
            torch.from_numpy(middle),
            (corners[:, 1:] + corners[:, :-1]) / 2,
            corners[:, 1:] - corners[:, :-1],
        )

    def __call__(self, grid: Grid) -> Sensitivities:
        """Maps for the voxels of `grid`."""
        coarse, weights = self._coarse(grid)
        size = coarse.shape
        maps = self._field(_points(coarse)).reshape(-1, *size)
        head = self._head()
        scale = self._field(head).abs().square().sum(0).sqrt().mean()
        return Sensitivities((maps / scale).to(torch.complex64), weights, self._covariance(head))

    def _coarse(self, grid: Grid) -> tuple[Grid, tuple[Tensor, Tensor, Tensor]]:
        """Points `step_mm` apart along the grid's own axes, from its first voxel to its last."""
        weights, counts, steps = [], [], []
        for n, v in zip(grid.shape, grid.voxel_mm, strict=True):
            m = max(round((n - 1) * v / self.step_mm) + 1, 4)
            at = np.linspace(0, n - 1, m)
            spline = make_interp_spline(at, np.eye(m), k=3)
            weights.append(torch.from_numpy(spline(np.arange(n))).float())
            counts.append(m)
            steps.append(at[1] if n > 1 else 1.0)
        a = np.asarray(grid.affine, dtype=float).copy()
        a[:3, :3] *= steps
        shape: Size = (counts[0], counts[1], counts[2])
        return Grid(shape, as_affine(a), grid.b0_world), (weights[0], weights[1], weights[2])

    def _head(self) -> Float[Tensor, "point 3"]:
        """Points inside the ellipsoid that stands for the head, 12 mm apart."""
        axes = [torch.arange(-s, s + 1, 12.0, dtype=torch.float64) for s in (78.0, 104.0, 96.0)]
        p = torch.cartesian_prod(*axes)
        inside = (p / torch.tensor([78.0, 104.0, 96.0], dtype=torch.float64)).norm(dim=1) < 1
        return p[inside] + torch.tensor(self.centre_mm, dtype=torch.float64)

    def _wave(self, away_mm: Float[Tensor, "coil point"]) -> Complex[Tensor, "coil point"]:
        return torch.polar(torch.ones_like(away_mm), -tau * away_mm * self.b0_tesla / (3.0 * 260.0))

    def _field(self, points: Float[Tensor, "point 3"]) -> Complex[Tensor, "coil point"]:
        """B_x − iB_y of every loop with its wave, without scale."""
        middle, at, step = self.loops()
        out = torch.empty(self.count, len(points), dtype=torch.complex128)
        for n in range(0, len(points), BLOCK):
            p = points[n : n + BLOCK]
            bx, by = torch.zeros(self.count, len(p)).double(), torch.zeros(self.count, len(p)).double()
            for k in range(SEGMENTS):
                r = p - at[:, k, None]
                near = (r.square().sum(-1) + WIRE_MM**2) ** -1.5
                s = step[:, k, None]
                bx += (s[..., 1] * r[..., 2] - s[..., 2] * r[..., 1]) * near
                by += (s[..., 2] * r[..., 0] - s[..., 0] * r[..., 2]) * near
            wave = self._wave((p - middle[:, None]).norm(dim=-1))
            out[:, n : n + BLOCK] = torch.complex(bx, -by) * wave
        return out

    def _covariance(self, head: Float[Tensor, "point 3"]) -> Complex[Tensor, "coil coil"]:
        """Power of the currents that each pair of loops shares in the head, and of the loops themselves."""
        middle, at, step = self.loops()
        potential = torch.zeros(self.count, len(head), 3, dtype=torch.float64)
        for k in range(SEGMENTS):
            away = ((head - at[:, k, None]).square().sum(-1) + WIRE_MM**2).sqrt()
            potential += step[:, k, None] / away[..., None]
        a = potential * self._wave((head - middle[:, None]).norm(dim=-1))[..., None]
        a = a.flatten(1)
        shared = a @ a.mH
        shared = shared / shared.diagonal().real.mean()
        out = (1 - self.own_noise) * shared + self.own_noise * torch.eye(self.count)
        return out.to(torch.complex64)


def _points(grid: Grid) -> Float[Tensor, "point 3"]:
    """Scanner positions of all voxels [mm]."""
    a = torch.tensor(grid.affine, dtype=torch.float64)
    index = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in grid.shape])
    return index @ a[:3, :3].T + a[:3, 3]

"""Bodies whose field is known in closed form: truth that owes nothing to our own dipole kernel.

Fields are relative to B0, to first order in χ, with the Lorentz correction: what protons feel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid, Vector


def _positions(grid: Grid, planes: slice) -> Float[Tensor, "x y z 3"]:
    """Scanner positions [mm] of some planes of voxel centres, in double precision."""
    a = torch.tensor(grid.affine, dtype=torch.float64)
    i, j, k = (torch.arange(n, dtype=torch.float64) for n in grid.shape)
    i = i[planes]
    out: Tensor = (
        i[:, None, None, None] * a[:3, 0]
        + j[None, :, None, None] * a[:3, 1]
        + k[None, None, :, None] * a[:3, 2]
        + a[:3, 3]
    )
    return out


def _unit(v: Vector) -> Float[Tensor, "3"]:
    t = torch.tensor(v, dtype=torch.float64)
    out: Tensor = t / t.norm()
    return out


def _covered(grid: Grid, depth: Callable[[Tensor], Tensor], supersample: int) -> Float[Tensor, "x y z"]:
    """Share of each voxel where `depth` [mm] is positive, by samples; only the surface needs them."""
    a = torch.tensor(grid.affine, dtype=torch.float64)[:3, :3]
    reach = 0.5 * float(a.norm(dim=0).norm())
    fine = (torch.arange(supersample, dtype=torch.float64) + 0.5) / supersample - 0.5
    offsets = torch.stack(torch.meshgrid(fine, fine, fine, indexing="ij"), -1).reshape(-1, 3) @ a.T
    out = torch.empty(grid.shape)
    for n in range(grid.shape[0]):
        p = _positions(grid, slice(n, n + 1))[0]
        d = depth(p)
        share = (d > 0).double()
        edge = d.abs() < reach
        if edge.any():
            share[edge] = (depth(p[edge][:, None] + offsets) > 0).double().mean(-1)
        out[n] = share.float()
    return out


@dataclass(frozen=True)
class Sphere:
    """A sphere in a medium of χ 0: f = (χ/3) a³ (3(r·b)² − r²)/r⁵ outside, 0 inside.

    Exact to first order in χ; the full formula has χ/(3+χ). Jackson, Classical Electrodynamics, §5.11;
    Salomir 2003, Concepts Magn Reson B 19:26, doi:10.1002/cmr.b.10083.
    """

    radius_mm: float
    """Radius [mm]."""
    chi_ppm: float = 1.0
    """Susceptibility over that of the medium [ppm]."""
    centre_mm: Vector = (0.0, 0.0, 0.0)
    """Centre in scanner coordinates [mm]."""

    def __post_init__(self) -> None:
        if self.radius_mm <= 0:
            raise ValueError(f"a sphere of radius {self.radius_mm} mm is empty: give a positive radius")

    def source(self, grid: Grid, supersample: int = 4) -> Float[Tensor, "x y z"]:
        """χ [ppm] with partial volume: each voxel at the surface is sampled `supersample`³ times."""
        centre = torch.tensor(self.centre_mm, dtype=torch.float64)
        return self.chi_ppm * _covered(
            grid, lambda p: self.radius_mm - (p - centre).norm(dim=-1), supersample
        )

    def field(self, grid: Grid) -> Float[Tensor, "x y z"]:
        """Field [ppm] at each voxel's centre."""
        b, centre = _unit(grid.b0_world), torch.tensor(self.centre_mm, dtype=torch.float64)
        out = torch.empty(grid.shape)
        for n in range(grid.shape[0]):
            q = _positions(grid, slice(n, n + 1))[0] - centre
            r2 = q.square().sum(-1).clamp(min=1e-12)
            far = (self.chi_ppm / 3) * self.radius_mm**3 * (3 * (q @ b).square() - r2) / r2**2.5
            out[n] = torch.where(r2 > self.radius_mm**2, far, torch.zeros_like(far)).float()
        return out


@dataclass(frozen=True)
class Cylinder:
    """An endless cylinder: f = (χ/2)(a²/ρ²) sin²θ cos2ψ outside, (χ/6)(3cos²θ − 1) inside.

    θ is the angle between axis and B0, ρ the distance from the axis, ψ the angle from B0's projection across
    the axis. Jenkinson 2004, MRM 52:471, doi:10.1002/mrm.20194, has the tensor that both follow from. With
    the axis along B0 nothing reaches outside. To compare with a transform, lay it along an array axis and pad
    across it alone.
    """

    radius_mm: float
    """Radius [mm]."""
    chi_ppm: float = 1.0
    """Susceptibility over that of the medium [ppm]."""
    axis: Vector = (1.0, 0.0, 0.0)
    """Direction of the axis in scanner coordinates."""
    point_mm: Vector = (0.0, 0.0, 0.0)
    """A point on the axis, in scanner coordinates [mm]."""

    def __post_init__(self) -> None:
        if self.radius_mm <= 0:
            raise ValueError(f"a cylinder of radius {self.radius_mm} mm is empty: give a positive radius")
        if sum(c * c for c in self.axis) < 1e-12:
            raise ValueError("the cylinder's axis has no length: give a direction")

    def _across(self, p: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
        """Positions relative to the axis, at right angles to it."""
        q, u = p - torch.tensor(self.point_mm, dtype=torch.float64), _unit(self.axis)
        return q - (q @ u)[..., None] * u

    def source(self, grid: Grid, supersample: int = 4) -> Float[Tensor, "x y z"]:
        """χ [ppm] with partial volume: each voxel at the surface is sampled `supersample`³ times."""
        return self.chi_ppm * _covered(
            grid, lambda p: self.radius_mm - self._across(p).norm(dim=-1), supersample
        )

    def field(self, grid: Grid) -> Float[Tensor, "x y z"]:
        """Field [ppm] at each voxel's centre."""
        b, u = _unit(grid.b0_world), _unit(self.axis)
        cos_theta = float(b @ u)
        sideways = b - cos_theta * u  # its squared length is sin²θ: no division when B0 lies along the axis
        inside = self.chi_ppm / 6 * (3 * cos_theta**2 - 1)
        out = torch.empty(grid.shape)
        for n in range(grid.shape[0]):
            q = self._across(_positions(grid, slice(n, n + 1))[0])
            rho2 = q.square().sum(-1).clamp(min=1e-12)
            # sin²θ cos2ψ = 2 (sideways·q)²/ρ² − sin²θ
            pattern = 2 * (q @ sideways).square() / rho2 - float(sideways @ sideways)
            far = self.chi_ppm / 2 * self.radius_mm**2 / rho2 * pattern
            out[n] = torch.where(rho2 > self.radius_mm**2, far, torch.full_like(far, inside)).float()
        return out

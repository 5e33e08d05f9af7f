"""The random spheres and cylinders that SI-QSM was taught on, with fields in closed form."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Grid
from k2chi.learn.batch import Batch, Draw
from k2chi.ops.dipole import dipole_kernel


@dataclass(frozen=True)
class ClosedForm:
    """Spheres and endless cylinders in unit voxels, B0 along the last axis, as thesis or code draw them.

    SI-QSM, thesis §3 and released code. Sources are binary, add up, and may lie outside the cube, whose
    field is in the data all the same; the label keeps its mean. The printed cylinder formula is wrong (ρ for
    ρ², sign); this is the right one, which the code has too. Text: up to 128 spheres and 32 cylinders of at
    most 0.01 ppm, mask all ones. Code: counts spread triangularly about 128 and 32, up to 0.1 ppm,
    and one noise for both channels, so that the mask channel tells the noise. No source: a thesis.
    """

    size: int = 48
    """Edge of a cube [voxels]."""
    batch: int = 12
    """Cubes."""
    spheres: int = 128
    """Most spheres in a cube (text), or their mean (code)."""
    cylinders: int = 32
    """Likewise for cylinders."""
    released: bool = False
    """True: as the released code; False: as the text."""

    def __post_init__(self) -> None:
        if self.size < 16 or self.batch < 1 or min(self.spheres, self.cylinders) < 0:
            raise ValueError(
                "closed-form cubes need an edge of 16 voxels, a batch of one and counts of 0 or more"
            )

    def __call__(self, number: int, device: torch.device | str = "cpu") -> Batch:
        """Batch `number`: the same number gives the same batch on the same device."""
        draw, n, s = Draw(number, device), self.batch, self.size
        chi, field, inside = (torch.zeros(n, s, s, s, device=draw.device) for _ in range(3))
        largest = 0.1 if self.released else 0.01
        for count, add in ((self.spheres, self._sphere), (self.cylinders, self._cylinder)):
            wanted = self._count(draw, count)
            for i in range(int(wanted.max()) if count else 0):
                value = draw.uniform(n, 1, 1, 1, low=-largest, high=largest)
                value = value * (wanted > i)[:, None, None, None]
                here, far = add(draw)
                chi += value * here
                field += value * far
                inside += here * (value != 0)
        noise = draw.normal(n, s, s, s) * draw.uniform(n, 1, 1, 1, low=1e-5, high=1e-3)
        ones = torch.ones_like(chi)
        mask = ((inside > 0) + noise) if self.released else ones
        grid = Grid.of((s, s, s))
        kernel = dipole_kernel(grid, grid.shape).to(draw.device)
        return Batch(chi, field + noise, field, mask, ones.bool(), kernel, grid.voxel_mm, grid.b0_dir)

    def _count(self, draw: Draw, most: int) -> Float[Tensor, " n"]:
        if self.released:
            return (most - draw.uniform(self.batch) * most + draw.uniform(self.batch) * most).round()
        return (draw.uniform(self.batch) * (most + 1)).floor()

    def _centres(self, draw: Draw) -> Float[Tensor, "n 3"]:
        """95 % of objects in the middle half, the others anywhere."""
        s = self.size
        middle = draw.uniform(self.batch, 3, low=s / 4, high=3 * s / 4)
        anywhere = draw.uniform(self.batch, 3, low=0, high=s - 1)
        return torch.where(draw.happens(0.95, self.batch, 1), middle, anywhere)

    def _from(self, centres: Float[Tensor, "n 3"]) -> list[Float[Tensor, "n x y z"]]:
        line = torch.arange(self.size, device=centres.device, dtype=centres.dtype)
        return [
            (line - centres[:, a, None]).reshape(len(centres), *(-1 if a == j else 1 for j in range(3)))
            for a in range(3)
        ]

    def _sphere(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Inside, and field of one ppm."""
        radius = draw.uniform(self.batch, 1, 1, 1, low=4, high=self.size + 1).floor()
        x, y, z = self._from(self._centres(draw))
        return sphere(x, y, z, radius)

    def _cylinder(self, draw: Draw) -> tuple[Tensor, Tensor]:
        radius = draw.uniform(self.batch, 1, 1, 1, low=0, high=7).floor()
        x, y, z = self._from(self._centres(draw))
        return cylinder(x, y, z, radius, draw.directions(self.batch))


def sphere(
    x: Tensor, y: Tensor, z: Tensor, radius: Float[Tensor, "n 1 1 1"]
) -> tuple[Float[Tensor, "n x y z"], Float[Tensor, "n x y z"]]:
    """Inside, and (1/3) a³ (2z² − x² − y²)/r⁵ outside it, for B0 along z."""
    across, along = x.square() + y.square(), z.square()
    r2 = across + along
    inside = (r2 <= radius.square()).to(r2)
    safe = r2.clamp_min(1e-6)
    return inside, (1 - inside) * radius.pow(3) / 3 * (2 * along - across) / (safe.square() * safe.sqrt())


def cylinder(
    x: Tensor, y: Tensor, z: Tensor, radius: Float[Tensor, "n 1 1 1"], axis: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n x y z"], Float[Tensor, "n x y z"]]:
    """Inside, and ½ (a²/ρ²) sin²θ cos 2ψ outside, (3cos²θ − 1)/6 inside, for B0 along z.

    With q the position across the axis and c B0's part across it, ρ² sin²θ cos 2ψ = 2(q·c)² − ρ² sin²θ.
    """
    ux, uy, uz = (axis[:, a, None, None, None] for a in range(3))
    t = x * ux + y * uy + z * uz
    qx, qy, qz = x - t * ux, y - t * uy, z - t * uz
    rho2 = qx.square() + qy.square() + qz.square()
    sin2 = 1 - uz.square()
    # q lies across the axis, so q·c = q·b = qz
    inside = (rho2 <= radius.square()).to(rho2)
    safe = rho2.clamp_min(1e-6)
    far = 0.5 * radius.square() * (2 * qz.square() - rho2 * sin2) / safe.square()
    return inside, torch.where(inside > 0, (3 * uz.square() - 1) / 6, far)

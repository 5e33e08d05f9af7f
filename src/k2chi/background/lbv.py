"""Background removal by Laplace's equation: a background field has no curvature inside the brain."""

from dataclasses import dataclass

import torch
from torch import Tensor

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.box import box_around
from k2chi.ops.finite import laplacian, laplacian_symbol
from k2chi.ops.fourier import SPACE
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class LBV:
    """Background: harmonic inside, the field itself at the rim, so ∇²f_local = ∇²f with zero at the rim.

    Zhou et al. 2014, NMR Biomed 27:312, doi:10.1002/nbm.3064.
    Exact for any background; the local field at the rim is taken for background, and noise there leaks
    inwards. Loses the outermost voxel and `peel` more. Conjugate gradients, with the whole box's Poisson
    solution as preconditioner: some 30 pairs of transforms.
    """

    peel: int = 0
    """Layers of voxels removed from the mask first; more: noisy rims do less harm."""
    tolerance: float = 1e-4
    """Stop at this residual relative to ∇²f."""
    iterations: int = 200
    """Upper limit."""

    def __post_init__(self) -> None:
        if self.peel < 0:
            raise ValueError(f"LBV peel {self.peel} must not be negative")

    def __call__(self, total: Field) -> Field:
        """The local field inside the rim."""
        box = box_around(total.mask, margin=2)
        grid = box.grid(total.grid)
        f, mask = masked(total, box)
        for _ in range(self.peel):
            mask = inner(mask)
        inside = inner(mask)
        if not inside.any():
            raise ValueError("LBV: no voxel lies inside the mask's rim: use a fuller mask or a smaller peel")
        lap, p = laplacian(grid), inside.to(f.dtype)
        symbol = laplacian_symbol(grid.shape, grid.voxel_mm).to(f.device)
        symbol[0, 0, 0] = symbol.flatten()[1] / 4  # any positive number: keeps the preconditioner positive

        def poisson(r: Tensor) -> Tensor:
            smooth: Tensor = torch.fft.irfftn(torch.fft.rfftn(r, dim=SPACE) / symbol, s=grid.shape, dim=SPACE)
            return p * smooth

        local = cg(
            lambda x: -p * lap(x),
            -p * lap(f),
            iterations=self.iterations,
            tolerance=self.tolerance,
            precondition=poisson,
            what="LBV",
        )
        return local_field(total, box, local, inside)


def inner(mask: Tensor) -> Tensor:
    """Voxels whose six neighbours are in the mask too."""
    out = mask.clone()
    for axis in (-3, -2, -1):
        for shift in (-1, 1):
            out &= torch.roll(mask, shift, axis)
    return out

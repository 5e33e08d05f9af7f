"""Background removal by projection onto the fields of sources outside the mask."""

from dataclasses import dataclass

import torch

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.box import box_around
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.fourier import convolution
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class PDF:
    """Explain as much of the field as possible by sources outside the mask, and keep what is left.

    min over χ outside M of ‖w (f − Dχ)‖², f_local = f − Dχ, by conjugate gradients stopped early.
    Liu et al. 2011, NMR Biomed 24:1129, doi:10.1002/nbm.1670.
    Keeps the whole mask. Sources near the mask's edge are partly taken for background. The kernel is that of
    a voxel-sized source: with the continuous one and oblique B0 the error doubles. Two pairs of transforms
    an iteration.
    """

    iterations: int = 50
    """Upper limit; more: more background is removed, and more of the local field near the edge."""
    tolerance: float = 1e-3
    """Stop at this residual relative to the data."""
    margin_mm: float = 40.0
    """Room for sources around the mask [mm]."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.margin_mm <= 0:
            raise ValueError("PDF needs at least one iteration and a positive margin")

    def __call__(self, total: Field) -> Field:
        """The local field over the whole mask."""
        box = box_around(total.mask, margin=int(self.margin_mm / min(total.grid.voxel_mm)))
        grid = box.grid(total.grid)
        kernel = dipole_kernel(grid, grid.shape, "green").to(total.ppm.device)
        d = convolution(kernel, grid.shape, grid.shape)
        f, mask = masked(total, box)
        w2 = box.take(torch.where(total.mask, total.weight, torch.zeros_like(total.weight))).square()
        outside = (~mask).to(f.dtype)
        chi = cg(
            lambda x: outside * d.H(w2 * d(x)),
            outside * d.H(w2 * f),
            iterations=self.iterations,
            tolerance=self.tolerance,
            what="PDF",
        )
        return local_field(total, box, f - d(chi))

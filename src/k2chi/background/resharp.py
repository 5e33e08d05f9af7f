"""Background removal by the mean value of harmonic fields, as a regularised fit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.fourier import SPACE
from k2chi.ops.sphere import spheres_in
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class RESHARP:
    """The smallest local field whose spherical means differ from it as much as those of the total field do.

    min over f_local of ‖M′ (1 − S) (f_local − f)‖² + λ ‖f_local‖², by conjugate gradients.
    Sun & Wilman 2014, MRM 71:1151, doi:10.1002/mrm.24765.
    Solved for the multiplier u on M′, f_local = (1 − S) u, which takes one pair of transforms an iteration
    instead of two. The mask loses the radius.
    """

    radius_mm: float = 10.0
    """Radius of the sphere [mm], at least a voxel edge; larger: better in the core, more rim lost."""
    strength: float = 1e-4
    """λ [no unit]; larger: smaller local field, stabler against noise."""
    tolerance: float = 1e-3
    """Stop at this residual relative to the filtered field."""
    iterations: int = 100
    """Upper limit."""

    def __post_init__(self) -> None:
        if not self.radius_mm > 0:
            raise ValueError(f"RESHARP radius {self.radius_mm} mm must be positive")
        if not self.strength >= 0 or self.iterations < 1:
            raise ValueError("RESHARP needs a strength of at least 0 and at least one iteration")

    def __call__(self, total: Field) -> Field:
        """The local field, and the mask without a rim of the radius."""
        box, high, inside = spheres_in(total.mask, total.grid, self.radius_mm, "RESHARP")
        f, _ = masked(total, box)

        def by(multiplier: Tensor, x: Tensor) -> Tensor:
            k = torch.fft.rfftn(x, dim=SPACE).mul_(multiplier)
            y: Tensor = torch.fft.irfftn(k, s=box.shape, dim=SPACE)
            return y

        twice = high.square() + self.strength
        u = cg(
            lambda x: by(twice, x).mul_(inside),
            by(high, f).mul_(inside),
            iterations=self.iterations,
            tolerance=self.tolerance,
            what="RESHARP",
        )
        return local_field(total, box, by(high, u), inside)

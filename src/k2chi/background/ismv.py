"""Background removal by spherical means taken again and again, with the field held at the rim."""

from dataclasses import dataclass

import torch
from torch import Tensor

from k2chi.background.result import local_field, masked
from k2chi.data import Field
from k2chi.ops.fourier import SPACE
from k2chi.ops.sphere import spheres_in
from k2chi.solve.cg import cg


@dataclass(frozen=True)
class ISMV:
    """Background: equal to its spherical mean inside, the field itself in the rim.

    The fixed point of b ← S b on M′, b = f on the rim; f_local = f − b.
    Wen et al. 2014, MRM 72:1065, doi:10.1002/mrm.24998.
    Repeated averaging creeps; its fixed point solves M′ (1 − S) f_local = M′ (1 − S) f with f_local zero in
    the rim, and conjugate gradients get there in some tens of steps. The local field in the rim is taken for
    background, as in LBV. The mask loses the radius. One pair of transforms an iteration.
    """

    radius_mm: float = 4.0
    """Radius of the sphere [mm], at least a voxel edge; larger: stabler against a noisy rim, more is lost."""
    tolerance: float = 1e-4
    """Stop at this residual relative to the filtered field."""
    iterations: int = 200
    """Upper limit."""

    def __post_init__(self) -> None:
        if not self.radius_mm > 0 or self.iterations < 1:
            raise ValueError("ISMV needs a positive radius and at least one iteration")

    def __call__(self, total: Field) -> Field:
        """The local field, and the mask without a rim of the radius."""
        box, high, inside = spheres_in(total.mask, total.grid, self.radius_mm, "ISMV")
        f, _ = masked(total, box)

        def minus_mean(x: Tensor) -> Tensor:
            k = torch.fft.rfftn(x, dim=SPACE).mul_(high)
            y: Tensor = torch.fft.irfftn(k, s=box.shape, dim=SPACE)
            return y.mul_(inside)

        local = cg(
            minus_mean,
            minus_mean(f),
            iterations=self.iterations,
            tolerance=self.tolerance,
            what="iSMV",
        )
        return local_field(total, box, local, inside)

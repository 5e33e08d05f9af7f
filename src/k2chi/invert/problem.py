"""What every dipole inversion starts from: a box around the mask, its field, weights, support and kernel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Chi, Field, Grid
from k2chi.ops.box import Box, box_around
from k2chi.ops.dipole import Kernel, dipole_kernel, fitting
from k2chi.ops.fourier import SPACE, convolution
from k2chi.ops.linear import Linear

PAD = 1.25
"""Size of the box relative to the mask: sources at one side must not meet their wrapped field."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A local field in a box with a fast size; `answer` lays χ back into the scan's grid."""

    field: Field
    box: Box
    grid: Grid
    ppm: Float[Tensor, "x y z"]
    """Masked field [ppm]."""
    weight: Float[Tensor, "x y z"]
    """Weight in [0, 1], zero outside the mask."""
    support: Bool[Tensor, "x y z"]
    """Where χ may differ from zero: the un-eroded mask."""
    kernel: Float[Tensor, "x y h"]
    """D on the half spectrum."""
    kind: Kernel = "continuous"
    """Which D that is."""

    @property
    def d(self) -> Linear:
        """The dipole operator on the box."""
        return convolution(self.kernel, self.grid.shape, self.grid.shape)

    def spectrum(self, x: Float[Tensor, "*batch x y z"]) -> Tensor:
        k: Tensor = torch.fft.rfftn(x, dim=SPACE)
        return k

    def volume(self, k: Tensor) -> Float[Tensor, "*batch x y z"]:
        x: Tensor = torch.fft.irfftn(k, s=self.grid.shape, dim=SPACE)
        return x

    def misfit(self, field_ppm: Float[Tensor, "x y z"]) -> float:
        """Share of the weighted field that `field_ppm` = Dχ leaves unexplained."""
        return float(((field_ppm - self.ppm) * self.weight).norm()) / self._size

    @cached_property
    def _size(self) -> float:
        return max(float((self.weight * self.ppm).norm()), 1e-30)

    def answer(
        self,
        chi_ppm: Float[Tensor, "x y z"],
        updates: Sequence[float] = (),
        misfits: Sequence[float] = (),
        tolerance: float = 0.0,
    ) -> Chi:
        """χ in the scan's grid, zero outside the field's support; it says whether it converged."""
        support = self.field.mask if self.field.support is None else self.field.support
        full = self.box.put(chi_ppm, self.field.grid.shape)
        converged = updates[-1] <= tolerance if updates and tolerance > 0 else None
        return Chi(
            full * support,
            support,
            self.field.grid,
            updates=tuple(updates),
            misfits=tuple(misfits),
            converged=converged,
        )


def problem(local: Field, inside: bool = False, room_mm: float = 0.0) -> Problem:
    """Crop to the support, pad to a fast size; for sources around it, `room_mm` on each side at least.

    Methods that keep χ `inside` the support take a kernel that holds the field as far as half the box, as
    `fitting` has it; the continuous one adds up that of all the box's copies, which no χ inside can explain.
    """
    support = local.mask if local.support is None else local.support
    box = box_around(support, PAD, int(room_mm / min(local.grid.voxel_mm)))
    grid = box.grid(local.grid)
    kind: Kernel = fitting(grid) if inside else "continuous"
    kernel = dipole_kernel(grid, grid.shape, kind).to(local.ppm.device)
    finite = replace(local, mask=local.mask & torch.isfinite(local.ppm), support=support)
    ppm, weight = (  # not by multiplication: what is not finite must go
        torch.where(finite.mask, x, torch.zeros_like(x)) for x in (local.ppm, local.weight)
    )
    return Problem(
        field=finite,
        box=box,
        grid=grid,
        ppm=box.take(ppm),
        weight=box.take(weight),
        support=box.take(support),
        kernel=kernel,
        kind=kind,
    )

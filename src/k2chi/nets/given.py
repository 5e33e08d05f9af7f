"""What every network gets and gives, whatever its layers."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Size, Vector
from k2chi.nets.running import Run, at_once
from k2chi.ops.fourier import convolution
from k2chi.ops.linear import Linear

SHARP = 1e-12
"""Fields weaker than this [ppm] count as nothing, so that a zero field is not divided by zero."""


@dataclass(frozen=True, eq=False)
class Given:
    """A batch of fields of one shape and geometry, in boxes with some room around the mask."""

    field: Float[Tensor, "n x y z"]
    """Field [ppm], zero outside the mask."""
    weight: Float[Tensor, "n x y z"]
    """Trust in each voxel, 0 to 1, zero outside the mask."""
    support: Float[Tensor, "n x y z"]
    """One where χ may differ from zero."""
    kernel: Float[Tensor, "x y h"]
    """D on the half spectrum of the box."""
    voxel_mm: Vector
    """Edges of a voxel [mm]."""
    b0_dir: Vector
    """Unit vector of B0 in voxel axes."""
    parts: Size = (1, 1, 1)
    """Pieces of a voxel along each axis on which χ may differ, where the network knows how."""

    @property
    def d(self) -> Linear:
        """The dipole operator on the box."""
        x, y, z = self.field.shape[-3:]
        return convolution(self.kernel, (x, y, z), (x, y, z))

    def scale(self) -> Float[Tensor, "n 1 1 1"]:
        """Weighted root mean square of each field [ppm]: what a network divides by, and multiplies again."""
        w2 = self.weight.square()
        power = (w2 * self.field.square()).sum((-3, -2, -1), keepdim=True)
        return (power / w2.sum((-3, -2, -1), keepdim=True).clamp_min(SHARP)).sqrt()

    def over(self, scale: Float[Tensor, "n 1 1 1"]) -> "Given":
        """The same with the field divided by `scale`; a field of nothing stays nothing."""
        return replace(self, field=self.field / torch.where(scale > SHARP, scale, torch.ones_like(scale)))

    @property
    def geometry(self) -> Float[Tensor, "9"]:
        """Shape of a voxel and B0 as numbers: log edges over their mean, and products of B0's components."""
        edges = torch.tensor(self.voxel_mm).log()
        b = torch.tensor(self.b0_dir)
        i, j = torch.triu_indices(3, 3)
        out: Tensor = torch.cat([edges - edges.mean(), b[i] * b[j]]).to(self.field)
        return out


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network says."""

    chi: Float[Tensor, "n x y z"]
    """Susceptibility [ppm]; its mean is arbitrary."""
    spread: Float[Tensor, "n x y z"] | None = None
    """How far the network believes to be off, one standard deviation [ppm]; not yet calibrated."""
    beyond: Float[Tensor, "n x y z"] | None = None
    """Sources outside the support [ppm] that explain the background, from networks for total fields."""


@runtime_checkable
class Network(Protocol):
    """A network whose weights are torch parameters and that turns fields into χ."""

    axial: bool
    """True if it knows cubic voxels and B0 along the last axis only, so that others must be resampled."""

    def invert(self, given: Given, run: Run = at_once) -> Answer: ...

"""What training learns from: a batch of fields with their true χ; and random numbers that follow a seed."""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Vector
from k2chi.nets import Given


@dataclass(frozen=True, eq=False)
class Batch:
    """Cubes that share voxel size and B0 direction."""

    chi: Float[Tensor, "n x y z"]
    """True susceptibility [ppm], its mean in the support zero, zero outside."""
    field: Float[Tensor, "n x y z"]
    """Measured field [ppm], zero outside the mask: with noise and, as asked, faults and background."""
    local: Float[Tensor, "n x y z"]
    """The field of `chi` alone [ppm], everywhere in the cube."""
    weight: Float[Tensor, "n x y z"]
    """Trust, 0 to 1, proportional to one over the noise; zero outside the mask."""
    support: Bool[Tensor, "n x y z"]
    """Where sources may be."""
    kernel: Float[Tensor, "x y h"]
    """D on the half spectrum of a cube."""
    voxel_mm: Vector
    b0_dir: Vector
    noise_ppm: Float[Tensor, "n x y z"] | None = None
    """Standard deviation of the noise in `field` [ppm], where it is known."""

    def given(self) -> Given:
        """What a network is shown."""
        s = self.support.to(self.field)
        return Given(self.field, self.weight, s, self.kernel, self.voxel_mm, self.b0_dir)


class Draw:
    """Random tensors on a device from one seed; the same seed gives the same numbers on the same device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.source = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Evenly between `low` and `high`."""
        x = torch.rand(shape, generator=self.source, device=self.device)
        return low + (high - low) * x

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Evenly in the logarithm."""
        return self.uniform(*shape, low=log(low), high=log(high)).exp()

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and variance 1."""
        return torch.randn(shape, generator=self.source, device=self.device)

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number."""
        return float(self.uniform(1, low=low, high=high))

    def happens(self, share: float, *shape: int) -> Tensor:
        """True in this share of cases."""
        return self.uniform(*shape) < share

    def directions(self, n: int) -> Float[Tensor, "n 3"]:
        """Unit vectors, evenly on the sphere."""
        v = self.normal(n, 3)
        out: Tensor = v / v.norm(dim=-1, keepdim=True)
        return out

    def rotations(self, n: int) -> Float[Tensor, "n 3 3"]:
        """Random turns, some with a mirror."""
        q, r = torch.linalg.qr(self.normal(n, 3, 3))
        out: Tensor = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
        return out

"""Our own: steps that apply the scan's true dipole operator, each followed by a small learned regulariser."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from k2chi.nets.background import background
from k2chi.nets.boxes import bounds, put
from k2chi.nets.given import Answer, Given
from k2chi.nets.regulariser import Regulariser
from k2chi.nets.running import Run, at_once
from k2chi.ops.fourier import SPACE


@dataclass(frozen=True)
class UnrolledConfig:
    """Data consistency and regulariser in turn, for any voxel shape and B0 direction."""

    refine: ClassVar[int] = 8
    """Steps on the data that its maps want."""
    most_voxels: ClassVar[int] = 30_000_000
    """Larger volumes go through its layers in slabs; some 0.4 kB each."""

    steps: int = 4
    """Rounds of data consistency and regulariser."""
    widths: tuple[int, ...] = (8, 32, 48)
    """Channels of the regulariser at full, half and quarter resolution."""
    depth: int = 2
    """Residual blocks at each lower resolution."""
    shared: bool = True
    """One regulariser for all steps, told which step it is; else one for each."""
    total: bool = False
    """True for networks that take the total field and explain the background by sources outside."""
    start: int = 15
    """Conjugate-gradient steps of the background's first guess, with `total`."""

    def __post_init__(self) -> None:
        if self.steps < 1 or len(self.widths) < 1 or min(self.widths) < 1 or self.start < 1:
            raise ValueError("an unrolled network needs at least one step, one width and one start step")

    def build(self) -> "Unrolled":
        """The network with fresh weights: at first it is preconditioned descent without regulariser."""
        return Unrolled(self)


class Unrolled(nn.Module):
    """χ ← χ + F⁻¹ D/(D² + μ) F w²(f − Dχ), then χ ← χ + R(χ, last step, mask, weight, geometry).

    The field is divided by its own weighted size and χ multiplied by it, so that the map of c times the field
    is c times the map, exactly. R sees the whole volume, cropped to the support's bounding box.
    """

    axial = False

    def __init__(self, config: UnrolledConfig) -> None:
        super().__init__()
        self.config = config
        count = 1 if config.shared else config.steps
        self.regularisers = nn.ModuleList(
            Regulariser(4, 2, config.widths, config.depth, told=9 + config.steps) for _ in range(count)
        )
        start = torch.logspace(-1, -2, config.steps) if config.steps > 1 else torch.tensor([0.03])
        self.log_mu = nn.Parameter(start.log())

    def invert(self, given: Given, run: Run = at_once) -> Answer:
        """χ inside the support; its mean is arbitrary."""
        s, w2 = given.support, given.weight.square()
        outside = background(given, 1 - s, self.config.start) if self.config.total else torch.zeros_like(s)
        left = given.field - given.d(outside) if self.config.total else given.field
        local = Given(left, given.weight, s, given.kernel, given.voxel_mm, given.b0_dir)
        scale = local.scale()
        f = local.over(scale).field
        free, moved = (1 - s) * (1 - (given.weight > 0).to(s)), torch.zeros_like(f)
        x, spread = torch.zeros_like(f), torch.zeros_like(f)
        box = bounds(s)
        for k in range(self.config.steps):
            step = self._toward(f - given.d(x + moved), w2, given.kernel, k)
            x = x + s * step
            if self.config.total:
                moved = moved + free * step
            seen = torch.stack([x, s * step, s, given.weight], 1)[(..., *box)]
            told = torch.cat([given.geometry, nn.functional.one_hot(torch.tensor(k), len(self.log_mu)).to(f)])
            change = run(self.regularisers[0 if self.config.shared else k], seen, told)
            x = x + s * put(change[:, 0], box, s)
            spread = put(change[:, 1], box, s)
        beyond = outside + moved * scale if self.config.total else None
        return Answer(x * scale, s * spread.clamp(-12, 6).exp() * scale, beyond)

    def _toward(
        self, residual: Float[Tensor, "n x y z"], w2: Tensor, d: Float[Tensor, "x y h"], k: int
    ) -> Float[Tensor, "n x y z"]:
        """The step of χ that explains the weighted residual, damped where D is small."""
        spectrum = torch.fft.rfftn(w2 * residual, dim=SPACE) * (d / (d.square() + self.log_mu[k].exp()))
        out: Tensor = torch.fft.irfftn(spectrum, s=residual.shape[-3:], dim=SPACE)
        return out

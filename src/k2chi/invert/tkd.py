"""Direct inversion by division, with the small values of the kernel replaced."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem


@dataclass(frozen=True)
class TKD:
    """Divide by the dipole kernel, and by ±`threshold` where the kernel is smaller than that.

    χ = F⁻¹ [F f · D⁻¹ₜ] / PSF(0), D⁻¹ₜ = 1/D where |D| > t, else sign(D)/t.
    Shmueli et al. 2009, MRM 62:1510, doi:10.1002/mrm.22135; scaling by the point-spread function at the
    origin: Schweser et al. 2013, MRM 69:1581, doi:10.1002/mrm.24405.
    Streaks along the magic angle remain. One pair of transforms.
    """

    threshold: float = 0.15
    """Smallest |D| that is divided by [0 to 2/3]; larger: fewer streaks, flatter map."""
    rescale: bool = True
    """Undo the mean loss of contrast, which is 18 % at a threshold of 0.15."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2 / 3:
            raise ValueError(f"TKD threshold {self.threshold} is out of range: choose 0 < threshold < 2/3")

    def __call__(self, local: Field) -> Chi:
        """Invert `local` in one step."""
        p = problem(local)
        return p.answer(divided(p, truncated_inverse(p.kernel, self.threshold), self.rescale))


def truncated_inverse(kernel: Float[Tensor, "x y h"], threshold: float) -> Float[Tensor, "x y h"]:
    """1/D where |D| > t, else sign(D)/t; zero at the origin of k-space."""
    sign = torch.where(kernel < 0, -1.0, 1.0)
    large = kernel.abs() > threshold
    inverse = torch.where(large, 1 / torch.where(large, kernel, 1.0), sign / threshold)
    inverse[0, 0, 0] = 0
    return inverse


def divided(p: Problem, inverse: Float[Tensor, "x y h"], rescale: bool) -> Float[Tensor, "x y z"]:
    """F⁻¹[F f · D⁻¹]; with `rescale` over PSF(0), which is the mean of D · D⁻¹ over all of k-space."""
    psf = 1.0
    if rescale:
        passed = (p.kernel * inverse).double().sum((0, 1))
        once = passed[0] + (passed[-1] if p.grid.shape[2] % 2 == 0 else 0)  # these have no mirror image
        psf = float(2 * passed.sum() - once) / prod(p.grid.shape)
    return p.volume(p.spectrum(p.ppm).mul_(inverse)).div_(psf)

"""Direct inversion by division, with the small values of the kernel replaced."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem


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
        d, t = p.kernel, self.threshold
        sign = torch.where(d < 0, -1.0, 1.0)
        inverse = torch.where(d.abs() > t, 1 / torch.where(d == 0, 1.0, d), sign / t)
        inverse[0, 0, 0] = 0
        psf = float(p.volume((d * inverse).to(torch.complex64))[0, 0, 0]) if self.rescale else 1.0
        return p.answer(p.volume(p.spectrum(p.ppm) * inverse) / psf)

"""Direct inversion by division, leaving out what the kernel hardly passes."""

from dataclasses import dataclass

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.invert.tkd import divided


@dataclass(frozen=True)
class TSVD:
    """Divide by the dipole kernel where it is larger than `threshold`, and drop the rest of k-space.

    χ = F⁻¹ [F f · D⁺ₜ] / PSF(0), D⁺ₜ = 1/D where |D| > t, else 0: the truncated singular value
    decomposition, for the Fourier transform diagonalises the dipole convolution.
    Wharton et al. 2010, MRM 63:1292, doi:10.1002/mrm.22334; scaling by the point-spread function at the
    origin: Schweser et al. 2013, MRM 69:1581, doi:10.1002/mrm.24405.
    Some toolboxes call this one TKD. Noise is lower than in TKD, and streaks are softer, but more contrast
    is lost before scaling. One pair of transforms.
    """

    threshold: float = 0.06
    """Smallest |D| that is kept [0 to 2/3]; larger: fewer streaks, less detail near the magic angle."""
    rescale: bool = True
    """Undo the mean loss of contrast, which is about 15 % at a threshold of 0.06."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2 / 3:
            raise ValueError(f"TSVD threshold {self.threshold} is out of range: choose 0 < threshold < 2/3")

    def __call__(self, local: Field) -> Chi:
        """Invert `local` in one step."""
        p = problem(local)
        kept = p.kernel.abs() > self.threshold
        inverse = torch.where(kept, 1 / torch.where(kept, p.kernel, 1.0), 0.0)
        return p.answer(divided(p, inverse, self.rescale))

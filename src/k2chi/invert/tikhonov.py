"""Closed-form inversion with a quadratic penalty on the map itself."""

from dataclasses import dataclass

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.invert.tkd import divided


@dataclass(frozen=True)
class Tikhonov:
    """Least squares with a small map: min ½‖Dχ − f‖² + (α/2)‖χ‖², in one division.

    χ = F⁻¹ [F f · D/(D² + α)] / PSF(0).
    Kressler et al. 2010, IEEE Trans Med Imaging 29:273, doi:10.1109/TMI.2009.2023787; scaling by the
    point-spread function at the origin: Schweser et al. 2013, MRM 69:1581, doi:10.1002/mrm.24405.
    α here is the number itself: where a paper adds α² to D², give its square. One pair of transforms.
    """

    alpha: float = 0.004
    """α [no unit]; larger: fewer streaks, flatter map."""
    rescale: bool = True
    """Undo the mean loss of contrast, which is 32 % at an α of 0.01."""

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"Tikhonov alpha {self.alpha} must be positive: 0.004 suits most data")

    def __call__(self, local: Field) -> Chi:
        """Invert `local` in one step."""
        p = problem(local)
        return p.answer(divided(p, p.kernel / (p.kernel.square() + self.alpha), self.rescale))

"""Nonlinear dipole inversion: fit the complex signal, so that phase wraps do no harm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.solve.descent import descent


@dataclass(frozen=True)
class NDI:
    """Descend the complex misfit ½‖w (exp iDχ − exp iφ)‖²; where descent stops sets how smooth the map is.

    Polak et al. 2020, NMR Biomed 33:e4271, doi:10.1002/nbm.4271; the projection onto the mask before
    erosion and the momentum are additions.
    Works in radians at the mean echo time. The first `warm` steps are linear, without which a strong source
    (−3.3 ppm at 7 T) sends it astray; they believe the field, so it must be unwrapped. With `warm` 0 whole
    turns of phase leave the result unchanged. Without the projection nothing keeps χ out of the air, where it
    explains the field of the brain. Two dipole convolutions an iteration.
    """

    step: float = 2.0
    """Step length [no unit]; with weights in [0, 1] descent is sure below 4.5 = 2/(2/3)²."""
    iterations: int = 30
    """Upper limit. More iterations: sharper, noisier."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    damping: float = 1e-5
    """Weight of the penalty ½‖χ‖² [no unit]."""
    momentum: bool = True
    """Nesterov's momentum: some 30 iterations do the work of 200; needs step ≤ 2.25."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    warm: int = 10
    """Linear steps before the non-linear ones; 0 or more."""

    def __post_init__(self) -> None:
        limit = 2.25 if self.momentum else 4.5
        if not 0 < self.step <= limit - (0 if self.momentum else 1e-9):
            raise ValueError(f"NDI step {self.step} will not converge: choose 0 < step < {limit}")
        if self.iterations < 1 or self.warm < 0:
            raise ValueError("NDI needs at least one iteration, and warm must not be negative")

    def __call__(self, local: Field) -> Chi:
        """Invert `local`. The map is zero outside the mask and has no reference yet."""
        p, to_rad = problem(local), local.scan.rad_per_ppm
        d, phase, w2 = p.d, p.ppm * to_rad, p.weight.square()

        misfits: list[float] = []

        def gradient(chi: Tensor) -> Tensor:
            field = d(chi)
            misfits.append(p.misfit(field / to_rad))
            away = field - phase if len(misfits) <= self.warm else torch.sin(field - phase)
            return d.H(w2 * away) + self.damping * chi

        chi, updates = descent(
            gradient,
            torch.zeros_like(phase),
            self.step,
            self.iterations,
            self.tolerance,
            project=(lambda x: x * p.support) if self.support else None,
            momentum=self.momentum,
            what="NDI",
        )
        return p.answer(chi / to_rad, updates, misfits, self.tolerance)

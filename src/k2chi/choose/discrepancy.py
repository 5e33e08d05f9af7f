"""As smooth a map as the noise allows: the misfit should be the noise, no more and no less."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch

from k2chi.choose.trial import Choice, try_all
from k2chi.data import Field
from k2chi.invert.problem import problem


@dataclass(frozen=True)
class Discrepancy:
    """Choose where the weighted misfit ‖w(Dχ − f)‖ equals that of noise alone, ‖w σ‖.

    Morozov's principle; for iteration counts it is early stopping. Hansen 1998, Rank-Deficient and Discrete
    Ill-Posed Problems, doi:10.1137/1.9780898719697. Needs `noise_ppm`. Errors that no noise model knows, such
    as what background removal left, count as misfit: no value may meet the noise then, or one that fits them;
    a noise taken too large smooths too much. One inversion a value.
    """

    factor: float = 1.0
    """Misfit that is aimed at, in units of the noise's; larger: smoother."""

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"Discrepancy factor {self.factor} must be positive")

    def __call__(self, method: Any, local: Field, setting: str, values: Sequence[float]) -> Choice:
        """Try all `values` of `setting` on `local`."""
        if local.noise_ppm is None:
            raise ValueError(
                "Discrepancy needs the noise of the field: set noise_ppm (echo fits give it), or take LCurve"
            )
        aim = self.factor * self._noise(local)
        trial = try_all(method, setting, values, local, least=2)
        score = [log(m / aim) for m in trial.misfit]
        last = max((i for i, s in enumerate(score) if s <= 0), default=0)  # of those that fit, the smoothest
        best = min(range(last, min(last + 2, len(score))), key=lambda i: abs(score[i]))
        warnings = []
        if min(score) > 0 or max(score) < 0:
            side = "above" if min(score) > 0 else "below"
            warnings.append(f"the misfit is {side} the noise's for every value: no value meets it")
        says = "log of the misfit over that of the noise; its zero is chosen"
        return trial.choice("discrepancy", score, says, best, warnings)

    def _noise(self, local: Field) -> float:
        """‖w σ‖ over ‖w f‖."""
        p = problem(local)
        assert local.noise_ppm is not None
        sigma = p.box.take(torch.where(local.mask, local.noise_ppm, torch.zeros_like(local.ppm)))
        noise, size = (float((p.weight * x.nan_to_num(0, 0, 0)).norm()) for x in (sigma, p.ppm))
        if noise == 0 or size == 0:
            raise ValueError("noise or field is zero wherever the weight is not: Discrepancy has no aim")
        return noise / size

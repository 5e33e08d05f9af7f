"""Two zones of k-space that should look alike in a map that is neither noisy nor flat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from k2chi.choose.trial import Choice, crossing, try_all
from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem


@dataclass(frozen=True)
class FrequencyAnalysis:
    """Choose where the map is as strong in k-space near the magic cone as far from it.

    Mean |F χ| over high frequencies is compared between two bands of |D|. Too little regularisation
    amplifies noise where |D| is small; too much takes signal from there first. Milovic et al. 2021, MRM
    85:480, doi:10.1002/mrm.28435, who find such maps pleasant though larger in error, and suggest a factor
    of 1.5 to 2 on the setting. The nearest value tried is chosen. One inversion a value.
    """

    near: tuple[float, float] = (0.15, 0.3)
    """Band of |D| near the magic cone [no unit]."""
    far: tuple[float, float] = (0.35, 0.6)
    """Band of |D| far from the cone [no unit]."""
    radius: tuple[float, float] = (0.65, 0.95)
    """Band of |k| as a share of the Nyquist frequency of the largest voxel edge."""
    factor: float = 1.0
    """Multiplies the setting at which both bands agree."""

    def __post_init__(self) -> None:
        for low, high in (self.near, self.far, self.radius):
            if not 0 <= low < high:
                raise ValueError(
                    f"FrequencyAnalysis band ({low}, {high}) is empty: the second must be larger"
                )
        if self.factor <= 0:
            raise ValueError("FrequencyAnalysis factor must be positive")

    def __call__(self, method: Any, local: Field, setting: str, values: Sequence[float]) -> Choice:
        """Try all `values` of `setting` on `local`."""
        trial = try_all(method, setting, values, local, least=3)
        p = problem(local)
        bands = self._bands(p)
        score = torch.tensor([self._ratio(p, chi, *bands) for chi in trial.maps])
        at = torch.tensor(trial.values).log()
        found, warnings = crossing(at, score), []
        if found and float(score.max()) > 0.05:
            middle = found[-1] + float(torch.tensor(self.factor).log())
            best = int((at - middle).abs().argmin())
        else:
            best = int(score.abs().argmin())
            warnings.append(
                "the two zones meet for no value (low noise, or too few values): the nearest is taken"
            )
        says = "log of the amplitude near the cone over that far from it; its zero is chosen"
        return trial.choice("frequency analysis", score.tolist(), says, best, warnings)

    def _bands(self, p: Problem) -> tuple[Tensor, Tensor]:
        axes = []
        for a, (n, v) in enumerate(zip(p.grid.shape, p.grid.voxel_mm, strict=True)):
            k = torch.fft.rfftfreq(n, v) if a == 2 else torch.fft.fftfreq(n, v)
            axes.append(k.square().reshape([-1 if a == j else 1 for j in range(3)]))
        k2 = (axes[0] + axes[1] + axes[2]).to(p.kernel.device)
        low, high = (r / (2 * max(p.grid.voxel_mm)) for r in self.radius)
        ring = (k2 >= low**2) & (k2 <= high**2)
        d = p.kernel.abs()
        near, far = (ring & (d >= a) & (d <= b) for a, b in (self.near, self.far))
        if not near.any() or not far.any():
            raise ValueError(
                "a band of FrequencyAnalysis holds no point of k-space: widen near, far or radius"
            )
        return near, far

    def _ratio(self, p: Problem, chi: Chi, near: Tensor, far: Tensor) -> float:
        amplitude = p.spectrum(p.box.take(chi.ppm)).abs()
        return float((amplitude[near].mean() / amplitude[far].mean()).log())

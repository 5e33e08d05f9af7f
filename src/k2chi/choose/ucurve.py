"""The bottom of the curve of one over misfit plus one over roughness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2chi.choose.trial import Choice, try_all
from k2chi.data import Field


@dataclass(frozen=True)
class UCurve:
    """Choose where 1/misfit² + 1/roughness² is smallest, each divided by its geometric mean over the values.

    As compared with other rules by Milovic et al. 2021, MRM 85:480, doi:10.1002/mrm.28435. The two terms have
    no common unit, so a scale must be chosen: the geometric mean makes the range of values matter. One
    inversion a value.
    """

    def __call__(self, method: Any, local: Field, setting: str, values: Sequence[float]) -> Choice:
        """Try all `values` of `setting` on `local`."""
        trial = try_all(method, setting, values, local, least=3)
        n = min(trial.steady, len(trial.values) - 2)
        misfit, roughness = np.asarray(trial.misfit[n:]), np.asarray(trial.roughness[n:])
        score = sum((np.exp(np.log(x).mean()) / x) ** 2 for x in (misfit, roughness))
        return trial.choice(
            "U-curve",
            [float("nan")] * n + list(score),
            "1/misfit² + 1/roughness², each in units of its geometric mean; the smallest is chosen",
            n + int(np.argmin(score)),
            trial.left_out(),
        )

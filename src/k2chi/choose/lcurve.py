"""The bend of the curve of roughness against misfit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.interpolate import CubicSpline

from k2chi.choose.trial import Choice, try_all
from k2chi.data import Field


@dataclass(frozen=True)
class LCurve:
    """Choose where log roughness over log misfit bends most, or where the bend ends towards less smoothing.

    κ = (x′y″ − y′x″)/(x′² + y′²)^(3/2), x = log misfit, y = log roughness, both over the log of the setting.
    Corner: Hansen 1992, SIAM Rev 34:561, doi:10.1137/1034115. Its zero on the less regularised side:
    Milovic et al. 2021, MRM 85:480, doi:10.1002/mrm.28435; with total variation the corner smooths too much.
    The curve is a cubic spline through the values tried, and the nearest of them is chosen: 8 or more, evenly
    spaced in the logarithm, over two decades. One inversion a value.
    """

    point: Literal["inflection", "corner"] = "inflection"
    """Where the curvature ends (less smoothing), or where it is largest (more smoothing)."""

    def __call__(self, method: Any, local: Field, setting: str, values: Sequence[float]) -> Choice:
        """Try all `values` of `setting` on `local`."""
        trial = try_all(method, setting, values, local, least=5)
        n, warnings = trial.steady, trial.left_out()
        if len(trial.values) - n < 4:
            warnings.append("too few values are left for a curve: add more regularised ones")
            n = max(len(trial.values) - 4, 0)
        at = np.log(trial.values[n:])
        flip = at[0] > at[-1]
        t = -at if flip else at
        x, y = CubicSpline(t, np.log(trial.misfit[n:])), CubicSpline(t, np.log(trial.roughness[n:]))

        def curvature(u: np.ndarray) -> np.ndarray:
            dx, dy, ddx, ddy = x(u, 1), y(u, 1), x(u, 2), y(u, 2)
            bend: np.ndarray = (dx * ddy - dy * ddx) / np.maximum(dx**2 + dy**2, 1e-12) ** 1.5
            return bend

        # the second derivative of a spline means little in its end intervals
        fine = np.linspace(t[1], t[-2], 20 * len(t) + 1)
        kappa = curvature(fine)
        corner = int(np.argmax(kappa))
        if kappa[corner] <= 1e-3 or corner in (0, len(fine) - 1):
            warnings.append("the curve has no corner among the values tried: do not trust the choice")
        where = corner
        if self.point == "inflection":
            left = np.nonzero(kappa[:corner] <= 0)[0]
            if left.size:
                where = int(left[-1]) + 1
            else:
                where = int(np.argmin(kappa[: corner + 1]))
                warnings.append("the bend does not end among the values tried: its weakest point is taken")
        best = n + int(np.argmin(np.abs(t - fine[where])))
        says = "curvature of the L-curve; its zero on the less regularised side is chosen"
        if self.point == "corner":
            says = "curvature of the L-curve; the largest is chosen"
        return trial.choice("L-curve", [float("nan")] * n + list(curvature(t)), says, best, warnings)

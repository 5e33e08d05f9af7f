"""Second-order total generalised variation as the prior of the alternating directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.invert.problem import Problem
from k2chi.invert.splits import slabs
from k2chi.ops.bend import TGVSplit
from k2chi.ops.box import faces
from k2chi.ops.finite import gradient_symbol


class TGV:
    """min over v of α₁‖R(∇χ − v)‖₁ + α₀‖Rℰv‖₁: a straight slope of χ costs nothing, so it makes no staircase.

    ℰ is the symmetric gradient, by forward differences like ∇ itself: so in Fourier space ℰᵀℰ is
    (|e|² + e eᴴ)/2 with e the symbol of ∇, and the four unknowns (χ, v) of a frequency part into v across e,
    by itself, and χ with v along e, two by two. Nothing is stored for a frequency. Memory: v, 9 duals, 9
    copies and 4 spectra.
    """

    def __init__(
        self,
        p: Problem,
        alpha: float,
        second_mm: float,
        edge_ppm_per_mm: float,
        r: Float[Tensor, "x y z"],
        free_border: bool,
    ) -> None:
        """α₁ = `alpha` [ppm mm], α₀ = second_mm · α₁ [ppm mm²]; the rest as in `TV`."""
        near = r * faces(p.support) if free_border else r
        inner = near * faces(faces(p.support) > 0) if free_border else r
        bend = 2 * edge_ppm_per_mm / second_mm  # where ℰv begins to shrink [ppm/mm²]: follows the voxel size
        self._mu = (alpha / edge_ppm_per_mm, second_mm * alpha / bend)
        self._split = TGVSplit(p.grid, edge_ppm_per_mm * near, bend * inner, self._mu)
        self._p, self._mu_data, self._mu_support = p, 1.0, 0.0
        self._symbol = [e.to(p.ppm.device) for e in gradient_symbol(p.grid.shape, p.grid.voxel_mm)]

    def prepare(self, p: Problem, mu_data: float, mu_support: float) -> None:
        self._mu_data, self._mu_support = mu_data, mu_support

    def step(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        rhs, _ = self._split.step(chi)
        return rhs

    def solve(self, k: Tensor, kt: Tensor) -> None:
        p, (mu1, mu0) = self._p, self._mu
        v = [p.spectrum(part) for part in self._split.v]
        for i in slabs(k):
            e = (self._symbol[0][i], self._symbol[1], self._symbol[2])
            d = p.kernel[i]
            a = e[0].abs().square() + e[1].abs().square() + e[2].abs().square()
            beta = e[0].conj() * v[0][i] + e[1].conj() * v[1][i] + e[2].conj() * v[2][i]
            beta /= torch.where(a == 0, torch.inf, a)
            right = k[i] + self._mu_data * d * kt[i]
            first = mu1 * a + self._mu_data * d.square() + self._mu_support
            second = mu1 + mu0 * a
            det = first * second - mu1**2 * a
            det = torch.where(det == 0, torch.inf, det)  # the mean of χ, where no support fixes it
            k[i] = (second * right + mu1 * a * beta) / det
            torch.mul(k[i], d, out=kt[i])
            along = (first * beta + mu1 * right) / det
            across = 1 / (mu1 + 0.5 * mu0 * a)
            for n in range(3):
                v[n][i] = (v[n][i] - e[n] * beta) * across + e[n] * along
        for n in range(3):
            self._split.v[n] = p.volume(v[n])

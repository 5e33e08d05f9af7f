"""Total variation beside a harmonic field: what background removal left behind does not become χ."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem
from k2chi.invert.splits import TV, Splits, edges, quadratic, refuse, slabs, wave
from k2chi.ops.box import faces
from k2chi.ops.finite import laplacian, laplacian_symbol


@dataclass(frozen=True)
class WHQSM:
    """Explain the field by χ and by a nearly harmonic rest φ, which a background removal has left.

    min ½‖w(Dχ + φ − f)‖² + α‖R∇χ‖₁ + β/2‖∇²φ‖² + γ/2‖φ‖² over χ and φ.
    Weak-harmonic QSM, also called WH-TV. Milovic et al. 2019, MRM 81:1399, doi:10.1002/mrm.27483. The
    third term counts voxels whose neighbours all lie in the mask. χ and φ are found together, by a system of
    two unknowns for each frequency, which converges faster than one after the other. `nonlinear` and
    `support` as in FANSI. A slow change of χ has a nearly harmonic field too, which φ would
    take; the published form has no γ, and loses more of it. Three pairs of transforms an iteration.
    """

    alpha: float = 5e-5
    """Strength of total variation [ppm mm]; larger: flatter between edges."""
    beta_mm4: float = 150.0
    """β [mm⁴]; larger: only a truly harmonic rest is taken out, smaller: χ loses contrast."""
    nonlinear: bool = True
    """Compare complex signals rather than fields."""
    iterations: int = 200
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the map; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.02
    """Gradient of the map at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 0.1
    """Weight μ₂ of the split of the data term [no unit]; only speed depends on it."""
    size: float = 0.003
    """γ [no unit]; larger: less of the field counts as rest, and more of χ's slow changes are kept."""
    mu_harmonic_mm4: float = 3.0
    """Weight of the split of ∇²φ [mm⁴]; only speed depends on it."""
    support: bool = True
    """Keep χ at zero outside the mask as it was before any erosion."""
    warm: int = 20
    """Linear iterations before the non-linear ones; 0 or more."""
    edges: bool = False
    """Weaken total variation where the magnitude has edges."""

    def __post_init__(self) -> None:
        positive = ("alpha", "beta_mm4", "edge_ppm_per_mm", "mu_data", "mu_harmonic_mm4")
        refuse(self, positive, {"iterations": 1, "warm": 0, "size": 0})

    def __call__(self, local: Field) -> Chi:
        """Invert `local`."""
        p = problem(local, inside=self.support)
        r = edges(p) if self.edges else torch.ones_like(p.ppm)
        tv = TV(p, self.alpha, self.edge_ppm_per_mm, r, free_border=self.support)
        prior = WeakHarmonic(p, tv, self.beta_mm4, self.mu_harmonic_mm4, self.size)
        splits = Splits(p, prior, self.mu_data, 0.1 * self.mu_data if self.support else 0.0)
        linear = quadratic(self.mu_data)
        if not self.nonlinear:
            splits.run(linear, self.iterations, self.tolerance, "WH")
        else:
            splits.run(linear, min(self.warm, self.iterations), what="WH, linear start")
            complex_fit = wave(self.mu_data, local.scan.rad_per_ppm)
            splits.run(complex_fit, self.iterations - self.warm, self.tolerance, "WH")
        return splits.answer(self.tolerance)


class WeakHarmonic:
    """Total variation of χ, and β/2‖∇²φ‖² of a rest φ that is added to the field of χ."""

    def __init__(self, p: Problem, tv: TV, beta: float, mu: float, size: float) -> None:
        self.phi = torch.zeros_like(p.ppm)
        self._p, self._tv, self._beta, self._mu, self._size = p, tv, beta, mu, size
        self._laplacian = laplacian(p.grid)
        mask = p.weight > 0
        inner = (faces(mask) * faces(mask.flip(0, 1, 2)).flip(0, 1, 2)).flatten()
        self._inner = inner.nonzero().flatten()  # neighbours on both sides in the mask
        self._s = torch.zeros_like(self.phi.flatten()[self._inner])
        self._l2 = -laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(p.ppm.device)
        self._mu_data = 1.0
        self._a = self._l2

    def prepare(self, p: Problem, mu_data: float, mu_support: float) -> None:
        self._mu_data = mu_data
        self._a = mu_support - self._tv.mu * self._l2

    def step(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        curl_free = self._laplacian(self.phi)
        flat = curl_free.view(-1)
        v = flat[self._inner] + self._s
        kept = self._mu / (self._mu + self._beta) * v
        self._s = v - kept
        flat[self._inner] = kept - self._s
        self.phi = self._laplacian(curl_free)  # the right-hand side for φ, until `solve`
        return self._tv.step(chi)

    def solve(self, k: Tensor, kt: Tensor) -> None:
        rest = self._p.spectrum(self.phi)
        for i in slabs(k):
            d, a, l2 = self._p.kernel[i], self._a[i], self._l2[i]
            m, h = self._mu_data, self._mu * l2.square() + self._size
            right = k[i] + m * d * kt[i]
            harmonic = m * kt[i] + self._mu * rest[i]
            det = a * (m + h) + m * d.square() * h
            det = torch.where(det == 0, torch.inf, det)  # the mean of χ, where no support fixes it
            k[i] = ((m + h) * right - m * d * harmonic) / det
            rest[i] = ((a + m * d.square()) * harmonic - m * d * right) / det
            kt[i] = d * k[i] + rest[i]
        self.phi = self._p.volume(rest)

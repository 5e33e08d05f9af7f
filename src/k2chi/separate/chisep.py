"""Both pools at once, from the field and from the decay, each smooth between its edges."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Field, Sources
from k2chi.invert.problem import problem
from k2chi.ops.finite import laplacian_symbol
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track
from k2chi.separate.decay import amount


@dataclass(frozen=True)
class ChiSeparation:
    """Fit two maps without negative values, of both kinds of source, to the field and to the decay together.

    min ½‖w(D(a−b) − f)‖² + β/2‖w(a+b − r)‖² + α‖∇a‖₁ + α‖∇b‖₁ over a, b ≥ 0, with a = χ₊, b = −χ₋ and
    r = R2′/D_r. Shin et al. 2021, NeuroImage 240:118371,
    doi:10.1016/j.neuroimage.2021.118371, with total variation in the place of their weighted gradients.
    R2′ = R2* − R2; without a map of R2 a nominal one is subtracted, and where the tissue's own differs both
    pools err by half the difference. D_r is 137 1/s/ppm at 3 T by measurement, not the 323 of theory. As
    |χ| ≤ r, the decay also pins the constant that the field leaves open. The field must be unwrapped. Three
    pairs of transforms an iteration.
    """

    alpha: float = 8e-5
    """Strength of total variation of either map [ppm mm]; larger: flatter between edges."""
    beta: float = 0.02
    """Weight of the decay against the field [no unit]: about the squared ratio of their noises in ppm."""
    decay_3t_per_s_ppm: float = 137.0
    """D_r, R2′ of one ppm at 3 T [1/s/ppm]; taken in proportion to B0."""
    r2_3t_per_s: float = 11.0
    """R2 at 3 T where none is given [1/s]; taken to grow with the root of B0."""
    iterations: int = 100
    """Upper limit."""
    tolerance: float = 1e-3
    """Stop once an update is this fraction of the maps; 0 runs all iterations."""
    edge_ppm_per_mm: float = 0.01
    """Gradient at which the split begins to shrink, α/μ₁ [ppm/mm]; only speed depends on it."""
    mu_data: float = 0.3
    """Weight μ₂ of the split of the field [no unit]; only speed depends on it."""
    mu_pools: float = 0.01
    """Weight μ₃ of the split of the pools [no unit]; only speed depends on it."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "decay_3t_per_s_ppm", "edge_ppm_per_mm", "mu_data", "mu_pools"):
            if getattr(self, name) <= 0:
                raise ValueError(f"ChiSeparation {name} {getattr(self, name)} must be positive")
        if self.iterations < 1 or self.r2_3t_per_s < 0 or self.tolerance < 0:
            raise ValueError("ChiSeparation needs an iteration or more, and R2 and tolerance not below zero")

    def __call__(
        self,
        local: Field,
        r2star_per_s: Float[Tensor, "x y z"],
        r2_per_s: Float[Tensor, "x y z"] | float | None = None,
    ) -> Sources:
        """Both pools from the local field, R2* and, if there is one, a map of R2 (0: it is R2′)."""
        total = amount(local, r2star_per_s, r2_per_s, self.decay_3t_per_s_ppm, self.r2_3t_per_s)
        p = problem(local, inside=True)
        d, w2, f = p.kernel, p.weight.square(), p.ppm
        known = p.box.take(local.mask & r2star_per_s.isfinite())
        r, wr = p.box.take(total), self.beta * known.to(f.dtype) * w2.clamp_min(0)
        mu1, mu2, mu3 = self.alpha / self.edge_ppm_per_mm, self.mu_data, self.mu_pools
        e2 = laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(d.device)
        over_v = 1 / (mu1 / 2 * e2 + mu3 / 2)
        over_u = 1 / (mu2 * d.square() + mu1 / 2 * e2 + mu3 / 2)
        threshold = torch.full_like(f, self.edge_ppm_per_mm)
        tv_a, tv_b = TVSplit(p.grid, threshold), TVSplit(p.grid, threshold)
        inside = p.support.to(f.dtype)

        # u = a − b and v = a + b, for in k-space they do not mix
        usual = w2[w2 > 0].mean().nan_to_num(1.0)
        u = p.volume(p.spectrum(w2 / usual * f) * d / (d.square() + 1e-2 * e2 + 1e-3)) * inside
        v = torch.maximum(r, u.abs())
        a, b = (v + u) / 2, (v - u) / 2
        pool_a, pool_b = a.clone(), b.clone()
        s_a, s_b, s2 = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
        z2 = (w2 * f + mu2 * p.d(u)) / (w2 + mu2)
        updates: list[float] = []
        misfits: list[float] = []
        for _ in track(self.iterations, "separation"):
            rhs_a = mu1 / 2 * tv_a.step(a) + mu3 / 2 * (pool_a - s_a)
            rhs_b = mu1 / 2 * tv_b.step(b) + mu3 / 2 * (pool_b - s_b)
            k = p.spectrum(rhs_a - rhs_b)
            k += p.spectrum(z2 - s2).mul_(mu2 * d)
            k *= over_u
            u_before, v_before, u = u, v, p.volume(k)
            v = p.volume(p.spectrum(rhs_a + rhs_b) * over_v)
            field = p.volume(k * d)
            misfits.append(p.misfit(field))
            change = ((u - u_before).norm() ** 2 + (v - v_before).norm() ** 2) ** 0.5
            updates.append(float(change / (u.norm() ** 2 + v.norm() ** 2).sqrt().clamp_min(1e-30)))
            a, b = (v + u) / 2, (v - u) / 2
            field += s2
            z2 = (w2 * f + mu2 * field) / (w2 + mu2)
            s2 = field - z2
            s_a += a
            s_b += b
            pool_a, pool_b = fit(s_a, s_b, r, wr, mu3, inside)
            s_a -= pool_a
            s_b -= pool_b
            if updates[-1] <= self.tolerance:
                break
        support = p.field.support if p.field.support is not None else p.field.mask
        para, dia = (p.box.put(x, local.grid.shape) * support for x in (pool_a, pool_b))
        converged = updates[-1] <= self.tolerance if self.tolerance > 0 else None
        return Sources(para, -dia, support, local.grid, tuple(updates), tuple(misfits), converged)


def fit(a: Tensor, b: Tensor, r: Tensor, weight: Tensor, mu: float, inside: Tensor) -> tuple[Tensor, Tensor]:
    """argmin over x, y ≥ 0 of w/2 (x + y − r)² + μ/2 (x − a)² + μ/2 (y − b)² in each voxel; 0 outside."""
    both = (2 * weight * r + mu * (a + b)) / (2 * weight + mu)
    x, y = (both + a - b) / 2, (both - a + b) / 2
    alone_x = ((weight * r + mu * a) / (weight + mu)).clamp_min(0)
    alone_y = ((weight * r + mu * b) / (weight + mu)).clamp_min(0)
    one = torch.where(y < 0, alone_x, torch.where(x < 0, 0.0, x))
    two = torch.where(x < 0, alone_y, torch.where(y < 0, 0.0, y))
    return one * inside, two * inside

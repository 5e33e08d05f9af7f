"""The alternating directions that all edge-preserving inversions share.

min over χ of G(Dχ) + α‖R∇χ‖₁ with χ zero outside the support. Each part gets a copy of what it looks at
(z₁ = ∇χ, z₂ = Dχ where there are data, z₄ = χ), which a pointwise formula updates, and χ is found from the
copies by one division in Fourier space. A method brings its data term as a `Prox`, and reads as the formula.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import pi, sqrt, tau
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Chi, Field
from k2chi.invert.problem import Problem, problem
from k2chi.ops.box import faces
from k2chi.ops.finite import gradient, laplacian_symbol
from k2chi.ops.shrink import TVSplit
from k2chi.progress import track

Prox = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(v, f, w, Dχ) ↦ argmin over z of g(z; f, w) + μ/2 (z − v)², for any number of voxels at once.

A g that is not convex is replaced by a convex one that touches it at Dχ and lies above it.
"""


def slabs(x: Tensor) -> Iterator[slice]:
    """Pieces of the first axis that stay in the processor's cache; on a GPU the whole at once."""
    count = x.shape[0]
    size = max(2**16 * count // x.numel(), 1) if x.device.type == "cpu" else count
    return (slice(a, a + size) for a in range(0, count, size))


@runtime_checkable
class Prior(Protocol):
    """What is known of χ, and how χ is found from the copies."""

    def prepare(self, p: Problem, mu_data: float, mu_support: float) -> None:
        """Learn the weights of the other splits."""

    def step(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Update copy and dual; return this part's right-hand side, which the caller may overwrite."""
        ...

    def solve(self, k: Float[Tensor, "x y h"], kt: Float[Tensor, "x y h"]) -> None:
        """Spectra of the right-hand side and of the field's copy become those of χ and its field."""


class TV:
    """Isotropic total variation α‖R∇χ‖₁."""

    def __init__(
        self, p: Problem, alpha: float, edge_ppm_per_mm: float, r: Tensor, free_border: bool
    ) -> None:
        """`r` is R in the box. `free_border`: the jump of χ to zero where the support ends costs nothing."""
        self.mu = alpha / edge_ppm_per_mm
        self._split = TVSplit(p.grid, edge_ppm_per_mm * (r * faces(p.support) if free_border else r))
        self._scaled = self._inverse = self._kernel = p.kernel

    def prepare(self, p: Problem, mu_data: float, mu_support: float) -> None:
        self._scaled = mu_data * p.kernel
        total = self._scaled * p.kernel + mu_support
        total += self.mu * laplacian_symbol(p.grid.shape, p.grid.voxel_mm).to(total.device)
        if total[0, 0, 0] == 0:  # nothing knows the mean of χ: make it zero
            total[0, 0, 0] = torch.inf
        self._inverse = total.reciprocal_()

    def step(self, chi: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        return self._split.step(chi).mul_(self.mu)

    def solve(self, k: Tensor, kt: Tensor) -> None:
        for i in slabs(k):
            k[i] += kt[i].mul_(self._scaled[i])
            k[i] *= self._inverse[i]
            torch.mul(k[i], self._kernel[i], out=kt[i])


class Splits:
    """χ, its field and the duals; `run` with one data term, then with another, goes on where it was."""

    def __init__(
        self,
        p: Problem,
        prior: Prior,
        mu_data: float,
        mu_support: float = 0.0,
        start: Float[Tensor, "x y z"] | None = None,
    ) -> None:
        """`mu_support` 0 leaves χ free outside the support; `start` is χ in the box (default: zero)."""
        self.p, self.prior = p, prior
        self.mu_support = mu_support
        prior.prepare(p, mu_data, mu_support)
        self.here = (p.weight.flatten() > 0).nonzero().flatten()
        self.f, self.w = p.ppm.flatten()[self.here], p.weight.flatten()[self.here]
        self.s = torch.zeros_like(self.f)
        self.chi = torch.zeros_like(p.ppm) if start is None else start
        self.field = torch.zeros_like(p.ppm) if start is None else p.d(start)
        self._s_support = torch.zeros_like(p.ppm) if mu_support else None
        self._size = float((self.w * self.f).norm().clamp_min(1e-30))
        self.updates: list[float] = []
        self.misfits: list[float] = []

    def residual(self) -> Float[Tensor, " n"]:
        """Dχ − f at the voxels with data, of which `here` is the place in the box."""
        return self.field.flatten()[self.here] - self.f

    def run(self, prox: Prox, iterations: int, tolerance: float = 0.0, what: str = "ADMM") -> None:
        """Iterate until χ changes by less than `tolerance` of itself."""
        p = self.p
        for _ in track(iterations, what):
            rhs = self.prior.step(self.chi)
            self._keep_support(rhs)
            self._fit(prox)
            k, kt = p.spectrum(rhs), p.spectrum(self.field)
            self.prior.solve(k, kt)
            new, self.field = p.volume(k), p.volume(kt)
            self.updates.append(self._change(new))
            self.chi = new
            self.misfits.append(float(self.residual().mul_(self.w).norm()) / self._size)
            if 0 < self.updates[-1] <= tolerance:  # at exactly zero the duals may still be on their way
                break

    def answer(self, tolerance: float) -> Chi:
        """χ in the scan's grid."""
        return self.p.answer(self.chi, self.updates, self.misfits, tolerance)

    def _fit(self, prox: Prox) -> None:
        """The copy of Dχ minus its dual, in place of Dχ; where there are no data it is Dχ itself."""
        field = self.field.view(-1)
        v = field[self.here]
        for i in slabs(v):
            vi = v[i] + self.s[i]
            z = prox(vi, self.f[i], self.w[i], v[i])
            self.s[i] = vi - z
            v[i] = z - self.s[i]
        field[self.here] = v

    def _keep_support(self, rhs: Tensor) -> None:
        """Add the support's part. Its copy is χ inside and 0 outside, so the dual lives outside only."""
        s, inside = self._s_support, self.p.support
        if s is None:
            return
        for i in slabs(s):
            s[i] += self.chi[i]
            s[i].masked_fill_(inside[i], 0)
            rhs[i] += self.mu_support * torch.where(inside[i], self.chi[i], -s[i])

    def _change(self, new: Tensor) -> float:
        moved = size = 0.0
        for i in slabs(new):
            moved += float((new[i] - self.chi[i]).square_().sum())
            size += float(new[i].square().sum())
        return sqrt(moved / max(size, 1e-60))


def begin(
    local: Field,
    alpha: float,
    edge_ppm_per_mm: float,
    mu_data: float,
    mu_support: float,
    weigh_edges: bool = False,
    start: Float[Tensor, "x y z"] | None = None,
) -> Splits:
    """Total variation and, where `mu_support` is not 0, the support, on the box around `local`."""
    p = problem(local, inside=bool(mu_support))
    r = edges(p) if weigh_edges else torch.ones_like(p.ppm)
    tv = TV(p, alpha, edge_ppm_per_mm, r, free_border=mu_support > 0)
    return Splits(p, tv, mu_data, mu_support, start)


def refuse(method: object, positive: Sequence[str], at_least: Mapping[str, float]) -> None:
    """Raise a ValueError for the first of a method's settings that cannot be."""
    name = type(method).__name__
    for setting in positive:
        if not getattr(method, setting) > 0:
            raise ValueError(f"{name} {setting} {getattr(method, setting)} must be positive")
    for setting, least in at_least.items():
        if not getattr(method, setting) >= least:
            raise ValueError(f"{name} {setting} {getattr(method, setting)} must be at least {least:g}")


def edges(p: Problem, floor: float = 0.5) -> Float[Tensor, "x y z"]:
    """R = mean G / max(G, floor · mean G), G being the length of the magnitude's gradient."""
    if p.field.magnitude is None:
        raise ValueError("weights from edges need a magnitude: give the field one, or leave edges off")
    magnitude = p.box.take(torch.where(p.field.mask, p.field.magnitude, torch.zeros((), device=p.ppm.device)))
    g = gradient(p.grid)(magnitude).square().sum(0).sqrt_()
    mean = g[faces(p.box.take(p.field.mask)) > 0].mean()
    return mean / g.clamp_min(floor * mean)


# ---- data terms


def quadratic(mu: float) -> Prox:
    """½w²(z − f)²."""

    def prox(v: Tensor, f: Tensor, w: Tensor, now: Tensor) -> Tensor:
        w2 = w.square()
        return v + w2 / (w2 + mu) * (f - v)

    return prox


def wave(mu: float, rad_per_ppm: float) -> Prox:
    """½|w(exp isz − exp isf)|²/s² = w²(1 − cos r)/s² with r = s(z − f).

    Below the parabola with curvature sin(r)/r about the nearest whole turn, which never bends down; a
    Newton step would, beyond a quarter turn, and goes astray there.
    """

    def prox(v: Tensor, f: Tensor, w: Tensor, now: Tensor) -> Tensor:
        turns, r = nearest(now, f, rad_per_ppm)
        w2 = w.square() * torch.sinc(r / pi)
        return v + w2 / (w2 + mu) * (f + turns - v)

    return prox


def absolute(mu: float) -> Prox:
    """w|z − f|."""

    def prox(v: Tensor, f: Tensor, w: Tensor, now: Tensor) -> Tensor:
        limit = w / mu
        return v - torch.maximum(torch.minimum(v - f, limit), -limit)

    return prox


def chord(mu: float, rad_per_ppm: float) -> Prox:
    """w|exp isz − exp isf|/s = 2w|sin(r/2)|/s with r = s(z − f).

    Below the tangent in |r| about the nearest whole turn: |z − f| with the weight w cos(r/2).
    """

    def prox(v: Tensor, f: Tensor, w: Tensor, now: Tensor) -> Tensor:
        turns, r = nearest(now, f, rad_per_ppm)
        limit = w * torch.cos(r / 2) / mu
        return v - torch.maximum(torch.minimum(v - f - turns, limit), -limit)

    return prox


def nearest(now: Tensor, f: Tensor, rad_per_ppm: float) -> tuple[Tensor, Tensor]:
    """Whole turns between the field of χ and the data [ppm], and what is left [rad]."""
    r = rad_per_ppm * (now - f)
    turns = torch.round(r / tau) * tau
    return turns / rad_per_ppm, r - turns

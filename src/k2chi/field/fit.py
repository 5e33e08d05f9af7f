"""One field map from all echoes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import tau
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi import units
from k2chi.data import Echoes, Field
from k2chi.field.noise import noise_std
from k2chi.field.romeo import ROMEO, unwrap_in_space
from k2chi.ops.smooth import gaussian
from k2chi.progress import track

Weights = Literal["power", "magnitude", "time", "even"]
"""How echoes are weighted against each other."""


@dataclass(frozen=True)
class WeightedFit:
    """Fit a line through the unwrapped phase of each voxel, weighted by its signal power.

    Through the origin (offset removed): ω = Σ|Sₙ|²TEₙφₙ / Σ|Sₙ|²TEₙ², with noise σ/√(Σ|Sₙ|²TEₙ²), which is
    the least any fit can have; signal decay is in |Sₙ|. With an intercept the same about the weighted mean
    echo time. σ is the noise of the complex image, from differences of neighbouring voxels (`noise_std`).
    Other `weights` are for comparison with other programs: they are noisier, by as much as `noise_ppm` tells.

    Robinson et al. 2017, NMR Biomed 30:e3601, doi:10.1002/nbm.3601, for why these weights.
    Needs unwrapped phase. One echo gives φ/TE. Voxels of the mask without signal in any echo get weight 0
    and the smoothed field around them, so that the mask has no holes. Two seconds at 164×205×205, 4 echoes.
    """

    intercept: bool = False
    """Fit the phase at TE = 0 too, for offsets that were kept: noisier; needs two echoes unwrapped each in
    space (`ROMEO(mode="individual")`)."""
    misfit_rad: float = 0.5
    """Weighted rms distance of the echoes from the line [rad] at which a voxel's weight is halved."""
    weights: Weights = "power"
    """Weights of φ/TE: `power` |S|²TE², the least noisy, `magnitude` |S|·TE, `time` TE, or `even`."""

    def __post_init__(self) -> None:
        _check_misfit("WeightedFit", self.misfit_rad)

    def __call__(self, echoes: Echoes) -> Field:
        """Total field inside the mask, or inside all voxels with signal."""
        if echoes.unwrapped_rad is None:
            raise ValueError("WeightedFit needs unwrapped phase: unwrap first, or use ComplexFit")
        power, valid = _power(echoes)
        line = _line(
            echoes.unwrapped_rad,
            self._trust(power, echoes.scan.te_s),
            power,
            echoes.scan.te_s,
            self.intercept,
        )
        return _field(echoes, valid, power, line, self.misfit_rad)

    def _trust(
        self, power: Float[Tensor, "echo x y z"], te_s: tuple[float, ...]
    ) -> Float[Tensor, "echo x y z"]:
        """Weight of each echo's phase: that of φ/TE, over TE²; zero where there is no signal."""
        if self.weights == "power":
            return power
        te = torch.tensor(te_s, dtype=power.dtype, device=power.device)[:, None, None, None]
        own = power.sqrt() if self.weights == "magnitude" else (power > 0).to(power.dtype)
        return own / te.square() if self.weights == "even" else own / te


@dataclass(frozen=True)
class ComplexFit:
    """Fit frequency (and phase at TE = 0) to the complex signal, so that wraps in time do no harm.

    min over ω, φ₀ of Σ|Sₙ|² (1 − cos(arg Sₙ − φ₀ − ωTEₙ)), which is the least-squares fit of
    |Sₙ| exp i(φ₀ + ωTEₙ) to the signal, by Newton steps with the curvature of a perfect fit.

    Liu et al. 2013, Magn Reson Med 69:467, doi:10.1002/mrm.24272.
    Starts from the line through the unwrapped phase (found by ROMEO if there is none). With an intercept and
    no unwrapped phase it starts from the phase gained between the two closest echoes, unwrapped in space.
    Equals `WeightedFit` where the signal is strong; echoes that noise or flow has turned by more than a
    quarter pull less. About 1 s an iteration at 164×205×205 with 4 echoes on one core.
    """

    intercept: bool = False
    """Fit the phase at TE = 0 too, for offsets that were kept: noisier; needs two echoes."""
    iterations: int = 5
    """Newton steps, 1 to 50; each about cubes the error."""
    misfit_rad: float = 0.5
    """Weighted rms distance of the echoes from the line [rad] at which a voxel's weight is halved."""

    def __post_init__(self) -> None:
        _check_misfit("ComplexFit", self.misfit_rad)
        if not 1 <= self.iterations <= 50:
            raise ValueError(f"ComplexFit iterations {self.iterations}: choose 1 to 50")

    def __call__(self, echoes: Echoes) -> Field:
        """Total field inside the mask, or inside all voxels with signal."""
        te = echoes.scan.te_s
        power, valid = _power(echoes)
        phase = echoes.signal.angle().nan_to_num()
        if self.intercept and echoes.unwrapped_rad is None and len(te) > 1:
            gap, k = min((b - a, i) for i, (a, b) in enumerate(pairwise(te)))
            strength = (power[k] * power[k + 1]) ** 0.25
            gain = unwrap_in_space(_wrap(phase[k + 1] - phase[k]), strength, echoes.mask)
            omega, start = gain / gap, _wrap(phase[k] - gain * (te[k] / gap))
        else:
            unwrapped = echoes.unwrapped_rad
            if unwrapped is None:
                unwrapped = ROMEO()(echoes).unwrapped_rad
                assert unwrapped is not None
            omega, start, _ = _line(unwrapped, power, power, te, self.intercept)
        for _ in track(self.iterations, "complex fit"):
            away = [torch.sin(p - start - omega * t) for p, t in zip(phase, te, strict=True)]
            d_omega, d_start, information = _line(away, power, power, te, self.intercept)
            omega, start = omega + d_omega, start + d_start
        return _field(echoes, valid, power, (omega, start, information), self.misfit_rad)


Line = tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"], Float[Tensor, "x y z"]]
"""Slope [rad/s], phase at TE = 0 [rad], and the information on the slope at unit noise [s²·signal²]."""


def _check_misfit(who: str, misfit_rad: float) -> None:
    if misfit_rad <= 0:
        raise ValueError(f"{who} misfit_rad {misfit_rad}: choose a positive distance in rad")


def _wrap(x: Tensor) -> Tensor:
    return x - tau * torch.round(x / tau)


def _power(echoes: Echoes) -> tuple[Float[Tensor, "echo x y z"], Bool[Tensor, "x y z"]]:
    """|S|² with 0 for what is not finite, and where every echo has some."""
    power = echoes.signal.real.square() + echoes.signal.imag.square()
    power = torch.where(power.isfinite(), power, torch.zeros_like(power))
    return power, (power > 0).all(0)


def _line(
    phase: Sequence[Tensor] | Tensor,
    trust: Float[Tensor, "echo x y z"],
    power: Float[Tensor, "echo x y z"],
    te_s: tuple[float, ...],
    intercept: bool,
) -> Line:
    """Line by least squares, weighted by `trust`, through one value for each echo; and what is known of it.

    The last is one over the slope's variance, for noise of one: the weighted sum of squared times where trust
    is power, and less where it is not.
    """
    if intercept and len(te_s) < 2:
        raise ValueError("a line with an intercept needs two echoes: set intercept = false for one")
    tiny = torch.finfo(power.dtype).tiny
    lever, along = torch.zeros_like(power[0]), torch.zeros_like(power[0])
    total = trust.sum(0).clamp_min(tiny)
    middle = torch.zeros_like(total)
    mean = torch.zeros_like(total)
    if intercept:
        for w, p, t in zip(trust, phase, te_s, strict=True):
            middle += w * t / total
            mean += w * p / total
    for w, p, t in zip(trust, phase, te_s, strict=True):
        lever += w * (t - middle).square()
        along += w * (t - middle) * (p - mean)
    slope = torch.where(lever > 0, along / lever.clamp_min(tiny), torch.zeros_like(along))
    information = lever
    if trust is not power:
        spread = torch.zeros_like(lever)
        for w, s, t in zip(trust, power, te_s, strict=True):
            spread += (w * (t - middle)).square() / s.clamp_min(tiny)
        information = torch.where(
            spread > 0, lever.square() / spread.clamp_min(tiny), torch.zeros_like(lever)
        )
    return slope, mean - slope * middle, information


def _field(
    echoes: Echoes,
    valid: Bool[Tensor, "x y z"],
    power: Float[Tensor, "echo x y z"],
    line: Line,
    misfit_rad: float,
) -> Field:
    """The line's slope in ppm, with noise from its information and weight from noise and misfit."""
    omega, start, information = line
    scan, mask = echoes.scan, valid if echoes.mask is None else echoes.mask
    known = mask & valid
    if not known.any():
        raise ValueError("no voxel of the mask has signal in every echo: check mask and magnitude")
    misfit = torch.zeros_like(omega)
    for s, w, t in zip(echoes.signal, power, scan.te_s, strict=True):
        misfit += w * _wrap(s.angle() - start - omega * t).nan_to_num().square()
    misfit /= power.sum(0).clamp_min(torch.finfo(power.dtype).tiny)
    rad_per_ppm = tau * units.hz_per_ppm(scan.b0_tesla)
    root = information.sqrt()
    best = root[known]
    weight = (root / best.kthvalue(max(1, round(0.99 * len(best)))).values).clamp_max(1)
    weight = weight / (1 + misfit / misfit_rad**2) * known
    noise = torch.where(known, noise_std(echoes.signal) / rad_per_ppm / root, torch.zeros_like(root))
    ppm = omega / rad_per_ppm * known
    holes = mask & ~valid
    if holes.any():
        noise = torch.where(holes, noise.max(), noise)
        seen = ppm * weight
        for voxels in (1, 2, 4, 8, 16, 32):  # from as near as there is something to see
            near = voxels * max(echoes.grid.voxel_mm)
            share = gaussian(weight, near, echoes.grid.voxel_mm)
            around = gaussian(seen, near, echoes.grid.voxel_mm) / share.clamp_min(1e-6)
            ppm = torch.where(holes & (share > 0.02), around, ppm)
            holes = holes & (share <= 0.02)
            if not holes.any():
                break
    magnitude = power.sum(0).sqrt()
    return Field(ppm, mask, echoes.grid, scan, weight, noise, magnitude=magnitude)

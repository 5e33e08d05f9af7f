"""The phase of each shot of a segmented scan: B0 drifts and breathing between excitations taken off."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex, Float
from scipy.optimize import minimize
from torch import Tensor

from k2chi.data import Lines
from k2chi.recon.readouts import Phase, Readouts, group
from k2chi.recon.shotrank import FittedShots

SURE = 0.005
"""Share by which a drift has to lower the entropy to be believed: less is noise, or a shift of the image."""


@dataclass(frozen=True)
class NavigatedShots:
    """One phase for each shot, from its navigators against the mean navigator of all.

    φ_s = ∠Σ conj(mean) n_s over coils, samples and navigators; the mean is made again with the phases taken
    off. The phases of all shots average to zero, so the image keeps its own.
    Hu & Kim 1994, MRM 31:495, doi:10.1002/mrm.1910310505 (navigators against breathing).
    A navigator comes early after the excitation: where a shift of the field is the cause, the phase at the
    echo time is larger than the navigator's, and `model` knows of it. Costs one pass over the navigators.
    """

    model: Literal["field", "constant"] = "field"
    """"field": phase grows in proportion to the time since the excitation, as drift and breathing make it;
    needs the time of each readout. "constant": all readouts of a shot carry its navigator's phase."""

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None without navigators or with one shot only."""
        navigators = readouts.navigators()
        if navigators is None:
            return None
        groups = group(navigators, "shot")
        if len(groups) < 2:
            return None
        least = min(len(index) for index in groups.values())
        of_slice: dict[int, list[tuple[int, ...]]] = {}
        for key, index in groups.items():
            kz = int(navigators.kz[index[0]]) if readouts.raw.encoding.slices else 0
            of_slice.setdefault(kz, []).append(key)
        found: dict[tuple[int, ...], float] = {}
        for keys in of_slice.values():
            rows = torch.stack([groups[key][:least] for key in keys])
            found |= dict(zip(keys, relative(navigators.data[rows]).tolist(), strict=True))
        if self.model == "field":
            taken, after = self._times(readouts, navigators)
            if taken and 1e-4 < after < readouts.raw.scan.te_s[readouts.echo]:
                return _growing(found, taken, after)
            warnings.warn(
                "times of readouts are missing or too coarse to tell when navigators were taken: the phase "
                "of a shot is held constant after them, and a drift of the field is corrected in part only",
                stacklevel=2,
            )
        return _of_shots(found)

    def _times(self, readouts: Readouts, navigators: Lines) -> tuple[dict[tuple[int, ...], float], float]:
        """When the navigators of each shot were taken, and how long after the excitation that is: what the
        echo time leaves before the readout of the centre of k-space. Nothing and 0 without times."""
        if navigators.time_s is None:
            return {}, 0.0
        times, groups = navigators.time_s, group(navigators, "shot")
        taken = {key: float(times[index].mean()) for key, index in groups.items()}
        centre, waits = readouts.raw.encoding.centre[1], []
        for block in readouts.raw.lines(readouts.echo):
            if block.time_s is None:
                return {}, 0.0
            for key, index in group(block, "shot").items():
                middle = index[block.ky[index] == centre]
                if len(middle) and key in taken:
                    waits.append(float(block.time_s[middle].mean()) - taken[key])
            if waits:
                break
        te = readouts.raw.scan.te_s[readouts.echo]
        return taken, te - sum(waits) / len(waits) if waits else 0.0


@dataclass(frozen=True)
class SteadyDrift:
    """Phase that drifts steadily over the scan, found in the centre of k-space itself.

    A polynomial of time, one phase for each shot, whose coefficients leave the least entropy in the image of
    the central `points` of either phase encoding.
    Atkinson et al. 1997, IEEE TMI 16:903, doi:10.1109/42.650886 (entropy, there against motion).
    Needs no navigators. Sees what makes ghosts, that is shots that interleave while the drift goes on; where
    k-space is filled in one sweep a drift only shifts the image a little. A drift that does not lower the
    entropy by `SURE` of itself is left alone. About 100 small transforms.
    """

    order: int = 1
    """Order of the polynomial, 1 to 3."""
    points: int = 48
    """Points about the centre that are looked at, along each phase encoding."""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3 or self.points < 8:
            raise ValueError(
                f"SteadyDrift order {self.order} with {self.points} points: choose order 1 to 3, "
                "points 8 or more"
            )

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None with one shot only."""
        lines = readouts.central(self.points)
        if len(group(lines, "shot")) < 2:
            return None
        when = _clock(lines)
        span = float(when.max() - when.min()), float(when.min())
        basis = _basis(when, span, self.order)
        y, z = (lines.ky - lines.ky.min(), lines.kz - lines.kz.min())
        shape = (int(y.max()) + 1, int(z.max()) + 1)
        place, slices = (y * shape[1] + z).to(lines.data.device), readouts.raw.encoding.slices
        rows = lines.data.permute(1, 2, 0)

        def entropy(c: Iterable[float]) -> float:
            turn = torch.exp(-1j * (basis @ torch.tensor([float(v) for v in c], dtype=torch.float64)))
            k = rows.new_zeros(*rows.shape[:2], shape[0] * shape[1])
            k = k.index_add_(2, place, rows * turn.to(rows)).reshape(*rows.shape[:2], *shape)
            a = torch.fft.fftn(k, dim=(2,) if slices else (2, 3)).abs()
            a = a / a.norm()
            return -float(torch.special.xlogy(a, a).sum())

        best = min(([v] + [0.0] * (self.order - 1) for v in torch.linspace(-3, 3, 25).tolist()), key=entropy)
        simplex = [best, *([c + 0.15 * (i == j) for i, c in enumerate(best)] for j in range(self.order))]
        options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9, "maxiter": 80 * self.order}
        least = minimize(entropy, best, method="Nelder-Mead", options=options)
        if entropy([0.0] * self.order) < (1 + SURE) * least.fun:
            return None
        found = torch.from_numpy(least.x).double()

        def phase(some: Lines) -> tuple[Float[Tensor, "line"], Float[Tensor, "line"]]:
            offset = _basis(_clock(some), span, self.order) @ found
            return offset, torch.zeros_like(offset)

        return phase


ShotCorrection = NavigatedShots | FittedShots | SteadyDrift


def relative(n: Complex[Tensor, "shot line coil x"]) -> Float[Tensor, "shot"]:
    """Phase of each shot against the mean of all [rad], their own mean taken off."""
    mean = n[0]
    for _ in range(3):
        inner = torch.einsum("lcx,slcx->s", mean.conj(), n)
        phase = torch.angle(inner)
        mean = (n * torch.exp(-1j * phase)[:, None, None, None]).mean(0)
    turn = torch.exp(1j * phase.double())
    return torch.angle(turn * turn.mean().conj()).cpu()


def _of_shots(found: dict[tuple[int, ...], float]) -> Phase:
    def phase(lines: Lines) -> tuple[Float[Tensor, "line"], Float[Tensor, "line"]]:
        offset = torch.zeros(len(lines.ky), dtype=torch.float64)
        for key, index in group(lines, "shot").items():
            offset[index] = found.get(key, 0.0)
        return offset, torch.zeros_like(offset)

    return phase


def _growing(found: dict[tuple[int, ...], float], taken: dict[tuple[int, ...], float], after: float) -> Phase:
    """Phases in proportion to the time since the excitation, `after` which the navigators were `taken`."""

    def phase(lines: Lines) -> tuple[Float[Tensor, "line"], Float[Tensor, "line"]]:
        offset = torch.zeros(len(lines.ky), dtype=torch.float64)
        assert lines.time_s is not None  # its navigators have times
        for key, index in group(lines, "shot").items():
            since = lines.time_s[index].double() - taken.get(key, 0.0) + after
            offset[index] = found.get(key, 0.0) * since / after
        return offset, torch.zeros_like(offset)

    return phase


def _clock(lines: Lines) -> Float[Tensor, "line"]:
    """When each readout was taken; where that is not known, the number of its shot, averages one by one."""
    if lines.time_s is not None:
        return lines.time_s.double()
    return (lines.average * 10**6 + lines.shot).double()


def _basis(when: Tensor, span: tuple[float, float], order: int) -> Float[Tensor, "line order"]:
    """Powers of time from −1 to 1 over the scan, each about zero on the whole."""
    length, start = span
    t = 2 * (when - start) / max(length, 1e-12) - 1
    powers = [t, t**2 - 1 / 3, t**3 - 0.6 * t][:order]
    return torch.stack(powers, 1)

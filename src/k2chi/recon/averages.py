"""Averages brought to one phase before they are added as complex numbers."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Lines
from k2chi.recon.epi import effective_spacing_s
from k2chi.recon.ghost import offset_and_slope
from k2chi.recon.readouts import Phase, Readouts


@dataclass(frozen=True)
class AlignedAverages:
    """Take off the phase by which averages differ, found in the low-resolution images of each.

    d_a(x) = Σ conj(first) average_a over coils and the centre of k-space, which is the sum over voxels of the
    low-resolution images; offset and slope along the readout from it. The offset comes from a drift of the
    field, so along an EPI train it grows as t/TE. The offsets of all averages have mean zero.
    El-Sharkawy et al. 2006, MAGMA 19:223, doi:10.1007/s10334-006-0051-6 (how far and how steadily B0 drifts).
    Averages may have opposite readout polarities. Magnitudes are never averaged: their noise has a mean, and
    their phase is gone. One more pass over the data.
    """

    points: int = 24
    """Points about the centre of k-space that are compared, along each phase encoding."""
    steady: bool = True
    """The field drifts on within an average at the rate between averages; False: each has one offset."""

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(
                f"AlignedAverages points {self.points} leave nothing to compare: choose 1 or more"
            )

    def __call__(self, readouts: Readouts) -> Phase | None:
        """The phase error of each readout; None with one average."""
        lines = readouts.central(self.points)
        numbers = sorted(set(lines.average.tolist()))
        if len(numbers) < 2:
            return None
        offset, slope, time_s = self._compared(readouts, lines, numbers)
        e, te = readouts.raw.encoding, readouts.raw.scan.te_s[readouts.echo]
        step, centre = effective_spacing_s(e) / te, e.centre[1]

        def phase(some: Lines) -> tuple[Float[Tensor, "line"], Float[Tensor, "line"]]:
            which = torch.searchsorted(torch.tensor(numbers), some.average.cpu())
            which = which.clamp(max=len(numbers) - 1)
            if self.steady and time_s is not None and some.time_s is not None:
                here = _between(some.time_s.double().cpu(), time_s, offset)
            else:
                here = offset[which]
            return here * (1 + (some.ky.cpu() - centre) * step), slope[which]

        return phase

    @staticmethod
    def _compared(
        readouts: Readouts, lines: Lines, numbers: list[int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Offset [rad] and slope [rad/voxel] of each average, and when its centre was taken [s]."""
        place = lines.ky * readouts.raw.encoding.matrix[2] + lines.kz
        parts = [lines.average == number for number in numbers]
        common = set(place[parts[0]].tolist()).intersection(*(place[p].tolist() for p in parts[1:]))
        if not common:
            raise ValueError(
                "averages have no readout at the centre of k-space in common: their phases cannot be "
                "compared; assemble with averages = none"
            )
        at = torch.tensor(sorted(common))
        sums = []
        for part in parts:
            rows = torch.searchsorted(at, place[part].cpu()).clamp(max=len(at) - 1)
            inside = at[rows] == place[part].cpu()
            out = lines.data.new_zeros(len(at), *lines.data.shape[1:])
            sums.append(out.index_add_(0, rows[inside].to(out.device), lines.data[part][inside]))
        found = [
            offset_and_slope((sums[0].conj() * s).sum((0, 1)).to(torch.complex128).cpu(), readouts.middle)
            for s in sums
        ]
        values = torch.tensor(found, dtype=torch.float64)
        offset = torch.from_numpy(np.unwrap(values[:, 0].numpy()))
        slope = values[:, 1] - values[:, 1].mean()
        times = None
        if lines.time_s is not None:
            t = [lines.time_s[part].double().cpu() for part in parts]
            if all(a.max() < b.min() for a, b in pairwise(t)):  # one after the other, not line by line
                times = torch.stack([v.mean() for v in t])
        return offset - offset.mean(), slope, times


def _between(t: Tensor, at: Tensor, values: Tensor) -> Float[Tensor, "line"]:
    """Values at times `at` joined by straight lines, which go on beyond the first and the last."""
    left = (torch.searchsorted(at, t) - 1).clamp(0, len(at) - 2)
    share = (t - at[left]) / (at[left + 1] - at[left])
    return values[left] + share * (values[left + 1] - values[left])

"""From magnetisation and coils to lines of k-space, each at the moment when it is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt, tau

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi import units
from k2chi.data import Size
from k2chi.phantom.coilarray import Sensitivities
from k2chi.phantom.scanner import GRE, Exposure
from k2chi.phantom.trains import Plan
from k2chi.progress import track

ROOM = 2**25
"""Complex numbers worked on at once."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """The sums over space that make a line: planes at right angles to the readout, one after another.

    Along the first phase encoding, the magnetisation at each moment times that column's phases makes one
    matrix for each pair of x and z, by which all coils are multiplied at once: a moment of its own for each
    column costs no more than a transform.
    """

    strength: Float[Tensor, "x y z"]
    """Magnetisation right after a pulse, on the fine grid."""
    r2star_per_s: Float[Tensor, "x y z"]
    rad_per_s: Float[Tensor, "x y z"]
    """Frequency of the protons, chemical shift included."""
    offset_rad: Float[Tensor, "x y z"]
    """Phase right after a pulse."""
    maps: Sensitivities
    matrix: Size
    """Encoded points."""

    @staticmethod
    def of(gre: GRE, at: Exposure, maps: Sensitivities, matrix: Size) -> "Encoder":
        """An exposed head, excited as `gre` does."""
        rate = tau * units.hz_per_ppm(gre.b0_tesla)
        frequency = rate * (at.total_ppm + at.head.shift_ppm)
        return Encoder(gre.strength(at.head), at.head.r2star_per_s, frequency, at.offset_rad, maps, matrix)

    @property
    def fine(self) -> Size:
        """Voxels of the simulation."""
        x, y, z = self.strength.shape
        return x, y, z

    def __call__(self, order: Plan) -> Complex[Tensor, "line coil x"]:
        """Every line of the plan, encoded along the two phase encodings, still an image along the readout."""
        ny, nz = self.matrix[1:]
        key = torch.stack([order.ky.double(), order.delay_s], 1)
        columns, at = torch.unique(key, dim=0, return_inverse=True)
        ky, times = columns[:, 0].long(), columns[:, 1]
        moments = [(float(t), (times == t).nonzero()[:, 0]) for t in torch.unique(times)]
        fy = _dft(self.fine[1], ny, ky)  # y column
        kz, at_z = torch.unique(order.kz, return_inverse=True)
        fz = _dft(self.fine[2], nz, kz)  # z kz
        coils = self.maps.coarse.shape[0]
        width = max(1, ROOM // (self.fine[1] * self.fine[2] * (coils + len(ky))))
        out = torch.empty(len(order), coils, self.fine[0], dtype=torch.complex64)
        for n in track(-(-self.fine[0] // width), "scanning"):
            x = slice(n * width, min((n + 1) * width, self.fine[0]))
            s = self.maps.planes(x).permute(1, 3, 0, 2)  # x z coil y
            encoded = self._encoded(s, x, moments, fy)
            volume = torch.tensordot(encoded, fz, dims=([1], [0]))  # x coil column kz
            out[:, :, x] = volume[:, :, at, at_z].permute(2, 1, 0)
        return out

    def _encoded(
        self,
        s: Complex[Tensor, "x z coil y"],
        x: slice,
        moments: list[tuple[float, Tensor]],
        fy: Complex[Tensor, "y column"],
    ) -> Complex[Tensor, "x z coil column"]:
        """Sum over the first phase encoding, each column at its own moment."""
        if len(moments) == 1:
            return (s * self.magnetisation(x, moments[0][0]).transpose(1, 2)[:, :, None]) @ fy
        evolved = s.new_empty(s.shape[0], s.shape[1], fy.shape[1], s.shape[3])
        for (_, columns), m in zip(moments, self._evolution(x, [t for t, _ in moments]), strict=True):
            evolved[:, :, columns] = m.transpose(1, 2)[:, :, None] * fy[:, columns].T
        return s @ evolved.transpose(2, 3)

    def _evolution(self, x: slice, times: list[float]) -> Iterator[Complex[Tensor, "x y z"]]:
        """The signal at rising times; a step as long as the one before is a product, not an exponential."""
        m, before, step, factor = self.magnetisation(x, times[0]), times[0], -1.0, None
        yield m
        for t in times[1:]:
            if factor is None or abs(t - before - step) > 5e-9:
                step = t - before
                decay = torch.exp(-step * self.r2star_per_s[x])
                factor = torch.polar(decay, step * self.rad_per_s[x])
            m, before = m * factor, t
            yield m

    def magnetisation(self, x: slice, t: float) -> Complex[Tensor, "x y z"]:
        """The signal of some planes at the time t after a pulse."""
        strength = self.strength[x] * torch.exp(-t * self.r2star_per_s[x])
        return torch.polar(strength, t * self.rad_per_s[x] + self.offset_rad[x])

    def readout(self, ramp: float) -> Complex[Tensor, "x sample"]:
        """From the image along x to the samples of a readout, twice as many as points."""
        nx, fine = self.matrix[0], self.fine[0]
        k = ramp_positions(2 * nx, ramp) / 2  # in steps of 1/(field of view)
        e = torch.exp(-1j * tau * self.along()[:, None] * k) * (nx / fine / sqrt(2 * nx))
        out: Tensor = e.to(torch.complex64)
        return out

    def along(self) -> Float[Tensor, "x"]:
        """Places along the readout, from −0.5 to 0.5."""
        return (torch.arange(self.fine[0], dtype=torch.float64) - self.fine[0] // 2) / self.fine[0]


def _dft(fine: int, points: int, k: Tensor) -> Complex[Tensor, "fine k"]:
    """Sums over a fine axis that give the orthonormal transform on a grid of `points`, zero frequency in
    the middle."""
    x = (torch.arange(fine, dtype=torch.float64) - fine // 2) / fine
    e = torch.exp(-1j * tau * x[:, None] * (k - points // 2))
    out: Tensor = (e * (sqrt(points) / fine)).to(torch.complex64)
    return out


def ramp_positions(samples: int, share: float) -> Float[Tensor, "sample"]:
    """Place of each sample of a trapezoidal readout, in steps of 1/(field of view of the samples)."""
    if not share:
        return torch.arange(samples, dtype=torch.float64) - samples // 2
    t = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5
    on_ramp = (t.abs() - (0.5 - share)).clamp(min=0)
    return torch.sign(t) * (t.abs() - on_ramp.square() / (2 * share)) / (1 - share) * samples

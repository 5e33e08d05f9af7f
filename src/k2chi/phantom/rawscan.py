"""Raw data of a digital head: what every coil of a scanner would have recorded, readout by readout.

from k2chi.phantom.rawscan import RawScan, quick_raw

scan = quick_raw()                          # small: seconds
scan = RawScan(PROTOCOLS["epi-2"])(DigitalHead(seed=1))
scan.raw, scan.truth                        # Raw, read echo by echo; Truth, as of the image simulator
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import sqrt, tau

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from k2chi.data import Encoding, Lines, Raw, Scan
from k2chi.phantom.coilarray import CoilArray, Sensitivities
from k2chi.phantom.encoder import Encoder, ramp_positions
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.protocols import QUICK, Protocol
from k2chi.phantom.scanner import GRE, Exposure, Person, Truth
from k2chi.phantom.trains import Plan, navigators, plan
from k2chi.recon.sampling import CAIPI, Regular

BLOCK = 2**24
"""Samples that are handed over at once."""
NOISE_SAMPLES = 8192


@dataclass(frozen=True, eq=False)
class RawSimulation:
    """A scan's raw data and its truth."""

    raw: Raw
    truth: Truth
    maps: Sensitivities
    """Coil sensitivities on the fine grid of the simulation."""


@dataclass(frozen=True)
class RawScan:
    """Scan a digital head with many coils: raw data with the faults of a real scanner.

    Each readout is the transform of the magnetisation at the moment of that readout,

        y_c(k, t) = Σ_r S_c(r) M(r) exp(−t R2*) exp i(2π f t + φ₀) exp(−2πi k·r) + n_c,

    on a grid finer than the voxels, so that partial volume, dephasing in the voxel, ringing, the blur of T2*
    decay and the distortion by B0 along a train of readouts follow by themselves. What happens during one
    readout is left out. Reversed readouts carry the ghost's phase, opposite to forward ones. Breathing and
    drift shift the frequency of the whole head between pulses. Noise is that of `CoilArray`. An echo is
    worked out when its readouts are asked for.
    """

    protocol: Protocol = QUICK
    """What the scanner does."""
    coils: CoilArray = field(default_factory=lambda: CoilArray(8))
    """The receive array; its field strength is that of the protocol."""
    snr: float = 40.0
    """Signal over noise (of each of real and imaginary part) in the brain's mean at the first echo, for coils
    combined at their best, everything read once; 0 adds no noise."""
    fine_mm: float = 0.7
    """Voxel of the simulation [mm], not above the acquired one; 0 simulates on the acquired grid itself."""
    shim_order: int = 2
    """Order of the solid harmonics that shimming removes in the brain: 0 (mean only), 1 or 2."""
    offset_rad: float = 3.1416
    """Span of the radio pulse's parabolic phase over the volume [rad]."""
    ghost_rad: float = 0.3
    """Phase between forward and reversed readouts of a train [rad]."""
    ghost_slope_rad: float = 1.5
    """How that phase grows from one end of the readout's field of view to the other [rad]; also between odd
    and even echoes of a bipolar scan."""
    breathing_hz: float = 0.0
    """Amplitude of the frequency's swing with a breath of 4 s [Hz]; 1 to 2 is usual at 3 T."""
    drift_hz_per_min: float = 0.0
    """Drift of the frequency [Hz per minute]."""
    seed: int = 0
    """Noise, sampling pattern and the offset's place."""

    def __call__(self, who: Person) -> RawSimulation:
        """Scan `who`."""
        return self.of(self.magnet().expose(who, self.protocol.grid()))

    def magnet(self) -> GRE:
        """What surrounds the head and excites it, without coils and readouts."""
        p, offset = self.protocol, self.offset_rad
        return GRE(
            p.te_s,
            p.b0_tesla,
            p.tr_s,
            p.flip_deg,
            0.0,
            self.fine_mm,
            self.shim_order,
            offset,
            seed=self.seed,
        )

    def of(self, at: Exposure) -> RawSimulation:
        """Scan a head that lies in the magnet already: several protocols can share it."""
        p, gre = self.protocol, self.magnet()
        maps = replace(self.coils, b0_tesla=p.b0_tesla)(at.head.grid)
        machine = _Machine(self, gre, at, maps)
        truth = gre.truth(at, p.grid(), machine.noise)
        return RawSimulation(machine.raw(), replace(truth, scan=machine.scan), maps)


class _Machine:
    """The scanner at work: order of readouts, their faults, and noise."""

    def __init__(self, how: RawScan, gre: GRE, at: Exposure, maps: Sensitivities) -> None:
        self.how, self.protocol, self.maps = how, how.protocol, maps
        self.encoder = Encoder.of(gre, at, maps, how.protocol.matrix)
        self.scan = Scan(gre.te_s, gre.b0_tesla, how.protocol.bipolar)
        covariance, self.noise = self._noise(at)
        self.mixing = torch.linalg.cholesky(covariance.to(torch.complex128)).to(torch.complex64)

    def raw(self) -> Raw:
        """The scan as readouts to ask for."""
        p = self.protocol
        nx = p.matrix[0]
        samples = 2 * nx
        position = tuple(ramp_positions(samples, p.ramp).tolist()) if p.ramp else ()
        return Raw(
            p.grid(),
            self.scan,
            Encoding(
                p.matrix,
                (nx // 2, p.matrix[1] // 2, p.matrix[2] // 2),
                samples,
                nx,
                2.0,
                position,
                acceleration=p.pattern.acceleration if isinstance(p.pattern, Regular | CAIPI) else (1, 1),
                train=p.train,
                spacing_s=p.spacing_s,
            ),
            self.how.coils.count,
            self.lines,
            self.navigators if p.train > 1 else None,
            self.reference if p.reference[0] else None,
            self._grain(NOISE_SAMPLES, 99).contiguous() if self.noise else None,
            {
                "RepetitionTime": p.tr_s,
                "FlipAngle": p.flip_deg,
                "EchoTime": p.te_s,
                "MagneticFieldStrength": p.b0_tesla,
                "AcquisitionDuration": p.scan_time_s(),
                "SequenceName": p.title,
            },
        )

    def lines(self, echo: int) -> Iterator[Lines]:
        """The readouts of an echo in the order of time, all averages."""
        p = self.protocol
        order = plan(p, p.sampled(self.how.seed)[echo], echo)
        clean = self.encoder(order)
        pulses = p.shots()
        for average in range(p.averages):
            pulse = p.dummies + average * pulses + order.shot
            flip = p.alternate and average % 2 == 1
            yield from self._taken(order, clean, pulse, average, flip, (echo, average))

    def navigators(self, echo: int) -> Lines | None:
        """Three readouts after each pulse, before its train."""
        p, three = self.protocol, navigators(self.protocol)
        clean = self.encoder(three)
        pulses = p.shots()
        parts: list[Lines] = []
        for average in range(p.averages):
            shot = torch.arange(pulses).repeat_interleave(3)
            line = torch.arange(3).repeat(pulses)
            order = Plan(three.ky[line], three.kz[line], shot, three.delay_s[line], three.reverse[line])
            pulse = p.dummies + average * pulses + shot
            flip = p.alternate and average % 2 == 1
            parts += self._taken(order, clean[line], pulse, average, flip, (echo, average, 1))
        return _joined(parts)

    def reference(self) -> Iterator[Lines]:
        """The calibration scan: one readout a pulse, at a short echo time."""
        p = self.protocol
        at = p.centre().nonzero()
        n = len(at)
        order = Plan(
            at[:, 0],
            at[:, 1],
            torch.arange(n),
            torch.full((n,), p.reference_te_s, dtype=torch.float64),
            torch.zeros(n, dtype=torch.bool),
        )
        pulse = torch.zeros(n, dtype=torch.int64)
        return self._taken(order, self.encoder(order), pulse, 0, False, (98,), ghost=False)

    def _taken(
        self,
        order: Plan,
        clean: Complex[Tensor, "line coil x"],
        pulse: Tensor,
        average: int,
        flip: bool,
        key: tuple[int, ...],
        ghost: bool = True,
    ) -> Iterator[Lines]:
        """Read the lines out: along x, with ghost, frequency shifts and noise."""
        forward, backward = self._readouts(ghost)
        reverse = order.reverse ^ flip
        start = pulse.double() * self.protocol.tr_s
        shift_rad = tau * self._frequency_hz(start) * order.delay_s
        turn = torch.polar(torch.ones(len(order), dtype=torch.float64), shift_rad).to(torch.complex64)
        step = max(1, BLOCK // (clean.shape[1] * forward.shape[1]))
        for n, first in enumerate(range(0, len(order), step)):
            part = slice(first, first + step)
            back = reverse[part]
            lines = clean[part]
            data = torch.empty(*lines.shape[:2], forward.shape[1], dtype=torch.complex64)
            data[~back] = lines[~back] @ forward
            data[back] = lines[back] @ backward
            data *= turn[part, None, None]
            if self.noise:
                grain = self._grain(data.shape[0] * data.shape[2], *key, n)
                data += grain.reshape(data.shape[1], data.shape[0], -1).transpose(0, 1)
            count = torch.full_like(order.ky[part], average)
            when = (start + order.delay_s)[part].float()
            yield Lines(data, order.ky[part], order.kz[part], count, order.shot[part], back, when)

    def _readouts(self, ghost: bool) -> tuple[Complex[Tensor, "x sample"], Complex[Tensor, "x sample"]]:
        """From the image along x to the samples of a forward and of a reversed readout, as they are taken."""
        p, how = self.protocol, self.how
        e, x = self.encoder.readout(p.ramp), self.encoder.along()
        if not ghost or (p.train == 1 and not p.bipolar):
            return e, e
        rad = how.ghost_rad * (p.train > 1) + how.ghost_slope_rad * x
        half = torch.exp(0.5j * rad)[:, None].to(e)
        return e * half, (e * half.conj()).flip(1)

    def _frequency_hz(self, time_s: Tensor) -> Tensor:
        """Shift of the whole head's frequency at a time of the scan [Hz]."""
        breath = self.how.breathing_hz * torch.sin(tau * time_s / 4.0)
        return breath + self.how.drift_hz_per_min * time_s / 60

    def _noise(self, at: Exposure) -> tuple[Complex[Tensor, "coil coil"], float]:
        """Covariance of the coils' noise, and the noise of the best combination in the brain's middle."""
        if not self.how.snr:
            return self.maps.covariance, 0.0
        whiten = torch.linalg.inv(torch.linalg.cholesky(self.maps.covariance.to(torch.complex128)))
        signal, seen = 0.0, 0
        for n in range(0, self.encoder.fine[0], 4):  # every fourth plane tells enough
            x = slice(n, n + 1)
            brain = at.head.brain[x]
            s = torch.tensordot(whiten.to(torch.complex64), self.maps.planes(x), 1)
            gain = s.abs().square().sum(0).sqrt() * self.encoder.magnetisation(x, self.scan.te_s[0]).abs()
            signal, seen = signal + float(gain[brain].sum()), seen + int(brain.sum())
        sigma = signal / max(seen, 1) / self.how.snr
        return 2 * sigma**2 * self.maps.covariance, sigma

    def _grain(self, samples: int, *key: int) -> Complex[Tensor, "coil sample"]:
        """Noise that the coils share, the same for the same key."""
        seed = int(np.random.SeedSequence([self.how.seed, *key]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        white = torch.randn(self.how.coils.count, samples, 2, generator=generator) * sqrt(0.5)
        out: Tensor = self.mixing @ torch.view_as_complex(white)
        return out


def _joined(parts: list[Lines]) -> Lines:
    def cat(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts])

    names = ("data", "ky", "kz", "average", "shot", "reverse", "time_s")
    return Lines(*(cat(name) for name in names))


def quick_raw(
    protocol: Protocol = QUICK,
    who: Person | None = None,
    coils: int = 8,
    snr: float = 40.0,
    seed: int = 0,
) -> RawSimulation:
    """A small scan for tests and examples: 3 mm, 8 coils, simulated at 1.5 mm."""
    return RawScan(protocol, CoilArray(coils), snr, fine_mm=1.5, seed=seed)(who or DigitalHead(seed))

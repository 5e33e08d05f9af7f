"""Head → raw data → images → local field → χ, each option of reconstruction against truth → bench/RESULTS.md.

    python bench/closedloop.py GROUP [--coils 32] [--only WORD …] [--write]

One head is scanned with everything read; undersampling, partial Fourier and windows are then applied to the
same readouts, so that rows differ by the option alone. EPI is simulated for each row. Numbers are over the
true brain without its outer 6 mm. The true local field is what an ideal scan (one even coil, no noise,
everything read) finds with the brain's own sources less what it finds without them.

- slope: regression of the local field that was found on the true one, weighted by the squared magnitude of
  the last echo, as fields of voxels without signal say nothing. The field is fitted over the echoes,
  and the background as the ideal scan finds it is taken off, so that coils, noise, sampling and
  reconstruction are judged, not background removal. EPI has one echo: the difference of its phase to a
  noise-free gradient echo at the same time with the same coils, less a polynomial of third degree, is the
  error of its field. Its images are unwarped by the true field.
- field RMSE: of that local field, weighted alike.
- phase RMSE: of the last echo against the first, compared with the ideal scan; of EPI that difference;
  weighted by the squared magnitude.
- bias: error of the mean χ of the deep nuclei (closed-form inversion of that local field in the true mask)
  against the inversion of the true local field: mean over the nuclei, and the largest.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, tau
from time import perf_counter

import torch
from results import put, table
from scipy.ndimage import binary_erosion
from torch import Tensor

from k2chi import recon, units
from k2chi.data import Echoes, Field, KSpace
from k2chi.field.offsets import MCPC3DS
from k2chi.invert import ClosedFormL2
from k2chi.measure.roi import regions
from k2chi.ops.fourier import keep_memory
from k2chi.phantom.coilarray import CoilArray
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.protocols import Protocol
from k2chi.phantom.rawscan import RawScan
from k2chi.phantom.sampling import crop_kspace
from k2chi.recon.assemble import Assemble
from k2chi.recon.epi import Unwarp
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.sampling import CAIPI, PoissonDisk, Regular, Sampling

GRE = Protocol("", (108, 90, 84), (2.0, 2.0, 2.0), (0.006, 0.013, 0.020), 0.030, 15.0)
EPI = replace(GRE, te_s=(0.020,), train=5, spacing_s=0.003, ramp=0.12)
TRAIN_COILS = CoilArray(8)
"""Coils of EPI."""
TURN_S = EPI.spacing_s / ceil(GRE.matrix[1] / EPI.train)
"""Time from one line of k-space to the next [s]."""
PLAIN = Reconstruct(whiten=False, compression=None, maps=recon.AdaptiveMaps())
INVERT = ClosedFormL2()
NUCLEI = (1, 2, 3, 4, 5, 6)
"""Deep nuclei among the labels of the challenge."""
HEAD = ("slope", "field RMSE [ppb]", "phase RMSE [rad]", "bias [ppb]", "largest [ppb]", "seconds")


@dataclass(frozen=True)
class Option:
    """A row: how images are made from the scan."""

    name: str
    make: Callable[["Loop"], Echoes]
    single: bool = False
    """One echo: the field comes from its phase."""


class Loop:
    """One head in the magnet, its scan with everything read, and its truth."""

    def __init__(self, coils: int) -> None:
        self.how = RawScan(GRE, CoilArray(coils), fine_mm=1.0)
        magnet = self.how.magnet()
        self.at = magnet.expose(DigitalHead(seed=8), GRE.grid())
        self.truth = magnet.truth(self.at, GRE.grid(), 0.0)
        self.mask = torch.from_numpy(binary_erosion(self.truth.brain.numpy(), iterations=3))
        self.rate = tau * units.hz_per_ppm(GRE.b0_tesla)
        even = replace(self.at, receive=torch.ones_like(self.at.receive))
        around = replace(even, total_ppm=even.total_ppm - even.local_ppm)
        self.ideal, _ = magnet.images(even, GRE.grid())
        self.background = self.total(magnet.images(around, GRE.grid())[0])
        self.local = self.total(self.ideal) - self.background
        self.target = self.nuclei(self.local)

    @cached_property
    def single(self) -> Tensor:
        """A gradient echo at the time of EPI, everything read, no noise, coils as those of EPI."""
        how = replace(self.how, snr=0.0, coils=TRAIN_COILS, protocol=replace(GRE, te_s=EPI.te_s))
        return PLAIN(self.scan(how)).signal[0]

    @cached_property
    def full(self) -> KSpace:
        """Everything read."""
        return self.scan(self.how)

    def scan(self, how: RawScan) -> KSpace:
        """All echoes on their grid."""
        raw = how.of(self.at).raw
        echoes = [Assemble()(raw, e) for e in range(len(how.protocol.te_s))]
        return replace(echoes[0], data=torch.cat([e.data for e in echoes]), scan=raw.scan)

    def nuclei(self, local_ppm: Tensor) -> Tensor:
        """Mean χ of each deep nucleus [ppb], relative to the brain's mean."""
        t = self.truth
        chi = INVERT(Field(local_ppm * t.brain, t.brain, t.grid, t.scan, local=True))
        chi = replace(chi, ppm=(chi.ppm - chi.ppm[t.brain].mean()) * t.brain)
        rows = {r.label: r.mean_ppm for r in regions(chi, t.group)}
        return 1e3 * torch.tensor([rows[n] for n in NUCLEI])

    def difference(self, image: Tensor) -> Tensor:
        """Phase of an image against `single` [rad], less a polynomial of third degree."""
        turn = image * self.single.conj()
        weight = self.single.abs()[self.mask]
        axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in image.shape], indexing="ij")
        powers = [(a, b, c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b)]
        basis = torch.stack([axes[0] ** a * axes[1] ** b * axes[2] ** c for a, b, c in powers])
        smooth = torch.zeros_like(turn.real)
        for _ in range(4):  # wraps vanish as the fit comes closer
            left = turned(turn, smooth)
            rows = (basis[:, self.mask] * weight).T
            fit = torch.linalg.lstsq(rows, (left[self.mask] * weight)[:, None]).solution[:, 0]
            smooth = smooth + torch.tensordot(fit, basis, 1)
        return turned(turn, smooth)

    def total(self, images: Tensor) -> Tensor:
        """The field [ppm] of several echoes, fitted about the true field."""
        te, true = GRE.te_s, self.truth.total_ppm
        above, below = torch.zeros(GRE.matrix), torch.zeros(GRE.matrix)
        for e in range(1, len(te)):
            step = self.rate * (te[e] - te[0])
            turn = images[e] * images[0].conj()
            left = turned(turn, step * true)
            above, below = above + turn.abs() * step * left, below + turn.abs() * step**2
        return true + above / below.clamp(min=1e-12)

    def row(self, option: Option) -> list[str]:
        """Make the images of an option and judge them."""
        start = perf_counter()
        images = option.make(self).signal
        seconds = perf_counter() - start
        if option.single:
            away = self.difference(images[0])
            local = self.local + away / (self.rate * EPI.te_s[0])
        else:
            between = self.ideal[-1] * self.ideal[0].conj()
            away = turned(images[-1] * images[0].conj(), between.angle())
            local = self.total(images) - self.background
        weight = self.ideal[-1].abs().square()[self.mask]
        weight = weight / weight.sum()
        x, y = self.local[self.mask], local[self.mask]
        x, y = x - weight @ x, y - weight @ y
        error = self.nuclei(local) - self.target
        return [
            option.name,
            f"{float(weight @ (x * y) / (weight @ x.square())):.3f}",
            f"{1e3 * float((weight @ (y - x).square()).sqrt()):.2f}",
            f"{float((weight @ away[self.mask].square()).sqrt()):.4f}",
            f"{float(error.mean()):+.2f}",
            f"{float(error[error.abs().argmax()]):+.2f}",
            f"{seconds:.0f}",
        ]


def turned(image: Tensor, by_rad: Tensor) -> Tensor:
    """Phase after a turn backwards."""
    out: Tensor = (image * torch.polar(torch.ones_like(by_rad), -by_rad)).angle()
    return out


def masked(full: KSpace, pattern: Sampling) -> KSpace:
    """The same readouts, but for those that `pattern` leaves out."""
    size, echoes = (full.grid.shape[1], full.grid.shape[2]), len(full.scan.te_s)
    seen = pattern(size, echoes).sampled[:, None]
    return replace(full, data=full.data * seen[:, None], sampled=seen)


def read(pattern: Sampling, how: Reconstruct | None = None) -> Callable[[Loop], Echoes]:
    """Images of the readouts that a pattern keeps."""
    return lambda loop: (how or Reconstruct())(masked(loop.full, pattern))


def half(eighths: int) -> Sampling:
    """Every line but those that partial Fourier leaves out."""
    return Regular((1, 1), (0, 0), partial_fourier=(eighths / 8, 1.0))


def whole(how: Reconstruct) -> Callable[[Loop], Echoes]:
    """Images of all readouts."""
    return lambda loop: how(loop.full)


def trains(
    assemble: Assemble | None = None, protocol: Protocol = EPI, unwarp: bool = True, **faults: float
) -> Callable[[Loop], Echoes]:
    """Images of segmented EPI with the faults of `RawScan`."""

    def make(loop: Loop) -> Echoes:
        raw = replace(loop.how, protocol=protocol, coils=TRAIN_COILS, **faults).of(loop.at).raw
        echoes = Reconstruct(assemble or Assemble(), compression=None, maps=recon.AdaptiveMaps())(raw)
        return Unwarp(TURN_S)(echoes, loop.truth.total()) if unwarp else echoes

    return make


def without_noise(loop: Loop) -> Echoes:
    clean = loop.scan(replace(loop.how, snr=0.0))
    return Reconstruct(whiten=False)(clean)


def bipolar(loop: Loop) -> Echoes:
    both = loop.scan(replace(loop.how, protocol=replace(GRE, bipolar=True)))
    return Reconstruct()(both)


def masked_echoes(echoes: Echoes, loop: Loop) -> Echoes:
    """With the true mask."""
    return replace(echoes, mask=loop.truth.brain)


CENTRE = (20, 20)
FIELD = Assemble(shots=recon.NavigatedShots("field"))
CLEAN = {"ghost_rad": 0.0, "ghost_slope_rad": 0.0}
GRADIENT_ECHO = [
    Option("everything read, no noise", without_noise),
    Option("everything read (defaults)", whole(Reconstruct())),
    Option("adjoint", whole(Reconstruct(unfold=recon.Adjoint()))),
    Option("coil maps: adaptive combine", whole(Reconstruct(maps=recon.AdaptiveMaps()))),
    Option(
        "all coils kept, adaptive combine", whole(Reconstruct(compression=None, maps=recon.AdaptiveMaps()))
    ),
    Option("8 virtual coils", whole(Reconstruct(compression=recon.SVDCompression(8)))),
    Option("8 virtual coils, geometric", whole(Reconstruct(compression=recon.GeometricCompression(8)))),
    *(Option(f"Tukey window, α {a}", whole(Reconstruct(window=recon.Tukey(a)))) for a in (0.1, 0.25, 0.5)),
    *(
        Option(f"partial Fourier {n}/8, {name}", read(half(n), Reconstruct(partial=how)))
        for n in (6, 5)
        for name, how in (("zeros", recon.ZeroFill()), ("homodyne", recon.Homodyne()), ("POCS", recon.POCS()))
    ),
    Option("bipolar readouts, even echoes not corrected", bipolar),
    Option("bipolar readouts, MCPC-3D-S", lambda loop: MCPC3DS()(masked_echoes(bipolar(loop), loop))),
]
UNDERSAMPLED = [
    Option("everything read (defaults)", whole(Reconstruct())),
    *(
        Option(f"Poisson disk, {n}-fold, CG-SENSE", read(PoissonDisk(n, CENTRE)))
        for n in (2.0, 3.0, 4.0, 5.0)
    ),
    *(
        Option(f"Poisson disk, {n}-fold, {name}", read(PoissonDisk(n, CENTRE), Reconstruct(unfold=how)))
        for n in (3.0, 5.0)
        for name, how in (("wavelet-sparse", recon.SparseSENSE()), ("total variation", recon.TVSENSE()))
    ),
    *(
        Option(f"every {n}. line, {name}", read(Regular((n, 1), CENTRE), Reconstruct(unfold=how)))
        for n in (2, 3)
        for name, how in (("GRAPPA", recon.GRAPPA()), ("CG-SENSE", recon.CGSENSE()))
    ),
    Option("CAIPI 2×2, GRAPPA", read(CAIPI((2, 2), 1, CENTRE), Reconstruct(unfold=recon.GRAPPA()))),
    Option("CAIPI 2×2, CG-SENSE", read(CAIPI((2, 2), 1, CENTRE))),
]
TRAINS = [
    Option("no ghost", trains(**CLEAN), True),
    Option("no ghost, not unwarped", trains(unwarp=False, **CLEAN), True),
    Option("ghost left in", trains(Assemble(ghost=None)), True),
    Option("ghost by navigators", trains(), True),
    Option("ghost without navigators", trains(Assemble(ghost=recon.Refined(start=None))), True),
    Option("no echo-time shift", trains(protocol=replace(EPI, shift=False)), True),
    Option("two averages", trains(protocol=replace(EPI, averages=2)), True),
    Option("breathing 1.5 Hz left in", trains(Assemble(shots=None), breathing_hz=1.5), True),
    Option("breathing 1.5 Hz, navigators", trains(breathing_hz=1.5), True),
    Option("breathing 1.5 Hz, navigators as a field", trains(FIELD, breathing_hz=1.5), True),
]
GROUPS = {"gradient echo": GRADIENT_ECHO, "undersampling": UNDERSAMPLED, "segmented EPI": TRAINS}


def main() -> None:
    keep_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--coils", type=int, default=32)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    loop, rows = Loop(args.coils), []
    for option in GROUPS[args.group]:
        if args.only and not any(word in option.name for word in args.only):
            continue
        rows.append(loop.row(option))
        print(" | ".join(rows[-1]), flush=True)
    truth = crop_kspace(loop.at.local_ppm.to(torch.complex64), GRE.matrix).real[loop.mask]
    seen = loop.local[loop.mask]
    true, seen = truth - truth.mean(), seen - seen.mean()
    about = (
        f"3 T, 2 mm, SNR {loop.how.snr:g} in the brain's mean with all coils combined at the first echo. "
        f"Gradient echoes: TE 6/13/20 ms, {args.coils} coils; EPI: trains of five {1e3 * EPI.spacing_s:g} ms "
        f"apart, TE 20 ms, ramps sampled, {TRAIN_COILS.count} coils. The local field has "
        f"{1e3 * float(seen.std()):.1f} ppb rms; the slope of the ideal scan on the true field, cut to the "
        f"same frequencies, is {float(seen @ true / (true @ true)):.3f}."
    )
    print(about, flush=True)
    words = "\n".join(line for line in (__doc__ or "").splitlines()[4:])
    if args.write:
        put(f"Closed loop: {args.group}", f"{about}\n\n{table(('option', *HEAD), rows)}\n\n{words}")


if __name__ == "__main__":
    main()

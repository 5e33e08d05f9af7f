"""A multi-echo gradient-echo scan of a digital head, with its truth.

from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, challenge, clinical, quick

scan = quick(seed=1)                     # 2 mm, seconds; also challenge(...) and clinical(...)
scan = GRE(te_s=(0.005, 0.01), b0_tesla=3.0)(DigitalHead(seed=1), Grid.of((192, 224, 176)))
scan.echoes                              # Echoes: what the scanner measured
scan.truth.chi_ppm, scan.truth.local_ppm, scan.truth.labels, scan.truth.brain, …
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import radians, tau

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int16
from torch import Tensor

from k2chi import units
from k2chi.data import Echoes, Field, Grid, Scan, Vector
from k2chi.ops.fourier import fast_size
from k2chi.phantom.exposure import total_field
from k2chi.phantom.head import DigitalHead, Head
from k2chi.phantom.lesions import Lesion
from k2chi.phantom.sampling import averaged, central, crop_kspace, regrid
from k2chi.phantom.tissue import LABELS
from k2chi.progress import track

Person = Callable[[Grid, float], Head]
"""What a scanner takes: anything that tells its tissue on any grid at a field strength, as `DigitalHead`."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the scan should show, on its own grid: means over each voxel, without ringing."""

    grid: Grid
    scan: Scan
    chi_ppm: Float[Tensor, "x y z"]
    """Susceptibility relative to water [ppm], in bone and air too."""
    total_ppm: Float[Tensor, "x y z"]
    """Field that the protons felt after shimming [ppm], zero mean in the brain; no phase offset."""
    local_ppm: Float[Tensor, "x y z"]
    """Field of the sources inside the brain mask alone [ppm]: D(χ · brain)."""
    r2star_per_s: Float[Tensor, "x y z"]
    offset_rad: Float[Tensor, "x y z"]
    """Phase at echo time zero [rad]."""
    labels: Int16[Tensor, "x y z"]
    """Label at each voxel's centre."""
    group: Int16[Tensor, "x y z"]
    """The same as the challenge's 16 labels."""
    brain: Bool[Tensor, "x y z"]
    """Exact brain mask."""
    noise: float
    """Standard deviation of the noise in each channel, real and imaginary."""
    lesions: tuple[Lesion, ...] = ()
    names: dict[int, str] = field(default_factory=lambda: LABELS)

    def total(self) -> Field:
        """The true total field as a `Field`."""
        return Field(self.total_ppm * self.brain, self.brain, self.grid, self.scan)

    def local(self) -> Field:
        """The true local field as a `Field`."""
        return Field(self.local_ppm * self.brain, self.brain, self.grid, self.scan, local=True)


@dataclass(frozen=True, eq=False)
class Exposure:
    """A head in the magnet, on the fine grid of the simulation."""

    head: Head
    total_ppm: Float[Tensor, "x y z"]
    """Field that the protons feel after shimming [ppm]."""
    local_ppm: Float[Tensor, "x y z"]
    """Field of the sources inside the brain alone [ppm]."""
    offset_rad: Float[Tensor, "x y z"]
    """Phase at echo time zero [rad]."""
    receive: Float[Tensor, "x y z"]
    """Sensitivity of a single coil that covers the head."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """A scan and its truth."""

    echoes: Echoes
    truth: Truth


def spoiled(m0: Tensor, r1_per_s: Tensor, tr_s: float, flip_deg: float) -> Tensor:
    """Steady state of spoiled GRE: M0 sinα (1 − E₁) / (1 − E₁ cosα), E₁ = exp(−TR R1)."""
    a, e1 = radians(flip_deg), torch.exp(-tr_s * r1_per_s)
    return m0 * float(np.sin(a)) * (1 - e1) / (1 - float(np.cos(a)) * e1)


def _harmonics(grid: Grid, planes: slice = slice(None)) -> Float[Tensor, "term x y z"]:
    """Constant, three gradients and five second-order solid harmonics in grid axes, about unit size."""
    axes = [
        ((torch.arange(n) - (n - 1) / 2) * v / 80).reshape([-1 if i == a else 1 for i in range(3)])
        for a, (n, v) in enumerate(zip(grid.shape, grid.voxel_mm, strict=True))
    ]
    x, y, z = axes[0][planes], axes[1], axes[2]
    one = torch.ones(x.shape[0], y.shape[1], z.shape[2])
    return torch.stack(
        [
            one,
            x * one,
            y * one,
            z * one,
            x * y * one,
            y * z * one,
            x * z * one,
            (x**2 - y**2) * one,
            (2 * z**2 - x**2 - y**2) * one,
        ]
    )


def shimmed(
    field_ppm: Float[Tensor, "x y z"], brain: Bool[Tensor, "x y z"], grid: Grid, order: int
) -> Float[Tensor, "x y z"]:
    """Take away the solid harmonics up to `order` (0, 1 or 2) that fit the field in the brain best."""
    terms = (1, 4, 9)[order]
    gram, right = torch.zeros(terms, terms, dtype=torch.float64), torch.zeros(terms, dtype=torch.float64)
    step, skip = 16, 2 if max(grid.shape) > 128 else 1  # the fit needs not every voxel
    for n in range(0, grid.shape[0], step):
        thin = (slice(None, None, skip),) * 3
        m = brain[n : n + step][thin]
        h = _harmonics(grid, slice(n, n + step))[(slice(None, terms), *thin)][:, m].double()
        gram += h @ h.T
        right += h @ field_ppm[n : n + step][thin][m].double()
    c = torch.linalg.solve(gram, right).float()
    out = torch.empty_like(field_ppm)
    for n in range(0, grid.shape[0], step):
        h = _harmonics(grid, slice(n, n + step))[:terms]
        out[n : n + step] = field_ppm[n : n + step] - torch.tensordot(c, h, 1)
    return out


@dataclass(frozen=True)
class GRE:
    """Scan a digital head with a spoiled multi-echo gradient echo (one echo and a long TR: an EPI-like scan).

    S = M0 sinα (1 − E₁)/(1 − E₁ cosα) · exp(−TE R2*) · exp i(2πγ̄ B0 TE f + φ₀), E₁ = exp(−TR R1), on a grid
    finer than the voxels, then a crop of k-space (partial volume, dephasing in the voxel, Gibbs ringing) and
    complex noise of σ = max|S| of the first echo over `snr` in each channel. Marques 2021, MRM 86:526,
    doi:10.1002/mrm.28716. The field comes from the whole head, the neck below and the air around, shimmed in
    the brain. Fat has its chemical shift.
    """

    te_s: tuple[float, ...] = (0.004, 0.012, 0.020, 0.028)
    """Echo times [s]."""
    b0_tesla: float = 7.0
    """Field strength [T]."""
    tr_s: float = 0.050
    """Repetition time [s]."""
    flip_deg: float = 15.0
    """Flip angle [degrees]."""
    snr: float = 100.0
    """Largest signal of the first echo over the noise of one channel; 0 adds no noise."""
    fine_mm: float = 0.7
    """Voxel of the simulation [mm], not above the acquired one; 0 simulates on the acquired grid itself."""
    shim_order: int = 2
    """Order of the solid harmonics that shimming removes in the brain: 0 (mean only), 1 or 2."""
    offset_rad: float = 3.1416
    """Span of the parabolic phase offset over the volume [rad]."""
    bipolar_rad: float = 0.0
    """Phase [rad] by which even echoes differ from odd ones, from one end of the readout to the other; not
    zero makes the scan bipolar."""
    readout_axis: int = 1
    """Array axis of the readout, 0 to 2."""
    coil_shading: float = 0.25
    """How much weaker the coil receives in the middle of the head than at its rim, 0 to 0.9."""
    seed: int = 0
    """Noise and the offset's place."""

    def __post_init__(self) -> None:
        if self.shim_order not in (0, 1, 2):
            raise ValueError(f"shim order {self.shim_order} is not known: choose 0, 1 or 2")
        if self.snr < 0:
            raise ValueError(f"an SNR of {self.snr} is negative: give 0 for no noise")
        if not 0 < self.flip_deg <= 90:
            raise ValueError(f"a flip angle of {self.flip_deg}° does not excite: choose up to 90")

    def scan(self) -> Scan:
        """The acquisition as the data carry it."""
        return Scan(self.te_s, self.b0_tesla, self.bipolar_rad != 0)

    def fine_grid(self, grid: Grid) -> Grid:
        """The simulation's grid: the same box, voxels of about `fine_mm`, sizes that transform fast."""
        if self.fine_mm <= 0:
            return grid
        n = [
            fast_size(round(n * v / self.fine_mm)) if v > self.fine_mm * 1.01 else n
            for n, v in zip(grid.shape, grid.voxel_mm, strict=True)
        ]
        return regrid(grid, (n[0], n[1], n[2]))

    def __call__(self, who: Person, grid: Grid) -> Simulation:
        """Scan `who` on `grid`."""
        at = self.expose(who, grid)
        images, noise = self.images(at, grid)
        return Simulation(Echoes(images, grid, self.scan()), self.truth(at, grid, noise))

    def expose(self, who: Person, grid: Grid) -> Exposure:
        """Put `who` into the magnet: what the protons feel, on the simulation's grid."""
        fine = self.fine_grid(grid)
        head = who(fine, self.b0_tesla)

        def body(around: Grid) -> Tensor:
            return who(around, self.b0_tesla).chi_ppm

        total = total_field(head.chi_ppm, fine, body)
        total = shimmed(total, head.brain, fine, self.shim_order)
        local = total_field(head.chi_ppm * head.brain, fine)
        return Exposure(head, total, local, *self._coil(fine))

    def truth(self, at: Exposure, grid: Grid, noise: float) -> Truth:
        """What a scan on `grid` should show."""

        def picked(x: Tensor) -> Tensor:
            return central(x, grid.shape)

        def mean(x: Tensor) -> Tensor:
            return averaged(x, grid.shape)

        head = at.head
        return Truth(
            grid,
            self.scan(),
            mean(head.chi_ppm),
            mean(at.total_ppm),
            mean(at.local_ppm),
            mean(head.r2star_per_s),
            mean(at.offset_rad),
            picked(head.labels),
            picked(head.group()),
            picked(head.brain),
            noise,
            head.lesions,
        )

    def strength(self, head: Head) -> Float[Tensor, "x y z"]:
        """Transverse magnetisation right after a pulse, in the steady state."""
        return spoiled(head.m0, head.r1_per_s, self.tr_s, self.flip_deg)

    def _coil(self, grid: Grid) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"]]:
        """Phase at echo time zero and receive sensitivity: parabolas about a point near the middle."""
        rng = np.random.default_rng([self.seed, 7])
        place = rng.uniform(-0.15, 0.15, 3)
        axes = [
            ((torch.arange(n) - (n - 1) / 2) / n - float(s)).reshape([-1 if i == a else 1 for i in range(3)])
            for a, (n, s) in enumerate(zip(grid.shape, place, strict=True))
        ]
        r2 = axes[0].square() + axes[1].square() + axes[2].square()
        r2 = r2 / r2.max()
        return self.offset_rad * (r2 - 0.5) + 0.3 * axes[0], 1 - self.coil_shading * (1 - r2)

    def images(self, at: Exposure, grid: Grid) -> tuple[Complex[Tensor, "echo x y z"], float]:
        """All echoes on `grid`, and the noise in them."""
        head, total, offset = at.head, at.total_ppm, at.offset_rad
        rate = tau * units.hz_per_ppm(self.b0_tesla)
        strength = self.strength(head) * at.receive
        images = torch.empty(len(self.te_s), *grid.shape, dtype=torch.complex64)
        ramp = (
            torch.arange(total.shape[self.readout_axis]) / total.shape[self.readout_axis] - 0.5
        ) * self.bipolar_rad
        ramp = ramp.reshape([-1 if a == self.readout_axis else 1 for a in range(3)])
        for n in track(len(self.te_s), "scanning"):
            te = self.te_s[n]
            phase = (rate * te) * (total + head.shift_ppm) + offset
            if n % 2:
                phase = phase + ramp
            images[n] = crop_kspace(
                torch.polar(strength * torch.exp(-te * head.r2star_per_s), phase), grid.shape
            )
        noise = float(images[0].abs().max()) / self.snr if self.snr else 0.0
        if noise:
            generator = torch.Generator().manual_seed(self.seed)
            for n in range(len(images)):
                grain = torch.randn(*grid.shape, 2, generator=generator) * noise
                images[n] += torch.view_as_complex(grain)
        return images, noise


def box(
    voxel_mm: Vector = (1.0, 1.0, 1.0), extent_mm: Vector = (164.0, 205.0, 205.0), raise_mm: float = 0.0
) -> Grid:
    """A straight grid over the whole head, B0 along z; `raise_mm` lifts its middle towards the crown."""
    x, y, z = (max(round(e / v), 2) for e, v in zip(extent_mm, voxel_mm, strict=True))
    return Grid.of((x, y, z), voxel_mm).window((0, 0, round(raise_mm / voxel_mm[2])), (x, y, z))


def challenge(who: DigitalHead | None = None, snr: float = 100.0, seed: int = 0) -> Simulation:
    """The second reconstruction challenge: 7 T, TR 50 ms, TE 4/12/20/28 ms, 15°, 1 mm, 164×205×205."""
    return GRE(snr=snr, seed=seed)(who or DigitalHead(seed), box())


def clinical(who: DigitalHead | None = None, snr: float = 80.0, seed: int = 0) -> Simulation:
    """A common clinical scan: 3 T, TR 40 ms, TE 5…35 ms in six echoes, 15°, 0.9×0.9×1.5 mm."""
    te = (0.005, 0.011, 0.017, 0.023, 0.029, 0.035)
    gre = GRE(te, 3.0, 0.040, 15.0, snr, seed=seed)
    return gre(who or DigitalHead(seed), box((0.9, 0.9, 1.5)))


def quick(
    who: DigitalHead | None = None, b0_tesla: float = 3.0, snr: float = 100.0, seed: int = 0
) -> Simulation:
    """A small one for demonstrations and tests: 2 mm, 82×102×102, four echoes, simulated at 1 mm."""
    te = (0.004, 0.012, 0.020, 0.028) if b0_tesla > 5 else (0.006, 0.014, 0.022, 0.030)
    gre = GRE(te, b0_tesla, 0.050, 15.0, snr, fine_mm=1.0, seed=seed)
    return gre(who or DigitalHead(seed), box((2.0, 2.0, 2.0), (164.0, 204.0, 204.0)))


def epi(who: DigitalHead | None = None, snr: float = 60.0, seed: int = 0) -> Simulation:
    """Single-echo 2D-EPI-like: 3 T, TR 3 s, TE 30 ms, 90°, 1.8×1.8×3 mm, 92×114×48; no distortion."""
    gre = GRE((0.030,), 3.0, 3.0, 90.0, snr, fine_mm=0.9, seed=seed)
    return gre(who or DigitalHead(seed), box((1.8, 1.8, 3.0), (165.6, 205.2, 144.0), raise_mm=18.0))

"""Protocols of published studies and small ones for tests, as data; and how long each takes."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from k2chi.data import Grid, Size, Vector, as_affine
from k2chi.recon.sampling import PoissonDisk, Regular, Sampling

EVERY = Regular((1, 1), (0, 0))
"""All lines."""


@dataclass(frozen=True)
class Protocol:
    """A 3D gradient-echo scan: one readout for each echo after a pulse, or a train of them (segmented EPI).

    Axes are readout, first and second phase encoding; the head lies with its front, left and crown along
    them. All encoded points are reconstructed, so slice oversampling counts as slices.
    """

    title: str
    """What it is, in words."""
    matrix: Size
    """Encoded points along readout, first and second phase encoding."""
    voxel_mm: Vector
    """Edges of a voxel along the same axes [mm]."""
    te_s: tuple[float, ...]
    """Echo times [s]; of EPI, when the centre of k-space is read."""
    tr_s: float
    """Repetition time [s]."""
    flip_deg: float
    """Flip angle [degrees]."""
    b0_tesla: float = 3.0
    """Field strength [T]."""
    pattern: Sampling = EVERY
    """Which lines are read."""
    reference: tuple[int, int] = (0, 0)
    """Lines of a fully sampled centre that a quick scan of its own reads before the rest; 0: none."""
    averages: int = 1
    """How often everything is read."""
    train: int = 1
    """Readouts after one pulse; more than one is EPI, shots interleaved along the first phase encoding."""
    spacing_s: float = 0.0
    """Time between the readouts of a train [s]."""
    shift: bool = True
    """True if shots are delayed against one another (echo-time shift), so that the time of a readout rises
    evenly along the phase encoding; else it has a step after each segment."""
    alternate: bool = False
    """True if every second average is read with the opposite polarity."""
    bipolar: bool = False
    """True if even echoes are read backwards."""
    ramp: float = 0.0
    """Share of a readout's time in each gradient ramp, sampled too; 0 to 0.4."""
    dummies: int = 0
    """Pulses before the first readout, to reach the steady state."""
    reference_tr_s: float = 0.012
    """Repetition time of the calibration scan [s], where it is one of its own."""
    reference_te_s: float = 0.005
    """Its echo time [s]."""
    raise_mm: float = 14.0
    """Middle of the volume above the scanner's [mm]."""
    published_s: float = 0.0
    """Scan time that the study reports [s]; 0 if none."""
    assumed: str = ""
    """What the study does not say and was chosen here."""

    def __post_init__(self) -> None:
        if self.train > 1 and (self.spacing_s <= 0 or len(self.te_s) > 1):
            raise ValueError("a train of readouts needs their spacing_s, and one echo time")
        first = self.te_s[0] - (self.train // 2 + 3 * (self.train > 1)) * self.spacing_s
        if first <= 0:
            raise ValueError(
                f"TE {self.te_s[0]} s leaves no time for navigators and half a train of {self.train} "
                f"readouts {self.spacing_s} s apart: shorten the train or its spacing"
            )
        if not 0 <= self.ramp <= 0.4:
            raise ValueError(f"ramps of {self.ramp} of a readout leave no plateau: choose 0 to 0.4")

    def grid(self) -> Grid:
        """Where the voxels lie: the first axis to the front, the second to the left, the third upwards."""
        turned = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        a = np.eye(4)
        a[:3, :3] = turned * np.asarray(self.voxel_mm)
        a[:3, 3] = [0, 4.0, self.raise_mm] - a[:3, :3] @ [n // 2 for n in self.matrix]
        return Grid(self.matrix, as_affine(a))

    def sampled(self, seed: int = 0) -> Bool[Tensor, "echo ky kz"]:
        """Which lines each echo reads, zero frequency at index n//2."""
        return _sampled(self.pattern, (self.matrix[1], self.matrix[2]), len(self.te_s), seed)

    def centre(self) -> Bool[Tensor, "ky kz"]:
        """The lines that the calibration scan reads."""
        (ny, nz), (cy, cz) = self.matrix[1:], self.reference
        mask = torch.zeros(ny, nz, dtype=torch.bool)
        mask[ny // 2 - cy // 2 : ny // 2 - cy // 2 + cy, nz // 2 - cz // 2 : nz // 2 - cz // 2 + cz] = True
        return mask

    def shots(self) -> int:
        """Pulses of one average that are followed by readouts."""
        lines = self.sampled()
        if self.train == 1:
            return int(lines.sum((1, 2)).max())
        partitions = lines[0].sum(0)
        return ceil(int(partitions.max()) / self.train) * int((partitions > 0).sum())

    def scan_time_s(self) -> float:
        """Pulses × TR, with averages, dummies and the calibration scan [s]."""
        calibration = self.reference[0] * self.reference[1] * self.reference_tr_s
        return (self.dummies + self.averages * self.shots()) * self.tr_s + calibration


@lru_cache(maxsize=16)
def _sampled(pattern: Sampling, size: tuple[int, int], echoes: int, seed: int) -> Bool[Tensor, "echo ky kz"]:
    if isinstance(pattern, PoissonDisk):
        pattern = replace(pattern, seed=pattern.seed + seed)
    out: Tensor = torch.fft.fftshift(pattern(size, echoes).sampled, dim=(1, 2))
    return out


def clock(seconds: float) -> str:
    """Minutes and seconds, as protocols print them."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


_MS = "field of view 224×224 mm and 88 partitions of 2 mm (80 slices with 10 % oversampling)"
_EPI = Protocol(
    "3D-EPI of the MS study, two averages",
    (320, 320, 88),
    (0.7, 0.7, 2.0),
    (0.020,),
    0.056,
    21.0,
    pattern=Regular((3, 1), (0, 0)),
    reference=(24, 24),
    averages=2,
    train=5,
    spacing_s=0.0033,
    ramp=0.12,
    dummies=5,
    published_s=224.0,
    assumed=f"{_MS}; acceleration 3, 24×24 reference lines in a scan of their own (TR 12 ms); 5 dummies; "
    "echo spacing 3.3 ms",
)
_DL = Protocol(
    "8-echo GRE of the deep nuclei study, parallel imaging",
    (288, 256, 96),
    (0.8, 0.8, 2.0),
    tuple(round(0.0033 + 0.0031 * n, 4) for n in range(8)),
    0.0302,
    15.0,
    pattern=Regular((2, 1), (24, 96)),
    published_s=406.0,
    assumed="field of view 230×205 mm and 96 partitions of 2 mm (80 slices with 20 % oversampling); "
    "24 reference lines within the scan",
)


def _poisson(net: float, published_s: float) -> Protocol:
    return replace(
        _DL,
        title=f"8-echo GRE of the deep nuclei study, Poisson disk, net acceleration {net:g}",
        pattern=PoissonDisk(net),
        published_s=published_s,
        assumed=_DL.assumed.replace(
            "24 reference lines within the scan",
            "net acceleration counted against the whole rectangle, 24×24 lines of the centre included",
        ),
    )


QUICK = Protocol(
    "small GRE for tests: 3 mm, four echoes, everything read",
    (72, 60, 56),
    (3.0, 3.0, 3.0),
    (0.005, 0.010, 0.015, 0.020),
    0.030,
    15.0,
)
PROTOCOLS: dict[str, Protocol] = {
    "gre": Protocol(
        "GRE of the MS study, GRAPPA 3",
        (320, 320, 88),
        (0.7, 0.7, 2.0),
        (0.020,),
        0.039,
        15.0,
        pattern=Regular((3, 1), (24, 88)),
        published_s=422.0,
        assumed=f"{_MS}; 24 reference lines within the scan",
    ),
    "epi-2": _EPI,
    "epi-1": replace(_EPI, title="3D-EPI of the MS study, one average", averages=1, published_s=116.0),
    "epi-iso": Protocol(
        "isotropic 3D-EPI of the MS study",
        (336, 288, 256),
        (0.67, 0.67, 0.67),
        (0.035,),
        0.064,
        10.0,
        train=15,
        spacing_s=0.0028,
        ramp=0.12,
        dummies=5,
        assumed="field of view 225×193×172 mm; 15 readouts a train, 2.8 ms apart; no acceleration",
    ),
    "gre8-2": _DL,
    "gre8-3": _poisson(3, 275.0),
    "gre8-4": _poisson(4, 195.0),
    "gre8-5": _poisson(5, 131.0),
    "quick": QUICK,
    "quick-epi": Protocol(
        "small 3D-EPI for tests: 3 mm, trains of five",
        (72, 60, 56),
        (3.0, 3.0, 3.0),
        (0.020,),
        0.056,
        15.0,
        train=5,
        spacing_s=0.002,
        ramp=0.12,
    ),
}
"""Protocols by the name that the command line takes."""

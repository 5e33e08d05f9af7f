"""The nouns: what flows from one stage to the next.

The attribute is the unit (`field.ppm`, `scan.te_s`, `grid.voxel_mm`). Space is the last three axes in
NIfTI order (first axis fastest to the patient's right in RAS); echo and coil stand in front. Complex
tensors are complex. Phase is positive where the field adds to B0. Change a value with
`dataclasses.replace`; nothing here is mutated.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int64, Shaped
from torch import Tensor

from k2chi import units

Affine = tuple[tuple[float, float, float, float], ...]
Vector = tuple[float, float, float]
Size = tuple[int, int, int]


def mean_edge(voxel_mm: Vector) -> float:
    """Geometric mean of a voxel's edges [mm]."""
    return prod(voxel_mm) ** (1 / 3)


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie. Voxel size and B0 direction are derived, so that they cannot disagree.

    Raises ValueError for a singular or sheared affine.
    """

    shape: Size
    """Voxels along each axis."""
    affine: Affine
    """Voxel index to scanner (RAS) position in mm, 4×4."""
    b0_world: Vector = (0.0, 0.0, 1.0)
    """Direction of B0 in scanner axes; along the bore unless the scanner is an open one."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a grid of {self.shape} voxels has none")
        a = np.asarray(self.affine, dtype=float)
        if a.shape != (4, 4) or not np.isfinite(a).all():
            raise ValueError("the affine must be a 4×4 matrix of finite numbers")
        edges = np.linalg.norm(a[:3, :3], axis=0)
        if edges.min() < 1e-6 or abs(np.linalg.det(a[:3, :3] / edges)) < 1e-3:
            raise ValueError("the affine is singular: voxels have no volume; repair the header")
        axes = a[:3, :3] / edges
        if np.abs(axes.T @ axes - np.eye(3)).max() > 2e-2:
            raise ValueError("the affine is sheared: resample the complex data to a straight grid")
        if np.linalg.norm(self.b0_world) < 1e-9:
            raise ValueError("b0_world has no length: give the direction of B0 in scanner axes")

    @staticmethod
    def of(shape: Size, voxel_mm: Vector = (1.0, 1.0, 1.0), b0_dir: Vector = (0.0, 0.0, 1.0)) -> "Grid":
        """A straight grid centred on the origin, with B0 along `b0_dir` in voxel axes."""
        rows = np.eye(4)
        rows[:3, :3] = np.diag(voxel_mm)
        rows[:3, 3] = [-v * (n // 2) for v, n in zip(voxel_mm, shape, strict=True)]
        return Grid(shape, as_affine(rows), b0_dir)

    @cached_property
    def voxel_mm(self) -> Vector:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @cached_property
    def b0_dir(self) -> Vector:
        """Unit vector of B0 in voxel axes."""
        axes = np.asarray(self.affine)[:3, :3] / np.asarray(self.voxel_mm)
        b = axes.T @ np.asarray(self.b0_world, dtype=float)
        x, y, z = b / np.linalg.norm(b)
        return float(x), float(y), float(z)

    @property
    def voxel_volume_mm3(self) -> float:
        return prod(self.voxel_mm)

    def window(self, start: Size, shape: Size) -> "Grid":
        """The grid of the box of `shape` voxels that begins at index `start` (may be negative)."""
        a = np.asarray(self.affine, dtype=float).copy()
        a[:3, 3] += a[:3, :3] @ np.asarray(start, dtype=float)
        return replace(self, shape=shape, affine=as_affine(a))


def as_affine(matrix: np.ndarray) -> Affine:
    """A 4×4 array as the hashable rows that `Grid` holds."""
    return tuple((float(r[0]), float(r[1]), float(r[2]), float(r[3])) for r in matrix)


@dataclass(frozen=True)
class Scan:
    """What the scanner did.

    Raises ValueError for echo times that are missing, not rising, or plainly in ms, and for an
    impossible field strength.
    """

    te_s: tuple[float, ...]
    """Echo times [s], rising."""
    b0_tesla: float
    """Field strength [T]."""
    bipolar: bool = False
    """True if odd and even echoes were read in opposite directions."""

    def __post_init__(self) -> None:
        te = self.te_s
        if not te or min(te) <= 0 or any(b <= a for a, b in pairwise(te)):
            raise ValueError(f"echo times {te} s must be positive and rising, one for each echo")
        if max(te) > 0.5:
            raise ValueError(f"echo times {te} look like ms: give them in seconds")
        if not 0.01 < self.b0_tesla < 30:
            raise ValueError(f"B0 of {self.b0_tesla} T is not a field strength: give it in tesla")

    @property
    def te_mean_s(self) -> float:
        """Mean echo time [s]: where a combined field is turned back into phase."""
        return sum(self.te_s) / len(self.te_s)

    @property
    def rad_per_ppm(self) -> float:
        """Phase [rad] of one ppm at the mean echo time; non-linear data terms work at this scale."""
        return units.rad_per_ppm(self.b0_tesla, self.te_mean_s)


def _same(grid: Grid, **tensors: Tensor | None) -> None:
    for name, t in tensors.items():
        if t is not None and tuple(t.shape[-3:]) != grid.shape:
            raise ValueError(f"{name} has {tuple(t.shape[-3:])} voxels, but the grid has {grid.shape}")


@dataclass(frozen=True)
class Encoding:
    """How readouts fill k-space.

    Raises ValueError where the centre lies outside the matrix, or positions do not fit the samples.
    """

    matrix: Size
    """Points of k-space along readout (oversampling removed), first and second phase encoding. Fewer than
    voxels of the grid where the rest was left out (partial Fourier, interpolation), never more."""
    centre: Size
    """Index of the centre of k-space among these points; not always n//2 (partial Fourier). Their
    distance is 1/(voxels of the grid × voxel size)."""
    samples: int
    """Samples of a readout as it was recorded."""
    centre_sample: int
    """The sample at which a readout passes the centre of k-space."""
    oversampling: float = 1.0
    """Recorded samples over needed ones along the readout; 2 is usual."""
    position: tuple[float, ...] = ()
    """Where each sample of a forward readout lies, from the centre, in steps of 1/(field of view of the
    recorded samples); empty if they are evenly spaced (no sampling on gradient ramps)."""
    slices: bool = False
    """True for a stack of 2D slices: the second phase encoding is the slice and is not transformed."""
    acceleration: tuple[int, int] = (1, 1)
    """Undersampling along the two phase encodings, as the protocol says."""
    train: int = 1
    """Readouts after one excitation (echo-train length); more than one is EPI."""
    spacing_s: float = 0.0
    """Time between neighbouring readouts of a train [s]; 0 if not known."""
    surplus: tuple[int, int] = (0, 0)
    """Voxels of the grid along the two phase encodings that are only there to keep wraps away (phase and
    slice oversampling), half of them at each end: cut off from images, not from k-space."""

    def __post_init__(self) -> None:
        if any(not 0 <= c < n for c, n in zip(self.centre, self.matrix, strict=True)):
            raise ValueError(f"the centre of k-space {self.centre} lies outside its {self.matrix} points")
        if self.position and len(self.position) != self.samples:
            raise ValueError(
                f"{len(self.position)} sample positions for readouts of {self.samples} samples: "
                "give one for each"
            )


@dataclass(frozen=True, eq=False)
class Lines:
    """Readouts as the scanner took them, each with its place in k-space and its turn."""

    data: Complex[Tensor, "line coil sample"]
    """Samples in the order in which they were taken, also for reversed readouts."""
    ky: Int64[Tensor, "line"]
    """Index along the first phase encoding, in `Encoding.matrix`."""
    kz: Int64[Tensor, "line"]
    """Index along the second phase encoding, or the slice."""
    average: Int64[Tensor, "line"]
    """Number of the average, from 0."""
    shot: Int64[Tensor, "line"]
    """Number of the excitation within its echo and average: readouts of one shot share a phase."""
    reverse: Bool[Tensor, "line"]
    """True where the readout gradient was negative: such a readout passes the same positions backwards."""
    time_s: Float[Tensor, "line"] | None = None
    """When each readout was taken [s], from any start."""

    def __post_init__(self) -> None:
        for name in ("ky", "kz", "average", "shot", "reverse", "time_s"):
            t = getattr(self, name)
            if t is not None and t.shape[0] != self.data.shape[0]:
                raise ValueError(f"{t.shape[0]} values of {name} for {self.data.shape[0]} readouts")

    def __getitem__(self, which: Shaped[Tensor, "some"] | slice) -> "Lines":
        """Some of the readouts: by index, by truth, or a stretch of them."""
        return Lines(
            self.data[which],
            self.ky[which],
            self.kz[which],
            self.average[which],
            self.shot[which],
            self.reverse[which],
            None if self.time_s is None else self.time_s[which],
        )


@dataclass(frozen=True, eq=False)
class Raw:
    """A scan as readouts, read when asked for: all coils and echoes together need not fit in memory."""

    grid: Grid
    """Where the voxels of the images will lie, in the order readout, first, second phase encoding."""
    scan: Scan
    encoding: Encoding
    coils: int
    lines: Callable[[int], Iterator[Lines]]
    """The readouts of an echo, in blocks."""
    navigators: Callable[[int], Lines | None] | None = None
    """Readouts of an echo without phase encoding, to tell forward from reversed ones and shots apart."""
    reference: Callable[[], Iterator[Lines]] | None = None
    """Fully sampled readouts of the centre from a scan of their own, to calibrate coils."""
    noise: Complex[Tensor, "coil sample"] | None = None
    """Noise-only samples, to whiten the coils."""
    facts: Mapping[str, str | float | tuple[float, ...]] = field(default_factory=dict)
    """What the protocol says, by BIDS name (RepetitionTime, FlipAngle, …)."""
    warnings: tuple[str, ...] = ()
    """What reading found odd, in words."""
    field_map: "Field | None" = None
    """The field as another scan found it, by which images of EPI are put where they belong; on the grid of
    the images as acquired, without `surplus`."""
    mask: Bool[Tensor, "mx my mz"] | None = None
    """The user's own mask, on the grid of the finished images; None lets the pipeline find one."""


@dataclass(frozen=True, eq=False)
class KSpace:
    """K-space on its grid: `data` is the orthonormal transform of the coil images in their natural order.

    Zero frequency at index 0 and image corner at index 0, so that no shift is ever needed again:
    image = `ops.fourier.ifft(data)`. A stack of slices is transformed along the slices, too.
    """

    data: Complex[Tensor, "echo coil kx ky kz"]
    """Samples, zero where nothing was measured."""
    sampled: Bool[Tensor, "#echo #kx #ky #kz"]
    """True where a sample was measured."""
    grid: Grid
    scan: Scan
    noise: Complex[Tensor, "coil sample"] | None = None
    """Noise-only samples, to whiten the coils; None once they are white."""
    reference: Complex[Tensor, "coil rx ry rz"] | None = None
    """Fully sampled centre from a scan of its own, to calibrate coils: the centre of what `data`
    would hold of it, zero frequency at index n//2."""

    def __post_init__(self) -> None:
        _same(self.grid, data=self.data)
        if self.data.shape[0] != len(self.scan.te_s):
            raise ValueError(
                f"{self.data.shape[0]} echoes but {len(self.scan.te_s)} echo times: give one for each"
            )


@dataclass(frozen=True, eq=False)
class Coils:
    """Complex images of every coil, not yet combined, one set for each echo."""

    signal: Complex[Tensor, "echo coil x y z"]
    grid: Grid
    scan: Scan
    mask: Bool[Tensor, "x y z"] | None = None
    """The user's own mask; None lets the pipeline find one."""
    noise: Complex[Tensor, "coil sample"] | None = None
    """Noise-only samples, to whiten the coils."""

    def __post_init__(self) -> None:
        _same(self.grid, signal=self.signal, mask=self.mask)
        if self.signal.shape[0] != len(self.scan.te_s):
            raise ValueError(
                f"{self.signal.shape[0]} echoes but {len(self.scan.te_s)} echo times: give one for each"
            )
        if self.noise is not None and self.noise.shape[0] != self.signal.shape[1]:
            raise ValueError(f"noise of {self.noise.shape[0]} coils for {self.signal.shape[1]} coils")


@dataclass(frozen=True, eq=False)
class Echoes:
    """Coil-combined complex images, one for each echo."""

    signal: Complex[Tensor, "echo x y z"]
    grid: Grid
    scan: Scan
    mask: Bool[Tensor, "x y z"] | None = None
    """The user's own mask; None lets the pipeline find one."""
    unwrapped_rad: Float[Tensor, "echo x y z"] | None = None
    """Phase without wraps, once it is known."""

    def __post_init__(self) -> None:
        _same(self.grid, signal=self.signal, mask=self.mask, unwrapped_rad=self.unwrapped_rad)
        if self.mask is not None and not self.mask.any():
            raise ValueError("the mask is empty: give one with voxels in it, or none to have one found")
        if self.signal.shape[0] != len(self.scan.te_s):
            raise ValueError(
                f"{self.signal.shape[0]} echoes but {len(self.scan.te_s)} echo times: give one for each"
            )


@dataclass(frozen=True, eq=False)
class Field:
    """A field map: total, or local once the background is removed."""

    ppm: Float[Tensor, "x y z"]
    """Field shift relative to B0 [ppm]."""
    mask: Bool[Tensor, "x y z"]
    """Voxels whose value is believed."""
    grid: Grid
    scan: Scan
    weight: Float[Tensor, "x y z"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    """Trust in each voxel, 0 to 1, proportional to one over the noise; the mask if not given."""
    noise_ppm: Float[Tensor, "x y z"] | None = None
    """Standard deviation of the noise [ppm], where it is known."""
    support: Bool[Tensor, "x y z"] | None = None
    """Where χ may differ from zero: the mask before any erosion (None: the mask)."""
    magnitude: Float[Tensor, "x y z"] | None = None
    """Combined magnitude, for methods that look at edges."""
    local: bool = False
    """True once the background field has been removed."""

    def __post_init__(self) -> None:
        if not self.weight.numel():
            object.__setattr__(self, "weight", self.mask.to(self.ppm.dtype))
        _same(self.grid, field=self.ppm, mask=self.mask, weight=self.weight, support=self.support)
        _same(self.grid, noise_ppm=self.noise_ppm, magnitude=self.magnitude)
        if min(self.grid.shape) < 2:
            raise ValueError(f"{self.grid.shape} voxels are not a volume: a field needs two slices or more")
        if not self.mask.any():
            raise ValueError("the mask is empty: no voxel is left to work on; check mask and magnitude")


@dataclass(frozen=True, eq=False)
class Chi:
    """A susceptibility map."""

    ppm: Float[Tensor, "x y z"]
    """Susceptibility [ppm, SI] relative to the reference; zero outside the mask."""
    mask: Bool[Tensor, "x y z"]
    grid: Grid
    reference: str = "none"
    """What zero means: none, mask mean, CSF, …"""
    reference_ppm: float = 0.0
    """The value that referencing subtracted [ppm]."""
    updates: tuple[float, ...] = ()
    """Relative change of the map in each iteration, for iterative methods."""
    misfits: tuple[float, ...] = ()
    """Share of the weighted field that the map leaves unexplained in each iteration, where it is known."""
    converged: bool | None = None
    """True if the last update was within the tolerance, False if not; None where nothing was asked."""
    sd_ppm: Float[Tensor, "x y z"] | None = None
    """How far off the map may be, one standard deviation [ppm], where the method says so."""

    def __post_init__(self) -> None:
        _same(self.grid, chi=self.ppm, mask=self.mask, sd=self.sd_ppm)


@dataclass(frozen=True, eq=False)
class Sources:
    """Para- and diamagnetic susceptibility, told apart."""

    para_ppm: Float[Tensor, "x y z"]
    """Susceptibility of paramagnetic sources [ppm], zero or more."""
    dia_ppm: Float[Tensor, "x y z"]
    """Susceptibility of diamagnetic sources [ppm], zero or less."""
    mask: Bool[Tensor, "x y z"]
    grid: Grid
    updates: tuple[float, ...] = ()
    """Relative change of the maps in each iteration."""
    misfits: tuple[float, ...] = ()
    """Share of the data that the maps leave unexplained in each iteration, where it is known."""
    converged: bool | None = None
    """True if the last update was within the tolerance, False if not; None where nothing was asked."""

    def __post_init__(self) -> None:
        _same(self.grid, para_ppm=self.para_ppm, dia_ppm=self.dia_ppm, mask=self.mask)

    @property
    def total_ppm(self) -> Float[Tensor, "x y z"]:
        """Both together [ppm]: what a susceptibility map shows."""
        return self.para_ppm + self.dia_ppm


@dataclass(frozen=True, eq=False)
class Maps:
    """All that a pipeline made of one scan; None where it was not asked for or not possible."""

    grid: Grid
    scan: Scan
    mask: Bool[Tensor, "x y z"]
    magnitude: Float[Tensor, "x y z"] | None = None
    unwrapped_rad: Float[Tensor, "echo x y z"] | None = None
    quality: Float[Tensor, "x y z"] | None = None
    total: Field | None = None
    local: Field | None = None
    chi: Chi | None = None
    r2star_per_s: Float[Tensor, "x y z"] | None = None
    sources: Sources | None = None
    """Para- and diamagnetic maps."""
    swi: Float[Tensor, "x y z"] | None = None
    """Susceptibility-weighted image, in the unit of the magnitude."""
    echoes: Echoes | None = None
    """Echoes without phase offset, kept for methods that invert wrapped phase."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    warnings: tuple[str, ...] = ()
    """What the user should know, in words."""

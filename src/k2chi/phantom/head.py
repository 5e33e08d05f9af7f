"""The digital head: a person made by code, sampled on any grid.

`DigitalHead(seed=1)(grid, b0_tesla)` gives a `Head`: susceptibility, R2*, R1, proton density, labels and the
exact brain mask. The head is defined in continuous coordinates and sampled with partial volume, at any voxel
size, orientation and array size; a grid may cover a part of it only.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor

from k2chi.data import Grid, Vector
from k2chi.phantom.cortex import brain_maps
from k2chi.phantom.geometry import coverage, ellipsoid
from k2chi.phantom.lesions import Lesion, place
from k2chi.phantom.nuclei import EYE, NUCLEI, PLEXUS, bounds, nucleus
from k2chi.phantom.skull import SURFACES, surfaces
from k2chi.phantom.tissue import BRAIN_LABELS, CHALLENGE_GROUP, LABEL_OF, LABELS, tissue_of, tissues
from k2chi.phantom.tubes import occupancy
from k2chi.phantom.veins import Vessel, venous_tree
from k2chi.phantom.voxels import LAYERS, fill
from k2chi.phantom.warp import Volume, Warp, person, smooth_noise

PROPERTIES = ("chi", "r2star", "r1", "m0", "fat")


@dataclass(frozen=True, eq=False)
class Head:
    """One person on one grid: the truth from which a scan is made."""

    grid: Grid
    chi_ppm: Float[Tensor, "x y z"]
    """Susceptibility relative to water [ppm]: soft tissue ±0.2, bone −2.1, air +9.4."""
    r2star_per_s: Float[Tensor, "x y z"]
    r1_per_s: Float[Tensor, "x y z"]
    m0: Float[Tensor, "x y z"]
    """Proton density relative to water."""
    shift_ppm: Float[Tensor, "x y z"]
    """Chemical shift of the protons [ppm]: fat −3.4, else zero."""
    labels: Int16[Tensor, "x y z"]
    """What fills most of each voxel; see `names`."""
    brain: Bool[Tensor, "x y z"]
    """The exact brain mask: brain, ventricles, veins, and the CSF in and 1 mm around the sulci."""
    b0_tesla: float
    lesions: tuple[Lesion, ...] = ()
    names: dict[int, str] = field(default_factory=lambda: LABELS)

    def group(self) -> Int16[Tensor, "x y z"]:
        """The 16 labels of the reconstruction challenge (1–6 deep nuclei … 16 calcification)."""
        table = torch.zeros(max(CHALLENGE_GROUP) + 1, dtype=torch.int16)
        for number, group in CHALLENGE_GROUP.items():
            table[number] = group
        return table[self.labels.long()]


@dataclass(frozen=True)
class DigitalHead:
    """A person: anatomy, tissue and lesions follow from the seed and these settings.

    Cortex and white matter start from the MNI152 tissue maps, warped at random; the rest are smooth shapes at
    atlas coordinates. Recipe after Marques 2021, MRM 86:526, doi:10.1002/mrm.28716. Two calls with the same
    settings give the same head, whatever the grids. Costs about 0.6 CPU-seconds and 50 MB a million voxels,
    and 6 s once a process to draw the atlas.
    """

    seed: int = 0
    """Person; the same number gives the same person."""
    age_years: float = 40.0
    """Age [years], 0 to 120: iron of the deep nuclei grows with it."""
    variation: float = 1.0
    """How much the person's shape and tissue differ from the atlas; 0 gives the symmetric atlas itself."""
    angles_deg: Vector = (0.0, 0.0, 0.0)
    """Pitch, roll and yaw of the head in the scanner [degrees]."""
    centre_mm: Vector = (0.0, 14.0, 11.0)
    """Scanner position of the atlas origin (near the anterior commissure) [mm]."""
    ms_lesions: int = 0
    """Number of MS lesions: hyperintense, isointense and rim lesions in turn, each with a central vein."""
    microbleeds: int = 0
    """Number of microbleeds."""
    calcifications: int = 0
    """Number of calcifications in the brain's substance."""

    def __post_init__(self) -> None:
        if not 0 <= self.variation <= 1.5:
            raise ValueError(f"a variation of {self.variation} would fold the anatomy: choose 0 to 1.5")

    def warp(self) -> Warp:
        """Scanner to atlas coordinates."""
        return person(self.seed, self.variation, self.angles_deg, self.centre_mm)

    def __call__(self, grid: Grid, b0_tesla: float = 3.0) -> Head:
        """Sample this person on `grid` at the field strength `b0_tesla` [T]."""
        if not 0.01 < b0_tesla < 30:
            raise ValueError(f"B0 of {b0_tesla} T is not a field strength: give it in tesla")
        return _Painter(self, grid, b0_tesla).paint()


@lru_cache(maxsize=2)
def _textures(seed: int) -> tuple[Volume, Volume]:
    """Smooth random fields of unit variance in atlas coordinates: fine in the brain, coarse in the head."""
    rng = np.random.default_rng([seed, 5])
    fine = torch.stack([smooth_noise((100, 124, 108), s, rng) for s in (0.9, 2.2)])
    coarse = smooth_noise((60, 76, 74), 1.5, rng)[None]
    return Volume(fine, (-100.0, -140.0, -100.0), 2.0), Volume(coarse, (-120.0, -160.0, -180.0), 4.0)


@lru_cache(maxsize=2)
def _anatomy(who: DigitalHead) -> tuple[Warp, list[Vessel], tuple[Lesion, ...]]:
    warp = who.warp()
    outer = surfaces()
    at = SURFACES.index("inner")
    inner = Volume(outer.data[at : at + 1], outer.origin_mm, outer.step_mm)
    veins = venous_tree(inner, who.seed, who.variation)
    lesions, central = place(warp, inner, who.seed, who.ms_lesions, who.microbleeds, who.calcifications)
    return warp, veins + central, lesions


@lru_cache(maxsize=1)
def _nuclei() -> Volume:
    """Signed distances of the right nuclei on a 0.75 mm grid in atlas coordinates."""
    origin, step, shape = (-1.0, -72.0, -48.0), 0.75, (58, 152, 110)
    axes = [o + step * torch.arange(n) for o, n in zip(origin, shape, strict=True)]
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    out = torch.full((len(NUCLEI), *shape), -8.0)
    for n, name in enumerate(NUCLEI):
        low, high = bounds(name)
        at = [
            slice(max(int((a - 4 - o) / step), 0), max(int((b + 4 - o) / step) + 1, 0))
            for a, b, o in zip(low, high, origin, strict=True)
        ]
        out[n, at[0], at[1], at[2]] = nucleus(name, p[at[0], at[1], at[2]]).clamp(min=-8)
    return Volume(out, origin, step)


class _Painter:
    """Lays tissues over one another: each covers a share of what lies below."""

    def __init__(self, who: DigitalHead, grid: Grid, b0_tesla: float) -> None:
        self.who, self.grid, self.b0 = who, grid, b0_tesla
        self.warp, self.veins, self.lesions = _anatomy(who)
        self.table = tissues(who.age_years, who.seed, who.variation)
        self.fine, self.coarse = _textures(who.seed)
        self.edge = max(float(np.mean(grid.voxel_mm)), 0.3)
        self.maps = torch.empty(len(PROPERTIES), *grid.shape)
        self.labels = torch.empty(grid.shape, dtype=torch.int16)
        self.most = torch.empty(grid.shape)
        self.brain = torch.zeros(grid.shape, dtype=torch.bool)

    def row(self, label: str) -> Float[Tensor, "property"]:
        """Properties of a label's tissue, in the order of `PROPERTIES`."""
        t, b = self.table[tissue_of(LABEL_OF[label])], self.b0
        return torch.tensor([t.chi_ppm, t.r2star_per_s(b), t.r1_per_s(b), t.m0, t.shift_ppm * t.m0])

    def paint(self) -> Head:
        self._large()
        self._eyes()
        self._plexus()
        self._lesions(("lesion hyperintense", "lesion isointense", "lesion rim"))
        self._veins()
        self._lesions(("microbleed", "calcification"))
        return self._finish()

    def _large(self) -> None:
        """Scalp, skull, air, CSF, cortex, white matter and nuclei."""
        names = [*LAYERS, *(f"{n} {side}" for n in NUCLEI for side in ("left", "right"))]
        texture = [self.table[tissue_of(LABEL_OF[n])].chi_texture_ppm for n in names]
        rows = torch.cat([torch.stack([self.row(n) for n in names]), torch.tensor(texture)[:, None]], 1)
        special = ("lateral ventricle", "third ventricle", "fourth ventricle", "cerebellar cortex")
        fill(
            (
                np.asarray(self.grid.affine, dtype=float),
                self.warp.matrix.double().numpy(),
                np.asarray(self.warp.centre_mm, dtype=float),
            ),
            (self.warp.shift, surfaces(), brain_maps(), self.fine, self.coarse, _nuclei()),
            rows.double().numpy(),
            np.array([LABEL_OF[n] for n in names], dtype=np.int16),
            np.array([LABEL_OF[n] for n in special], dtype=np.int16),
            self.who.variation,
            (self.maps.numpy(), self.labels.numpy(), self.most.numpy(), self.brain.numpy()),
        )

    def _window(self, low: Vector, high: Vector, margin_mm: float = 3.0) -> tuple[slice, slice, slice] | None:
        """Voxels that may hold a box of atlas space; None if it lies off the grid."""
        axes = [torch.linspace(a, b, 5) for a, b in zip(low, high, strict=True)]
        corners = self.warp.back(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
        return self._around(corners, margin_mm)

    def _around(self, points: Float[Tensor, "n 3"], margin_mm: float) -> tuple[slice, slice, slice] | None:
        a = torch.linalg.inv(torch.tensor(self.grid.affine, dtype=torch.float64))
        at = (points.double() @ a[:3, :3].T + a[:3, 3]).numpy()
        room = margin_mm / np.asarray(self.grid.voxel_mm)
        low = np.floor(at.min(0) - room).astype(int).clip(0)
        high = np.minimum(np.ceil(at.max(0) + room).astype(int) + 1, self.grid.shape)
        if (high <= low).any():
            return None
        return tuple(slice(int(i), int(j)) for i, j in zip(low, high, strict=True))  # type: ignore[return-value]

    def _scanner(self, at: tuple[slice, slice, slice]) -> Float[Tensor, "x y z 3"]:
        start = tuple(s.start for s in at)
        shape = tuple(s.stop - s.start for s in at)
        a = np.asarray(self.grid.affine)
        origin = a[:3, 3] + a[:3, :3] @ np.asarray(start)
        i, j, k = (torch.arange(n, dtype=torch.float32) for n in shape)
        m = torch.tensor(a[:3, :3], dtype=torch.float32)
        return (
            i[:, None, None, None] * m[:, 0]
            + j[None, :, None, None] * m[:, 1]
            + k[None, None, :, None] * m[:, 2]
            + torch.tensor(origin, dtype=torch.float32)
        )

    def _over(self, at: tuple[slice, slice, slice], alpha: Tensor, row: Tensor, label: int) -> None:
        """Cover the share `alpha` of the window with one tissue."""
        region = (slice(None), *at)
        self.maps[region] += alpha * (row[:, None, None, None] - self.maps[region])
        most = self.most[at] * (1 - alpha)
        new = alpha > most
        self.labels[at] = torch.where(new, torch.tensor(label, dtype=torch.int16), self.labels[at])
        self.most[at] = torch.where(new, alpha, most)

    def _eyes(self) -> None:
        """Globes with lenses, optic nerves and the straight muscles, in the fat of the orbits."""
        for sign in (-1.0, 1.0):
            xs = sorted((sign * 10.0, sign * 50.0))
            at = self._window((xs[0], 15, -58), (xs[1], 82, -20))
            if at is None:
                continue
            p = self.warp(self._scanner(at)) * torch.tensor([sign, 1.0, 1.0])
            near = surfaces()(p)[SURFACES.index("orbit")] > -3
            q = p[near]
            for tissue, shapes in EYE:
                alpha = torch.zeros(near.shape)
                alpha[near] = coverage(torch.stack([shape(q) for shape in shapes]).amax(0), self.edge)
                name = "eye" if tissue == "eye" else "muscle"
                self._over(at, alpha * ~self.brain[at], self.row(tissue), LABEL_OF[name])

    def _plexus(self) -> None:
        for sign in (-1.0, 1.0):
            xs = sorted((sign * 10.0, sign * 36.0))
            at = self._window((xs[0], -50, -20), (xs[1], -12, 20))
            if at is None:
                continue
            p = self.warp(self._scanner(at)) * torch.tensor([sign, 1.0, 1.0])
            rough = self.fine(p)[0]
            alpha = coverage(PLEXUS(p) + 0.7 * self.who.variation * rough, self.edge)
            alpha *= self.labels[at] == LABEL_OF["lateral ventricle"]
            self._over(at, alpha, self.row("choroid plexus"), LABEL_OF["choroid plexus"])

    def _lesions(self, kinds: tuple[str, ...]) -> None:
        rng = np.random.default_rng([self.who.seed, 6])
        for lesion in self.lesions:
            wide = rng.standard_normal(3)
            if lesion.kind not in kinds:
                continue
            reach = max(lesion.semi_mm) * 1.4
            corners = torch.cartesian_prod(*[torch.tensor([-reach, reach])] * 3)
            at = self._around(torch.tensor(lesion.centre_mm) + corners, 2.0)
            if at is None:
                continue
            p = self._scanner(at)
            d = ellipsoid(p, lesion.centre_mm, lesion.semi_mm, lesion.axis, tuple(map(float, wide)))  # type: ignore[arg-type]
            if lesion.kind in ("lesion hyperintense", "lesion isointense", "lesion rim"):
                d = d + 0.12 * min(lesion.semi_mm) * self.fine(self.warp(p))[1]
            edge = max(self.edge, 0.6)
            self._over(at, coverage(d, edge), self.row(lesion.kind), LABEL_OF[lesion.kind])
            if lesion.kind == "lesion rim":
                core = coverage(d - min(1.2, 0.4 * min(lesion.semi_mm)), edge)
                self._over(at, core, self.row("lesion core"), LABEL_OF["lesion core"])

    def _veins(self) -> None:
        affine = torch.tensor(self.grid.affine, dtype=torch.float64)
        maps, labels, most = self.maps.flatten(1), self.labels.flatten(), self.most.flatten()
        for kind in ("dural sinus", "cortical vein", "deep vein"):
            chosen = [v for v in self.veins if v.kind == kind]
            share = occupancy(chosen, self.warp, self.grid.shape, affine, self.grid.voxel_mm).flatten()
            filled = share.nonzero()[:, 0]
            alpha = share[filled]
            maps[:, filled] += alpha * (self.row(kind)[:, None] - maps[:, filled])
            rest = most[filled] * (1 - alpha)
            labels[filled] = torch.where(alpha > rest, LABEL_OF[kind], labels[filled].int()).to(torch.int16)
            most[filled] = torch.maximum(alpha, rest)

    def _finish(self) -> Head:
        """Settle the mask, and hand everything over."""
        chi, r2star, r1, m0, fat = self.maps
        allowed = torch.zeros(max(LABELS) + 1, dtype=torch.bool)
        allowed[list(BRAIN_LABELS)] = True
        brain = self.brain & allowed[self.labels.int()]
        shift = fat.div_(m0.clamp(min=0.01))
        r2star.clamp_(min=0.1)
        m0.clamp_(0, 1.1)
        return Head(self.grid, chi, r2star, r1, m0, shift, self.labels, brain, self.b0, self.lesions)

"""All about every lesion of one scan: the list that a reader or a table starts from."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int32
from torch import Tensor

from k2chi.data import Chi, Grid
from k2chi.measure.lesions.exclude import Exclusion
from k2chi.measure.lesions.layers import Bin, Contrast, Layers, Rim
from k2chi.measure.lesions.native import Fate, ToNative
from k2chi.measure.lesions.parts import Labels
from k2chi.measure.lesions.shape import Shape, shapes
from k2chi.measure.lesions.vein import CentralVein, Vein
from k2chi.progress import track

Volume = Float[Tensor, "x y z"]
Drawn = Int32[Tensor, "i j k"]
PPB_LIKE = 5.0
"""Standard deviation [ppm] that no susceptibility map of a brain has: it is in ppb."""


@dataclass(frozen=True)
class Lesion:
    """One lesion: place and size, fate on the way to χ's grid, reasons to leave it out, and its looks."""

    shape: Shape
    fate: Fate
    in_mask: float
    """Share of its voxels on χ's grid that lie in the mask, 0 to 1."""
    excluded: tuple[str, ...]
    """Why it is left out; nothing if it may stay."""
    chi: Contrast
    """χ inside and around [ppm]."""
    rim: Rim
    """Rim on χ [ppm]."""
    vein: Vein
    """Central vein, on the image `vein_on`."""
    vein_on: Literal["chi", "magnitude", "swi"]
    profile: tuple[Bin, ...]
    """χ across the edge [ppm]."""
    more: dict[str, Contrast]
    """Other maps inside and around, by name."""


@dataclass(frozen=True, eq=False)
class Found:
    """The lesions of one scan, and their numbers on χ's grid."""

    lesions: tuple[Lesion, ...]
    labels: Labels


@dataclass(frozen=True)
class LesionList:
    """Numbered lesions, brought to χ's grid, measured there, and judged by rules that are stated.

    Sizes and the rules on size and confluence look at the lesions as they were drawn; values come from χ's
    own grid, which is never resampled. Every number is kept for lesions that are left out, as far as it is
    defined. The numbers describe; whether a lesion has a rim or a central vein is for a reader to say.
    """

    native: ToNative = ToNative()
    """How lesions come to χ's grid."""
    exclusion: Exclusion = Exclusion()
    """Which lesions are left out."""
    layers: Layers = Layers()
    """What counts as rim, core and surroundings."""
    vein: CentralVein = CentralVein()
    """How a central vein is looked for."""
    whole: float = 0.9
    """Share of a lesion in χ's mask and array, 0 to 1, below which it is cut and left out."""

    def __post_init__(self) -> None:
        if not 0 <= self.whole <= 1:
            raise ValueError(f"whole {self.whole}: choose a share from 0 to 1")

    def __call__(
        self,
        labels: Drawn,
        drawn: Grid,
        chi: Chi,
        magnitude: Volume | None = None,
        swi: Volume | None = None,
        r2star_per_s: Volume | None = None,
    ) -> Found:
        """Measure the lesions `labels`, drawn on the grid `drawn`; veins on SWI, else magnitude, else χ.

        Raises ValueError if grids do not overlap, or if χ looks like ppb.
        """
        if (spread := float(chi.ppm[chi.mask].std())) > PPB_LIKE:
            raise ValueError(f"χ spreads by {spread:.3g}, which looks like ppb: divide it by 1000")
        moved = self.native(labels, drawn, chi.grid)
        out = self.exclusion(labels, drawn)
        windows = {w.label: w for w in self.layers.windows(moved.labels, chi)}
        others = {"magnitude": magnitude, "swi": swi, "r2star": r2star_per_s}
        given = {k: v for k, v in others.items() if v is not None}
        on: Literal["chi", "magnitude", "swi"] = (
            "swi" if swi is not None else "magnitude" if magnitude is not None else "chi"
        )
        image, dark = given.get(on, chi.ppm), on != "chi"
        rows, seen = [], shapes(labels, drawn)
        for i in track(len(seen), "lesions"):
            shape, fate = seen[i], moved.fates[i]
            at = windows.get(shape.label)
            inside = float((at.lesion & at.usable).sum() / at.lesion.sum()) if at else 0.0
            rows.append(
                Lesion(
                    shape=shape,
                    fate=fate,
                    in_mask=inside,
                    excluded=(*out[shape.label], *self._cut(fate, inside)),
                    chi=self.layers.contrast(chi.ppm, at) if at else Contrast(),
                    rim=self.layers.rim(chi.ppm, at) if at else Rim(),
                    vein=self.vein(image, at, dark) if at else Vein(),
                    vein_on=on,
                    profile=self.layers.profile(chi.ppm, at) if at else (),
                    more={k: self.layers.contrast(v, at) if at else Contrast() for k, v in given.items()},
                )
            )
        return Found(tuple(rows), moved.labels)

    def _cut(self, fate: Fate, inside: float) -> list[str]:
        """Reasons that follow from χ's grid and mask."""
        if fate.lost:
            return [f"vanished on χ's grid: {fate.lost}"]
        why = []
        if 1 - fate.off_grid < self.whole:
            why.append(f"cut: {fate.off_grid:.0%} lies off χ's grid")
        if inside == 0:
            why.append("outside the mask")
        elif inside < self.whole:
            why.append(f"cut by the mask: {inside:.0%} lies inside")
        return why


def kept(found: Found) -> list[int]:
    """Numbers of the lesions that may stay."""
    return [x.shape.label for x in found.lesions if not x.excluded]


def reasons(found: Found) -> dict[str, int]:
    """How many lesions each rule leaves out; one lesion may count under several."""
    counts: dict[str, int] = {}
    for lesion in found.lesions:
        for kind in {w.split(":")[0] for w in lesion.excluded}:
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))

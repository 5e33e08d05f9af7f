"""How well two scans lie on one another, as numbers and in words."""

from dataclasses import dataclass, fields
from math import isnan, nan

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Grid
from k2chi.measure.residual import Octant, local_correlation, octants
from k2chi.measure.space import Transform, Warp, centres

Image = Float[Tensor, "x y z"]
Mask = Bool[Tensor, "x y z"]


FAR_MM = 1.0
"""Misplacement of an eighth of the brain that is warned of [mm]; good registrations leave up to 0.5."""


@dataclass(frozen=True)
class Alignment:
    """Quality of a registration. No number replaces a look at the overlay."""

    mask_dice: float = nan
    """Dice overlap of the two brain masks after registration, 0 to 1; nan without masks."""
    lncc: float = nan
    """Local correlation of the two images: mean of r² in windows of 15 mm inside the mask, 0 to 1."""
    lncc_before: float = nan
    """The same before registration, by the headers alone."""
    jacobian_low: float = 1.0
    """First percentile of the volume change inside the mask; 1 keeps volume."""
    jacobian_high: float = 1.0
    """99th percentile of it."""
    folded: float = 0.0
    """Share of the mask where the transform folds over itself (volume change of 0 or less)."""
    turn_deg: float = 0.0
    """Angle of the rotation [degrees]."""
    shift_mm: float = 0.0
    """Mean distance by which the mask's voxels move [mm]."""
    octants: tuple[Octant, ...] = ()
    """By how much each eighth of the brain is still misplaced, as far as the images tell."""

    @property
    def told(self) -> tuple[Octant, ...]:
        """The eighths that can be judged, the best placed first."""
        return tuple(sorted((o for o in self.octants if o.apart_mm == o.apart_mm), key=lambda o: o.apart_mm))

    @property
    def residual_mm(self) -> float:
        """Mean misplacement over the eighths [mm]; nan where none can be judged."""
        return sum(o.apart_mm for o in self.told) / len(self.told) if self.told else nan

    @property
    def worst_mm(self) -> float:
        """Misplacement of the worst eighth [mm]."""
        return self.told[-1].apart_mm if self.told else nan

    def numbers(self) -> dict[str, object]:
        """All of it for a record; None stands for what cannot be told."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "octants"}
        plain |= {"residual_mm": self.residual_mm, "worst_mm": self.worst_mm}
        out: dict[str, object] = {k: _rounded(v) for k, v in plain.items()}
        return out | {"octants_mm": {o.where: _rounded(o.apart_mm) for o in self.octants}}


def _rounded(x: float) -> float | None:
    return None if isnan(x) else round(x, 5)


def dice(a: Mask, b: Mask) -> float:
    """Twice what both have in common over the sum of both; nan if both are empty."""
    both = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / both if both else nan


def jacobian(transform: Transform, grid: Grid) -> Float[np.ndarray, "x y z"]:
    """Volume in the moving scan over that in the fixed one, at each voxel; 0 or less is a fold."""
    if not any(isinstance(s, Warp) for s in transform.steps):
        return np.full(grid.shape, np.linalg.det(np.asarray(transform.matrix)[:3, :3]))
    at = transform(centres(grid))
    slopes = np.stack([np.gradient(at, axis=k) for k in range(3)], -1)
    out: np.ndarray = np.linalg.det(slopes) / np.linalg.det(np.asarray(grid.affine)[:3, :3])
    return out


def aligned(
    fixed: Image,
    moved: Image,
    before: Image,
    masks: tuple[Mask, Mask] | None,
    transform: Transform,
    grid: Grid,
) -> Alignment:
    """Judge `moved`, the moving image on the fixed grid, beside the fixed one; `before` is it by headers."""
    inside = (
        masks[0] if masks else fixed > 0.1 * float(fixed.flatten()[:: max(fixed.numel() // 100_000, 1)].max())
    )
    change = jacobian(transform, grid)[inside.numpy()]
    low, high = (np.percentile(change, q) for q in (1, 99)) if len(change) else (nan, nan)
    at = centres(grid)[inside.numpy()]
    way = transform(at) - at
    first = next((np.asarray(s)[:3, :3] for s in transform.steps if not isinstance(s, Warp)), np.eye(3))
    u, _, v = np.linalg.svd(first)
    cosine = (np.trace(u @ v) - 1) / 2
    return Alignment(
        mask_dice=dice(*masks) if masks else nan,
        lncc=local_correlation(fixed, moved, inside, grid),
        lncc_before=local_correlation(fixed, before, inside, grid),
        jacobian_low=float(low),
        jacobian_high=float(high),
        folded=float((change <= 0).mean()) if len(change) else nan,
        turn_deg=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        shift_mm=float(np.linalg.norm(way, axis=-1).mean()) if len(way) else nan,
        octants=octants(fixed, moved, inside, grid),
    )


def warnings(found: Alignment, warped: bool) -> tuple[str, ...]:
    """What looks wrong with a registration, in words; nothing if nothing does."""
    said = []
    if found.mask_dice < (0.92 if warped else 0.85):
        said.append(
            f"the brain masks overlap by a Dice of only {found.mask_dice:.2f}: one mask may hold skull or "
            "lack brain, or the registration failed; look at the overlay"
        )
    if found.octants and not found.told:
        said.append(
            f"the images resemble each other too little to judge (local correlation {found.lncc:.2f}): they "
            "may have different contrasts, or the registration failed; look at the overlay"
        )
    if poor := [o for o in reversed(found.told) if o.apart_mm > FAR_MM]:
        places = ", ".join(f"{o.where} by {o.apart_mm:.1f} mm" for o in poor[:4])
        more = f" and {len(poor) - 4} more eighths of the brain" if len(poor) > 4 else ""
        said.append(f"the images would fit better if moved: {places}{more}; look there in the overlay")
    if found.lncc < found.lncc_before - 0.02:
        said.append(
            f"the images resemble each other less than before (local correlation {found.lncc_before:.2f} by "
            f"headers, {found.lncc:.2f} now): the registration made it worse; do not use it"
        )
    if found.folded > 1e-4:
        said.append(f"the warp folds over itself in {found.folded:.2%} of the brain: labels there are torn")
    if warped and (found.jacobian_low < 0.2 or found.jacobian_high > 5):
        said.append(
            f"volumes change by factors of {found.jacobian_low:.2f} to {found.jacobian_high:.2f}: more than "
            "brains differ; look at the overlay"
        )
    return tuple(said)

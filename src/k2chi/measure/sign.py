"""Which sign the phase has: vendors differ, and a wrong one turns every vein into calcium."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Field, as_affine
from k2chi.invert.tkd import TKD
from k2chi.ops.sphere import spherical_mean

COARSE_MM = 2.0
"""Voxel size at which the question is answered [mm]; finer adds cost, not evidence."""
UNSURE = 0.25
"""Evidence below which the sign counts as unknown [0 to 1]."""


@dataclass(frozen=True)
class Sign:
    """What three independent traits of a brain say; each −1 to 1, positive if phase grows with the field."""

    dark: float | None
    """Dark or fast-decaying spots (veins, deep nuclei) are paramagnetic."""
    skew: float
    """Strong sources inside a brain are paramagnetic more often than not; the weakest of the three."""
    air: float | None
    """Air sinuses raise the field of the brain next to them."""

    @property
    def evidence(self) -> float:
        """Their mean, the second counting half; its sign is the answer."""
        known = [(v, w) for v, w in ((self.dark, 1.0), (self.skew, 0.5), (self.air, 1.0)) if v is not None]
        return sum(v * w for v, w in known) / sum(w for _, w in known)

    @property
    def sure(self) -> bool:
        return abs(self.evidence) >= UNSURE

    @property
    def value(self) -> int:
        """+1 if phase grows with the field, −1 if it must be turned round; +1 when unsure."""
        return -1 if self.sure and self.evidence < 0 else 1

    def __str__(self) -> str:
        named = (("dark spots", self.dark), ("strong sources", self.skew), ("field next to air", self.air))
        parts = ", ".join(f"{name} {value:+.2f}" for name, value in named if value is not None)
        if not self.sure:
            return f"sign of the phase not certain ({parts}): taken as it is; look whether veins are bright"
        if self.value > 0:
            return f"phase grows with the field, as it should ({parts})"
        return f"phase falls with the field: turned round ({parts})"


def _coarse(x: Float[Tensor, "x y z"], factor: tuple[int, int, int]) -> Float[Tensor, "X Y Z"]:
    pooled: Tensor = torch.nn.functional.avg_pool3d(x[None, None], factor)[0, 0]
    return pooled


def coarsen(field: Field) -> tuple[Field, tuple[int, int, int]]:
    """The field in voxels of about 2 mm, and how many voxels were averaged along each axis."""
    a, b, c = (max(1, round(COARSE_MM / v)) for v in field.grid.voxel_mm)
    factor = (a, b, c)
    share = _coarse(field.mask.float(), factor)
    mask = share > 0.99 if bool((share > 0.99).any()) else share > 0
    ppm = _coarse(field.ppm * field.mask, factor) / share.clamp(min=1e-6) * mask
    affine = np.asarray(field.grid.affine).copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.asarray(factor) - 1) / 2)
    affine[:3, :3] *= np.asarray(factor)
    x, y, z = ppm.shape
    grid = replace(field.grid, shape=(x, y, z), affine=as_affine(affine))
    return Field(ppm, mask, grid, field.scan, local=field.local), factor


def _dark_and_skew(local: Field, iron: Float[Tensor, "x y z"] | None) -> tuple[float | None, float]:
    """Contrast of the most iron-like spots, and the lean of the whole distribution, of a quick map."""
    chi = TKD(threshold=0.2)(local).ppm
    near = spherical_mean(local.grid, 10.0, chi.device)
    deep = spherical_mean(local.grid, 4.0, chi.device)(local.mask.float()) > 0.999
    if int(deep.sum()) < 500:
        deep = local.mask
    share = near(deep.float()).clamp(min=1e-3)

    def detail(x: Tensor) -> Tensor:
        return (x - near(x * deep) / share)[deep]

    inside = detail(chi)
    inside = ((inside - inside.median()) / inside.std().clamp(min=1e-9)).clamp(-8, 8)
    skew = float(inside.pow(3).mean())
    dark = None
    if iron is not None:
        spots = detail(iron)
        if float(spots.std()) > 0:
            dark = float(inside[spots > torch.quantile(spots, 0.98)].mean())
    return dark, skew


def _air(total: Field) -> float:
    """Lean of the field after a quadratic fit: peaks near air stand out, on the side of their sign."""
    where = total.mask.nonzero().double()
    p = (
        (where - where.mean(0))
        * torch.tensor(total.grid.voxel_mm, dtype=torch.float64, device=where.device)
        / 50
    )
    x, y, z = p.unbind(1)
    basis = torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], 1)
    value = total.ppm[total.mask].double()
    weight, rest, spread = torch.ones_like(value), value, value.std()
    for _ in range(8):  # iteratively reweighted: the peaks must not pull the fit
        fit = torch.linalg.lstsq(basis * weight[:, None], (value * weight)[:, None]).solution[:, 0]
        rest = value - basis @ fit
        spread = 1.4826 * rest.abs().median()
        weight = 1 / (rest.abs() / (2 * spread + 1e-12)).clamp(min=1)
    return float((rest / (spread + 1e-12)).clamp(-10, 10).pow(3).mean())


def phase_sign(
    local: Field,
    total: Field | None = None,
    magnitude: Float[Tensor, "x y z"] | None = None,
    r2star_per_s: Float[Tensor, "x y z"] | None = None,
) -> Sign:
    """Judge the sign of a local field by what brains have in common.

    Veins and deep nuclei hold iron: they decay fast and are paramagnetic. Air next to the brain is
    paramagnetic relative to tissue. A quick TKD map on 2 mm voxels is enough to see both.
    """
    small, factor = coarsen(local)
    iron = None
    if r2star_per_s is not None:
        iron = _coarse(r2star_per_s.clamp(0, 200), factor)
    elif magnitude is not None:
        floor = 0.05 * float(magnitude[local.mask].mean())
        iron = -_coarse((magnitude + floor + 1e-12).log(), factor)
    dark, skew = _dark_and_skew(small, iron)
    air = _air(coarsen(total)[0]) if total is not None else None

    def limited(value: float, scale: float) -> float:
        return max(-1.0, min(1.0, value / scale))

    return Sign(
        None if dark is None else limited(dark, 0.5),
        limited(skew, 0.4),
        None if air is None else limited(air, 5.0),
    )

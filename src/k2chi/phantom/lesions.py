"""Lesions of multiple sclerosis, microbleeds and calcifications: where they lie and how large they are."""

from dataclasses import dataclass

import numpy as np
import torch

from k2chi.data import Vector
from k2chi.phantom.cortex import brain_maps, crisp
from k2chi.phantom.nuclei import NUCLEI, nucleus, regions
from k2chi.phantom.veins import Vessel
from k2chi.phantom.warp import Volume, Warp

KINDS = ("lesion hyperintense", "lesion isointense", "lesion rim")
"""χ above white matter throughout; χ like white matter; a paramagnetic rim around the core."""


@dataclass(frozen=True)
class Lesion:
    """One lesion, as a reader would list it."""

    kind: str
    """Label name: one of `KINDS`, microbleed or calcification."""
    centre_mm: Vector
    """Centre in scanner coordinates [mm]."""
    semi_mm: Vector
    """Semi-axes [mm]; the first lies along its central vein."""
    axis: Vector
    """Direction of the central vein in scanner coordinates, a unit vector."""
    atlas_mm: Vector
    """Centre in atlas coordinates [mm]."""

    @property
    def volume_mm3(self) -> float:
        """Volume of the ellipsoid [mm³], before its wall is roughened."""
        return 4 / 3 * float(np.pi * np.prod(self.semi_mm))


def _vector(v: np.ndarray) -> Vector:
    return float(v[0]), float(v[1]), float(v[2])


def _candidates(warp: Warp, inner: Volume, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Atlas positions deep in white matter, with their distance to the lateral ventricles' course [mm]."""
    p = rng.uniform((-58, -85, -10), (58, 50, 55), (6000, 3))
    t = torch.as_tensor(p, dtype=torch.float32)
    _, white = crisp(brain_maps()(t))
    parts = regions(t)
    m = torch.cat([t[:, :1].abs(), t[:, 1:]], -1)
    nuclei = torch.stack([nucleus(n, m) for n in NUCLEI]).amax(0)
    good = (
        (white > 0.97) & (nuclei < -4) & (parts["brainstem"] < -3) & (inner(t)[0] > 12) & (t[:, 0].abs() > 8)
    )
    good &= parts["lateral ventricle"] < -1
    return p[good.numpy()], -parts["lateral ventricle"][good].numpy()


def place(
    warp: Warp, inner: Volume, seed: int, ms: int, microbleeds: int, calcifications: int
) -> tuple[tuple[Lesion, ...], list[Vessel]]:
    """Lesions of one person, and the central veins of the MS lesions.

    MS lesions keep near the ventricles, are 2–7 mm in semi-axis, do not touch one another, and take the
    three kinds in turn. Microbleeds are 1–2.5 mm; a calcification is an oval of 4 mm behind the thalamus.
    """
    if min(ms, microbleeds, calcifications) < 0:
        raise ValueError("a number of lesions below zero: give 0 or more")
    rng = np.random.default_rng([seed, 4])
    places, gap = _candidates(warp, inner, rng)
    if len(places) < ms + microbleeds:
        raise ValueError(
            f"{ms} lesions and {microbleeds} microbleeds do not fit into the white matter: ask for fewer"
        )
    near = np.argsort(gap + rng.exponential(6.0, len(gap)))
    anywhere = rng.permutation(len(places))
    found: list[Lesion] = []
    veins: list[Vessel] = []

    def put(kind: str, at: np.ndarray, semi: np.ndarray) -> bool:
        centre = warp.back(torch.as_tensor(at[None], dtype=torch.float32))[0].numpy()
        reach = semi.max()
        if any(np.linalg.norm(centre - f.centre_mm) < reach + max(f.semi_mm) + 3 for f in found):
            return False
        wall = np.array([np.sign(at[0]) * 14.0, np.clip(at[1], -50, 25), 16.0])
        go = (at - wall) / max(float(np.linalg.norm(at - wall)), 1e-6) + 0.3 * rng.standard_normal(3)
        go /= np.linalg.norm(go)
        tip = warp.back(torch.as_tensor((at + go)[None], dtype=torch.float32))[0].numpy() - centre
        tip /= np.linalg.norm(tip)
        found.append(Lesion(kind, _vector(centre), _vector(semi), _vector(tip), _vector(at)))
        if kind in KINDS:
            steps = np.linspace(-1.5, 1.5, 9)[:, None] * reach
            nodes = at + steps * go + 0.4 * np.sin(steps * 0.6) * np.roll(go, 1)
            radius = float(rng.uniform(0.3, 0.5))
            veins.append(Vessel("deep vein", tuple(_vector(n) for n in nodes), (radius,) * len(nodes)))
        return True

    for order, count, kinds in ((near, ms, KINDS), (anywhere, microbleeds, ("microbleed",))):
        done = 0
        for i in order:
            if done == count:
                break
            kind = kinds[done % len(kinds)]
            size = (
                float(np.clip(rng.lognormal(np.log(3.2), 0.4), 2, 6.5))
                if kind in KINDS
                else rng.uniform(1, 2.5)
            )
            stretch = rng.uniform(0.7, 1.0, 2) if kind in KINDS else np.ones(2)
            done += put(kind, places[i], size * np.array([1.0, *stretch]))
        if done < count:
            raise ValueError(f"only {done} of {count} lesions fit without touching: ask for fewer")
    for n in range(calcifications):
        side = -1 if n % 2 else 1
        semi = np.array([4.5, 3.6, 3.2]) * rng.uniform(0.9, 1.1)
        home = np.array([side * 19.0, -30.0 - 6 * (n // 2), 24.0 + 3 * (n // 2)])
        if not any(
            put("calcification", home + rng.uniform(-1, 1, 3) * reach, semi) for reach in range(1, 40)
        ):
            raise ValueError(f"only {n} of {calcifications} calcifications fit: ask for fewer")
    return tuple(found), veins

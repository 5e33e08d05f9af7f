"""How well a set of orientations determines susceptibility, before anything is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import acos, degrees, pi

import numpy as np

from k2chi.data import Vector


@dataclass(frozen=True)
class Conditioning:
    """What a set of B0 directions, seen from the head, can and cannot determine."""

    number: float
    """Largest over smallest of √ΣD² over all directions of k-space: noise is amplified that unevenly."""
    weak_share: float
    """Share of k-space where √(ΣD²/n) is below 0.05: there it is left to damping [0 to 1]."""
    widest_angle_deg: float
    """Largest angle between two of the directions, up and down being the same [degrees]."""

    def __str__(self) -> str:
        return (
            f"condition number {self.number:.3g}, {100 * self.weak_share:.2g} % of k-space weak, "
            f"directions up to {self.widest_angle_deg:.3g}° apart"
        )


def orientation_conditioning(b0_dirs: Sequence[Vector], samples: int = 20000) -> Conditioning:
    """Conditioning of COSMOS for these directions of B0 in voxel axes.

    Each direction leaves a cone of k-space undetermined, where D = 1/3 − (k·b)²/k² vanishes. Two cones still
    share up to four lines; those of three well spread directions share nothing. `samples` points, spread
    evenly over half the sphere, stand for all directions of k-space.
    """
    if not b0_dirs:
        raise ValueError("no orientation is given: COSMOS needs two or more")
    b = np.asarray(b0_dirs, dtype=float)
    lengths = np.linalg.norm(b, axis=1)
    if lengths.min() < 1e-9:
        raise ValueError("a direction of B0 has no length: give vectors in voxel axes")
    b = b / lengths[:, None]
    i = np.arange(samples) + 0.5
    z, turn = i / samples, pi * (1 + 5**0.5) * i
    k = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z])
    d2 = np.square(1 / 3 - np.square(b @ k)).sum(0)
    angles = [degrees(acos(min(abs(float(p @ q)), 1.0))) for p in b for q in b]
    return Conditioning(
        float(np.sqrt(d2.max() / max(d2.min(), 1e-30))),
        float((d2 / len(b) < 0.05**2).mean()),
        max(angles),
    )

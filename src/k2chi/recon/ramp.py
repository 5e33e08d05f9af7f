"""Readouts that were sampled while their gradient rose and fell, as images along the readout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex
from torch import Tensor


@dataclass(frozen=True)
class RampInverse:
    """Images along the readout from samples at uneven places, by the regularised inverse of their transform.

    x = (EᴴWE + λI)⁻¹ EᴴW y, E_jn = exp(−2πi k_j n)/√N, W the distance between samples: one small matrix
    for all readouts, made once.
    Rosenfeld 1998, MRM 40:14, doi:10.1002/mrm.1910400103 (inverse of the sampling matrix).
    No window has to be divided out, as after gridding, and nothing is interpolated in k-space. Where samples
    lie further apart than the field of view of the readout allows, the smallest image that explains them
    is taken. One product with a matrix of pixels × samples for each readout.
    """

    strength: float = 1e-6
    """λ over the largest eigenvalue of EᴴWE; larger: less noise from places that are hardly sampled."""

    def __post_init__(self) -> None:
        if not 0 < self.strength < 1:
            raise ValueError(f"RampInverse strength {self.strength} is out of range: choose 0 < strength < 1")

    def __call__(self, position: Sequence[float], points: int) -> Complex[Tensor, "point sample"]:
        """The matrix from samples at `position` [1/(`points` pixels)] to an image of `points` pixels, the
        middle at index points//2; the inverse of an orthonormal transform where samples are even."""
        k = torch.tensor(position, dtype=torch.float64)
        if k.abs().max() > 0.75 * points:
            raise ValueError(
                f"samples as far as {float(k.abs().max()):.1f} steps from the centre of {points} points: "
                "give positions in steps of 1/(field of view of the recorded samples)"
            )
        n = torch.arange(points, dtype=torch.float64) - points // 2
        e = torch.exp(-2j * torch.pi * k[:, None] * n / points) / points**0.5
        weighted = e.mH * _distance(k)
        normal = weighted @ e
        ridge = self.strength * float(torch.linalg.matrix_norm(normal, 2))
        inverse: Tensor = torch.linalg.solve(normal + ridge * torch.eye(points, dtype=e.dtype), weighted)
        return inverse


def _distance(k: Tensor) -> Tensor:
    """Half the distance between the neighbours of each position on either side, in any order."""
    order = torch.argsort(k)
    gaps = k[order].diff()
    if not len(gaps) or gaps.min() <= 0:
        raise ValueError("two samples of a readout lie at the same place: check the gradient's timing")
    width = torch.empty_like(k)
    width[order] = (torch.cat([gaps[:1], gaps]) + torch.cat([gaps, gaps[-1:]])) / 2
    return width

"""How alike two maps are in small neighbourhoods: structural similarity, and fine detail that is wrong."""

from math import nan

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Volume = Float[Tensor, "x y z"]
Mask = Bool[Tensor, "x y z"]


def xsim(a: Volume, t: Volume, mask: Mask) -> float:
    """Structural similarity tuned for χ in ppm: range 1 ppm, K = (0.01, 0.001), Gaussian σ 1.5 in 7³.

    Milovic et al. 2025, Magn Reson Med 93:411, doi:10.1002/mrm.30271. Sees an offset between the maps, so
    give both the same mean.
    """
    return similarity(a, t, mask, _gaussian(3), 1.0, (0.01, 0.001))


def xsim_uniform(a: Volume, t: Volume, mask: Mask) -> float:
    """XSIM as the public leaderboard (QSM-CI) computes it, with a flat 5³ window: not the same number."""
    return similarity(a, t, mask, torch.full((5,), 0.2, dtype=torch.float64), 1.0, (0.01, 0.001))


def ssim(a: Volume, t: Volume, mask: Mask, range_ppm: float) -> float:
    """Structural similarity in 3D, K = (0.01, 0.03), Gaussian σ 1.5 in 11³, for the given range [ppm].

    Wang et al. 2004, IEEE Trans Image Process 13:600, doi:10.1109/TIP.2003.819861. The wider the range, the
    higher the value: one calcification can lift it, which is why XSIM fixes the range.
    """
    return similarity(a, t, mask, _gaussian(5), range_ppm, (0.01, 0.03))


def ssim_challenge(a: Volume, t: Volume, mask: Mask) -> float:
    """SSIM of the 2016 challenge: both maps shifted and scaled together to 0 … 255, Gaussian σ 1.5 in 5³.

    Langkammer et al. 2018, Magn Reson Med 79:1661, doi:10.1002/mrm.26830. Least and largest value are those
    of both maps in the mask, so one outlier of the map itself can lift it. An offset between the maps counts.
    """
    if not mask.any():
        return nan
    both = torch.stack([a[mask], t[mask]])
    low, high = float(both.min()), float(both.max())
    return similarity(a - low, t - low, mask, _gaussian(2), high - low, (0.01, 0.03))


def similarity(
    a: Volume, t: Volume, mask: Mask, weights: Float[Tensor, " n"], range_ppm: float, k: tuple[float, float]
) -> float:
    """Mean over the mask of  (2μaμt + c1)(2σat + c2) / ((μa² + μt² + c1)(σa² + σt² + c2)),  c = (k · range)².

    `weights` is the window along each axis. Beyond the array's edge a window is cut, not filled.
    """
    if not mask.any() or not range_ppm > 0:
        return nan
    c1, c2 = ((f * range_ppm) ** 2 for f in k)
    x, y, inside = _crop(a, t, mask, len(weights) // 2)

    def mean(v: Tensor) -> Tensor:
        for axis in range(3):
            v = _along(v, axis, weights)
            whole = torch.ones(x.shape[axis], dtype=x.dtype, device=x.device)
            v /= _along(whole, 0, weights).reshape([-1 if i == axis else 1 for i in range(3)])
        return v

    mx, my = mean(x), mean(y)
    above = 2 * (mean(x * y) - mx * my) + c2
    below = mean(x * x + y * y) - mx * mx - my * my + c2
    above *= 2 * mx * my + c1
    below *= mx * mx + my * my + c1
    return float((above[inside] / below[inside]).mean())


def hfen(a: Volume, t: Volume, mask: Mask, sigma: float = 1.5) -> float:
    """High-frequency error norm [%]: 100 ‖L(a − t)‖ / ‖L t‖ in the mask, L the Laplacian of a Gaussian.

    Langkammer et al. 2018, Magn Reson Med 79:1661, doi:10.1002/mrm.26830. `sigma` is in voxels. Both maps
    are zero outside the mask before they are filtered, or bone and air in the truth would dominate.
    """
    if not mask.any():
        return nan
    radius = int(5 * sigma + 0.5)
    g = _gaussian(radius, sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    curved = g * (steps.square() / sigma**4 - 1 / sigma**2)
    x, y, inside = _crop(a, t, mask, radius)

    def norm(v: Tensor) -> float:
        smooth, bent = _along(v, 0, g), _along(v, 0, curved)
        smooth, bent = _along(smooth, 1, g), _along(bent, 1, g).add_(_along(smooth, 1, curved))
        return float(_along(bent, 2, g).add_(_along(smooth, 2, curved))[inside].norm())

    below = norm(y)
    return 100 * norm(x - y) / below if below > 0 else nan


def _gaussian(radius: int, sigma: float = 1.5) -> Tensor:
    w = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma).square())
    return w / w.sum()


def _crop(a: Volume, t: Volume, mask: Mask, margin: int) -> tuple[Tensor, Tensor, Tensor]:
    """The box around the mask with a margin, as far as the array goes; maps zero outside the mask, double."""
    box = []
    for axis in range(3):
        found = mask.movedim(axis, 0).flatten(1).any(1).nonzero()
        box.append(slice(max(int(found[0]) - margin, 0), int(found[-1]) + margin + 1))
    at, inside = (box[0], box[1], box[2]), mask[box[0], box[1], box[2]]
    return a[at].double() * inside, t[at].double() * inside, inside


def _along(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """Correlate with a window along one axis, zeros beyond the edge."""
    radius, n = len(weights) // 2, x.shape[axis]
    out = torch.zeros_like(x)
    for i, w in enumerate(weights.tolist()):
        shift = i - radius
        length = n - abs(shift)
        if length > 0:
            source = x.narrow(axis, max(shift, 0), length)
            out.narrow(axis, max(-shift, 0), length).add_(source, alpha=w)
    return out

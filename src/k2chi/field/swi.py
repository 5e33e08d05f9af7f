"""Susceptibility-weighted images: phase made visible in the magnitude."""

from dataclasses import dataclass
from math import pi
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi import units
from k2chi.data import Echoes, Field, Grid
from k2chi.field.shapes import combined_magnitude
from k2chi.ops.smooth import gaussian
from k2chi.progress import track


@dataclass(frozen=True)
class SWI:
    """Darken the magnitude where the high-pass filtered phase tells of veins and iron.

    SWI = M · fⁿ with the phase mask f = 1 − φ/π for 0 < φ < π, 1 below and 0 above, and M the root sum of
    squares over echoes. φ is the field on a small scale as phase at one echo time, from all echoes with
    weights |S|²TE². Where phase is unwrapped, a Gaussian mean of it inside the mask is subtracted; where not,
    each echo is divided by its own Gaussian mean (homodyne filter), which leaves wraps where the field is
    steep. Both are done twice, since at the rim of the head a mean once taken leaves the slope of the field.

    Haacke et al. 2004, Magn Reson Med 52:612, doi:10.1002/mrm.20198.
    There phase falls where the field adds to B0, and the mask is the negative one. Here phase rises there, so
    veins along B0 and iron have φ > 0, and the positive side is the dark one; a vein across B0 has φ < 0
    inside and is dark beside itself. Calcium shows with `darkens="diamagnetic"`. Not quantitative.
    """

    power: int = 4
    """How often the phase mask is multiplied into the magnitude, 0 to 16; 4 is usual, more adds noise."""
    highpass_mm: float = 2.0
    """Standard deviation [mm] of the Gaussian mean that is removed from phase, above 0."""
    darkens: Literal["paramagnetic", "diamagnetic", "both"] = "paramagnetic"
    """Which side of phase is dark: where the field is raised, where it is lowered, or both."""
    te_s: float | None = None
    """Echo time [s] at which phase is taken; none takes the last echo's."""

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 16:
            raise ValueError(f"SWI power {self.power}: choose 0 to 16")
        if not self.highpass_mm > 0:
            raise ValueError(f"SWI highpass_mm {self.highpass_mm}: choose a width above 0 mm")
        if self.te_s is not None and not 0 < self.te_s < 0.5:
            raise ValueError(f"SWI te_s {self.te_s}: choose an echo time in seconds, or none")

    def __call__(self, echoes: Echoes, local: Field | None = None) -> Float[Tensor, "x y z"]:
        """The weighted magnitude in units of the signal; phase is that of the `local` field if given."""
        te = echoes.scan.te_s[-1] if self.te_s is None else self.te_s
        if local is None:
            phase = te * self._small_scale(echoes)
        else:
            phase = local.ppm * local.mask * units.rad_per_ppm(local.scan.b0_tesla, te)
        return combined_magnitude(echoes) * phase_mask(phase, self.darkens) ** self.power

    def _small_scale(self, echoes: Echoes) -> Float[Tensor, "x y z"]:
        """Field on a small scale [rad/s], from all echoes."""
        te, voxel = echoes.scan.te_s, echoes.grid.voxel_mm
        finite = echoes.signal.isfinite().all(0)
        inside = finite & (combined_magnitude(echoes) > 0)
        if echoes.mask is not None:
            inside = inside & echoes.mask
        share = gaussian(inside.to(echoes.signal.real.dtype), self.highpass_mm, voxel).clamp_min(1e-6)
        above = torch.zeros_like(echoes.signal[0].real)
        below = torch.zeros_like(above)
        for k in track(len(te), "high-pass filter"):
            s = torch.where(finite, echoes.signal[k], 0)
            if echoes.unwrapped_rad is not None:
                phase = echoes.unwrapped_rad[k] * inside
                for _ in range(2):
                    phase = (phase - gaussian(phase, self.highpass_mm, voxel) / share) * inside
            else:
                rest = s
                for _ in range(2):
                    mean = gaussian(rest, self.highpass_mm, voxel)
                    rest = rest * torch.sgn(mean).conj()
                phase = rest.angle()
            power = s.abs().square()
            above += power * te[k] * phase
            below += power * te[k] ** 2
        return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0)


def phase_mask(
    phase_rad: Float[Tensor, "*shape"], darkens: Literal["paramagnetic", "diamagnetic", "both"]
) -> Float[Tensor, "*shape"]:
    """1 where phase is zero or of the other sign, falling to 0 at half a turn."""
    dark = {"paramagnetic": phase_rad, "diamagnetic": -phase_rad, "both": phase_rad.abs()}[darkens]
    return 1 - dark.clamp(0, pi) / pi


def minimum_intensity_projection(
    image: Float[Tensor, "x y z"],
    thickness_mm: float,
    grid: Grid,
    mask: Bool[Tensor, "x y z"] | None = None,
) -> Float[Tensor, "x y z"]:
    """At each voxel the least value within a slab of `thickness_mm` along the axis nearest to B0.

    The slab is as many whole slices as fit best, centred (with an even number, one more lies before), and is
    cut off at the ends of the volume. Voxels outside the mask do not count and stay as they are.
    """
    if tuple(image.shape) != grid.shape:
        raise ValueError(f"the image has {tuple(image.shape)} voxels, but the grid has {grid.shape}")
    if not thickness_mm > 0:
        raise ValueError(f"a slab of {thickness_mm} mm has no thickness: choose one above 0 mm")
    axis = int(np.argmax(np.abs(grid.b0_dir)))
    slices = max(1, round(thickness_mm / grid.voxel_mm[axis]))
    seen = image if mask is None else torch.where(mask, image, torch.inf)
    columns = seen.movedim(axis, -1)
    before = slices // 2
    padded = torch.nn.functional.pad(columns, (before, slices - 1 - before), value=torch.inf)
    least = padded.unfold(-1, slices, 1).amin(-1).movedim(-1, axis)
    return least if mask is None else torch.where(mask, least, image)

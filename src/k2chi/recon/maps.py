"""How each coil sees each place, from the fully sampled centre of k-space."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex
from torch import Tensor

from k2chi.data import KSpace, Size, Vector
from k2chi.recon.adaptive import sensitivity_maps
from k2chi.recon.calibrate import calibration, interpolated, on_grid, windowed


@dataclass(frozen=True)
class AdaptiveMaps:
    """Take the coil pattern that dominates a small neighbourhood of a coarse image.

    The principal eigenvector of Σ s sᴴ over neighbours and echoes, in each point of an image of the centre of
    k-space; of unit length, its free phase made smooth so that it has no singularity (`free_phase`).

    Walsh et al. 2000, Magn Reson Med 43:682,
    doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G.
    Defined everywhere, also outside the head, where it is that of the nearest signal or noise. A point whose
    image is folded over shows one mixture of coils only: where the field of view is smaller than the head,
    take `ESPIRiT`. A second for 8 coils.
    """

    points: int = 32
    """Points of k-space about the centre that are used along each axis, where they are fully sampled."""
    radius: int = 1
    """Neighbours on each side, in points of the coarse image, over which coils are taken to see alike."""

    def __post_init__(self) -> None:
        if self.points < 6 or self.radius < 0:
            raise ValueError(
                f"AdaptiveMaps points {self.points}, radius {self.radius}: choose 6 or more, and 0 or more"
            )

    def __call__(self, kspace: KSpace) -> Complex[Tensor, "coil x y z"]:
        """One set of maps for all echoes, Σ|S|² = 1. The coils should be white."""
        centre = calibration(kspace, self.points)
        size = (centre.shape[2], centre.shape[3], centre.shape[4])
        images = on_grid(windowed(centre), size)
        radius = tuple(min(self.radius, (n - 1) // 2) for n in size)
        coarse = sensitivity_maps(images, spacing(kspace, size), (1, 1, 1), (radius[0], radius[1], radius[2]))
        return on_voxels(coarse, kspace.grid.shape)


def spacing(kspace: KSpace, size: Size) -> Vector:
    """Edges [mm] of the points of a coarse grid over the same field of view."""
    x, y, z = (v * n / m for v, n, m in zip(kspace.grid.voxel_mm, kspace.grid.shape, size, strict=True))
    return x, y, z


def on_voxels(coarse: Complex[Tensor, "coil i j k"], shape: Size) -> Complex[Tensor, "coil x y z"]:
    """Maps on the voxels, of unit length wherever there are any; one coil at a time."""
    out = coarse.new_empty((len(coarse), *shape))
    power = coarse.real.new_zeros(shape)
    for c, own in enumerate(coarse):
        fine = interpolated(torch.view_as_real(own.resolve_conj()).movedim(-1, 0), shape)
        out[c] = torch.complex(fine[0], fine[1])
        power += fine.square().sum(0)
    out *= torch.where(power > 1e-6, power.clamp_min(1e-6).rsqrt(), torch.zeros_like(power))
    return out

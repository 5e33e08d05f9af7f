"""Coil sensitivities as what the centre of k-space says about its own neighbourhoods."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import KSpace, Size
from k2chi.ops.fourier import SPACE
from k2chi.progress import track
from k2chi.recon.anchor import free_phase
from k2chi.recon.calibrate import calibration, interpolated, on_grid
from k2chi.recon.maps import on_voxels, spacing

SQUARINGS = 6
"""The matrix of each point to the power 2^6: where the second eigenvalue is 0.9, 0.1 % of it is left."""


@dataclass(frozen=True)
class ESPIRiT:
    """Find the coil patterns that every neighbourhood of k-space is made of.

    Neighbourhoods of n points in the calibration data span few of the dimensions there could be; P projects
    on them. In image space P falls apart into a small matrix for each place, M(r) = Σ_dd′ e^{2πi (d−d′)·r}
    P_dd′/n, and sensitivities are its eigenvector of eigenvalue 1.

    Uecker et al. 2014, Magn Reson Med 71:990, doi:10.1002/mrm.24751.
    Where no eigenvalue is near 1 there is no signal, or a fold: maps are zero there. M is found on a coarse
    grid and maps are interpolated as complex numbers, once their free phase is smooth without singularity
    (`free_phase`). The cost grows with (coils × kernel³)³: compress coils first. Seconds for 8 coils.
    """

    points: int = 24
    """Points of k-space about the centre that are used along each axis, where they are fully sampled."""
    kernel: int = 4
    """Edge of a neighbourhood in points of k-space."""
    threshold: float = 0.02
    """Singular values of the calibration data below this share of the largest are noise [0 to 1]."""
    crop: float = 0.85
    """Maps are zero where the largest eigenvalue is below this [0 to 1]; 0 keeps them everywhere."""
    grid: int = 48
    """Points of the coarse grid along each axis, at most those of the image."""

    def __post_init__(self) -> None:
        if not 1 < self.kernel <= self.points or self.grid < 2 * self.kernel:
            raise ValueError(
                f"ESPIRiT kernel {self.kernel}, points {self.points}, grid {self.grid}: "
                "choose 2 ≤ kernel ≤ points, and a grid of two kernels or more"
            )
        if not 0 < self.threshold < 1 or not 0 <= self.crop < 1:
            raise ValueError(
                f"ESPIRiT threshold {self.threshold}, crop {self.crop}: "
                "choose 0 < threshold < 1, 0 ≤ crop < 1"
            )

    def __call__(self, kspace: KSpace) -> Complex[Tensor, "coil x y z"]:
        """One set of maps for all echoes, Σ|S|² = 1 or zero. The coils should be white."""
        centre = calibration(kspace, self.points)
        shape = kspace.grid.shape
        size = tuple(min(self.grid, n) for n in shape)
        coarse: Size = (size[0], size[1], size[2])
        kernel = tuple(min(self.kernel, n) for n in centre.shape[-3:])
        p = signal_projector(centre, (kernel[0], kernel[1], kernel[2]), self.threshold)
        vectors, value = eigenmaps(p, coarse)
        strength = on_grid(centre, coarse).abs().square().sum((0, 1)) * value
        vectors *= free_phase(vectors, strength, spacing(kspace, coarse))
        maps = on_voxels(vectors, shape)
        maps *= interpolated(value, shape) >= self.crop
        return maps


def signal_projector(
    centre: Complex[Tensor, "echo coil rx ry rz"], kernel: Size, threshold: float
) -> Complex[Tensor, "coil i j k coil i j k"]:
    """On the space that neighbourhoods of the calibration data span, noise left out."""
    echoes, coils = centre.shape[:2]
    gram = centre.new_zeros((coils * prod(kernel),) * 2)
    for e in range(echoes):
        windows = centre[e].unfold(1, kernel[0], 1).unfold(2, kernel[1], 1).unfold(3, kernel[2], 1)
        rows = windows.permute(1, 2, 3, 0, 4, 5, 6)
        for plane in rows:  # one at a time: together they are kernel³ times the data
            flat = plane.reshape(-1, len(gram))
            gram += flat.mT @ flat.conj()
    power, vectors = torch.linalg.eigh(gram)
    v = vectors[:, power > threshold**2 * power[-1]]
    p: Tensor = (v @ v.mH).reshape(coils, *kernel, coils, *kernel)
    return p


def eigenmaps(
    p: Complex[Tensor, "coil i j k coil i j k"], grid: Size
) -> tuple[Complex[Tensor, "coil x y z"], Float[Tensor, "x y z"]]:
    """Leading eigenvector and eigenvalue of the projector at each point of an image."""
    coils, kernel = p.shape[0], p.shape[1:4]
    # Sum of P over all pairs of places with one distance.
    lags = p.new_zeros((coils, coils, *(2 * k - 1 for k in kernel)))
    i, j, k = kernel
    for a in range(i):
        for b in range(j):
            for c in range(k):
                near = lags[:, :, i - 1 - a :, j - 1 - b :, k - 1 - c :][:, :, :i, :j, :k]
                near += p[:, :, :, :, :, a, b, c].movedim(-1, 1)
    lags /= prod(kernel)
    m = p.new_zeros((prod(grid), coils, coils))
    for row in range(coils):
        folded = _wrapped(lags[row], grid)
        m[:, row] = torch.fft.ifftn(folded, dim=SPACE, norm="forward").reshape(coils, -1).T
    vectors = torch.empty_like(m[:, 0])
    value = vectors[:, 0].real.clone()
    for part in track(-(-len(m) // 2**14), "ESPIRiT"):
        here = slice(part * 2**14, (part + 1) * 2**14)
        vectors[here], value[here] = _leading(m[here])
    return vectors.T.reshape(coils, *grid).contiguous(), value.reshape(grid)


def _wrapped(lags: Complex[Tensor, "coil i j k"], grid: Size) -> Complex[Tensor, "coil x y z"]:
    """Distances −n … n as a transform wants them, distance 0 at index 0; longer ones than the grid fold."""
    out = lags
    for axis, n in zip(SPACE, grid, strict=True):
        length = out.shape[axis]
        at = (torch.arange(length, device=lags.device) - length // 2) % n
        shape = list(out.shape)
        shape[axis] = n
        out = out.new_zeros(shape).index_add_(out.ndim + axis, at, out)
    return out


def _leading(m: Complex[Tensor, "b c c"]) -> tuple[Complex[Tensor, "b c"], Float[Tensor, "b"]]:
    """Unit eigenvector and value of the largest eigenvalue, by repeated squaring."""
    tiny = torch.finfo(m.real.dtype).tiny
    power = m
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=1, dim2=2).real.sum(1).clamp_min(tiny)[:, None, None]
    column = power.diagonal(dim1=1, dim2=2).real.argmax(1)
    v = power.gather(2, column[:, None, None].expand(-1, m.shape[1], 1))
    v = v / v.abs().square().sum(1, keepdim=True).sqrt().clamp_min(tiny)
    return v[..., 0], (v.mH @ (m @ v)).real[:, 0, 0]

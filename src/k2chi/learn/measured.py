"""What a scanner and the steps before inversion make of χ: mask, field, background, noise and faults."""

from dataclasses import dataclass
from math import tau

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from k2chi.data import Grid, Size, Vector
from k2chi.learn.anatomy import noise_field
from k2chi.learn.batch import Draw
from k2chi.ops.dipole import dipole_kernel, fitting
from k2chi.ops.fourier import SPACE, convolution, crop_to
from k2chi.ops.linear import Linear


def blob(draw: Draw, n: int, shape: Size) -> Bool[Tensor, "n x y z"]:
    """A mask in each cube: an ellipsoid with bumps whose box is at most four fifths of the cube."""
    bumps = noise_field(draw, n, shape, 0.05, torch.full((n, 1, 1, 1), 3.0, device=draw.device))
    half = draw.uniform(n, 3, low=0.6, high=0.95)
    turn = [torch.linspace(-1, 1, s, device=draw.device) for s in shape]
    q2 = torch.zeros(n, *shape, device=draw.device)
    room = torch.ones(shape, dtype=torch.bool, device=draw.device)
    for i, axis in enumerate(turn):
        line = axis.reshape([-1 if i == j else 1 for j in range(3)])
        q2 = q2 + (line / half[:, i, None, None, None]).square()
        room = room & (line.abs() <= 0.8)
    return (q2.sqrt() + 0.12 * bumps * draw.uniform(n, 1, 1, 1) < 1) & room


def worn(draw: Draw, support: Bool[Tensor, "n x y z"], share: float) -> Bool[Tensor, "n x y z"]:
    """Where the field is known: in the share of cubes less than the support, by erosion or a lost chunk."""
    n, shape = support.shape[0], support.shape[-3:]
    eroded = ~(max_pool3d((~support).float()[:, None], 3, 1, 1)[:, 0] > 0)
    lost = noise_field(
        draw, n, (shape[0], shape[1], shape[2]), 0.05, torch.full((n, 1, 1, 1), 3.0).to(draw.device)
    )
    chunk = support & (lost < 1.2)
    eroded = torch.where(draw.happens(0.5, n, 1, 1, 1), eroded, chunk)
    kept = torch.where(draw.happens(share, n, 1, 1, 1), eroded, support)
    return torch.where(kept.flatten(1).any(1)[:, None, None, None], kept, support)


def two_fold(grid: Grid, device: torch.device) -> tuple[Linear, Size]:
    """The field of sources in a cube without wraps: the fitting kernel, on an array twice as large."""
    x, y, z = (2 * s for s in grid.shape)
    kernel = dipole_kernel(grid, (x, y, z), fitting(grid)).to(device)
    return convolution(kernel, (x, y, z), (x, y, z)), (x, y, z)


def outside_field(
    draw: Draw, d: Linear, wide: Size, support: Bool[Tensor, "n x y z"]
) -> Float[Tensor, "n x y z"]:
    """Field of air and bone around the support, harmonic within it, of unit size there and mean zero."""
    n = support.shape[0]
    shape = support.shape[-3:]
    rough = noise_field(draw, n, wide, 0.02, draw.uniform(n, 1, 1, 1, low=2.0, high=4.0))
    here = torch.zeros(n, *wide, dtype=torch.bool, device=draw.device)
    here[..., : shape[0], : shape[1], : shape[2]] = support
    air = (rough > draw.uniform(n, 1, 1, 1, low=0.5, high=1.8)).float() * 9.0
    bone = (rough < draw.uniform(n, 1, 1, 1, low=-1.8, high=-0.8)).float() * -2.0
    f = crop_to(d((air + bone) * ~here), (shape[0], shape[1], shape[2]))
    return unit(f, support)


def unit(f: Float[Tensor, "n x y z"], where: Bool[Tensor, "n x y z"]) -> Float[Tensor, "n x y z"]:
    """Mean zero and root mean square one within `where`."""
    w = where.to(f)
    count = w.sum(SPACE, keepdim=True).clamp_min(1)
    f = f - (f * w).sum(SPACE, keepdim=True) / count
    size = ((f * w).square().sum(SPACE, keepdim=True) / count).sqrt()
    return f / size.clamp_min(1e-9)


def decayed(chi: Float[Tensor, "*n x y z"]) -> Float[Tensor, "*n x y z"]:
    """Signal that is left at the echo: tissue of strong χ decays fast."""
    return (-2.0 * chi.abs()).exp()


def imaged(
    draw: Draw,
    field: Float[Tensor, "n X Y Z"],
    chi: Float[Tensor, "n X Y Z"],
    inside: Bool[Tensor, "n X Y Z"],
    mean: Float[Tensor, "n x y z"],
    rad_per_ppm: tuple[float, float],
) -> tuple[Float[Tensor, "n x y z"], Float[Tensor, "n x y z"]]:
    """Field [ppm] and magnitude as an image half as fine shows them, whose k-space a scanner cuts.

    So the field near edges and strong sources is no mean over the voxel: signal weighs it, k-space that ends
    rings. `mean` is that mean: phase is unwrapped onto it.
    """
    n, shape = field.shape[0], (field.shape[1], field.shape[2], field.shape[3])
    turn = draw.log_uniform(n, 1, 1, 1, low=rad_per_ppm[0], high=rad_per_ppm[1])
    grain = noise_field(draw, n, shape, 0.03, torch.full((n, 1, 1, 1), 2.5, device=draw.device))
    signal = decayed(chi) * (0.3 * draw.uniform(n, 1, 1, 1) * grain).exp()
    signal = torch.where(inside, signal, signal * draw.uniform(n, 1, 1, 1))  # bone is dark, fluid is not
    image = halved(torch.polar(signal, turn * field))
    off = (image * torch.polar(torch.ones_like(mean), -turn * mean)).angle() / turn
    return mean + off, image.abs()


def halved(x: Complex[Tensor, "n X Y Z"]) -> Complex[Tensor, "n x y z"]:
    """The image whose voxels are two of `x` along each axis, from the inner half of its frequencies."""
    for axis in SPACE:
        m = x.shape[axis]
        k = torch.fft.fft(x, dim=axis, norm="forward")
        k = torch.cat([k.narrow(axis, 0, (m // 2 + 1) // 2), k.narrow(axis, m - m // 4, m // 4)], axis)
        turns = torch.fft.fftfreq(m // 2, 1 / (m // 2), device=x.device) / (2 * m)  # voxels' middles
        ramp = torch.polar(torch.ones_like(turns), tau * turns)
        x = torch.fft.ifft(k * ramp.reshape([-1] + [1] * (-1 - axis)), dim=axis, norm="forward")
    return x


@dataclass(frozen=True)
class Measurement:
    """How noise and faults come into the field."""

    snr: tuple[float, float] = (10.0, 1000.0)
    """Range of the signal-to-noise ratio where the signal is strongest, even in its logarithm."""
    rad_per_ppm: tuple[float, float] = (8.0, 40.0)
    """Range of the phase of one ppm [rad]: 16 at 3 T and 20 ms."""
    faults: float = 0.1
    """Share of cubes with patches that are off by whole turns."""
    worn: float = 0.3
    """Share of cubes whose field is known in a part of the support only."""
    flat: float = 0.3
    """Share of cubes whose signal is the same everywhere: many scans come without weights."""

    def __call__(
        self,
        draw: Draw,
        field: Float[Tensor, "n x y z"],
        magnitude: Float[Tensor, "n x y z"],
        support: Bool[Tensor, "n x y z"],
    ) -> tuple[Float[Tensor, "n x y z"], Float[Tensor, "n x y z"], Float[Tensor, "n x y z"]]:
        """The field with noise and faults, its weight, and the noise's size; all zero outside the mask."""
        n = field.shape[0]
        shape: Size = (field.shape[1], field.shape[2], field.shape[3])
        sensitivity = noise_field(draw, n, shape, 0.03, torch.full((n, 1, 1, 1), 3.0, device=draw.device))
        signal = (0.3 * draw.uniform(n, 1, 1, 1) * sensitivity).exp() * magnitude
        mask = worn(draw, support, self.worn)
        signal = torch.where(draw.happens(self.flat, n, 1, 1, 1), torch.ones_like(signal), signal) * mask
        signal = signal / signal.amax(SPACE, keepdim=True).clamp_min(1e-9)
        turn = draw.log_uniform(n, 1, 1, 1, low=self.rad_per_ppm[0], high=self.rad_per_ppm[1])
        ratio = draw.log_uniform(n, 1, 1, 1, low=self.snr[0], high=self.snr[1])
        size = 1 / (ratio * turn * signal.clamp_min(0.02))
        noise = draw.normal(n, *shape) * size
        patch = noise_field(draw, n, shape, 0.08, torch.full((n, 1, 1, 1), 3.0, device=draw.device)) > 2.6
        wrong = patch & draw.happens(self.faults, n, 1, 1, 1)
        wrapped = torch.where(draw.happens(0.5, n, 1, 1, 1), tau / turn, -tau / turn)
        return (field + noise + wrong * wrapped) * mask, signal, size * mask


def geometry(
    draw: Draw, voxel_mm: tuple[float, float], anisotropy: float, oblique: float
) -> tuple[Vector, Vector]:
    """Voxel edges and B0; B0's components rise in size along the axes, as inference orders them."""
    size = float(draw.log_uniform(1, low=voxel_mm[0], high=voxel_mm[1]))
    if draw.number() < 0.35:
        v = [size, size, size]
    else:
        longest = float(draw.log_uniform(1, low=1.0, high=anisotropy))
        v = [size, size * longest ** draw.number(), size * longest]
        order = torch.randperm(
            3, generator=torch.Generator().manual_seed(int(draw.number() * 2**31))
        ).tolist()
        v = [min(max(v[i], voxel_mm[0]), voxel_mm[1]) for i in order]
    b = [0.0, 0.0, 1.0]
    if draw.number() < oblique:
        tilted = draw.directions(1)[0]
        if draw.number() < 0.7:  # most scans are tilted by some tens of degrees, not by any angle
            tilted = tilted * 0.5 + torch.tensor([0.0, 0.0, 1.0], device=tilted.device)
        tilted = tilted / tilted.norm()
        order = tilted.abs().argsort()
        b = tilted[order].tolist()
    return (v[0], v[1], v[2]), (b[0], b[1], b[2])

"""Fourier transforms over the last three axes, and arrays of sizes that transform fast."""

import ctypes
from functools import lru_cache

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from k2chi.data import Size
from k2chi.ops.linear import Linear

SPACE = (-3, -2, -1)


def keep_memory() -> bool:
    """Ask the C allocator to keep large blocks instead of handing each back to the system.

    A volume's FFT allocates blocks of tens of MB; fetching fresh pages for each costs three times the
    transform itself (192×216×216 on 2 cores: 152 ms against 33 ms). Linux with glibc only; elsewhere
    nothing happens. The command line and the benchmarks call this once; scripts may.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    m_trim_threshold, m_mmap_max = -1, -4
    return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1))


@lru_cache(maxsize=1024)
def fast_size(n: int) -> int:
    """The smallest even size ≥ n whose only prime factors are 2, 3 and 5.

    Sizes with a factor 7 or more cost up to four times as much in the libraries that torch calls.
    """
    m = n + n % 2
    while True:
        rest = m
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return m
        m += 2


def padded_size(shape: Size, factor: float = 1.0, least: int = 0) -> Size:
    """A fast size at least `factor` times as large, with at least `least` voxels more, on each axis."""
    x, y, z = (fast_size(max(int(-(-n * factor // 1)), n + least)) for n in shape)
    return x, y, z


def pad_to(x: Shaped[Tensor, "*batch x y z"], shape: Size) -> Shaped[Tensor, "*batch X Y Z"]:
    """Zeros behind the array on each axis. Undone by `crop_to`."""
    if tuple(x.shape[-3:]) == tuple(shape):
        return x
    out = x.new_zeros((*x.shape[:-3], *shape))
    out[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]] = x
    return out


def crop_to(x: Shaped[Tensor, "*batch X Y Z"], shape: Size) -> Shaped[Tensor, "*batch x y z"]:
    """The first `shape` voxels of each axis."""
    return x[..., : shape[0], : shape[1], : shape[2]]


def fft(x: Complex[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch x y z"]:
    """Orthonormal transform with the origin at index 0."""
    k: Tensor = torch.fft.fftn(x, dim=SPACE, norm="ortho")
    return k


def ifft(k: Complex[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch x y z"]:
    """Inverse (and adjoint) of `fft`."""
    x: Tensor = torch.fft.ifftn(k, dim=SPACE, norm="ortho")
    return x


def centred_fft(x: Complex[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch x y z"]:
    """Orthonormal transform with the origin at index n//2 on both sides, as scanners store k-space."""
    k: Tensor = torch.fft.fftshift(fft(torch.fft.ifftshift(x, dim=SPACE)), dim=SPACE)
    return k


def centred_ifft(k: Complex[Tensor, "*batch x y z"]) -> Complex[Tensor, "*batch x y z"]:
    """Inverse (and adjoint) of `centred_fft`."""
    x: Tensor = torch.fft.fftshift(ifft(torch.fft.ifftshift(k, dim=SPACE)), dim=SPACE)
    return x


def from_scanner(k: Complex[Tensor, "*batch x y z"], centre: Size) -> Complex[Tensor, "*batch x y z"]:
    """K-space as scanners store it, zero frequency at index `centre`, to that of `fft`.

    The image's origin, which scanners put at index n//2, comes to index 0 by a phase ramp, so that
    `ifft` gives the image in its natural order.
    """
    k = torch.roll(k, [-c for c in centre], SPACE)
    return k * _to_middle(k)


def to_scanner(k: Complex[Tensor, "*batch x y z"], centre: Size) -> Complex[Tensor, "*batch x y z"]:
    """Undoes `from_scanner`."""
    return torch.roll(k * _to_middle(k).conj(), list(centre), SPACE)


def _to_middle(k: Complex[Tensor, "*batch x y z"]) -> Complex[Tensor, "x y z"]:
    """exp(−2πi Σ f (n//2)): moves an image by n//2 voxels along each axis."""
    out = torch.ones(1, 1, 1, dtype=torch.complex128)
    for axis, n in enumerate(k.shape[-3:]):
        turn = torch.fft.fftfreq(n, dtype=torch.float64) * n * (n // 2) / n
        out = out * torch.exp(-2j * torch.pi * turn).reshape([-1 if a == axis else 1 for a in range(3)])
    return out.to(k)


FOURIER = Linear(fft, ifft)
CENTRED_FOURIER = Linear(centred_fft, centred_ifft)


def convolution(
    kernel: Complex[Tensor, "x y h"] | Shaped[Tensor, "x y h"], inner: Size, outer: Size
) -> Linear:
    """Convolve a real volume of size `inner` through real transforms of size `outer` ≥ inner.

    `kernel` is the multiplier on the half spectrum, `(outer[0], outer[1], outer[2]//2+1)`. A multiplier
    that is not even in k must be averaged over k and −k first, or half and full spectra disagree.
    """
    conjugate = kernel.conj() if kernel.is_complex() else kernel

    def by(h: Tensor, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfftn(x, s=outer, dim=SPACE)
        spectrum = spectrum * h if spectrum.requires_grad else spectrum.mul_(h)
        return crop_to(torch.fft.irfftn(spectrum, s=outer, dim=SPACE), inner)

    return Linear(lambda x: by(kernel, x), lambda y: by(conjugate, y))

"""What stands in for the part of k-space that partial Fourier leaves out."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from k2chi.ops.fourier import fft, ifft
from k2chi.recon.lattice import centred, reach

Images = Complex[Tensor, "echo x y z"]
Sampled = Bool[Tensor, "#echo #kx ky kz"]


@dataclass(frozen=True)
class ZeroFill:
    """Leave what was not measured as the reconstruction found it: zero, or what other coils tell of it.

    No source: it adds nothing. The right choice for phase: it loses some resolution along one axis, and
    assumes nothing (bench/RESULTS.md, “Windows and partial Fourier”).
    """

    def __call__(self, images: Images, sampled: Sampled) -> Images:
        """The images as they are."""
        return images


@dataclass(frozen=True)
class Homodyne:
    """Take the missing half from symmetry, with the phase of the centre of k-space for all of the image.

    x = Re(F⁻¹[H k] e^(−iφ)) e^(iφ), φ the phase of the symmetric centre; H rises from 0 to 2 across it.
    Noll et al. 1991, IEEE Trans Med Imaging 10:154, doi:10.1109/42.79473.
    Sharp magnitude; fine phase is lost, so maps of susceptibility come out too low. One axis only.
    """

    def __call__(self, images: Images, sampled: Sampled) -> Images:
        """The images with the phase of their centre; unchanged where k-space is whole."""
        out = images.clone()
        for x, seen in zip(out, sampled.expand(len(images), *sampled.shape[1:]), strict=True):
            halves = [(a, h) for a, h in enumerate(_halves(seen)) if h is not None]
            if len(halves) > 1:
                raise ValueError(
                    "partial Fourier along more than one axis: Homodyne handles one; choose POCS, or "
                    "ZeroFill for phase"
                )
            for axis, (inner, sign) in halves:
                _warn("homodyne reconstruction")
                f = _frequency(x, axis)
                k = fft(x)
                turn = _unit(ifft(k * _hann(f, inner)))
                real = (ifft(k * (1 + sign * f / inner).clamp(0, 2)) * turn.conj()).real
                x.copy_(real * turn)
        return out


@dataclass(frozen=True)
class POCS:
    """Alternate between what was measured and images with the phase of the centre of k-space.

    x ← |x| e^(iφ), then k = F x takes the measured values again; φ is the phase of the symmetric centre.
    Haacke et al. 1991, J Magn Reson 92:126, doi:10.1016/0022-2364(91)90253-P.
    Sharper magnitude than zero-filling at the price of phase: the missing part gets the phase of the centre.
    """

    iterations: int = 10
    """Rounds; more change little."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"POCS iterations {self.iterations}: choose 1 or more")

    def __call__(self, images: Images, sampled: Sampled) -> Images:
        """The images with the missing part of k-space filled; unchanged where k-space is whole."""
        out = images.clone()
        for x, seen in zip(out, sampled.expand(len(images), *sampled.shape[1:]), strict=True):
            spanned = _spanned(seen, x)
            halves = [(a, h) for a, h in enumerate(_halves(seen)) if h is not None]
            if not halves:
                continue
            _warn("POCS reconstruction")
            k = fft(x)
            low = k
            for axis, (inner, _) in halves:
                low = low * _hann(_frequency(x, axis), inner)
            turn = _unit(ifft(low))
            for _ in range(self.iterations):
                guess = fft(x.abs() * turn)
                x.copy_(ifft(torch.where(spanned, k, guess)))
        return out


PartialFourier = ZeroFill | Homodyne | POCS
"""Images and what was sampled → images whose k-space is whole."""


def _warn(name: str) -> None:
    warnings.warn(
        f"{name} gives the missing part of k-space the phase of its centre: fine phase is lost, and "
        "susceptibility comes out too low; choose ZeroFill for phase, this one for magnitude",
        stacklevel=3,
    )


def _spanned(seen: Bool[Tensor, "#kx ky kz"], like: Complex[Tensor, "x y z"]) -> Bool[Tensor, "x ky kz"]:
    """The part of k-space that the samples span, without the gaps of undersampling."""
    plane, _, _ = centred(seen.any(0))
    inside = torch.fft.ifftshift(torch.from_numpy(reach(plane))).to(like.device)
    spanned: Tensor = inside & seen.flatten(1).any(1)[:, None, None].expand(len(like), 1, 1)
    return spanned


def _halves(sampled: Bool[Tensor, "#kx ky kz"]) -> list[tuple[int, int] | None]:
    """For each axis, the highest frequency that both sides have, and the sign of the side that has more.

    None where both reach as far, to within one step of the undersampling.
    """
    out: list[tuple[int, int] | None] = []
    for axis in range(3):
        seen = sampled.movedim(axis, 0).flatten(1).any(1)
        n = len(seen)
        f = ((torch.fft.fftfreq(n) * n).round().long()[seen.cpu()]).sort().values
        below, above = -int(f.min()), int(f.max())
        step = int(f.diff().max()) if len(f) > 1 else 1
        whole = abs(above - below) <= step
        out.append(None if whole else (max(min(below, above), 1), 1 if above > below else -1))
    return out


def _frequency(x: Tensor, axis: int) -> Float[Tensor, "..."]:
    n = x.shape[axis]
    f: Tensor = (torch.fft.fftfreq(n, dtype=torch.float64) * n).to(x.real)
    return f.reshape([-1 if a == axis else 1 for a in range(3)])


def _hann(f: Tensor, inner: int) -> Tensor:
    """Fades out from zero frequency to `inner`."""
    return torch.where(f.abs() <= inner, 0.5 + 0.5 * torch.cos(torch.pi * f / (inner + 1)), 0.0)


def _unit(x: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(x.real), x.angle())

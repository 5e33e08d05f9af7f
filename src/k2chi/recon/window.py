"""Less ringing at edges: k-space faded out towards its border."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from k2chi.data import Echoes
from k2chi.ops.fourier import fft, ifft


@dataclass(frozen=True)
class Tukey:
    """Fade k-space out along each axis over its outer part.

    w(u) = 1 up to u = 1 − α, then (1 + cos π(u − 1 + α)/α)/2, u = |k|/kmax; the product over the axes.
    Tukey 1967, in Spectral Analysis of Time Series; Harris 1978, Proc IEEE 66:51,
    doi:10.1109/PROC.1978.10837.
    It costs resolution, and with it contrast of small structures, in phase as in magnitude: susceptibility
    comes out too low (bench/RESULTS.md, “Windows and partial Fourier”). Good for magnitude and
    susceptibility-weighted images; leave it out, or α at 0.1 or below, for maps of susceptibility.
    """

    alpha: float = 0.1
    """α, the share of each half axis that fades: 0 nothing, 1 a Hann window."""
    axes: tuple[bool, bool, bool] = (True, True, True)
    """Readout, first and second phase encoding; False along a stack of 2D slices."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"Tukey alpha {self.alpha} is no share: choose 0 (off) to 1 (Hann)")

    def __call__(self, echoes: Echoes) -> Echoes:
        """The same echoes, smoother. Apply it to images as acquired, before any interpolation."""
        if self.alpha == 0:
            return echoes
        fade = self.weights(echoes.grid.shape).to(echoes.signal.real)
        smooth = torch.stack([ifft(fft(x) * fade) for x in echoes.signal])
        return replace(echoes, signal=smooth)

    def weights(self, shape: tuple[int, int, int]) -> Float[Tensor, "kx ky kz"]:
        """The window over k-space, zero frequency at index 0."""
        out = torch.ones(1, 1, 1, dtype=torch.float64)
        for axis, (n, wanted) in enumerate(zip(shape, self.axes, strict=True)):
            if wanted and n > 1 and self.alpha > 0:
                u = torch.fft.fftfreq(n, dtype=torch.float64).abs() * 2
                falling = 0.5 * (1 + torch.cos(torch.pi * (u - 1 + self.alpha) / self.alpha))
                w = torch.where(u <= 1 - self.alpha, 1.0, falling)
                out = out * w.reshape([-1 if a == axis else 1 for a in range(3)])
        return out.expand(shape)

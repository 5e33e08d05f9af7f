"""Images from k-space of several coils whose sensitivities are known, by the model of how they came about."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

from k2chi.data import KSpace
from k2chi.ops.encoding import encoding, normal
from k2chi.ops.fourier import SPACE
from k2chi.ops.linear import Linear
from k2chi.progress import track
from k2chi.solve import cg

SLAB_BYTES = 2**21
"""As many planes along the readout are solved together as have images of one coil of this size."""
PLANE = (-2, -1)


@dataclass(frozen=True)
class Adjoint:
    """Leave what was not measured at zero, and combine the coils.

    x = Eᴴy, with E = M F S: mask, Fourier transform, coil sensitivities of unit length. The best
    signal-to-noise ratio where all was measured; aliased where it was not.

    Roemer et al. 1990, Magn Reson Med 16:192, doi:10.1002/mrm.1910160203. One transform a coil.
    """

    def __call__(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "echo x y z"]:
        """The combined image of each echo."""
        return torch.stack([encoding(maps, seen).H(y) for y, seen in per_echo(kspace, maps)])


@dataclass(frozen=True)
class CGSENSE:
    """Find the image whose k-space fits what was measured, by conjugate gradients from zero.

    min_x ‖E x − y‖² + λ ‖x‖², E = M F S: sensitivities, Fourier transform, mask. Partial Fourier needs
    nothing else: what is missing is missing in M.

    Pruessmann et al. 2001, Magn Reson Med 46:638, doi:10.1002/mrm.1241.
    λ darkens the image by the share λ where all was measured, more where coils help little. Few iterations
    regularise, too. Where the mask is the same along the whole readout, planes of the image along it are
    solved apart.
    """

    regularisation: float = 5e-3
    """λ over the largest Σ|S|²; larger is less noisy, and darker where coils see alike."""
    iterations: int = 20
    """Upper limit of conjugate-gradient steps."""
    tolerance: float = 1e-4
    """Stop at a residual of this share of Eᴴy; 0 runs all iterations."""

    def __post_init__(self) -> None:
        if self.regularisation < 0 or self.iterations < 1 or self.tolerance < 0:
            raise ValueError(
                f"CGSENSE regularisation {self.regularisation}, iterations {self.iterations}, tolerance "
                f"{self.tolerance}: choose 0 or more, 1 or more, 0 or more"
            )

    def __call__(self, kspace: KSpace, maps: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "echo x y z"]:
        """The image of each echo; zero where no coil sees."""
        damping = self.regularisation * strongest(maps)
        return torch.stack([self._image(y, seen, maps, damping) for y, seen in per_echo(kspace, maps)])

    def _image(
        self,
        y: Complex[Tensor, "coil x y z"],
        seen: Bool[Tensor, "#x #y #z"],
        maps: Complex[Tensor, "coil x y z"],
        damping: float,
    ) -> Complex[Tensor, "x y z"]:
        out = torch.empty_like(y[0])
        for here, data, axes in slabs(y, seen):
            gram = normal(maps[:, here], seen, axes)
            b = encoding(maps[:, here], seen, axes).H(data)

            def damped(x: Tensor, gram: Linear = gram) -> Tensor:
                return gram(x).add_(x, alpha=damping)

            out[here] = cg(damped, b, None, self.iterations, self.tolerance, what="SENSE")
        return out


def slabs(
    y: Complex[Tensor, "coil x y z"], seen: Bool[Tensor, "#x #y #z"]
) -> Iterator[tuple[slice, Complex[Tensor, "coil p y z"], tuple[int, ...]]]:
    """Parts of the image along the readout that can be solved apart: where, data, axes to transform.

    All at once where the mask changes along the readout.
    """
    if len(seen) > 1:
        yield slice(None), y, SPACE
        return
    nx = y.shape[1]
    planes = max(1, min(nx, SLAB_BYTES // (y[0, 0].numel() * y.element_size())))
    hybrid = along_readout(y)
    for n in track(-(-nx // planes), "unfolding"):
        here = slice(n * planes, (n + 1) * planes)
        yield here, hybrid[:, here], PLANE


def along_readout(y: Complex[Tensor, "coil x y z"]) -> Complex[Tensor, "coil x y z"]:
    """Images along the readout of k-space, one coil at a time."""
    out = torch.empty_like(y)
    for k, x in zip(y, out, strict=True):
        x.copy_(torch.fft.ifft(k, dim=0, norm="ortho"))
    return out


def least_squares(
    y: Complex[Tensor, "coil x y z"], seen: Bool[Tensor, "#x #y #z"], maps: Complex[Tensor, "coil x y z"]
) -> tuple[Linear, Complex[Tensor, "x y z"], float]:
    """EᴴE, Eᴴy and the longest step of descent that is sure, for iterations on the whole image."""
    axes: tuple[int, ...] = SPACE
    if len(seen) == 1:
        y, axes = along_readout(y), PLANE
    step = 1 / max(strongest(maps), 1e-30)
    return normal(maps, seen, axes), encoding(maps, seen, axes).H(y), step


def strongest(maps: Complex[Tensor, "coil x y z"]) -> float:
    """The largest Σ|S|², which EᴴE makes no image stronger by."""
    power = torch.zeros_like(maps[0].real)
    for s in maps:
        power += s.real.square() + s.imag.square()
    return float(power.max())


def per_echo(
    kspace: KSpace, maps: Complex[Tensor, "coil x y z"]
) -> list[tuple[Complex[Tensor, "coil x y z"], Bool[Tensor, "#x #y #z"]]]:
    """Data and mask of each echo. ValueError where maps and data do not fit, or nothing was measured."""
    if maps.shape != kspace.data.shape[1:]:
        raise ValueError(
            f"maps of {tuple(maps.shape)} for k-space of {tuple(kspace.data.shape[1:])} coils and points: "
            "make the maps from this k-space, after whitening and compression"
        )
    sampled = kspace.sampled.expand(len(kspace.data), *kspace.sampled.shape[1:])
    if not sampled.flatten(1).any(1).all():
        raise ValueError("the sampling mask of an echo is empty: nothing was measured; check the data")
    return list(zip(kspace.data, sampled, strict=True))

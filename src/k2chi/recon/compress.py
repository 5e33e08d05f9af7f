"""Fewer, virtual coils that keep nearly all of the signal."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.ops.fourier import SPACE
from k2chi.recon.whiten import mixed


@dataclass(frozen=True, eq=False)
class Virtual:
    """Virtual coils as mixtures of coils, the same everywhere or for each place along the readout."""

    matrix: Complex[Tensor, "#x virtual coil"]
    """Rows are orthonormal, so that white noise stays white."""
    energy: float
    """Share of the calibration signal's energy that the virtual coils keep."""

    def __call__(
        self, data: Complex[Tensor, "*batch coil kx ky kz"]
    ) -> Complex[Tensor, "*batch virtual kx ky kz"]:
        """K-space of the virtual coils."""
        if len(self.matrix) == 1:
            return mixed(data, self.matrix[0])
        if len(self.matrix) != data.shape[-3]:
            raise ValueError(
                f"coils were compressed for {len(self.matrix)} places along the readout, "
                f"but k-space has {data.shape[-3]}: compress with this scan's own calibration"
            )
        x: Tensor = torch.fft.ifft(data, dim=-3, norm="ortho")
        x = torch.einsum("xvc,...cxyz->...vxyz", self.matrix, x)
        k: Tensor = torch.fft.fft(x, dim=-3, norm="ortho")
        return k

    def on_reference(self, centre: Complex[Tensor, "coil rx ry rz"]) -> Complex[Tensor, "virtual nx ry rz"]:
        """The same of a fully sampled centre whose zero frequency lies at index n//2."""
        if len(self.matrix) > 1:
            centre = _whole_readout(centre, len(self.matrix))
        k = self(torch.fft.ifftshift(centre, dim=SPACE))
        shifted: Tensor = torch.fft.fftshift(k, dim=SPACE)
        return shifted


def _whole_readout(
    centre: Complex[Tensor, "*batch rx ry rz"], readout: int
) -> Complex[Tensor, "*batch nx ry rz"]:
    """With zeros beyond, up to `readout` points along x."""
    held = centre.shape[-3]
    whole = centre.new_zeros((*centre.shape[:-3], readout, *centre.shape[-2:]))
    whole[..., readout // 2 - held // 2 :, :, :][..., :held, :, :] = centre
    return whole


@dataclass(frozen=True)
class SVDCompression:
    """Keep the mixtures of coils that carry most signal, the same ones everywhere.

    The leading eigenvectors of Y Yᴴ, Y being the calibration data of all coils (white ones).

    Buehrer et al. 2007, Magn Reson Med 57:1131, doi:10.1002/mrm.21237.
    One matrix serves all echoes. Can be applied while reading, so that all coils are never held.
    """

    coils: int = 12
    """Virtual coils; all are kept where there are no more."""

    def __post_init__(self) -> None:
        check_coils("SVDCompression", self.coils)

    def __call__(self, centre: Complex[Tensor, "echo coil rx ry rz"], readout: int) -> Virtual:
        """From the fully sampled centre of k-space; `readout` points along x are not needed here."""
        flat = centre.movedim(1, 0).flatten(1).to(torch.complex128)
        power, vectors = torch.linalg.eigh(flat @ flat.mH)
        keep = min(self.coils, len(flat))
        matrix = vectors[:, -keep:].flip(1).mH.to(centre.dtype)
        return Virtual(matrix[None].resolve_conj().contiguous(), kept(power[-keep:], power))


@dataclass(frozen=True)
class GeometricCompression:
    """Keep the mixtures of coils that carry most signal at each place along the readout.

    In each plane the leading eigenvectors of the calibration data, turned so that neighbouring planes agree:
    A_x ← P A_x, with P = U Vᴴ of the singular value decomposition of A_{x−1} A_xᴴ.

    Zhang et al. 2013, Magn Reson Med 69:571, doi:10.1002/mrm.24267.
    As many virtual coils keep more signal than with `SVDCompression`, or fewer suffice. One set serves all
    echoes. Needs all coils of an echo in memory.
    """

    coils: int = 8
    """Virtual coils; all are kept where there are no more."""
    window: int = 5
    """Planes that are looked at together."""

    def __post_init__(self) -> None:
        check_coils("GeometricCompression", self.coils)
        if self.window < 1:
            raise ValueError(f"GeometricCompression window {self.window}: choose 1 plane or more")

    def __call__(self, centre: Complex[Tensor, "echo coil rx ry rz"], readout: int) -> Virtual:
        """From the fully sampled centre of k-space, for `readout` points along x."""
        coils = centre.shape[1]
        whole = _whole_readout(centre, readout)
        images = torch.fft.ifft(torch.fft.ifftshift(whole, dim=SPACE[0]), dim=SPACE[0], norm="ortho")
        planes = images.permute(2, 1, 0, 3, 4).flatten(2)
        own = planes @ planes.mH
        grams = torch.zeros_like(own)
        for step in range(-(self.window // 2), self.window - self.window // 2):
            grams += torch.roll(own, step, 0)
        power, vectors = torch.linalg.eigh(grams.to(torch.complex128))
        keep = min(self.coils, coils)
        matrix = vectors[:, :, -keep:].flip(2).mH
        # begin where there is most signal, and go both ways
        start = int(power.sum(1).argmax())
        aligned = matrix.clone()
        for order in (range(start + 1, readout), range(start - 1, -1, -1)):
            before = aligned[start]
            for x in order:
                u, _, vh = torch.linalg.svd(before @ aligned[x].mH)
                aligned[x] = (u @ vh) @ aligned[x]
                before = aligned[x]
        held = (aligned @ own.to(aligned) @ aligned.mH).diagonal(dim1=1, dim2=2).real.sum()
        total = own.diagonal(dim1=1, dim2=2).real.sum().double()
        return Virtual(aligned.to(centre.dtype), float(held / total.clamp_min(1e-300)))


def kept(part: Float[Tensor, "a"], whole: Float[Tensor, "b"]) -> float:
    """Share of energy; 1 where there is none."""
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else 1.0


def check_coils(who: str, coils: int) -> None:
    """Refuse to keep nothing."""
    if coils < 1:
        raise ValueError(f"{who} coils {coils}: keep at least one virtual coil")

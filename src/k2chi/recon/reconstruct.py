"""Raw data to echoes on one screen: white coils → virtual coils → maps → images, one echo at a time."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex
from torch import Tensor

from k2chi.data import Echoes, Grid, KSpace, Raw
from k2chi.progress import track
from k2chi.recon import CoilMaps, Compression, Reconstruction
from k2chi.recon.assemble import Assemble
from k2chi.recon.calibrate import calibration
from k2chi.recon.compress import SVDCompression, Virtual
from k2chi.recon.epi import Unwarp
from k2chi.recon.espirit import ESPIRiT
from k2chi.recon.grappa import GRAPPA
from k2chi.recon.partial import PartialFourier, ZeroFill
from k2chi.recon.sense import CGSENSE
from k2chi.recon.surplus import image_grid, with_surplus, without_surplus
from k2chi.recon.upscale import Sinc
from k2chi.recon.whiten import mixed, whitening
from k2chi.recon.window import Tukey

POINTS = 32
"""Points of k-space about the centre, along each axis, that the compression of coils looks at."""
ENOUGH = 0.95
"""Virtual coils that keep a smaller share of the signal's energy lose signal that can be seen."""


@dataclass(frozen=True)
class Reconstruct:
    """Every step from k-space of many coils to one complex image for each echo.

    No source: the steps have theirs. Coils are whitened, compressed by one matrix and given one set of maps
    for all echoes, or phase would differ between them. Noise has variance one (real and imaginary part
    together) where the scan brings noise samples and all of k-space was measured once; undersampling
    raises it, averages lower it. Only one echo of all coils is in memory.
    """

    assemble: Assemble = Assemble()
    """Puts readouts in their places in k-space; not used where k-space comes on its grid."""
    whiten: bool = True
    """Make the coils' noise independent and of variance one, if the scan brings noise samples."""
    compression: Compression | None = SVDCompression()
    """Makes fewer, virtual coils."""
    maps: CoilMaps = ESPIRiT()
    """Finds how each coil sees each place."""
    unfold: Reconstruction = CGSENSE()
    """Makes the image, from k-space and maps."""
    partial: PartialFourier = ZeroFill()
    """Stands in for what partial Fourier leaves out."""
    window: Tukey | None = None
    """Fades k-space out towards its border."""
    unwarp: Unwarp | None = Unwarp()
    """Puts images of EPI where they belong, if a field map comes with the scan."""
    interpolate: Sinc | None = None
    """Shows the images on a finer grid."""

    def __call__(self, data: Raw | KSpace) -> Echoes:
        """One image for each echo."""
        unwarp = self._unwarp(data)
        for words in data.warnings if isinstance(data, Raw) else ():
            warnings.warn(words, stacklevel=2)
        maps, images, unfold = None, [], None
        for one in self._echoes(data):
            if maps is None:
                maps = self.maps(one)
            if unfold is None:
                unfold = self.unfold.trained(one) if isinstance(self.unfold, GRAPPA) else self.unfold
            images.append(self.partial(unfold(one, maps), one.sampled)[0])
            del one
        return self._finished(Echoes(torch.stack(images), data.grid, data.scan), data, unwarp)

    def grid(self, raw: Raw) -> Grid:
        """Where the voxels of the finished images lie."""
        fine = self._interpolate(raw.encoding.slices)
        return image_grid(raw) if fine is None else fine.grid(image_grid(raw))

    def _finished(self, echoes: Echoes, data: Raw | KSpace, unwarp: Unwarp | None) -> Echoes:
        """Windowed, unwarped, cropped to the field of view that was asked for, interpolated; slices stay
        apart."""
        slices = isinstance(data, Raw) and data.encoding.slices
        if self.window is not None:
            (x, y, z), window = self.window.axes, self.window
            echoes = replace(window, axes=(x, y, z and not slices))(echoes)
        if isinstance(data, Raw):
            if unwarp is not None and data.field_map is not None:
                echoes = unwarp(echoes, with_surplus(data.field_map, data))
            echoes = without_surplus(echoes, data)
        fine = self._interpolate(slices)
        if fine is not None:
            echoes = fine(echoes)
        return echoes if not isinstance(data, Raw) or data.mask is None else replace(echoes, mask=data.mask)

    def _interpolate(self, slices: bool) -> Sinc | None:
        if self.interpolate is None:
            return None
        fx, fy, fz = self.interpolate.factor
        return replace(self.interpolate, factor=(fx, fy, 1.0 if slices else fz))

    def _unwarp(self, data: Raw | KSpace) -> Unwarp | None:
        """With spacing and order of the scan; ValueError, before any work, for a map that does not fit."""
        if not isinstance(data, Raw) or data.field_map is None or self.unwarp is None:
            return None
        has, wanted = data.field_map.grid.shape, image_grid(data).shape
        if has != wanted:
            raise ValueError(f"the field map has {has} voxels, the images {wanted}: bring it to their grid")
        return self.unwarp.of(data)

    def _echoes(self, data: Raw | KSpace) -> Iterator[KSpace]:
        """One echo after the other, its coils white and virtual."""
        white = self._whitening(data.noise, data.coils if isinstance(data, Raw) else data.data.shape[1])
        one = self._read(data, 0, white)
        virtual = self._virtual(one)
        if virtual is not None:
            one = compressed(one, virtual)
        mix = white
        if virtual is not None and len(virtual.matrix) == 1:  # while reading, so that all coils are not held
            mix, virtual = virtual.matrix[0] if white is None else virtual.matrix[0] @ white, None
        for echo in track(len(data.scan.te_s), "echoes"):
            if echo > 0:
                one = self._read(data, echo, mix)
                one = one if virtual is None else compressed(one, virtual)
            yield one
            del one

    def _read(self, data: Raw | KSpace, echo: int, mix: Complex[Tensor, "virtual coil"] | None) -> KSpace:
        """One echo of k-space, its coils mixed."""
        if isinstance(data, Raw):
            return replace(self.assemble(data, echo, mix), noise=None)
        return mixed_echo(data, echo, mix)

    def _whitening(
        self, noise: Complex[Tensor, "coil sample"] | None, coils: int
    ) -> Complex[Tensor, "coil coil"] | None:
        if not self.whiten:
            return None
        if noise is None:
            warnings.warn(
                "the scan brings no noise samples: coils are taken to be equally noisy, and the noise of the "
                "images is not known; measure noise with the scan, or set whiten = false where there is none",
                stacklevel=3,
            )
            return None
        return whitening(noise, coils)

    def _virtual(self, first: KSpace) -> Virtual | None:
        if self.compression is None:
            return None
        virtual = self.compression(calibration(first, POINTS), first.grid.shape[0])
        if virtual.energy < ENOUGH:
            warnings.warn(
                f"{virtual.matrix.shape[1]} virtual coils keep {virtual.energy:.1%} of the signal: "
                "keep more of them, or leave compression out",
                stacklevel=3,
            )
        return virtual


def mixed_echo(data: KSpace, echo: int, mix: Complex[Tensor, "virtual coil"] | None) -> KSpace:
    """One echo of k-space, its coils mixed."""
    own = slice(echo, echo + 1)
    one = replace(
        data,
        data=data.data[own],
        sampled=data.sampled[own] if len(data.sampled) > 1 else data.sampled,
        scan=replace(data.scan, te_s=(data.scan.te_s[echo],)),
        noise=None,
    )
    if mix is None:
        return one
    reference = None if one.reference is None else mixed(one.reference, mix)
    return replace(one, data=mixed(one.data, mix), reference=reference)


def compressed(one: KSpace, virtual: Virtual) -> KSpace:
    """K-space and reference of virtual coils."""
    reference = None if one.reference is None else virtual.on_reference(one.reference)
    return replace(one, data=virtual(one.data), reference=reference, noise=None)

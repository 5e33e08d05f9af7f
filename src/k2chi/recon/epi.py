"""Off-resonance in EPI: how fast phase encoding goes, how far it shifts voxels, and how to undo it."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from k2chi.data import Echoes, Encoding, Field, Raw
from k2chi.units import hz_per_ppm

FINE = 4
"""Points to which a voxel is divided by the transform before four of them are joined by a cubic."""


def effective_spacing_s(encoding: Encoding) -> float:
    """Time from one line of k-space to the next along the first phase encoding [s]; 0 if it is not EPI.

    A train passes all lines once, however many shots interleave and however many lines are left out: the
    spacing of readouts · train / lines. Holds for interleaved shots whose echo times are shifted.
    """
    return encoding.spacing_s * encoding.train / encoding.matrix[1] if encoding.train > 1 else 0.0


def echo_shifts_s(encoding: Encoding, shots: int) -> tuple[float, ...]:
    """By how much each of `shots` that interleave begins later, so that time grows evenly from line to line.

    Without these shifts off-resonance makes steps of phase every `shots` lines, which are ghosts.
    """
    return tuple(shot * encoding.spacing_s / shots for shot in range(shots))


def shift_voxels(field_hz: Float[Tensor, "*size"], spacing_s: float, points: int) -> Float[Tensor, "*size"]:
    """How far along its axis off-resonance moves a voxel: −field · effective spacing · points of k-space.

    Negative where the field adds to B0 and lines of k-space come in rising order; points are those of the
    whole field of view.
    """
    return -field_hz * spacing_s * points


def blips_rise(raw: Raw) -> bool:
    """True where the lines of a train follow each other in rising order, as its readouts say."""
    for block in raw.lines(0):
        same = (block.shot == block.shot[0]) & (block.average == block.average[0])
        train = block[same & (block.kz == block.kz[0])]
        if len(train.ky) < 2:
            continue
        order = torch.arange(len(train.ky)) if train.time_s is None else train.time_s.argsort(stable=True)
        return bool(train.ky[order[-1]] > train.ky[order[0]])
    return True


@dataclass(frozen=True)
class Unwarp:
    """Undo the distortion of EPI along its phase encoding, by a field map.

    A voxel at y is seen at y + s(y), s = ∓ΔB · effective spacing · points, and brighter by 1/(1 + ds/dy). The
    complex image is read there by the transform of its line (`FINE` points a voxel, joined by cubics) and
    multiplied by 1 + ds/dy. Jezzard & Balaban 1995, MRM 34:65, doi:10.1002/mrm.1910340111.
    Magnitude and phase are never interpolated by themselves. Where the image is folded (ds/dy ≤ −1) nothing
    can be told apart, and zero is written. A field map made of the EPI itself is as distorted as its image:
    say so with `field`. Outside the map's mask the nearest value inside holds.
    """

    spacing_s: float | None = None
    """Effective echo spacing [s]: time from one line of k-space to the next; none: what the raw data say."""
    axis: Literal[0, 1, 2] = 1
    """Axis of the first phase encoding."""
    rising: bool | None = None
    """Lines of k-space in rising order; false where the blips were turned round; none: as in the raw data,
    or rising."""
    field: Literal["true", "distorted"] = "true"
    """Where the voxels of the field map lie: in true space, or in the distorted image."""

    def __post_init__(self) -> None:
        if self.spacing_s is not None and not 0 < self.spacing_s < 0.1:
            raise ValueError(
                f"effective echo spacing {self.spacing_s} s: give it in seconds, 1e-5 to 1e-2 is usual; "
                "a scan that is not EPI is not distorted"
            )

    def of(self, raw: Raw) -> "Unwarp":
        """With what the raw data say of spacing and order, where it is not set."""
        e = raw.encoding
        if e.train < 2:
            raise ValueError(
                "a field map for a scan that is not EPI: its images are not distorted; leave it out"
            )
        spacing_s = effective_spacing_s(e) if self.spacing_s is None else self.spacing_s
        if not spacing_s:
            raise ValueError(
                "the raw data do not say how fast the readouts of EPI follow each other: set "
                "recon.unwarp.spacing_s, the effective echo spacing [s], or give no field map"
            )
        rising = blips_rise(raw) if self.rising is None else self.rising
        return replace(self, spacing_s=spacing_s, rising=rising)

    def __call__(self, echoes: Echoes, field: Field) -> Echoes:
        """The images where they belong, as bright as they are."""
        if field.grid.shape != echoes.grid.shape:
            raise ValueError(
                f"the field map has {field.grid.shape} voxels, the images {echoes.grid.shape}: "
                "bring it to their grid"
            )
        field_hz = extended(field.ppm, field.mask) * hz_per_ppm(field.scan.b0_tesla)
        signal = self.volume(echoes.signal, field_hz, intensity=True)
        return replace(echoes, signal=signal, unwrapped_rad=None)

    def volume(
        self,
        values: Shaped[Tensor, "*batch x y z"],
        field_hz: Float[Tensor, "x y z"],
        intensity: bool = False,
    ) -> Shaped[Tensor, "*batch x y z"]:
        """Complex images (with `intensity`) or maps where they belong."""
        lines, field_last = values.movedim(self.axis - 3, -1), field_hz.movedim(self.axis - 3, -1)
        place, stretch = self.places(field_last.double())
        out = _read(lines, place.to(lines.device))
        if intensity:
            out = out * stretch.to(out.real.dtype).to(out.device)
        return (out * (stretch > 0).to(out.device)).movedim(-1, self.axis - 3)

    def places(
        self, field_hz: Float[Tensor, "a b line"]
    ) -> tuple[Float[Tensor, "a b line"], Float[Tensor, "a b line"]]:
        """Where each voxel along the last axis is seen [index], and 1 + ds/dy."""
        if self.spacing_s is None:
            raise ValueError("Unwarp needs the effective echo spacing: set spacing_s [s]")
        n = field_hz.shape[-1]
        y = torch.arange(n, dtype=field_hz.dtype, device=field_hz.device)
        shift = shift_voxels(field_hz, -self.spacing_s if self.rising is False else self.spacing_s, n)
        place = y + shift
        if self.field == "distorted":
            for _ in range(30):  # y + s(seen place) = seen place
                place = y + _between(shift, place)
        stretch = torch.gradient(place, dim=-1)[0]
        return place, stretch


def extended(values: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
    """The values inside the mask, and outside it those of the nearest voxel inside: without an edge that
    would stretch the image there."""
    if mask.all():
        return values
    index = distance_transform_edt(~mask.cpu().numpy(), return_distances=False, return_indices=True)
    i, j, k = torch.from_numpy(index).long().to(values.device)
    return values[i, j, k]


def _between(values: Tensor, place: Tensor) -> Tensor:
    """Values along the last axis at `place`, straight between voxels, constant beyond the ends."""
    low = place.floor().clamp(0, values.shape[-1] - 2)
    share = (place - low).clamp(0, 1)
    left = values.gather(-1, low.long())
    return left + share * (values.gather(-1, low.long() + 1) - left)


def _read(
    lines: Shaped[Tensor, "*batch a b line"], place: Float[Tensor, "a b line"]
) -> Shaped[Tensor, "*batch a b line"]:
    """Lines at `place` [index], periodic, through their transform."""
    n = lines.shape[-1]
    fine = _refined(lines)
    at = place * FINE
    base = at.floor()
    t = (at - base).to(lines.real.dtype)
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    out = torch.zeros_like(lines)
    for step, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = ((base + step).long() % (n * FINE)).expand(lines.shape)
        out = out + weight * fine.gather(-1, index)
    return out


def _refined(lines: Tensor) -> Tensor:
    """`FINE` points for each along the last axis, by zeros around the transform."""
    n = lines.shape[-1]
    k = torch.fft.fft(lines.to(torch.complex128 if lines.dtype == torch.float64 else lines.dtype))
    half = n // 2
    padded = k.new_zeros(*k.shape[:-1], n * FINE)
    padded[..., : n - half] = k[..., : n - half]
    padded[..., -half:] = k[..., n - half :]
    if n % 2 == 0:  # the highest frequency belongs to both ends
        padded[..., half] = padded[..., -half] = k[..., half] / 2
    fine = torch.fft.ifft(padded) * FINE
    real: Tensor = fine.real
    return fine if lines.is_complex() else real

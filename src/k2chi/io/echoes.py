"""NIfTI files to `Echoes`, checked, with what was assumed in words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from k2chi.data import Echoes, Scan, Vector
from k2chi.io.nifti import ALONG_BORE, Volume, read, same_place
from k2chi.io.phase import phase_scale, spikes

MOSTLY = 0.9
"""Share of non-finite voxels from which a volume counts as unusable."""


@dataclass(frozen=True)
class Source:
    """Where data came from, and what was concluded on the way."""

    files: tuple[Path, ...]
    codes: tuple[int, int] = (1, 1)
    """sform and qform codes, to be written again."""
    says: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def stack(files: Sequence[Path], what: str, b0_world: Vector) -> list[Volume]:
    """Open the files of one part; all must lie on one grid."""
    if not files:
        raise ValueError(f"no {what} files: give one for each echo, or one 4D file")
    volumes = [read(f, b0_world) for f in files]
    for v in volumes[1:]:
        same_place(volumes[0], v)
    if len(volumes) > 1 and max(v.echoes for v in volumes) > 1:
        raise ValueError(
            f"{what}: several files of which one is 4D; give one 4D file, or one 3D file an echo"
        )
    return volumes


def together(volumes: Sequence[Volume], scaled: bool = True) -> Tensor:
    """All echoes of several files, echo first."""
    return torch.cat([v.tensor(scaled) for v in volumes])


def finite_only(
    data: Tensor, files: Sequence[Path], what: str, warnings: list[str]
) -> tuple[Tensor, Bool[Tensor, "x y z"]]:
    """The data with zeros for NaN and infinity, and the voxels where every echo is a number."""
    good = torch.isfinite(data)
    every = good.all(0)
    share = 1 - float(every.float().mean())
    if share > MOSTLY:
        raise ValueError(f"{files[0]}: {share:.0%} of the {what} voxels are NaN or infinite; export it again")
    if share > 0:
        count = int((~every).sum())
        warnings.append(f"{count} {what} voxels ({share:.2%}) are NaN or infinite: set to zero and left out")
        data = torch.where(good, data, 0.0)
    return data, every


def read_mask(path: Path, like: Volume) -> Bool[Tensor, "x y z"]:
    """True above one half. Raises ValueError if empty or on another grid."""
    volume = read(path, like.grid.b0_world)
    same_place(like, volume)
    if volume.echoes != 1:
        raise ValueError(f"{path}: a mask is one volume, this holds {volume.echoes}")
    mask: Tensor = torch.nan_to_num(volume.tensor()[0]) > 0.5
    if not mask.any():
        raise ValueError(f"{path}: the mask is empty (no voxel above 0.5); give a mask of the brain")
    return mask


def _times(te_s: Sequence[float], echoes: int, volumes: Sequence[Volume]) -> tuple[float, ...]:
    name = volumes[0].path
    if not te_s:
        raise ValueError(f"{name}: no echo time is known; give EchoTime [s] in the JSON beside it, or --te")
    if len(te_s) != echoes:
        raise ValueError(
            f"{name}: {echoes} echoes but {len(te_s)} echo times {tuple(te_s)} s; give one for each"
        )
    return tuple(te_s)


def scan_of(te_s: tuple[float, ...], b0_tesla: float | None, bipolar: bool, path: Path) -> Scan:
    """A `Scan`; errors name the file."""
    if b0_tesla is None:
        raise ValueError(
            f"{path}: field strength unknown; give MagneticFieldStrength [T] in the JSON, or --b0"
        )
    try:
        return Scan(te_s, b0_tesla, bipolar)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def masked(
    mask_file: Path | None, like: Volume, finite: Bool[Tensor, "x y z"]
) -> Bool[Tensor, "x y z"] | None:
    """The user's mask without voxels that are no numbers."""
    if mask_file is None:
        return None
    mask = read_mask(mask_file, like)
    left = mask & finite
    if int(left.sum()) < 0.5 * int(mask.sum()):
        raise ValueError(
            f"{mask_file}: most voxels inside the mask are NaN or infinite in the image; check both"
        )
    return left


def _refuse_swapped(magnitude: Tensor, phase: Tensor, m: Volume, p: Volume) -> None:
    """Noise in phase jumps to and fro by half its range at many voxels; edges of a magnitude jump once."""
    lo, hi = float(magnitude.min()), float(magnitude.max())
    if hi <= 0 or lo == hi:
        raise ValueError(f"{m.path}: the magnitude is {hi:g} everywhere; export it again")
    spiky = [spikes(t[0]) for t in (magnitude, phase)]
    if (lo < -0.05 * hi and float(phase.min()) >= 0) or (spiky[0] > 0.005 and spiky[0] > 2 * spiky[1]):
        raise ValueError(f"{m.path} looks like phase and {p.path.name} like magnitude; swap them")
    if lo < -0.05 * hi:
        raise ValueError(f"{m.path}: a magnitude cannot be negative ({lo:g}); give the magnitude file")


def read_echoes(
    magnitude: Sequence[Path],
    phase: Sequence[Path],
    te_s: Sequence[float],
    b0_tesla: float | None,
    mask: Path | None = None,
    b0_world: Vector = ALONG_BORE,
    unwrapped: bool = False,
    bipolar: bool = False,
) -> tuple[Echoes, Source]:
    """Magnitude and phase, one file an echo or one 4D file each. Phase in any common unit.

    Without magnitude all voxels count alike. Raises ValueError for anything that is not usable as it is.
    """
    says: list[str] = []
    warnings: list[str] = []
    phases = stack(phase, "phase", b0_world)
    first = phases[0]
    stored = together(phases, scaled=False)
    times = _times(te_s, stored.shape[0], phases)
    scan = scan_of(times, b0_tesla, bipolar, first.path)
    slopes = {(v.slope, v.inter) for v in phases}
    slope, inter = slopes.pop() if len(slopes) == 1 else (1.0, 0.0)
    if slopes:  # echoes scaled each in its own way: the stored numbers mean nothing together
        stored = together(phases)
    stored, finite = finite_only(stored, phase, "phase", warnings)

    if magnitude:
        magnitudes = stack(magnitude, "magnitude", b0_world)
        same_place(magnitudes[0], first)
        mag = together(magnitudes)
        if mag.shape != stored.shape:
            raise ValueError(
                f"{first.path}: {stored.shape[0]} echoes of phase but {mag.shape[0]} of magnitude; "
                "give both for each echo"
            )
        mag, whole = finite_only(mag, magnitude, "magnitude", warnings)
        finite &= whole
        _refuse_swapped(mag, stored, magnitudes[0], first)
        mag = mag.clamp(min=0)
        trusted = mag[0] > 0.2 * torch.quantile(mag[0].flatten()[:: max(1, mag[0].numel() // 100_000)], 0.95)
    else:
        warnings.append("no magnitude was given: all voxels count alike, and a mask of your own is advised")
        mag, trusted = finite.float().expand(stored.shape).clone(), finite

    try:
        scale = phase_scale(stored, slope, inter, trusted & finite, unwrapped)
    except ValueError as error:
        raise ValueError(f"{first.path}: {error}") from error
    says.append(f"{first.path.name}: {scale.says}")
    if scale.header and (slope, inter) != (1.0, 0.0):
        stored = stored * slope + inter
    rad = scale(stored)
    mag = mag * finite
    echoes = Echoes(
        torch.polar(mag, rad.float()),
        first.grid,
        scan,
        masked(mask, first, finite),
        rad.float() if scale.unwrapped else None,
    )
    files = (*magnitude, *phase, *([mask] if mask else []))
    return echoes, Source(tuple(files), first.codes, tuple(says), tuple(warnings))


def read_complex(
    real: Sequence[Path],
    imaginary: Sequence[Path],
    te_s: Sequence[float],
    b0_tesla: float | None,
    mask: Path | None = None,
    b0_world: Vector = ALONG_BORE,
    bipolar: bool = False,
) -> tuple[Echoes, Source]:
    """Real and imaginary part, one file an echo or one 4D file each."""
    warnings: list[str] = []
    parts = [stack(files, what, b0_world) for files, what in ((real, "real"), (imaginary, "imaginary"))]
    first = parts[0][0]
    same_place(first, parts[1][0])
    re, im = together(parts[0]), together(parts[1])
    if re.shape != im.shape:
        raise ValueError(
            f"{first.path}: {re.shape[0]} real but {im.shape[0]} imaginary echoes; give both for each"
        )
    re, good = finite_only(re, real, "real", warnings)
    im, fine = finite_only(im, imaginary, "imaginary", warnings)
    if float(re.min()) >= 0 or float(im.min()) >= 0:
        raise ValueError(
            f"{first.path}: real and imaginary parts take both signs, these do not; check the files"
        )
    finite = good & fine
    scan = scan_of(_times(te_s, re.shape[0], parts[0]), b0_tesla, bipolar, first.path)
    echoes = Echoes(torch.complex(re, im) * finite, first.grid, scan, masked(mask, first, finite))
    files = (*real, *imaginary, *([mask] if mask else []))
    return echoes, Source(
        tuple(files), first.codes, ("phase made from real and imaginary parts",), tuple(warnings)
    )


def conjugate(echoes: Echoes) -> Echoes:
    """The same scan with the other sign of phase."""
    rad = echoes.unwrapped_rad
    return replace(
        echoes,
        signal=echoes.signal.conj().resolve_conj(),
        unwrapped_rad=None if rad is None else -rad,
    )

"""From command-line arguments to one job: what to read, and where its results go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from k2chi.app.rawscan import distortion, said, with_field_map, with_mask
from k2chi.data import Chi, Echoes, Field, Raw, Vector
from k2chi.io import bids
from k2chi.io.derivatives import Layout
from k2chi.io.echoes import Source, read_complex, read_echoes, read_mask
from k2chi.io.fieldmap import Unit, read_field
from k2chi.io.nifti import read, same_place
from k2chi.io.rawdata import is_raw, open_raw
from k2chi.io.sidecar import agree, facts, sidecar
from k2chi.measure.blind import blind, sharpness_ppb_per_mm
from k2chi.measure.quality import quality
from k2chi.recon.reconstruct import Reconstruct

PPB_LIKE = 5.0
"""Standard deviation of a map [ppm] that no brain has: it is in ppb."""


@dataclass(frozen=True)
class Given:
    """Files and facts from the command line."""

    magnitude: tuple[Path, ...]
    phase: tuple[Path, ...]
    real: tuple[Path, ...]
    imag: tuple[Path, ...]
    te_s: tuple[float, ...]
    b0_tesla: float | None
    mask: Path | None
    field: Path | None
    local_field: Path | None
    units: Unit | None
    unwrapped: bool
    bipolar: bool
    b0_world: Vector
    unwarp: Path | None = None
    """Field map by which images of EPI raw data are put where they belong."""

    @property
    def files(self) -> bool:
        return bool(self.phase or self.real or self.imag or self.field or self.local_field)


@dataclass(frozen=True)
class Job:
    """One scan to work on."""

    read: Callable[[], tuple[Echoes | Field | Raw, Source]]
    layout: Layout
    root: Path | None


def places(given: Sequence[Path], files: Given) -> tuple[Path | None, Path]:
    """Input folder (None if files are given) and output folder."""
    if files.files and len(given) == 1:
        return None, given[0]
    if not files.files and len(given) == 2:
        return given[0], given[1]
    if files.files:
        raise ValueError(
            "give files by options, or an input folder, not both: k2chi qsm --magnitude M --phase P OUT"
        )
    raise ValueError(
        "give an input and an output folder: k2chi qsm IN OUT (IN: a folder with a scan, or raw data); "
        "or --magnitude, --phase and OUT"
    )


def job(source: Path | None, out: Path, given: Given, recon: Reconstruct) -> Job:
    """What to read and where to write for `k2chi qsm`; `recon` makes images of raw data."""
    if source is not None and is_raw(source):
        return Job(lambda: from_raw(source, given, recon), Layout(out), None)
    if given.unwarp is not None:
        raise ValueError(
            f"{given.unwarp}: --unwarp is for raw data, whose lines tell how far voxels are moved"
        )
    if source is None:
        return Job(lambda: from_files(given), Layout(out), None)
    found = bids.find(source)
    if len(found) > 1:
        names = ", ".join(s.name for s in found[:4])
        raise ValueError(
            f"{source}: holds {len(found)} scans ({names}, …); "
            "use k2chi bids, or name the files of one with --phase"
        )
    one = found[0]

    def load() -> tuple[Echoes, Source]:
        return bids.load(
            one,
            given.mask,
            b0_world=given.b0_world,
            unwrapped=given.unwrapped,
            te_s=given.te_s,
            b0_tesla=given.b0_tesla,
            bipolar=given.bipolar,
        )

    return Job(load, Layout(out, one.name), one.root)


def from_raw(path: Path, given: Given, recon: Reconstruct) -> tuple[Raw, Source]:
    """Raw data, to be reconstructed first, with a mask and a field map on the grid of their images."""
    if given.unwrapped:
        raise ValueError(
            f"{path}: raw data take no --unwrapped: run k2chi recon, then k2chi qsm on its output with it"
        )
    raw = open_raw(path, given.te_s, given.b0_tesla, given.b0_world)
    if given.mask is not None:
        raw = with_mask(raw, given.mask, recon, path)
    if given.unwarp is not None:
        raw = with_field_map(raw, given.unwarp, given.units, recon)
    files = tuple(f for f in (path, given.mask, given.unwarp) if f is not None)
    return raw, Source(files, says=(*said(raw), *distortion(raw, recon)))


def from_files(given: Given) -> tuple[Echoes | Field, Source]:
    """Read the files named on the command line, with what the JSON beside them says."""
    ways = [
        bool(given.phase),
        bool(given.real or given.imag),
        given.field is not None,
        given.local_field is not None,
    ]
    if sum(ways) > 1:
        raise ValueError("give one of --phase, --real with --imag, --field, --local-field; not several")
    te_s, b0, bipolar = list(given.te_s), given.b0_tesla, given.bipolar
    fields = [f for f in (given.field, given.local_field) if f is not None]
    for files in (given.magnitude, given.phase, given.real, given.imag, fields):
        times, strength, both_ways = facts([(f, sidecar(f)) for f in files])
        bipolar |= both_ways
        if not fields:
            te_s = agree(te_s, times, "--te or files before", str(files[0]) if files else "")
        else:
            te_s = te_s or times
        if b0 is not None and strength is not None and abs(b0 - strength) > 0.02 * b0:
            raise ValueError(f"{files[0]}: its JSON says {strength:g} T, not {b0:g} T; correct one of them")
        b0 = b0 or strength
    if given.phase:
        return read_echoes(
            given.magnitude, given.phase, te_s, b0, given.mask, given.b0_world, given.unwrapped, bipolar
        )
    if given.real or given.imag:
        return read_complex(given.real, given.imag, te_s, b0, given.mask, given.b0_world, bipolar)
    path = fields[0]
    local = given.local_field is not None
    return read_field(path, given.units, te_s, b0, local, given.mask, given.magnitude, given.b0_world)


@dataclass(frozen=True, eq=False)
class Pair:
    """A map and the truth on one grid, both in ppm, and where they are compared."""

    chi: Chi
    truth: Chi | None
    labels: Tensor | None

    def quality(self) -> dict[str, float]:
        """Every measure against the truth, if there is one, and those of the map alone."""
        of, true = self.chi, self.truth
        alone = blind(of)
        if true is None:
            return alone
        found = quality(of.ppm, true.ppm, of.mask, self.labels, of.grid.voxel_mm) | alone
        sharp = sharpness_ppb_per_mm(true)
        return found | {"sharpness_ratio": found["sharpness_ppb_per_mm"] / sharp if sharp > 0 else nan}


def in_ppm(values: Tensor, inside: Tensor, path: Path, unit: str | None) -> Tensor:
    """A map in ppm. Raises ValueError if it looks like ppb and nobody said which it is."""
    if unit is None:
        _ask_about_ppb([path], [float(values[inside].std())])
    return values / 1000 if unit == "ppb" else values


def pair(
    chi: Path,
    truth: Path | None,
    mask: Path | None,
    labels: Path | None,
    unit: Literal["ppm", "ppb"] | None = None,
) -> Pair:
    """A map on disk, and the truth on disk if there is one."""
    paths = [chi] + ([truth] if truth else [])
    volumes = [read(p) for p in paths]
    for v in volumes:
        same_place(volumes[-1], v)
        if v.echoes != 1:
            raise ValueError(f"{v.path}: holds {v.echoes} volumes; give one map")
    maps = [torch.nan_to_num(v.tensor()[0], posinf=0.0, neginf=0.0) for v in volumes]
    inside = read_mask(mask, volumes[-1]) if mask else maps[-1] != 0
    if not inside.any():
        raise ValueError(f"{paths[-1]}: the map is zero everywhere; give a map with values, or --mask")
    if unit is None:
        _ask_about_ppb(paths, [float(m[inside].std()) for m in maps])
    numbers = None
    if labels is not None:
        of = read(labels)
        same_place(volumes[-1], of)
        numbers = of.tensor()[0].nan_to_num().round().to(torch.int16)
        if not (numbers * inside).any():
            raise ValueError(
                f"{labels}: no label lies in the mask; give labels of this head, or leave them out"
            )
    grid, scale = volumes[-1].grid, 1e-3 if unit == "ppb" else 1.0
    made = [Chi(m * scale * inside, inside, grid) for m in maps]
    return Pair(made[0], made[1] if truth else None, numbers)


def _ask_about_ppb(paths: Sequence[Path], spreads: Sequence[float]) -> None:
    """Raise ValueError where a map said to be in ppm looks like ppb."""
    large = [k for k, spread in enumerate(spreads) if spread > PPB_LIKE]
    if not large:
        return
    told = f"{paths[large[0]]}: values spread by {spreads[large[0]]:.3g}, which looks like ppb instead of ppm"
    if len(large) < len(paths):
        other = spreads[1 - large[0]]
        raise ValueError(f"{told}, and those of the other map by {other:.3g}; bring both to one unit")
    raise ValueError(f"{told}; pass --unit ppb, or --unit ppm if it is right")

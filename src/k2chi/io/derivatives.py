"""Maps to files: BIDS derivatives, or the same maps in one flat folder; all of a scan's files or none."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from k2chi import __version__, units
from k2chi.data import Maps
from k2chi.field.swi import minimum_intensity_projection
from k2chi.io.nifti import write, write_text

SLAB_MM = 8.0
"""Thickness of the slab that a minimum-intensity projection is taken over [mm]."""

IGNORED = "*.html\nlogs/\nfigures/\n*_stats.tsv\n"
"""What the validator is told to pass over, as it has no name in the standard."""


@dataclass(frozen=True)
class Layout:
    """Where the files of one scan go."""

    out: Path
    name: str = ""
    """What file names begin with; may be empty."""
    folder: Path | None = None
    """sub-01/ses-1 of a BIDS tree; None puts everything into `out`."""

    def image(self, kind: str, label: str) -> Path:
        """A map's path relative to `out`; kind is anat or fmap."""
        file = Path(f"{self.name}_{label}.nii.gz" if self.name else f"{label}.nii.gz")
        return file if self.folder is None else self.folder / kind / file

    def note(self, label: str) -> Path:
        """Path of a record of the run, relative to `out`: recipe.toml, run.json, report.html, …"""
        file = f"{self.name}_{label}" if self.name else label
        if self.folder is None:
            return Path(file)
        return Path(f"{self.name}.html") if label == "report.html" else Path("logs") / file


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A hidden folder inside `out`, whose files move to their places on success and vanish on failure.

    Raises OSError at once where nothing can be written.
    """
    made = [p for p in (out, *out.parents) if not p.exists()]
    stage: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".k2chi-", dir=out))
        yield stage
        files = sorted(p for p in stage.rglob("*") if p.is_file())
        for file in files:
            place = out / file.relative_to(stage)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    except BaseException:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for folder in made:  # only those that were not there before, and are empty again
            try:
                folder.rmdir()
            except OSError:
                break
        raise
    shutil.rmtree(stage, ignore_errors=True)


def room(out: Path, grid_voxels: int, maps: int = 10) -> None:
    """Raise OSError if the disk has less space than the maps may need."""
    place = next(p for p in (out, *out.parents) if p.exists())
    free, needed = shutil.disk_usage(place).free, 4 * grid_voxels * maps
    if free < needed:
        raise OSError(
            f"{out}: {free / 1e6:.0f} MB are free but the maps need up to {needed / 1e6:.0f} MB; make room"
        )


def dumps(data: Any) -> str:
    """JSON as we write it."""
    return json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"


def _hz(ppm: Tensor, b0_tesla: float) -> Tensor:
    return ppm * units.hz_per_ppm(b0_tesla)


def images(maps: Maps) -> Iterator[tuple[str, str, Tensor, dict[str, Any]]]:
    """Folder, label, values and description of each map there is."""
    b0 = maps.scan.b0_tesla
    yield "anat", "desc-brain_mask", maps.mask, {"Type": "Brain"}
    if maps.chi is not None:
        chi = {
            "Units": "ppm",
            "Description": "Magnetic susceptibility (SI), relative to the reference",
            "SusceptibilityReference": maps.chi.reference,
            "SusceptibilityReferenceSubtracted": maps.chi.reference_ppm,
        }
        yield "anat", "Chimap", maps.chi.ppm, chi
        if maps.chi.sd_ppm is not None:
            words = "Standard deviation of the error that the method states for its susceptibility map"
            yield "anat", "desc-uncertainty_Chimap", maps.chi.sd_ppm, {"Units": "ppm", "Description": words}
    if maps.sources is not None:
        for label, sign, values in (
            ("paramagnetic", "zero or more", maps.sources.para_ppm),
            ("diamagnetic", "zero or less", maps.sources.dia_ppm),
        ):
            words = f"Susceptibility of {label} sources alone (SI), {sign}"
            yield "anat", f"desc-{label}_Chimap", values, {"Units": "ppm", "Description": words}
    if maps.swi is not None:
        words = "Susceptibility-weighted magnitude: veins and iron are dark"
        yield "anat", "swi", maps.swi, {"Units": "arbitrary", "Description": words}
        dark = minimum_intensity_projection(maps.swi, SLAB_MM, maps.grid, maps.mask)
        words = f"Least value of the susceptibility-weighted image within {SLAB_MM:g} mm along the slices"
        yield "anat", "minIP", dark, {"Units": "arbitrary", "Description": words}
    if maps.r2star_per_s is not None:
        r2 = maps.r2star_per_s
        yield "anat", "R2starmap", r2, {"Units": "1/s"}
        t2 = torch.where(r2 > 0, 1 / r2.clamp(min=1e-6), 0.0).clamp(max=10.0)
        yield (
            "anat",
            "T2starmap",
            t2,
            {"Units": "s", "Description": "1/R2*, at most 10 s; 0 where R2* is not positive"},
        )
    for label, field in (("total", maps.total), ("local", maps.local)):
        if field is not None:
            words = f"{label.capitalize()} field relative to B0; {units.hz_per_ppm(b0):.4f} Hz are 1 ppm"
            told = {"Units": "Hz", "Description": words}
            yield "fmap", f"desc-{label}_fieldmap", _hz(field.ppm, b0) * field.mask, told
            if maps.magnitude is not None:
                yield "fmap", f"desc-{label}_magnitude", maps.magnitude, {"Units": "arbitrary"}
    if maps.chi is None and maps.total is None and maps.unwrapped_rad is not None:
        yield "anat", "part-phase_desc-unwrapped_MEGRE", maps.unwrapped_rad, {"Units": "rad"}


def write_maps(
    maps: Maps, layout: Layout, sources: list[str], common: dict[str, Any], codes: tuple[int, int] = (1, 1)
) -> list[Path]:
    """Write every map with its JSON; paths relative to the layout's folder come back."""
    written = []
    for kind, label, values, said in images(maps):
        if layout.folder is None and label == "desc-local_magnitude":
            continue
        where = layout.image(
            kind, "magnitude" if layout.folder is None and label.endswith("_magnitude") else label
        )
        path = layout.out / where
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, values, maps.grid, codes)
        stripped = label.endswith(("Chimap", "fieldmap", "mask"))
        about = {
            **said,
            "SkullStripped": stripped,
            "Sources": sources,
            "MagneticFieldStrength": maps.scan.b0_tesla,
            "EchoTime": maps.scan.te_s[0] if len(maps.scan.te_s) == 1 else list(maps.scan.te_s),
            **common,
        }
        write_text(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), dumps(about))
        written.append(where)
    return written


def describe_derivatives(out: Path, raw: Path) -> None:
    """dataset_description.json and .bidsignore of a derivatives folder, unless they are there."""
    description = {
        "Name": "k2chi: quantitative susceptibility maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "k2chi", "Version": __version__}],
        "SourceDatasets": [{"URL": raw.resolve().as_uri()}],
        "DatasetLinks": {"raw": raw.resolve().as_uri()},
    }
    out.mkdir(parents=True, exist_ok=True)
    readme = f"χ [ppm] and field maps [Hz] made by k2chi {__version__}; records of each run in logs/.\n"
    files = {"dataset_description.json": dumps(description), ".bidsignore": IGNORED, "README": readme}
    for name, text in files.items():
        if not (out / name).exists():
            write_text(out / name, text)

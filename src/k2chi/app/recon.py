"""One scan from raw data to images: reconstruction, files with records, and a page to look at."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from k2chi import __version__, about, config
from k2chi.app import figures, methods, report
from k2chi.app.rawscan import distortion, idle, images, said, with_field_map
from k2chi.app.run import Order, fingerprint, sha256, versions
from k2chi.data import Echoes, Raw
from k2chi.io import bids
from k2chi.io.derivatives import Layout, dumps, room, staged
from k2chi.io.fieldmap import Unit
from k2chi.io.nifti import write_text
from k2chi.io.rawdata import open_raw
from k2chi.io.reconstructed import describe_images, sidecar_facts, write_images
from k2chi.recon.reconstruct import Reconstruct

ALL = ("mag", "phase", "real", "imag")


@dataclass(frozen=True)
class Wanted:
    """Which raw data, and how their images are named."""

    path: Path
    te_s: tuple[float, ...] = ()
    b0_tesla: float | None = None
    b0_world: tuple[float, float, float] = (0.0, 0.0, 1.0)
    repetition: int = 0
    """Number of the repetition to read, from 0."""
    name: str = ""
    """sub-01_ses-1_run-1 or like it, for a BIDS data set; '' puts all files into one folder."""
    parts: tuple[str, ...] = ALL
    unwarp: Path | None = None
    """Field map by which images of EPI are put where they belong."""
    units: Unit | None = None
    """Its unit, if its JSON does not say."""

    def open(self, recon: Reconstruct) -> Raw:
        """The raw data, opened, with what `recon` needs besides."""
        raw = open_raw(self.path, self.te_s, self.b0_tesla, self.b0_world, self.repetition)
        return raw if self.unwarp is None else with_field_map(raw, self.unwarp, self.units, recon)

    def layout(self, out: Path) -> Layout:
        """Where the files go."""
        if not self.name:
            return Layout(out)
        known = bids.parse(f"{self.name}_MEGRE.nii.gz")
        if known is None or "sub" not in known[0] or {"echo", "part"} & set(known[0]):
            raise ValueError(f"--name {self.name}: give a BIDS name such as sub-01 or sub-01_ses-1_run-2")
        return Layout(out, self.name, bids.Series(out, known[0], "MEGRE").folder)


@dataclass(frozen=True)
class Result:
    """What one reconstruction made."""

    echoes: Echoes
    out: Path
    files: tuple[Path, ...]
    """Paths relative to `out`."""
    record: dict[str, Any]
    """What recon.json holds."""


def run(wanted: Wanted, out: Path, order: Order) -> Result:
    """Reconstruct one scan and write all files, or none.

    Raises ValueError for unusable data and OSError where nothing can be written.
    """
    layout = wanted.layout(out)
    there = layout.out / layout.note("recon.json")
    if there.exists() and not order.overwrite:
        raise ValueError(f"{there} is there already: choose another folder, or pass --overwrite")
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with staged(out) as stage:
        raw = wanted.open(order.pipeline.recon)
        room(out, int(np.prod(raw.grid.shape)) * len(raw.scan.te_s), len(wanted.parts))
        echoes, seconds, told = images(raw, order.pipeline, order.device)
        record: dict[str, Any] = {
            "versions": versions(),
            "started": started,
            "recipe": order.recipe,
            "recipe_sha256": fingerprint(order),
            "device": order.device,
            "inputs": {str(f): sha256(f) for f in (wanted.path, wanted.unwarp) if f is not None},
            "said": [*said(raw), *distortion(raw, order.pipeline.recon)],
            "warnings": told,
            "protocol": dict(raw.facts),
            "seconds": {"recon": round(seconds, 3)},
        }
        inside = replace(layout, out=stage)
        more = {
            **sidecar_facts(raw, echoes.grid.shape[1]),
            "Sources": [wanted.path.name],
            "GeneratedWith": f"k2chi {__version__}",
            "Recipe": layout.note("recon.toml").name,
            "Reconstruction": about.to_table(order.pipeline.recon),
        }
        files = write_images(echoes, inside, raw.encoding.train > 1, more, wanted.parts)
        if layout.folder is not None:
            describe_images(stage, out)
        recipe = config.dumps(order.pipeline)
        notes = {"recon.toml": recipe, "recon.txt": log(record, echoes)}
        if order.report:
            notes["recon.html"] = page(record, echoes, order, recipe, wanted.path, idle(raw))
        notes["recon.json"] = dumps(record)  # last: done once this is there
        for label, content in notes.items():
            path = stage / layout.note(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, content)
            files.append(layout.note(label))
    return Result(echoes, out, tuple(files), record)


def log(record: dict[str, Any], echoes: Echoes) -> str:
    """The record in lines for reading."""
    grid = echoes.grid
    lines = [f"{record['started']}  k2chi {record['versions']['k2chi']}  recipe {record['recipe']}"]
    lines += [f"input    {name}  sha256 {sha}" for name, sha in record["inputs"].items()]
    lines += [f"read     {words}" for words in record["said"]]
    lines += [f"grid     {grid.shape} voxels of {grid.voxel_mm} mm, B0 along {grid.b0_dir}"]
    lines += [f"time     {stage}: {seconds} s" for stage, seconds in record["seconds"].items()]
    lines += [f"warning  {words}" for words in record["warnings"]]
    return "\n".join(lines) + "\n"


def page(
    record: dict[str, Any], echoes: Echoes, order: Order, recipe: str, path: Path, unused: set[str]
) -> str:
    """Magnitude and phase of the first, a middle and the last echo on one page."""
    scan, grid = echoes.scan, echoes.grid
    made = "Complex images"
    text, cited = methods.paragraph(order.pipeline, order.recipe, grid, scan, {"recon"}, made, unused)
    facts = [
        ("field strength", f"{scan.b0_tesla:g} T"),
        ("echo times", ", ".join(f"{1e3 * t:.4g}" for t in scan.te_s) + " ms"),
        ("matrix", " × ".join(map(str, grid.shape))),
        ("voxel", " × ".join(f"{v:.3g}" for v in grid.voxel_mm) + " mm"),
        ("B0 in voxel axes", ", ".join(f"{b:.3f}" for b in grid.b0_dir)),
        ("computing time", f"{record['seconds']['recon']:.0f} s"),
    ]
    told = report.Page(
        f"Images of {path.name}",
        f"k2chi {__version__} · recipe {order.recipe} · {record['started']}",
        "The sign of the phase is that of the raw data; k2chi qsm looks whether it fits.",
        record["said"],
        record["warnings"],
        text,
        cited,
        recipe,
        {Path(k).name: v for k, v in record["inputs"].items()},
        record["versions"],
        pictures=[picture(echoes)],
    )
    return report.rendered(told, facts, [])


def picture(echoes: Echoes) -> report.Picture:
    """A montage of magnitude and phase."""
    count = len(echoes.scan.te_s)
    view, rows = figures.View(echoes.grid), []
    for n in sorted({0, count // 2, count - 1}):
        image, te = echoes.signal[n], f"echo {n + 1}\n{1e3 * echoes.scan.te_s[n]:.3g} ms"
        top = float(np.percentile(image.abs().numpy(), 99.5)) or 1.0
        rows.append(figures.Row(f"magnitude\n{te}", view(image.abs()), 0, top))
        rows.append(figures.Row(f"phase, ±π\n{te}", view(image.angle()), -np.pi, np.pi))
    whole = np.ones_like(rows[0].volume, dtype=bool)
    columns = min(7, len(whole[0, 0]))
    words = "Axial slices from bottom to top; left of the patient is left."
    figure = figures.montage(rows, whole, view.voxel_mm, columns)
    return report.Picture("Magnitude and phase", figures.png(figure), words)

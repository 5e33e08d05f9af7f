"""One scan from data to files: the pipeline, the sign of the phase, maps, records and report."""

import dataclasses
import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from k2chi import __version__, config
from k2chi.app import methods, report
from k2chi.app.rawscan import idle, images
from k2chi.data import Chi, Echoes, Field, Maps, Raw, Sources
from k2chi.io.derivatives import Layout, dumps, room, staged, write_maps
from k2chi.io.echoes import Source, conjugate
from k2chi.io.nifti import write_text
from k2chi.measure.sign import Sign, phase_sign
from k2chi.pipeline import Pipeline, Stage

T = TypeVar("T", bound=Echoes | Field | Maps | Chi | Sources)


@dataclass(frozen=True)
class Order:
    """What a user asked for, apart from the data."""

    pipeline: Pipeline
    recipe: str = "default"
    """Name of the recipe, for the records."""
    until: Stage = "chi"
    sign: Literal["auto", "+", "-"] = "auto"
    device: str = "cpu"
    report: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Result:
    """What one run made."""

    maps: Maps
    out: Path
    files: tuple[Path, ...]
    """Paths relative to `out`."""
    record: dict[str, Any]
    """What run.json holds."""


def moved(value: T, device: str) -> T:
    """The same data on another device."""
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        held = getattr(value, f.name)
        if isinstance(held, Tensor):
            changes[f.name] = held.to(device)
        elif isinstance(held, Echoes | Field | Chi | Sources):
            changes[f.name] = moved(held, device)
    return replace(value, **changes)


def turned(maps: Maps) -> Maps:
    """Maps up to the local field with the other sign."""
    rad = maps.unwrapped_rad
    return replace(
        maps,
        unwrapped_rad=None if rad is None else -rad,
        total=maps.total and replace(maps.total, ppm=-maps.total.ppm),
        local=maps.local and replace(maps.local, ppm=-maps.local.ppm),
        echoes=maps.echoes and conjugate(maps.echoes),
    )


def compute(data: Echoes | Field, order: Order) -> tuple[Maps, str, Sign | None]:
    """Run the pipeline; what was decided about the sign comes back in words."""
    given = isinstance(data, Field)
    if order.sign == "-":
        data = replace(data, ppm=-data.ppm) if isinstance(data, Field) else conjugate(data)
    if order.sign != "auto" or order.until not in ("local", "chi"):
        maps = order.pipeline(data, order.until)
        stopped = "sign of the phase not examined: the run stops before the local field"
        words = {
            "+": "sign of the phase taken as it is, as you said",
            "-": "sign of the phase turned round, as you said",
        }
        return maps, words.get(order.sign, stopped), None
    maps = order.pipeline(data, "local")
    assert maps.local is not None
    sign = phase_sign(maps.local, maps.total, maps.magnitude, maps.r2star_per_s)
    words_found = str(sign)
    if given and sign.value < 0:  # a field map is taken at its word; its maker knew the sign
        words_found = words_found.replace(
            "turned round", "this field map looks inverted; --sign - turns it round"
        )
    elif sign.value < 0:
        maps = turned(maps)
    return order.pipeline(maps, order.until), words_found, sign


def sha256(path: Path) -> str:
    """Fingerprint of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(order: Order) -> str:
    """Of all settings of all methods."""
    return hashlib.sha256(config.dumps(order.pipeline).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What the result depends on."""
    return {
        "k2chi": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def named(path: Path, root: Path | None) -> str:
    """An input as BIDS names sources, or by its file name."""
    if root is not None and root in path.resolve().parents:
        return f"bids:raw:{path.resolve().relative_to(root)}"
    return path.name


def taken(layout: Layout) -> Path | None:
    """A result that is already there, or None."""
    places = (
        layout.note("run.json"),
        layout.image("anat", "Chimap"),
        layout.image("anat", "desc-brain_mask"),
    )
    return next((layout.out / p for p in places if (layout.out / p).exists()), None)


def run(
    read: Callable[[], tuple[Echoes | Field | Raw, Source]],
    layout: Layout,
    order: Order,
    root: Path | None = None,
    extras: Callable[[Maps], tuple[Sequence[report.Table], Sequence[report.Picture]]] | None = None,
) -> Result:
    """Read one scan, compute its maps and write all files, or none.

    `extras` adds tables and pictures to the report. Raises ValueError for unusable data and OSError where
    nothing can be written.
    """
    there = taken(layout)
    if there is not None and not order.overwrite:
        raise ValueError(f"{there} is there already: choose another folder, or pass --overwrite")
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with staged(layout.out) as stage:
        data, source = read()
        room(layout.out, int(np.prod(data.grid.shape)))
        told = list(source.warnings)
        seconds: dict[str, float] = {}
        unused = idle(data) if isinstance(data, Raw) else set()
        if isinstance(data, Raw):
            data, seconds["recon"], heard = images(data, order.pipeline, order.device)
            told += heard
        maps, sign_words, sign = compute(moved(data, order.device), order)
        maps = replace(moved(maps, "cpu"), seconds=seconds | maps.seconds)
        inside = replace(layout, out=stage)
        inputs = {str(f): sha256(f) for f in source.files}
        text, cited = methods.paragraph(
            order.pipeline, order.recipe, maps.grid, maps.scan, maps.seconds, idle=unused
        )
        told += maps.warnings
        if sign is not None and (not sign.sure or (sign.value < 0 and isinstance(data, Field))):
            told.append(sign_words)
        recipe = config.dumps(order.pipeline)
        built = versions()
        record: dict[str, Any] = {
            "versions": built,
            "started": started,
            "recipe": order.recipe,
            "recipe_sha256": fingerprint(order),
            "until": order.until,
            "device": order.device,
            "inputs": inputs,
            "said": list(source.says),
            "warnings": told,
            "sign": {"asked": order.sign, "words": sign_words, **(dataclasses.asdict(sign) if sign else {})},
            "seconds": {k: round(v, 3) for k, v in maps.seconds.items()},
        }
        if maps.chi is not None and maps.chi.updates:
            record["inversion"] = {
                "iterations": len(maps.chi.updates),
                "converged": maps.chi.converged,
                "last_update": maps.chi.updates[-1],
                "words": report.ended(maps.chi),
            }
        common = {"GeneratedWith": f"k2chi {__version__}", "Recipe": layout.note("recipe.toml").name}
        sources = [named(f, root) for f in source.files]
        files = write_maps(maps, inside, sources, common, source.codes)
        notes = {
            "recipe.toml": recipe,
            "methods.md": methods.markdown(text, cited),
            "log.txt": log(record, maps),
        }
        if order.report:
            phase, label = shown_phase(data)
            tables, pictures = extras(maps) if extras else ((), ())
            page = report.Page(
                layout.name or "Susceptibility map",
                f"k2chi {__version__} · recipe {order.recipe} · {started}",
                sign_words[0].upper() + sign_words[1:] + ".",
                source.says,
                told,
                text,
                cited,
                recipe,
                {Path(k).name: v for k, v in inputs.items()},
                built,
                tables,
                pictures,
            )
            notes["report.html"] = report.html(page, maps, phase, label)
        notes["run.json"] = dumps(record)  # last: a scan counts as done once this is there
        for label, content in notes.items():
            path = inside.out / layout.note(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, content)
            files.append(layout.note(label))
    return Result(maps, layout.out, tuple(files), record)


def shown_phase(data: Echoes | Field) -> tuple[Tensor | None, str]:
    """The wrapped phase of the middle echo, with a label."""
    if isinstance(data, Field):
        return None, ""
    middle = len(data.scan.te_s) // 2
    te = 1e3 * data.scan.te_s[middle]
    return data.signal[middle].angle().cpu(), f"phase as read\necho {middle + 1}\n{te:.3g} ms\n±π"


def log(record: dict[str, Any], maps: Maps) -> str:
    """The record in lines for reading."""
    lines = [f"{record['started']}  k2chi {record['versions']['k2chi']}  recipe {record['recipe']}"]
    lines += [f"input    {name}  sha256 {sha}" for name, sha in record["inputs"].items()]
    lines += [f"read     {words}" for words in record["said"]]
    lines += [f"grid     {maps.grid.shape} voxels of {maps.grid.voxel_mm} mm, B0 along {maps.grid.b0_dir}"]
    lines += [f"sign     {record['sign']['words']}"]
    lines += [f"time     {stage}: {seconds} s" for stage, seconds in record["seconds"].items()]
    if "inversion" in record:
        lines += [f"solve    {record['inversion']['words']}"]
    lines += [f"warning  {words}" for words in record["warnings"]]
    return "\n".join(lines) + "\n"

"""BIDS data sets: find the scans that carry phase, with their sidecars and masks."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from k2chi.data import Echoes, Vector
from k2chi.io.echoes import Source, read_complex, read_echoes
from k2chi.io.nifti import ALONG_BORE, read, same_place
from k2chi.io.sidecar import agree, facts, read_json, sidecar

SUFFIXES = ("MEGRE", "T2starw", "GRE", "swi")
"""File suffixes that may hold gradient echoes; the first two are in the standard."""
PARTS = ("mag", "phase", "real", "imag")
NAME = "k2chi"


@dataclass(frozen=True)
class Series:
    """The files of one scan."""

    root: Path
    """The data set."""
    entities: dict[str, str]
    """sub, ses, acq, run, … as in the names; without echo and part."""
    suffix: str
    parts: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Files by part (mag, phase, real, imag), in the order of echoes."""
    mask: Path | None = None
    """A brain mask found among the derivatives."""

    @property
    def name(self) -> str:
        """What outputs begin with, such as sub-01_ses-2_run-1; '' without entities."""
        return "_".join(f"{k}-{v}" for k, v in self.entities.items())

    @property
    def folder(self) -> Path:
        """Where outputs belong, relative to the derivatives: sub-01/ses-2."""
        return Path(*[f"{k}-{self.entities[k]}" for k in ("sub", "ses") if k in self.entities])

    @property
    def has_phase(self) -> bool:
        return bool(self.parts.get("phase") or (self.parts.get("real") and self.parts.get("imag")))


def parse(name: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a file name, or None if it is not of BIDS form."""
    stem = re.sub(r"\.(nii\.gz|nii|json)$", "", name)
    *pairs, suffix = stem.split("_")
    if not suffix.isalnum() or any("-" not in p for p in pairs):
        return None
    return dict(p.split("-", 1) for p in pairs), suffix


def root_of(folder: Path) -> Path:
    """The data set that a folder lies in: up to dataset_description.json, or the folder itself."""
    for place in (folder.resolve(), *folder.resolve().parents):
        if (place / "dataset_description.json").exists():
            return place
    return folder.resolve()


@lru_cache(maxsize=4096)
def _jsons(folder: Path) -> tuple[tuple[Path, dict[str, str], str], ...]:
    names = (n for n in sorted(os.listdir(folder)) if n.endswith(".json"))
    return tuple((folder / n, *known) for n in names if (known := parse(n)))


def metadata(file: Path, root: Path) -> dict[str, Any]:
    """What JSON says of a file: by the inheritance principle, nearer and more special files win."""
    known = parse(file.name)
    if known is None:
        raise ValueError(f"{file}: not a BIDS name; name it sub-01_part-phase_T2starw.nii.gz or like it")
    entities, suffix = known
    folders = [p for p in (file.parent, *file.parent.parents) if p == root or root in p.parents]
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        fit = [
            (len(has), path)
            for path, has, kind in _jsons(folder)
            if kind == suffix and has.items() <= entities.items()
        ]
        for _, path in sorted(fit):
            merged |= read_json(path)
    return merged


def _images(folder: Path, participants: Sequence[str], sessions: Sequence[str]) -> Iterator[Path]:
    """NIfTI files of the wanted subjects; derivatives, sources and hidden folders are passed over."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith((".", "derivatives", "sourcedata", "code"))
            and not (f.startswith("sub-") and participants and f[4:] not in participants)
            and not (f.startswith("ses-") and sessions and f[4:] not in sessions)
        )
        yield from (Path(here) / n for n in sorted(names) if n.endswith((".nii", ".nii.gz")))


def labels(given: Iterable[str], key: str) -> tuple[str, ...]:
    """Labels without their prefix, so that 01 and sub-01 are the same."""
    return tuple(g.removeprefix(f"{key}-") for g in given)


def find(folder: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> list[Series]:
    """All scans with phase in a data set, a subject's folder, or any folder with BIDS-like names.

    Raises ValueError if there is none, or a wanted subject is missing.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: there is no such folder; give a BIDS data set or a folder of NIfTI files"
        )
    participants, sessions = labels(participants, "sub"), labels(sessions, "ses")
    _jsons.cache_clear()
    root = root_of(folder)
    groups: dict[tuple[Any, ...], dict[str, list[tuple[int, Path]]]] = {}
    seen: set[str] = set()
    for path in _images(folder.resolve(), participants, sessions):
        known = parse(path.name)
        if known is None or known[1] not in SUFFIXES or "desc" in known[0] or "space" in known[0]:
            continue
        entities, suffix = known
        if participants and entities.get("sub") not in participants:
            continue
        seen.add(entities.get("sub", ""))
        echo, part = entities.pop("echo", "0"), entities.pop("part", "mag")
        if part in PARTS:
            group = groups.setdefault((tuple(entities.items()), suffix), {})
            group.setdefault(part, []).append((int(echo) if echo.isdigit() else 0, path))
    missing = [p for p in participants if p not in seen]
    if missing:
        raise ValueError(f"{folder}: no images of sub-{', sub-'.join(missing)}; check --participant-label")
    masks = _masks(root)
    series = []
    for (entities, suffix), parts in groups.items():
        files = {part: tuple(p for _, p in sorted(found)) for part, found in parts.items()}
        one = Series(root, dict(entities), suffix, files)
        if one.has_phase:
            series.append(Series(root, one.entities, suffix, files, _mask_for(one, masks)))
    names = [s.name for s in series]
    series = [_told_apart(s) if names.count(s.name) > 1 else s for s in series]
    if not series:
        series = _loose(folder.resolve())
    if not series:
        raise ValueError(
            f"{folder}: no scan with phase found; expected names like sub-01_echo-1_part-phase_MEGRE.nii.gz "
            "or sub-01_part-phase_T2starw.nii.gz (give other files with --magnitude and --phase)"
        )
    return series


def _told_apart(series: Series) -> Series:
    """MEGRE and T2starw of one session would write the same files: the suffix joins acq."""
    entities = dict(series.entities)
    entities["acq"] = entities.get("acq", "") + series.suffix
    return replace(series, entities=entities)


def _loose(folder: Path) -> list[Series]:
    """One scan from a folder of NIfTI files with JSON, as converters leave it: ImageType tells the part."""
    words = {
        "M": "mag",
        "MAGNITUDE": "mag",
        "P": "phase",
        "PHASE": "phase",
        "REAL": "real",
        "IMAGINARY": "imag",
    }
    parts: dict[str, list[tuple[float, Path]]] = {}
    for path in sorted(p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz"))):
        data = sidecar(path)
        kinds = data.get("ImageType")
        part = [words[k] for k in kinds if k in words] if isinstance(kinds, list) else []
        te = data.get("EchoTime")
        if part and isinstance(te, int | float | list):
            parts.setdefault(part[-1], []).append((te[0] if isinstance(te, list) else te, path))
    files = {part: tuple(p for _, p in sorted(found)) for part, found in parts.items()}
    one = Series(folder, {}, "", files)
    return [one] if one.has_phase else []


def _made_here(folder: Path) -> bool:
    """True for our own derivatives, whose masks must not become input of the next run."""
    path = folder / "dataset_description.json"
    if not path.exists():
        return False
    made = read_json(path).get("GeneratedBy", [])
    return any(isinstance(g, dict) and g.get("Name") == NAME for g in made if made)


def _masks(root: Path) -> list[tuple[dict[str, str], Path]]:
    """Brain masks in scan space among the derivatives: desc-brain, or without desc."""
    found = []
    for here, folders, names in os.walk(root / "derivatives"):
        if _made_here(Path(here)):
            folders.clear()
            continue
        folders.sort()
        for name in sorted(names):
            known = parse(name) if name.endswith((".nii", ".nii.gz")) else None
            if known is None or known[1] != "mask" or "space" in known[0]:
                continue
            if known[0].pop("desc", "brain") == "brain" and known[0].pop("label", "brain") == "brain":
                found.append((known[0], Path(here) / name))
    return found


def _mask_for(series: Series, masks: list[tuple[dict[str, str], Path]]) -> Path | None:
    """The mask that names most of the scan's entities, and none that it has not, on the scan's grid."""
    fit = [(len(e), p) for e, p in masks if "sub" in e and e.items() <= series.entities.items()]
    for _, path in sorted(fit, reverse=True):
        image = read((series.parts.get("phase") or series.parts["real"])[0])
        try:
            same_place(image, read(path))
        except ValueError:
            continue
        return path
    return None


def load(
    series: Series,
    mask: Path | None = None,
    find_mask: bool = True,
    b0_world: Vector = ALONG_BORE,
    unwrapped: bool = False,
    te_s: Sequence[float] = (),
    b0_tesla: float | None = None,
    bipolar: bool = False,
) -> tuple[Echoes, Source]:
    """Read one scan. `te_s` and `b0_tesla` fill in what the JSON leaves out, and must not contradict it."""
    said: dict[str, list[float]] = {}
    strength = b0_tesla
    for part, files in series.parts.items():
        described = [(f, metadata(f, series.root) if series.suffix else sidecar(f)) for f in files]
        times, b0, both_ways = facts(described)
        said[part] = times
        bipolar |= both_ways
        if b0 is not None and strength is not None and abs(b0 - strength) > 0.02 * strength:
            raise ValueError(
                f"{files[0]}: its JSON says {b0:g} T, but {strength:g} T was given; correct one of them"
            )
        strength = strength or b0
    times = list(te_s)
    for part, more in said.items():
        times = agree(times, more, "before", f"{series.parts[part][0]} and its like")
    mask = mask or (series.mask if find_mask else None)
    if "phase" in series.parts:
        magnitude = series.parts.get("mag", ())
        echoes, source = read_echoes(
            magnitude, series.parts["phase"], times, strength, mask, b0_world, unwrapped, bipolar
        )
    else:
        real, imag = series.parts["real"], series.parts["imag"]
        echoes, source = read_complex(real, imag, times, strength, mask, b0_world, bipolar)
    if mask is not None and mask == series.mask:
        found = f"brain mask found among the derivatives: {mask.relative_to(series.root)}"
        source = Source(source.files, source.codes, (*source.says, found), source.warnings)
    return echoes, source

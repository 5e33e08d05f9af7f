"""What a run wrote, so that the next one under the same name takes away what it does not replace."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from k2chi.io.nifti import write_text

KEY = "FilesOfThisRun"


def note(record: Path, files: Iterable[Path]) -> Path:
    """Write the names of `files`, which lie in the record's folder or below, with their sha256."""
    home = record.parent.resolve()
    sums = {str(f.resolve().relative_to(home)): _sum(f) for f in sorted(set(files)) if f.name != record.name}
    text = json.dumps({"GeneratedBy": "k2chi", KEY: sums}, indent=2, ensure_ascii=False) + "\n"
    return write_text(record, text)


def renewed(record: Path, files: Iterable[Path]) -> Path:
    """Note the files of this run; those of the run before that are not among them are removed.

    Only files that its record names, inside the record's folder, whose bytes are as they were written: what
    anyone has changed since, or made, stays. Without a record nothing is removed.
    """
    made = sorted(set(files))
    home, kept = record.parent.resolve(), {f.resolve() for f in made}
    for name, was in _noted(record).items():
        old = (home / name).resolve()
        if old.is_relative_to(home) and old not in kept and old.is_file() and _sum(old) == was:
            old.unlink()
    return note(record, made)


def _noted(record: Path) -> dict[str, str]:
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = said.get(KEY) if isinstance(said, dict) and said.get("GeneratedBy") == "k2chi" else None
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

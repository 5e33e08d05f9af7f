"""Tables that name the numbers of a label image: BIDS TSV, FreeSurfer and ITK-SNAP lists, JSON."""

import csv
import json
import re
from pathlib import Path
from typing import Any


def read_names(path: Path) -> dict[int, str]:
    """Label number to name; 0 is left out. Raises ValueError for a file of no known form.

    Understood: a BIDS `dseg.tsv` (columns index and name), FreeSurfer's colour table (number, name, four
    colours), ITK-SNAP's description file (number, six figures, the name in quotes), and JSON: number to name,
    a list of names (`labels`, as NiiVue has it), or number to a table with a `name`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file; give a table of label names") from error
    found = _json(text) if path.suffix == ".json" else _tsv(text) if path.suffix == ".tsv" else _list(text)
    if not found:
        raise ValueError(
            f"{path}: no label names in it; give a BIDS dseg.tsv with columns index and name, a FreeSurfer "
            "colour table, an ITK-SNAP description, or JSON"
        )
    found.pop(0, None)
    return found


def table_beside(labels: Path) -> Path | None:
    """The table that BIDS puts beside a label image: same name, or the shorter `dseg.tsv` of its folder."""
    stem = labels.name.removesuffix(".gz").removesuffix(".nii")
    for name in (f"{stem}.tsv", f"{stem}.json", f"{stem}.txt", f"{stem.rsplit('_', 1)[-1]}.tsv"):
        path = labels.with_name(name)
        if path.exists() and _readable(path):
            return path
    return None


def _readable(path: Path) -> bool:
    try:
        return bool(read_names(path))
    except ValueError:
        return False


def _json(text: str) -> dict[int, str]:
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError:
        return {}
    if isinstance(data, dict) and isinstance(data.get("labels"), list):
        data = data["labels"]
    if isinstance(data, list):
        return {i: str(name).strip() for i, name in enumerate(data) if isinstance(name, str)}
    found = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        name = value.get("name") if isinstance(value, dict) else value
        if re.fullmatch(r"\d+", str(key)) and isinstance(name, str):
            found[int(key)] = name.strip()
    return found


def _tsv(text: str) -> dict[int, str]:
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    if not rows or not {"index", "name"} <= set(rows[0]):
        return {}
    return {int(float(r["index"])): r["name"].strip() for r in rows if r["index"] and r["name"]}


def _list(text: str) -> dict[int, str]:
    found = {}
    for line in text.splitlines():
        snap = re.match(r'\s*(\d+)(?:\s+[\d.]+){4,7}\s+"(.*)"\s*$', line)
        surfer = re.match(r"\s*(\d+)\s+(\S+)(?:\s+\d+){3,4}\s*$", line)
        plain = re.match(r"\s*(\d+)[\s,;]+([A-Za-z].*?)\s*$", line)
        for hit in (snap, surfer, plain):
            if hit:
                found[int(hit[1])] = hit[2].strip()
                break
    return found

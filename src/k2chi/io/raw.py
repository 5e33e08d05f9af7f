"""Simulated scans to raw BIDS, with their truth among the derivatives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from k2chi import __version__, units
from k2chi.data import Echoes, Grid, Scan
from k2chi.io.derivatives import dumps
from k2chi.io.nifti import write, write_text


def describe_raw(root: Path, name: str, subjects: Sequence[Mapping[str, Any]]) -> None:
    """dataset_description.json, README and participants.tsv; `subjects` are rows, participant_id first."""
    root.mkdir(parents=True, exist_ok=True)
    made = [{"Name": "k2chi", "Version": __version__}]
    about = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "CC0",
        "GeneratedBy": made,
    }
    write_text(root / "dataset_description.json", dumps(about))
    write_text(root / "README", f"{name}.\nSimulated by k2chi {__version__}; nobody was scanned.\n")
    columns = list(subjects[0])
    rows = ["\t".join(columns), *("\t".join(str(s[c]) for c in columns) for s in subjects)]
    write_text(root / "participants.tsv", "\n".join(rows) + "\n")


def scan_json(scan: Scan, echo: int, part: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar of one image."""
    data: dict[str, Any] = {
        "EchoTime": scan.te_s[echo],
        "MagneticFieldStrength": scan.b0_tesla,
        "ImageType": ["DERIVED", "PRIMARY", "M" if part == "mag" else "P"],
        **more,
    }
    if len(scan.te_s) > 1:
        data["EchoNumber"] = echo + 1
    if scan.bipolar:
        data["BipolarReadout"] = True
    if part == "phase":
        data["Units"] = "rad"
    return data


def write_raw(echoes: Echoes, root: Path, name: str, more: Mapping[str, Any]) -> list[Path]:
    """Magnitude and phase of each echo: MEGRE, or T2starw if there is one echo. `name` begins with sub-."""
    folder = root / Path(*[p for p in name.split("_") if p.startswith(("sub-", "ses-"))]) / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    several = len(echoes.scan.te_s) > 1
    written = []
    for n, image in enumerate(echoes.signal):
        for part, values in (("mag", image.abs()), ("phase", image.angle())):
            echo = f"_echo-{n + 1}" if several else ""
            stem = f"{name}{echo}_part-{part}_{'MEGRE' if several else 'T2starw'}"
            written.append(write(folder / f"{stem}.nii.gz", values, echoes.grid))
            write_text(folder / f"{stem}.json", dumps(scan_json(echoes.scan, n, part, more)))
    return written


def write_flat(echoes: Echoes, out: Path, more: Mapping[str, Any]) -> list[Path]:
    """magnitude.nii.gz and phase.nii.gz, echo last, with JSON that lists the echo times."""
    written = []
    for part, values in (("magnitude", echoes.signal.abs()), ("phase", echoes.signal.angle())):
        path = write(out / f"{part}.nii.gz", values, echoes.grid)
        data = scan_json(echoes.scan, 0, "mag" if part == "magnitude" else part, more)
        data["EchoTime"] = list(echoes.scan.te_s)
        data.pop("EchoNumber", None)
        write_text(out / f"{part}.json", dumps(data))
        written.append(path)
    return written


def write_truth(maps: Mapping[str, Tensor], grid: Grid, scan: Scan, folder: Path, name: str) -> list[Path]:
    """True maps by BIDS suffix; fields are given in ppm and written in Hz, as the standard asks."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{name}_" if name else ""
    unit = {"Chimap": "ppm", "R2starmap": "1/s", "fieldmap": "Hz"}
    written = []
    for label, values in maps.items():
        kind = label.split("_")[-1]
        if kind == "fieldmap":
            values = values * units.hz_per_ppm(scan.b0_tesla)
        about: dict[str, Any] = {"Description": "Truth of a simulation", "SkullStripped": False}
        if kind in unit:
            about["Units"] = unit[kind]
        if kind == "fieldmap":
            about |= {"MagneticFieldStrength": scan.b0_tesla}
        values = values if values.dtype is torch.bool or not values.is_floating_point() else values.float()
        written.append(write(folder / f"{prefix}{label}.nii.gz", values, grid))
        write_text(folder / f"{prefix}{label}.json", dumps(about))
    return written


def write_label_names(folder: Path, names: Mapping[int, str], stem: str) -> Path:
    """The table that tells label numbers."""
    rows = ["index\tname", *(f"{n}\t{name}" for n, name in names.items())]
    return write_text(folder / f"{stem}.tsv", "\n".join(rows) + "\n")

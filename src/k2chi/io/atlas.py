"""Atlases: what there is, whose it is, and the files of one. Nothing is fetched unless the user asks."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from k2chi.io.labels import read_names
from k2chi.io.nifti import atomic, read, write_text
from k2chi.io.sidecar import read_json


@dataclass(frozen=True)
class Entry:
    """One atlas of the catalogue."""

    name: str
    title: str
    contrast: str
    """What its template shows: T1, magnitude, …; local correlation wants the same from the subject."""
    space: str
    licence: str
    source: str
    citation: str


CATALOGUE = (
    Entry(
        "cit168",
        "CIT168 subcortical nuclei, 16 on each side: Pu, Ca, GPe, GPi, RN, SNc, SNr, STN, VTA, …",
        "T1",
        "MNI152 2009c",
        "CC BY 4.0",
        "https://osf.io/jkzwp/",
        "Pauli et al. 2018, Sci Data 5:180063, doi:10.1038/sdata.2018.63",
    ),
)
"""Atlases that k2chi knows by name; any folder with a template and labels will do as well."""


@dataclass(frozen=True)
class Atlas:
    """The files of one atlas. Template and labels may lie on different grids of one space."""

    name: str
    template: Path
    labels: Path
    names: dict[int, str]
    contrast: str
    licence: str
    citation: str
    mask: Path | None = None
    """Brain of the template; None: its non-zero voxels."""
    chi: Path | None = None
    """A second contrast on the template's grid, such as χ."""


def entry(name: str) -> Entry:
    """The atlas of that name. Raises ValueError with the names there are."""
    found = [e for e in CATALOGUE if e.name == name.lower()]
    if not found:
        names = ", ".join(e.name for e in CATALOGUE)
        raise ValueError(f"no atlas {name!r}: there is {names}; or give the folder of one of your own")
    return found[0]


def home() -> Path:
    """Where fetched atlases are kept."""
    return Path.home() / ".k2chi" / "atlases"


def find(name: str) -> Atlas:
    """An atlas by name or folder. Raises ValueError if it is not there: nothing is fetched here."""
    folder = Path(name)
    if folder.is_dir():
        return from_folder(folder)
    if "/" in name or folder.exists():
        raise ValueError(f"{name}: there is no such folder; give the folder of an atlas, or a name")
    known = entry(name)
    folder = home() / known.name
    if not folder.is_dir():
        raise ValueError(
            f"{known.name} is not on this machine: run `k2chi atlas fetch {known.name}` (licence: "
            f"{known.licence}), or give a folder that holds it"
        )
    return from_folder(folder)


def from_folder(folder: Path) -> Atlas:
    """An atlas from a folder: by its `atlas.json`, or by file names.

    `atlas.json` names `template`, `labels`, `names`, and may name `mask`, `chi`, `name`, `contrast`,
    `licence`, `citation`. Without it, the labels are the image with dseg, label or atlas in its name, the
    template the one with T1w, magnitude or template in it, its χ the one with Chimap in it. Raises
    ValueError if that is not clear.
    """
    said = read_json(folder / "atlas.json") if (folder / "atlas.json").exists() else {}
    images = sorted(p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz")))
    labels = _one(folder, said, "labels", images, ("dseg", "label"))
    template = _one(folder, said, "template", images, ("t1w", "magnitude", "template"))
    known = next((e for e in CATALOGUE if e.name in template.name.lower() + folder.name.lower()), None)
    tables = sorted(
        p
        for p in folder.iterdir()
        if p.suffix in (".tsv", ".json", ".txt", ".label", ".csv") and p.name != "atlas.json"
    )
    names = read_names(folder / said["names"]) if "names" in said else _first_names(folder, tables)
    guess = "T1" if "t1w" in template.name.lower() else "magnitude" if "mag" in template.name.lower() else ""
    extra = {k: folder / said[k] for k in ("mask", "chi") if k in said}
    if "chi" not in extra and len(maps := [p for p in images if "chimap" in p.name.lower()]) == 1:
        extra["chi"] = maps[0]
    return Atlas(
        str(said.get("name", known.name if known else folder.name)),
        template,
        labels,
        names,
        str(said.get("contrast", known.contrast if known else guess)),
        str(said.get("licence", known.licence if known else "not stated")),
        str(said.get("citation", known.citation if known else "not stated")),
        **extra,
    )


def _one(folder: Path, said: dict[str, Any], what: str, images: list[Path], words: tuple[str, ...]) -> Path:
    if what in said:
        path = folder / str(said[what])
        if not path.exists():
            raise ValueError(f"{folder / 'atlas.json'}: names {said[what]!r}, which is not there; correct it")
        return path
    found = [p for p in images if any(w in p.name.lower() for w in words)]
    if what == "template":
        found = [p for p in found if not any(w in p.name.lower() for w in ("dseg", "label", "mask"))]
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise ValueError(
            f"{folder}: {names} could be the {what}; name it in an atlas.json there, such as "
            '{"template": "T1w.nii.gz", "labels": "dseg.nii.gz", "names": "dseg.tsv"}'
        )
    return found[0]


def _first_names(folder: Path, tables: list[Path]) -> dict[int, str]:
    for table in tables:
        try:
            return read_names(table)
        except ValueError:
            continue
    raise ValueError(f"{folder}: holds no table with the names of the labels; add a dseg.tsv (index, name)")


Fetcher = Callable[[Path], tuple[Path, list[str]]]


def fetch(name: str, folder: Path | None = None, fetcher: Fetcher | None = None) -> Atlas:
    """Download an atlas with nilearn and lay it out as a folder that `find` reads.

    The labels of the original have no sides: they are split at x = 0 of their space. Raises ValueError if
    the network fails.
    """
    known = entry(name)
    out = folder or home() / known.name
    out.mkdir(parents=True, exist_ok=True)
    try:
        maps, names = (fetcher or _from_nilearn)(out)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{known.name} could not be fetched ({error}); check the network, or copy it from {known.source}"
        ) from error
    volume = read(maps)
    number = volume.tensor()[0].round().to(int_type()).numpy()
    x = np.arange(number.shape[0]) * np.asarray(volume.grid.affine)[0, 0] + volume.grid.affine[0][3]
    sided = np.where(number > 0, 2 * number - (x < 0)[:, None, None], 0)
    image: Any = nib.Nifti1Image
    _save(image(sided.astype(np.int16), np.asarray(volume.grid.affine)), out / "cit168_dseg.nii.gz")
    rows = [f"{2 * k - (side == 'L')}\t{side} {n}" for k, n in enumerate(names) if k for side in "LR"]
    write_text(out / "cit168_dseg.tsv", "index\tname\n" + "\n".join(rows) + "\n")
    _template(out)
    facts = asdict(known) | {
        "template_licence": "MNI152 2009a, © McConnell Brain Imaging Centre, free with its notice",
        "template": "T1w.nii.gz", "mask": "mask.nii.gz",
        "labels": "cit168_dseg.nii.gz", "names": "cit168_dseg.tsv",
    }  # fmt: skip
    write_text(out / "atlas.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return from_folder(out)


def int_type() -> Any:
    """Whole numbers of labels."""
    import torch

    return torch.int32


def _from_nilearn(folder: Path) -> tuple[Path, list[str]]:
    """The deterministic labels, and their names by number; the first is the background."""
    from nilearn.datasets import fetch_atlas_pauli_2017

    got = fetch_atlas_pauli_2017(atlas_type="deterministic", data_dir=str(folder / "nilearn"), verbose=0)
    names = [str(n) for n in got.labels]
    return Path(got.maps), names if names[0].lower() == "background" else ["background", *names]


def _template(out: Path) -> None:
    """The T1 and brain mask that the nilearn wheel carries."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    _save(load_mni152_template(resolution=1), out / "T1w.nii.gz")
    mask: Any = load_mni152_brain_mask(resolution=1)
    image: Any = nib.Nifti1Image
    _save(image(np.asarray(mask.dataobj).astype(np.uint8), mask.affine), out / "mask.nii.gz")


def _save(image: Any, path: Path) -> None:
    with atomic(path) as part:
        part.write_bytes(b"")
        made = part.with_name(part.name + ".nii.gz")
        nib.save(image, made)
        made.replace(part)

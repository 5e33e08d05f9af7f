"""The command `roi`: values of labelled regions as a long table."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.options import AsJson, Overwrite

if TYPE_CHECKING:
    from torch import Tensor

    from k2chi.data import Chi
    from k2chi.measure.roi import Region

MERGED = "Left and right as one region."


class MapUnit(StrEnum):
    """Units of a susceptibility map."""

    ppm, ppb = "ppm", "ppb"


@dataclasses.dataclass(frozen=True)
class Wish:
    """How regions are measured."""

    mask: Path | None = None
    erode: int = 0
    weights: Path | None = None
    merge: bool = False
    nuclei: bool = False
    unit: str | None = None


@plain_errors
def roi(
    chi: Annotated[Path, typer.Argument(metavar="CHI", help="Susceptibility map [ppm], or any other map.")],
    places: Annotated[
        list[Path],
        typer.Argument(metavar="[LABELS] [OUT.tsv]", help="Label image on the same grid; table to write."),
    ] = [],  # noqa: B006
    table: Annotated[
        Path | None, typer.Option(help="Names of the labels; the file beside LABELS if there is one.")
    ] = None,
    atlas: Annotated[
        str | None,
        typer.Option(help="Instead of LABELS: name or folder of an atlas, which is brought to χ's grid."),
    ] = None,
    magnitude: Annotated[
        Path | None, typer.Option(help="Magnitude on χ's grid, which the atlas is registered to.")
    ] = None,
    t1: Annotated[
        Path | None, typer.Option(help="T1 of the same person: for an atlas whose template is a T1.")
    ] = None,
    hybrid: Annotated[
        bool | None,
        typer.Option(help="χ drives the warp too; so if the atlas has a map of it, unless --no-hybrid."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Where values count; χ's non-zero voxels if not given.")
    ] = None,
    erode: Annotated[int, typer.Option(min=0, help="Layers of voxels to take off each region.")] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(help="Share of each voxel that its region fills, 0 to 1; 4D: one volume a label."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial-volume", help="With --atlas: weigh voxels by the share of their region."),
    ] = False,
    merge: Annotated[bool, typer.Option("--merge-sides", help=MERGED)] = False,
    nuclei: Annotated[
        bool, typer.Option(help="Only the seven deep nuclei Pu, Ca, GPe, GPi, RN, SNc, SNr.")
    ] = False,
    unit: Annotated[MapUnit | None, typer.Option(help="Unit of χ; ppm, or numbers as they are.")] = None,
    subject: Annotated[str, typer.Option(help="What the column subject says.")] = "",
    figure: Annotated[bool, typer.Option(help="Violins and outlines beside OUT.tsv: PNG, SVG, PDF.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a registration.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Mean, spread, percentiles and interval of χ in each region: a long table, ready for pandas and R.

    With --atlas the template is registered to the magnitude (or T1), its labels come to χ's own grid, and χ
    is never resampled; labels, transform, overlay and quality numbers are written beside OUT.tsv.
    """
    from k2chi.app import roiatlas
    from k2chi.io.labels import read_names, table_beside
    from k2chi.io.nifti import write_text

    labels, out = which(places, atlas)
    if out is not None and out.suffix != ".tsv":
        raise ValueError(f"{out}: the table is written as .tsv; choose such a name")
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} is there already: choose another name, or pass --overwrite")
    if figure and out is None:
        raise ValueError("--figure needs OUT.tsv, beside which figures are written")
    prepare(threads, "cpu")
    wish = Wish(mask, erode, weights, merge, nuclei, unit.value if unit else None)
    said: list[str] = []
    if atlas is not None:
        if out is None or magnitude is None:
            raise ValueError(
                "--atlas needs OUT.tsv and --magnitude: k2chi roi CHI OUT.tsv --atlas … --magnitude …"
            )
        with bars(not as_json):
            brought = roiatlas.bring(atlas, chi, magnitude, t1, mask, hybrid, out, threads or 0)
        labels, said = brought.labels, list(brought.said)
        wish = dataclasses.replace(wish, weights=brought.share if partial else weights)
        place: Path | None = brought.table
    else:
        assert labels is not None
        place = table or table_beside(labels)
    found = measured(chi, labels, read_names(place) if place else {}, wish)
    rows = found.rows
    head = {"subject": subject, "map": chi.name}
    text = as_tsv(rows, head)
    if out is not None:
        write_text(out, text)
        write_text(out.with_suffix(".json"), json.dumps(dictionary(), indent=2, ensure_ascii=False) + "\n")
        if figure:
            pictures(found, out)
    for words in (*said, *found.said):
        typer.echo(f"warning: {words}", err=True)
    if as_json:
        typer.echo(json.dumps([{**head, **tidy(r)} for r in rows], ensure_ascii=False))
        return
    for r in rows:
        typer.echo(
            f"{r['region']:34s} {r['side']:5s} {r['voxels']:7d} voxels  "
            f"{r['mean_ppm']:+.4f} ± {r['sd_ppm']:.4f} ppm  "
            f"95 % {r['ci_low_ppm']:+.4f}…{r['ci_high_ppm']:+.4f}".replace("+nan", "n/a").replace(
                "nan", "n/a"
            )
        )
    if out is not None:
        typer.echo(f"\n{out} and what its columns mean: {out.with_suffix('.json')}")


def which(places: Sequence[Path], atlas: str | None) -> tuple[Path | None, Path | None]:
    """Labels and table from what stands on the command line; an atlas takes the place of the labels."""
    given = list(places)
    labels = None if atlas is not None or not given else given.pop(0)
    if atlas is None and labels is None:
        raise ValueError("give a label image, or --atlas: k2chi roi CHI LABELS [OUT.tsv]")
    if len(given) > 1:
        raise ValueError("too many files: k2chi roi CHI LABELS [OUT.tsv], or k2chi roi CHI OUT.tsv --atlas …")
    return labels, given[0] if given else None


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Rows, and what they were measured on."""

    rows: list[dict[str, Any]]
    regions: "tuple[Region, ...]"
    chi: "Chi"
    labels: "Tensor"
    said: tuple[str, ...]


def measured(chi: Path, labels: Path, names: dict[int, str], wish: Wish) -> Measured:
    """One row a region, from files."""
    import torch

    from k2chi.app.inputs import in_ppm
    from k2chi.data import Chi
    from k2chi.io.echoes import read_mask
    from k2chi.io.nifti import read, same_place
    from k2chi.io.sidecar import sidecar
    from k2chi.measure import roi as of

    volume, numbers = read(chi), read(labels)
    same_place(volume, numbers)
    values = volume.tensor()[0].nan_to_num()
    inside = read_mask(wish.mask, volume) if wish.mask else values != 0
    values = in_ppm(values, inside, chi, wish.unit)
    share = None
    if wish.weights is not None:
        given = read(wish.weights)
        same_place(volume, given)
        share = given.tensor().nan_to_num().clamp(0, 1)
    number = of.whole(numbers.tensor()[0])
    if not number.any():
        raise ValueError(f"{labels}: every label is 0; give an image with labelled regions")
    said = mismatch(labels, of.unnamed(number, names), names, number)
    names = names or {n: str(n) for n in torch.unique(number).tolist() if n}
    if wish.nuclei:
        names = of.nuclei(names)
        if not names:
            raise ValueError(
                "no label is named as a deep nucleus: give --table with names such as 'L Putamen'"
            )
        number = number * torch.isin(number, torch.tensor(list(names)))
    map_ = Chi(values, inside, volume.grid)
    if share is not None and len(share) > 1:
        if wish.merge or wish.erode:
            raise ValueError("a 4D --weights overlaps: it goes without --merge-sides and --erode")
        found = of.probable(map_, share, names)
        found = tuple(r for r in found if r.label in names)
    else:
        if wish.merge:
            number, names = of.merged(number, names)
        if wish.erode:
            number = of.eroded(number, wish.erode)
        found = of.regions(map_, number, names, None if share is None else share[0])
    x, y, z = volume.grid.voxel_mm
    rows = []
    for region in found:
        base, side = of.side_of(region.name)
        row = dataclasses.asdict(region) | {"region": base if side else region.name, "side": side}
        del row["name"]
        row |= {"erosion_voxels": wish.erode, "voxel_mm": f"{x:.4g}x{y:.4g}x{z:.4g}"}
        row["reference"] = str(sidecar(chi).get("SusceptibilityReference", ""))
        rows.append(row)
    return Measured(rows, found, map_, number, said)


def mismatch(
    labels: Path, without: tuple[int, ...], names: dict[int, str], number: "Tensor"
) -> tuple[str, ...]:
    """Labels without a name and names without a label, in words; nothing where there is no table."""
    import numpy as np

    if not names:
        return ()
    said = []
    if without:
        listed = ", ".join(map(str, without[:12])) + (", …" if len(without) > 12 else "")
        said.append(f"{labels.name}: {len(without)} labels have no name in the table: {listed}")
    there = set(np.unique(number.numpy()).tolist())
    if gone := [f"{n} ({name})" for n, name in names.items() if n not in there]:
        listed = ", ".join(gone[:6]) + (", …" if len(gone) > 6 else "")
        said.append(f"{labels.name}: {len(gone)} named labels are not in the image: {listed}")
    return tuple(said)


def pictures(found: Measured, out: Path) -> list[Path]:
    """Violins and outlines as PNG, SVG and PDF beside the table."""
    from k2chi.app import overlay
    from k2chi.app.statfigures import save

    stem = out.with_suffix("")
    shown = [r.label for r in found.regions if r.voxels]
    made = save(
        overlay.violins(found.chi, found.labels, found.regions), stem.with_name(stem.name + "_violins")
    )
    picture = overlay.labelled(found.chi.ppm, found.labels, shown, found.chi.grid, "regions on χ")
    return made + save(picture, stem.with_name(stem.name + "_regions"))


def tidy(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is not defined: n/a has no number."""
    return {k: (None if isinstance(v, float) and isnan(v) else v) for k, v in row.items()}


def as_tsv(rows: Sequence[dict[str, Any]], head: dict[str, str]) -> str:
    """The long table; `n/a` where there is no value, as BIDS writes it."""
    stream = io.StringIO()
    columns = [*head, *(c.name for c in _columns())]
    writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {**head, **tidy(row)}
        cells = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()}
        writer.writerow({k: "n/a" if cells[k] in (None, "") else cells[k] for k in columns})
    return stream.getvalue()


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the table."""

    name: str
    words: str


def _columns() -> list[Column]:
    from k2chi.about import field_docs
    from k2chi.measure.roi import Region

    said = field_docs(Region)
    columns = [Column(f.name, said[f.name]) for f in dataclasses.fields(Region)]
    columns[1] = Column("region", "Name of the region without its side, or its number.")
    columns.insert(2, Column("side", "left, right, or n/a."))
    return [
        *columns,
        Column("erosion_voxels", "Layers of voxels taken off each region."),
        Column("voxel_mm", "Edges of a voxel [mm]."),
        Column("reference", "What zero means, from the map's JSON."),
    ]


def dictionary() -> dict[str, Any]:
    """What each column means, as a BIDS sidecar."""
    head = {"subject": "As given by --subject.", "map": "File name of the map."}
    said = {**head, **{c.name: c.words for c in _columns()}}
    out: dict[str, Any] = {k: {"Description": v} for k, v in said.items()}
    for k in out:
        if k.endswith("_ppm"):
            out[k]["Units"] = "ppm"
        elif k.endswith("_mm3"):
            out[k]["Units"] = "mm^3"
    return out

"""The command `roi`: values of labelled regions as a long table."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from k2chi.app.console import plain_errors, prepare
from k2chi.app.options import AsJson, Overwrite

MERGED = "Left and right as one region."


@plain_errors
def roi(
    chi: Annotated[Path, typer.Argument(metavar="CHI", help="Susceptibility map [ppm], or any other map.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Label image on the same grid.")],
    out: Annotated[Path | None, typer.Argument(metavar="[OUT.tsv]", help="Table to write.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Names of the labels; the file beside LABELS if there is one.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Where values count; χ's non-zero voxels if not given.")
    ] = None,
    erode: Annotated[int, typer.Option(min=0, help="Layers of voxels to take off each region.")] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Share of each voxel that its region fills, 0 to 1.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge-sides", help=MERGED)] = False,
    nuclei: Annotated[
        bool, typer.Option(help="Only the seven deep nuclei Pu, Ca, GPe, GPi, RN, SNc, SNr.")
    ] = False,
    subject: Annotated[str, typer.Option(help="What the column subject says.")] = "",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Mean, spread, percentiles and interval of χ in each region: a long table, ready for pandas and R."""
    from k2chi.io.labels import read_names, table_beside
    from k2chi.io.nifti import write_text

    if out is not None and out.suffix != ".tsv":
        raise ValueError(f"{out}: the table is written as .tsv; choose such a name")
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} is there already: choose another name, or pass --overwrite")
    prepare(None, "cpu")
    place = table or table_beside(labels)
    rows = measured(chi, labels, read_names(place) if place else {}, mask, erode, weights, merge, nuclei)
    head = {"subject": subject, "map": chi.name}
    text = as_tsv(rows, head)
    if out is not None:
        write_text(out, text)
        write_text(out.with_suffix(".json"), json.dumps(dictionary(), indent=2, ensure_ascii=False) + "\n")
    if as_json:
        typer.echo(json.dumps([{**head, **tidy(r)} for r in rows], ensure_ascii=False))
        return
    for r in rows:
        typer.echo(
            f"{r['region']:34s} {r['side']:5s} {r['voxels']:7d} voxels  "
            f"{r['mean_ppm']:+.4f} ± {r['sd_ppm']:.4f} ppm  "
            f"95 % {r['ci_low_ppm']:+.4f}…{r['ci_high_ppm']:+.4f}"
        )
    if out is not None:
        typer.echo(f"\n{out} and what its columns mean: {out.with_suffix('.json')}")


def measured(
    chi: Path,
    labels: Path,
    names: dict[int, str],
    mask: Path | None,
    erode: int,
    weights: Path | None,
    merge: bool,
    only_nuclei: bool,
) -> list[dict[str, Any]]:
    """One row a region, from files."""
    import torch

    from k2chi.data import Chi
    from k2chi.io.echoes import read_mask
    from k2chi.io.nifti import read, same_place
    from k2chi.io.sidecar import sidecar
    from k2chi.measure import roi as of

    volume, numbers = read(chi), read(labels)
    same_place(volume, numbers)
    values = volume.tensor()[0].nan_to_num()
    inside = read_mask(mask, volume) if mask else values != 0
    share = None
    if weights is not None:
        given = read(weights)
        same_place(volume, given)
        share = given.tensor()[0].clamp(0, 1)
    said = sidecar(chi)
    number = of.whole(numbers.tensor()[0])
    if not number.any():
        raise ValueError(f"{labels}: every label is 0; give an image with labelled regions")
    names = names or {n: str(n) for n in torch.unique(number).tolist() if n}
    if only_nuclei:
        names = of.nuclei(names)
        if not names:
            raise ValueError(
                "no label is named as a deep nucleus: give --table with names such as 'L Putamen'"
            )
        number = number * torch.isin(number, torch.tensor(list(names)))
    if merge:
        number, names = of.merged(number, names)
    if erode:
        number = of.eroded(number, erode)
    found = of.regions(Chi(values, inside, volume.grid), number, names, share)
    x, y, z = volume.grid.voxel_mm
    rows = []
    for region in found:
        base, side = of.side_of(region.name)
        row = dataclasses.asdict(region) | {"region": base if side else region.name, "side": side}
        del row["name"]
        row |= {"erosion_voxels": erode, "voxel_mm": f"{x:.4g}x{y:.4g}x{z:.4g}"}
        row["reference"] = str(said.get("SusceptibilityReference", ""))
        rows.append(row)
    return rows


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

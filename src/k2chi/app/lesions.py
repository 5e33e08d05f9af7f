"""The command `lesions`: a list of lesions with sizes, exclusions and what χ shows of each."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.options import AsJson, Overwrite

if TYPE_CHECKING:
    from torch import Tensor

    from k2chi.data import Affine, Chi
    from k2chi.io.nifti import Volume
    from k2chi.measure.lesions.parts import Labels
    from k2chi.measure.lesions.study import Found


DRAWN = "_drawn_dseg.nii.gz"
"""What the file of numbers on the mask's own grid ends in."""
RECORD = "_written.json"
"""What the list of files ends in."""


class Neighbours(StrEnum):
    """What belongs together in a mask."""

    faces, edges, corners = "6", "18", "26"


class ChiUnit(StrEnum):
    """Units of a susceptibility map."""

    ppm, ppb = "ppm", "ppb"


@plain_errors
def lesions(
    chi: Annotated[Path, typer.Argument(metavar="CHI", help="Susceptibility map [ppm].")],
    mask: Annotated[
        Path, typer.Argument(metavar="MASK", help="Lesion mask, on χ's grid or on that of the FLAIR.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.tsv", help="Table to write.")],
    flair_grid: Annotated[
        Path | None,
        typer.Option(
            help="FLAIR image that MASK was drawn on, also shown on the sheets; one grid with MASK."
        ),
    ] = None,
    transform: Annotated[
        Path | None,
        typer.Option(
            help="Rigid: 4×4 text, scanner mm of the FLAIR to those of χ; or ITK's .mat of "
            "`k2chi register FLAIR MAGNITUDE`."
        ),
    ] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="MASK holds the lesions' numbers already; they are kept.")
    ] = False,
    neighbours: Annotated[
        Neighbours,
        typer.Option(help="Voxels that share a face (6), an edge (18) or a corner (26) are one lesion."),
    ] = Neighbours.corners,
    share: Annotated[
        float | None,
        typer.Option(help="Share of a voxel of χ that a lesion must fill; if not given, volumes are kept."),
    ] = None,
    smallest_mm: Annotated[float, typer.Option(help="Least extent along every axis [mm].")] = 3.0,
    gap_mm: Annotated[
        float,
        typer.Option(help="Tissue between lesions [mm] up to which they are confluent; −1: no such rule."),
    ] = 1.0,
    brain: Annotated[
        Path | None, typer.Option("--brain-mask", help="Where χ counts; its non-zero voxels if not given.")
    ] = None,
    magnitude: Annotated[Path | None, typer.Option(help="Magnitude on χ's grid; veins are dark.")] = None,
    swi: Annotated[Path | None, typer.Option(help="Susceptibility-weighted image, likewise.")] = None,
    r2star: Annotated[Path | None, typer.Option(help="R2* map [1/s] on χ's grid.")] = None,
    unit: Annotated[ChiUnit | None, typer.Option(help="Unit of χ; ppm if not given.")] = None,
    subject: Annotated[str, typer.Option(help="What the column subject says.")] = "",
    figure: Annotated[bool, typer.Option(help="Sheets with each lesion cut out in three planes.")] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Lesions one by one: size, place, why left out, χ inside and around, rim and central vein as numbers.

    Writes OUT.tsv with its dictionary OUT.json, OUT_profile.tsv, the lesions' numbers on χ's grid as
    OUT_dseg.nii.gz and on MASK's, if that is another, as OUT_drawn_dseg.nii.gz, OUT_1.png, … with χ and,
    where they are given, magnitude and FLAIR, and the list of all as OUT_written.json. The numbers are given
    once, on MASK's grid; read OUT_drawn_dseg.nii.gz with --labelled to keep them. The figures describe what
    the map shows; they diagnose nothing.
    """
    from dataclasses import replace

    from k2chi.app import lesiontable
    from k2chi.measure.lesions.exclude import Exclusion
    from k2chi.measure.lesions.native import STILL, ToNative
    from k2chi.measure.lesions.parts import Components
    from k2chi.measure.lesions.study import LesionList, kept, reasons

    if out.suffix != ".tsv":
        raise ValueError(f"{out}: the table is written as .tsv; choose such a name")
    old = [
        p
        for p in (
            out,
            *(out.with_name(out.stem + e) for e in (".json", "_profile.tsv", "_dseg.nii.gz", DRAWN)),
        )
        if p.exists()
    ]
    if old and not overwrite:
        raise ValueError(f"{old[0]} is there already: choose another name, or pass --overwrite")
    prepare(None, "cpu")
    rule = {"6": Components(6), "18": Components(18), "26": Components(26)}[neighbours.value]
    study = replace(
        LesionList(),
        native=ToNative(share, forward(transform) if transform else STILL, rule),
        exclusion=Exclusion(smallest_mm, gap_mm),
    )
    volume, drawn, values = read_both(chi, mask, flair_grid, brain, unit.value if unit else None)
    labels = numbered(drawn, rule, labelled)
    others = [on_grid(p, volume) for p in (magnitude, swi, r2star)]
    with bars(not as_json):
        found = study(labels, drawn.grid, values, *others)
    rows = [{"subject": subject or None, "map": chi.name, **lesiontable.row(x)} for x in found.lesions]
    how = "numbered as given" if labelled else f"{neighbours.value} neighbours"
    rules = {
        "lesion": f"{how}, on the grid of {mask.name}; the largest is 1",
        "excluded": study.exclusion.words() + f"; or less than {study.whole:.0%} in χ's mask and array",
    }
    apart = None if drawn.grid == volume.grid else (labels, drawn)
    beside = {} if others[0] is None else {"magnitude": others[0]}
    if flair_grid is not None:
        beside["FLAIR"] = shown(flair_grid, study.native.transform, volume)
    files = write_all(out, rows, found, values, volume, beside if figure else None, rules, apart)
    stay = kept(found)
    if as_json:
        typer.echo(json.dumps({"lesions": rows, "files": [str(f) for f in files]}, ensure_ascii=False))
        return
    typer.echo(f"{len(rows)} lesions ({how}), {len(stay)} stay, {len(rows) - len(stay)} left out")
    for why, count in reasons(found).items():
        typer.echo(f"  {count:5d}  {why}")
    for f in files:
        typer.echo(f"wrote {f}")


def forward(path: Path) -> "Affine":
    """FLAIR to χ from plain numbers, or from what ITK stores, which leads the other way."""
    from k2chi.io.transforms import from_itk, read_matrix
    from k2chi.measure.space import inverse

    matrix = read_matrix(path)
    return inverse(matrix) if from_itk(path) else matrix


def read_both(
    chi: Path, mask: Path, flair: Path | None, brain: Path | None, unit: str | None
) -> tuple["Volume", "Volume", "Chi"]:
    """χ's volume, that of the lesion mask, and χ in ppm."""
    from k2chi.app.inputs import in_ppm
    from k2chi.data import Chi
    from k2chi.io.echoes import read_mask
    from k2chi.io.nifti import read, same_place

    volume, drawn = read(chi), read(mask)
    for v in (volume, drawn):
        if v.echoes != 1:
            raise ValueError(f"{v.path}: holds {v.echoes} volumes; give one")
    if flair is not None:
        same_place(read(flair), drawn)
    ppm = volume.tensor()[0].nan_to_num()
    inside = read_mask(brain, volume) if brain else ppm != 0
    if not inside.any():
        raise ValueError(f"{chi}: the map is zero everywhere; give a susceptibility map")
    ppm = in_ppm(ppm, inside, chi, unit)
    return volume, drawn, Chi(ppm * inside, inside, volume.grid)


def numbered(drawn: "Volume", rule: Any, labelled: bool) -> "Labels":
    """Lesions by number, on the grid they were drawn on."""
    import torch

    given = drawn.tensor()[0].nan_to_num()
    different = torch.unique(given[given > 0.5].round())
    if labelled:
        if not len(different):
            raise ValueError(f"{drawn.path}: every label is 0; give an image with numbered lesions")
        if float(given.min()) < 0 or not torch.equal(given, given.round()):
            raise ValueError(
                f"{drawn.path}: labels must be whole numbers from 0; leave --labelled out for a mask"
            )
        return given.int()
    if not len(different):
        raise ValueError(
            f"{drawn.path}: the lesion mask is empty (no voxel above 0.5); give one with lesions"
        )
    if len(different) > 1:
        raise ValueError(
            f"{drawn.path}: holds {len(different)} different numbers; pass --labelled if they number the "
            "lesions, or give a mask of 0 and 1"
        )
    found: Labels = rule(given > 0.5, drawn.grid)
    return found


def on_grid(path: Path | None, like: "Volume") -> Any:
    """Another map of the same scan."""
    from k2chi.io.nifti import read, same_place

    if path is None:
        return None
    volume = read(path)
    same_place(like, volume)
    if volume.echoes != 1:
        raise ValueError(f"{path}: holds {volume.echoes} volumes; give one, such as the last echo")
    return volume.tensor()[0].nan_to_num()


def shown(flair: Path, motion: "Affine", like: "Volume") -> "Tensor":
    """The FLAIR where χ lies, for the eye."""
    from k2chi.io.nifti import read
    from k2chi.measure.space import Transform, brought, inverse

    volume = read(flair)
    return brought(volume.tensor()[0].nan_to_num(), volume.grid, like.grid, Transform((inverse(motion),)))


def write_all(
    out: Path, rows: list[dict[str, Any]], found: "Found", chi: "Chi", volume: "Volume",
    beside: "dict[str, Tensor] | None", rules: dict[str, str], apart: "tuple[Labels, Volume] | None",
) -> list[Path]:  # fmt: skip
    """Tables, labels and pictures: made under other names first, so that all of them appear or none.

    `beside` are images to show beside χ; None leaves the pictures out.
    """
    from tempfile import TemporaryDirectory

    from k2chi.app import lesionfigure, lesiontable
    from k2chi.app.figures import save
    from k2chi.io.nifti import write, write_text
    from k2chi.io.written import renewed

    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: there is no such folder; make it first")
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as made:
        stage = Path(made)
        write_text(stage / out.name, lesiontable.as_tsv(rows))
        said = {
            "subject": {"Description": "As given by --subject."},
            "map": {"Description": "File name of the map."},
            **lesiontable.dictionary([c for c in rows[0] if c not in ("subject", "map")]),
        }
        for column, rule in rules.items():
            said[column]["Description"] += f" Rule: {rule}."
        write_text(stage / f"{out.stem}.json", json.dumps(said, indent=2, ensure_ascii=False) + "\n")
        if profile := lesiontable.bins(found.lesions):
            write_text(stage / f"{out.stem}_profile.tsv", lesiontable.as_tsv(profile))
        write(stage / f"{out.stem}_dseg.nii.gz", found.labels, volume.grid, volume.codes)
        if apart is not None:
            write(stage / (out.stem + DRAWN), apart[0], apart[1].grid, apart[1].codes)
        if beside is not None:
            sheets = lesionfigure.pages(found.lesions, found.labels, chi, beside=beside)
            for n, (_, sheet) in enumerate(sheets):
                save(sheet, stage / f"{out.stem}_{n + 1}.png")
        files = [f.replace(out.parent / f.name) for f in sorted(stage.iterdir())]
    return [*files, renewed(out.with_name(out.stem + RECORD), files)]

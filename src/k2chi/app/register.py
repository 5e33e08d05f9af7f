"""The commands `register` and `atlas`: one scan laid on another, and the atlases there are."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.options import AsJson, Overwrite

if TYPE_CHECKING:
    from k2chi.io.nifti import Volume
    from k2chi.io.register import Registered, Scene


class Kind(StrEnum):
    """How one image may move."""

    rigid, syn = "rigid", "syn"


Cores = Annotated[int | None, typer.Option("--threads", help="CPU threads; all if not given.")]


@plain_errors
def register(
    moving: Annotated[
        Path, typer.Argument(metavar="MOVING", help="Image to move, such as FLAIR or a template.")
    ],
    fixed: Annotated[
        Path, typer.Argument(metavar="FIXED", help="Image to lay it on, such as the magnitude.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Begin of the names of what is written.")],
    kind: Annotated[Kind, typer.Option(help="rigid: one person; syn: a template to a person.")] = Kind.rigid,
    moving_mask: Annotated[Path | None, typer.Option(help="Brain of MOVING.")] = None,
    fixed_mask: Annotated[Path | None, typer.Option(help="Brain of FIXED.")] = None,
    labels: Annotated[list[Path], typer.Option(help="Label images of MOVING, brought to FIXED.")] = [],  # noqa: B006
    apply: Annotated[list[Path], typer.Option(help="Other images of MOVING, brought to FIXED.")] = [],  # noqa: B006
    second: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Second contrast of MOVING and of FIXED, such as χ.")
    ] = None,
    different: Annotated[
        bool, typer.Option("--different-contrasts", help="The warp follows mutual information.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the engine.")] = 1,
    threads: Cores = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Lay one scan on another: transform, overlay, quality numbers, and labels with their own interpolation.

    Writes OUT_0GenericAffine.mat (and OUT_1Warp.nii.gz, OUT_1InverseWarp.nii.gz), OUT_xfm.json,
    OUT_moved.nii.gz and OUT_overlay.png; for rigid also OUT_moving-to-fixed.txt for `k2chi lesions`; and the
    list of all as OUT_written.json.
    """
    from k2chi.app import figures, overlay
    from k2chi.io.register import Rigid, SyN
    from k2chi.io.register import register as lay
    from k2chi.io.written import renewed
    from k2chi.measure.space import Transform, require_overlap

    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: there is no such folder; make it first")
    if out.with_name(f"{out.name}_xfm.json").exists() and not overwrite:
        raise ValueError(f"{out}_xfm.json is there already: choose another name, or pass --overwrite")
    prepare(threads, "cpu")
    if wrong := [p for p in apply if "phase" in p.name.lower()]:
        raise ValueError(
            f"{wrong[0]}: phase cannot be interpolated, it breaks at every wrap; resample real and "
            "imaginary part, or keep χ in its own space and bring labels to it"
        )
    a, b = (one(p) for p in (moving, fixed))
    extra = [(one(p), True) for p in labels] + [(one(p), False) for p in apply]
    from k2chi.io.nifti import same_place

    for volume, _ in extra:
        require_overlap(a.grid, volume.grid, Transform(), str(volume.path))
    pair = [one(p) for p in second] if second else [None, None]
    for given, of in zip(pair, (a, b), strict=True):
        if given is not None:
            same_place(of, given)
    first = scene_of(a, moving_mask, pair[0])
    other = scene_of(b, fixed_mask, pair[1])
    how = Rigid(seed=seed, threads=threads or 0)
    if kind is Kind.syn:
        how = SyN("information" if different else "correlation", seed=seed, threads=threads or 0)  # type: ignore[assignment]
    with bars(not as_json):
        found = lay(how, first, other, out)
    files = [*found.files, *carry(found, extra, b, out, kind is Kind.rigid)]
    inside = other.mask if other.mask is not None else other.image > 0.1 * float(other.image.max())
    title = f"edges of {moving.name} on {fixed.name}"
    picture = out.with_name(f"{out.name}_overlay.png")
    drawn = overlay.registration(other.image, found.moved, inside, b.grid, title, found.quality)
    figures.save(drawn, picture)
    files = [*files, picture]
    tell(found, [*files, renewed(out.with_name(f"{out.name}_written.json"), files)], as_json)


def one(path: Path) -> "Volume":
    """A file with one volume."""
    from k2chi.io.nifti import read

    volume = read(path)
    if volume.echoes != 1:
        raise ValueError(f"{path}: holds {volume.echoes} volumes; give one, such as the first echo")
    return volume


def scene_of(volume: "Volume", mask: Path | None, second: "Volume | None" = None) -> "Scene":
    """An image with its mask, ready to register."""
    from k2chi.io.echoes import read_mask
    from k2chi.io.register import scene

    inside = read_mask(mask, volume) if mask else None
    return scene(volume.tensor()[0], volume.grid, inside, second.tensor()[0] if second else None)


def carry(
    found: "Registered", extra: list[tuple["Volume", bool]], fixed: "Volume", out: Path, rigid: bool
) -> list[Path]:
    """The moved image and everything that moves with it, on the fixed grid."""
    from k2chi.io.nifti import write, write_text
    from k2chi.io.transforms import write_matrix
    from k2chi.measure.space import brought, carried, inverse, turned

    made = [write(out.with_name(f"{out.name}_moved.nii.gz"), found.moved, fixed.grid, fixed.codes)]
    if rigid:
        back = inverse(found.transform.matrix)
        rows = "\n".join(" ".join(repr(v) for v in row) for row in back)
        made.append(write_text(out.with_name(f"{out.name}_moving-to-fixed.txt"), rows + "\n"))
        made.append(write_matrix(out.with_name(f"{out.name}_itk.txt"), found.transform.matrix))
    for volume, is_label in extra:
        stem = volume.path.name.removesuffix(".gz").removesuffix(".nii")
        path = out.with_name(f"{out.name}_{stem}.nii.gz")
        said: dict[str, Any] = {"Sources": [volume.path.name], "Transforms": found.record["Transforms"]}
        if is_label:
            moved = carried(volume.tensor()[0].nan_to_num(), volume.grid, fixed.grid, found.transform)
            made.append(write(path, moved.labels, fixed.grid, fixed.codes))
            said |= {"Interpolation": "each label linearly, the largest wins", "LostLabels": list(moved.lost)}
        else:
            values = brought(volume.tensor()[0].nan_to_num(), volume.grid, fixed.grid, found.transform)
            made.append(write(path, values, fixed.grid, fixed.codes))
            said |= {"Interpolation": "linear"}
            if rigid:
                grid = turned(volume.grid, fixed.grid, inverse(found.transform.matrix))
                said |= {"B0Direction": [round(v, 6) for v in grid.b0_world]}
        side = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        made.append(write_text(side, json.dumps(said, indent=2, ensure_ascii=False) + "\n"))
    return made


def tell(found: "Registered", files: list[Path], as_json: bool) -> None:
    """Quality and warnings, for people or for programs."""
    if as_json:
        typer.echo(json.dumps({**found.record, "files": [str(f) for f in files]}, ensure_ascii=False))
        return
    q = found.quality
    typer.echo(
        f"still apart by {q.residual_mm:.1f} mm on average, {q.worst_mm:.1f} mm in the worst eighth of the "
        f"brain; local correlation {q.lncc_before:.2f} by headers, {q.lncc:.2f} now; masks' Dice "
        f"{q.mask_dice:.3f}; turned {q.turn_deg:.1f}°, moved {q.shift_mm:.1f} mm; volumes times "
        f"{q.jacobian_low:.2f} to {q.jacobian_high:.2f}; {found.record['Seconds']} s".replace("nan", "n/a")
    )
    for words in found.warnings:
        typer.echo(f"warning: {words}", err=True)
    for f in files:
        typer.echo(f"wrote {f}")


atlas = typer.Typer(no_args_is_help=True, help="Atlases: what there is, and fetching one.")


@atlas.command("list")
@plain_errors
def list_atlases(as_json: AsJson = False) -> None:
    """Atlases that are known by name, with licence and source."""
    import dataclasses

    from k2chi.io.atlas import CATALOGUE, home

    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(e) for e in CATALOGUE], ensure_ascii=False))
        return
    for e in CATALOGUE:
        state = "here" if (home() / e.name / "atlas.json").exists() else f"k2chi atlas fetch {e.name}"
        typer.echo(f"{e.name}  {e.title}\n  template {e.contrast}, {e.space}; {state}")
        typer.echo(f"  licence  {e.licence}\n  source   {e.source}\n  cite     {e.citation}")


@atlas.command("fetch")
@plain_errors
def fetch_atlas(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in `k2chi atlas list`.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to lay it in; ~/.k2chi/atlases if not given.")
    ] = None,
) -> None:
    """Download an atlas. This is the only command that uses the network."""
    from k2chi.io.atlas import entry, fetch

    known = entry(name)
    typer.echo(f"{known.title}\nlicence: {known.licence}\ncite: {known.citation}")
    got = fetch(name, to)
    typer.echo(f"wrote {got.template.parent}")

"""The command line: thin doors to the core. Heavy imports stand inside the commands: help is quick."""

import json
from pathlib import Path
from typing import Annotated

import typer

from k2chi import __version__
from k2chi.app import tools
from k2chi.app.choosing import choose
from k2chi.app.compare import EPILOG, compare
from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.lesions import lesions
from k2chi.app.options import (
    BORE,
    AsJson,
    B0Dir,
    Device,
    FieldUnit,
    Overwrite,
    Recipe,
    Sets,
    Sign,
    SignChoice,
    Stop,
    Threads,
    Until,
    Unwarp,
    order,
    show,
)
from k2chi.app.register import atlas, register
from k2chi.app.reproduce import reproduce
from k2chi.app.roi import roi
from k2chi.app.stats import stats
from k2chi.app.train import train

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"k2chi {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Quantitative susceptibility maps from MRI magnitude and phase."""


app.command()(tools.demo)
app.command()(tools.simulate)


@app.command()
@plain_errors
def qsm(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="[IN] OUT", help="Folder with one scan, or raw data; and output folder."),
    ],
    magnitude: Annotated[list[Path], typer.Option(help="Magnitude: one 4D file, or one file an echo.")] = [],  # noqa: B006
    phase: Annotated[list[Path], typer.Option(help="Phase, likewise; any common unit.")] = [],  # noqa: B006
    real: Annotated[list[Path], typer.Option(help="Real part, instead of magnitude and phase.")] = [],  # noqa: B006
    imag: Annotated[list[Path], typer.Option(help="Imaginary part.")] = [],  # noqa: B006
    te: Annotated[
        list[float], typer.Option(help="Echo time [s], one for each echo, if no JSON says it.")
    ] = [],  # noqa: B006
    b0: Annotated[float | None, typer.Option(help="Field strength [T], if no JSON says it.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Your own brain mask.")] = None,
    field: Annotated[Path | None, typer.Option(help="Start from a total field map.")] = None,
    local_field: Annotated[Path | None, typer.Option(help="Start from a local field map.")] = None,
    unwarp: Unwarp = None,
    units: FieldUnit = None,
    unwrapped: Annotated[bool, typer.Option(help="The phase is in radians and has no wraps.")] = False,
    bipolar: Annotated[bool, typer.Option(help="Even echoes were read backwards.")] = False,
    until: Stop = Until.chi,
    recipe: Recipe = "default",
    sets: Sets = [],  # noqa: B006
    sign: Sign = SignChoice.auto,
    b0_dir: B0Dir = BORE,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One scan to χ: a folder with BIDS-like names, raw data, or the files given by options."""
    from k2chi.app import inputs
    from k2chi.app.run import run

    given = inputs.Given(
        tuple(magnitude), tuple(phase), tuple(real), tuple(imag), tuple(te), b0, mask, field, local_field,
        units.value if units else None, unwrapped, bipolar, b0_dir, unwarp,
    )  # fmt: skip
    source, out = inputs.places(places, given)
    asked = order(recipe, sets, until, sign, prepare(threads, device), overwrite)
    job = inputs.job(source, out, given, asked.pipeline.recon)
    with bars(not as_json):
        result = run(job.read, job.layout, asked, job.root)
    show(result, as_json)


@app.command()
@plain_errors
def recon(
    raw: Annotated[
        Path,
        typer.Argument(metavar="RAW", help="Siemens twix, ISMRMRD, or an array with a TOML header."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder.")],
    name: Annotated[
        str, typer.Option(help="BIDS name such as sub-01_ses-1, to write or add to a BIDS data set.")
    ] = "",
    te: Annotated[
        list[float], typer.Option(help="Echo time [s], one for each echo, if the header lacks it.")
    ] = [],  # noqa: B006
    b0: Annotated[float | None, typer.Option(help="Field strength [T], if the header lacks it.")] = None,
    repetition: Annotated[int, typer.Option(help="Which repetition to read, from 1.")] = 1,
    parts: Annotated[
        bool, typer.Option("--complex/--no-complex", help="Write real and imaginary part, too.")
    ] = True,
    unwarp: Unwarp = None,
    units: FieldUnit = None,
    recipe: Recipe = "default",
    sets: Sets = [],  # noqa: B006
    b0_dir: B0Dir = BORE,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Raw data to images: magnitude, phase, real and imaginary part of each echo as NIfTI with BIDS JSON."""
    from k2chi.app import recon as scans

    asked = order(recipe, sets, device=prepare(threads, device), overwrite=overwrite)
    kinds = scans.ALL if parts else scans.ALL[:2]
    wanted = scans.Wanted(
        raw, tuple(te), b0, b0_dir, repetition - 1, name, kinds, unwarp, units.value if units else None
    )
    with bars(not as_json):
        result = scans.run(wanted, out, asked)
    show(result, as_json)


@app.command()
@plain_errors
def bids(
    source: Annotated[Path, typer.Argument(metavar="IN", help="BIDS data set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the derivatives.")],
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="participant")] = "participant",
    participant_label: Annotated[list[str], typer.Option(help="Subjects, with or without sub-.")] = [],  # noqa: B006
    session_label: Annotated[list[str], typer.Option(help="Sessions, with or without ses-.")] = [],  # noqa: B006
    n_procs: Annotated[int, typer.Option(help="Scans to work on at the same time.")] = 1,
    find_mask: Annotated[bool, typer.Option(help="Use brain masks found among the derivatives.")] = True,
    until: Stop = Until.chi,
    recipe: Recipe = "default",
    sets: Sets = [],  # noqa: B006
    sign: Sign = SignChoice.auto,
    b0_dir: B0Dir = BORE,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    work: Annotated[
        Path | None, typer.Option("-w", "--work-dir", help="Accepted for BIDS apps; not needed.")
    ] = None,
    skip_bids_validation: Annotated[bool, typer.Option(help="Accepted for BIDS apps; not needed.")] = False,
) -> None:
    """All scans of a BIDS data set to χ. Finished scans are skipped; a failing one does not stop the rest."""
    from k2chi.app import batch

    if level != "participant":
        raise ValueError(f"level {level!r} is not there yet: give participant")
    asked = order(recipe, sets, until, sign, prepare(threads, device), overwrite)
    jobs = batch.plan(source, out, participant_label, session_label, find_mask, b0_dir)
    with bars(not as_json and n_procs == 1):
        outcomes = batch.work(jobs, asked, n_procs, threads, None if as_json else typer.echo)
    if as_json:
        typer.echo(json.dumps([vars(o) for o in outcomes], ensure_ascii=False))
    failed = [o for o in outcomes if o.state == "failed"]
    if not as_json:
        done, skipped = (sum(o.state == s for o in outcomes) for s in ("done", "skipped"))
        typer.echo(
            f"{done} done, {skipped} skipped (finished before), {len(failed)} failed; results in {out}"
        )
        for o in failed:
            typer.echo(f"failed: {o.name}: {o.words}", err=True)
    if failed:
        raise typer.Exit(1)


app.command()(choose)
app.command(epilog=EPILOG)(compare)
app.command()(register)
app.add_typer(atlas, name="atlas")
app.command()(roi)
app.command()(lesions)
app.command()(stats)
app.command()(train)
app.command()(reproduce)
app.command()(tools.methods)


def main() -> None:
    """Entry point of the installed command."""
    app()


if __name__ == "__main__":
    main()

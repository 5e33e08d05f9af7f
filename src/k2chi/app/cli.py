"""The command line: thin doors to the core. Heavy imports stand inside the commands: help is quick."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2chi import __version__
from k2chi.app.console import bars, plain_errors, prepare

if TYPE_CHECKING:
    from k2chi.app.run import Order

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Until(StrEnum):
    """Stages to stop after."""

    mask, unwrap, total, local, chi = "mask", "unwrap", "total", "local", "chi"


class Units(StrEnum):
    """Units of a field map."""

    ppm, Hz, rad = "ppm", "Hz", "rad"


class SignChoice(StrEnum):
    """What to believe about the sign of the phase."""

    auto, plus, minus = "auto", "+", "-"


Recipe = Annotated[str, typer.Option(help="Shipped recipe (see `k2chi methods`) or a .toml file.")]
Sets = Annotated[
    list[str],
    typer.Option("--set", metavar="TOML", help="One setting, such as 'invert.method = \"NDI\"'; repeatable."),
]
Stop = Annotated[Until, typer.Option(help="Stop after this stage.")]
Sign = Annotated[
    SignChoice, typer.Option(help="Sign of the phase: found on its own, as it is, or turned round.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; all if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print results as JSON, and nothing else.")]
Overwrite = Annotated[bool, typer.Option(help="Replace results that are there already.")]
B0Dir = Annotated[
    tuple[float, float, float],
    typer.Option(
        help="Direction of B0 in scanner axes (right, anterior, superior); along the bore by default."
    ),
]
BORE = (0.0, 0.0, 1.0)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"k2chi {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Quantitative susceptibility maps from MRI magnitude and phase."""


def order(
    recipe: str,
    sets: list[str],
    until: Until = Until.chi,
    sign: SignChoice = SignChoice.auto,
    device: str = "cpu",
    overwrite: bool = False,
) -> "Order":
    """What the options ask for."""
    from k2chi import config
    from k2chi.app.run import Order
    from k2chi.pipeline import Pipeline

    pipeline = config.change(config.recipe(recipe, Pipeline), sets)
    name = Path(recipe).stem + (" with changes" if sets else "")
    return Order(pipeline, name, until.value, sign.value, device, overwrite=overwrite)


def show(result: Any, as_json: bool) -> None:
    """The outcome of one run, for people or for programs."""
    files = [str(result.out / f) for f in result.files]
    if as_json:
        typer.echo(json.dumps({**result.record, "files": files}, ensure_ascii=False))
        return
    for words in (*result.record["said"], result.record["sign"]["words"]):
        typer.echo(words)
    for words in result.record["warnings"]:
        typer.echo(f"warning: {words}", err=True)
    for name in ("Chimap.nii.gz", "report.html", ".html"):
        for file in files:
            if file.endswith(name):
                typer.echo(f"wrote {file}")
                break
    typer.echo(
        f"{len(files)} files in {result.out}, {sum(result.record['seconds'].values()):.0f} s of computing"
    )


@app.command()
@plain_errors
def qsm(
    places: Annotated[
        list[Path], typer.Argument(metavar="[IN] OUT", help="Folder with one scan, and output folder.")
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
    units: Annotated[
        Units | None, typer.Option(help="Unit of the field map, if its JSON does not say.")
    ] = None,
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
    """One scan to χ: a folder with BIDS-like names, or the files given by options."""
    from k2chi.app import inputs
    from k2chi.app.run import run

    given = inputs.Given(
        tuple(magnitude), tuple(phase), tuple(real), tuple(imag), tuple(te), b0, mask, field, local_field,
        units.value if units else None, unwrapped, bipolar, b0_dir,
    )  # fmt: skip
    source, out = inputs.places(places, given)
    asked = order(recipe, sets, until, sign, prepare(threads, device), overwrite)
    job = inputs.job(source, out, given)
    with bars(not as_json):
        result = run(job.read, job.layout, asked, job.root)
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


@app.command()
@plain_errors
def compare(
    chi: Annotated[Path, typer.Argument(metavar="CHI", help="A susceptibility map [ppm].")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The true map [ppm].")],
    mask: Annotated[
        Path | None, typer.Option(help="Where to compare; the truth's non-zero voxels if not given.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels, numbered as in the 2019 challenge.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every quality measure of a map against the truth."""
    from k2chi.app.inputs import compared

    found = compared(chi, truth, mask, labels)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name:16s} {value:10.4f}")


@app.command()
@plain_errors
def methods(
    name: Annotated[str | None, typer.Argument(help="Show the settings of one method.")] = None,
    as_json: AsJson = False,
) -> None:
    """What there is for each stage, with citations and settings."""
    import dataclasses

    from k2chi import about, config
    from k2chi.pipeline import Pipeline

    found = [m for m in about.methods(Pipeline) if name is None or m.name.lower() == name.lower()]
    if not found:
        raise ValueError(f"no method {name!r}: see `k2chi methods`")
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(m) for m in found], ensure_ascii=False, default=str))
        return
    stage = ""
    for m in found:
        if m.stage != stage:
            typer.echo(typer.style(f"\n{m.stage}", bold=True))
            stage = m.stage
        typer.echo(f"  {m.name:18s} {m.sentence}")
        if name is not None:
            for s in m.settings:
                typer.echo(f"      {m.stage}.{s.name} = {s.default!r} ({s.type})  {s.help}")
            for c in m.citations:
                typer.echo(f"      {c}")
    if name is None:
        typer.echo(
            f"\nShipped recipes: {', '.join(config.shipped())}. `k2chi methods NAME` shows the settings."
        )


def main() -> None:
    """Entry point of the installed command."""
    app()


if __name__ == "__main__":
    main()

"""Commands around the chain: demo, simulate, methods."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.options import AsJson, Device, Overwrite, Recipe, Sets, Threads, order


class What(StrEnum):
    """What can be simulated."""

    gre, kspace, bids, protocols = "gre", "kspace", "bids", "protocols"


Seed = Annotated[int, typer.Option(help="The same number gives the same person and noise.")]
Field = Annotated[float, typer.Option("--b0", help="Field strength [T].")]
Voxel = Annotated[float, typer.Option(help="Edge of a voxel [mm].")]


@plain_errors
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder.")] = Path("k2chi-demo"),
    seed: Seed = 1,
    b0: Field = 3.0,
    voxel: Voxel = 1.5,
    recipe: Recipe = "default",
    sets: Sets = [],  # noqa: B006
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """The whole chain on a simulated head: χ, its errors against the truth, and a report."""
    from k2chi.app.demo import SHOWN
    from k2chi.app.demo import demo as perform
    from k2chi.app.simulate import Wish

    asked = order(recipe, sets, device=prepare(threads, device), overwrite=True)
    if not as_json:
        typer.echo("simulating a head, then computing χ from its magnitude and phase …")
    with bars(not as_json):
        result, errors, against = perform(out, asked, Wish(b0, voxel_mm=(voxel, voxel, voxel)), seed)
    page = next(result.out / f for f in result.files if f.name.endswith(".html"))
    if as_json:
        typer.echo(json.dumps({**result.record, "errors": errors, "report": str(page)}, ensure_ascii=False))
        return
    typer.echo(result.record["sign"]["words"])
    typer.echo(f"\n{'region':28s} {'found':>8s} {'true':>8s}   χ [ppm], relative to the brain's mean")
    for name, found, true, _ in against.nuclei(result.maps):
        typer.echo(f"{name:28s} {found:+8.3f} {true:+8.3f}")
    typer.echo("")
    for key, (words, unit) in SHOWN.items():
        if key in errors:
            typer.echo(f"{words:44s} {errors[key]:8.3g} {unit}")
    typer.echo(f"\nsimulated data: {out / 'raw'}\nmaps:           {result.out}\nreport:         {page}")


@plain_errors
def simulate(
    what: Annotated[
        What,
        typer.Argument(
            metavar="WHAT", help="gre: one scan; kspace: its raw data; bids: a data set; protocols: a list."
        ),
    ],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="Output folder.")] = None,
    seed: Seed = 0,
    subjects: Annotated[int, typer.Option(help="People in the data set.")] = 2,
    b0: Field = 3.0,
    te: Annotated[list[float], typer.Option(help="Echo time [s]; repeat for each echo.")] = [],  # noqa: B006
    voxel: Annotated[tuple[float, float, float], typer.Option(help="Edges of a voxel [mm].")] = (
        1.5,
        1.5,
        1.5,
    ),
    snr: Annotated[
        float | None,
        typer.Option(
            help="Largest signal over the noise, 100 if not given; kspace: the brain's mean signal with all "
            "coils combined over the noise, 40 if not given; 0: no noise."
        ),
    ] = None,
    tilt: Annotated[
        tuple[float, float, float], typer.Option(help="Pitch, roll and yaw of the head [degrees].")
    ] = (0.0, 0.0, 0.0),
    lesions: Annotated[int, typer.Option(help="MS lesions in each head.")] = 0,
    protocol: Annotated[
        str, typer.Option(help="kspace: what to scan; see `k2chi simulate protocols`.")
    ] = "gre",
    coils: Annotated[int, typer.Option(help="kspace: number of receive coils.")] = 32,
    averages: Annotated[int | None, typer.Option(help="kspace: averages, if not the protocol's.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Data with known truth: a digital head in a gradient-echo scan."""
    from k2chi.app import simulate as made

    if what is What.protocols:
        typer.echo(made.listing(as_json))
        return
    if out is None:
        raise ValueError("no output folder: give OUT after WHAT")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out}: is not empty; choose another folder, or pass --overwrite")
    prepare(None, "cpu")
    said: dict[str, Any] = {}
    if what is What.kspace:
        if te or b0 != 3.0 or voxel != (1.5, 1.5, 1.5):
            raise ValueError(
                "--te, --b0 and --voxel are part of the protocol: leave them out, or simulate gre"
            )
        scan = made.raw_scan(protocol, coils, averages, snr, seed)
        said = made.about(protocol, scan.protocol)
        if not as_json:
            typer.echo(made.words(protocol, scan.protocol))
        with bars(not as_json):
            made.write_kspace(out, scan, made.person(seed, tilt, lesions))
    else:
        more = {} if snr is None else {"snr": snr}
        wish = made.Wish(b0, tuple(te) or made.Wish.te_s, voxel, tilt_deg=tilt, lesions=lesions, **more)
        with bars(not as_json):
            if what is What.gre:
                made.write_gre(out, wish, seed)
            else:
                made.write_bids(out, wish, seed, subjects, None if as_json else typer.echo)
    files = sorted(str(p) for p in out.rglob("*") if p.is_file())
    typer.echo(json.dumps({"files": files, **said}) if as_json else f"wrote {len(files)} files to {out}")


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

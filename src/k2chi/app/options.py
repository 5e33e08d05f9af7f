"""Options that several commands share, and what they ask for."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from k2chi.app.run import Order


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
Unwarp = Annotated[
    Path | None,
    typer.Option(
        metavar="FIELDMAP", help="Raw data of EPI: a field map by which voxels are put where they belong."
    ),
]
FieldUnit = Annotated[Units | None, typer.Option(help="Unit of the field map, if its JSON does not say.")]
Overwrite = Annotated[bool, typer.Option(help="Replace results that are there already.")]
B0Dir = Annotated[
    tuple[float, float, float],
    typer.Option(
        help="Direction of B0 in scanner axes (right, anterior, superior); along the bore by default."
    ),
]
BORE = (0.0, 0.0, 1.0)


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
    sign = [result.record["sign"]["words"]] if "sign" in result.record else []
    for words in (*result.record["said"], *sign):
        typer.echo(words)
    for words in result.record["warnings"]:
        typer.echo(f"warning: {words}", err=True)
    for file in files:
        if file.endswith(("Chimap.nii.gz", ".html")):
            typer.echo(f"wrote {file}")
    typer.echo(
        f"{len(files)} files in {result.out}, {sum(result.record['seconds'].values()):.0f} s of computing"
    )

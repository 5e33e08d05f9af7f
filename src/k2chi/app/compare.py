"""The command `compare`: every quality measure of a map, against a truth or of the map alone."""

import json
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from k2chi.app.console import plain_errors
from k2chi.app.options import AsJson
from k2chi.measure.definitions import DEFINITIONS


class MapUnit(StrEnum):
    """Units of a susceptibility map."""

    ppm, ppb = "ppm", "ppb"


EPILOG = "\n\n".join(
    [
        "The measures, a being CHI and t TRUTH:",
        *(f"{n}: {w}".replace("[", "\\[") for n, w in DEFINITIONS.items()),
    ]
)
"""The definitions at the foot of the help page; brackets are no markup."""


@plain_errors
def compare(
    chi: Annotated[Path, typer.Argument(metavar="CHI", help="A susceptibility map.")],
    truth: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TRUTH]", help="The true map, in the same unit; without it noise, streaks and sharpness."
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Where to compare; the non-zero voxels of TRUTH (or CHI) if not given."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels, numbered as in the 2019 challenge.")] = None,
    unit: Annotated[MapUnit | None, typer.Option(help="Unit of both maps; ppm if not given.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Picture of both maps and their difference.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every quality measure of a map against the truth, each with its definition."""
    from k2chi.app.inputs import pair

    if truth is None and (labels or figure):
        asked = "--labels" if labels else "--figure"
        raise ValueError(f"{asked} needs a truth to compare with: k2chi compare CHI TRUTH {asked} …")
    given = pair(chi, truth, mask, labels, unit.value if unit else None)
    found = {name: value if isfinite(value) else None for name, value in given.quality().items()}
    if figure is not None and given.truth is not None:
        from k2chi.app import figures

        figures.save(figures.difference(given.chi, given.truth), figure)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    for name, value in found.items():
        shown = "not defined" if value is None else f"{value:.4f}"
        typer.echo(f"{name:22s} {shown:>11s}  {DEFINITIONS[name]}")

"""`k2chi train`: teach a network, stop when the time is over, go on later; and make weights of it."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from k2chi.app.console import plain_errors, prepare
from k2chi.app.options import Device, Threads


class Stored(StrEnum):
    """How weights are stored."""

    float32, float16, int8 = "float32", "float16", "int8"


@plain_errors
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to train; `list` names them all.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; training/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's checkpoint.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop and save after this time [min].")] = 60.0,
    steps: Annotated[int | None, typer.Option(help="Updates in all; else as the recipe has it.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="When done, write weights and model card to this .safetensors file.")
    ] = None,
    store: Annotated[Stored, typer.Option(help="Precision of the weights file.")] = Stored.float32,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Teach a network on data made on the fly. Under `torchrun` all processes learn together."""
    from dataclasses import replace

    from k2chi.learn.recipes import RECIPES
    from k2chi.learn.ship import ship
    from k2chi.learn.train import Run
    from k2chi.learn.train import train as learn

    if name == "list":
        for key, recipe in RECIPES.items():
            typer.echo(f"{key:20s} {recipe.network}, {recipe.steps} steps, {recipe.loss} loss")
        return
    if name not in RECIPES:
        raise ValueError(f"no training recipe {name!r}: choose one of {', '.join(RECIPES)}")
    if minutes <= 0:
        raise ValueError(f"--minutes {minutes}: give a time above zero")
    recipe = RECIPES[name] if steps is None else replace(RECIPES[name], steps=steps)
    run = Run(out or Path("training") / name, minutes, prepare(threads, device), resume)
    state = learn(recipe, run, typer.echo)
    if weights is not None and os.environ.get("RANK", "0") == "0":
        card = ship(state, weights.stem, weights, store.value, device=run.device)
        weights.with_suffix(".md").write_text(card.markdown(), encoding="utf-8")
        typer.echo(f"weights and card: {weights}, {weights.with_suffix('.md')}")

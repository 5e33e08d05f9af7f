"""The command that chooses the value of one setting of the inversion, for one scan."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from k2chi.app.console import bars, plain_errors, prepare
from k2chi.app.options import BORE, AsJson, B0Dir, Device, Overwrite, Recipe, Sets, Threads, order


class RuleName(StrEnum):
    """Rules that choose a value."""

    lcurve, corner, ucurve, frequency = "lcurve", "corner", "ucurve", "frequency"
    discrepancy = "discrepancy"


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ValueError(f"--values {text!r}: give numbers with commas, such as 1e-5,3e-5,1e-4") from error


@plain_errors
def choose(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder with one scan.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder.")],
    setting: Annotated[str, typer.Option("--field", help="Setting to choose, such as invert.alpha.")],
    values: Annotated[str, typer.Option(help="Values to try, with commas between.")],
    rule: Annotated[
        RuleName, typer.Option(help="How to choose; discrepancy takes the noise of the scan.")
    ] = RuleName.discrepancy,
    recipe: Recipe = "default",
    sets: Sets = [],  # noqa: B006
    mask: Annotated[Path | None, typer.Option(help="Your own brain mask.")] = None,
    b0_dir: B0Dir = BORE,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One setting of the inversion, chosen for this scan: a table, a plot, and the recipe that has it."""
    from k2chi import config
    from k2chi.about import members
    from k2chi.app import figures, inputs
    from k2chi.app.rawscan import images
    from k2chi.app.run import compute, moved
    from k2chi.choose import Discrepancy, FrequencyAnalysis, LCurve, Rule, UCurve
    from k2chi.choose.trial import grid_of
    from k2chi.data import Raw
    from k2chi.invert import Inversion
    from k2chi.io.nifti import atomic, write_text

    rules: dict[str, Rule] = {
        "lcurve": LCurve(),
        "corner": LCurve("corner"),
        "ucurve": UCurve(),
        "frequency": FrequencyAnalysis(),
        "discrepancy": Discrepancy(),
    }
    asked = order(recipe, sets, device=prepare(threads, device))
    stage, _, name = setting.partition(".")
    if stage != "invert" or not name:
        raise ValueError(f"--field {setting}: give a setting of the inversion, such as invert.alpha")
    method = asked.pipeline.invert
    if not isinstance(method, members(Inversion)):
        kind = type(method).__name__
        raise ValueError(
            f"{kind} takes the total field, and no rule is made for that: --set 'invert.method = \"FANSI\"'"
        )
    tried = numbers(values)
    grid_of(method, name, tried, 2)  # refuse before the scan is read
    made = [out / f"choice.{end}" for end in ("tsv", "png", "toml")]
    if made[0].exists() and not overwrite:
        raise ValueError(f"{made[0]}: is there already; choose another folder, or pass --overwrite")
    given = inputs.Given((), (), (), (), (), None, mask, None, None, None, False, False, b0_dir)
    job = inputs.job(source, out, given, asked.pipeline.recon)
    with bars(not as_json):
        data, _ = job.read()
        if isinstance(data, Raw):
            data, _, _ = images(data, asked.pipeline, device)
        maps, _, _ = compute(moved(data, device), replace(asked, until="local"))
        assert maps.local is not None
        choice = rules[rule.value](method, maps.local, name, tried)

    out.mkdir(parents=True, exist_ok=True)
    rows = zip(choice.values, choice.misfit, choice.roughness, choice.score, strict=True)
    lines = [
        "\t".join([*(f"{x:.6g}" for x in row), str(int(i == choice.best))]) for i, row in enumerate(rows)
    ]
    header = f"{name}\tmisfit\troughness_ppm_per_mm\tscore\tchosen"
    write_text(made[0], "\n".join([header, *lines]) + "\n")
    with atomic(made[1]) as path:
        figures.choice_plot(choice).savefig(path, format="png", dpi=120, metadata={"Software": None})
    write_text(made[2], config.dumps(replace(asked.pipeline, invert=choice.method)))
    if as_json:
        told = {"rule": choice.rule, "setting": setting, "chosen": choice.chosen}
        typer.echo(json.dumps({**told, "warnings": choice.warnings, "files": [str(p) for p in made]}))
        return
    for words in choice.warnings:
        typer.echo(f"warning: {words}", err=True)
    typer.echo(f"{setting} = {choice.chosen:g} by {choice.rule}; table, plot and recipe in {out}/choice.*")

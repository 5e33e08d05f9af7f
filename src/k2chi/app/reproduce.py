"""`k2chi reproduce`: published experiments on networks, as one command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from k2chi.app.console import plain_errors, prepare
from k2chi.app.options import Threads


class Study(StrEnum):
    """What can be reproduced."""

    si_qsm = "si-qsm"


class Part(StrEnum):
    """Experiments of a study."""

    scale, metrics = "scale", "metrics"


@plain_errors
def reproduce(
    study: Annotated[Study, typer.Argument(metavar="STUDY", help="si-qsm")],
    part: Annotated[Part, typer.Option(help="scale: one phantom at four sizes; metrics: of the challenge.")],
    out: Annotated[Path, typer.Option(help="Folder for table and figure.")] = Path("k2chi-reproduce"),
    phantom: Annotated[
        Path | None, typer.Option(envvar="K2CHI_PHANTOM", help="Folder of the piecewise-constant phantom.")
    ] = None,
    size: Annotated[list[int], typer.Option(help="Edges of the cube; else all four.")] = [],  # noqa: B006
    voxel: Annotated[float, typer.Option(help="Edge of the head's voxels [mm].")] = 1.0,
    weights: Annotated[list[str], typer.Option(help="Further networks, as files.")] = [],  # noqa: B006
    threads: Threads = None,
) -> None:
    """Run a published experiment with every network, beside classical methods and published figures."""
    from k2chi.app import scaletest

    prepare(threads, "cpu")
    methods = scaletest.networks(weights) | scaletest.classical()
    if part is Part.scale:
        if phantom is None:
            raise ValueError("the scale experiment needs its phantom: give --phantom or set K2CHI_PHANTOM")
        sizes = tuple(size) or scaletest.SIZES
        if min(sizes) < 16 or max(sizes) > 256:
            raise ValueError(f"--size {size}: give edges from 16 to 256")
        lines, slices = scaletest.scale(phantom, sizes, methods, typer.echo)
        words = (
            "RMSE [ppm] over the whole cube (rmse_mask_ppm: in the mask), both maps of mean zero there; "
            "phase noise 1/100 rad at 3 T and 20 ms. What noise and region the published figures have is not "
            "known to the last."
        )
    else:
        lines, slices = scaletest.metrics(voxel, methods, typer.echo)
        words = "Challenge metrics on the digital head, from its true local field with noise."
    out.mkdir(parents=True, exist_ok=True)
    name = f"{study.value}-{part.value}"
    table = scaletest.page(f"{study.value}: {part.value}", words, lines, part is Part.scale)
    (out / f"{name}.md").write_text(table, encoding="utf-8")
    _figure(out / f"{name}.png", slices)
    typer.echo(f"table and figure: {out / name}.md, {out / name}.png")


def _figure(path: Path, slices: dict) -> None:  # type: ignore[type-arg]
    """Middle slices of each map, and of the truth, in one window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from k2chi.app.figures import CHI_WINDOW

    figure = Figure(figsize=(2.2 * len(slices), 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (name, image) in enumerate(slices.items()):
        axes = figure.add_subplot(1, len(slices), i + 1)
        low, high = CHI_WINDOW
        axes.imshow(image.T.numpy(), origin="lower", cmap="gray", vmin=low, vmax=high)
        axes.set_title(name, fontsize=8)
        axes.axis("off")
    figure.savefig(path, dpi=120)

"""Errors of the shipped recipes on the digital head, and which stage makes them → bench/RESULTS.md.

    python bench/accuracy.py [--cases challenge clinical oblique quick] [--recipes default …] [--write]

Every number is over the whole true brain mask; what a recipe erodes counts as zero. The budget replaces one
stage after another by the truth, with everything else as the recipe has it.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from math import cos, radians, sin
from time import perf_counter

import numpy as np
import torch
from results import put, table

from k2chi.background import LBV, PDF, VSHARP
from k2chi.config import recipe, shipped
from k2chi.data import Chi, Field, Grid, as_affine
from k2chi.invert import FANSI
from k2chi.measure.quality import nrmse, quality
from k2chi.measure.roi import regions
from k2chi.ops.fourier import keep_memory
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, Simulation, Truth, box, challenge, clinical, quick
from k2chi.pipeline import Pipeline

SHOWN = (
    *("nrmse", "nrmse_detrend", "xsim", "xsim_uniform", "hfen", "nrmse_tissue", "nrmse_dgm", "nrmse_blood"),
    *("dgm_slope", "correlation", "coverage"),
)


def tilted(grid: Grid, degrees: float) -> Grid:
    """The same box, turned about left-right through its middle: an oblique axial scan."""
    a = np.asarray(grid.affine).copy()
    c, s = cos(radians(degrees)), sin(radians(degrees))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    middle = a[:3, :3] @ (np.asarray(grid.shape) // 2) + a[:3, 3]
    a[:3, :3] = turn @ a[:3, :3]
    a[:3, 3] = middle - a[:3, :3] @ (np.asarray(grid.shape) // 2)
    return replace(grid, affine=as_affine(a))


def oblique() -> Simulation:
    """3 T, five echoes, 1.2 mm, slices tilted by 25°, the head turned in the coil as well."""
    gre = GRE((0.005, 0.011, 0.017, 0.023, 0.029), 3.0, 0.040, 15.0, 80.0, seed=5)
    return gre(DigitalHead(seed=5, angles_deg=(6.0, 4.0, -5.0)), tilted(box((1.2, 1.2, 1.2)), 25.0))


def small() -> Simulation:
    """7 T, 1.6 mm, a person on whom nothing was tuned."""
    gre = GRE((0.004, 0.012, 0.020, 0.028), 7.0, 0.050, 15.0, 100.0, seed=11)
    return gre(DigitalHead(seed=11), box((1.6, 1.6, 1.6)))


def small_3t() -> Simulation:
    """3 T, 1.3×1.3×2 mm, another such person."""
    gre = GRE((0.005, 0.012, 0.019, 0.026, 0.033), 3.0, 0.045, 15.0, 100.0, seed=12)
    return gre(DigitalHead(seed=12), box((1.3, 1.3, 2.0)))


CASES: dict[str, tuple[str, Callable[[], Simulation]]] = {
    "challenge": ("7 T, 1 mm, 4 echoes, SNR 100", lambda: challenge(DigitalHead(seed=1), seed=1)),
    "clinical": ("3 T, 0.9×0.9×1.5 mm, 6 echoes, SNR 80", lambda: clinical(DigitalHead(seed=2), seed=2)),
    "oblique": ("3 T, 1.2 mm, 5 echoes, slices tilted by 25°, SNR 80", oblique),
    "small": ("7 T, 1.6 mm, 4 echoes, SNR 100", small),
    "small 3 T": ("3 T, 1.3×1.3×2 mm, 5 echoes, SNR 100", small_3t),
    "quick": ("3 T, 2 mm, 4 echoes, SNR 100", lambda: quick(DigitalHead(seed=3), seed=3)),
}


def scores(chi: Chi, truth: Truth) -> dict[str, float]:
    """All measures over the whole true brain."""
    return quality(chi.ppm, truth.chi_ppm, truth.brain, truth.group, truth.grid.voxel_mm)


def line(name: str, got: dict[str, float], seconds: float | None = None) -> list[str]:
    """A row of the table of errors."""
    cells = [f"{got[k]:.1f}" if k.startswith(("nrmse", "hfen")) else f"{got[k]:.3f}" for k in SHOWN]
    return [name, *cells, "" if seconds is None else f"{seconds:.0f}"]


def budget(simulation: Simulation, pipeline: Pipeline) -> list[list[str]]:
    """What is left of the error when stages are replaced by the truth, or by a two-step chain."""
    echoes, truth = simulation.echoes, simulation.truth
    own = pipeline(echoes, until="total").total
    known = pipeline(replace(echoes, mask=truth.brain), until="total").total
    assert own is not None
    assert known is not None
    steps = replace(pipeline, invert=FANSI())

    def true_total(of: Field) -> Field:
        return replace(of, ppm=truth.total_ppm * of.mask)

    weighted = replace(known, ppm=truth.local_ppm * known.mask, local=True)
    runs: dict[str, tuple[Pipeline, Field]] = {
        "nothing: the recipe from phase": (pipeline, own),
        "truth for the mask": (pipeline, known),
        "truth for the total field": (pipeline, true_total(own)),
        "truth for mask and total field": (pipeline, true_total(known)),
        "in two steps: V-SHARP, FANSI": (replace(steps, background=VSHARP()), own),
        "in two steps: PDF, FANSI": (replace(steps, background=PDF()), own),
        "in two steps: LBV, FANSI": (replace(steps, background=LBV()), own),
        "truth for mask and local field, FANSI with the recipe's weight": (steps, weighted),
        "truth for mask and local field, FANSI": (steps, truth.local()),
    }
    rows = []
    for name, (chain, field) in runs.items():
        chi = chain(field).chi
        assert chi is not None
        rows.append(line(name, scores(chi, truth)))
        print(name, rows[-1][1:4], flush=True)
    return rows


def fields(simulation: Simulation, pipeline: Pipeline) -> list[list[str]]:
    """Errors of the fields on the way, with the recipe's own mask and with the true one."""
    echoes, truth = simulation.echoes, simulation.truth
    rows = []
    for name, given in (("recipe's mask", echoes), ("true mask", replace(echoes, mask=truth.brain))):
        maps = pipeline(given, until="local")
        assert maps.total is not None
        assert maps.local is not None
        both = maps.mask & truth.brain
        overlap = 2 * float(both.sum()) / float(maps.mask.sum() + truth.brain.sum())
        kept = maps.local.mask & truth.brain
        rows.append(
            [
                name,
                f"{overlap:.3f}",
                f"{nrmse(maps.total.ppm, truth.total_ppm, both):.2f}",
                f"{nrmse(maps.local.ppm, truth.local_ppm, kept):.1f}",
                f"{nrmse(maps.local.ppm * maps.local.mask, truth.local_ppm, truth.brain):.1f}",
                f"{float(kept.sum() / truth.brain.sum()):.3f}",
            ]
        )
    return rows


def nuclei(chi: Chi, truth: Truth) -> list[list[str]]:
    """Mean χ of each labelled region, found and true, relative to the brain's mean."""
    zero, shift = float(truth.chi_ppm[truth.brain].mean()), float(chi.ppm[truth.brain].mean())
    rows = []
    for row in regions(chi, truth.labels):
        where = (truth.labels == row.label) & truth.brain
        if int(where.sum()) < 10:
            continue
        true = float(truth.chi_ppm[where].mean()) - zero
        name = truth.names.get(row.label, str(row.label))
        rows.append(
            [
                name,
                str(int(where.sum())),
                f"{true:+.3f}",
                f"{row.mean_ppm - shift:+.3f}",
                f"{row.in_mask:.2f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["challenge", "clinical", "oblique"])
    parser.add_argument(
        "--recipes", nargs="+", default=[r for r in ("default", "fast", "best") if r in shipped()]
    )
    parser.add_argument("--no-budget", action="store_true", help="leave out the budget")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    given = parser.parse_args()
    keep_memory()
    for case in given.cases:
        words, make = CASES[case]
        simulation = make()
        truth = simulation.truth
        made: dict[str, Chi] = {}
        rows = []
        for name in given.recipes:
            start = perf_counter()
            maps = recipe(name, Pipeline)(simulation.echoes)
            assert maps.chi is not None
            made[name] = maps.chi
            rows.append(line(f"`{name}`", scores(maps.chi, truth), perf_counter() - start))
            print(case, *rows[-1], flush=True)
        head = ("", *(k.replace("_", " ") for k in SHOWN), "seconds")
        first = given.recipes[0]
        parts = [f"{words}; wrapped phase to χ, over the whole true brain.", table(head, rows)]
        if not given.no_budget:
            pipeline = recipe(first, Pipeline)
            parts += [
                f"Budget of `{first}`: stages replaced one by one",
                table(head[:-1], [r[:-1] for r in budget(simulation, pipeline)]),
                f"Fields of `{first}`, NRMSE [%]:",
                table(
                    ("", "mask Dice", "total, both masks", "local, where kept", "local, true brain", "kept"),
                    fields(simulation, pipeline),
                ),
            ]
        parts += [
            f"Regions of `{first}` [ppm], relative to the brain's mean:",
            table(("region", "voxels", "true", "found", "in mask"), nuclei(made[first], truth)),
        ]
        text = "\n\n".join(parts)
        print(text)
        if given.write:
            put(f"Accuracy: {case}", text)
        torch.manual_seed(0)


if __name__ == "__main__":
    main()

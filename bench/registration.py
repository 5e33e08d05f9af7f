"""Registration on digital heads: a known motion, and another person's nuclei → bench/RESULTS.md.

    python bench/registration.py [--voxel 1] [--template 2] [--subject 1] [--hybrid] [--write]

The moved head is sampled anew on a turned grid, not resampled; each image has noise of its own. The template
is another person's magnitude and labels; with --hybrid each person's χ, inverted from a noisy field, drives
the warp too. Seconds are of the ANTs process: by the clock, and of processors.
"""

import argparse
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from results import put, table

from k2chi.data import Field, Grid, Scan, as_affine
from k2chi.invert import FANSI
from k2chi.io.register import Registered, Registration, Rigid, Scene, SyN, register
from k2chi.measure.alignment import dice
from k2chi.measure.residual import octants
from k2chi.measure.roi import merged, nuclei
from k2chi.measure.space import Transform, Warp, brought, carried, centres
from k2chi.ops import dipole
from k2chi.phantom.head import DigitalHead, Head
from k2chi.phantom.scanner import box, spoiled

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from heads import motion

TURN_DEG, SHIFT_MM, NOISE, TE_S = (6.0, -4.0, 8.0), (4.0, -6.0, 5.0), 0.03, 0.02


def magnitude(head: Head, seed: int) -> torch.Tensor:
    """Gradient-echo magnitude with 3 % noise."""
    signal = spoiled(head.m0, head.r1_per_s, 0.05, 15.0) * torch.exp(-TE_S * head.r2star_per_s)
    level = NOISE * float(signal[head.brain].mean())
    draw = torch.Generator().manual_seed(seed)
    return (signal + level * torch.randn(signal.shape, generator=draw)).abs()


def mapped(head: Head, seed: int) -> torch.Tensor:
    """χ by FANSI from the brain's own field with the phase noise of that magnitude [ppm]."""
    scan = Scan((TE_S,), head.b0_tesla)
    draw = torch.Generator().manual_seed(seed)
    field = dipole(head.grid)(head.chi_ppm * head.brain)
    field = field + NOISE / scan.rad_per_ppm * torch.randn(field.shape, generator=draw)
    return FANSI()(Field(field * head.brain, head.brain, head.grid, scan)).ppm


def timed(method: Registration, moving: Scene, fixed: Scene, out: Path) -> tuple[Registered, str]:
    """A registration, and its seconds and those of its processors in words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = register(method, moving, fixed, out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    spent = f"{found.record['Seconds']:.0f} s, {cpu:.0f} CPU s"
    print(type(method).__name__, spent, found.quality.numbers(), found.warnings, flush=True)
    return found, spent


def wrong(centre: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Known misplacements: shifts along a diagonal, and turns about the long axis."""
    for mm in (0.0, 0.5, 1.0, 2.0, 3.0, 5.0):
        yield f"{mm:g} mm off", motion((0, 0, 0), (mm / 3**0.5,) * 3)
    for degrees in (1.0, 2.0, 5.0):
        turn = motion((0, 0, degrees), (0, 0, 0))
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        yield f"{degrees:g}° off", turn


def told(name: str, transform: Transform, moving: Scene, fixed: Scene) -> list[str]:
    """A row: what the images say of a transform."""
    moved = brought(moving.image, moving.grid, fixed.grid, transform)
    found = octants(fixed.image, moved, fixed.mask, fixed.grid)
    apart, score = [o.apart_mm for o in found], np.mean([o.score for o in found])
    return [name, f"{np.nanmean(apart):.2f}", f"{np.nanmax(apart):.2f}", f"{score:.2f}"]


def rigid(head: Head, seen: Head, truth: np.ndarray, folder: Path) -> tuple[str, list[list[str]]]:
    """One person after a known motion: the target error, and what the images say of wrong transforms."""
    here = Scene(magnitude(head, 101), head.grid, head.brain)
    there = Scene(magnitude(seen, 103), head.grid, seen.brain)  # as if the head had moved, not the grid
    found, spent = timed(Rigid(), here, there, folder / "rigid")
    at = centres(head.grid)[seen.brain.numpy()]
    right = Transform((as_affine(truth),))
    apart = np.linalg.norm(found.transform(at) - right(at), axis=-1)
    words = (
        f"Rigid, one person moved by {TURN_DEG}° and {SHIFT_MM} mm, 3 % noise: target error mean "
        f"{apart.mean():.3f} mm, largest {apart.max():.3f} mm; {spent}."
    )
    print(words, flush=True)
    rows = [
        told(f"one person, {name}", Transform((as_affine(e),)).then(right), here, there)
        for name, e in wrong(at.mean(0))
    ]
    return words, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxel", type=float, default=1.0, help="edge of a voxel [mm]")
    parser.add_argument("--template", type=int, default=2, help="person that the template is made from")
    parser.add_argument("--subject", type=int, default=1, help="person to register to")
    parser.add_argument("--hybrid", action="store_true", help="let χ drive the warp too")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    grid, truth = box((asked.voxel,) * 3), motion(TURN_DEG, SHIFT_MM)
    subject, template = (DigitalHead(seed=n)(grid) for n in (asked.subject, asked.template))
    with TemporaryDirectory() as folder:
        moved = Grid(grid.shape, as_affine(truth @ np.asarray(grid.affine)))
        words, judged = rigid(subject, DigitalHead(seed=asked.subject)(moved), truth, Path(folder))
        fixed = Scene(magnitude(subject, 101), grid, subject.brain)
        moving = Scene(magnitude(template, 102), grid, template.brain)
        found, spent = timed(SyN(), moving, fixed, Path(folder) / "k")
        flat = Transform(tuple(s for s in found.transform.steps if not isinstance(s, Warp)))
        ways = {"headers": Transform(), "affine": flat, "SyN": found.transform}
        judged += [told(f"two persons, {w}", t, moving, fixed) for w, t in ways.items()]
        off = Transform((as_affine(motion((0, 0, 0), (1 / 3**0.5,) * 3)),))
        judged.append(told("two persons, SyN 1 mm off", off.then(found.transform), moving, fixed))
        if asked.hybrid:
            fixed = Scene(fixed.image, grid, fixed.mask, mapped(subject, 201))
            moving = Scene(moving.image, grid, moving.mask, mapped(template, 202))
            both, more = timed(SyN(), moving, fixed, Path(folder) / "h")
            ways["SyN with χ"], spent = both.transform, f"{spent}; with χ {more}"
    rows = overlaps(ways, template, subject)
    q = found.quality
    text = (
        f"{words}\n\nSyN by local correlation, person {asked.template} as template for person "
        f"{asked.subject}, {asked.voxel:g} mm: {spent}; masks' Dice {q.mask_dice:.3f}, volume "
        f"change {q.jacobian_low:.2f} to {q.jacobian_high:.2f}, folded {q.folded:.2%}. Dice of each "
        "nucleus, left and right as one:\n\n"
        + table(("nucleus", *ways, "mm³"), rows)
        + "\n\nWhat the images say of transforms, some of them wrong (mean over the eighths of the brain, "
        "worst eighth, local correlation):\n\n"
        + table(("transform", "mean mm", "worst mm", "correlation"), judged)
    )
    print(text)
    if asked.write:
        put(f"Registration at {asked.voxel:g} mm", text)


def overlaps(ways: dict[str, Transform], template: Head, subject: Head) -> list[list[str]]:
    """Dice of each nucleus by each transform."""
    names = nuclei(subject.names)
    true, short = merged(subject.labels, names)
    begin, numbers = perf_counter(), {}
    for way, transform in ways.items():
        numbers[way] = merged(carried(template.labels, template.grid, subject.grid, transform).labels, names)[
            0
        ]
    print(f"labels brought over in {(perf_counter() - begin) / len(ways):.1f} s", flush=True)
    rows = []
    for n, name in short.items():
        scores = [f"{dice(numbers[w] == n, true == n):.3f}" for w in ways]
        rows.append([name, *scores, f"{float((true == n).sum()) * subject.grid.voxel_volume_mm3:.0f}"])
        print(*rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()

"""Registration on digital heads: a known motion, and another person's nuclei → bench/RESULTS.md.

    python bench/registration.py [--voxel 1] [--template 2] [--subject 1] [--write]

The moved head is sampled anew on a turned grid, not resampled. The template is another person's magnitude
and labels. Seconds are of the ANTs process: by the clock, and of processors.
"""

import argparse
import resource
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from results import put, table

from k2chi.data import Grid, as_affine
from k2chi.io.register import Registration, Rigid, Scene, SyN, register
from k2chi.measure.alignment import dice
from k2chi.measure.roi import merged, nuclei
from k2chi.measure.space import Transform, Warp, carried, centres
from k2chi.phantom.head import DigitalHead, Head
from k2chi.phantom.scanner import box, spoiled

TURN_DEG, SHIFT_MM = (6.0, -4.0, 8.0), (4.0, -6.0, 5.0)


def magnitude(head: Head, te_s: float = 0.02) -> torch.Tensor:
    """Gradient-echo magnitude with 3 % noise."""
    signal = spoiled(head.m0, head.r1_per_s, 0.05, 15.0) * torch.exp(-te_s * head.r2star_per_s)
    level = 0.03 * float(signal[head.brain].mean())
    draw = torch.Generator().manual_seed(3)
    return (signal + level * torch.randn(signal.shape, generator=draw)).abs()


def motion() -> np.ndarray:
    """A rigid motion about all axes, 4×4."""
    out = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(TURN_DEG)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    out[:3, 3] = SHIFT_MM
    return out


def timed(method: Registration, moving: Scene, fixed: Scene, out: Path):
    """A registration, its seconds and those of its processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    found = register(method, moving, fixed, out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(type(method).__name__, f"{cpu:.0f} CPU s", found.quality, found.warnings, flush=True)
    return found, float(found.record["Seconds"]), cpu, perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxel", type=float, default=1.0, help="edge of a voxel [mm]")
    parser.add_argument("--template", type=int, default=2, help="person that the template is made from")
    parser.add_argument("--subject", type=int, default=1, help="person to register to")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    grid = box((asked.voxel,) * 3)
    subject, template = (DigitalHead(seed=n)(grid) for n in (asked.subject, asked.template))
    truth = as_affine(motion())
    seen = DigitalHead(seed=asked.subject)(Grid(grid.shape, as_affine(motion() @ np.asarray(grid.affine))))
    here = Scene(magnitude(subject), grid, subject.brain)
    there = Scene(magnitude(template), grid, template.brain)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "k"
        one, wall, cpu, _ = timed(Rigid(), here, Scene(magnitude(seen), grid, seen.brain), out)
        at = centres(grid)[seen.brain.numpy()]
        apart = np.linalg.norm(one.transform(at) - Transform((truth,))(at), axis=-1)
        rigid = (
            f"Rigid, one person moved by {TURN_DEG}° and {SHIFT_MM} mm, 3 % noise: target error mean "
            f"{apart.mean():.3f} mm, largest {apart.max():.3f} mm; {wall:.0f} s, {cpu:.0f} CPU s."
        )
        print(rigid, flush=True)
        two, wall, cpu, _ = timed(SyN(), there, here, out)
    rows, start = [], perf_counter()
    matrix_only = Transform(tuple(s for s in two.transform.steps if not isinstance(s, Warp)))
    names = nuclei(subject.names)
    ways = {"headers": Transform(), "affine": matrix_only, "SyN": two.transform}
    numbers = {w: carried(template.labels, grid, grid, t).labels for w, t in ways.items()}
    seconds = (perf_counter() - start) / 3
    true, short = merged(subject.labels, names)
    both = {w: merged(n, names)[0] for w, n in numbers.items()}
    for n, name in short.items():
        scores = [f"{dice(both[w] == n, true == n):.3f}" for w in ways]
        rows.append([name, *scores, f"{float((true == n).sum()) * grid.voxel_volume_mm3:.0f}"])
        print(*rows[-1], flush=True)
    q = two.quality
    text = (
        f"{rigid}\n\nSyN by local correlation, person {asked.template} as template for person "
        f"{asked.subject}, {asked.voxel:g} mm: {wall:.0f} s, {cpu:.0f} CPU s; masks' Dice {q.mask_dice:.3f}, "
        f"local correlation {q.lncc_before:.2f} → {q.lncc:.2f}, volume change {q.jacobian_low:.2f} to "
        f"{q.jacobian_high:.2f}, folded {q.folded:.2%}; labels brought over in {seconds:.1f} s. Dice of each "
        "nucleus, left and right as one:\n\n" + table(("nucleus", *ways, "mm³"), rows)
    )
    print(text)
    if asked.write:
        put(f"Registration at {asked.voxel:g} mm", text)


if __name__ == "__main__":
    main()

"""Time and peak memory of each stage at whole size, each in a process of its own → bench/RESULTS.md.

    python bench/speed.py [--shape 164 205 205] [--recipe default] [--stages-only] [--write]

A stage's process loads what the stage before left and runs once, after a run at low resolution, so that
compiling is not counted. It reports wall time and the peak of its resident memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from results import put, table

STAGES = ("mask", "offsets", "r2star", "unwrap", "combine", "background", "invert", "reference")


def child(stage: str, folder: Path, recipe_name: str) -> dict[str, float]:
    """Run one stage on what is stored in `folder`; store its result."""
    from k2chi.config import recipe
    from k2chi.joint import Joint
    from k2chi.ops.fourier import keep_memory
    from k2chi.pipeline import Pipeline

    keep_memory()
    pipeline = recipe(recipe_name, Pipeline)
    method = getattr(pipeline, stage)
    taken = "total" if isinstance(pipeline.invert, Joint) else "local"
    name = {"background": "total", "invert": taken, "reference": "chi"}.get(stage, "echoes")
    data = torch.load(folder / f"{name}.pt", weights_only=False)
    extra = []
    if stage == "reference" and (folder / "r2star.pt").exists():
        extra = [torch.load(folder / "r2star.pt", weights_only=False)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = method(data, *extra)
    seconds = time.perf_counter() - start
    out = {"combine": "total", "background": "local", "invert": "chi", "r2star": "r2star"}.get(stage, name)
    torch.save(result, folder / f"{out}.pt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_gb": peak / 1e6, "loaded_gb": before / 1e6}


def simulate(folder: Path, shape: tuple[int, int, int]) -> dict[str, float]:
    """A head at 7 T with four echoes, 164×205×205 mm at whatever voxels fill `shape`."""
    from k2chi.ops.fourier import keep_memory
    from k2chi.phantom.head import DigitalHead
    from k2chi.phantom.scanner import GRE, box

    keep_memory()
    start = time.perf_counter()
    x, y, z = (e / n for e, n in zip((164.0, 205.0, 205.0), shape, strict=True))
    grid = box((x, y, z))
    simulation = GRE(fine_mm=0.0)(DigitalHead(seed=1), grid)
    torch.save(simulation.echoes, folder / "echoes.pt")
    torch.save(simulation.truth, folder / "truth.pt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": time.perf_counter() - start, "peak_gb": peak, "loaded_gb": 0.0}


def score(folder: Path) -> dict[str, float]:
    """Every measure of `k2chi compare`, which have their own time limit."""
    from k2chi.measure.blind import blind
    from k2chi.measure.quality import quality

    chi = torch.load(folder / "chi.pt", weights_only=False)
    truth = torch.load(folder / "truth.pt", weights_only=False)
    start = time.perf_counter()
    quality(chi.ppm, truth.chi_ppm, truth.brain, truth.group)
    blind(chi)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "loaded_gb": 0.0,
    }


def files_to_files(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """`k2chi qsm` on NIfTI files, as a user runs it: start, reading, all stages, writing, report."""
    k2chi = str(Path(sys.executable).parent / "k2chi")
    x, y, z = (str(e / n) for e, n in zip((164.0, 205.0, 205.0), given.shape, strict=True))
    subprocess.run(
        [k2chi, "simulate", "gre", str(folder / "in"), "--b0", "7", "--voxel", x, y, z],
        check=True,
        capture_output=True,
    )
    start = time.perf_counter()
    command = [k2chi, "qsm", str(folder / "in"), str(folder / "out"), "--recipe", given.recipe]
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
    )
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", measure, *command, "--threads", str(given.threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    return {"seconds": time.perf_counter() - start, "peak_gb": int(done.stdout) / 1e6, "loaded_gb": 0.0}


def spawn(stage: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """A stage in a process of its own."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    command += ["--recipe", given.recipe, "--threads", str(given.threads), "--shape", *map(str, given.shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(164, 205, 205))
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    parser.add_argument("--stages-only", action="store_true", help="leave out `k2chi qsm` on files")
    parser.add_argument("--stage")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = tuple(given.shape)
    if given.stage:
        if given.stage == "simulate":
            told = simulate(given.folder, shape)
        elif given.stage == "files to files":
            told = files_to_files(given.folder, given)
        elif given.stage == "quality":
            told = score(given.folder)
        else:
            told = child(given.stage, given.folder, given.recipe)
        print(json.dumps(told))
        return

    rows = []
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as whole:
        few = argparse.Namespace(recipe=given.recipe, threads=given.threads, shape=(48, 60, 60))
        for stage in ("simulate", *STAGES):  # compiles what is to be compiled, into numba's cache
            spawn(stage, Path(small), few)
        for stage in ("simulate", *STAGES, "quality"):
            told = spawn(stage, Path(whole), given)
            rows.append((stage, f"{told['seconds']:.1f}", f"{told['peak_gb']:.2f}"))
            print(*rows[-1], flush=True)
    chain = [r for r in rows if r[0] in STAGES]
    rows.append(
        (
            "**chain**",
            f"**{sum(float(r[1]) for r in chain):.1f}**",
            f"**{max(float(r[2]) for r in chain):.2f}**",
        )
    )
    if not given.stages_only:
        with tempfile.TemporaryDirectory() as files:
            told = spawn("files to files", Path(files), given)
            rows.append(("files to files, `k2chi qsm`", f"{told['seconds']:.1f}", f"{told['peak_gb']:.2f}"))
    title = f"Speed: {given.recipe}, {'×'.join(map(str, shape))}, 4 echoes, {given.threads} threads"
    text = table(("stage", "seconds", "peak GB"), rows)
    print(text)
    if given.write:
        put(
            title,
            "Wall time and peak resident memory of each stage in its own process (`bench/speed.py`).\n\n"
            + text,
        )


if __name__ == "__main__":
    main()

"""Registration by ANTs (the package antspyx): rigid for one person, affine and SyN for a template.

ANTs runs in a process of its own, so that its seed and threads are ours to set and a crash of it is an
error in words. Transforms stay in the forms that ANTs writes.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from math import prod
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from k2chi.data import Grid
from k2chi.io.nifti import write, write_text
from k2chi.io.transforms import read_transform
from k2chi.measure.alignment import Alignment, aligned, warnings
from k2chi.measure.space import Transform, brought
from k2chi.progress import track

RUN = "import sys, ants; sys.exit(ants.registration(sys.argv[1:], None))"
STEPS = 200
ENOUGH = 200_000
"""Voxels that a histogram wants."""
LEVELS_MM = (8.0, 4.0, 2.0, 1.0)
"""Voxels of the levels, coarse to fine; levels finer than the image are those of the image itself."""
Stages = tuple[list[str], list[tuple[int, float]]]
"""ANTs' words, and for each level its shrink factor and the work of an iteration there times their number."""


def stage(kind: str, metrics: list[str], grid: Grid, iterations: tuple[int, ...]) -> Stages:
    """One stage in ANTs' words: levels of 8, 4, 2 and 1 mm as far as the voxels allow."""
    most: dict[int, int] = {}
    for mm, n in zip(LEVELS_MM, iterations, strict=True):
        shrink = max(round(mm / max(grid.voxel_mm)), 1)
        most[shrink] = most.get(shrink, 0) + n
    most = {shrink: n for shrink, n in most.items() if n}
    finest = (
        0 if kind.startswith("SyN") else 1
    )  # unsmoothed histograms lean to whole voxels (0.20, not 0.06 mm)
    words = ["--transform", kind]
    for m in metrics:
        words += ["--metric", m]
    words += ["--convergence", f"[{'x'.join(str(n) for n in most.values())},1e-6,10]"]
    words += ["--shrink-factors", "x".join(str(k) for k in most)]
    words += ["--smoothing-sigmas", "x".join(f"{max((k - 1) / 2, finest):g}" for k in most) + "vox"]
    return words, [(k, float(n)) for k, n in most.items()]


@dataclass(frozen=True, eq=False)
class Scene:
    """One image to register, its brain mask, and a second contrast of the same grid."""

    image: Float[Tensor, "x y z"]
    grid: Grid
    mask: Bool[Tensor, "x y z"] | None = None
    """Brain; None uses the whole image."""
    second: Float[Tensor, "x y z"] | None = None
    """Another contrast, such as χ beside T1: where both scenes have one, both drive the warp of SyN."""


@dataclass(frozen=True, eq=False)
class Registered:
    """A transform, where its files lie, how good it looks, and how it was made."""

    transform: Transform
    files: tuple[Path, ...]
    quality: Alignment
    warnings: tuple[str, ...]
    moved: Float[Tensor, "x y z"]
    """The moving image on the fixed grid."""
    record: dict[str, object]


@dataclass(frozen=True)
class Rigid:
    """Rotation and shift between two scans of one person, by mutual information, which any contrasts share.

    Starts from the centres of mass. Avants et al. 2011, NeuroImage 54:2033,
    doi:10.1016/j.neuroimage.2010.09.025; mutual information: Mattes et al. 2003, IEEE TMI 22:120,
    doi:10.1109/TMI.2003.809072. Costs: see bench/RESULTS.md.
    """

    seed: int = 1
    """Where ANTs looks first among random samples; the same number gives the same samples."""
    threads: int = 0
    """Threads; 0 uses all cores. Only one thread gives the same bytes each time."""
    samples: float = 0.25
    """Share of the voxels that are looked at, above 0 up to 1."""

    warped: ClassVar[bool] = False
    """True where a warp follows."""

    def __post_init__(self) -> None:
        if not 0 < self.samples <= 1:
            raise ValueError(f"samples {self.samples}: choose a share above 0, up to 1")

    def stages(self, pairs: list[str], grid: Grid) -> Stages:
        """ANTs' words, and for each level its shrink factor and most iterations."""
        share = min(1.0, max(self.samples, ENOUGH / prod(grid.shape)))
        return stage("Rigid[0.1]", [f"Mattes[{pairs[0]},1,32,Regular,{share:.3g}]"], grid, (500, 250, 100, 0))


@dataclass(frozen=True)
class SyN:
    """A template to a person: rotation, affine, then a smooth invertible warp by local cross-correlation.

    Local correlation needs a template of the same contrast; between contrasts (T1 template, GRE magnitude)
    it can diverge by centimetres, and `metric="information"` is the careful choice there. ANTs' own default
    (information) leaves most of a warp between equal contrasts uncorrected: on a known warp of 2.8 mm, 2.0
    mm were left, and 0.6 mm by correlation. Avants et al. 2008, Med Image Anal 12:26,
    doi:10.1016/j.media.2007.06.004.

    Caudate and putamen hardly differ from white matter in a magnitude. Where both scenes have a second
    contrast such as χ, the sum of both metrics drives the warp: between two digital heads the caudate's Dice
    rose from 0.60 to 0.92, and no nucleus lost. Costs: see bench/RESULTS.md.
    """

    metric: Literal["correlation", "information"] = "correlation"
    """What drives the warp: local correlation of equal contrasts, or mutual information of different ones."""
    iterations: tuple[int, ...] = (100, 60, 20, 0)
    """Most iterations at each level, coarse to fine: voxels of 8, 4, 2 and 1 times the size."""
    radius: int = 2
    """Half the width of the boxes of the local correlation, in voxels of the level; 1 or more."""
    step: float = 0.2
    """Gradient step, above 0 up to 0.5; larger is faster and rougher."""
    smooth: float = 3.0
    """Variance of the Gaussian that smooths each update, in voxels of the level; larger is smoother."""
    seed: int = 1
    """As for Rigid."""
    threads: int = 0
    """As for Rigid."""

    warped: ClassVar[bool] = True
    """True: a warp is found."""

    def __post_init__(self) -> None:
        if len(self.iterations) != 4 or min(self.iterations) < 0 or not any(self.iterations):
            raise ValueError(f"iterations {self.iterations}: give four numbers, from coarse to fine")
        if not (self.radius >= 1 and 0 < self.step <= 0.5 and self.smooth >= 0):
            raise ValueError("choose radius 1 or more, step above 0 up to 0.5, smooth 0 or more")

    def stages(self, pairs: list[str], grid: Grid) -> Stages:
        """ANTs' words, and for each level its shrink factor and most iterations."""
        share = min(1.0, max(0.25, ENOUGH / prod(grid.shape)))
        words: list[str] = []
        levels: list[tuple[int, float]] = []
        for kind in ("Rigid[0.1]", "Affine[0.1]"):
            more = stage(kind, [f"Mattes[{pairs[0]},1,32,Regular,{share:.3g}]"], grid, (200, 100, 50, 0))
            words, levels = words + more[0], levels + more[1]
        how = [
            f"CC[{p},1,{self.radius}]" if self.metric == "correlation" else f"Mattes[{p},1,32]" for p in pairs
        ]
        warp, most = stage(f"SyN[{self.step},{self.smooth},0]", how, grid, self.iterations)
        return words + warp, levels + [(shrink, n * 20) for shrink, n in most]


Registration = Rigid | SyN
"""Ways to register."""


def register(method: Registration, moving: Scene, fixed: Scene, out: Path) -> Registered:
    """Register `moving` to `fixed`; files begin with `out`: the transforms of ANTs and `_xfm.json`.

    Raises ValueError if antspyx is missing, if a scene is empty, or if ANTs fails.
    """
    require()
    for name, scene in (("moving", moving), ("fixed", fixed)):
        used = scene.image[scene.mask] if scene.mask is not None else scene.image
        if not used.numel() or float(used.std()) == 0:
            raise ValueError(f"the {name} image is constant inside its mask: there is nothing to register")
    begin = perf_counter()
    with TemporaryDirectory(prefix="k2chi-register-") as folder:
        made = _ants(method, moving, fixed, Path(folder))
        files = [out.with_name(f"{out.name}_{f.name.removeprefix('k_')}") for f in made]
        for old, new in zip(made, files, strict=True):
            copyfile(old, new)
    onward = [f for f in files if "Inverse" not in f.name]
    transform = read_transform(*sorted(onward, key=lambda f: "Warp" not in f.name))
    record: dict[str, object] = {
        "Kind": type(method).__name__, "Settings": asdict(method), "Engine": "ANTs",
        "EngineVersion": f"antspyx {metadata.version('antspyx')}",
        "Threads": method.threads or os.cpu_count(),
        "Seed": method.seed, "Seconds": round(perf_counter() - begin, 1),
        "Transforms": [f.name for f in sorted(onward, key=lambda f: "Warp" not in f.name)],
        "Convention": "ITK: from fixed position (LPS, mm) to moving position",
    }  # fmt: skip
    return judged(transform, tuple(files), moving, fixed, method.warped, record, out)


def judged(
    transform: Transform,
    files: tuple[Path, ...],
    moving: Scene,
    fixed: Scene,
    warped: bool,
    record: dict[str, object],
    out: Path,
) -> Registered:
    """Measure a transform, write its `_xfm.json`, and put it together."""
    moved = brought(moving.image, moving.grid, fixed.grid, transform)
    before = brought(moving.image, moving.grid, fixed.grid, Transform())
    masks = None
    if fixed.mask is not None and moving.mask is not None:
        masks = fixed.mask, brought(moving.mask.float(), moving.grid, fixed.grid, transform) > 0.5
    quality = aligned(fixed.image, moved, before, masks, transform, fixed.grid)
    said = warnings(quality, warped)
    record = {**record, "Quality": quality.numbers(), "Warnings": list(said)}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    side = write_text(out.with_name(f"{out.name}_xfm.json"), text)
    return Registered(transform, (*files, side), quality, said, moved, record)


def require() -> None:
    """Raise ValueError if the engine is not installed."""
    if importlib.util.find_spec("ants") is None:
        raise ValueError("registration needs antspyx, which is not installed: pip install 'k2chi[register]'")


def _ants(method: Registration, moving: Scene, fixed: Scene, folder: Path) -> list[Path]:
    f, m = _staged(fixed, moving, folder, "fixed"), _staged(moving, fixed, folder, "moving")
    pairs = [f"{a},{b}" for a, b in zip(f, m, strict=True)]
    words, levels = method.stages(pairs, fixed.grid)
    words = ["--initial-moving-transform", f"[{pairs[0]},1]", *words]
    if fixed.mask is not None and moving.mask is None:
        mask = write(folder / "mask.nii.gz", fixed.mask, fixed.grid)
        words += ["--masks", f"[{mask},NA]"]
    start = [
        *("--dimensionality", "3", "--float", "1", "--verbose", "1", "--random-seed", str(method.seed)),
        *("--output", str(folder / "k_"), "--winsorize-image-intensities", "[0.005,0.995]"),
        *("--use-histogram-matching", "0", "--collapse-output-transforms", "1"),
    ]
    threads = str(method.threads or os.cpu_count() or 1)
    env = os.environ | {
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        "ANTS_RANDOM_SEED": str(method.seed),
        "NSLOTS": threads,
        "PYTHONUNBUFFERED": "1",
    }
    tail: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *start, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, errors="replace",
    ) as running:  # fmt: skip
        try:
            for line in _watched(running, levels):
                tail = [*tail[-5:], line]
        except BaseException:
            running.kill()
            raise
    made = sorted(folder.glob("k_*"))
    if running.returncode or not made:
        said = next((t for t in reversed(tail) if t.strip()), "it said nothing")
        raise ValueError(
            f"ANTs stopped with code {running.returncode} ({said.strip()}): check that both images show a "
            "head and that masks lie on it"
        )
    return made


def _staged(scene: Scene, other: Scene, folder: Path, name: str) -> list[str]:
    """Images as ANTs reads them, cut to their masks where both have one."""
    files = []
    for k, image in enumerate((scene.image, scene.second)):
        if image is None or (k and other.second is None):
            continue
        if scene.mask is not None and other.mask is not None:
            image = torch.where(scene.mask, image, 0)
        cut, grid = _cut(image, scene.grid)
        files.append(str(write(folder / f"{name}{k}.nii", cut, grid)))
    return files


def _cut(image: Tensor, grid: Grid, margin: int = 8) -> tuple[Tensor, Grid]:
    """The box that holds what is not zero, with a margin."""
    where = torch.nonzero(image)
    low = (where.amin(0) - margin).clamp_min(0).tolist()
    high = [min(int(h) + margin + 1, n) for h, n in zip(where.amax(0), grid.shape, strict=True)]
    x, y, z = (h - int(a) for a, h in zip(low, high, strict=True))
    part = image[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return part.contiguous(), grid.window((low[0], low[1], low[2]), (x, y, z))


def _watched(running: "subprocess.Popen[str]", levels: list[tuple[int, float]]) -> Iterator[str]:
    """ANTs' lines; each one that tells of an iteration moves the progress."""
    cost = [most / shrink**3 for shrink, most in levels]
    total = sum(cost) or 1.0
    level, done = -1, 0
    steps = track(STEPS, "registration")
    next(steps)
    assert running.stdout is not None
    try:
        for line in running.stdout:
            if hit := re.match(r"\s*\dDIAGNOSTIC,\s*(\d+),", line):
                count = int(hit[1])
                level += count == 1
                here = min(level, len(levels) - 1)
                part = min(count / max(levels[here][1], 1), 1.0) * cost[here]
                target = int(STEPS * min((sum(cost[:here]) + part) / total, 1.0))
                while done < min(target, STEPS - 1):
                    next(steps)
                    done += 1
            yield line
    finally:
        for _ in steps:
            pass


def scene(image: Tensor, grid: Grid, mask: Tensor | None = None, second: Tensor | None = None) -> Scene:
    """A scene of finite numbers."""
    clean = Scene(image.float().nan_to_num(), grid, mask, second)
    return clean if second is None else replace(clean, second=second.float().nan_to_num())

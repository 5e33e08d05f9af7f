"""The scale-invariance experiment of SI-QSM, and challenge metrics of networks on the digital head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from time import perf_counter
from warnings import catch_warnings, simplefilter

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from k2chi.data import Chi, Field, Grid, Scan
from k2chi.invert import FANSI, HDQSM, NDI, TKD
from k2chi.invert.learned import Learned
from k2chi.measure.quality import quality
from k2chi.nets.weights import shipped, trained
from k2chi.ops.dipole import dipole
from k2chi.phantom import GRE, DigitalHead, box

PUBLISHED = {
    "SI-QSM": {64: 2.42e-3, 96: 2.21e-3, 128: 2.02e-3, 256: 1.74e-3},
    "QSMnet+": {64: 2.39e-3, 96: 2.10e-3, 128: 2.22e-3, 256: 2.22e-3},
    "DeepQSM": {64: 3.27e-3, 96: 3.03e-3, 128: 2.94e-3, 256: 3.14e-3},
}
"""RMSE [ppm] of the thesis, whose noise and region are not known to the last; ours stand in `scene`."""
SIZES = (64, 96, 128, 256)
SCAN = Scan((0.020,), 3.0)
SNR = 100.0
METRICS = (
    *("nrmse", "nrmse_detrend", "nrmse_tissue", "nrmse_blood", "nrmse_dgm", "dgm_deviation"),
    *("calc_streak", "calc_deviation"),
)
"""The eight of the second reconstruction challenge."""
Method = Callable[[Field], Chi]


@dataclass(frozen=True)
class Line:
    """One method on one scene."""

    method: str
    scene: str
    values: Mapping[str, float]
    seconds: float


def networks(extra: Sequence[str] = ()) -> dict[str, Method]:
    """Every network for local fields that is in the package, and those of files."""
    names = [n for n in (*shipped(), *extra) if trained(n).card.takes == "local"]
    return {trained(n).card.name: Learned(n) for n in names}


def phantom(folder: Path) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """χ [ppm] and mask of the piecewise-constant phantom, in a cube of 256."""
    volumes = []
    for name in ("Chimap.nii.gz", "mask.nii.gz"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} is not there: give the folder of the piecewise-constant phantom "
                "(Wisnieff 2013, Milovic 2018; with the FANSI toolbox) by --phantom or K2CHI_PHANTOM"
            )
        image = nib.load(folder / name)
        volumes.append(torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)))  # type: ignore[attr-defined]
    sides = []
    for n in reversed(volumes[0].shape):
        low = (256 - n) // 2
        sides += [low, 256 - n - low]
    chi, mask = (pad(v, sides) for v in volumes)
    return chi * (mask > 0.5), mask > 0.5


def scene(
    chi: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"], size: int, seed: int = 0
) -> tuple[Field, Float[Tensor, "u v w"]]:
    """The phantom averaged to a cube of `size`, cubic voxels, B0 along the last axis; its field at SNR 100.

    Field by Green's function on an array twice as large; noise of phase 1/100 rad at 3 T and 20 ms (0.6 ppb).
    """
    cube = (size, size, size)
    small, inside = averaged(chi, size), averaged(mask.float(), size) > 0.5
    edge = 256 / size
    grid = Grid.of(cube, (edge, edge, edge))
    truth = small * inside
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(cube, generator=draw) / (SNR * SCAN.rad_per_ppm)
    ppm = (dipole(grid, kind="green", pad=2)(truth) + noise) * inside
    return Field(ppm, inside, grid, SCAN, local=True), truth


def averaged(x: Float[Tensor, "x y z"], size: int) -> Float[Tensor, "u v w"]:
    """Means over the larger voxels of a cube of `size`, which may cut small ones."""
    for axis in range(3):
        n = x.shape[axis]
        low = torch.arange(size)[:, None] * (n / size)
        each = torch.arange(n)[None]
        shared = torch.minimum(low + n / size, each + 1.0) - torch.maximum(low, each.double())
        weights = (shared.clamp_min(0) / (n / size)).to(x)
        x = torch.tensordot(weights, x, ([1], [axis])).movedim(0, axis)
    return x


def rmse(chi: Float[Tensor, "x y z"], truth: Float[Tensor, "x y z"], mask: Bool[Tensor, "x y z"]) -> float:
    """Root mean square over the whole cube [ppm], the mean in the mask taken from both."""
    a, t = (torch.where(mask, m - m[mask].mean(), torch.zeros_like(m)) for m in (chi, truth))
    return float((a - t).square().mean().sqrt())


def scale(
    folder: Path, sizes: Sequence[int], methods: Mapping[str, Method], tell: Callable[[str], None]
) -> tuple[list[Line], dict[str, Tensor]]:
    """Each method at each size; and middle slices at the first size."""
    chi, mask = phantom(folder)
    lines, slices = [], {}
    for size in sizes:
        local, truth = scene(chi, mask, size)
        if size == sizes[0]:
            slices["truth"] = truth[..., size // 2]
        for name, method in methods.items():
            found, seconds = timed(method, local)
            whole = rmse(found.ppm, truth, local.mask)
            inside = whole * (size**3 / float(local.mask.sum())) ** 0.5
            lines.append(Line(name, f"{size}³", {"rmse_ppm": whole, "rmse_mask_ppm": inside}, seconds))
            tell(f"{size}³ {name}: {1e3 * whole:.2f}e-3 ppm in {seconds:.1f} s")
            if size == sizes[0]:
                slices[name] = found.ppm[..., size // 2]
    return lines, slices


def metrics(
    voxel_mm: float, methods: Mapping[str, Method], tell: Callable[[str], None]
) -> tuple[list[Line], dict[str, Tensor]]:
    """Challenge metrics on two contrasts (with and without calcifications) and two noise levels, 7 T."""
    heads = {"Sim1": DigitalHead(seed=1), "Sim2": DigitalHead(seed=2, calcifications=2)}
    lines, slices = [], {}
    for contrast, head in heads.items():
        truth = GRE(snr=1000.0)(head, box((voxel_mm, voxel_mm, voxel_mm))).truth
        for level, snr in (("SNR1", 50.0), ("SNR2", 300.0)):
            draw = torch.Generator().manual_seed(1)
            noise = torch.randn(truth.grid.shape, generator=draw) / (snr * truth.scan.rad_per_ppm)
            clean = truth.local()
            local = replace(clean, ppm=clean.ppm + noise * clean.mask)
            for name, method in methods.items():
                chi, seconds = timed(method, local)
                got = quality(chi.ppm, truth.chi_ppm, truth.brain, truth.group, truth.grid.voxel_mm)
                values = {k: got[k] for k in METRICS if k in got}
                lines.append(Line(name, f"{contrast} {level}", values, seconds))
                tell(f"{contrast} {level} {name}: nrmse {got['nrmse']:.1f} % in {seconds:.1f} s")
                if not lines[:-1] or (contrast, level) == ("Sim1", "SNR1"):
                    middle = truth.grid.shape[2] // 2
                    slices["truth"] = (truth.chi_ppm * truth.brain)[..., middle]
                    slices[name] = chi.ppm[..., middle]
    return lines, slices


def timed(method: Method, local: Field) -> tuple[Chi, float]:
    """χ and how long it took; what a network says of unknown voxels is in its card already."""
    with catch_warnings():
        simplefilter("ignore", UserWarning)
        start = perf_counter()
        return method(local), perf_counter() - start


def classical() -> dict[str, Method]:
    """What networks are compared with."""
    return {"NDI": NDI(), "FANSI": FANSI(), "TKD": TKD(), "HD-QSM": HDQSM()}


def page(title: str, words: str, lines: Sequence[Line], published: bool) -> str:
    """A table for reading."""
    keys = list(dict.fromkeys(k for line in lines for k in line.values))
    head = f"| scene | method | {' | '.join(keys)} | seconds |\n|---|---|{'---:|' * (len(keys) + 1)}"
    rows = []
    for x in lines:
        found = [x.values.get(k, nan) for k in keys]
        values = " | ".join("–" if isnan(v) else f"{v:.4g}" for v in found)
        rows.append(f"| {x.scene} | {x.method} | {values} | {x.seconds:.1f} |")
    if published:
        rows += [
            f"| {size}³ | {name}, published | {value:.3g} | {' | ' * (len(keys) - 1)} |"
            for name, at in PUBLISHED.items()
            for size, value in at.items()
        ]
    return f"# {title}\n\n{words}\n\n{head}\n" + "\n".join(rows) + "\n"

"""Every method of every stage on the digital head: error, time, memory, picture → bench/RESULTS.md.

    python bench/methods.py [--case challenge|clinical|…] [--rooms invert background …] [--only FANSI …]
                            [--work DIR] [--write]

Each method runs with its defaults in a process of its own, after a run at low resolution, so that compiling
is not counted, and reports wall time and peak resident memory. What a stage gets is the truth of the stage
before (inversions: the noise-free local field; background removal: the total field; one-step methods: the
measured one), inside the true brain mask; errors are over the whole of it. With `--work` finished methods are
kept there and not run again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import matplotlib.pyplot as plt
import numpy as np
import torch
from accuracy import CASES, scores
from results import put, table

from k2chi.background import Background
from k2chi.data import Chi, Echoes, Field
from k2chi.field import Unwrapping
from k2chi.invert import FANSI, NDI, Inversion
from k2chi.joint import TGV, FromPhase, Joint, JointLocal
from k2chi.measure.quality import nrmse, xsim
from k2chi.ops.fourier import keep_memory
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import Simulation, quick
from k2chi.pipeline import Pipeline

ROOMS: dict[str, Any] = {
    "invert": Inversion,
    "joint": Joint,
    "background": Background | JointLocal,
    "unwrap": Unwrapping,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "invert": {
        "FANSI linear": FANSI(nonlinear=False),
        "FANSI TGV": FANSI(tgv=True),
        "NDI, 100 iterations": NDI(iterations=100, tolerance=0),
    },
    "joint": {"TGV 2015, 1000 iterations": TGV.published_2015()},
}
"""Further settings that go by a name of their own."""
SCORES = ("nrmse", "nrmse_detrend", "nrmse_tissue", "nrmse_blood", "nrmse_dgm", "dgm_slope", "xsim", "hfen")
WORDS = {
    "invert": "Inversion of the true, noise-free local field (the leaderboard's track)",
    "noisy": "The same with the scan's noise and weights",
    "joint": "One step: from the measured total field or the wrapped phase inside the true mask",
    "background": "Background removal from the true total field; error of the local field",
    "unwrap": "Unwrapping of the measured phase; share of voxels that are whole turns off",
}


def given(simulation: Simulation) -> dict[str, Any]:
    """What the methods of each room start from."""
    echoes, truth = simulation.echoes, simulation.truth
    offset_free = Pipeline().offsets(replace(echoes, mask=truth.brain))
    total = Pipeline()(replace(echoes, mask=truth.brain), until="total").total
    assert total is not None
    assert total.noise_ppm is not None
    noise = total.noise_ppm.clamp_max(0.05) * torch.randn(
        total.ppm.shape, generator=torch.Generator().manual_seed(0)
    )
    noisy = replace(total, ppm=(truth.local_ppm + noise) * truth.brain, local=True, support=truth.brain)
    exact = replace(truth.local(), magnitude=total.magnitude, support=truth.brain)
    return {
        "invert": exact,
        "noisy": noisy,
        "background": replace(truth.total(), magnitude=total.magnitude, noise_ppm=total.noise_ppm),
        "total": total,
        "unwrap": offset_free,
        "truth": truth,
    }


def choices(room: str) -> dict[str, Any]:
    """Every method of a room with its defaults, and the named variants."""
    room = "invert" if room == "noisy" else room
    union = ROOMS[room]
    return {m.__name__: m() for m in get_args(union)} | VARIANTS.get(room, {})


def peak_gb() -> float:
    """Peak resident memory of this process; getrusage would count what it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
        return float(line.split()[1]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def child(room: str, name: str, folder: Path) -> dict[str, Any]:
    """Run one method; store what it made."""
    keep_memory()
    method = choices(room)[name]
    phase = room == "joint" and isinstance(method, FromPhase)
    key = "unwrap" if phase else "total" if room == "joint" else room
    with torch.no_grad():
        method(torch.load(folder / f"{key}-small.pt", weights_only=False))
        data = torch.load(folder / f"{key}.pt", weights_only=False)
        start = perf_counter()
        made = method(data)
        seconds = perf_counter() - start
    peak = peak_gb()
    truth = torch.load(folder / "truth.pt", weights_only=False)
    got = {"seconds": seconds, "peak_gb": peak, **judged(made, truth, folder)}
    if isinstance(made, Chi):
        zero = made.ppm[truth.brain].mean()
        torch.save(((made.ppm - zero) * truth.brain).half(), folder / f"{room}-{name}.map.pt")
    return got


def judged(made: Chi | Field | Echoes, truth: Any, folder: Path) -> dict[str, Any]:
    """Errors against the truth."""
    if isinstance(made, Chi):
        more = {"iterations": len(made.updates), "converged": made.converged}
        return {**scores(made, truth), **more}
    if isinstance(made, Field):
        kept = made.mask & truth.brain
        whole = made.ppm * made.mask
        return {
            "nrmse": nrmse(whole, truth.local_ppm, truth.brain),
            "nrmse_kept": nrmse(whole, truth.local_ppm, kept),
            "xsim": xsim(whole, truth.local_ppm, truth.brain),
            "kept": float(kept.sum() / truth.brain.sum()),
        }
    assert made.unwrapped_rad is not None
    given_echoes = torch.load(folder / "unwrap.pt", weights_only=False)
    return {"wrong_percent": [100 * w for w in wrong_turns(made.unwrapped_rad, given_echoes, truth)]}


def wrong_turns(unwrapped: torch.Tensor, echoes: Echoes, truth: Any) -> list[float]:
    """Share of the brain, in each echo, that is more than half a turn from the truth, one constant apart."""
    shares = []
    for k, te in enumerate(echoes.scan.te_s):
        to_rad = replace(echoes.scan, te_s=(te,)).rad_per_ppm
        off = (unwrapped[k] - to_rad * truth.total_ppm)[truth.brain]
        off = off - off.median()
        shares.append(float((off.abs() > np.pi).float().mean()))
    return shares


def run(room: str, name: str, folder: Path, threads: int) -> dict[str, Any]:
    """One method in its own process; what was kept from before if there is."""
    kept = folder / f"{room}-{name}.json"
    if not kept.exists():
        command = [sys.executable, __file__, "--child", room, name, "--work", str(folder)]
        limits = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr[-2000:])
            return {"failed": done.stderr.strip().splitlines()[-1][:200]}
        kept.write_text(done.stdout.strip().splitlines()[-1], encoding="utf-8")
    got: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return got


Rows = list[list[str]]


def chi_rows(found: dict[str, dict[str, Any]]) -> str:
    """The table of maps, best first."""
    rows: Rows = []
    for name, got in sorted(found.items(), key=lambda item: item[1].get("nrmse", 1e9)):
        if "failed" in got:
            rows.append([f"`{name}`", got["failed"], *[""] * (len(SCORES) + 3)])
            continue
        cells = [f"{got[k]:.1f}" if k.startswith(("nrmse", "hfen")) else f"{got[k]:.3f}" for k in SCORES]
        ended = {True: "converged", False: "limit", None: ""}[got["converged"]]
        rows.append(
            [
                f"`{name}`",
                *cells,
                str(got["iterations"] or ""),
                ended,
                f"{got['seconds']:.1f}",
                f"{got['peak_gb']:.2f}",
            ]
        )
    head = ("", *(k.replace("_", " ") for k in SCORES), "iterations", "ended", "seconds", "peak GB")
    return table(head, rows)


def field_rows(found: dict[str, dict[str, Any]]) -> str:
    """The table of local fields, best first."""
    rows: Rows = []
    for name, got in sorted(found.items(), key=lambda item: item[1].get("nrmse", 1e9)):
        if "failed" in got:
            rows.append([f"`{name}`", got["failed"], "", "", "", "", ""])
            continue
        rows.append(
            [
                *(f"`{name}`", f"{got['nrmse']:.1f}", f"{got['nrmse_kept']:.1f}", f"{got['xsim']:.3f}"),
                *(f"{got['kept']:.3f}", f"{got['seconds']:.1f}", f"{got['peak_gb']:.2f}"),
            ]
        )
    return table(("", "nrmse, brain", "nrmse, kept", "xsim", "kept", "seconds", "peak GB"), rows)


def unwrap_rows(found: dict[str, dict[str, Any]]) -> str:
    """The table of unwrapping."""
    rows: Rows = []
    for name, got in found.items():
        if "failed" in got:
            rows.append([f"`{name}`", got["failed"], "", ""])
            continue
        shares = " / ".join(f"{w:.2f}" for w in got["wrong_percent"])
        rows.append([f"`{name}`", shares, f"{got['seconds']:.1f}", f"{got['peak_gb']:.2f}"])
    return table(("", "wrong voxels of each echo [%]", "seconds", "peak GB"), rows)


TABLES: dict[str, Callable[[dict[str, dict[str, Any]]], str]] = {
    "invert": chi_rows,
    "noisy": chi_rows,
    "joint": chi_rows,
    "background": field_rows,
    "unwrap": unwrap_rows,
}


def picture(case: str, folder: Path, found: dict[str, dict[str, dict[str, Any]]]) -> Path | None:
    """All maps side by side, one axial and one coronal cut, window −0.1…0.2 ppm."""
    truth = torch.load(folder / "truth.pt", weights_only=False)
    zero = truth.chi_ppm[truth.brain].mean()
    shown = {"truth": (truth.chi_ppm - zero) * truth.brain}
    for room in ("invert", "joint"):
        for name, got in sorted(found.get(room, {}).items(), key=lambda item: item[1].get("nrmse", 1e9)):
            file = folder / f"{room}-{name}.map.pt"
            if file.exists():
                phase = isinstance(choices(room)[name], FromPhase)
                mark = "" if room == "invert" else "\nfrom phase" if phase else "\nfrom total field"
                shown[f"{name.replace(', ', chr(10))} {got['nrmse']:.0f} %{mark}"] = torch.load(
                    file, weights_only=True
                ).float()
    if len(shown) == 1:
        return None
    nuclei = (truth.group >= 1) & (truth.group <= 2)
    middle = [int(m) for m in torch.nonzero(nuclei).float().mean(0).round()]
    inside = torch.nonzero(truth.brain)
    low, high = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    vx, vy, vz = truth.grid.voxel_mm
    columns = 7
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        2 * lines, columns, figsize=(columns * 1.7, lines * 3.9), facecolor="#101214", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (name, volume) in enumerate(shown.items()):
        line, column = divmod(i, columns)
        cuts = (
            (volume[low[0] : high[0], low[1] : high[1], middle[2]], vy / vx),
            (volume[low[0] : high[0], middle[1], low[2] : high[2]], vz / vx),
        )
        for j, (plane, aspect) in enumerate(cuts):
            axes[2 * line + j, column].imshow(
                plane.T.numpy(), origin="lower", cmap="gray", vmin=-0.1, vmax=0.2, aspect=aspect
            )
        axes[2 * line, column].set_title(name, color="white", fontsize=8)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.96, wspace=0.02, hspace=0.16)
    out = Path(__file__).parents[1] / "docs" / "images" / f"methods-{case.replace(' ', '-')}.png"
    figure.savefig(out, dpi=85, facecolor=figure.get_facecolor())
    plt.close(figure)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="challenge")
    parser.add_argument("--rooms", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--only", nargs="+", default=[], help="these methods alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder that keeps what is finished")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(*asked.child, asked.work)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        words, make = CASES[asked.case]
        if not (folder / "truth.pt").exists():
            keep_memory()
            for key, value in given(quick(DigitalHead(seed=3), seed=3)).items():
                torch.save(value, folder / f"{key}-small.pt")
            for key, value in given(make()).items():
                torch.save(value, folder / f"{key}.pt")
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for room in asked.rooms:
            found[room] = {}
            for name in choices(room):
                if asked.only and name not in asked.only:
                    continue
                got = run(room, name, folder, asked.threads)
                found[room][name] = got
                brief = {k: round(v, 3) if isinstance(v, float) else v for k, v in got.items()}
                print(room, name, brief, flush=True)
        parts = [
            f"{words}. Every method with its defaults, {asked.threads} threads; error over the whole true "
            "brain [%], relative to the mean; peak memory with the interpreter and the data."
        ]
        for room, rows in found.items():
            parts += [f"{WORDS[room]}:", TABLES[room](rows)]
        whole = asked.write and not asked.only  # a picture of some methods must not replace that of all
        image = picture(asked.case, folder, found) if whole else None
        if image is not None:
            parts += [f"![Every map side by side](../docs/images/{image.name})"]
        text = "\n\n".join(parts)
        print(text)
        if asked.write:
            put(f"Methods: {asked.case}", text)


if __name__ == "__main__":
    main()

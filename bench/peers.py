"""Peers on the same local field in the same run → bench/RESULTS.md. Times compare only within one run.

    python bench/peers.py [--case quick|challenge] [--write]

Peer: split-Bregman total variation of qmrpy. The scorer is ours; that of qsm-ci agrees with it (see tests).
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
import torch
from accuracy import CASES
from qmrpy.models.qsm import qsm_split_bregman
from results import put, table

from k2chi.background import VSHARP
from k2chi.data import Field
from k2chi.invert import FANSI, NDI, TKD, ClosedFormL2
from k2chi.measure.quality import quality
from k2chi.ops.fourier import keep_memory

Solver = Callable[[Field], torch.Tensor]


def split_bregman(local: Field) -> torch.Tensor:
    """qmrpy's total variation, λ₁ 1e-4 and λ₂ 1e-2."""
    x, y, z = local.grid.shape
    n = max(x, y)  # 2.0.0 works only where the first two axes are equally long: zeros behind the shorter one
    field, mask = np.zeros((n, n, z)), np.zeros((n, n, z))
    field[:x, :y], mask[:x, :y] = local.ppm.numpy(), local.mask.numpy()
    got = qsm_split_bregman(
        field * mask,
        mask,
        lambda_l1=1e-4,
        lambda_l2=1e-2,
        direction="forward",
        image_resolution_mm=np.asarray(local.grid.voxel_mm),
        pad_size=(0, 0, 0),
    )
    return torch.from_numpy(np.asarray(got)[:x, :y]).float() * local.mask


SOLVERS: dict[str, Solver] = {
    "k2chi TKD": lambda f: TKD()(f).ppm,
    "k2chi closed-form L2": lambda f: ClosedFormL2()(f).ppm,
    "k2chi NDI": lambda f: NDI()(f).ppm,
    "k2chi FANSI, linear": lambda f: FANSI(nonlinear=False)(f).ppm,
    "k2chi FANSI": lambda f: FANSI()(f).ppm,
    "qmrpy split Bregman": split_bregman,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="quick")
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    given = parser.parse_args()
    keep_memory()
    words, make = CASES[given.case]
    truth = make().truth
    fields = {
        "true local field": truth.local(),
        "V-SHARP of the true total field": replace(VSHARP()(truth.total()), support=truth.brain),
    }
    parts = [f"{words}; same local field, same mask, one run."]
    for what, local in fields.items():
        rows, reference = [], 0.0
        for name, solve in SOLVERS.items():
            wall, cpu = perf_counter(), process_time()
            chi = solve(local)
            wall, cpu = perf_counter() - wall, process_time() - cpu
            got = quality(chi, truth.chi_ppm, truth.brain, truth.group)
            rows.append((name, wall, cpu, got))
            print(what, name, f"{wall:.1f} s, {cpu:.1f} CPU-s, {got['nrmse']:.1f} %", flush=True)
            reference = wall if name.startswith("qmrpy") else reference
        parts += [
            f"From the {what}:",
            table(
                ("", "NRMSE %", "detrended %", "XSIM", "XSIM 5³", "seconds", "CPU-seconds", "time / peer's"),
                [
                    (
                        *(n, f"{q['nrmse']:.1f}", f"{q['nrmse_detrend']:.1f}", f"{q['xsim']:.3f}"),
                        *(f"{q['xsim_uniform']:.3f}", f"{w:.1f}", f"{c:.1f}", f"{w / reference:.2f}"),
                    )
                    for n, w, c, q in rows
                ],
            ),
        ]
    text = "\n\n".join(parts)
    print(text)
    if given.write:
        put(f"Peers: {given.case}", text)


if __name__ == "__main__":
    main()

"""Para- and diamagnetic sources told apart on a head with two pools → bench/RESULTS.md.

    python bench/separation.py [--cases challenge clinical …] [--write]

The local field has the scan's noise and weights; R2′ and R2* are those of the pools with noise of 1/s per
3 T, drawn once. Errors are over the whole true brain; XSIM of each pool as it is: no constant is free.
"""

import argparse
from time import perf_counter

import torch
from accuracy import CASES
from methods import given
from results import put, table

from k2chi.measure.quality import nrmse, xsim
from k2chi.ops.fourier import keep_memory
from k2chi.phantom.pools import pools
from k2chi.separate import ChiSeparation, R2StarSeparation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["challenge", "clinical"])
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    asked = parser.parse_args()
    keep_memory()
    for case in asked.cases:
        words, make = CASES[case]
        data = given(make())
        truth, local = data["truth"], data["noisy"]
        two = pools(truth.chi_ppm, truth.group, truth.brain, truth.grid, truth.scan.b0_tesla)
        noise = truth.scan.b0_tesla / 3
        draw = torch.Generator().manual_seed(1)
        shaken = noise * torch.randn(truth.brain.shape, generator=draw) * truth.brain
        rates = {
            "R2′": (two.r2prime_per_s + shaken, 0.0),
            "R2* alone": (two.r2star_per_s + shaken, None),
        }
        rows = []
        for method in (ChiSeparation(), R2StarSeparation()):
            for name, (rate, r2) in rates.items():
                start = perf_counter()
                found = method(local, rate, r2)
                seconds = perf_counter() - start
                row = [f"`{type(method).__name__}`", name]
                for a, t in ((found.para_ppm, two.para_ppm), (found.dia_ppm, two.dia_ppm)):
                    row += [f"{xsim(a, t * truth.brain, truth.brain):.3f}", f"{nrmse(a, t, truth.brain):.1f}"]
                rows.append([*row, str(len(found.updates)), f"{seconds:.0f}"])
                print(case, *rows[-1], flush=True)
        head = ("", "from", "XSIM χ₊", "NRMSE χ₊", "XSIM χ₋", "NRMSE χ₋", "iterations", "seconds")
        text = f"{words}; noise of R2′ and R2* {noise:.2g}/s.\n\n{table(head, rows)}"
        if asked.write:
            put(f"Para- and diamagnetic sources: {case}", text)


if __name__ == "__main__":
    main()

"""What the defaults lose against their best setting, which nobody knows without the truth → bench/RESULTS.md.

    python bench/tune.py [--case small] [--only FANSI …] [--work DIR] [--write]

For each inversion its main setting is tried around the default, on the true local field without noise (the
leaderboard's track) and with the scan's noise and weights; NRMSE over the whole true brain. Everything else
stays as it is by default. Settings were chosen on other heads than those shown here.
"""

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from accuracy import CASES, scores
from methods import given
from results import put, table

from k2chi.invert import Inversion
from k2chi.ops.fourier import keep_memory

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
MAIN = ("alpha", "penalty_mm2", "threshold", "iterations")
"""The first of these that a method has is its main setting."""
LIMITS = {"threshold": 0.65}


def main_setting(method: Any) -> str | None:
    """What is tried."""
    own = {f.name for f in fields(method)}
    return next((name for name in MAIN if name in own), None)


def tried(method: Any, name: str) -> list[Any]:
    """The method with values around its default."""
    value, out = getattr(method, name), []
    for factor in FACTORS:
        new = max(1, round(value * factor)) if isinstance(value, int) else value * factor
        out.append(replace(method, **{name: min(new, LIMITS.get(name, new))}))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="small")
    parser.add_argument("--only", nargs="+", default=[], help="these methods alone")
    parser.add_argument("--work", type=Path, help="folder that keeps what is finished")
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    asked = parser.parse_args()
    keep_memory()
    words, make = CASES[asked.case]
    data = given(make())
    truth, rows = data["truth"], []
    for kind in get_args(Inversion):
        method = kind()
        setting = main_setting(method)
        if setting is None or (asked.only and kind.__name__ not in asked.only):
            continue
        row = [f"`{kind.__name__}`", setting, f"{getattr(method, setting):g}"]
        for field in ("invert", "noisy"):
            kept = asked.work / f"{asked.case}-{kind.__name__}-{field}.json" if asked.work else None
            if kept is not None and kept.exists():
                errors = json.loads(kept.read_text(encoding="utf-8"))
            else:
                errors = [round(scores(m(data[field]), truth)["nrmse"], 1) for m in tried(method, setting)]
            if kept is not None:
                kept.write_text(json.dumps(errors), encoding="utf-8")
            at = min(range(len(errors)), key=errors.__getitem__)
            best = getattr(tried(method, setting)[at], setting)
            default = errors[FACTORS.index(1.0)]
            row += [f"{default:.1f}", f"{errors[at]:.1f}", f"{best:g}", f"{default - errors[at]:.1f}"]
            print(kind.__name__, setting, field, errors, flush=True)
        rows.append(row)
    columns = ("default", "best", "at", "lost")
    head = ("", "setting", "default value", *columns, *(f"{c}, noise" for c in columns))
    text = (
        f"{words}. NRMSE [%] of each inversion from the true local field, as it comes and with its main "
        f"setting at the best of {', '.join(f'{f:g}' for f in FACTORS)} times the default; then the same "
        f"with the scan's noise and weights.\n\n{table(head, rows)}"
    )
    print(text)
    if asked.write:
        put(f"Defaults against their best: {asked.case}", text)
    torch.manual_seed(0)


if __name__ == "__main__":
    main()

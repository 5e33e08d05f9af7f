"""Cubes of training data a second, and a whole brain through a network → bench/RESULTS.md.

python bench/learning.py [--device cpu] [--cubes 48] [--write]
"""

import argparse
from dataclasses import replace
from time import perf_counter

import torch
from results import put, table

from k2chi.data import Field, Grid, Scan
from k2chi.invert.learned import Learned
from k2chi.learn.closedform import ClosedForm
from k2chi.learn.simulate import Anything
from k2chi.nets.weights import shipped, trained
from k2chi.ops.fourier import keep_memory


def cubes_a_second(data: Anything | ClosedForm, device: str, batches: int = 8) -> float:
    """After one of each kind of anatomy, so that drawing the digital heads is not counted."""
    for i in range(12):
        data(i, device)
    start = perf_counter()
    for i in range(batches):
        float(data(100 + i, device).field.sum())
    return data.batch * batches / (perf_counter() - start)


def whole_brain(weights: str, device: str, openvino: bool) -> float:
    """Seconds for 164×205×205 voxels of 1 mm, an ellipsoid for a brain; loading is not counted."""
    grid = Grid.of((164, 205, 205))
    axes = [torch.linspace(-1, 1, n) * n / m for n, m in zip(grid.shape, (145, 180, 150), strict=True)]
    mask = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2 < 1
    ppm = 0.02 * torch.randn(grid.shape, generator=torch.Generator().manual_seed(0)) * mask
    local = Field(ppm.to(device), mask.to(device), grid, Scan((0.02,), 3.0), local=True)
    method = Learned(weights, openvino=openvino)
    start = perf_counter()
    method(local)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cubes", type=int, default=48, help="edge of a cube [voxels]")
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    given = parser.parse_args()
    keep_memory()
    ours = Anything(size=given.cubes, persons=1)
    rows: list[tuple[object, ...]] = []
    for name, data in (
        ("ours, local", ours),
        ("ours, total", replace(ours, total=True)),
        ("spheres and cylinders, text", ClosedForm(given.cubes)),
        ("spheres and cylinders, code", ClosedForm(given.cubes, released=True)),
    ):
        rows.append((f"{name}, {given.cubes}³ [cubes/s]", f"{cubes_a_second(data, given.device):.1f}"))
        print(*rows[-1], flush=True)
    for name in (n for n in shipped() if trained(n).card.takes == "local"):
        for openvino in (False, True):
            if openvino and given.device != "cpu":
                continue
            how = " by OpenVINO" if openvino else ""
            seconds = whole_brain(name, given.device, openvino)
            rows.append((f"{name}{how}, 164×205×205 [s]", f"{seconds:.1f}"))
            print(*rows[-1], flush=True)
    text = f"On {given.device}, {torch.get_num_threads()} threads.\n\n" + table(("", "measured"), rows)
    if given.write:
        put(f"Learning: {given.device}", text)


if __name__ == "__main__":
    main()

"""Networks beside classical methods: geometry, resampling, intervals, half precision → bench/RESULTS.md.

    python bench/networks.py [--parts geometry resampling …] [--voxel 2] [--weights FILE …] [--write]

Every error is NRMSE over the whole true brain [%], from the true local field at 3 T, with noise where said.
The scale experiment and the challenge's metrics are commands of their own, `k2chi reproduce si-qsm`; their
tables go into RESULTS.md by `--table TITLE FILE`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from accuracy import tilted
from results import put, table

from k2chi.background import PDF, VSHARP
from k2chi.data import Chi, Field, Grid
from k2chi.invert import FANSI, NDI, SubvoxelTV
from k2chi.invert.learned import Learned
from k2chi.joint import LearnedTotal, TotalFieldTV
from k2chi.measure.quality import nrmse
from k2chi.nets import SIQSMConfig, UNetConfig
from k2chi.nets.weights import shipped, trained
from k2chi.ops.dipole import dipole
from k2chi.ops.fourier import keep_memory
from k2chi.ops.pieces import pieces_of
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.scanner import GRE, Truth, box

Z90 = 1.6448536
NAMES = [n for n in shipped() if trained(n).card.takes == "local"]


def truth(grid: Grid, person: int) -> Truth:
    """A head at 3 T of a person that no network learned from and on whom no setting was tuned."""
    return GRE((0.020,), 3.0, 0.040, 15.0, 100.0, seed=person)(DigitalHead(seed=person), grid).truth


def noisy(of: Truth, snr: float | None, clean: Field | None = None) -> Field:
    """Its local field, or `clean`, with even noise of phase, whose size the field tells."""
    clean = clean or of.local()
    if snr is None:
        return clean
    size = 1 / (snr * of.scan.rad_per_ppm)
    noise = size * torch.randn(clean.ppm.shape, generator=torch.Generator().manual_seed(1))
    told = torch.full_like(clean.ppm, size)
    return replace(clean, ppm=clean.ppm + noise * clean.mask, noise_ppm=told)


def uneven(voxel: float) -> dict[str, Grid]:
    """Grids of the same voxel volume that networks for cubic voxels and axial B0 have not seen."""
    edge = voxel / (0.6 * 0.6 * 2) ** (1 / 3)
    return {
        "0.6×0.6×2 in shape, axial": box((0.6 * edge, 0.6 * edge, 2 * edge)),
        "cubic, 30° oblique": tilted(box((voxel,) * 3), 30.0),
    }


def in_pieces(local: Field) -> Chi:
    """The shipped network on the pieces that `SubvoxelTV` would take."""
    return Learned(parts=pieces_of(local.grid.voxel_mm, local.grid.b0_dir))(local)


def geometry(voxel: float, person: int = 21) -> str:
    """The same head at one voxel volume: cubic, 0.6×0.6×2 in shape, tilted by 30°."""
    shapes = {"cubic, axial": box((voxel,) * 3), **uneven(voxel)}
    methods: dict[str, Callable[[Field], object]] = {n: Learned(n) for n in NAMES}
    methods |= {"adaptive-tv, pieces": in_pieces, "SubvoxelTV": SubvoxelTV(), "FANSI": FANSI(), "NDI": NDI()}
    rows = []
    for words, grid in shapes.items():
        of = truth(grid, person)
        # the field that the voxels' own means make: what is then wrong is not the head's sampling
        sampled = replace(of, local_ppm=dipole(grid, kind="green", pad=2)(of.chi_ppm * of.brain))
        scenes = {"no noise": noisy(of, None), "SNR 100": noisy(of, 100.0)}
        for noise, local in (scenes | {"field of the voxels' χ, no noise": noisy(sampled, None)}).items():
            cells = []
            for method in methods.values():
                chi = method(local)
                cells.append(f"{nrmse(chi.ppm, of.chi_ppm, of.brain):.1f}")  # type: ignore[attr-defined]
            rows.append((f"{words}, {noise}", *cells))
            print(*rows[-1], flush=True)
    return f"Voxels of {voxel**3:.3g} mm³, person {person}, NRMSE [%]:\n\n" + table(("", *methods), rows)


def resampling(voxel: float, person: int = 21) -> str:
    """Each network as if its input were what it knows, and with the field resampled to cubes along B0."""
    scenes = {"cubic, axial": box((voxel,) * 3), **uneven(voxel)}
    cells: dict[str, list[str]] = {}
    for grid in scenes.values():
        of = truth(grid, person)
        local = noisy(of, 100.0)
        for name in NAMES:
            net = cast(Any, type(trained(name).network))
            own = net.axial
            for words, axial in (("as it is", False), ("resampled", True)):
                net.axial = axial
                row = f"{trained(name).card.name}, {words}{', its own way' if axial == own else ''}"
                chi = Learned(name)(local)
                cells.setdefault(row, []).append(f"{nrmse(chi.ppm, of.chi_ppm, of.brain):.1f}")
                print(row, cells[row], flush=True)
            net.axial = own
    words = f"Voxels of {voxel**3:.3g} mm³, person {person}, SNR 100, NRMSE [%]:\n\n"
    return words + table(("", *scenes), [(row, *found) for row, found in cells.items()])


def intervals(voxel: float, persons: tuple[int, ...] = (21, 22)) -> str:
    """Share of errors within the stated 90 % interval, on whole heads."""
    rows = []
    for name in NAMES:
        if isinstance(trained(name).card.network, SIQSMConfig | UNetConfig):
            continue  # states no error
        for person in persons:
            of = truth(box((voxel,) * 3), person)
            for snr in (None, 300.0, 100.0, 30.0, 15.0):
                local = noisy(of, snr)
                chi = Learned(name)(local)
                assert chi.sd_ppm is not None
                e = (chi.ppm - of.chi_ppm)[of.brain]
                hit = (e - e.mean()).abs() <= Z90 * chi.sd_ppm[of.brain]
                rows.append(
                    (
                        f"{name}, person {person}, {'no noise' if snr is None else f'SNR {snr:g}'}",
                        f"{100 * hit.double().mean():.1f}",
                        f"{nrmse(chi.ppm, of.chi_ppm, of.brain):.1f}",
                        f"{1e3 * chi.sd_ppm[of.brain].median():.1f}",
                    )
                )
                print(*rows[-1], flush=True)
    head = ("", "within the 90 % interval [%]", "NRMSE [%]", "median stated sd [ppb]")
    return f"Digital heads of {voxel:g} mm, 3 T, 20 ms:\n\n" + table(head, rows)


def joint(voxel: float, persons: tuple[int, ...] = (21, 22)) -> str:
    """From the true total field, with and without noise: the network beside classical methods."""
    methods: dict[str, Callable[[Field], Chi]] = {
        "LearnedTotal": LearnedTotal(),
        "TotalFieldTV": TotalFieldTV(),
        "VSHARP + FANSI": lambda f: FANSI()(VSHARP()(f)),
        "PDF + FANSI": lambda f: FANSI()(PDF()(f)),
    }
    rows = []
    for person in persons:
        of = truth(box((voxel,) * 3), person)
        for snr in (None, 100.0, 30.0):
            total = noisy(of, snr, of.total())
            cells = [f"{nrmse(m(total).ppm, of.chi_ppm, of.brain):.1f}" for m in methods.values()]
            rows.append((f"person {person}, {'no noise' if snr is None else f'SNR {snr:g}'}", *cells))
            print(*rows[-1], flush=True)
    words = f"Total fields of digital heads of {voxel:g} mm, 3 T, 20 ms, their exact masks, NRMSE [%]:\n\n"
    return words + table(("", *methods), rows)


def precision(voxel: float, person: int = 21) -> str:
    """Change of χ by half precision and by OpenVINO, root mean square [ppb]."""
    of = truth(box((voxel,) * 3), person)
    local = noisy(of, 100.0)
    rows = []
    for name in NAMES:
        kinds = {"single precision": Learned(name), "half (bfloat16)": Learned(name, half=True)}
        if find_spec("openvino"):
            kinds["OpenVINO"] = Learned(name, openvino=True)
        whole = None
        for words, method in kinds.items():
            start = perf_counter()
            chi = method(local).ppm[of.brain]
            seconds = perf_counter() - start
            whole = chi if whole is None else whole
            change = 1e3 * float((chi - whole).square().mean().sqrt())
            rows.append((f"{name}, {words}", f"{change:.2g}", f"{seconds:.1f}"))
            print(*rows[-1], flush=True)
    return f"χ of a digital head of {voxel:g} mm:\n\n" + table(
        ("", "χ changes by [ppb rms]", "seconds"), rows
    )


PARTS = {
    "geometry": geometry,
    "resampling": resampling,
    "joint": joint,
    "intervals": intervals,
    "precision": precision,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--voxel", type=float, default=2.0, help="edge of a cube of the same volume [mm]")
    parser.add_argument(
        "--table", nargs=2, metavar=("TITLE", "FILE"), help="put a command's table there only"
    )
    parser.add_argument("--weights", nargs="+", default=[], help="further networks, as files")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/RESULTS.md")
    given = parser.parse_args()
    if given.table:
        title, file = given.table
        put(title, Path(file).read_text(encoding="utf-8").split("\n", 1)[1])
        return
    keep_memory()
    NAMES.extend(given.weights)
    for part in given.parts:
        text = PARTS[part](given.voxel)
        print(text)
        if given.write:
            put(f"Networks: {part}", text)


if __name__ == "__main__":
    main()

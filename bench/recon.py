"""Time and peak memory of the reconstruction, each step in a process of its own → bench/RESULTS.md.

    python bench/recon.py [--shape 168 208 208] [--coils 32] [--echoes 8] [--folder KEEP] [--write]

One echo of 8 virtual coils, undersampled 2×2 with a calibration region, by each method; and a whole scan of
many coils and echoes, fully sampled, from an ISMRMRD file with twice oversampled readouts, as scanners
store them, to NIfTI as `k2chi recon` writes it, with hash, page and records (30 GB of disk for the whole
size; every echo holds the same readouts). Images are those of an ellipsoid with texture.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import put, table

from k2chi.app.recon import Wanted, run
from k2chi.app.run import Order
from k2chi.data import Encoding, Grid, KSpace, Lines, Raw, Scan, Size
from k2chi.io.ismrmrdwrite import write
from k2chi.ops.fourier import fft, keep_memory
from k2chi.pipeline import Pipeline
from k2chi.recon import CGSENSE, GRAPPA, TVSENSE, AdaptiveMaps, Adjoint, ESPIRiT, SparseSENSE

VIRTUAL = 8
WHOLE = "whole scan"
STEPS: dict[str, Any] = {
    "adaptive maps": AdaptiveMaps(),
    "ESPIRiT": ESPIRiT(),
    "adjoint": Adjoint(),
    "CG-SENSE, 20 iterations": CGSENSE(iterations=20, tolerance=0.0),
    "GRAPPA": GRAPPA(),
    "sparse SENSE, 40 iterations": SparseSENSE(iterations=40, tolerance=0.0),
    "TV SENSE, 60 iterations": TVSENSE(iterations=60, tolerance=0.0),
}


def axes(shape: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Coordinates from −1 to 1, for broadcasting."""
    x, y, z = (torch.linspace(-1, 1, n) for n in shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def picture(shape: Size) -> torch.Tensor:
    """An ellipsoid with texture and a smooth phase."""
    x, y, z = axes(shape)
    inside = (x / 0.8) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2 < 1
    texture = 1 + 0.3 * torch.sin(25 * x) * torch.cos(31 * y) * torch.cos(22 * z)
    return torch.polar(inside * texture, 2 * x * y - z + 0 * texture)


def sensitivity(coil: int, coils: int, shape: Size) -> torch.Tensor:
    """A hill outside the head whose phase turns as the coil stands."""
    x, y, z = axes(shape)
    turn = torch.tensor(2 * torch.pi * coil / coils * 3)
    a, b, c = 1.3 * torch.cos(turn), 1.3 * torch.sin(turn), 1.2 * (2 * coil / max(coils - 1, 1) - 1)
    far = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2
    return torch.polar(1 / (0.4 + far), turn + 1.5 * (a * y - b * x) + 0 * far)


def simulate(folder: Path, given: argparse.Namespace) -> None:
    """K-space of 8 coils, undersampled; and the raw file of the whole scan."""
    shape: Size = tuple(given.shape)
    nx, ny, nz = shape
    image = picture(shape)
    fy, fz = (torch.fft.fftfreq(n)[:, None] * n for n in (ny, nz))
    fy, fz = fy.round().long(), fz.round().long().T
    sampled = ((fy % 2 == 0) & (fz % 2 == 0)) | ((fy.abs() < 12) & (fz.abs() < 12))
    data = torch.stack([fft(image * sensitivity(c, VIRTUAL, shape)) for c in range(VIRTUAL)]) * sampled
    data += 0.05 * torch.randn_like(data) * sampled
    torch.save((data, sampled), folder / "kspace.pt")
    file = np.lib.format.open_memmap(folder / "raw.npy", "w+", np.complex64, (given.coils, nz, ny, 2 * nx))
    for c in range(given.coils):
        wide = torch.zeros(2 * nx, ny, nz, dtype=torch.complex64)
        wide[nx // 2 : nx // 2 + nx] = image * sensitivity(c, given.coils, shape)
        k = torch.fft.fftshift(fft(torch.fft.ifftshift(wide)))
        k += 0.05 * torch.randn_like(k)
        file[c] = k.permute(2, 1, 0).numpy()
    file.flush()


def kspace(folder: Path, shape: Size) -> KSpace:
    """One echo of 8 coils."""
    data, sampled = torch.load(folder / "kspace.pt")
    return KSpace(data[None], sampled[None, None], Grid.of(shape), Scan((0.01,), 3.0))


def raw(folder: Path, given: argparse.Namespace) -> Raw:
    """The whole scan, read a partition at a time."""
    nx, ny, nz = given.shape
    head = 128  # of the npy file

    def lines(echo: int) -> Iterator[Lines]:
        every, none = torch.arange(ny), torch.zeros(ny, dtype=torch.int64)
        block = np.empty((given.coils, ny, 2 * nx), np.complex64)
        with open(folder / "raw.npy", "rb") as file:
            for kz in range(nz):
                for c in range(given.coils):
                    file.seek(head + (c * nz + kz) * block[c].nbytes)
                    file.readinto(memoryview(block[c]).cast("B"))
                yield Lines(torch.from_numpy(block.swapaxes(0, 1)), every, none + kz, none, every, none > 0)

    te = tuple(0.003 * (e + 1) for e in range(given.echoes))
    encoding = Encoding((nx, ny, nz), (nx // 2, ny // 2, nz // 2), 2 * nx, nx, 2.0)
    noise = 0.05 * torch.randn(given.coils, 20000, dtype=torch.complex64)
    return Raw(Grid.of((nx, ny, nz)), Scan(te, 3.0), encoding, given.coils, lines, noise=noise)


def child(step: str, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run one step on what is stored in `folder`."""
    keep_memory()
    if step == "simulate":
        simulate(folder, given)
        return {}
    if step == "write":
        write(raw(folder, given), folder / "scan.h5")
        return {"gigabytes": (folder / "scan.h5").stat().st_size / 1e9}
    if step == WHOLE:
        start, cpu = time.perf_counter(), time.process_time()
        run(Wanted(folder / "scan.h5"), folder / "out", Order(Pipeline(), overwrite=True))
        result = None
    else:
        data, method = kspace(folder, tuple(given.shape)), STEPS[step]
        maps = [] if isinstance(method, AdaptiveMaps | ESPIRiT) else [torch.load(folder / "maps.pt")]
        start, cpu = time.perf_counter(), time.process_time()
        result = method(data, *maps)
    told = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    if step == "ESPIRiT":
        torch.save(result, folder / "maps.pt")
    return told | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def spawn(step: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """A step in a process of its own; what was measured before in the same folder is not run again."""
    kept = folder / f"{step.split(',')[0].replace(' ', '-')}.json"
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return before
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    for name in ("threads", "coils", "echoes"):
        command += [f"--{name}", str(getattr(given, name))]
    done = subprocess.run(
        [*command, "--shape", *map(str, given.shape)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{step} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(168, 208, 208))
    parser.add_argument("--coils", type=int, default=32)
    parser.add_argument("--echoes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into bench/RESULTS.md")
    parser.add_argument("--skip", nargs="*", default=(), help="steps to leave out")
    parser.add_argument("--step")
    parser.add_argument("--folder", type=Path, help="keep data and times here, and go on from there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.step:
        print(json.dumps(child(given.step, given.folder, given)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        spawn("simulate", folder, given)
        for step in [s for s in (*STEPS, WHOLE) if s not in given.skip]:
            label = step
            if step == WHOLE:
                size = spawn("write", folder, given)["gigabytes"]
                label = f"{step}: {given.coils} coils, {given.echoes} echoes, {size:.1f} GB"
            told = spawn(step, folder, given)
            rows.append((label, *(f"{told[k]:.1f}" for k in ("seconds", "cpu")), f"{told['peak_gb']:.2f}"))
            print(*rows[-1], flush=True)
    text = table(("step", "seconds", "CPU seconds", "peak GB"), rows)
    size = "×".join(map(str, given.shape))
    if given.write:
        put(
            f"Reconstruction: {size}, {given.threads} threads",
            "Each step in its own process (`bench/recon.py`). Steps but the last: one echo of 8 coils, 2×2 "
            "undersampled. The last: fully sampled, from an ISMRMRD file with twofold oversampling to NIfTI, "
            "with the hash of the file, the page and the records of `k2chi recon`.\n\n" + text,
        )


if __name__ == "__main__":
    main()

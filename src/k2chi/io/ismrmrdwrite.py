"""`Raw` to an ISMRMRD file (.h5), block by block."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from ismrmrd.hdf5 import acquisition_dtype
from torch import Tensor

from k2chi.data import Lines, Raw
from k2chi.io.counters import Kind
from k2chi.io.ismrmrdheader import FLAGS, LPS, REVERSE, TICK_S, header_of
from k2chi.io.nifti import atomic

CHUNK = 128
"""Readouts whose heads lie together in the file."""
LONGEST = 65535
"""Samples that one readout of the format can hold."""


def write(raw: Raw, path: Path) -> Path:
    """Write all readouts of a scan, echo after echo. Either the whole file appears or none.

    Samples and counters come back as they were; times and positions of samples and voxels to seven digits.
    """
    path = Path(path)
    with atomic(path) as part, h5py.File(part, "w") as file:
        group = file.create_group("dataset")
        xml = group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))
        table = _Table(group, raw)
        averages = 1
        if raw.noise is not None:
            for piece in torch.split(raw.noise, LONGEST, dim=1):
                table.add(_noise(piece), 0, FLAGS[Kind.noise][0])
        if raw.reference is not None:
            for block in raw.reference():
                table.add(block, 0, FLAGS[Kind.reference][0])
        for echo in range(len(raw.scan.te_s)):
            aside = raw.navigators(echo) if raw.navigators is not None else None
            if aside is not None:
                table.add(aside, echo, FLAGS[Kind.navigator][1])
            for block in raw.lines(echo):
                table.add(block, echo)
                averages = max(averages, int(block.average.max()) + 1)
        xml[0] = header_of(raw, averages)
    return path


def _noise(samples: Tensor) -> Lines:
    none = torch.zeros(1, dtype=torch.int64)
    return Lines(samples[None], none, none, none, none, none > 0)


class _Table:
    """The table of readouts, which grows with each block."""

    def __init__(self, group: Any, raw: Raw) -> None:
        self.data = group.create_dataset(
            "data", (0,), maxshape=(None,), chunks=(CHUNK,), dtype=acquisition_dtype
        )
        self.raw = raw
        a = np.asarray(raw.grid.affine)
        shape, slices = raw.grid.shape, raw.encoding.slices
        self.axes = LPS @ (a[:3, :3] / np.asarray(raw.grid.voxel_mm))
        self.middle = a @ (shape[0] // 2, shape[1] // 2, 0 if slices else shape[2] // 2, 1)
        wide = round(shape[0] * raw.encoding.oversampling)
        self.traj = np.asarray(raw.encoding.position, dtype=np.float64) / wide
        self.count = 0

    def add(self, lines: Lines, echo: int, flag: int = 0) -> None:
        """One block of readouts, all with `flag`."""
        n, coils, samples = lines.data.shape
        if samples > LONGEST:
            raise ValueError(f"readouts of {samples} samples: ISMRMRD holds {LONGEST} at most")
        rows = np.zeros(n, dtype=acquisition_dtype)
        self._heads(rows["head"], lines, echo, flag)
        numbers = lines.data.resolve_conj().to(torch.complex64).cpu().contiguous().numpy()
        values = numbers.view(np.float32).reshape(n, 2 * coils * samples)
        moved = len(self.traj) == samples and flag != FLAGS[Kind.noise][0]
        turned = lines.reverse.cpu().numpy()
        for i in range(n):
            rows["data"][i] = values[i]
            here = self.traj if moved else self.traj[:0]
            rows["traj"][i] = (here[::-1] if turned[i] else here).astype(np.float32)
        rows["head"]["trajectory_dimensions"] = int(moved)
        self.data.resize(self.count + n, axis=0)
        self.data[self.count :] = rows
        self.count += n

    def _heads(self, head: np.ndarray, lines: Lines, echo: int, flag: int) -> None:
        n, coils, samples = lines.data.shape
        ky, kz, average, shot, reverse = (
            t.cpu().numpy() for t in (lines.ky, lines.kz, lines.average, lines.shot, lines.reverse)
        )
        time = np.zeros(n) if lines.time_s is None else lines.time_s.cpu().numpy()
        slices = self.raw.encoding.slices
        for name, values, most in (("ky", ky, 2**16), ("kz", kz, 2**16), ("average", average, 2**16)):
            if n and (values.min() < 0 or values.max() >= most):
                raise ValueError(
                    f"{name} from {values.min()} to {values.max()}: ISMRMRD counts to {most - 1}"
                )
        bits = (1 << (flag - 1)) if flag else 0
        head["flags"] = np.where(reverse, bits | 1 << (REVERSE - 1), bits)
        head["version"], head["scan_counter"] = 1, self.count + np.arange(n)
        head["acquisition_time_stamp"] = np.round(time / TICK_S)
        head["number_of_samples"], head["center_sample"] = samples, self.raw.encoding.centre_sample
        head["available_channels"] = head["active_channels"] = coils
        idx = head["idx"]
        idx["kspace_encode_step_1"], idx["contrast"], idx["average"] = ky, echo, average
        idx["slice" if slices else "kspace_encode_step_2"] = kz
        head["user_int"][:, 0], head["user_float"][:, 0] = shot, time
        a = np.asarray(self.raw.grid.affine)
        along = np.outer(kz, a[:3, 2]) if slices else np.zeros((n, 3))
        head["position"] = (self.middle[:3] + along) @ LPS
        for name, axis in zip(("read_dir", "phase_dir", "slice_dir"), self.axes.T, strict=True):
            head[name] = axis

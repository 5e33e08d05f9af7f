"""The records of a Siemens raw-data file: where each readout lies, and what its header counts."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from twixtools import hdr_def, mdh_def, twixprot

CHANNEL = {True: 32, False: 128}
"""Bytes before the samples of each channel, from VD on and before."""
FIRST = {True: 192, False: 0}
"""Bytes before the first channel."""
LARGEST = 2**26
"""Bytes that no header exceeds."""
Heads = np.ndarray


def flag(heads: Heads, *names: str) -> np.ndarray:
    """Readouts that carry any of these flags."""
    bits = np.uint64(sum(1 << mdh_def.mask_dict[n] for n in names))
    found: np.ndarray = (heads["EvalInfoMask"] & bits) != 0
    return found


@dataclass(frozen=True, eq=False)
class Measurement:
    """One measurement of a file: several may follow each other, adjustments first."""

    path: Path
    new: bool
    """True from software VD on."""
    header: dict[str, Any] = field(repr=False)
    """As twixtools parses it."""
    heads: Heads = field(repr=False)
    """Headers of all readouts, in the order in which they were taken."""
    at: Int64[np.ndarray, "line"]
    """Where each readout begins in the file."""

    def fetch(self, index: Int64[np.ndarray, "some"]) -> np.ndarray:
        """Samples of readouts of one size, (line, coil, sample)."""
        n, coils = int(self.heads["SamplesInScan"][index[0]]), int(self.heads["UsedChannels"][index[0]])
        kind = np.dtype([("skip", "V", CHANNEL[self.new]), ("data", "<c8", (n,))])
        out = np.empty((len(index), coils, n), np.complex64)
        file = np.memmap(self.path, np.uint8, "r")
        for row, begin in zip(out, self.at[index] + FIRST[self.new], strict=True):
            row[:] = file[begin : begin + coils * kind.itemsize].view(kind)["data"]
        return out


def is_twix(path: Path) -> bool:
    """True for a file that begins as Siemens raw data do."""
    try:
        return bool(_places(path)[0])
    except ValueError:
        return False


def measurements(path: Path) -> list[Measurement]:
    """All measurements of a file. Raises ValueError where it is none of Siemens, or cut short."""
    places, new = _places(path)
    size = path.stat().st_size
    out = []
    for begin, end in places:
        if end > size:
            raise ValueError(
                f"{path}: the file is cut short: {size} bytes, of the {end} that its header says; "
                "copy or export it again"
            )
        with open(path, "rb") as file:
            file.seek(begin)
            header = twixprot.parse_twix_hdr(file)
        heads, at = _walk(path, begin, end, new)
        out.append(Measurement(path, new, header, heads, at))
    return out


def _places(path: Path) -> tuple[list[tuple[int, int]], bool]:
    """Begin and end of each measurement, and whether the file is of VD or later."""
    size = path.stat().st_size
    nothing = f"{path}: no raw data of Siemens: give the .dat file of a measurement, or open it by `open_raw`"
    with open(path, "rb") as file:
        start = file.read(hdr_def.MultiRaidFileHeader.itemsize)
        if len(start) < 8:
            raise ValueError(nothing)
        first, count = struct.unpack("<II", start[:8])
        new = first < 10000 and 1 <= count <= 64
        places = [(0, size)]
        if new:
            if len(start) < hdr_def.MultiRaidFileHeader.itemsize:
                raise ValueError(nothing)
            entries = np.frombuffer(start, hdr_def.MultiRaidFileHeader, 1)[0]["entry"][:count]
            places = [(int(e["off_"]), int(e["off_"] + (e["len_"] or size - e["off_"]))) for e in entries]
        for begin, _ in places:
            file.seek(begin)
            text = file.read(4096)
            length = struct.unpack("<I", text[:4])[0] if len(text) == 4096 else 0
            if not 4096 < length < LARGEST or b"XProtocol" not in text:
                raise ValueError(nothing)
    return places, new


def _walk(path: Path, begin: int, end: int, new: bool) -> tuple[Heads, Int64[np.ndarray, "line"]]:
    """Headers and places of all readouts of one measurement."""
    kind = np.dtype(mdh_def.Scan_header if new else mdh_def.VB17_header)
    offset = {n: kind.fields[n][1] for n in ("EvalInfoMask", "SamplesInScan", "UsedChannels")}
    over, stop = 1 << mdh_def.mask_dict["SYNCDATA"], 1 << mdh_def.mask_dict["ACQEND"]
    heads = bytearray()
    at: list[int] = []
    file = np.memmap(path, np.uint8, "r")
    here = begin + struct.unpack("<I", bytes(file[begin : begin + 4]))[0]
    while True:
        head = bytes(file[here : here + kind.itemsize])
        if here + kind.itemsize > end:
            raise ValueError(
                f"{path}: the file is cut short: no end of the measurement after {len(at)} readouts; "
                "copy or export it again (an aborted scan cannot be used)"
            )
        mask = struct.unpack_from("<Q", head, offset["EvalInfoMask"])[0]
        if mask & stop:
            break
        samples = struct.unpack_from("<H", head, offset["SamplesInScan"])[0]
        coils = struct.unpack_from("<H", head, offset["UsedChannels"])[0]
        step = FIRST[new] + coils * (CHANNEL[new] + 8 * samples)
        if mask & over:
            step = struct.unpack_from("<I", head)[0] % 2**25
        else:
            heads += head
            at.append(here)
        if step <= 0:
            raise ValueError(f"{path}: damaged after {len(at)} readouts; copy or export it again")
        here += step
    return np.frombuffer(bytes(heads), kind), np.asarray(at, dtype=np.int64)

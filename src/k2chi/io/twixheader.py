"""What the protocol of a Siemens measurement says: echo times, field strength, matrix, ramps."""

from dataclasses import dataclass, field
from functools import cached_property
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from k2chi import units

CARTESIAN = 1
"""ucTrajectory of a scan that is sampled on a grid."""
THREE_D = 4
"""ucDimension of a scan with a second phase encoding."""


@dataclass(frozen=True)
class Protocol:
    """The header of one measurement, read leniently: names differ between software versions."""

    path: Path
    header: dict[str, Any] = field(repr=False)

    @cached_property
    def yaps(self) -> dict[str, Any]:
        found = self.header.get("MeasYaps") or self.header.get("Phoenix")
        if not found:
            raise ValueError(f"{self.path}: its header holds no protocol; export the scan again")
        return dict(found)

    def find(self, *keys: str | int) -> Any:
        """An entry of the protocol, or None."""
        here: Any = self.yaps
        for key in keys:
            try:
                here = here[key]
            except (KeyError, IndexError, TypeError):
                return None
        return here

    def number(self, *keys: str | int, default: float | None = None) -> float:
        """A number of the protocol; 0x… too. Raises ValueError where it is missing without default."""
        value = self.find(*keys)
        if isinstance(value, str) and value.startswith("0x"):
            value = int(value, 16)
        if not isinstance(value, int | float):
            if default is None:
                name = ".".join(map(str, keys))
                raise ValueError(f"{self.path}: its protocol has no {name}; export the scan again")
            return default
        return float(value)

    def made(self, name: str, default: Any = None) -> Any:
        """What the scanner derived from the protocol, by any section."""
        for section in ("Meas", "Config", "Dicom"):
            value = self.header.get(section, {}).get(name)
            if value not in (None, ""):
                return value
        return default

    @property
    def three_d(self) -> bool:
        return self.number("sKSpace", "ucDimension", default=2) == THREE_D

    @property
    def contrasts(self) -> int:
        return int(self.number("lContrasts", default=1))

    def te_s(self) -> tuple[float, ...]:
        """Echo times [s]."""
        return tuple(round(1e-6 * t, 9) for t in self.find("alTE") or ())[: self.contrasts]

    def b0_tesla(self) -> float | None:
        """From the frequency of the scanner; from its nominal field for other nuclei than protons."""
        transmitter = self.find("sTXSPEC", "asNucleusInfo", 0) or {}
        hertz = transmitter.get("lFrequency") or self.made("lFrequency")
        if transmitter.get("tNucleus", "1H") == "1H" and isinstance(hertz, int | float) and hertz > 1e6:
            return round(float(hertz) / 1e6 / units.GAMMA_BAR_MHZ_PER_T, 6)
        nominal = self.number("sProtConsistencyInfo", "flNominalB0", default=0)
        return nominal or None

    def dwell_s(self) -> float:
        """Time between samples of the first echo [s]; 0 if not known."""
        found = self.find("sRXSPEC", "alDwellTime", 0)
        return 1e-9 * float(found) if isinstance(found, int | float) else 0.0

    @property
    def oversampling(self) -> float:
        return float(self.made("flReadoutOSFactor", self.made("ReadoutOSFactor", 2.0)))

    def size(self) -> tuple[tuple[int, int, int], np.ndarray, tuple[int, int]]:
        """Points of the whole field of view, voxel size [mm], and points that only keep wraps away."""
        s = self.find("sSliceArray", "asSlice", 0) or {}
        more = [
            1 + self.number("sKSpace", f"d{way}OversamplingForDialog", default=0)
            for way in ("Phase", "Slice")
        ]
        nx = int(self.number("sKSpace", "lBaseResolution"))
        lines = self.number("sKSpace", "lPhaseEncodingLines", default=nx)
        ny = int(self.made("iNoOfFourierLines", lines) or lines)
        parts = self.number("sKSpace", "lPartitions", default=1) if self.three_d else 1
        nz = int(self.made("iNoOfFourierPartitions", parts) or parts) if self.three_d else 1
        fov = [float(s.get(k, 0)) for k in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
        if min(fov) <= 0:
            raise ValueError(f"{self.path}: its protocol has no field of view; export the scan again")
        if not self.three_d:
            more[1] = 1
        mm = np.array([fov[0] / nx, fov[1] * more[0] / ny, fov[2] * more[1] / nz])
        extra = [2 * round((n - n / m) / 2) for n, m in zip((ny, nz), more, strict=True)]
        return (nx, ny, nz), mm, (extra[0], extra[1])

    def position(self, samples: int, base: int) -> tuple[float, ...]:
        """Where samples on gradient ramps lie, in steps of 1/(field of view of the recorded samples)."""
        mode = _first(self.made("alRegridMode"))
        if mode not in (2, 4):
            return ()
        up, flat, down, delay = (
            float(_first(self.made(f"alRegrid{name}")))
            for name in ("RampupTime", "FlattopTime", "RampdownTime", "DelaySamplesTime")
        )
        duration = float(_first(self.made("aflRegridADCDuration")))
        if min(up, down, duration) <= 0:
            raise ValueError(f"{self.path}: ramp sampling without its times in the header; export it again")
        edges = delay + duration / samples * np.arange(samples + 1)
        area = _area(edges, up, flat, down, sinus=mode == 4)
        at = _area(delay + duration / samples * (np.arange(samples) + 0.5), up, flat, down, sinus=mode == 4)
        middle = _area(np.array([delay + duration / 2]), up, flat, down, sinus=mode == 4)[0]
        steps = base * self.oversampling / (area[-1] - area[0])
        return tuple(((at - middle) * steps).tolist())

    def facts(self) -> dict[str, str | float | tuple[float, ...]]:
        """The protocol by BIDS names."""
        found: dict[str, str | float | tuple[float, ...]] = {"Manufacturer": "Siemens"}
        for key, name in (
            ("ManufacturersModelName", "ManufacturersModelName"),
            ("SoftwareVersions", "SoftwareVersions"),
            ("tProtocolName", "ProtocolName"),
            ("tPatientPosition", "PatientPosition"),
        ):
            if (word := self.made(key)) is not None:
                found[name] = str(word)
        if (sequence := self.find("tSequenceFileName")) is not None:
            found["PulseSequenceDetails"] = str(sequence).strip('"')
        if tr := self.find("alTR"):
            found["RepetitionTime"] = round(1e-6 * float(tr[0]), 9)
        if flip := self.find("adFlipAngleDegree"):
            found["FlipAngle"] = float(flip[0])
        if dwell := self.dwell_s():
            found["DwellTime"] = round(dwell, 12)
        for way in ("Phase", "Slice"):
            share = self.number("sKSpace", f"uc{way}PartialFourier", default=16)
            if share in (1, 2, 4, 8):
                found[f"PartialFourier{way}"] = {1: 4 / 8, 2: 5 / 8, 4: 6 / 8, 8: 7 / 8}[int(share)]
        return found


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) else value


def _area(t: np.ndarray, up: float, flat: float, down: float, sinus: bool) -> np.ndarray:
    """Area under a gradient of height 1 until time t, for straight or sine-shaped ramps."""
    rise, fall = np.clip(t, 0, up), np.clip(t - up - flat, 0, down)
    level = np.clip(t - up, 0, flat)
    if sinus:
        a = up * 2 / pi * (1 - np.cos(pi / 2 * rise / up))
        b = down * 2 / pi * np.sin(pi / 2 * fall / down)
    else:
        a, b = rise**2 / (2 * up), fall - fall**2 / (2 * down)
    total: np.ndarray = a + level + b
    return total

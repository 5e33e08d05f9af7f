"""The XML header of an ISMRMRD file: read leniently, written by the schema's own classes."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

import ismrmrd.xsd as schema
import numpy as np

from k2chi import __version__, units
from k2chi.data import Raw, Vector
from k2chi.io.counters import Kind

LPS = np.diag([-1.0, -1.0, 1.0])
"""Patient axes of ISMRMRD and DICOM to those of NIfTI, and back."""
TICK_S = 2.5e-3
"""Step of the acquisition clock [s] where nothing better is known."""
FLAGS = {
    Kind.noise: (19,),
    Kind.navigator: (23, 24),
    Kind.reference: (20,),
    Kind.other: (26, 27, 28, 29, 30, 31),
}
"""Flags of a readout that is not one of the image."""
REVERSE = 22
BOTH = 21
"""Flags of a readout taken backwards, and of one for image and calibration at once."""
OWN = "k2chi"
"""Name of the user parameter for what the standard has no place for."""
BIDS_NAMES = {
    "acquisitionSystemInformation/systemVendor": "Manufacturer",
    "acquisitionSystemInformation/systemModel": "ManufacturersModelName",
    "measurementInformation/protocolName": "ProtocolName",
    "sequenceParameters/sequence_type": "PulseSequenceType",
    "measurementInformation/patientPosition": "PatientPosition",
}


@dataclass(frozen=True)
class Header:
    """What an XML header says, by paths below the root, without namespaces."""

    text: bytes
    where: str
    """The file, for errors."""

    @cached_property
    def root(self) -> ElementTree.Element:
        try:
            root = ElementTree.fromstring(self.text)
        except ElementTree.ParseError as error:
            raise ValueError(
                f"{self.where}: its header is not XML ({error}); convert the scan again"
            ) from error
        for element in root.iter():
            element.tag = element.tag.split("}")[-1]
        return root

    def word(self, path: str) -> str | None:
        """The text at `path`, or None."""
        found = self.root.findtext(path)
        return found.strip() if found and found.strip() else None

    def numbers(self, path: str) -> list[float]:
        """All numbers at `path`."""
        try:
            return [float(e.text or "nan") for e in self.root.findall(path)]
        except ValueError as error:
            raise ValueError(f"{self.where}: {path} in the header is no number; repair it") from error

    def number(self, path: str, default: float | None = None) -> float:
        """The number at `path`. Raises ValueError where it is missing and has no default."""
        found = self.numbers(path)
        if not found and default is None:
            raise ValueError(f"{self.where}: its header has no {path}; convert the scan again")
        return found[0] if found else float(default or 0)

    def size(self, path: str) -> Vector:
        """Three numbers x, y, z below `path`."""
        return self.number(f"{path}/x"), self.number(f"{path}/y"), self.number(f"{path}/z")

    def points(self, step: str, default: int) -> int:
        """How many values a counter takes by the encoding limits."""
        found = self.numbers(f"encoding/encodingLimits/{step}/maximum")
        return int(found[0]) + 1 if found else default

    @cached_property
    def own(self) -> dict[str, Any]:
        """What we wrote ourselves where the standard has no place."""
        for one in self.root.findall("userParameters/userParameterString"):
            if one.findtext("name") == OWN:
                return dict(json.loads(one.findtext("value") or "{}"))
        return {}

    def te_s(self) -> tuple[float, ...]:
        """Echo times [s]; empty if the header has none."""
        return tuple(round(t / 1e3, 12) for t in self.numbers("sequenceParameters/TE"))

    def b0_tesla(self) -> float | None:
        """From the nominal strength and the frequency, which is nearer to the truth."""
        stated = self.number("acquisitionSystemInformation/systemFieldStrength_T", 0)
        mhz = self.number("experimentalConditions/H1resonanceFrequency_Hz", 0) / 1e6
        exact = mhz / units.GAMMA_BAR_MHZ_PER_T
        if stated and exact and abs(stated - exact) > 0.1 * stated:
            raise ValueError(
                f"{self.where}: its header says {stated:g} T and {mhz:g} MHz, which is {exact:.3g} T: "
                "give --b0, or correct one of them"
            )
        if stated and (not exact or abs(stated - exact) < 1e-6):
            return stated
        return exact or None

    def facts(self) -> dict[str, str | float | tuple[float, ...]]:
        """The protocol by BIDS names."""
        if "facts" in self.own:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in self.own["facts"].items()}
        found: dict[str, str | float | tuple[float, ...]] = {}
        for path, name in BIDS_NAMES.items():
            if word := self.word(path):
                found[name] = word
        if tr := self.numbers("sequenceParameters/TR"):
            found["RepetitionTime"] = round(tr[0] / 1e3, 12)
        if flip := self.numbers("sequenceParameters/flipAngle_deg"):
            found["FlipAngle"] = flip[0]
        return found


def _limit(points: int, centre: int) -> schema.limitType:
    return schema.limitType(minimum=0, maximum=points - 1, center=centre)


def _space(matrix: tuple[int, int, int], fov_mm: Vector) -> schema.encodingSpaceType:
    (x, y, z), (u, v, w) = matrix, fov_mm
    return schema.encodingSpaceType(
        matrixSize=schema.matrixSizeType(x=x, y=y, z=z), fieldOfView_mm=schema.fieldOfViewMm(x=u, y=v, z=w)
    )


def _encoding(raw: Raw, averages: int) -> schema.encodingType:
    e, shape, mm = raw.encoding, raw.grid.shape, raw.grid.voxel_mm
    wide = round(shape[0] * e.oversampling)
    deep = 1 if e.slices else shape[2]
    kept = (shape[0], shape[1] - e.surplus[0], deep - (0 if e.slices else e.surplus[1]))
    limits = schema.encodingLimitsType(
        kspace_encoding_step_0=_limit(e.samples, min(e.centre_sample, e.samples - 1)),
        kspace_encoding_step_1=_limit(e.matrix[1], e.centre[1]),
        kspace_encoding_step_2=_limit(1, 0) if e.slices else _limit(e.matrix[2], e.centre[2]),
        slice=_limit(e.matrix[2] if e.slices else 1, 0),
        contrast=_limit(len(raw.scan.te_s), 0),
        average=_limit(averages, 0),
        repetition=_limit(1, 0),
    )
    factor = schema.accelerationFactorType(
        kspace_encoding_step_1=e.acceleration[0], kspace_encoding_step_2=e.acceleration[1]
    )
    return schema.encodingType(
        encodedSpace=_space((wide, shape[1], deep), (mm[0] * wide, mm[1] * shape[1], mm[2] * deep)),
        reconSpace=_space(kept, (mm[0] * kept[0], mm[1] * kept[1], mm[2] * kept[2])),
        encodingLimits=limits,
        trajectory=schema.trajectoryType.EPI if e.train > 1 else schema.trajectoryType.CARTESIAN,
        parallelImaging=schema.parallelImagingType(accelerationFactor=factor),
        echoTrainLength=e.train,
    )


def header_of(raw: Raw, averages: int) -> bytes:
    """The XML header of a scan."""
    e, facts = raw.encoding, raw.facts
    own = {
        "version": __version__,
        "matrix_x": [e.matrix[0], e.centre[0]],
        "facts": dict(facts),
        "warnings": raw.warnings,
        "b0_world": raw.grid.b0_world,
        "bipolar": raw.scan.bipolar,
        "shot": "user_int[0]",
        "time_s": "user_float[0]",
    }
    position = str(facts.get("PatientPosition", "HFS"))
    known = {p.value: p for p in schema.patientPositionType}
    tr, flip = facts.get("RepetitionTime"), facts.get("FlipAngle")
    header = schema.ismrmrdHeader(
        version=1,
        measurementInformation=schema.measurementInformationType(
            patientPosition=known.get(position, schema.patientPositionType.HFS),
            protocolName=str(facts["ProtocolName"]) if "ProtocolName" in facts else None,
        ),
        acquisitionSystemInformation=schema.acquisitionSystemInformationType(
            systemVendor=str(facts.get("Manufacturer", OWN)),
            systemFieldStrength_T=raw.scan.b0_tesla,
            receiverChannels=raw.coils,
        ),
        experimentalConditions=schema.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(raw.scan.b0_tesla * units.GAMMA_BAR_MHZ_PER_T * 1e6)
        ),
        encoding=[_encoding(raw, averages)],
        sequenceParameters=schema.sequenceParametersType(
            TE=[round(1e3 * t, 9) for t in raw.scan.te_s],
            TR=[round(1e3 * tr, 9)] if isinstance(tr, int | float) else [],
            flipAngle_deg=[float(flip)] if isinstance(flip, int | float) else [],
            echo_spacing=[round(1e3 * e.spacing_s, 9)] if e.spacing_s else [],
        ),
        userParameters=schema.userParametersType(
            userParameterString=[
                schema.userParameterStringType(name=OWN, value=json.dumps(own, default=_plain))
            ]
        ),
    )
    return str(schema.ToXML(header)).encode("ascii", "xmlcharrefreplace")


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, for JSON."""
    return value.item() if isinstance(value, np.generic) else str(value)

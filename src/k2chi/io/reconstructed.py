"""Reconstructed echoes to NIfTI with BIDS JSON: magnitude, phase, real and imaginary part of each echo."""

from pathlib import Path
from typing import Any

from k2chi import __version__
from k2chi.data import Echoes, Encoding, Raw
from k2chi.io.derivatives import IGNORED, Layout, dumps
from k2chi.io.nifti import write, write_text
from k2chi.recon.epi import effective_spacing_s

IMAGE_TYPES = {"mag": "M", "phase": "P", "real": "REAL", "imag": "IMAGINARY"}


def acquired_mm(raw: Raw) -> tuple[float, float, float]:
    """Edges of a voxel by the extent of k-space about its centre, without interpolation [mm]."""
    e, out = raw.encoding, []
    for axis, (n, mm) in enumerate(zip(raw.grid.shape, raw.grid.voxel_mm, strict=True)):
        reach = max(e.centre[axis], e.matrix[axis] - 1 - e.centre[axis])
        extent = n if e.slices and axis == 2 else min(n, 2 * reach + 1)
        out.append(round(mm * n / extent, 6))
    return out[0], out[1], out[2]


def epi_facts(e: Encoding, whole: int, points: int) -> dict[str, Any]:
    """What corrections of distortion need to know of an echo-planar scan: `whole` voxels along the first
    phase encoding as encoded, `points` along its images, which may be interpolated."""
    found: dict[str, Any] = {"EchoTrainLength": e.train, "PhaseEncodingAxis": "j"}
    if e.spacing_s:
        found["EffectiveEchoSpacing"] = round(effective_spacing_s(e) * whole / (whole - e.surplus[0]), 9)
        found["TotalReadoutTime"] = round(found["EffectiveEchoSpacing"] * (points - 1), 9)
    return found


def sidecar_facts(raw: Raw, points: int) -> dict[str, Any]:
    """What the sidecars of all images of a scan say; `points` along the first phase encoding."""
    e = raw.encoding
    found: dict[str, Any] = {
        **raw.facts,
        "MRAcquisitionType": "2D" if e.slices else "3D",
        "PulseSequenceType": "EPI" if e.train > 1 else "GRE",
        "AcquisitionVoxelSize": acquired_mm(raw),
        "ReceiveCoilActiveElements": str(raw.coils),
    }
    if e.acceleration[0] > 1:
        found["ParallelReductionFactorInPlane"] = e.acceleration[0]
    if e.acceleration[1] > 1:
        found["ParallelReductionFactorOutOfPlane"] = e.acceleration[1]
    if e.train > 1:
        found |= epi_facts(e, raw.grid.shape[1], points)
    return found


def image_json(echoes: Echoes, echo: int, part: str, more: dict[str, Any]) -> dict[str, Any]:
    """The sidecar of one image."""
    data = {
        "EchoTime": echoes.scan.te_s[echo],
        "MagneticFieldStrength": echoes.scan.b0_tesla,
        "ImageType": ["ORIGINAL", "PRIMARY", IMAGE_TYPES[part]],
        **more,
    }
    if len(echoes.scan.te_s) > 1:
        data["EchoNumber"] = echo + 1
    if echoes.scan.bipolar:
        data["BipolarReadout"] = True
    if part == "phase":
        data["Units"] = "rad"
    return data


def write_images(
    echoes: Echoes, layout: Layout, epi: bool, more: dict[str, Any], parts: tuple[str, ...]
) -> list[Path]:
    """The wanted parts of each echo; paths relative to the layout's folder come back.

    MEGRE, or T2starw if there is one echo or the readout is echo-planar, as BIDS has it.
    """
    several = len(echoes.scan.te_s) > 1
    suffix = "MEGRE" if several and not epi else "T2starw"
    written = []
    for n, image in enumerate(echoes.signal):
        values = {"mag": image.abs(), "phase": image.angle(), "real": image.real, "imag": image.imag}
        for part in parts:
            echo = f"echo-{n + 1}_" if several else ""
            where = layout.image("anat", f"{echo}part-{part}_{suffix}")
            path = layout.out / where
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, values[part], echoes.grid)
            about = image_json(echoes, n, part, more)
            write_text(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), dumps(about))
            written.append(where)
    return written


def describe_images(stage: Path, out: Path) -> None:
    """dataset_description.json, README and .bidsignore of a data set of images, unless `out` has them."""
    about = {
        "Name": "Images reconstructed by k2chi",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "k2chi", "Version": __version__}],
    }
    files = {
        "dataset_description.json": dumps(about),
        "README": f"Complex images reconstructed from raw data by k2chi {__version__}.\n",
        ".bidsignore": IGNORED,
    }
    for name, text in files.items():
        if not (out / name).exists():
            write_text(stage / name, text)

"""Field maps that someone else made, to `Field`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from k2chi import units
from k2chi.data import Field, Vector
from k2chi.io.echoes import Source, finite_only, masked, scan_of, stack, together
from k2chi.io.nifti import ALONG_BORE, read, same_place
from k2chi.io.sidecar import sidecar

Unit = Literal["ppm", "Hz", "rad"]


def read_field(
    path: Path,
    unit: Unit | None,
    te_s: Sequence[float],
    b0_tesla: float | None,
    local: bool,
    mask: Path | None = None,
    magnitude: Sequence[Path] = (),
    b0_world: Vector = ALONG_BORE,
) -> tuple[Field, Source]:
    """A total or local field map in ppm, Hz, or rad at the mean echo time.

    Without a mask, voxels that are not exactly zero are used; with one, a local field may be zero (eroded)
    in a part of it, which χ still fills. ppm needs neither B0 nor echo time, except
    in non-linear methods: 3 T and 20 ms are then assumed, and said.
    """
    says: list[str] = []
    warnings: list[str] = []
    volume = read(path, b0_world)
    if volume.echoes != 1:
        raise ValueError(
            f"{path}: a field map is one volume, this holds {volume.echoes}; combine the echoes first"
        )
    stated = sidecar(path).get("Units")
    if unit is None:
        unit = next((u for u in ("ppm", "Hz", "rad") if stated in (u, f"{u}/s" if u == "rad" else u)), None)
        if unit is None or stated == "rad/s":
            raise ValueError(f"{path}: the unit of the field is not known; give --units ppm, Hz or rad")
        says.append(f"{path.name}: unit {unit}, as its JSON says")
    elif stated in ("ppm", "Hz", "rad") and stated != unit:
        raise ValueError(f"{path}: its JSON says {stated}, but --units says {unit}; correct one of them")
    if unit == "rad" and not te_s:
        raise ValueError(f"{path}: a field in rad needs the echo time at which it was gathered; give --te")
    if b0_tesla is None and unit != "ppm":
        raise ValueError(f"{path}: a field in {unit} needs the field strength; give --b0")
    if not te_s or b0_tesla is None:
        te_s, b0_tesla = te_s or (0.02,), b0_tesla or 3.0
        says.append(
            f"{b0_tesla:g} T and {sum(te_s) / len(te_s) * 1e3:g} ms assumed where a method works on phase"
        )
    scan = scan_of(tuple(te_s), b0_tesla, False, path)
    per_ppm = {"ppm": 1.0, "Hz": units.hz_per_ppm(b0_tesla), "rad": scan.rad_per_ppm}[unit]
    data, finite = finite_only(volume.tensor(), [path], "field", warnings)
    ppm = data[0] / per_ppm
    found = masked(mask, volume, finite)
    if found is None:
        found = finite & (ppm != 0)
        share = float(found.float().mean())
        if share > 0.98:
            warnings.append(
                "no mask was given and the field is non-zero everywhere: noise outside the head is used too"
            )
        if not found.any():
            raise ValueError(f"{path}: the field is zero everywhere; give a field map")
    typical = float(ppm[found].abs().median())
    if typical > 20:
        raise ValueError(
            f"{path}: fields of {typical:.3g} ppm do not occur in a head; the unit is not {unit}"
        )
    mag = None
    if magnitude:
        magnitudes = stack(magnitude, "magnitude", b0_world)
        same_place(volume, magnitudes[0])
        squares, _ = finite_only(together(magnitudes), magnitude, "magnitude", warnings)
        mag = squares.square().sum(0).sqrt()
    support = None
    if local and mask is not None:  # a local field is often eroded: χ may still fill the whole mask
        support, found = found, found & (ppm != 0)
    field = Field(
        torch.where(found, ppm, 0.0), found, volume.grid, scan, support=support, magnitude=mag, local=local
    )
    files = (path, *magnitude, *([mask] if mask else []))
    return field, Source(files, volume.codes, tuple(says), tuple(warnings))

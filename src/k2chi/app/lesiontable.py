"""Tables of `k2chi lesions`: one row a lesion, one row a step of its profile, and what the columns mean."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from math import isnan
from typing import Any

from k2chi.about import field_docs
from k2chi.measure.lesions.layers import Bin, Contrast, Rim
from k2chi.measure.lesions.native import Fate
from k2chi.measure.lesions.shape import Shape
from k2chi.measure.lesions.study import Lesion
from k2chi.measure.lesions.vein import Vein

UNITS = {"chi": "_ppm", "rim": "_ppm", "r2star": "_per_s", "magnitude": "", "swi": ""}
BARE = frozenset(
    {"around_voxels", "intensity", "core_voxels", "contrast", "bright_share", "bright_slices", "score"}
)
"""Fields that are no values of the map and carry no unit of it."""
MAPS = ("magnitude", "swi", "r2star")


def _named(prefix: str, field: str) -> str:
    return f"{prefix}_{field}" + ("" if field in BARE else UNITS[prefix])


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A vector as three columns, named by its axes."""
    return (
        {f"{name}_{a}": v for a, v in zip("xyz", value, strict=True)}
        if isinstance(value, tuple)
        else {name: value}
    )


def row(lesion: Lesion) -> dict[str, Any]:
    """One lesion as columns."""
    out: dict[str, Any] = {"lesion": lesion.shape.label, "excluded": "; ".join(lesion.excluded)}
    for part in (lesion.shape, lesion.fate):
        for f in dataclasses.fields(part):
            if f.name != "label":
                out |= _flat(f.name, getattr(part, f.name))
    out["in_mask"] = lesion.in_mask
    maps: dict[str, Contrast | Rim] = {"chi": lesion.chi, "rim": lesion.rim}
    maps |= {m: lesion.more.get(m, Contrast()) for m in MAPS}
    for prefix, values in maps.items():
        out |= {_named(prefix, f.name): getattr(values, f.name) for f in dataclasses.fields(values)}
    for m in MAPS:
        if m not in lesion.more:
            out[f"{m}_around_voxels"] = None
    for f in dataclasses.fields(lesion.vein):
        out |= _flat(f"vein_{f.name}", getattr(lesion.vein, f.name))
    out["vein_on"] = lesion.vein_on
    return {k: None if v == "" or (isinstance(v, float) and isnan(v)) else v for k, v in out.items()}


def bins(lesions: Sequence[Lesion]) -> list[dict[str, Any]]:
    """Profiles of all lesions, one row a bin."""
    rows = []
    for b in (b for lesion in lesions for b in lesion.profile):
        sd = None if isnan(b.sd) else b.sd
        rows.append(
            {
                "lesion": b.label,
                "distance_mm": b.distance_mm,
                "voxels": b.voxels,
                "mean_ppm": b.mean,
                "sd_ppm": sd,
            }
        )
    return rows


def as_tsv(rows: Sequence[dict[str, Any]]) -> str:
    """A table; `n/a` where there is no value, as BIDS writes it."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(rows[0])
    for r in rows:
        writer.writerow("n/a" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in r.values())
    return stream.getvalue()


def dictionary(columns: Sequence[str]) -> dict[str, Any]:
    """What each column of both tables means, as a BIDS sidecar."""
    said = {
        "lesion": "Number of the lesion; the largest is 1.",
        "excluded": "Why the lesion is left out; n/a if it may stay.",
        "in_mask": field_docs(Lesion)["in_mask"],
        "vein_on": "Image on which the vein was looked for: dark on magnitude and swi, bright on chi.",
    }
    for part in (Shape, Fate):
        said |= field_docs(part)
    of = {"chi": "χ", "rim": "χ", "magnitude": "Magnitude", "swi": "SWI", "r2star": "R2*"}
    for prefix, words in of.items():
        for name, text in field_docs(Rim if prefix == "rim" else Contrast).items():
            said[_named(prefix, name)] = f"{words}. {text}"
    said |= {f"vein_{k}": v for k, v in field_docs(Vein).items()}
    profile = {k: f"Profile. {v}" for k, v in field_docs(Bin).items()}
    said |= {"mean_ppm": profile["mean"], "sd_ppm": profile["sd"], "distance_mm": profile["distance_mm"]}
    out: dict[str, Any] = {}
    for c in dict.fromkeys((*columns, "distance_mm", "voxels", "mean_ppm", "sd_ppm")):
        axis = c[-1] if c[-2:] in ("_x", "_y", "_z") else ""
        text = said[c] if c in said else f"{said[c[:-2]]} Component {axis}."
        out[c] = {"Description": text}
        for unit in ("ppm", "mm3", "mm", "per_s"):
            if (c[:-2] if axis else c).endswith(f"_{unit}"):
                out[c]["Units"] = {"mm3": "mm^3", "per_s": "1/s"}.get(unit, unit)
                break
    return out

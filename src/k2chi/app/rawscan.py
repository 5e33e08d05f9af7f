"""Raw data on their way to images: where they are worked on, how long, and what they say of themselves."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor

from k2chi.data import Echoes, Field, Lines, Raw
from k2chi.io.echoes import read_mask
from k2chi.io.fieldmap import Unit, read_field
from k2chi.io.nifti import Volume, same_grid
from k2chi.measure.space import Transform, brought, require_overlap
from k2chi.pipeline import Pipeline
from k2chi.recon.epi import effective_spacing_s, extended
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.surplus import image_grid


def on_device(raw: Raw, device: str) -> Raw:
    """The same scan, its readouts delivered to another device."""
    if device == "cpu":
        return raw

    def there(lines: Lines) -> Lines:
        changes: dict[str, Any] = {k: v.to(device) for k, v in vars(lines).items() if isinstance(v, Tensor)}
        return replace(lines, **changes)

    def lines(echo: int) -> Iterator[Lines]:
        return (there(block) for block in raw.lines(echo))

    def navigators(echo: int) -> Lines | None:
        found = raw.navigators(echo) if raw.navigators is not None else None
        return None if found is None else there(found)

    def reference() -> Iterator[Lines]:
        return (there(block) for block in raw.reference()) if raw.reference is not None else iter(())

    return replace(
        raw,
        lines=lines,
        navigators=None if raw.navigators is None else navigators,
        reference=None if raw.reference is None else reference,
        noise=None if raw.noise is None else raw.noise.to(device),
    )


def images(raw: Raw, pipeline: Pipeline, device: str) -> tuple[Echoes, float, list[str]]:
    """Echoes by the recipe's `recon`, how long that took [s], and what the user should know."""
    start = perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        echoes = pipeline.recon(on_device(raw, device))
    told = [*raw.warnings, *(str(w.message) for w in caught)]
    echoes = replace(echoes, signal=echoes.signal.cpu())
    return echoes, perf_counter() - start, list(dict.fromkeys(told))


def with_field_map(raw: Raw, path: Path, unit: Unit | None, recon: Reconstruct) -> Raw:
    """The scan with a field map from a file, brought to the grid of its images.

    ValueError for a scan that is not EPI, and where the recipe leaves unwarping out.
    """
    if recon.unwarp is None:
        raise ValueError(f"{path}: the recipe has recon.unwarp = none; choose a method, or give no field map")
    recon.unwarp.of(raw)
    own, grid = raw.grid, image_grid(raw)
    field, _ = read_field(path, unit, raw.scan.te_s, raw.scan.b0_tesla, False, b0_world=own.b0_world)
    if not same_grid(field.grid, grid):
        as_is = Transform()
        require_overlap(grid, field.grid, as_is, f"{path}: field map and images")
        ppm = brought(extended(field.ppm, field.mask), field.grid, grid, as_is)
        mask = brought(field.mask.float(), field.grid, grid, as_is, order=0) > 0.5
        if not mask.any():
            raise ValueError(f"{path}: no voxel of the field map lies in the images; check both headers")
        field = Field(ppm, mask, grid, field.scan)
    return replace(raw, field_map=field)


def with_mask(raw: Raw, path: Path, recon: Reconstruct, scan: Path) -> Raw:
    """The scan with a mask from a file, which has to lie on the grid of its images."""
    like = Volume(Path(f"the images of {scan.name}"), recon.grid(raw), 1, 1.0, 0.0, (1, 1), False)
    return replace(raw, mask=read_mask(path, like))


def distortion(raw: Raw, recon: Reconstruct) -> list[str]:
    """How far the field moves voxels of EPI and whether that is undone, in words; nothing for other scans."""
    e = raw.encoding
    if e.train < 2:
        return []
    spacing_s = effective_spacing_s(e)
    if recon.unwarp is not None and recon.unwarp.spacing_s is not None:
        spacing_s = recon.unwarp.spacing_s
    mm = 10 * spacing_s * raw.grid.shape[1] * raw.grid.voxel_mm[1]
    moves = f"10 Hz of field move voxels by {mm:.2g} mm" if spacing_s else "the field moves voxels"
    if raw.field_map is None:
        return [f"EPI, not unwarped: {moves} along the first phase encoding; --unwarp takes a field map"]
    return [f"EPI, unwarped by a field map: {moves} along the first phase encoding"]


def idle(raw: Raw) -> set[str]:
    """Steps of the reconstruction that had nothing to do in this scan."""
    epi, e = raw.encoding.train > 1, raw.encoding
    steps = {"recon.assemble.ghost": epi, "recon.assemble.ramp": bool(e.position)}
    steps |= {"recon.unwarp": epi and raw.field_map is not None}
    return {step for step, needed in steps.items() if not needed}


def said(raw: Raw) -> list[str]:
    """What was found in the file, in words."""
    e = raw.encoding
    train = f", {e.train} readouts after each excitation" if e.train > 1 else ""
    factor = f", accelerated {e.acceleration[0]}×{e.acceleration[1]}" if max(e.acceleration) > 1 else ""
    points = " × ".join(map(str, e.matrix))
    ramp = ", sampled on ramps" if e.position else ""
    kind = "slices" if e.slices else "3D"
    found = f"{kind}, {raw.coils} coils, {len(raw.scan.te_s)} echoes, {points} points"
    extras = [
        name
        for name, there in (
            ("noise", raw.noise is not None),
            ("navigators", raw.navigators is not None),
            ("reference readouts", raw.reference is not None),
        )
        if there
    ]
    return [f"{found}{factor}{train}{ramp}", f"with {', '.join(extras)}" if extras else "image readouts only"]

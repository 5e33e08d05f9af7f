"""Raw data on their way to images: where they are worked on, how long, and what they say of themselves."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

from torch import Tensor

from k2chi.data import Echoes, Lines, Raw
from k2chi.pipeline import Pipeline


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

"""The whole flow on one screen: echoes → total field → local field → χ."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal, TypeVar

from k2chi.background import Background
from k2chi.background.vsharp import VSHARP
from k2chi.data import Chi, Echoes, Field, Maps
from k2chi.field import Combination, Masking, Offsets, R2Star, Unwrapping
from k2chi.field.fit import WeightedFit
from k2chi.field.mask import BrainMask
from k2chi.field.offsets import MCPC3DS
from k2chi.field.r2star import LogLinear
from k2chi.field.romeo import ROMEO
from k2chi.invert import Inversion
from k2chi.invert.fansi import FANSI
from k2chi.measure.reference import MaskMean, Reference

Stage = Literal["mask", "unwrap", "total", "local", "chi"]
T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """Every stage from wrapped phase to a referenced map, each a choice of its own."""

    offsets: Offsets = MCPC3DS()
    """Removes what coils and radio pulse added to the phase."""
    mask: Masking = BrainMask()
    """Finds the brain, unless the scan brings a mask."""
    unwrap: Unwrapping = ROMEO()
    """Makes the phase continuous, unless it is so already."""
    combine: Combination = WeightedFit()
    """Turns the phase of all echoes into one field map with its noise."""
    r2star: R2Star | None = LogLinear()
    """Maps R2* where there is more than one echo."""
    background: Background = VSHARP()
    """Removes the field of sources outside the mask."""
    invert: Inversion = FANSI()
    """Turns the local field into susceptibility."""
    reference: Reference = MaskMean()
    """Sets the zero of the map."""

    def __call__(self, data: Echoes | Field | Maps, until: Stage = "chi") -> Maps:
        """Run from wherever `data` stands (echoes, total field, local field, an earlier run) to `until`."""
        begun = data if isinstance(data, Maps) else None
        seconds = dict(begun.seconds) if begun else {}

        def timed(stage: str, method: Callable[..., T], *given: object) -> T:
            start = perf_counter()
            value = method(*given)
            seconds[stage] = perf_counter() - start
            return value

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(data, Maps):
                maps = data
            else:
                maps = (
                    self._from_echoes(data, until, timed) if isinstance(data, Echoes) else _from_field(data)
                )
            if maps.total is not None and maps.local is None and until in ("local", "chi"):
                maps = replace(maps, local=timed("background", self.background, maps.total))
            if maps.local is not None and until == "chi":
                chi: Chi = timed("invert", self.invert, maps.local)
                maps = replace(maps, chi=timed("reference", self.reference, chi, maps.r2star_per_s))
        told = tuple(dict.fromkeys([*(begun.warnings if begun else ()), *(str(w.message) for w in caught)]))
        return replace(maps, seconds=seconds, warnings=told)

    def _from_echoes(self, echoes: Echoes, until: Stage, timed: Callable[..., T]) -> Maps:
        magnitude = echoes.signal.abs().square().sum(0).sqrt()
        if echoes.unwrapped_rad is None:
            echoes = timed("offsets", self.offsets, echoes)
        if echoes.mask is None:
            echoes = timed("mask", self.mask, echoes)
        maps = Maps(echoes.grid, echoes.scan, echoes.mask, magnitude=magnitude)
        if self.r2star is not None and len(echoes.scan.te_s) > 1:
            maps = replace(maps, r2star_per_s=timed("r2star", self.r2star, echoes))
        if until == "mask":
            return maps
        if echoes.unwrapped_rad is None:
            echoes = timed("unwrap", self.unwrap, echoes)
        maps = replace(maps, unwrapped_rad=echoes.unwrapped_rad)
        if until == "unwrap":
            return maps
        total = timed("combine", self.combine, echoes)
        return replace(maps, total=total, mask=total.mask)


def _from_field(field: Field) -> Maps:
    maps = Maps(field.grid, field.scan, field.mask, magnitude=field.magnitude)
    return replace(maps, local=field) if field.local else replace(maps, total=field)

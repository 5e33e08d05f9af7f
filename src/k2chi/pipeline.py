"""The whole flow on one screen: raw data or coils → echoes → total field → local field → χ."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal, ParamSpec, TypeVar

from k2chi.background import Background
from k2chi.background.vsharp import VSHARP
from k2chi.data import Chi, Coils, Echoes, Field, KSpace, Maps, Raw
from k2chi.field import CoilCombination, Combination, Masking, Offsets, R2Star, Unwrapping
from k2chi.field.coils_adaptive import AdaptiveCombine
from k2chi.field.fit import WeightedFit
from k2chi.field.mask import BrainMask
from k2chi.field.offsets import MCPC3DS
from k2chi.field.r2star import LogLinear
from k2chi.field.romeo import ROMEO
from k2chi.field.swi import SWI
from k2chi.invert import Inversion
from k2chi.joint import FromPhase, Joint, JointLocal, TotalFieldTV
from k2chi.measure.reference import MaskMean, Reference
from k2chi.recon.reconstruct import Reconstruct
from k2chi.separate import Separation

Stage = Literal["mask", "unwrap", "total", "local", "chi"]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """Every stage from wrapped phase to a referenced map, each a choice of its own."""

    recon: Reconstruct = Reconstruct()
    """Makes images of raw data; not used where the scan comes as images."""
    coils: CoilCombination = AdaptiveCombine()
    """Makes one image of those of all coils; not used where the scan comes combined."""
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
    background: Background | JointLocal = VSHARP()
    """Removes the field of sources outside the mask; not used when `invert` takes the total field."""
    invert: Inversion | Joint = TotalFieldTV()
    """Turns the local field, or the total field at once, into susceptibility."""
    reference: Reference = MaskMean()
    """Sets the zero of the map."""
    separate: Separation | None = None
    """Tells para- and diamagnetic sources apart, from the local field and R2*."""
    swi: SWI | None = None
    """Darkens veins in the magnitude by the phase."""

    def __call__(self, data: Raw | KSpace | Coils | Echoes | Field | Maps, until: Stage = "chi") -> Maps:
        """Run from wherever `data` stands (raw data, coils, echoes, field, an earlier run) to `until`."""
        clock = _Clock(dict(data.seconds) if isinstance(data, Maps) else {})
        told = list(data.warnings) if isinstance(data, Maps) else []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(data, Raw | KSpace):
                data = clock("recon", self.recon, data)
            if isinstance(data, Coils):
                data = clock("coils", self.coils, data)
            if isinstance(data, Echoes):
                maps = self._from_echoes(data, until, clock)
            else:
                maps = data if isinstance(data, Maps) else _from_field(data)
            if until in ("local", "chi"):
                maps = self._from_field(maps, until, clock)
        told += [str(w.message) for w in caught]
        return replace(maps, seconds=clock.seconds, warnings=tuple(dict.fromkeys(told)))

    def _from_echoes(self, echoes: Echoes, until: Stage, clock: "_Clock") -> Maps:
        magnitude = echoes.signal.abs().square().sum(0).sqrt()
        if echoes.mask is None:
            echoes = clock("mask", self.mask, echoes)
        mask = echoes.mask
        assert mask is not None  # every Masking sets it
        maps = Maps(echoes.grid, echoes.scan, mask, magnitude=magnitude)
        if self.r2star is not None and len(echoes.scan.te_s) > 1:
            maps = replace(maps, r2star_per_s=clock("r2star", self.r2star, echoes))
        if until == "mask":
            return maps
        if echoes.unwrapped_rad is None:
            echoes = clock("unwrap", self.unwrap, clock("offsets", self.offsets, echoes))
        maps = replace(maps, unwrapped_rad=echoes.unwrapped_rad)
        if isinstance(self.invert, FromPhase) or self.swi is not None:
            maps = replace(maps, echoes=echoes)
        if until == "unwrap":
            return maps
        total = clock("combine", self.combine, echoes)
        return replace(maps, total=total, mask=total.mask)

    def _from_field(self, maps: Maps, until: Stage, clock: "_Clock") -> Maps:
        joint = isinstance(self.invert, Joint)
        needs_local = until == "local" or not joint or self.separate is not None
        if maps.total is not None and maps.local is None and needs_local:
            maps = replace(maps, local=clock("background", self.background, maps.total))
        if until != "chi":
            return maps
        if self.swi is not None and maps.echoes is not None:
            maps = replace(maps, swi=clock("swi", self.swi, maps.echoes))
        if maps.total is None and maps.local is None:
            return maps
        chi = clock("invert", self._inverted, maps)
        maps = replace(maps, chi=clock("reference", self.reference, chi, maps.r2star_per_s))
        if self.separate is not None and maps.local is not None:
            if maps.r2star_per_s is None:
                raise ValueError(
                    "telling sources apart needs R2*: give two echoes or more, and an r2star stage"
                )
            maps = replace(maps, sources=clock("separate", self.separate, maps.local, maps.r2star_per_s))
        return maps

    def _inverted(self, maps: Maps) -> Chi:
        """χ from what the method takes: echoes, the total field, or the local one."""
        if isinstance(self.invert, FromPhase) and maps.echoes is not None:
            return self.invert(maps.echoes)
        field = maps.total if isinstance(self.invert, Joint) and maps.total is not None else maps.local
        assert field is not None
        return self.invert(field)


class _Clock:
    """Runs stages and notes how long each took."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def __call__(self, stage: str, method: Callable[P, T], *given: P.args, **settings: P.kwargs) -> T:
        start = perf_counter()
        value = method(*given, **settings)
        self.seconds[stage] = perf_counter() - start
        return value


def _from_field(field: Field) -> Maps:
    maps = Maps(field.grid, field.scan, field.mask, magnitude=field.magnitude)
    return replace(maps, local=field) if field.local else replace(maps, total=field)

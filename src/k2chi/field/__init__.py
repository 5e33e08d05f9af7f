"""Coil images and echoes to total field: each stage is a choice of methods, called on data.

Order: `CoilCombination` for coil images; then `Offsets`, `Masking`, `Unwrapping`, `Combination`;
`R2Star` on the side.
"""

from k2chi.field.aspire import ASPIRE
from k2chi.field.bestpath import BestPath
from k2chi.field.coils_adaptive import AdaptiveCombine
from k2chi.field.coils_offset import MCPC3DSCoils
from k2chi.field.fit import ComplexFit, WeightedFit
from k2chi.field.laplacian import LaplacianUnwrap
from k2chi.field.mask import BrainMask, GivenMask, MagnitudeMask, PhaseQualityMask
from k2chi.field.mdi import MDI, mdi_r2star
from k2chi.field.offsets import MCPC3DS, KeepOffset
from k2chi.field.r2star import ARLO, LogLinear, NonlinearR2Star, t2star_s
from k2chi.field.romeo import ROMEO, quality_map
from k2chi.field.segue import SEGUE
from k2chi.field.spun import SPUN
from k2chi.field.swi import SWI, minimum_intensity_projection

CoilCombination = AdaptiveCombine | MCPC3DSCoils | ASPIRE | MDI
"""Coils → Echoes: one image for each echo, or one for the echo spacing."""
Offsets = MCPC3DS | ASPIRE | MDI | KeepOffset
"""Echoes → Echoes: what to do about phase at TE = 0."""
Masking = BrainMask | PhaseQualityMask | MagnitudeMask | GivenMask
"""Echoes → Echoes with a mask."""
Unwrapping = ROMEO | SPUN | SEGUE | BestPath | LaplacianUnwrap
"""Echoes → Echoes with unwrapped phase."""
Combination = WeightedFit | ComplexFit
"""Echoes → total Field."""
R2Star = LogLinear | ARLO | NonlinearR2Star
"""Echoes → R2* [1/s]."""

__all__ = [
    "ARLO",
    "ASPIRE",
    "MCPC3DS",
    "MDI",
    "ROMEO",
    "SEGUE",
    "SPUN",
    "SWI",
    "AdaptiveCombine",
    "BestPath",
    "BrainMask",
    "CoilCombination",
    "Combination",
    "ComplexFit",
    "GivenMask",
    "KeepOffset",
    "LaplacianUnwrap",
    "LogLinear",
    "MCPC3DSCoils",
    "MagnitudeMask",
    "Masking",
    "NonlinearR2Star",
    "Offsets",
    "PhaseQualityMask",
    "R2Star",
    "Unwrapping",
    "WeightedFit",
    "mdi_r2star",
    "minimum_intensity_projection",
    "quality_map",
    "t2star_s",
]

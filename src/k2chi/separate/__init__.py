"""Local field and decay rate → para- and diamagnetic sources. To add a method: one file, one name below."""

from k2chi.separate.chisep import ChiSeparation
from k2chi.separate.r2star import R2StarSeparation

Separation = ChiSeparation | R2StarSeparation

__all__ = ["ChiSeparation", "R2StarSeparation", "Separation"]

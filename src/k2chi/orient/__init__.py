"""Local fields of one head in several orientations → susceptibility, which then needs no prior."""

from k2chi.orient.conditioning import Conditioning, orientation_conditioning
from k2chi.orient.cosmos import COSMOS

__all__ = ["COSMOS", "Conditioning", "orientation_conditioning"]

"""Total field → local field. To add a method: one file, one name in the union below."""

from k2chi.background.lbv import LBV
from k2chi.background.pdf import PDF
from k2chi.background.vsharp import VSHARP

Background = VSHARP | PDF | LBV

__all__ = ["LBV", "PDF", "VSHARP", "Background"]

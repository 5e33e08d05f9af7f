"""Total field → local field. To add a method: one file, one name in the union below."""

from k2chi.background.ismv import ISMV
from k2chi.background.lbv import LBV
from k2chi.background.pdf import PDF
from k2chi.background.resharp import RESHARP
from k2chi.background.sharp import SHARP
from k2chi.background.vsharp import VSHARP
from k2chi.background.weakharmonic import WeakHarmonic

Background = VSHARP | PDF | LBV | SHARP | RESHARP | ISMV | WeakHarmonic

__all__ = ["ISMV", "LBV", "PDF", "RESHARP", "SHARP", "VSHARP", "Background", "WeakHarmonic"]

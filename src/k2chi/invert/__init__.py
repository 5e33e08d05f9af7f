"""Field → susceptibility. To add a method: one file, one name in the union below."""

from k2chi.invert.fansi import FANSI
from k2chi.invert.l2 import ClosedFormL2
from k2chi.invert.ndi import NDI
from k2chi.invert.tkd import TKD

Inversion = TKD | ClosedFormL2 | NDI | FANSI

__all__ = ["FANSI", "NDI", "TKD", "ClosedFormL2", "Inversion"]

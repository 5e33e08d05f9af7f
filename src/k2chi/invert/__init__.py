"""Field → susceptibility. To add a method: one file, one name in the union below."""

from k2chi.invert.fansi import FANSI
from k2chi.invert.l2 import ClosedFormL2
from k2chi.invert.ndi import NDI
from k2chi.invert.tkd import TKD

SinglePass = TKD | ClosedFormL2 | NDI | FANSI
"""Methods that invert once."""

from k2chi.invert.twopass import TwoPass  # noqa: E402  (its inner method is one of those above)

Inversion = SinglePass | TwoPass

__all__ = ["FANSI", "NDI", "TKD", "ClosedFormL2", "Inversion", "SinglePass", "TwoPass"]

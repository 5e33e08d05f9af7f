"""Total field or phase → susceptibility in one step. To add a method: one file, one name in a union below."""

from k2chi.joint.harperella import HARPERELLA
from k2chi.joint.learned import LearnedTotal
from k2chi.joint.local import JointLocal
from k2chi.joint.tfi import TFI
from k2chi.joint.tgv import TGV
from k2chi.joint.totalfield import TotalFieldTV

FromField = TotalFieldTV | TFI | LearnedTotal
FromPhase = TGV | HARPERELLA
Joint = FromField | FromPhase

__all__ = [
    "HARPERELLA",
    "TFI",
    "TGV",
    "FromField",
    "FromPhase",
    "Joint",
    "JointLocal",
    "LearnedTotal",
    "TotalFieldTV",
]

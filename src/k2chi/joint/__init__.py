"""Total field or phase → susceptibility in one step. To add a method: one file, one name in a union below."""

from k2chi.joint.tgv import TGV
from k2chi.joint.totalfield import TotalFieldTV

FromField = TotalFieldTV
FromPhase = TGV
Joint = FromField | FromPhase

__all__ = ["TGV", "FromField", "FromPhase", "Joint", "TotalFieldTV"]

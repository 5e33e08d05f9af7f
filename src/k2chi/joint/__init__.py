"""Total field → susceptibility in one step. To add a method: one file, one name in the union below."""

from k2chi.joint.totalfield import TotalFieldTV

Joint = TotalFieldTV

__all__ = ["Joint", "TotalFieldTV"]

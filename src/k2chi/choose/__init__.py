"""Any method and a grid of values for one of its settings → the value that a rule prefers."""

from k2chi.choose.discrepancy import Discrepancy
from k2chi.choose.frequency import FrequencyAnalysis
from k2chi.choose.lcurve import LCurve
from k2chi.choose.trial import Choice, with_setting
from k2chi.choose.ucurve import UCurve

Rule = LCurve | UCurve | FrequencyAnalysis | Discrepancy

__all__ = ["Choice", "Discrepancy", "FrequencyAnalysis", "LCurve", "Rule", "UCurve", "with_setting"]

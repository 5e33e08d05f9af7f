"""Do two readers, scans or methods say the same? Limits, coefficients, lines, classes, accuracy."""

from k2chi.measure.agreement.accuracy import Accuracy, accuracy, mcnemar, proportion
from k2chi.measure.agreement.concordance import concordance
from k2chi.measure.agreement.equivalence import equivalence
from k2chi.measure.agreement.icc import icc
from k2chi.measure.agreement.kappa import Agreement, agreement, kappa
from k2chi.measure.agreement.limits import Limits, limits, repeated_limits
from k2chi.measure.agreement.lines import Line, deming, passing_bablok
from k2chi.measure.agreement.raters import ac1, fleiss, krippendorff

__all__ = [
    "Accuracy",
    "Agreement",
    "Limits",
    "Line",
    "ac1",
    "accuracy",
    "agreement",
    "concordance",
    "deming",
    "equivalence",
    "fleiss",
    "icc",
    "kappa",
    "krippendorff",
    "limits",
    "mcnemar",
    "passing_bablok",
    "proportion",
    "repeated_limits",
]

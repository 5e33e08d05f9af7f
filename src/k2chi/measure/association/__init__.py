"""Do two things differ, or go together? Paired differences, correlations, models with covariates."""

from k2chi.measure.association.correlation import pearson, spearman
from k2chi.measure.association.design import Design, design
from k2chi.measure.association.models import Kind, linear, mixed, trend
from k2chi.measure.association.paired import paired_t, sign_test, wilcoxon

__all__ = [
    "Design",
    "Kind",
    "design",
    "linear",
    "mixed",
    "paired_t",
    "pearson",
    "sign_test",
    "spearman",
    "trend",
    "wilcoxon",
]

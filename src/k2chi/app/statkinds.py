"""Names of the tests of `k2chi stats`."""

from enum import StrEnum


class Statistic(StrEnum):
    """What `k2chi stats` can compute."""

    paired_t = "paired-t"
    wilcoxon = "wilcoxon"
    sign = "sign"
    clustered = "clustered"
    bland_altman = "bland-altman"
    tost = "tost"
    icc = "icc"
    ccc = "ccc"
    deming = "deming"
    passing_bablok = "passing-bablok"
    pearson = "pearson"
    spearman = "spearman"
    kappa = "kappa"
    mcnemar = "mcnemar"
    fleiss = "fleiss"
    ac1 = "ac1"
    krippendorff = "krippendorff"
    accuracy = "accuracy"
    linear = "linear"
    hc3 = "hc3"
    robust = "robust"
    mixed = "mixed"
    gee = "gee"
    trend = "trend"


S = Statistic
NUMBERS = (
    *(
        S.paired_t,
        S.wilcoxon,
        S.sign,
        S.clustered,
        S.bland_altman,
        S.tost,
        S.ccc,
    ),
    *(S.deming, S.passing_bablok, S.pearson, S.spearman),
)
"""Tests of a pair of numbers."""
MODELS = (S.linear, S.hc3, S.robust, S.mixed, S.gee, S.trend)
"""Tests of a value and its covariates."""
DEPENDENT = "several rows of a person are taken as independent: see --test clustered, mixed or gee"

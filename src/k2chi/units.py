"""Constants, and the only unit conversions.

Canonical units everywhere: ppm (SI susceptibility and field), s, mm, T, rad.
"""

from math import tau

GAMMA_BAR_MHZ_PER_T = 42.577478
"""Proton gyromagnetic ratio over 2 pi; MHz per T, and so Hz per T and ppm."""


def hz_per_ppm(b0_tesla: float) -> float:
    """Frequency shift [Hz] of a field shift of one ppm."""
    return GAMMA_BAR_MHZ_PER_T * b0_tesla


def rad_per_ppm(b0_tesla: float, te_s: float) -> float:
    """Phase [rad] that a field shift of one ppm gathers in `te_s`."""
    return tau * hz_per_ppm(b0_tesla) * te_s

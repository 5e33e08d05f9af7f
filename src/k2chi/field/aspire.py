"""Offsets without unwrapping, where echo times allow it."""

from dataclasses import dataclass
from itertools import pairwise

from k2chi.data import Coils, Echoes
from k2chi.field.coils_offset import combined_without_offset, inner_product, mask_over_coils
from k2chi.field.offsets import OddEven, check_sigma, mask_of, without_offset
from k2chi.ops.smooth import finite


@dataclass(frozen=True)
class ASPIRE:
    """Subtract the phase at TE = 0 without unwrapping, where TE₁ is a multiple of the echo spacing.

    With m = TE₁/(TE₂ − TE₁) a whole number, φ₀ = φ₁ − m(φ₂ − φ₁) = (m + 1)φ₁ − mφ₂, and whole turns of
    φ₂ − φ₁ do not matter. From coil images φ₂ − φ₁ is that of their inner product, φ₀ is found for each coil,
    and the coils are added up as by `MCPC3DSCoils`; from echoes φ₀ is taken off as by `MCPC3DS`.

    Eckstein et al. 2018, Magn Reson Med 79:2996, doi:10.1002/mrm.26963.
    Nothing can go wrong in unwrapping, and it costs nothing; noise and flow weigh m + 1 times. Other echo
    times are refused. Bipolar scans, masks and memory as with `MCPC3DSCoils` and `MCPC3DS`.
    """

    sigma_mm: float = 10.0
    """Standard deviation of the Gaussian [mm]; larger than any anatomy, smaller than the head."""
    odd_even: OddEven = "smooth"
    """What even echoes of a bipolar scan may carry: any `smooth` phase, or a `ramp` along the three axes."""

    def __post_init__(self) -> None:
        check_sigma("ASPIRE", self.sigma_mm)

    def __call__(self, data: Coils | Echoes) -> Echoes:
        """One image for each echo, whose phase is proportional to TE."""
        m = _multiple(data.scan.te_s)
        if isinstance(data, Coils):
            gain, mask = inner_product(data).angle(), mask_over_coils(data)
            return combined_without_offset(data, gain, m, mask, self.sigma_mm, self.odd_even)
        gain = (finite(data.signal[1]) * finite(data.signal[0]).conj()).angle()
        return without_offset(data, gain, m, mask_of(data), self.sigma_mm, self.odd_even)


def _multiple(te: tuple[float, ...]) -> int:
    """TE₁ in echo spacings, if that is a whole number to within a hundredth."""
    if len(te) < 2:
        raise ValueError("ASPIRE needs two echoes: one does not tell the offset from the field")
    m = te[0] / (next(b - a for a, b in pairwise(te)))
    if round(m) < 1 or abs(m - round(m)) > 0.01:
        raise ValueError(
            f"ASPIRE needs TE1 to be a multiple of TE2 − TE1, but it is {m:.3f} times that: use MCPC-3D-S, "
            "which unwraps, and takes any echo times"
        )
    return round(m)

"""Coil images to echoes by taking each coil's own phase at TE = 0 off first."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from k2chi.data import Coils, Echoes, Vector
from k2chi.field.offsets import OddEven, check_sigma, mask_of, take_off_odd_even
from k2chi.field.romeo import unwrap_in_space
from k2chi.field.smooth import SmoothPhase, smooth_phase
from k2chi.ops.smooth import block_means, block_mm, finite, gaussian
from k2chi.progress import track
from k2chi.recon.adaptive import combined, root_sum_of_squares
from k2chi.recon.whiten import noise_factor


@dataclass(frozen=True)
class MCPC3DSCoils:
    """Find the phase at TE = 0 of each coil from the first two echoes, take it off, and add the coils up.

    The Hermitian inner product over all coils, arg Σ_c S₂S₁*, is free of their phases; unwrapped in space and
    scaled by TE₁/(TE₂ − TE₁) it predicts the field's phase in echo 1, and what remains of each coil's phase
    is that coil's offset φ₀. Offsets are smoothed as phasors; with m = a e^{iφ₀}, a the smoothed strength of
    the coil, x = mᴴΨ⁻¹s / √(mᴴΨ⁻¹m) is the best sum, Ψ being the covariance of the noise (one, if unknown).

    Eckstein et al. 2018, Magn Reson Med 79:2996, doi:10.1002/mrm.26963, who weight by the magnitude itself.
    The phase of the result is the field's alone; two echoes or more. Bipolar scans of three or more are
    corrected as by `MCPC3DS`. Only voxels inside the mask are looked at; without one, `BrainMask` finds it
    from the magnitude over all coils. With 16 coils and 4 echoes of 164×205×205 1.4 GB beside the data.
    """

    sigma_mm: float = 10.0
    """Standard deviation of the Gaussian [mm]; larger than any anatomy, smaller than the head."""
    odd_even: OddEven = "smooth"
    """What even echoes of a bipolar scan may carry: any `smooth` phase, or a `ramp` along the three axes."""

    def __post_init__(self) -> None:
        check_sigma("MCPC3DSCoils", self.sigma_mm)

    def __call__(self, coils: Coils) -> Echoes:
        """One image for each echo, whose phase is proportional to TE."""
        te = coils.scan.te_s
        if len(te) < 2:
            raise ValueError(
                "MCPC3DSCoils needs two echoes to tell a coil's phase from the field's: "
                "use AdaptiveCombine for one"
            )
        mask = mask_over_coils(coils)
        product = inner_product(coils)
        gain = unwrap_in_space(product.angle(), product.abs().sqrt(), mask)
        m = te[0] / (te[1] - te[0])
        return combined_without_offset(coils, gain, m, mask, self.sigma_mm, self.odd_even)


def mask_over_coils(coils: Coils) -> Bool[Tensor, "x y z"]:
    """The coils' mask, or one that `BrainMask` finds from the magnitude over all coils."""
    if coils.mask is not None:
        return coils.mask
    size = torch.stack([root_sum_of_squares(s) for s in coils.signal])
    return mask_of(Echoes(torch.complex(size, torch.zeros_like(size)), coils.grid, coils.scan))


def inner_product(coils: Coils) -> Complex[Tensor, "x y z"]:
    """Σ_c S₂S₁* of the first two echoes."""
    total = torch.zeros_like(coils.signal[0, 0])
    for first, second in zip(coils.signal[0], coils.signal[1], strict=True):
        total += finite(second * first.conj())
    return total


def combined_without_offset(
    coils: Coils,
    gain_rad: Float[Tensor, "x y z"],
    m: float,
    mask: Bool[Tensor, "x y z"],
    sigma_mm: float,
    odd_even: OddEven,
) -> Echoes:
    """Take the smoothed φ₁ − m · gain off each coil, and add the coils up."""
    voxel, signal = coils.grid.voxel_mm, coils.signal
    strength = finite(root_sum_of_squares(signal[0]) + 0j).real * mask
    turn = torch.polar(strength, -m * gain_rad)
    maps = []
    for c in track(signal.shape[1], "coil offsets"):
        apart = finite(signal[0, c]) * turn
        offset = smooth_phase(apart, sigma_mm, voxel)
        block = offset.block
        maps.append(_map(apart, offset, sigma_mm / 2, voxel))
    out = combined(signal, torch.stack(maps), block, noise_factor(coils.noise, len(maps)))
    if coils.scan.bipolar:
        take_off_odd_even(out, coils.scan.te_s, mask, sigma_mm, voxel, odd_even)
    return Echoes(out, coils.grid, coils.scan, coils.mask)


def _map(
    apart: Complex[Tensor, "x y z"], offset: SmoothPhase, sigma_mm: float, voxel_mm: Vector
) -> Complex[Tensor, "i j k"]:
    """The coil's offset, and how strongly it sees each block: what adds up in step with the offset."""
    phasor = offset.phasor()
    in_step = block_means(apart, offset.block) * phasor.conj()
    edge = block_mm(offset.block, voxel_mm)
    size = gaussian(in_step.real, sigma_mm, edge).clamp_min(0)
    # What the mask leaves out is seen as its nearest part is, as far as numbers reach.
    size = size + 1e-3 * gaussian(in_step.real, 8 * sigma_mm, edge).clamp_min(0)
    return phasor * torch.where(size > 1e-9 * size.max(), size, torch.zeros_like(size))

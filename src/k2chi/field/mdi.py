"""Field phase and R2* from all coils and all pairs of echoes at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from k2chi.data import Coils, Echoes
from k2chi.ops.smooth import finite
from k2chi.progress import track
from k2chi.recon.whiten import noise_factor

SLAB_BYTES = 2**27
"""Coil images are walked through in slabs of about this size."""


@dataclass(frozen=True)
class MDI:
    """Integrate over coils and pairs of echoes: one echo, as if at TE = the echo spacing, without any offset.

    The q for which Σ |S_{c,n+1} − q S_{c,n}|² over coils c and echoes n is least is

        q = Σ S*_{c,n} S_{c,n+1} / Σ |S_{c,n}|²;

    its phase is the field's over one spacing ΔTE, free of the phases of coils and pulse, and its size is
    exp(−ΔTE·R2*) (`mdi_r2star`). With noise samples the coils are whitened first.

    Ye et al. 2021, NMR Biomed 34:e4529, doi:10.1002/nbm.4529.
    Needs two echoes or more at equal spacing: with others the pairs gain different phases. Of bipolar scans
    the pairs are n and n + 2, which read the same way, so three echoes are needed and TE is two spacings.
    The magnitude is that of Σ S*ₙSₙ₊₁ over the root of Σ(Aₙ₋₁ − Aₙ₊₁)², A being the magnitude over the coils
    and zero beyond the last: the noise of an image over this is the noise of the phase, so weights are right.
    The pairs share echoes, and inner echoes cancel: with four echoes of equal strength the
    field is 5 % noisier than a line with an intercept makes it, and 2.6 times as noisy as one through the
    origin where TE₁ is one spacing: such is the price of needing neither offset nor unwrapping in time.
    Few wraps remain, since the echo time is short. Coils are read slab by slab, with 0.5 GB beside them.
    """

    def __call__(self, data: Coils | Echoes) -> Echoes:
        """One echo, whose phase still wraps where the field is strong."""
        step, te = pairing(data, "MDI")
        shape = data.grid.shape
        out = torch.zeros(shape, dtype=data.signal.dtype, device=data.signal.device)
        for where, s in _slabs(data):
            product = (s[:-step].conj() * s[step:]).sum((0, 1))
            size = s.real.square().add_(s.imag.square()).sum(1).sqrt()
            beyond = size.new_zeros((step, *size.shape[1:]))
            padded = torch.cat([beyond, size, beyond])
            spread = (padded[: -2 * step] - padded[2 * step :]).square().sum(0).sqrt()
            out[where] = product / spread.clamp_min(torch.finfo(spread.dtype).tiny)
        scan = replace(data.scan, te_s=(te,), bipolar=False)
        return Echoes(out[None], data.grid, scan, data.mask)


def mdi_r2star(data: Coils | Echoes) -> Float[Tensor, "x y z"]:
    """R2* [1/s] by `MDI`: −ln|q|/ΔTE, never negative; 0 without signal.

    Noise adds to Σ|S|² but not to the products, which makes R2* too large where signal is weak, and the more
    so the more coils: of the order of C/(ΔTE·SNR²) for C coils. Where noise samples tell how much it is, it
    is taken off; at an SNR of 10 a few per cent too little then remain.
    """
    step, te = pairing(data, "MDI's R2*")
    top = torch.zeros(data.grid.shape, dtype=data.signal.real.dtype, device=data.signal.device)
    bottom = torch.zeros_like(top)
    whitened = isinstance(data, Coils) and data.noise is not None
    for where, s in _slabs(data):
        top[where] = (s[:-step].conj() * s[step:]).sum((0, 1)).abs()
        early = s[:-step]
        bottom[where] = early.real.square().add_(early.imag.square()).sum((0, 1))
        if whitened:
            bottom[where] -= early.shape[0] * early.shape[1]
    known = (top > 0) & (bottom > top)
    ratio = torch.where(known, bottom / top.clamp_min(torch.finfo(top.dtype).tiny), torch.ones_like(top))
    return ratio.log() / te


def pairing(data: Coils | Echoes, who: str) -> tuple[int, float]:
    """How many echoes apart the echoes of a pair are, and that time [s]."""
    te, step = data.scan.te_s, 2 if data.scan.bipolar else 1
    if len(te) <= step:
        need = (
            "three echoes of a bipolar scan, to pair those that read the same way"
            if step == 2
            else "two echoes"
        )
        raise ValueError(f"{who} needs {need}, but there are {len(te)}: use AdaptiveCombine or KeepOffset")
    gaps = [b - a for a, b in zip(te[:-step], te[step:], strict=True)]
    mean = sum(gaps) / len(gaps)
    if max(gaps) - min(gaps) > 0.01 * mean:
        told = ", ".join(f"{1e3 * g:.3g}" for g in gaps)
        raise ValueError(
            f"{who} needs equally spaced echoes, but those of a pair are {told} ms apart and would gain "
            "different phases: use MCPC-3D-S, which takes any echo times"
        )
    return step, mean


def _slabs(data: Coils | Echoes) -> Iterator[tuple[slice, Complex[Tensor, "echo coil x y z"]]]:
    """Slabs of the data, whitened if the noise is known; echoes are one coil's."""
    signal = data.signal if isinstance(data, Coils) else data.signal[:, None]
    whiten = None
    if isinstance(data, Coils):
        factor = noise_factor(data.noise, signal.shape[1])
        whiten = None if factor is None else torch.linalg.inv(factor)
    nx = signal.shape[2]
    plane = signal[:, :, 0].numel() * signal.element_size()
    planes = max(1, SLAB_BYTES // plane)
    for n in track(-(-nx // planes), "multi-dimensional integration"):
        where = slice(n * planes, (n + 1) * planes)
        slab = finite(signal[:, :, where])
        if whiten is not None:
            slab = (whiten @ slab.flatten(2)).reshape(slab.shape)
        yield where, slab

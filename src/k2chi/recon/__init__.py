"""K-space of many coils to one complex image for each echo: each step is a choice of methods, called on data.

`reconstruct.Reconstruct` runs them all, from readouts or k-space on a grid to `Echoes`.
"""

from k2chi.recon.compress import GeometricCompression, SVDCompression
from k2chi.recon.espirit import ESPIRiT
from k2chi.recon.ghost import GhostCorrection, Navigated, Refined
from k2chi.recon.grappa import GRAPPA
from k2chi.recon.maps import AdaptiveMaps
from k2chi.recon.partial import POCS, Homodyne, PartialFourier, ZeroFill
from k2chi.recon.sampling import CAIPI, PoissonDisk, Regular, Sampling
from k2chi.recon.sense import CGSENSE, Adjoint
from k2chi.recon.shotrank import FittedShots
from k2chi.recon.shots import NavigatedShots, ShotCorrection, SteadyDrift
from k2chi.recon.sparse import SparseSENSE
from k2chi.recon.upscale import Sinc
from k2chi.recon.variation import TVSENSE
from k2chi.recon.window import Tukey

Compression = SVDCompression | GeometricCompression
"""Calibration data → `Virtual` coils."""
CoilMaps = AdaptiveMaps | ESPIRiT
"""K-space of whitened coils → one set of sensitivities for all echoes."""
Reconstruction = Adjoint | CGSENSE | GRAPPA | SparseSENSE | TVSENSE
"""K-space and sensitivities → complex images."""

__all__ = [
    "CAIPI",
    "CGSENSE",
    "GRAPPA",
    "POCS",
    "TVSENSE",
    "AdaptiveMaps",
    "Adjoint",
    "CoilMaps",
    "Compression",
    "ESPIRiT",
    "FittedShots",
    "GeometricCompression",
    "GhostCorrection",
    "Homodyne",
    "Navigated",
    "NavigatedShots",
    "PartialFourier",
    "PoissonDisk",
    "Reconstruction",
    "Refined",
    "Regular",
    "SVDCompression",
    "Sampling",
    "ShotCorrection",
    "Sinc",
    "SparseSENSE",
    "SteadyDrift",
    "Tukey",
    "ZeroFill",
]

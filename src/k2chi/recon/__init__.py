"""K-space of many coils to one complex image for each echo: each step is a choice of methods, called on data.

`reconstruct.Reconstruct` runs them all, from readouts or k-space on a grid to `Echoes`.
"""

from k2chi.recon.compress import GeometricCompression, SVDCompression
from k2chi.recon.maps import AdaptiveMaps
from k2chi.recon.sense import CGSENSE, Adjoint

Compression = SVDCompression | GeometricCompression
"""Calibration data → `Virtual` coils."""
CoilMaps = AdaptiveMaps
"""K-space of whitened coils → one set of sensitivities for all echoes."""
Reconstruction = Adjoint | CGSENSE
"""K-space and sensitivities → complex images."""

__all__ = [
    "CGSENSE",
    "AdaptiveMaps",
    "Adjoint",
    "CoilMaps",
    "Compression",
    "GeometricCompression",
    "Reconstruction",
    "SVDCompression",
]

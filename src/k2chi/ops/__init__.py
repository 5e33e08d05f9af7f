"""Linear operators."""

from k2chi.ops.dipole import dipole, dipole_kernel
from k2chi.ops.finite import gradient, laplacian
from k2chi.ops.linear import Linear
from k2chi.ops.sphere import spherical_mean

__all__ = ["Linear", "dipole", "dipole_kernel", "gradient", "laplacian", "spherical_mean"]

"""k2chi: from raw k-space to quantitative susceptibility maps."""

__version__ = "0.1.0"

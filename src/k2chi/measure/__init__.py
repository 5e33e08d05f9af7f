"""χ to numbers: where zero lies, region values, quality against a truth, the sign of the phase."""

"""Small complex scans, written to disk as scanners and converters would."""

from math import pi

import nibabel as nib
import numpy as np

TES = (0.004, 0.010, 0.016)
AFFINE = np.array([[-1.0, 0, 0, 10], [0, 1.1, 0, -12], [0, 0, 1.5, -8], [0, 0, 0, 1]])


def scan(shape=(20, 22, 16), tes=TES, seed=0, b0=3.0):
    """Magnitude and wrapped phase (space first, echo last) of a ball in noise, with a strong smooth field."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(a**2 for a in axes) < 0.7
    ppm = 0.6 * axes[2] - 0.4 * axes[0] * axes[1] + 0.3 * axes[1]
    te = np.asarray(tes)
    m0 = np.where(inside, 100 * np.exp(-te[:, None, None, None] * 30), 0)
    signal = m0 * np.exp(2j * pi * 42.577478 * b0 * te[:, None, None, None] * ppm)
    signal = signal + rng.normal(size=(*signal.shape, 2)) @ (1, 1j)
    signal = np.moveaxis(signal, 0, -1)
    return np.abs(signal), np.angle(signal), inside


def save(path, data, affine=AFFINE, dtype=np.float32, slope=None, inter=None, codes=(1, 1)):
    """Write the numbers as they are; slope and inter go to the header only."""
    image = nib.Nifti1Image(np.asarray(data, dtype=dtype), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    if slope is not None:
        image.header.set_slope_inter(slope, inter or 0)
        raw = image.to_bytes()
        header = bytearray(raw)
        header[112:120] = np.asarray([slope, inter or 0], np.float32).tobytes()
        path.write_bytes(bytes(header))
        return path
    nib.save(image, path)
    return path

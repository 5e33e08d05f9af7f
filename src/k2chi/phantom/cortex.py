"""Cortex and white matter, from the MNI152 tissue maps inside the nilearn package."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from k2chi.phantom.warp import Volume


@lru_cache(maxsize=1)
def brain_maps() -> Volume:
    """Shares of grey and white matter (two channels, 0 to 1) on the 1 mm MNI152 grid (Fonov 2011,
    NeuroImage 54:313, doi:10.1016/j.neuroimage.2010.07.033). Read once a process.

    The template is a mean over people, so its sulci are shallow. Dark valleys of its T1 image show where
    they run; there the share of grey matter is lowered, which opens them.
    """

    found = find_spec("nilearn")  # its files are enough: importing the package takes seconds
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the digital head starts from maps inside nilearn: pip install nilearn")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"

    import nibabel as nib  # here alone: files belong to io, these are constants

    def read(kind: str) -> np.ndarray:
        image: nib.Nifti1Image = nib.Nifti1Image.from_filename(
            folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        )
        corner = image.affine[:3, 3]
        origin.append((float(corner[0]), float(corner[1]), float(corner[2])))
        return np.asarray(image.dataobj, dtype=np.float32) / 255

    origin: list[tuple[float, float, float]] = []
    grey, white, t1 = read("gm"), read("wm"), read("t1")
    inside = gaussian_filter((t1 > 0).astype(np.float32), 3)
    valley = gaussian_filter(t1, 3) / np.maximum(inside, 0.3) - gaussian_filter(t1, 0.6)
    valley = np.clip(valley / 0.10 - 0.15, 0, 1) * np.clip(1 - 2.5 * white, 0, 1)
    grey = grey * (1 - 0.75 * valley)
    x, y, z = origin[0]
    return Volume(torch.from_numpy(np.stack([grey, white])), (x, y, z), 1.0)


def crisp(shares: Float[Tensor, "2 *shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Grey and white occupancies with narrow edges; what remains to one is CSF."""
    grey, white = shares.clamp(0, 1)
    fluid = (1 - grey - white).clamp(min=0)
    g, w, f = (s.square().square() for s in (grey, white, fluid))
    total = (g + w + f).clamp(min=1e-9)
    return g / total, w / total

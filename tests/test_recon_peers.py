"""Against another implementation, and on a real undersampled brain."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recon_cases import grid_mask, measured

from k2chi.data import Grid, KSpace, Scan
from k2chi.ops.fourier import centred_fft, centred_ifft, from_scanner
from k2chi.recon import CGSENSE, Adjoint, ESPIRiT
from k2chi.recon.reconstruct import Reconstruct

BRAIN = Path(__file__).parents[2] / "shared" / "data" / "cartesian-brain-kspace" / "cartesian_ksp.npy"


def test_agrees_with_cg_sense_of_sigpy():
    """Same data, same maps, same λ, converged: the same image. Its transforms are centred, ours are not."""
    app = pytest.importorskip("sigpy.mri.app")
    case = measured(grid_mask((9, 20, 16), (2, 2), 8), shape=(9, 20, 16), edge=(12.0, 9.0, 11.0), count=6, noise=0.02)
    k, shift = case.kspace, (-3, -2, -1)
    ours = CGSENSE(regularisation=1e-2, iterations=80, tolerance=0.0)(k, case.maps)[0]
    # The image with index 0 at the corner, k-space with its zero in the middle: a shift of the image alone.
    maps = torch.fft.fftshift(case.maps, dim=shift)
    y = torch.fft.fftshift(k.data[0], dim=shift) 
    theirs = app.SenseRecon(
        y.numpy(), maps.numpy(), lamda=1e-2, weights=torch.fft.fftshift(k.sampled[0].expand(9, 20, 16)).float().numpy(),
        max_iter=80, show_pbar=False,
    ).run()
    off = torch.fft.ifftshift(torch.from_numpy(theirs), dim=shift) - ours
    assert off.norm() < 2e-4 * ours.norm()


@pytest.fixture(scope="module")
def brain():
    """One slice of 8 coils, 230×180, 12 % of k-space, as k-space of a volume of one slice."""
    if not BRAIN.exists():
        pytest.skip("no outside data at ../shared/data")
    k = torch.from_numpy(np.load(BRAIN).astype(np.complex64))[:, None]  # coil 1 y z
    data = torch.stack([from_scanner(c, (0, k.shape[2] // 2, k.shape[3] // 2)) for c in k])
    seen = (data.abs().sum(0) > 0)[None]
    shape = tuple(data.shape[1:])
    return KSpace(data[None], seen, Grid.of(shape), Scan((0.01,), 3.0))

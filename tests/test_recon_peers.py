"""Against another implementation, and on a real undersampled brain."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recon_cases import grid_mask, measured

from k2chi.data import Grid, KSpace, Scan
from k2chi.ops.fourier import SPACE, from_scanner
from k2chi.recon import CGSENSE, TVSENSE, Adjoint, ESPIRiT, SparseSENSE

BRAIN = Path(__file__).parents[2] / "shared" / "data" / "cartesian-brain-kspace" / "cartesian_ksp.npy"


def test_agrees_with_cg_sense_of_sigpy():
    """Same data, same maps, same λ, converged: the same image. Its images have their origin in the middle."""
    app = pytest.importorskip("sigpy.mri.app")
    shape = (9, 20, 16)
    case = measured(grid_mask(shape, (2, 2), 8), shape=shape, edge=(12.0, 9.0, 11.0), count=6, noise=0.02)
    k = case.kspace
    ours = CGSENSE(regularisation=1e-2, iterations=80, tolerance=0.0)(k, case.maps)[0]
    y, maps, seen = (
        torch.fft.fftshift(t, dim=SPACE) for t in (k.data[0], case.maps, k.sampled[0].expand(shape))
    )
    sense = app.SenseRecon(
        y.numpy(), maps.numpy(), lamda=1e-2, weights=seen.float().numpy(), max_iter=80, show_pbar=False
    )
    theirs = torch.fft.ifftshift(torch.from_numpy(sense.run()), dim=SPACE)
    assert (theirs - ours).norm() < 2e-4 * ours.norm()


def brain():
    """One slice of a real head: 8 coils, 230×180, an eighth of k-space; a volume of one slice."""
    k = torch.from_numpy(np.load(BRAIN).astype(np.complex64))[:, None]
    data = from_scanner(k, (0, k.shape[2] // 2, k.shape[3] // 2))
    seen = (data.abs().sum(0) > 0)[None]
    return KSpace(data[None], seen, Grid.of((1, k.shape[2], k.shape[3])), Scan((0.01,), 3.0))


@pytest.mark.shared
def test_a_real_brain_unfolds():
    """A tenth of the samples, left out, is predicted from the others: wavelets and edges best, then SENSE."""
    if not BRAIN.exists():
        pytest.skip("no outside data at ../shared/data")
    k = brain()
    maps = ESPIRiT()(k)
    draw = torch.rand(k.sampled.shape, generator=torch.Generator().manual_seed(0))
    away = torch.fft.fftfreq(230)[:, None].abs().maximum(torch.fft.fftfreq(180).abs()) > 0.08
    left_out = k.sampled & (draw < 0.1) & away
    used = KSpace(k.data * ~left_out[:, None], k.sampled & ~left_out, k.grid, k.scan)
    truth = k.data[0][:, left_out[0]]
    missed = {}
    for method in (Adjoint(), CGSENSE(), SparseSENSE(), TVSENSE()):
        image = method(used, maps)[0]
        found = torch.fft.fftn(maps * image, dim=SPACE, norm="ortho")[:, left_out[0]]
        missed[type(method).__name__] = float((found - truth).norm() / truth.norm())
    assert max(missed["SparseSENSE"], missed["TVSENSE"]) < 0.4
    assert 0.4 < missed["CGSENSE"] < 0.65 < missed["Adjoint"]

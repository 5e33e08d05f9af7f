"""The loop is closed: a body of known χ → raw data of many coils → images → field → χ."""

from dataclasses import replace

import pytest
import torch
from test_phantom_rawscan import SPHERE, ball

from k2chi.data import Echoes, Grid
from k2chi.invert import TKD
from k2chi.phantom.coilarray import CoilArray
from k2chi.phantom.head import Head
from k2chi.phantom.protocols import QUICK
from k2chi.phantom.rawscan import RawScan, RawSimulation
from k2chi.pipeline import Pipeline
from k2chi.recon.reconstruct import Reconstruct
from k2chi.recon.sampling import PoissonDisk

SMALL = replace(QUICK, matrix=(40, 36, 34), voxel_mm=(5.0, 5.0, 5.0))
SCAN = RawScan(SMALL, CoilArray(8), snr=60.0, fine_mm=2.5)
CHAIN = Pipeline(invert=TKD(), r2star=None)


def quiet(grid: Grid, b0_tesla: float) -> Head:
    """The sphere in a ball of water, without the field of the air around."""
    return replace(ball(grid, b0_tesla), chi_ppm=SPHERE.source(grid, 2))


def closed(sim: RawSimulation) -> Echoes:
    """Images by the defaults, in the true mask."""
    return replace(Reconstruct(compression=None)(sim.raw), mask=sim.truth.brain)


def slope(found: torch.Tensor, true: torch.Tensor) -> float:
    """Regression of what was found on the truth."""
    x, y = true - true.mean(), found - found.mean()
    return float((x * y).sum() / (x * x).sum())


@pytest.mark.parametrize(
    ("protocol", "tolerance"),
    [(SMALL, 0.01), (replace(SMALL, pattern=PoissonDisk(3.0, (14, 14))), 0.02)],
    ids=["everything read", "a third read"],
)
def test_a_paramagnetic_sphere_comes_back(protocol, tolerance) -> None:
    """Slope of the field within a hundredth when everything was read, χ within a tenth, its sign right."""
    sim = replace(SCAN, protocol=protocol)(quiet)
    maps = CHAIN(closed(sim))
    grid = sim.truth.grid
    a = torch.tensor(grid.affine, dtype=torch.float64)
    index = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in grid.shape])
    place = index @ a[:3, :3].T + a[:3, 3] - torch.tensor(SPHERE.centre_mm, dtype=torch.float64)
    away = place.norm(dim=1).reshape(grid.shape)
    inside, around = away < 22, (away > 38) & (away < 55)
    clear = maps.total.mask & ((away < 20) | (away > 40))  # its surface lies within voxels
    assert slope(maps.total.ppm[clear], sim.truth.total_ppm[clear]) == pytest.approx(1.0, abs=tolerance)
    contrast = maps.chi.ppm[inside].mean() - maps.chi.ppm[around & maps.chi.mask].mean()
    assert float(contrast) == pytest.approx(SPHERE.chi_ppm, rel=0.1)

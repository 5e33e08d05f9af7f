"""Bone, one voxel from the mask all around: the background that real heads have.

An ellipsoid brain in a shell of bone, scalp, air around it, and three sinuses. Fields come from a convolution
written here, in double precision on a padded array, with the closed-form dipole.
"""

import numpy as np
import pytest
import torch
from scipy import fft
from scipy.ndimage import gaussian_filter

from k2chi.background import ISMV, LBV, PDF, RESHARP, SHARP, VSHARP, WeakHarmonic
from k2chi.data import Field, Grid, Scan

SHAPE = (84, 96, 80)
SEMI_MM = (32.0, 38.0, 30.0)
BONE, AIR = -2.1, 9.4


def fields(*chis):
    """Fields of susceptibilities on 1 mm voxels, B0 along the last axis: d(r) = (3 cos²θ − 1)/(4π r³)."""
    outer = [2 * n for n in SHAPE]
    x, y, z = np.meshgrid(*[np.arange(-n, n, dtype=float) for n in SHAPE], indexing="ij", sparse=True)
    r2 = x * x + y * y + z * z
    r2[SHAPE] = np.inf
    kernel = fft.rfftn(fft.ifftshift((3 * z * z / r2 - 1) / (4 * np.pi * r2**1.5))).real
    for chi in chis:
        whole = fft.irfftn(fft.rfftn(chi, outer) * kernel, outer)
        yield torch.from_numpy(whole[: SHAPE[0], : SHAPE[1], : SHAPE[2]]).float()


def rms(x, mask):
    return float((x[mask] - x[mask].mean()).square().mean().sqrt())


class Head:
    def __init__(self):
        axes = [np.arange(n) - n / 2 + 0.3 for n in SHAPE]
        p = np.stack(np.meshgrid(*axes, indexing="ij"))

        def inside(grown_mm):
            return sum((c / (a + grown_mm)) ** 2 for c, a in zip(p, SEMI_MM, strict=True)) < 1

        def ball(centre, radius):
            return sum((c - o) ** 2 for c, o in zip(p, centre, strict=True)) < radius**2

        mask = inside(0)
        self.mask, self.core = torch.from_numpy(mask), torch.from_numpy(inside(-10))
        outside = np.where(inside(8), 0.0, AIR)
        outside[inside(5) & ~inside(1)] = BONE
        for centre, radius in (((0, 40, -8), 7), ((12, 36, -14), 5), ((-20, -30, -20), 6)):
            outside[ball(centre, radius) & ~inside(1)] = AIR
        rng = np.random.default_rng(0)
        brain = np.zeros(SHAPE)
        for _ in range(60):
            centre = rng.uniform(-1, 1, 3) * SEMI_MM
            brain += rng.uniform(-0.15, 0.3) * ball(centre, rng.uniform(1.5, 4.5))
        brain = (gaussian_filter(brain, 0.6) + gaussian_filter(rng.normal(0, 0.3, SHAPE), 2.0)) * mask
        # the air beyond the array: relative to it only the head has a susceptibility
        self.local, background = fields(brain, outside - AIR)
        self.chi = torch.from_numpy(brain)
        background = background - background[self.mask].mean()
        self.background = background * (9 * rms(self.local, self.mask) / rms(background, self.mask))
        noise = 5e-4 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        total = (self.local + self.background + noise) * self.mask
        self.total = Field(total, self.mask, Grid.of(SHAPE), Scan((0.010,), 3.0))

    def error(self, local, where):
        """Percent of the local field, means removed."""
        return 100 * rms(local.ppm - self.local, where) / rms(self.local, where)


@pytest.fixture(scope="module")
def head():
    return Head()


ERROR = {
    "RESHARP 10 mm": (RESHARP(10.0), 14),
    "RESHARP 6 mm": (RESHARP(6.0), 18),
    "SHARP 10 mm": (SHARP(10.0), 23),
    "ISMV 8 mm": (ISMV(8.0), 17),
    "ISMV 4 mm": (ISMV(4.0), 21),
    "LBV": (LBV(), 39),
    "VSHARP": (VSHARP(), 44),
    "PDF": (PDF(iterations=20, tolerance=0, margin_mm=20.0), 46),
    "WeakHarmonic": (WeakHarmonic(iterations=30, start=20, tolerance=0), 46),
}


@pytest.mark.parametrize(("method", "percent"), ERROR.values(), ids=ERROR)
def test_error_in_the_mask_that_is_left(head, method, percent):
    """Background nine times the local field, noise of 0.5 ppb.

    Measured, in brackets what is published for another such head: RESHARP 12.8 % (13) at 10 mm and 16.4 %
    (16) at 6 mm; SHARP 21.3 % (21); iSMV 15.7 % at 8 mm, 19.2 % at 4 mm (68); LBV 36.4 % (43); V-SHARP 41.0 %
    (48 to 60); PDF 41.8 % (32).
    """
    out = method(head.total)
    assert head.error(out, out.mask) < percent


def test_the_whole_mask_counted(head):
    """What was eroded counts as zero: then methods that keep all of the mask win, and the split most."""
    split = head.error(WeakHarmonic(iterations=60, start=20, tolerance=0)(head.total), head.mask)
    assert split < head.error(PDF(iterations=20, tolerance=0, margin_mm=20.0)(head.total), head.mask)
    assert split < min(head.error(m(head.total), head.mask) for m in (SHARP(6.0), RESHARP(6.0), ISMV(4.0)))

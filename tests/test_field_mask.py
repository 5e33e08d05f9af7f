"""Masks: a brain in a made-up head is found whole, and nothing else with it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from k2chi.data import Echoes, Grid, Scan
from k2chi.field import BrainMask, GivenMask, MagnitudeMask, PhaseQualityMask

REAL = Path(__file__).parents[2] / "shared" / "data" / "real-brain-2depi"
FOUND = [BrainMask(), PhaseQualityMask(), MagnitudeMask()]


def ball(at, centre, radii):
    """True inside an ellipsoid [mm]."""
    return sum(((a - c) / r).square() for a, c, r in zip(at, centre, radii, strict=True)) < 1


def head(voxel_mm=(3.0, 2.7, 3.1), shading=0.0, noise=0.01, seed=0):
    """Echoes of a head, its brain, its eyes and scalp, and dark spots deep in the brain.

    Brain with an 8 mm skull around it and 6 mm of bright scalp; two eyes; a bridge of 5 mm from each eye to
    the brain; a dark nucleus and a dark vein of 5 mm that reaches the surface.
    """
    shape = tuple(round(e / v) for e, v in zip((180.0, 210.0, 190.0), voxel_mm, strict=True))
    grid = Grid.of(shape, voxel_mm)
    at = torch.meshgrid(
        *[(torch.arange(n) - n // 2) * v for n, v in zip(shape, voxel_mm, strict=True)], indexing="ij"
    )
    x, y, z = at
    brain = ball(at, (0, 0, 0), (66, 82, 60))
    scalp = ball(at, (0, 0, 0), (80, 96, 74)) & ~ball(at, (0, 0, 0), (74, 90, 68))
    eyes = ball(at, (30, 84, -40), (12, 12, 12)) | ball(at, (-30, 84, -40), (12, 12, 12))
    nerves = ((x.abs() - 30).square() + (z + 40).square() < 2.5**2) & (y > 40) & (y < 75) & ~brain
    dark = ball(at, (20, 5, 0), (8, 12, 8)) | ((x.square() + z.square() < 2.5**2) & (y < -40) & brain)
    size = 0.9 * brain + 1.6 * (scalp & ~eyes) + 1.2 * eyes + 0.9 * (nerves & ~eyes)
    size = torch.where(dark, 0.05, size) * torch.exp(shading * y / 90)
    draw = torch.Generator().manual_seed(seed)
    signal = []
    for te in (0.006, 0.02):
        s = torch.polar(size * np.exp(-20 * te), 80 * te * (x / 90 + (z / 70).square()))
        signal.append(s + noise * torch.view_as_complex(torch.randn(*shape, 2, generator=draw)))
    return Echoes(torch.stack(signal), grid, Scan((0.006, 0.02), 3.0)), brain, eyes | scalp, dark & brain


def dice(a, b):
    """Overlap of two masks, 0 to 1."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("shading", [0.0, 0.8, -0.8])
@pytest.mark.parametrize("voxel_mm", [(3.0, 2.7, 3.1), (2.0, 2.0, 4.0)], ids=["even", "thick slices"])
def test_brain_is_found_whole_and_alone(voxel_mm, shading):
    """Dice above 0.97, dark spots filled, no eye and no scalp, at a shading of up to five to one."""
    echoes, brain, other, dark = head(voxel_mm, shading)
    mask = BrainMask()(echoes).mask
    assert dice(mask, brain) > 0.97
    assert (mask & other).sum() < 0.001 * brain.sum()
    inner = dark & ball_of(echoes.grid, 0.9)
    assert mask[inner].float().mean() > 0.97


def ball_of(grid, share):
    """The brain of `head`, shrunk."""
    at = torch.meshgrid(
        *[(torch.arange(n) - n // 2) * v for n, v in zip(grid.shape, grid.voxel_mm, strict=True)],
        indexing="ij",
    )
    return ball(at, (0, 0, 0), tuple(share * r for r in (66, 82, 60)))


def test_brain_already_cut_out_is_kept():
    """Zeros around the brain: every voxel with signal stays, the dark spots are filled."""
    echoes, brain, _, _ = head()
    cut = dataclasses.replace(echoes, signal=echoes.signal * brain)
    assert BrainMask()(cut).mask.equal(brain)


def test_brain_mask_needs_no_scale_and_one_echo_is_enough():
    """A thousandfold signal gives the same mask; one echo nearly the same; double precision too."""
    echoes, _, _, _ = head()
    mask = BrainMask()(echoes).mask
    assert BrainMask()(dataclasses.replace(echoes, signal=echoes.signal * 1000)).mask.equal(mask)
    one = Echoes(echoes.signal[:1].to(torch.complex128), echoes.grid, Scan((0.006,), 3.0))
    assert dice(BrainMask()(one).mask, mask) > 0.99


def test_cord_is_cut():
    """A cord that runs on below the brain ends near the brain, whichever way the axis points."""
    echoes, brain, _, _ = head()
    n, v = echoes.grid.shape, echoes.grid.voxel_mm
    x, y, z = torch.meshgrid(
        *[(torch.arange(k) - k // 2) * e for k, e in zip(n, v, strict=True)], indexing="ij"
    )
    cord = (x.square() + y.square() < 8**2) & (z < -45)
    signal = torch.where(
        cord & ~brain,
        echoes.signal[:, n[0] // 3 : n[0] // 3 + 1, n[1] // 2, n[2] // 2, None, None, None][:, 0],
        echoes.signal,
    )
    long = dataclasses.replace(echoes, signal=signal)
    mask = BrainMask()(long).mask
    assert (mask & cord & ~brain).sum() < 0.35 * (cord & ~brain).sum()
    assert dice(mask, brain) > 0.97
    rows = np.asarray(echoes.grid.affine).copy()
    rows[2, 3] += rows[2, 2] * (n[2] - 1)
    rows[:3, 2] *= -1
    upside = Grid(n, tuple(tuple(map(float, r)) for r in rows))
    turned = BrainMask()(Echoes(signal.flip(3), upside, echoes.scan)).mask
    assert dice(turned.flip(2), mask) > 0.995


def test_phase_quality_and_magnitude_masks_hold_the_brain():
    """Both keep the brain with its dark spots, drop the air, and have no hole."""
    echoes, brain, _, dark = head()
    air = torch.zeros_like(brain)
    air[:6, :6] = True
    for method in (PhaseQualityMask(), MagnitudeMask()):
        mask = method(echoes).mask
        assert mask[brain & ~dark].float().mean() > 0.96
        assert mask[dark & ball_of(echoes.grid, 0.8)].float().mean() > 0.9
        assert mask[air].float().mean() < 0.01


@pytest.mark.parametrize("method", FOUND, ids=str)
def test_nothing_to_find_is_refused(method):
    """All zero: an error with the remedy, no empty mask."""
    echoes, _, _, _ = head((6.0, 6.0, 6.0))
    with pytest.raises(ValueError, match="Give a mask"):
        method(dataclasses.replace(echoes, signal=torch.zeros_like(echoes.signal)))


@pytest.mark.parametrize("method", FOUND, ids=str)
def test_nan_voxels_do_no_harm(method):
    """A few NaN voxels change the mask in their neighbourhood at most."""
    echoes, _, _, _ = head()
    spoilt = echoes.signal.clone()
    spoilt[1, 25:28, 40:43, 30:33] = complex("nan")
    a, b = method(echoes).mask, method(dataclasses.replace(echoes, signal=spoilt)).mask
    assert dice(a, b) > 0.99


def test_given_mask():
    """Comes back untouched; absent or empty it is an error."""
    echoes, brain, _, _ = head((6.0, 6.0, 6.0))
    own = dataclasses.replace(echoes, mask=brain)
    assert GivenMask()(own) is own
    with pytest.raises(ValueError, match="no mask came"):
        GivenMask()(echoes)
    with pytest.raises(ValueError, match="is empty"):
        GivenMask()(dataclasses.replace(echoes, mask=torch.zeros_like(brain)))


def test_settings_out_of_range_are_refused():
    """The message gives the range."""
    with pytest.raises(ValueError, match="choose 0"):
        BrainMask(edge=2.0)
    with pytest.raises(ValueError, match="0 mm or more"):
        BrainMask(close_mm=-1.0)


@pytest.mark.shared
def test_real_brain():
    """The mask that came with the real scan (tight, drop-out cut out) lies inside ours, a brain in size."""
    if not REAL.exists():
        pytest.skip("the real-brain-2depi data are not beside the repository")
    import nibabel

    name = REAL / "sub-01" / "anat" / "sub-01_part-mag_T2starw.nii.gz"
    image = nibabel.load(name)
    size = torch.from_numpy(np.asarray(image.dataobj, np.float32))
    theirs = nibabel.load(REAL / "derivatives" / "sub-01_desc-brain_mask.nii.gz")
    theirs = torch.from_numpy(np.asarray(theirs.dataobj) > 0)
    grid = Grid(tuple(size.shape), tuple(tuple(map(float, r)) for r in image.affine))
    mask = BrainMask()(Echoes(size[None].to(torch.complex64), grid, Scan((0.03,), 3.0))).mask
    assert mask[theirs].float().mean() > 0.99
    assert 0.7 < float(mask.sum()) * grid.voxel_volume_mm3 / 1e6 < 1.6

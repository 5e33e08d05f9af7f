"""Every reference shifts the map by one number, says by which, and leaves the outside at zero."""

from typing import get_args

import pytest
import torch
from spheres import occupancy

from k2chi.data import Chi, Grid
from k2chi.measure.reference import CSF, MaskMean, NoReference, Reference, relative_to

GRID = Grid.of((40, 44, 36), (1.5, 1.5, 2.0))
every = pytest.mark.parametrize("reference", [m() for m in get_args(Reference)], ids=repr)


def head(offset_ppm=0.7, ventricle_mm=9.0):
    """A ball of brain (χ = 0.03 and texture) with a ball of fluid (χ = 0.02) beside the centre, and R2*."""
    mask = occupancy(GRID, 26.0) > 0.5
    fluid = occupancy(GRID, ventricle_mm, (4.0, 0.0, 3.0)) > 0.5
    ring = mask & ~(occupancy(GRID, 25.0) > 0.5)
    texture = 0.01 * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    ppm = torch.where(fluid, torch.tensor(0.02), 0.03 + texture)
    r2star = torch.where(fluid | ring, torch.tensor(1.5), torch.tensor(20.0))
    return Chi((ppm + offset_ppm) * mask, mask, GRID), r2star, fluid


@every
def test_one_number_is_subtracted_and_told(reference):
    """Inside the mask the map moves by `reference_ppm`; outside it stays zero; the input stays as it was."""
    chi, r2star, _ = head()
    before = chi.ppm.clone()
    out = reference(chi, r2star)
    torch.testing.assert_close(out.ppm[chi.mask], before[chi.mask] - out.reference_ppm)
    assert not out.ppm[~chi.mask].any()
    assert torch.equal(chi.ppm, before)


@every
def test_twice_is_once_and_the_total_is_told(reference):
    """A map that has its reference keeps it, and `reference_ppm` is the sum of what was subtracted."""
    chi, r2star, _ = head()
    once = reference(chi, r2star)
    twice = reference(once, r2star)
    torch.testing.assert_close(once.ppm, twice.ppm, atol=1e-7, rtol=0)
    assert twice.reference_ppm == pytest.approx(once.reference_ppm, abs=1e-7)


@pytest.mark.parametrize("reference", [MaskMean(), CSF()], ids=repr)
def test_a_constant_in_the_map_does_not_matter(reference):
    """That constant is what nobody knows, and the point of a reference."""
    a, r2star, _ = head(offset_ppm=0.0)
    b, _, _ = head(offset_ppm=5.0)
    torch.testing.assert_close(reference(a, r2star).ppm, reference(b, r2star).ppm, atol=2e-6, rtol=0)


def test_mask_mean_is_zero():
    """What it says."""
    chi, _, _ = head()
    out = MaskMean()(chi)
    assert float(out.ppm[chi.mask].double().mean()) == pytest.approx(0, abs=1e-7)
    assert out.reference == "mask mean"


def test_csf_is_zero_and_only_the_ventricle_counts():
    """The rim of fluid around the brain is low in R2* too, but lies too far out; the surface is peeled."""
    chi, r2star, fluid = head()
    out = CSF()(chi, r2star)
    assert out.reference == "CSF"
    assert float(out.ppm[fluid].mean()) == pytest.approx(0, abs=1e-6)
    region = CSF(within_mm=20.0).region(chi.mask, r2star, GRID)
    assert region is not None
    assert not (region & ~fluid).any()
    assert 0.3 < float(region.sum() / fluid.sum()) < 0.9


def test_csf_near_the_centre_in_mm():
    """Distances are in mm: a limit that reaches the rim in voxels, but not in mm, leaves the rim out."""
    chi, r2star, fluid = head()
    region = CSF(within_mm=19.0, erode=0).region(chi.mask, r2star, GRID)
    assert region is not None
    assert torch.equal(region, fluid)


def test_csf_not_found_warns_and_says_what_was_used_instead():
    """Never in silence."""
    chi, r2star, _ = head(ventricle_mm=2.0)
    with pytest.warns(UserWarning, match="mask mean instead of CSF"):
        out = CSF(within_mm=15.0)(chi, r2star)
    assert out.reference == "mask mean"
    with pytest.warns(UserWarning, match="mask mean instead of CSF"):
        CSF()(chi, torch.full(GRID.shape, 20.0))


def test_csf_without_r2star_is_refused():
    """With the remedy."""
    with pytest.raises(ValueError, match="two echoes or more: choose MaskMean"):
        CSF()(head()[0])


def test_a_region_of_ones_own():
    """Any label mask serves; one outside the mask is refused."""
    chi, _, fluid = head()
    out = relative_to(chi, fluid, "my ventricles")
    assert (out.reference, float(out.ppm[fluid].mean())) == ("my ventricles", pytest.approx(0, abs=1e-7))
    with pytest.raises(ValueError, match="holds no voxel of the mask"):
        relative_to(chi, ~chi.mask, "air")


def test_no_reference_is_the_map_itself():
    """Nothing changes, and the map says that it has no reference."""
    chi, _, _ = head()
    assert NoReference()(chi) is chi
    assert chi.reference == "none"

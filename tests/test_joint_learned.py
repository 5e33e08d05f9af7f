"""A network for the total field: what holds whatever its weights, and how it refuses."""

from dataclasses import replace

import pytest
import torch
from network_cases import random_weights

from k2chi.data import Field, Grid, Scan
from k2chi.invert.learned import arranged, canonical, refined
from k2chi.invert.problem import problem
from k2chi.joint import LearnedTotal
from k2chi.measure.quality import nrmse
from k2chi.nets import AdaptiveTVConfig, UnrolledConfig
from k2chi.nets.weights import Card, trained
from k2chi.phantom import Sphere

CONFIG = UnrolledConfig(2, (4, 6), 1, total=True, start=12)
NETWORKS = {"unrolled": CONFIG, "adaptive": AdaptiveTVConfig(2, 4, (4, 6), 1, total=True, start=12)}
CARD = Card("mine", CONFIG, "total", (0.4, 2.5), 4.0, "cubes", 10, 0.1, "cpu", "none", "none", 2.0, 1.5)
GRID = Grid.of((28, 26, 22), (1.0, 1.1, 1.4), (0.1, 0.3, 0.95))


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def method(tmp_path_factory, request):
    """Weights drawn at random, small enough that data consistency still leads."""
    card = replace(CARD, network=request.param)
    return LearnedTotal(random_weights(tmp_path_factory.mktemp("w") / "a.safetensors", card))


def scene(air_ppm=9.4):
    """A sphere in a ball of tissue, air beside it; closed-form fields, and where the sphere lies."""
    zero = Sphere(radius_mm=10.0, chi_ppm=1.0, centre_mm=(0.0, 0.0, 0.0))
    near = Sphere(radius_mm=4.0, chi_ppm=0.2, centre_mm=(2.0, -1.0, 1.0))
    air = Sphere(radius_mm=3.0, chi_ppm=air_ppm, centre_mm=(0.0, 1.0, 14.0))
    mask = zero.source(GRID) > 0.5
    ppm = (near.field(GRID) + air.field(GRID)).float() * mask
    return Field(ppm, mask, GRID, Scan((0.01, 0.02), 3.0)), near.source(GRID).float() * mask


def gap(a, b):
    return float((a - b).norm() / b.norm())


def test_a_map_on_the_scans_grid_zero_outside(method):
    total, _ = scene()
    chi = method(total)
    assert chi.ppm.shape == GRID.shape
    assert not chi.ppm[~total.mask].any()
    assert not chi.sd_ppm[~total.mask].any()
    assert chi.sd_ppm[total.mask].min() > 0
    assert chi.misfits == ()
    assert torch.equal(method(total).ppm, chi.ppm)


def test_turning_array_and_b0_together_turns_the_map(method):
    total, _ = scene()

    def turned(x):
        return x.permute(2, 0, 1).contiguous()

    (n, v, b) = (GRID.shape, GRID.voxel_mm, GRID.b0_dir)
    grid = Grid.of((n[2], n[0], n[1]), (v[2], v[0], v[1]), (b[2], b[0], b[1]))
    other = Field(turned(total.ppm), turned(total.mask), grid, total.scan)
    a, c = method(total), method(other)
    assert gap(c.ppm, turned(a.ppm)) < 1e-3
    assert gap(c.sd_ppm, turned(a.sd_ppm)) < 1e-3


@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_field_without_sources_has_no_map(method, constant):
    """A constant is what the frequency of the receiver adds; NaN outside the mask does no harm."""
    total, _ = scene()
    flat = torch.where(total.mask, torch.full_like(total.ppm, constant), torch.nan)
    assert method(replace(total, ppm=flat)).ppm.abs().max() < 1e-6


def test_the_map_of_four_times_the_field_is_four_times_the_map(method):
    """And its standard deviation, noise included."""
    total, _ = scene()
    total = replace(total, noise_ppm=torch.full(GRID.shape, 0.01))
    more = replace(total, ppm=4 * total.ppm, noise_ppm=torch.full(GRID.shape, 0.04))
    one, four = method(total), method(more)
    torch.testing.assert_close(four.ppm, 4 * one.ppm, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(four.sd_ppm, 4 * one.sd_ppm, rtol=1e-3, atol=1e-5)
    assert four.sd_ppm[total.mask].min() >= 1.5 * 0.04 * 0.999


def test_a_constant_offset_changes_nothing(method):
    """Only its rounding is left, which the start must not make larger."""
    total, _ = scene()
    assert gap(method(replace(total, ppm=total.ppm + 0.2)).ppm, method(total).ppm) < 1e-3


def test_refinement_moves_the_background_along(method):
    """Without the sources outside, steps on the data would put the air's field into the map."""
    total, _ = scene()
    assert gap(total.ppm, scene(air_ppm=0.0)[0].ppm) > 2
    p = problem(total, inside=True)
    given = arranged(p, canonical(p.grid))
    with torch.no_grad():
        answer = trained(method.weights).network.invert(given)
    along, alone = refined(answer, given, 40), refined(replace(answer, beyond=None), given, 40)
    assert not answer.beyond[given.support > 0].any()
    assert along.norm() < 0.5 * alone.norm()


def test_the_shipped_network_finds_a_sphere_beside_air():
    """Closed-form fields, oblique, near the rim: most of the contrast (measured 0.62; 43 %)."""
    grid = Grid.of((28, 26, 26), (2.4, 2.4, 2.6), (0.3, 0.2, 0.93))
    brain = Sphere(radius_mm=30.0, chi_ppm=1.0, centre_mm=(0.0, 0.0, 0.0))
    near = Sphere(radius_mm=9.0, chi_ppm=0.2, centre_mm=(0.0, 17.0, 0.0))
    air = Sphere(radius_mm=9.0, chi_ppm=9.4, centre_mm=(0.0, 0.0, 46.0))
    mask, source = brain.source(grid) > 0.5, near.source(grid).float()
    total = Field((near.field(grid) + air.field(grid)).float() * mask, mask, grid, Scan((0.01,), 3.0))
    chi = LearnedTotal()(total)
    core, rest = source > 0.99 * source.max(), (source == 0) & mask
    assert 0.57 < float(chi.ppm[core].mean() - chi.ppm[rest].mean()) / 0.2 < 1.1
    assert nrmse(chi.ppm, source * mask, mask) < 45.0
    assert chi.sd_ppm[mask].min() > 0


def test_weights_that_do_not_fit_are_refused(tmp_path):
    local = replace(CARD, network=replace(CONFIG, total=False), takes="local")
    with pytest.raises(ValueError, match=r"^the network mine takes the local field: use Learned$"):
        LearnedTotal(random_weights(tmp_path / "a.safetensors", local))(scene()[0])
    with pytest.raises(
        ValueError, match=r"^no weights 'nothing': the package has .*; or give a .safetensors"
    ):
        LearnedTotal("nothing")(scene()[0])
    with pytest.raises(ValueError, match="choose 0 or more"):
        LearnedTotal(refine=-1)

"""What a total-field inversion promises: sources inside found beside a background that is far stronger."""

from dataclasses import replace

import pytest
import torch

from k2chi.data import Field, Grid, Scan
from k2chi.joint import TotalFieldTV
from k2chi.joint.totalfield import trust
from k2chi.ops.box import faces, grown
from k2chi.ops.dipole import dipole
from k2chi.ops.finite import gradient, laplacian_symbol
from k2chi.phantom import Sphere

SCAN = Scan((0.01, 0.02), 3.0)
METHOD = TotalFieldTV(margin_mm=12.0, iterations=60)
GRID = Grid.of((48, 43, 40), (1.0, 1.0, 1.5))


def away(grid: Grid, centre: tuple[float, float, float]) -> torch.Tensor:
    """Distance of each voxel from a point [mm]."""
    a = torch.tensor(grid.affine, dtype=torch.float64)
    index = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in grid.shape), indexing="ij"), -1)
    return (index @ a[:3, :3].T + a[:3, 3] - torch.tensor(centre, dtype=torch.float64)).norm(dim=-1)


def scene(grid: Grid, inside_ppm: float = 0.2) -> tuple[Field, torch.Tensor]:
    """A ball of tissue with a small sphere near its rim, and a ball of air outside; closed-form fields."""
    mask = away(grid, (0, 0, 0)) < 16
    near = Sphere(radius_mm=4, chi_ppm=inside_ppm, centre_mm=(0.0, 10.0, 0.0))
    air = Sphere(radius_mm=5, chi_ppm=9.4, centre_mm=(0.0, 0.0, 24.0))
    ppm = (near.field(grid) + air.field(grid)).float() * mask
    return Field(ppm, mask, grid, SCAN), near.source(grid).float()


def contrast(chi: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> float:
    core, rest = source > 0.99 * source.max(), (source == 0) & mask
    return float((chi[core].mean() - chi[rest].mean()) / source.max())


@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), (0.3, 0.2, 0.93)])
def test_a_source_at_the_rim_is_not_taken_for_background(b0):
    """The air's field is many times the sphere's; the sphere keeps most of its contrast."""
    field, source = scene(replace(GRID, b0_world=b0))
    alone = scene(replace(GRID, b0_world=b0), inside_ppm=1e-9)[0]
    assert alone.ppm[field.mask].std() > 3 * (field.ppm - alone.ppm)[field.mask].std()
    chi = METHOD(field)
    assert 0.75 < contrast(chi.ppm, source, field.mask) < 1.05
    assert not chi.ppm[~field.mask].any()
    assert chi.updates[-1] < 0.02


def test_air_alone_leaves_the_inside_dark():
    """A background without sources inside gives a map far below that of the sphere."""
    silent, _ = scene(GRID, inside_ppm=1e-9)
    full, _ = scene(GRID)
    method = METHOD
    assert method(silent).ppm.norm() < 0.35 * method(full).ppm.norm()


def test_nothing_in_nothing_out_and_the_input_is_untouched():
    """A constant field has no source; NaN outside the mask does no harm."""
    field, _ = scene(GRID)
    flat = replace(field, ppm=torch.where(field.mask, torch.full_like(field.ppm, 0.3), torch.nan))
    before = flat.ppm.clone()
    assert replace(METHOD, iterations=5)(flat).ppm.abs().max() < 1e-6
    torch.testing.assert_close(flat.ppm, before, equal_nan=True)


def test_it_scales_with_the_field_and_its_strength():
    """c times the field with c times α gives c times the map, if the split scales along."""
    field, _ = scene(GRID)
    one = replace(METHOD, iterations=10)(field).ppm
    half = replace(METHOD, iterations=10, alpha=METHOD.alpha / 2, edge_ppm_per_mm=METHOD.edge_ppm_per_mm / 2)
    torch.testing.assert_close(half(replace(field, ppm=field.ppm / 2)).ppm, one / 2, rtol=1e-3, atol=1e-5)


def test_voxels_that_fit_badly_lose_their_say():
    """Wild values in a few voxels spoil the map without outlier weights, and much less with them."""
    field, source = scene(GRID)
    draw = torch.Generator().manual_seed(0)
    wild = (torch.rand(GRID.shape, generator=draw) < 0.01) & field.mask
    noisy = replace(field, ppm=field.ppm + 0.5 * wild)
    inside = field.mask

    def error(outlier: float) -> float:
        chi = replace(METHOD, outlier=outlier, iterations=200)(noisy).ppm
        return float((chi - source)[inside].std() / source[inside].std())

    assert error(5.0) < 0.6 * error(0.0)


def test_where_nothing_is_wrong_nothing_is_doubted_for_long():
    """Weights that follow every step follow what has not converged yet: edges are lost (0.42)."""
    field, source = scene(GRID)
    chi = replace(METHOD, iterations=150, tolerance=0.0)(field)
    off = (chi.ppm - source)[field.mask].std() / source[field.mask].std()
    assert off < 0.3


def test_five_iterations_are_the_over_relaxed_formula(monkeypatch):
    """Each split by the book: its copy z, its dual s, and ρKχ + (1 − ρ)z in place of Kχ, first step plain."""
    monkeypatch.setattr("k2chi.joint.totalfield.cg", lambda _, b, **more: torch.zeros_like(b))
    field, _ = scene(GRID)
    method = replace(METHOD, iterations=5, tolerance=0.0, outlier=0.0, relax=1.6)
    got = method.solve(field)
    grid = got.box.grid(field.grid)
    d, nabla, mask = dipole(grid), gradient(grid), got.box.take(field.mask)
    f = got.box.take(torch.where(field.mask, field.ppm, 0))
    f = torch.where(mask, f - f[mask].mean(), 0)
    limit = method.edge_ppm_per_mm * faces(grown(mask, method.gap_mm, grid.voxel_mm))
    mu1, mu2, mu3 = method.alpha / method.edge_ppm_per_mm, method.mu_data, 1e-4
    inverse = 1 / (mu1 * laplacian_symbol(grid.shape, grid.voxel_mm) + mu2 * got.kernel**2 + mu3)
    chi = s1 = s2 = z1 = z2 = torch.zeros_like(f)
    for k in range(5):
        rho = method.relax if k else 1.0
        v1, v2 = rho * nabla(chi) + (1 - rho) * z1 + s1, rho * d(chi) + (1 - rho) * z2 + s2
        s1 = v1 * (limit / v1.norm(dim=0).clamp_min(1e-30)).clamp_max(1)
        z1, z2 = v1 - s1, torch.where(mask, (f + mu2 * v2) / (1 + mu2), v2)
        s2 = v2 - z2
        right = mu1 * nabla.H(z1 - s1) + mu2 * d.H(z2 - s2) + mu3 * chi
        chi = torch.fft.irfftn(torch.fft.rfftn(right) * inverse, s=grid.shape)
    torch.testing.assert_close(got.ppm, chi, rtol=1e-3, atol=1e-4 * float(chi.abs().max()))


@pytest.mark.parametrize("setting", [{"relax": 1.0}, {"mu_data": 0.03}, {"edge_ppm_per_mm": 0.3}])
def test_only_speed_depends_on_the_splits(setting):
    """Other weights and no relaxation lead to the same map."""
    field, _ = scene(GRID)
    method = replace(METHOD, iterations=400, tolerance=0.0, outlier=0.0)
    one, other = (m(field).ppm[field.mask] for m in (method, replace(method, **setting)))
    assert (other - one).norm() < 0.1 * one.norm()


def test_tissue_grows_in_mm():
    """1.6 mm reach one voxel of 1 or 1.5 mm, and none of 2 mm."""
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    assert grown(mask, 1.6, (1.0, 1.0, 1.5)).sum() == 1 + 2 * 3 + 4  # faces, and the in-plane diagonals
    assert grown(mask, 1.6, (2.0, 2.0, 2.0)).sum() == 1
    assert faces(grown(mask, 1.0, (1.0, 1.0, 1.0))).sum() == 1


def test_trust_falls_with_the_square():
    """Full weight within the limit; a residual twice as far counts a quarter."""
    draw = torch.Generator().manual_seed(0)
    residual = torch.randn(20, 20, 20, generator=draw)
    residual[0, 0, 0] = 10.0
    mask = torch.ones(20, 20, 20, dtype=torch.bool)
    got = trust(residual, mask, limit=5.0)
    assert got[0, 0, 0] == pytest.approx(0.25, rel=0.1)
    assert got[mask & (residual.abs() < 4)].min() == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"alpha": 0.0},
        {"margin_mm": -1.0},
        {"gap_mm": -1.0},
        {"start": 0},
        {"iterations": 0},
        {"relax": 2.0},
        {"mu_data": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(bad):
    """When the value is made, not minutes later."""
    with pytest.raises(ValueError, match="TotalFieldTV"):
        TotalFieldTV(**bad)


def test_weights_outside_the_mask_do_not_matter():
    """Not even when they are not numbers."""
    field, _ = scene(GRID)
    wild = replace(field, weight=torch.where(field.mask, field.weight, torch.nan))
    method = replace(METHOD, iterations=3)
    torch.testing.assert_close(method(wild).ppm, method(field).ppm)

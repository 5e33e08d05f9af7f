"""Laws that every background removal keeps; fields are sums of closed-form spheres."""

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
import torch
from spheres import positions_mm

from k2chi.background import ISMV, LBV, PDF, RESHARP, SHARP, VSHARP, Background, WeakHarmonic
from k2chi.data import Field, Grid, Scan

SHORT = PDF(iterations=15, tolerance=0, margin_mm=20.0)
LONG = PDF(iterations=30, tolerance=0, margin_mm=25.0)
SPLIT = WeakHarmonic(iterations=12, tolerance=0, start=15)
QUICK = {PDF: SHORT, WeakHarmonic: SPLIT}
EVERY = {m.__name__: QUICK.get(m) or m() for m in get_args(Background)} | {"LBV peeled": LBV(peel=1)}
every = pytest.mark.parametrize("method", EVERY.values(), ids=EVERY)
SCAN = Scan((0.010,), 3.0)
GRIDS = {
    "even": ((64, 72, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)),
    "uneven and odd": ((53, 59, 33), (1.2, 1.1, 1.9), (0.3, -0.4, 0.85)),
}
SEMI_MM = np.array([24.0, 28.0, 22.0])


def spheres(grid, centres, radii, chis):
    """Field [ppm] of spheres, (χ/3) a³ (3 cos²θ − 1)/r³; it uses no operator of k2chi."""
    p = torch.from_numpy(positions_mm(grid)).float()
    b, out = [float(c) for c in grid.b0_dir], torch.zeros(grid.shape)
    for centre, a, chi in zip(centres, radii, chis, strict=True):
        x, y, z = (p[i] - float(centre[i]) for i in range(3))
        r2 = x * x + y * y + z * z
        along = b[0] * x + b[1] * y + b[2] * z
        far = r2.clamp_min(a * a)
        out += (r2 > a * a) * (float(chi) / 3 * a**3) * (3 * along * along - r2) / (far * far * far.sqrt())
    return out


class Brain:
    """An ellipsoid with sources in it, bone beads one voxel away, three sinuses, and air far off."""

    def __init__(self, shape, edges, b0):
        self.grid = Grid.of(shape, edges, b0)
        p = positions_mm(self.grid)
        rho = np.sqrt(sum((p[i] / SEMI_MM[i]) ** 2 for i in range(3)))
        self.mask, self.core = torch.from_numpy(rho < 1), torch.from_numpy(rho < 0.75)
        x, y, z = torch.from_numpy(p).float()
        self.far = spheres(self.grid, [(0, 62, -20), (-20, -12, -66)], [14, 12], [9.4, 9.4])
        self.far += 0.01 * x - 0.02 * y + 0.015 * z
        rng = np.random.default_rng(0)
        n = np.arange(400) + 0.5
        height, turn = 1 - 2 * n / len(n), np.pi * (1 + 5**0.5) * n
        ring = np.sqrt(1 - height**2)
        shell = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], 1) * (SEMI_MM + 3)
        self.near = spheres(self.grid, shell, [2.0] * len(n), -2.1 * rng.uniform(0, 2, len(n)))
        self.near += spheres(
            self.grid, [(0, 40, -10), (14, 36, -16), (-18, -30, -22)], [9, 6, 6], [9.4, 9.4, 9.4]
        )
        self.local = spheres(
            self.grid,
            [(8, 3, 4), (-9, 5, 3), (3, -12, -5), (-4, 10, -8), (0, -14, 8), (12, -8, 0), (0, -22, 6)],
            [4, 4, 3, 3, 2.5, 3, 2],
            [0.2, 0.2, 0.3, 0.3, 0.4, -0.2, 0.4],
        )

    def total(self, ppm, **more):
        return Field(ppm * self.mask, self.mask, self.grid, SCAN, **more)


@pytest.fixture(scope="module", params=GRIDS.values(), ids=GRIDS)
def brain(request):
    return Brain(*request.param)


@pytest.fixture(scope="module")
def uneven():
    """Coarse, for laws that hold at any size."""
    return Brain((31, 35, 21), (2.0, 1.9, 2.8), (0.3, -0.4, 0.85))


def rms(x, mask, demean=False):
    v = x[mask] - (x[mask].mean() if demean else 0)
    return float(v.square().mean().sqrt())


# ---- what is background goes


HARMONIC = {
    "VSHARP": (VSHARP(), 3e-4),
    "SHARP": (SHARP(), 3e-4),
    "RESHARP": (RESHARP(), 3e-4),
    "ISMV": (ISMV(), 3e-4),
    "LBV": (LBV(), 3e-4),
    "PDF": (PDF(), 8e-3),
    "WeakHarmonic": (WeakHarmonic(iterations=30, tolerance=0), 8e-3),
    "PDF longer": (PDF(iterations=60, tolerance=0, margin_mm=25.0), 5e-3),
}


@pytest.mark.parametrize(("method", "share"), HARMONIC.values(), ids=HARMONIC)
def test_a_harmonic_field_is_removed(brain, method, share):
    """Two air spheres far off and linear ramps: what is left, of the field's rms.

    Measured on the even and the uneven grid: V-SHARP 0.002 and 0.002 %, SHARP 0.001 and 0.002 %, RESHARP
    0.001 and 0.001 %, iSMV 0.0001 %, LBV 0.001 and 0.005 %, PDF as it comes 0.38 and 0.62 %, after
    60 iterations 0.15 and 0.22 %; the weak-harmonic split after PDF 0.34 and 0.60 %.
    """
    out = method(brain.total(brain.far))
    left = rms(out.ppm, out.mask) / rms(brain.far, brain.mask)
    assert left < share


HARD = {
    "VSHARP": (VSHARP(), 16),
    "SHARP": (SHARP(5.0), 8),
    "RESHARP": (RESHARP(5.0), 13),
    "ISMV": (ISMV(5.0), 10),
    "LBV": (LBV(), 6),
    "PDF": (LONG, 10),
    "WeakHarmonic": (WeakHarmonic(iterations=30, tolerance=0, start=30), 8),
}


@pytest.mark.parametrize(("method", "percent"), HARD.values(), ids=HARD)
def test_bone_and_sinuses_at_the_mask(brain, method, percent):
    """Beads of bone one voxel off the mask and three sinuses, nine times the local field; noise of 0.5 ppb.

    Error of the local field in the core [% of it, means removed]. Measured on the even and the uneven grid:
    V-SHARP 14.7 and 13.6 %, nearly all of it its own loss of slow local field; SHARP 5.7 and 6.5 %, RESHARP
    11.1 and 10.3 %, iSMV 8.1 and 8.4 %, all of 5 mm; LBV 4.8 and 5.2 %; PDF after 30 iterations 7.4 and
    7.4 %, split 6.1 and 6.7 %.
    """
    scale = 9 * rms(brain.local, brain.mask) / rms(brain.near, brain.mask)
    noise = 5e-4 * torch.randn(brain.grid.shape, generator=torch.Generator().manual_seed(0))
    out = method(brain.total(scale * brain.near + brain.local + noise))
    core = brain.core & out.mask
    error = 100 * rms(out.ppm - brain.local, core, True) / rms(brain.local, core, True)
    assert core.sum() == brain.core.sum()
    assert error < percent


KEPT = {
    "VSHARP": (VSHARP(), 16),
    "SHARP": (SHARP(5.0), 6),
    "RESHARP": (RESHARP(5.0), 12),
    "ISMV": (ISMV(5.0), 9),
    "LBV": (LBV(), 4),
    "PDF": (LONG, 8),
    "WeakHarmonic": (WeakHarmonic(iterations=30, tolerance=0, start=30), 7),
}


@pytest.mark.parametrize(("method", "percent"), KEPT.values(), ids=KEPT)
def test_the_field_of_sources_inside_survives(brain, method, percent):
    """Error in the core without any background [% of the field, means removed].

    Measured on the even and the uneven grid: V-SHARP 14.2 and 12.8 %, SHARP 4.4 and 4.7 %, RESHARP 10.5 and
    9.4 %, iSMV 7.3 and 7.1 %, LBV 3.0 and 3.2 %, PDF 6.7 and 6.8 %, split 5.1 and 5.6 %.
    """
    out = method(brain.total(brain.local))
    core = brain.core & out.mask
    error = 100 * rms(out.ppm - brain.local, core, True) / rms(brain.local, core, True)
    assert error < percent


@every
def test_a_constant_offset_is_background(brain, method):
    """A centre frequency off by 0.1 ppm. PDF leaves 1.3 ppb after 15 iterations, the others nothing."""
    one = method(brain.total(brain.local)).ppm
    other = method(brain.total(brain.local + 0.1))
    assert rms(other.ppm - one, other.mask) < 2e-3


# ---- laws


@every
def test_zero_in_zero_out(uneven, method):
    assert not method(uneven.total(torch.zeros(uneven.grid.shape))).ppm.any()


@pytest.mark.parametrize(
    ("method", "close"),
    [
        (VSHARP(), 1e-4),
        (SHARP(), 1e-4),
        (RESHARP(tolerance=1e-6), 1e-3),
        (ISMV(tolerance=1e-6), 1e-3),
        (LBV(tolerance=1e-6), 1e-3),
        (SHORT, 8e-2),
    ],
    ids=["VSHARP", "SHARP", "RESHARP", "ISMV", "LBV", "PDF"],
)
def test_the_local_field_of_a_sum_is_the_sum_of_local_fields(uneven, method, close):
    """Exact but for the limits of conjugate gradients; where they stop depends on the field."""
    a, b = (method(uneven.total(f)).ppm for f in (uneven.local, 0.1 * uneven.near))
    both = method(uneven.total(uneven.local + 0.1 * uneven.near)).ppm
    assert float((both - a - b).norm() / (a.norm() + b.norm())) < close


@every
def test_scaling_the_field_scales_the_local_field(uneven, method):
    """And the strength of total variation, where there is one: it is stated in ppm."""
    one, stronger = method(uneven.total(uneven.near)).ppm, method
    if isinstance(method, WeakHarmonic):
        stronger = replace(method, alpha=16 * method.alpha, edge_ppm_per_mm=16 * method.edge_ppm_per_mm)
    torch.testing.assert_close(
        stronger(uneven.total(-16 * uneven.near)).ppm,
        -16 * one,
        atol=2e-3 * 16 * float(one.abs().max()),
        rtol=0,
    )


BLIND = {m: EVERY[m] for m in ("VSHARP", "SHARP", "RESHARP", "ISMV", "LBV")}


@pytest.mark.parametrize("method", BLIND.values(), ids=BLIND)
def test_direction_of_b0_does_not_matter(uneven, method):
    """Laplace's equation has no direction."""
    total = uneven.total(uneven.local + uneven.near)
    turned = replace(total, grid=replace(total.grid, b0_world=(1.0, 0.0, 0.0)))
    assert torch.equal(method(turned).ppm, method(total).ppm)


def test_pdf_needs_the_direction_of_b0(uneven):
    """A dipole has one: with B0 along x the same field is worse explained."""
    total = uneven.total(uneven.near)
    wrong = replace(total, grid=replace(total.grid, b0_world=(1.0, 0.0, 0.0)))
    method = SHORT
    right, other = (method(t).ppm for t in (total, wrong))
    assert float((other - right).norm() / right.norm()) > 0.2


@every
def test_turning_array_and_b0_together_turns_the_local_field(uneven, method):
    def turned(x):
        return x.permute(2, 0, 1).contiguous()

    g = uneven.grid
    (a, b, c), (u, v, w), (p, q, r) = g.shape, g.voxel_mm, g.b0_dir
    total = uneven.total(uneven.near)
    other = Field(turned(total.ppm), turned(total.mask), Grid.of((c, a, b), (w, u, v), (r, p, q)), SCAN)
    one = turned(method(total).ppm)
    assert float((method(other).ppm - one).norm() / one.norm()) < 1e-2


@every
def test_masks_and_flags(uneven, method):
    """The mask may shrink, never grow; the support is the mask that came in; nothing lies outside."""
    weight = torch.rand(uneven.grid.shape, generator=torch.Generator().manual_seed(2))
    total = uneven.total(uneven.near, weight=weight, magnitude=weight, noise_ppm=weight)
    out = method(total)
    assert out.local
    assert not total.local
    assert not (out.mask & ~uneven.mask).any()
    assert torch.equal(out.support, uneven.mask)
    assert not out.ppm[~out.mask].any()
    assert torch.equal(out.weight[out.mask], weight[out.mask])
    assert out.magnitude is weight
    assert out.noise_ppm is weight
    wide = torch.ones_like(uneven.mask)
    assert torch.equal(method(replace(total, support=wide)).support, wide)


@pytest.mark.parametrize(
    ("method", "rim_mm"),
    [
        (VSHARP(), 2.8),
        (VSHARP(smallest_mm=5.0), 5.0),
        (SHARP(5.0), 5.0),
        (RESHARP(8.0), 8.0),
        (ISMV(5.0), 5.0),
        (LBV(), 2.8),
        (LBV(peel=2), 8.4),
        (SHORT, 0.0),
        (SPLIT, 0.0),
    ],
    ids=[
        "VSHARP",
        "VSHARP 5 mm",
        "SHARP",
        "RESHARP",
        "ISMV",
        "LBV",
        "LBV peeled",
        "PDF",
        "WeakHarmonic",
    ],
)
def test_how_much_of_the_mask_is_lost(uneven, method, rim_mm):
    """A rim no thicker than stated; and PDF and the split keep all."""
    kept = method(uneven.total(uneven.near)).mask
    p = positions_mm(uneven.grid)
    room = SEMI_MM - rim_mm - 2.5
    inside = torch.from_numpy(sum((p[i] / room[i]) ** 2 for i in range(3)) < 1)
    assert (kept | ~inside).all()
    if rim_mm:
        assert kept.sum() < uneven.mask.sum()
    else:
        assert torch.equal(kept, uneven.mask)


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_what_lies_outside_the_mask_is_not_looked_at(uneven, method, bad):
    total = uneven.total(uneven.near, weight=uneven.mask.float())
    junk = torch.where(uneven.mask, 0.0, bad)
    other = replace(total, ppm=total.ppm + junk, weight=total.weight + junk)
    one, two = method(total), method(other)
    assert torch.equal(two.ppm, one.ppm)
    assert torch.equal(
        two.weight.where(two.mask, torch.zeros(())), one.weight.where(one.mask, torch.zeros(()))
    )


@every
def test_the_caller_keeps_what_he_gave(uneven, method):
    total = uneven.total(uneven.near, magnitude=torch.ones(uneven.grid.shape))
    tensors = [f.name for f in fields(total) if isinstance(getattr(total, f.name), torch.Tensor)]
    before = {name: getattr(total, name).clone() for name in tensors}
    method(total)
    for name, value in before.items():
        assert torch.equal(getattr(total, name), value), name


def test_pdf_ignores_voxels_of_weight_zero(uneven):
    """A false field there changes nothing elsewhere; with weight one it does."""
    here = torch.zeros_like(uneven.mask)
    here[14:17, 18:21, 9:11] = True
    assert uneven.mask[here].all()
    total = uneven.total(uneven.near)
    false = replace(total, ppm=total.ppm + 5.0 * here)
    silent, method = total.weight * ~here, SHORT
    one, two = (method(replace(t, weight=silent)).ppm for t in (total, false))
    torch.testing.assert_close(two[~here], one[~here])
    assert float((method(false).ppm - method(total).ppm)[~here].abs().max()) > 0.1


def test_the_field_away_from_the_mask_is_cropped_alike(uneven):
    """More air around moves nothing: each works on a box around the mask."""
    total = uneven.total(uneven.near)
    wide = [torch.nn.functional.pad(x, (7,) * 6) for x in (total.ppm, total.mask, total.weight)]
    grid = total.grid.window((-7, -7, -7), (45, 49, 35))
    for method in BLIND.values():
        out = method(Field(wide[0], wide[1], grid, SCAN, wide[2]))
        torch.testing.assert_close(out.ppm[7:38, 7:42, 7:28], method(total).ppm)


# ---- errors


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (VSHARP(), "no sphere of 2.8 mm fits.*LBV or PDF"),
        (SHARP(), "SHARP: no sphere of 6.0 mm fits.*smaller radius"),
        (RESHARP(), "RESHARP: no sphere of 10.0 mm fits.*smaller radius"),
        (ISMV(), "ISMV: no sphere of .* mm fits.*smaller radius"),
        (LBV(), "fuller mask or a smaller peel"),
    ],
    ids=["VSHARP", "SHARP", "RESHARP", "ISMV", "LBV"],
)
def test_a_mask_too_thin_is_refused(uneven, method, says):
    thin = uneven.mask.clone()
    thin[:, :, :10], thin[:, :, 11:] = False, False
    with pytest.raises(ValueError, match=says):
        method(replace(uneven.total(uneven.near), mask=thin))


@pytest.mark.parametrize("method", [SHARP(2.5), RESHARP(2.5), ISMV(2.5)], ids=["SHARP", "RESHARP", "ISMV"])
def test_a_sphere_below_the_voxel_is_refused(uneven, method):
    with pytest.raises(ValueError, match=r"2\.5 mm in voxels of 2\.8 mm is no sphere"):
        method(uneven.total(uneven.near))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VSHARP(smallest_mm=5, largest_mm=3), "smallest_mm ≤ largest_mm"),
        (lambda: VSHARP(smallest_mm=0), "0 < smallest_mm"),
        (lambda: VSHARP(step_mm=0), "step_mm > 0"),
        (lambda: PDF(iterations=0), "at least one iteration"),
        (lambda: PDF(margin_mm=0), "positive margin"),
        (lambda: LBV(peel=-1), "must not be negative"),
        (lambda: SHARP(radius_mm=0), "must be positive"),
        (lambda: SHARP(threshold=0), "between 0 and 1"),
        (lambda: RESHARP(radius_mm=-1), "must be positive"),
        (lambda: RESHARP(strength=-1), "at least 0"),
        (lambda: ISMV(radius_mm=0), "positive radius"),
        (lambda: WeakHarmonic(beta=0), "beta 0 must be positive"),
        (lambda: WeakHarmonic(iterations=0), "at least one iteration"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()

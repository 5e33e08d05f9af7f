"""Laws that every linear operator keeps, and closed-form truth for the dipole."""

from dataclasses import replace
from itertools import product
from math import cos, pi, radians, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from spheres import occupancy, positions_mm, sphere_field

from k2chi.data import Grid
from k2chi.ops import Linear, dipole, dipole_kernel, gradient, laplacian, spherical_mean
from k2chi.ops.finite import gradient_symbol, laplacian_symbol
from k2chi.ops.fourier import (
    CENTRED_FOURIER,
    FOURIER,
    centred_fft,
    convolution,
    crop_to,
    fast_size,
    fft,
    from_scanner,
    ifft,
    pad_to,
    padded_size,
    to_scanner,
)
from k2chi.ops.sphere import sphere_weights


def tilted(shape, edges, about_x=0.0, about_y=0.0):
    """A grid turned about the left-right axis, then about the front-back axis [rad]."""
    a, b = about_x, about_y
    turn_x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    turn_y = np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])
    rows = np.eye(4)
    rows[:3, :3] = turn_y @ turn_x @ np.diag(edges)
    rows[:3, 3] = -rows[:3, :3] @ (np.asarray(shape) // 2)
    return Grid(tuple(shape), tuple(map(tuple, rows.tolist())))


def _pad(grid):
    outer = padded_size(grid.shape, 1.4)
    return Linear(lambda x: pad_to(x, outer), lambda y: crop_to(y, grid.shape))


def _complex_convolution(grid):
    """Convolution with a kernel that has no symmetry, so that its multiplier is complex."""
    outer = padded_size(grid.shape, least=2)
    kernel = torch.fft.rfftn(torch.randn(outer, generator=torch.Generator().manual_seed(3)))
    return convolution(kernel, grid.shape, outer)


REAL = {
    "dipole continuous": dipole,
    "dipole continuous padded": lambda g: dipole(g, pad=2),
    "dipole green": lambda g: dipole(g, kind="green"),
    "dipole green padded": lambda g: dipole(g, kind="green", pad=1.5),
    "dipole discrete": lambda g: dipole(Grid.of(g.shape, g.voxel_mm), kind="discrete"),
    "dipole discrete padded": lambda g: dipole(Grid.of(g.shape, g.voxel_mm), kind="discrete", pad=2),
    "gradient": gradient,
    "laplacian": laplacian,
    "spherical mean": lambda g: spherical_mean(g, 1.7),
    "pad": _pad,
    "convolution": _complex_convolution,
    "divergence of gradient": lambda g: gradient(g).H @ gradient(g),
}
COMPLEX = {"fourier": FOURIER, "centred fourier": CENTRED_FOURIER}

size, edge, angle = st.integers(3, 9), st.floats(0.5, 2.0), st.floats(-1.5, 1.5)
anywhere = {
    "shape": st.tuples(size, size, size),
    "edges": st.tuples(edge, edge, edge),
    "a": angle,
    "b": angle,
    "seed": st.integers(0, 2**16),
}


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
@given(**anywhere)
@settings(max_examples=20, deadline=None)
def test_adjoint_by_dot_product_and_autograd(make, shape, edges, a, b, seed):
    """<A x, y> = <x, A.H y>, and autograd finds that same adjoint, on odd, uneven and tilted grids."""
    torch.manual_seed(seed)
    op = make(tilted(shape, edges, a, b))
    x = torch.randn(2, *shape, requires_grad=True)
    y = torch.randn_like(op(x))
    ax, aty = op(x.detach()), op.H(y)
    gap = float((ax * y).sum() - (x.detach() * aty).sum())
    assert abs(gap) < 1e-5 * float(ax.norm() * y.norm() + x.detach().norm() * aty.norm())
    (found,) = torch.autograd.grad((op(x) * y).sum(), x)
    torch.testing.assert_close(found, op.H(y), rtol=1e-4, atol=1e-5 * float(found.abs().max()) + 1e-6)


@pytest.mark.parametrize("op", COMPLEX.values(), ids=COMPLEX)
@given(shape=anywhere["shape"], seed=anywhere["seed"])
@settings(max_examples=20, deadline=None)
def test_fourier_is_unitary(op, shape, seed):
    """The adjoint is the inverse, autograd agrees, and energy stays."""
    torch.manual_seed(seed)
    x = torch.randn(*shape, dtype=torch.complex64, requires_grad=True)
    y = torch.randn_like(x)
    torch.testing.assert_close(
        torch.vdot(y.flatten(), op(x).flatten()), torch.vdot(op.H(y).flatten(), x.flatten())
    )
    torch.testing.assert_close(op.H(op(x)), x)
    torch.testing.assert_close(op(x).norm(), x.norm())
    (found,) = torch.autograd.grad(torch.vdot(y.flatten(), op(x).flatten()).real, x)
    torch.testing.assert_close(found, op.H(y))


@pytest.mark.parametrize("shape", [(5, 6, 7), (4, 9, 3)])
def test_centred_fourier_is_the_sum_it_claims_to_be(shape):
    """Against the sum written out: both origins at n//2, odd sizes too."""
    x = torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    expected = x
    for axis, n in enumerate(shape):
        i = torch.arange(n, dtype=torch.float64) - n // 2
        matrix = torch.exp(-2j * pi * i[:, None] * i[None, :] / n) / n**0.5
        expected = torch.tensordot(matrix, expected, dims=([1], [axis])).movedim(0, axis)
    torch.testing.assert_close(CENTRED_FOURIER(x), expected)


def test_composition_applies_right_to_left():
    """(A @ B) x = A(B x) and (A @ B).H = B.H @ A.H, for operators that do not commute."""
    torch.manual_seed(0)
    m, n = torch.randn(4, 3), torch.randn(3, 5)
    a, b = Linear(lambda x: m @ x, lambda y: m.T @ y), Linear(lambda x: n @ x, lambda y: n.T @ y)
    x, y = torch.randn(5), torch.randn(4)
    torch.testing.assert_close((a @ b)(x), m @ (n @ x))
    torch.testing.assert_close((a @ b).H(y), n.T @ (m.T @ y))


def test_fast_sizes_are_the_smallest_that_qualify():
    """Even, at least n, no prime factor beyond 5, and no smaller size is."""

    def smooth(m):
        for p in (2, 3, 5):
            while m % p == 0:
                m //= p
        return m == 1

    for n in range(1, 400):
        assert fast_size(n) == next(m for m in range(n, 2 * n + 3) if m % 2 == 0 and smooth(m))
    assert padded_size((100, 101, 7), 2.0) == (200, 216, 16)
    assert padded_size((100, 101, 7), least=10) == (120, 120, 18)


# --- finite differences


def test_gradient_of_a_ramp_is_its_slope_per_mm():
    """Away from the wrap, with uneven voxels."""
    grid = Grid.of((8, 9, 10), (0.5, 1.0, 2.5))
    x, y, z = torch.from_numpy(positions_mm(grid)).float()
    inner = gradient(grid)(3 * x - 2 * y + 0.5 * z)[:, :-1, :-1, :-1]
    for got, slope in zip(inner, (3.0, -2.0, 0.5), strict=True):
        torch.testing.assert_close(got, torch.full_like(got, slope))


def test_laplacian_of_a_parabola():
    """∇²(x² + 2y² − 3z²) = 0 and ∇²x² = 2 away from the wrap, with uneven voxels; ∇² = −∇.H ∇ everywhere."""
    grid = Grid.of((8, 9, 10), (0.5, 1.0, 2.5))
    x, y, z = torch.from_numpy(positions_mm(grid)).float()
    inner = (slice(1, -1),) * 3
    got = laplacian(grid)(x**2 + 2 * y**2 - 3 * z**2)[inner]
    torch.testing.assert_close(got, torch.zeros_like(got), atol=1e-3, rtol=0)
    got = laplacian(grid)(x**2)[inner]
    torch.testing.assert_close(got, torch.full_like(got, 2.0), atol=1e-3, rtol=0)
    noise = torch.randn(grid.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(laplacian(grid)(noise), -(gradient(grid).H @ gradient(grid))(noise))


@pytest.mark.parametrize("shape", [(6, 7, 8), (5, 4, 9)])
def test_symbols_are_the_operators_in_fourier_space(shape):
    """Multiplying the half spectrum by the symbol does what the stencil does."""
    grid = Grid.of(shape, (0.7, 1.0, 2.0))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    for stencil, symbol in zip(gradient(grid)(x), gradient_symbol(shape, grid.voxel_mm), strict=True):
        spectrum = torch.fft.rfftn(x) * symbol
        torch.testing.assert_close(torch.fft.irfftn(spectrum, s=shape), stencil, atol=1e-5, rtol=1e-4)
    spectrum = torch.fft.rfftn(x) * laplacian_symbol(shape, grid.voxel_mm)
    torch.testing.assert_close(torch.fft.irfftn(spectrum, s=shape), -laplacian(grid)(x), atol=1e-4, rtol=1e-4)


# --- spherical means


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (0.9, 0.9, 3.0)])
@pytest.mark.parametrize("radius", [0.2, 2.0, 6.0])
def test_sphere_sums_to_one_and_has_its_radius_in_mm(edges, radius):
    """Weights sum to one; second moments are a ball's, r²/5, plus a voxel's own, the same on each axis."""
    w = sphere_weights(edges, radius).double()
    assert float(w.sum()) == pytest.approx(1, abs=1e-6)
    assert all(n % 2 for n in w.shape)
    if radius >= 2 * max(edges):
        moments = []
        for axis, v in enumerate(edges):
            mm = (torch.arange(w.shape[axis]) - w.shape[axis] // 2) * v
            moment = float((w.sum([a for a in range(3) if a != axis]) * mm.square()).sum())
            moments.append(moment)
        own = sum(v**2 for v in edges) / 36
        assert moments == pytest.approx([sum(moments) / 3] * 3, rel=1e-5)
        assert moments[0] == pytest.approx(radius**2 / 5 + own, rel=0.05)


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)])
def test_spherical_mean_keeps_harmonic_functions(edges):
    """The mean of a harmonic function over a sphere is its value at the centre; that of x² is not."""
    grid = Grid.of((41, 41, 25), edges)
    x, y, z = torch.from_numpy(positions_mm(grid))
    source = torch.sqrt((x - 5) ** 2 + (y + 60) ** 2 + (z - 40) ** 2)
    harmonic = {"ramp": x - 2 * y + z, "xyz": x * y * z / 50, "1/r": 3000 / source}
    harmonic |= {"saddle": x * y + y * z, "along axes": x**2 + y**2 - 2 * z**2}
    mean, inner = spherical_mean(grid, 5.0), (slice(8, -8), slice(8, -8), slice(8, -8))
    for name, f in harmonic.items():
        error = (mean(f.float()) - f.float())[inner].abs().max() / f[inner].std()
        assert error < 2e-3, name
    assert (mean((x**2).float()) - x**2)[inner].mean() == pytest.approx(5**2 / 5, rel=0.05)


def test_spherical_mean_sees_zeros_beyond_the_array():
    """Against a convolution written elsewhere; a corner does not reach round to the other side."""
    grid = Grid.of((7, 10, 9), (1.0, 0.8, 2.0))
    x = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    expected = ndimage.convolve(x.numpy(), sphere_weights(grid.voxel_mm, 3.0).numpy(), mode="constant")
    torch.testing.assert_close(spherical_mean(grid, 3.0)(x), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


# --- the dipole


def full_spectrum(grid, x):
    """The continuous kernel on all of k-space, averaged over both signs of each Nyquist frequency."""
    kernel = np.zeros(grid.shape)
    for signs in product((1, -1), repeat=3):
        axes = [np.fft.fftfreq(n, v) for n, v in zip(grid.shape, grid.voxel_mm, strict=True)]
        for axis, sign, n in zip(axes, signs, grid.shape, strict=True):
            if n % 2 == 0:
                axis[n // 2] *= sign
        k = np.meshgrid(*axes, indexing="ij")
        k2 = sum(c**2 for c in k)
        k2[0, 0, 0] = np.inf
        kernel += (1 / 3 - sum(c * b for c, b in zip(k, grid.b0_dir, strict=True)) ** 2 / k2) / 8
    kernel[0, 0, 0] = 0
    return np.fft.ifftn(np.fft.fftn(x.double().numpy()) * kernel)


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 6, 10), (7, 9, 5), (8, 7, 6), (6, 6, 9)])
def test_half_spectrum_equals_full_spectrum(shape):
    """A trap on tilted grids of even size, which the adjoint law cannot see."""
    grid = tilted(shape, (1.0, 1.3, 0.7), 0.4, -0.3)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = full_spectrum(grid, x)
    assert np.abs(expected.imag).max() < 1e-12
    torch.testing.assert_close(
        dipole(grid)(x).double(), torch.from_numpy(expected.real), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["continuous", "green", "discrete", "expected"])
def test_kernel_has_no_mean_and_keeps_its_range(kind):
    """Zero at the origin, within −2/3 … 1/3 (those made in space within their ripple), zero at 54.7°."""
    kernel = dipole_kernel(Grid.of((24, 24, 24)), (24, 24, 24), kind)
    slack = 0.02 if kind in ("green", "expected") else 1e-6
    assert kernel[0, 0, 0] == 0
    assert kernel.max() < 1 / 3 + slack
    assert kernel.min() > -2 / 3 - slack
    assert float(kernel[4, 4, 4]) == pytest.approx(
        0, abs=1e-6 if kind not in ("green", "expected") else 0.02
    )  # k at the magic angle


BODY = Grid.of((128, 128, 128))
OBLIQUE = (0.3, 0.2, 0.93)


def sphere_error(grid, operator, radius_mm, margin_mm=None):
    """Relative error [%] of a sphere's field outside it and away from the array's corners; and the inside."""
    expected, distance = sphere_field(grid, radius_mm)
    got = operator(occupancy(grid, radius_mm))
    reach = min(n * v for n, v in zip(grid.shape, grid.voxel_mm, strict=True)) / 2 - 2
    margin = 1.5 * max(grid.voxel_mm) if margin_mm is None else margin_mm
    outside = (distance > radius_mm + margin) & (distance < reach)
    error = 100 * float((got - expected)[outside].norm() / expected[outside].norm())
    return error, float(got[distance < radius_mm - margin].mean())


@pytest.mark.parametrize(
    ("kind", "pad", "b0", "percent"),
    [
        ("continuous", 1.0, (0.0, 0.0, 1.0), 5.6),
        ("continuous", 2.0, (0.0, 0.0, 1.0), 0.45),
        ("green", 2.0, OBLIQUE, 0.25),
        ("expected", 2.0, OBLIQUE, 0.9),
        ("discrete", 2.0, (0.0, 0.0, 1.0), 0.35),
        ("continuous", 2.0, OBLIQUE, 2.0),
    ],
)
def test_sphere_field_is_accurate(kind, pad, b0, percent):
    """Closed-form sphere of 16 voxels in 128: within the known error of each kernel; no field inside."""
    grid = replace(BODY, b0_world=b0)
    error, inside = sphere_error(grid, dipole(grid, kind=kind, pad=pad), 16.0)
    assert error < percent
    assert inside == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "percent"), [("continuous", 2.0), ("green", 3.5), ("discrete", 1.5), ("expected", 3.5)]
)
def test_uneven_voxels_are_heeded(kind, percent):
    """0.8 × 0.8 × 2 mm: accurate; and a kernel that ignores the voxel size fails the same test."""
    grid = Grid.of((96, 96, 48), (0.8, 0.8, 2.0))
    assert sphere_error(grid, dipole(grid, kind=kind, pad=2), 12.0)[0] < percent
    ignorant = Grid.of(grid.shape, (1.0, 1.0, 1.0))
    assert sphere_error(grid, dipole(ignorant, kind=kind, pad=2), 12.0)[0] > 40


def test_tilted_slices_are_heeded():
    """The truth lives in scanner coordinates and knows nothing of `b0_dir`; assuming B0 along z fails."""
    grid = tilted((72, 64, 60), (1.0, 1.0, 1.0), 0.5, -0.3)
    assert sphere_error(grid, dipole(grid, kind="green", pad=2), 8.0)[0] < 0.6
    assert sphere_error(grid, dipole(Grid.of(grid.shape), kind="green", pad=2), 8.0)[0] > 40


def test_green_kernel_integrates_over_the_voxel():
    """One voxel's field against point dipoles spread over it, from the next voxel on; uneven, tilted."""
    grid = Grid.of((9, 10, 8), (0.8, 1.0, 1.7), (0.4, -0.5, 0.7))
    one = torch.zeros(grid.shape)
    one[4, 5, 4] = 1
    got = dipole(grid, kind="green", pad=2)(one)
    got = got - got[0, 0, 0]  # D = 0 at the origin of k-space shifts all voxels by the same amount
    fine = (np.arange(24) + 0.5) / 24 - 0.5
    r0, b = positions_mm(grid), np.asarray(grid.b0_dir)
    expected = np.zeros(grid.shape)
    for offset in product(fine, repeat=3):
        r = r0 - np.reshape(np.asarray(offset) * grid.voxel_mm, (3, 1, 1, 1))
        square = np.square(r).sum(0)
        expected += (3 * np.einsum("i,ixyz->xyz", b, r) ** 2 - square) / square**2.5
    expected *= grid.voxel_volume_mm3 / 24**3 / (4 * pi)
    expected -= expected[0, 0, 0]
    elsewhere = one == 0
    torch.testing.assert_close(
        got[elsewhere].double(), torch.from_numpy(expected)[elsewhere], atol=2e-5, rtol=2e-3
    )


def anatomy_error(kind, edges, b0, coarse=24):
    """Bodies three times finer than the voxels: error [%] of their mean field worked out from their means."""
    n, draw = 3 * coarse, np.random.default_rng(0)
    fine = Grid.of((n, n, n), tuple(v / 3 for v in edges), b0)
    smooth = ndimage.gaussian_filter(draw.standard_normal((n, n, n)), 1.5 * max(edges) / np.asarray(edges))
    bodies = torch.zeros(n, n, n)
    bodies[9:-9, 9:-9, 9:-9] = torch.from_numpy((smooth > 0) - 0.5).float()[9:-9, 9:-9, 9:-9]

    def means(x):
        return x.reshape(coarse, 3, coarse, 3, coarse, 3).mean((1, 3, 5))

    truth = means(dipole(fine, pad=2)(bodies))
    got = dipole(Grid.of((coarse,) * 3, edges, b0), kind=kind, pad=2)(means(bodies))
    return 100 * float((got - truth).norm() / truth.norm())


@pytest.mark.parametrize(
    ("edges", "b0"),
    [((1.0, 1.0, 1.0), (0.0, 0.5, 0.866)), ((1.0, 1.0, 2.5), (0.0, 0.0, 1.0)), ((1.0, 1.3, 2.0), OBLIQUE)],
)
def test_expected_kernel_explains_anatomy_best(edges, b0):
    found = {kind: anatomy_error(kind, edges, b0) for kind in ("expected", "green", "continuous")}
    assert found["expected"] < 0.99 * min(found["green"], found["continuous"]), found


@pytest.mark.parametrize("kind", ["continuous", "green", "expected"])
def test_array_and_b0_turn_together(kind):
    """Exchanging or mirroring axes of the array and of B0 does the same to the field, and nothing else."""
    shape, edges, b = (8, 10, 7), (0.8, 1.0, 1.5), (0.3, -0.5, 0.8)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    field = dipole(Grid.of(shape, edges, b), kind=kind)(x)
    for order in ((1, 2, 0), (2, 1, 0), (0, 2, 1)):
        turned = Grid.of(*(tuple(v[i] for i in order) for v in (shape, edges, b)))
        torch.testing.assert_close(
            dipole(turned, kind=kind)(x.permute(order)), field.permute(order), atol=1e-5, rtol=1e-4
        )
    mirrored = Grid.of(shape, edges, (-b[0], b[1], b[2]))
    torch.testing.assert_close(dipole(mirrored, kind=kind)(x.flip(0)), field.flip(0), atol=1e-5, rtol=1e-4)
    reversed_field = Grid.of(shape, edges, (-b[0], -b[1], -b[2]))
    torch.testing.assert_close(dipole(reversed_field, kind=kind)(x), field, atol=1e-6, rtol=1e-5)


def test_b0_direction_worked_by_hand():
    """Slices tilted by 30° about left-right: B0 is ½ along the second axis and √3/2 along the third.

    The affine sends axis 2 to (0, cos 30°, sin 30°) and axis 3 to (0, −sin 30°, cos 30°).
    """
    c, s = cos(radians(30)), sin(radians(30))
    rows = ((0.9, 0, 0, 0), (0, 1.1 * c, -2 * s, 0), (0, 1.1 * s, 2 * c, 0), (0, 0, 0, 1))
    grid = Grid((4, 4, 4), rows)
    assert grid.b0_dir == pytest.approx((0, 0.5, 0.8660254))
    assert grid.voxel_mm == pytest.approx((0.9, 1.1, 2.0))
    # A sagittal scan stores front-back, feet-head, left-right: B0 lies along the second axis.
    sagittal = Grid((4, 4, 4), ((0, 0, 1, 0), (-1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)))
    assert sagittal.b0_dir == pytest.approx((0, 1, 0))
    # Stored head to feet: the sign of that component turns.
    flipped = Grid((4, 4, 4), ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, -1, 0), (0, 0, 0, 1)))
    assert flipped.b0_dir == pytest.approx((0, 0, -1))


def test_discrete_kernel_refuses_oblique_b0():
    """It is defined for B0 along an array axis, and says what to use instead."""
    with pytest.raises(ValueError, match="use continuous or green"):
        dipole(Grid.of((6, 6, 6), b0_dir=OBLIQUE), kind="discrete")


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["continuous", "green"])
def test_same_field_on_the_gpu(kind):
    """Device follows the argument, and the numbers agree."""
    grid = tilted((40, 31, 26), (1.0, 1.2, 2.0), 0.3, 0.1)
    x = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    there = dipole(grid, "cuda", kind=kind)(x.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), dipole(grid, kind=kind)(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(5, 6, 7), (4, 8, 1)])
def test_kspace_as_scanners_store_it(shape):
    """A point at index n//2 has flat k-space for the scanner; where k-space is not centred, it says so."""
    x = torch.randn(2, *shape, dtype=torch.complex128)
    middle = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    stored = centred_fft(x)
    torch.testing.assert_close(ifft(from_scanner(stored, middle)), x)
    torch.testing.assert_close(to_scanner(fft(x), middle), stored)
    moved, off = torch.roll(stored, 1, -2), (middle[0], (middle[1] + 1) % shape[1], middle[2])
    torch.testing.assert_close(ifft(from_scanner(moved, off)), x)
    torch.testing.assert_close(to_scanner(fft(x), off), moved)

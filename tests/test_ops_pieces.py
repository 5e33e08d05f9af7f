"""Sources on pieces of voxels: against the same steps in image space."""

import pytest
import torch

from k2chi.data import Grid
from k2chi.ops.dipole import dipole_kernel, fitting
from k2chi.ops.fourier import convolution
from k2chi.ops.pieces import Division, Pieces, pieces_of

SHAPE = (6, 9, 8)
OBLIQUE = (0.3, -0.4, 0.866)
each = pytest.mark.parametrize("parts", [(1, 1, 1), (1, 1, 3), (2, 1, 1), (1, 2, 2), (2, 3, 1), (4, 1, 2)])


def made(parts, b0=OBLIQUE):
    pieces = Pieces(Grid.of(SHAPE, (1.0, 1.3, 2.0), b0), parts)
    fine = pieces.grid
    return pieces, convolution(dipole_kernel(fine, fine.shape, fitting(fine)), fine.shape, fine.shape)


def rough(shape, seed=0):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


def means(x, parts):
    """Mean over pieces, by strides."""
    a, b, c = parts
    picks = [x[..., i::a, j::b, k::c] for i in range(a) for j in range(b) for k in range(c)]
    return torch.stack(picks).mean(0)


@each
def test_the_field_of_a_voxel_is_the_mean_over_its_pieces(parts):
    """u, gathered over aliases, is D and then the mean."""
    pieces, d = made(parts)
    chi = rough(pieces.grid.shape)
    found = pieces.volume(pieces.gathered(pieces.u * pieces.spectrum(chi)), SHAPE)
    torch.testing.assert_close(found, means(d(chi), parts), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(pieces.averaged(chi), means(chi, parts))
    torch.testing.assert_close(means(pieces.repeated(rough(SHAPE)), parts), rough(SHAPE))


@each
def test_what_the_field_wants_of_the_pieces_is_the_adjoint(parts):
    pieces, d = made(parts)
    chi, left = rough(pieces.grid.shape), rough(SHAPE, 1)
    one = float((means(d(chi), parts) * left).sum())
    assert float((chi * pieces.pulled(left)).sum()) == pytest.approx(one, rel=1e-3)


@each
def test_division_solves_the_equation(parts):
    """(l/T + μ DAᵀAD)χ = r/T + μ DAᵀz, with μ so large that data and the rest weigh alike."""
    pieces, d = made(parts)
    mu = 3.0
    rest = 0.05 * pieces.laplacian() + 0.02
    r, z = rough(pieces.grid.shape), rough(SHAPE, 1)
    chi, field = Division(pieces, rest, mu)(r, z)
    torch.testing.assert_close(field, means(d(chi), parts), atol=1e-4, rtol=1e-3)
    own = pieces.volume(rest * pieces.spectrum(chi), pieces.grid.shape)
    pull = d(pieces.repeated(z - means(d(chi), parts)))
    assert float((own - r - mu * pull).norm() / r.norm()) < 1e-4


def test_the_laplacian_may_be_in_other_units():
    pieces, _ = made((1, 1, 2))
    torch.testing.assert_close(pieces.laplacian((0.5, 0.65, 0.5)), 4 * pieces.laplacian())


def test_long_edges_are_cut_and_cubes_where_b0_points():
    assert pieces_of((0.6, 0.6, 2.0), (0, 0, 1)) == (1, 1, 3)
    assert pieces_of((0.9, 0.9, 1.5), (0, 0, 1)) == (1, 1, 2)
    assert pieces_of((3.0, 0.5, 0.5), (0, 0, 1)) == (4, 1, 1)
    assert pieces_of((1.0, 1.0, 1.0), (0, 0, 1)) == (1, 2, 2)
    assert pieces_of((1.0, 1.0, 1.1), (0.8, 0.1, 0.5)) == (2, 1, 2)


def test_pieces_that_cannot_be_are_refused():
    for parts in ((2, 2, 2), (0, 1, 1), (1, 5, 1)):
        with pytest.raises(ValueError, match="1 to 4 for each axis, and 1 for one"):
            Pieces(Grid.of(SHAPE), parts)

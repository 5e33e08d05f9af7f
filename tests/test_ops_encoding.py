"""The encoding operator: adjoint by dot product and by autograd, and its normal operator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k2chi.ops.encoding import encoding, normal

size = st.integers(1, 7)


def complex_noise(*shape):
    return torch.randn(*shape, dtype=torch.complex128)


@given(
    shape=st.tuples(size, size, size),
    coils=st.integers(1, 4),
    along=st.booleans(),
    axes=st.sampled_from([(-3, -2, -1), (-2, -1)]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_adjoint_and_autograd(shape, coils, along, axes, seed):
    """<E x, y> = <x, Eᴴ y>, autograd finds that same adjoint, and EᴴE is both in turn."""
    torch.manual_seed(seed)
    maps, seen = complex_noise(coils, *shape), torch.rand(shape if along else (1, *shape[1:])) < 0.5
    e = encoding(maps, seen, axes)
    x, y = complex_noise(*shape), complex_noise(coils, *shape)
    torch.testing.assert_close(
        torch.vdot(e(x).flatten(), y.flatten()), torch.vdot(x.flatten(), e.H(y).flatten())
    )
    torch.testing.assert_close(normal(maps, seen, axes)(x), e.H(e(x)))
    x.requires_grad_()
    (found,) = torch.autograd.grad(torch.vdot(y.flatten(), e(x).flatten()).real, x)
    torch.testing.assert_close(found, e.H(y))
    torch.testing.assert_close(e(x).detach(), e(x.detach()))


def test_a_shifted_point_is_a_wave():
    """One voxel of one coil: k-space is exp(−2πi k·r/N) times the sensitivity, zero where not measured."""
    shape, at = (4, 5, 6), (1, 3, 2)
    maps, x = torch.zeros(2, *shape, dtype=torch.complex128), torch.zeros(shape, dtype=torch.complex128)
    maps[0], maps[1], x[at] = 2.0, 1j, 1.0
    seen = torch.ones(1, 5, 6, dtype=torch.bool)
    seen[0, 2, 4] = False
    k = encoding(maps, seen)(x)
    phase = sum(f * r / n for f, r, n in zip((3, 4, 5), at, shape, strict=True))
    wave = torch.exp(torch.tensor(-2j * torch.pi * phase, dtype=torch.complex128)) / 120**0.5
    assert k[0, 3, 4, 5] == pytest.approx(complex(2 * wave))
    assert k[1, 3, 4, 5] == pytest.approx(complex(1j * wave))
    assert not k[:, :, 2, 4].any()

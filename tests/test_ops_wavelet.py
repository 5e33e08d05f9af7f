"""The wavelet transform: orthonormal at every size, blind to slopes, and sparse on pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k2chi.ops.wavelet import averages, wavelet

size = st.integers(1, 19)


@given(shape=st.tuples(size, size, size), levels=st.integers(1, 4), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_the_adjoint_is_the_inverse(shape, levels, seed):
    """Both ways, by dot product, and for complex numbers in a batch."""
    torch.manual_seed(seed)
    w = wavelet(shape, levels)
    x, y = (torch.randn(2, *shape, dtype=torch.complex128) for _ in range(2))
    torch.testing.assert_close(w.H(w(x)), x)
    torch.testing.assert_close(w(w.H(x)), x)
    a, b = torch.vdot(w(x).flatten(), y.flatten()), torch.vdot(x.flatten(), w.H(y).flatten())
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slopes_leave_no_details(axis):
    """But where they wrap around; a constant leaves none anywhere and is 2^(3/2) larger in each level."""
    shape = (16, 24, 20)
    x = torch.arange(shape[axis], dtype=torch.float64).reshape([-1 if a == axis else 1 for a in range(3)])
    w = wavelet(shape, 1)(x.expand(shape).contiguous())
    details = w.narrow(axis, shape[axis] // 2, shape[axis] // 2 - 1)
    assert details.abs().max() < 1e-12
    flat = wavelet(shape, 2)(torch.ones(shape, dtype=torch.float64))
    corner = averages(shape, 2)
    assert corner == (4, 6, 5)
    torch.testing.assert_close(flat[:4, :6, :5], torch.full(corner, 8.0, dtype=torch.float64))
    assert flat.square().sum() == pytest.approx(float(flat[:4, :6, :5].square().sum()))


def test_few_numbers_hold_a_picture():
    """A ball of constant value: a tenth of the coefficients hold 98 % of its energy."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (30, 33, 32)], indexing="ij")
    ball = (x**2 + y**2 + z**2 < 0.4).float()
    w = wavelet((30, 33, 32), 3)(ball).flatten().square().sort(descending=True).values
    assert w[: len(w) // 10].sum() > 0.98 * w.sum()

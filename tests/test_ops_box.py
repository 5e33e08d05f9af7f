"""Boxes around a mask, and the image-space half of a total-variation step."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k2chi.data import Grid
from k2chi.ops.box import Box, box_around
from k2chi.ops.finite import differences, differences_adjoint
from k2chi.ops.fourier import fast_size
from k2chi.ops.shrink import TVSplit

# ---- boxes

start, extent = st.integers(-6, 8), st.integers(1, 14)


@given(st.tuples(start, start, start), st.tuples(extent, extent, extent))
@settings(max_examples=60, deadline=None)
def test_take_is_the_array_in_a_sea_of_zeros(start, shape):
    """Voxel i of the box is voxel start + i of the array, zero where there is none."""
    x = torch.rand(2, 7, 5, 9, generator=torch.Generator().manual_seed(0))
    sea = np.pad(x.numpy(), ((0, 0), *[(30, 30)] * 3))
    at = tuple(slice(30 + s, 30 + s + n) for s, n in zip(start, shape, strict=True))
    np.testing.assert_array_equal(Box(start, shape).take(x).numpy(), sea[:, *at])


@given(st.tuples(start, start, start), st.tuples(extent, extent, extent), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_put_is_the_adjoint_of_take(start, shape, seed):
    """<take x, y> = <x, put y>, and put after take keeps what the box covers, zero elsewhere."""
    draw = torch.Generator().manual_seed(seed)
    box = Box(start, shape)
    x, y = torch.rand(7, 5, 9, generator=draw).double(), torch.rand(*shape, generator=draw).double()
    back = box.put(y, (7, 5, 9))
    assert float((box.take(x) * y).sum()) == pytest.approx(float((x * back).sum()))
    covered = torch.zeros(7, 5, 9, dtype=torch.bool)
    for i, j, k in product(range(7), range(5), range(9)):
        covered[i, j, k] = all(s <= p < s + n for s, n, p in zip(start, shape, (i, j, k), strict=True))
    assert torch.equal(box.put(box.take(x), (7, 5, 9)), x * covered)


def test_types_stay():
    """Masks stay masks, complex stays complex."""
    box = Box((-1, 2, 0), (4, 4, 4))
    for dtype in (torch.bool, torch.complex64, torch.int16, torch.float64):
        x = torch.ones(5, 5, 5, dtype=dtype)
        assert box.take(x).dtype == dtype
        assert box.put(box.take(x), (5, 5, 5)).dtype == dtype


@pytest.mark.parametrize(("factor", "margin"), [(1.0, 0), (1.25, 0), (2.0, 0), (1.0, 7), (1.5, 1)])
def test_box_holds_the_mask_with_room_on_both_sides_at_a_fast_size(factor, margin):
    mask = torch.zeros(40, 31, 22, dtype=torch.bool)
    mask[3:20, 30, 0:9] = True
    mask[11, 5:31, 4] = True
    low, high = (3, 5, 0), (20, 31, 9)
    box = box_around(mask, factor, margin)
    for a in range(3):
        span = high[a] - low[a]
        assert box.shape[a] == fast_size(box.shape[a])
        assert box.shape[a] >= max(factor * span, span + 2 * margin)
        before, after = low[a] - box.start[a], box.start[a] + box.shape[a] - high[a]
        assert before >= margin
        assert after >= margin
        assert abs(before - after) <= 1
    assert box.take(mask).sum() == mask.sum()
    assert torch.equal(box.put(box.take(mask), (40, 31, 22)), mask)


def test_the_boxs_grid_is_where_the_box_lies():
    """A voxel keeps its place in the scanner, on a tilted grid too."""
    c, s = 0.8, 0.6
    affine = (
        (1.1, 0.0, 0.0, 5.0),
        (0.0, c * 0.9, -s * 1.6, -7.0),
        (0.0, s * 0.9, c * 1.6, 2.0),
        (0, 0, 0, 1.0),
    )
    grid, box = Grid((9, 8, 7), affine), Box((-2, 3, 1), (6, 10, 4))
    inner = box.grid(grid)
    assert inner.shape == box.shape
    assert inner.voxel_mm == pytest.approx(grid.voxel_mm)
    assert inner.b0_dir == pytest.approx(grid.b0_dir)
    here = np.asarray(inner.affine) @ [1, 2, 3, 1]
    np.testing.assert_allclose(here, np.asarray(grid.affine) @ [1 - 2, 2 + 3, 3 + 1, 1], atol=1e-12)


# ---- total variation


def by_the_book(x, s, threshold, edges):
    """v = ∇x + s, z = shrink(v, t), s ← v − z, ∇ᵀ(z − s), spelt out in double precision."""
    x, s, t = (np.asarray(a, dtype=np.float64) for a in (x, s, threshold))
    v = s + np.stack([(np.roll(x, -1, a) - x) / edges[a] for a in range(3)])
    length = np.sqrt(np.square(v).sum(0))
    z = v * np.maximum(1 - t / np.maximum(length, 1e-300), 0)
    s = v - z
    w = z - s
    return s, sum((np.roll(w[a], 1, a) - w[a]) / edges[a] for a in range(3))


THRESHOLDS = {
    "one for all": lambda draw, shape: torch.full(shape, 0.4),
    "one a voxel": lambda draw, shape: 1.5 * torch.rand(shape, generator=draw),
    "free in places": lambda draw, shape: (torch.rand(shape, generator=draw) > 0.3).float(),
}


@pytest.mark.parametrize("threshold", THRESHOLDS.values(), ids=THRESHOLDS)
@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.1)])
def test_the_step_is_the_formula(threshold, edges):
    """Three steps in a row, each from the dual the last one left; thresholds may differ voxel by voxel."""
    draw, shape = torch.Generator().manual_seed(5), (7, 6, 9)
    t = threshold(draw, shape)
    split, s = TVSplit(Grid.of(shape, edges), t), np.zeros((3, *shape))
    for _ in range(3):
        x = torch.randn(shape, generator=draw)
        got = split.step(x)
        s, expected = by_the_book(x, s, t, edges)
        np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)
        np.testing.assert_allclose(split.s.numpy(), s, atol=2e-6)


def test_zero_threshold_leaves_the_gradient_free():
    """No penalty: z = ∇x, and the dual stays at zero."""
    draw, shape = torch.Generator().manual_seed(6), (6, 5, 8)
    split = TVSplit(Grid.of(shape, (1.0, 2.0, 0.5)), torch.zeros(shape))
    x = torch.randn(shape, generator=draw)
    got = split.step(x)
    assert not split.s.any()
    np.testing.assert_allclose(
        got, by_the_book(x, np.zeros((3, *shape)), np.zeros(shape), (1.0, 2.0, 0.5))[1], atol=1e-4
    )


@pytest.mark.parametrize("stride", [False, True])
def test_compiled_and_plain_paths_agree(stride):
    """The path that graphics cards take is the same step; views with odd strides are fine."""
    draw, shape = torch.Generator().manual_seed(7), (7, 8, 5)
    grid, t = Grid.of(shape, (1.1, 0.9, 1.6)), torch.rand(shape, generator=draw)
    fast, plain = TVSplit(grid, t), TVSplit(grid, t)
    for _ in range(3):
        x = torch.randn(shape, generator=draw)
        if stride:
            x = torch.randn(shape[::-1], generator=draw).permute(2, 1, 0)
        torch.testing.assert_close(fast.step(x), _elsewhere(plain, x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(fast.s, plain.s.as_subclass(torch.Tensor), atol=1e-6, rtol=1e-5)


def _elsewhere(split, x):
    """The step as on another device: a tensor that says it is not on the CPU."""

    class Other(torch.Tensor):
        @property
        def device(self):
            return torch.device("meta")

    split.v = split.v.as_subclass(torch.Tensor)
    return split.step(x.as_subclass(Other)).as_subclass(torch.Tensor)


def test_the_dual_never_exceeds_the_threshold_and_x_is_not_written():
    draw, shape = torch.Generator().manual_seed(8), (6, 6, 6)
    t = torch.rand(shape, generator=draw)
    split, x = TVSplit(Grid.of(shape), t), 5 * torch.randn(shape, generator=draw)
    before = x.clone()
    for _ in range(4):
        split.step(x)
    assert (split.s.norm(dim=0) <= t * (1 + 1e-5)).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("relax", [1.0, 1.6])
def test_relaxed_steps_are_the_formula(relax):
    """v ← v + ρ (∇x − z) from the second step on; the first knows no z and is plain."""
    draw, shape, edges = torch.Generator().manual_seed(9), (6, 7, 5), (0.7, 1.3, 2.1)
    t = 1.5 * torch.rand(shape, generator=draw)
    grid = Grid.of(shape, edges)
    split, v, z = TVSplit(grid, t, relax), torch.zeros(3, *shape), torch.zeros(3, *shape)
    for k in range(4):
        x = torch.randn(shape, generator=draw)
        got = split.step(x).clone()
        v = v + (relax if k else 1.0) * (differences(x, edges) - z)
        s = v * (t / v.norm(dim=0)).clamp_max(1)
        z = v - s
        torch.testing.assert_close(split.s, s, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got, differences_adjoint(z - s, edges), atol=1e-4, rtol=1e-4)


def test_a_new_weight_scales_the_dual_and_forgets_the_copy():
    draw, shape = torch.Generator().manual_seed(10), (6, 7, 5)
    t, u = torch.rand(shape, generator=draw), torch.rand(shape, generator=draw)
    x, y = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
    split = TVSplit(Grid.of(shape), t, relax=1.7)
    split.step(x)
    s = split.s.clone()
    split.again(u, 0.4)
    torch.testing.assert_close(split.s, 0.4 * s)
    got, (_, expected) = split.step(y), by_the_book(y.numpy(), 0.4 * s.numpy(), u.numpy(), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)

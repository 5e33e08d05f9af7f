"""Solvers against dense linear algebra and problems whose solution is known."""

import pytest
import torch
from scipy.optimize import nnls

from k2chi.progress import listening
from k2chi.solve import admm, cg, descent, primal_dual

SEEDS = pytest.mark.parametrize("seed", range(3))


def matrix(rows, columns, seed, dtype=torch.float64):
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def soft(v, t):
    return v.sign() * (v.abs() - t).clamp_min(0)


# --- conjugate gradients


@SEEDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_cg_solves_what_dense_algebra_solves(seed, dtype):
    """Real and Hermitian systems, from zero, from a guess, and with a preconditioner."""
    m = matrix(12, 9, seed, dtype)
    a = m.mH @ m + 0.1 * torch.eye(9, dtype=dtype)
    b = matrix(9, 1, seed + 100, dtype)[:, 0]
    expected = torch.linalg.solve(a, b)
    guess, diagonal = matrix(9, 1, seed + 200, dtype)[:, 0], a.diagonal().real
    for more in ({}, {"x": guess}, {"precondition": lambda r: r / diagonal}):
        torch.testing.assert_close(cg(lambda v: a @ v, b, iterations=40, tolerance=1e-12, **more), expected)


def test_cg_needs_no_more_steps_than_unknowns():
    """Exact arithmetic ends after n steps; n steps suffice here, n − 1 do not."""
    m = matrix(8, 6, 0)
    a, b = m.T @ m, matrix(6, 1, 1)[:, 0]
    expected = torch.linalg.solve(a, b)
    torch.testing.assert_close(
        cg(lambda v: a @ v, b, iterations=6, tolerance=0), expected, rtol=1e-7, atol=1e-9
    )
    assert (cg(lambda v: a @ v, b, iterations=5, tolerance=0) - expected).norm() > 1e-3 * expected.norm()


def test_cg_of_a_singular_system_gives_its_shortest_solution():
    """Consistent, of rank 4 in 7 unknowns, from zero."""
    m = matrix(4, 7, 3)
    a, b = m.T @ m, m.T @ matrix(4, 1, 4)[:, 0]
    torch.testing.assert_close(
        cg(lambda v: a @ v, b, iterations=50, tolerance=1e-13), torch.linalg.pinv(a) @ b
    )


def test_cg_of_nothing_is_nothing():
    """A right-hand side of zeros, and a guess that is already right, end at once and are not divided by."""
    a = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    assert not cg(lambda v: a @ v, torch.zeros(3)).any()
    x = torch.tensor([1.0, -1.0, 2.0])
    torch.testing.assert_close(cg(lambda v: a @ v, a @ x, x=x), x)


def test_cg_leaves_the_guess_alone():
    """It works on a copy."""
    guess = torch.ones(3)
    cg(lambda v: 2 * v, torch.tensor([1.0, 2.0, 3.0]), x=guess)
    assert torch.equal(guess, torch.ones(3))


# --- descent


@SEEDS
@pytest.mark.parametrize("momentum", [False, True])
def test_descent_reaches_the_least_squares_solution(seed, momentum):
    """With and without momentum."""
    m, b = matrix(30, 5, seed), matrix(30, 1, seed + 1)[:, 0]
    step = 1 / float(torch.linalg.matrix_norm(m, 2)) ** 2
    x, _ = descent(lambda v: m.T @ (m @ v - b), torch.zeros(5).double(), step, 500, momentum=momentum)
    torch.testing.assert_close(x, torch.linalg.lstsq(m, b[:, None]).solution[:, 0], rtol=1e-6, atol=1e-8)


@SEEDS
def test_projected_descent_reaches_the_non_negative_solution(seed):
    """Against an active-set method."""
    m, b = matrix(20, 6, seed + 10), matrix(20, 1, seed + 20)[:, 0]
    step = 1 / float(torch.linalg.matrix_norm(m, 2)) ** 2
    expected, _ = nnls(m.numpy(), b.numpy())
    assert 0 < (expected == 0).sum() < len(expected)  # the constraint matters, and not to all
    x, _ = descent(
        lambda v: m.T @ (m @ v - b), torch.zeros(6).double(), step, 2000, project=lambda v: v.clamp_min(0)
    )
    torch.testing.assert_close(x, torch.from_numpy(expected), rtol=1e-6, atol=1e-8)


def test_momentum_is_worth_its_name():
    """On an ill-conditioned quadratic the same number of steps leaves far less error."""
    curvature = torch.logspace(-4, 0, 20, dtype=torch.float64)
    one = torch.ones(20, dtype=torch.float64)
    plain, _ = descent(lambda v: curvature * (v - one), 0 * one, 1.0, 300)
    fast, _ = descent(lambda v: curvature * (v - one), 0 * one, 1.0, 300, momentum=True)
    assert (fast - one).norm() < 0.5 * (plain - one).norm()


def test_momentum_worked_by_hand():
    """x: ½, ¾, then a step from ¾ + 0.281754 · ¼, where 0.281754 = (1.618034 − 1) / 2.193527."""
    x, _ = descent(lambda v: v - 1, torch.zeros(1).double(), 0.5, 3, momentum=True)
    assert float(x) == pytest.approx(0.9102193, abs=1e-6)


# --- splitting methods


def lasso_by_admm(m, b, weight, mu):
    inverse = torch.linalg.inv(m.T @ m + mu * torch.eye(m.shape[1], dtype=m.dtype))
    x, _ = admm(
        lambda z: inverse @ (m.T @ b + mu * z[0]),
        [lambda v: v],
        [lambda v: soft(v, weight / mu)],
        torch.zeros(m.shape[1], dtype=m.dtype),
        3000,
    )
    return x


def lasso_by_primal_dual(m, b, weight, _):
    x, _ = primal_dual(
        lambda v: m @ v,
        lambda y: m.T @ y,
        lambda y, s: (y - s * b) / (1 + s),
        lambda v, t: soft(v, t * weight),
        torch.zeros(m.shape[1], dtype=m.dtype),
        float(torch.linalg.matrix_norm(m, 2)),
        5000,
    )
    return x


@SEEDS
@pytest.mark.parametrize("solve", [lasso_by_admm, lasso_by_primal_dual])
def test_lasso_meets_its_optimality_conditions(solve, seed):
    """min ½‖Mx − b‖² + λ‖x‖₁: the residual's correlation is −λ sign(x) where x ≠ 0, and below λ elsewhere."""
    m, b, weight = matrix(25, 8, seed), matrix(25, 1, seed + 1)[:, 0], 4.0
    x = solve(m, b, weight, 10.0)
    x = torch.where(x.abs() < 1e-7, torch.zeros_like(x), x)
    slope = m.T @ (m @ x - b)
    used = x != 0
    assert 0 < used.sum() < 8  # neither all nor nothing
    torch.testing.assert_close(slope[used], -weight * x[used].sign(), rtol=1e-4, atol=1e-5)
    assert (slope[~used].abs() <= weight + 1e-6).all()


def difference(v):
    return v[1:] - v[:-1]


def difference_adjoint(y):
    return torch.cat([-y[:1], y[:-1] - y[1:], y[-1:]])


def tv_by_admm(y, weight):
    n, mu = len(y), 1.0
    d = torch.diag(torch.ones(n - 1), 1)[: n - 1].double() - torch.eye(n - 1, n, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.eye(n, dtype=torch.float64) + mu * d.T @ d)
    x, _ = admm(
        lambda z: inverse @ (y + mu * d.T @ z[0]), [difference], [lambda v: soft(v, weight / mu)], 0 * y, 2000
    )
    return x


def tv_by_primal_dual(y, weight):
    x, _ = primal_dual(
        difference,
        difference_adjoint,
        lambda p, s: p.clamp(-weight, weight),
        lambda v, t: (v + t * y) / (1 + t),
        0 * y,
        2.0,
        5000,
    )
    return x


@pytest.mark.parametrize("solve", [tv_by_admm, tv_by_primal_dual])
def test_total_variation_of_a_step_and_of_a_box(solve):
    """Known by hand: each edge pulls the flat pieces it joins together, by λ over their length."""
    step = torch.cat([torch.zeros(6), torch.ones(10)]).double()
    expected = torch.cat([torch.full((6,), 0.3 / 6), torch.full((10,), 1 - 0.3 / 10)]).double()
    torch.testing.assert_close(solve(step, 0.3), expected, rtol=1e-4, atol=1e-5)
    box = torch.cat([torch.zeros(5), torch.full((4,), 2.0), torch.zeros(8)]).double()
    expected = torch.cat([torch.full((5,), 0.08), torch.full((4,), 1.8), torch.full((8,), 0.05)]).double()
    torch.testing.assert_close(solve(box, 0.4), expected, rtol=1e-4, atol=1e-5)


def test_admm_with_two_splits_is_the_sum_of_both():
    """min ½‖x − b‖² + λ‖x‖₁ over x ≥ −1: soft threshold, then the bound; each split with its own weight."""
    b = torch.tensor([3.0, -0.5, -4.0, 1.2, -1.7], dtype=torch.float64)
    mu = (1.0, 3.0)
    x, _ = admm(
        lambda z: (b + mu[0] * z[0] + mu[1] * z[1]) / (1 + mu[0] + mu[1]),
        [lambda v: v, lambda v: v],
        [lambda v: soft(v, 1.0 / mu[0]), lambda v: v.clamp_min(-1)],
        torch.zeros_like(b),
        500,
    )
    torch.testing.assert_close(x, soft(b, 1.0).clamp_min(-1), rtol=1e-6, atol=1e-8)


# --- what all promise


def runs(tolerance):
    """Each iteration on a problem of its own that converges; returns the updates."""
    b = torch.tensor([1.0, 2.0, -1.0])
    yield descent(lambda v: v - b, torch.zeros(3), 0.5, 200, tolerance)[1]
    yield admm(
        lambda z: (b + z[0]) / 2, [lambda v: v], [lambda v: soft(v, 0.1)], torch.zeros(3), 200, tolerance
    )[1]
    yield primal_dual(
        lambda v: v,
        lambda y: y,
        lambda y, s: (y - s * b) / (1 + s),
        lambda v, t: v,
        torch.zeros(3),
        1.0,
        200,
        tolerance,
    )[1]


def test_tolerance_ends_the_iteration():
    """At the first update below it, and never without it; updates are told, relative and falling."""
    for updates in runs(1e-3):
        assert len(updates) < 200
        assert updates[-1] <= 1e-3 < min(updates[:-1])


def test_a_first_step_of_zero_is_not_the_end():
    """In small steps the dual grows for a while before x moves: min ½(x − 1)² + 0.01|x|."""
    x, updates = primal_dual(
        lambda v: v,
        lambda y: y,
        lambda y, s: (y - s) / (1 + s),
        lambda v, t: soft(v, 0.01 * t),
        torch.zeros(1),
        200.0,
        100_000,
        1e-7,
    )
    assert updates[0] == 0
    assert float(x) == pytest.approx(0.99, abs=1e-3)


def test_iterations_are_told_to_whoever_listens():
    """Name, steps done, and the end, also an early one."""
    told = []
    with listening(lambda what, done, of: told.append((what, done, of))):
        cg(lambda v: v, torch.ones(3), iterations=50, what="my system")
    assert told == [("my system", 0, 50), ("my system", 1, 50), ("my system", 50, 50)]

"""SENSE with total variation: the closed form of a step, the objective's minimum, and another solver."""

import dataclasses

import numpy as np
import pytest
import torch
from recon_cases import Case, grid_mask, measured

from k2chi.data import Grid, KSpace, Scan
from k2chi.ops.fourier import SPACE, fft
from k2chi.ops.variation import TVProx, variation_step
from k2chi.recon import CGSENSE, TVSENSE

SHAPE, EDGE = (9, 20, 16), (12.0, 9.0, 11.0)


def sparse_case(noise: float = 0.02) -> Case:
    """A third of the lines at random and a full centre, six coils."""
    seen = torch.rand(1, 1, *SHAPE[1:], generator=torch.Generator().manual_seed(3)) < 0.3
    return measured(
        seen | grid_mask(SHAPE, SHAPE[1:], 6),
        shape=SHAPE,
        edge=EDGE,
        count=6,
        noise=noise,
        te_s=(0.005,),
    )


def largest(case: Case) -> float:
    """max |Eᴴy|, written out."""
    folded = torch.fft.ifftn(case.kspace.data[0] * case.kspace.sampled[0], dim=SPACE, norm="ortho")
    return float((case.maps.conj() * folded).sum(0).abs().max())


def objective(case: Case, image: torch.Tensor, share: float) -> float:
    """½‖Ex − y‖² + λΣ|∇x| with differences per shortest edge of a voxel, written out in numpy."""
    x, v = image.numpy(), np.asarray(case.kspace.grid.voxel_mm)
    seen = case.kspace.sampled[0].numpy()
    missed = (
        seen * np.fft.fftn(case.maps.numpy() * x, axes=(1, 2, 3), norm="ortho") - case.kspace.data[0].numpy()
    )
    edges = np.stack([(np.roll(x, -1, a) - x) * v.min() / v[a] for a in range(3)])
    variation = np.sqrt((np.abs(edges) ** 2).sum(0)).sum()
    return float(0.5 * (np.abs(missed) ** 2).sum() + share * largest(case) * variation)


def test_a_bar_loses_height_as_the_closed_form_says():
    """One coil, everything read: a bar of w of n voxels loses 2λ/w inside and gains 2λ/(n − w) outside.

    Whatever its phase, along whichever axis: a difference of λ's share of both edges, spread on each side.
    """
    n, w, share, height = 12, 4, 0.05, 3 * complex(0.6, -0.8)
    for axis in (1, 2):
        shape = [4, 5, 5]
        shape[axis] = n
        bar = torch.zeros(n, dtype=torch.complex128)
        bar[3 : 3 + w] = height
        image = bar.reshape([-1 if a == axis else 1 for a in range(3)]).expand(shape).contiguous()
        k = KSpace(
            fft(image)[None, None],
            torch.ones(1, 1, *shape[1:], dtype=torch.bool),
            Grid.of(tuple(shape)),
            Scan((0.01,), 3.0),
        )
        ones = torch.ones(1, *shape, dtype=torch.complex128)
        found = TVSENSE(share, iterations=500, tolerance=0.0)(k, ones)[0].movedim(axis, 0)[:, 0, 0]
        lost = share * 3 * height / abs(height)
        expected = torch.where(bar.abs() > 0, height - 2 * lost / w, 2 * lost / (n - w))
        torch.testing.assert_close(found, expected.to(found), rtol=0, atol=1e-4)


@pytest.mark.parametrize("share", [1e-3, 1e-2])
def test_no_image_near_by_costs_less(share):
    """The minimum of a convex function: whatever is added, the objective written out grows."""
    case = sparse_case()
    found = TVSENSE(share, iterations=500, tolerance=0.0)(case.kspace, case.maps)[0]
    least = objective(case, found, share)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(*SHAPE, dtype=torch.complex128, generator=draw)
    other = CGSENSE()(case.kspace, case.maps)[0]
    for direction in (noise, found, 1j * found, other - found, case.truth[0] - found):
        step = 1e-2 * direction * found.norm() / direction.norm()
        for sign in (1, -1):
            assert objective(case, found + sign * step, share) > least * (1 + 1e-6)


def test_agrees_with_the_primal_dual_solver_of_sigpy():
    """The same objective, isotropic and weighted by voxels: its value to 1e-5, the image to 1e-3."""
    sp = pytest.importorskip("sigpy")
    case, share = sparse_case(), 5e-3
    lam = share * largest(case)
    ours = TVSENSE(share, iterations=300, tolerance=0.0)(case.kspace, case.maps)[0]
    v = case.kspace.grid.voxel_mm

    class Isotropic(sp.prox.Prox):
        """Three differences of a voxel shrink by their common length."""

        def _prox(self, alpha, g):
            size = np.sqrt((np.abs(g) ** 2).sum(0))
            return g * np.maximum(1 - alpha * lam / np.maximum(size, 1e-30), 0)

    voxels = sp.linop.Multiply((3, *SHAPE), np.reshape([min(v) / e for e in v], (3, 1, 1, 1)))
    # sigpy's differences look back, x[i] − x[i−1]: on the flipped image they are ours.
    flip = sp.linop.Flip(SHAPE)
    edges = voxels * sp.linop.FiniteDifference(SHAPE) * flip
    maps = sp.linop.Multiply(SHAPE, case.maps.numpy())
    shifts = sp.linop.FFT(maps.oshape, axes=(1, 2, 3), center=False)
    seen = sp.linop.Multiply(maps.oshape, case.kspace.sampled[0].numpy().astype(float))
    app = sp.app.LinearLeastSquares(
        seen * shifts * maps,
        case.kspace.data[0].numpy(),
        proxg=Isotropic(edges.oshape),
        G=edges,
        max_iter=1000,
        show_pbar=False,
    )
    theirs = torch.from_numpy(app.run())
    a, b = objective(case, ours, share), objective(case, theirs, share)
    assert a == pytest.approx(b, rel=1e-5)
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_few_samples_and_noise_come_nearer_to_the_truth_than_by_cg_sense():
    """A third of the lines and the noise on them: a fifth of the error is gone, or more."""
    case = sparse_case(noise=0.05)
    off = {
        type(m).__name__: float(
            (m(case.kspace, case.maps)[0] - case.truth[0])[case.mask].norm() / case.truth[0][case.mask].norm()
        )
        for m in (CGSENSE(), TVSENSE())
    }
    assert off["TVSENSE"] < 0.8 * off["CGSENSE"]


def test_one_step_is_the_same_on_every_device():
    """The compiled step and the one in tensor operations, from a dual that is not zero."""
    draw = torch.Generator().manual_seed(1)
    v = torch.randn(5, 4, 7, dtype=torch.complex64, generator=draw)
    edges = (1.0, 2.0, 1.5)
    prox = TVProx(v, 0.3, edges)
    u = torch.zeros(3, *v.shape, dtype=v.dtype)
    for _ in range(3):
        x = prox(v)
        other, u = variation_step(v, u, 0.3, edges)
        torch.testing.assert_close(prox.u, u, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(x, other, rtol=1e-5, atol=1e-6)
    assert u.abs().square().sum(0).max() == pytest.approx(0.09)


def test_settings_out_of_range_are_refused():
    """With what to choose."""
    with pytest.raises(ValueError, match="choose 0 or more, 1 or more"):
        TVSENSE(regularisation=-1.0)
    assert dataclasses.replace(TVSENSE(), regularisation=0.0).regularisation == 0

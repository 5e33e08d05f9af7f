"""Identities that tie the measures together, values worked by hand, and two scorers written by others."""

from math import inf, isnan, log10, sqrt

import numpy as np
import pytest
import torch
from qsm_ci import qsm_eval
from scipy.ndimage import gaussian_filter, gaussian_laplace
from skimage.metrics import normalized_mutual_information, peak_signal_noise_ratio, structural_similarity
from spheres import occupancy

from k2chi.data import Chi, Grid
from k2chi.measure import quality as q
from k2chi.measure.blind import sharpness_ppb_per_mm
from k2chi.measure.definitions import AGAINST_TRUTH
from k2chi.measure.roi import regions

GRID = Grid.of((48, 44, 40))


def maps(seed=0, noise=0.03):
    """Blobs of χ in a ball, a noisy and scaled copy, the ball, the blobs' labels; bone around the truth."""
    make = torch.Generator().manual_seed(seed)
    mask = occupancy(GRID, 14.0) > 0.5
    truth = torch.zeros(GRID.shape)
    labels = torch.zeros(GRID.shape, dtype=torch.int64)
    for label in range(1, 12):
        centre = tuple((torch.rand(3, generator=make) * 16 - 8).tolist())
        ball = occupancy(GRID, 3.5, centre if label < 11 else (1.0, 2.0, -3.0))
        labels[ball > 0.5] = label
        truth = truth * (1 - ball) + ball * (0.02 * label - 0.08)
    chi = 0.8 * truth + noise * torch.randn(GRID.shape, generator=make)
    return chi * mask, torch.where(mask, truth, torch.tensor(-2.0)), mask, labels * mask


CHI, TRUTH, MASK, LABELS = maps()


def test_perfect_is_perfect():
    """No error anywhere, full marks, slope one; bone outside the mask does not matter."""
    got = q.quality(TRUTH, TRUTH, MASK, LABELS)
    for name in (
        "nrmse",
        "nrmse_detrend",
        "rmse_ppb",
        "mae_ppb",
        "hfen",
        "nrmse_tissue",
        "nrmse_blood",
        "nrmse_dgm",
    ):
        assert got[name] == pytest.approx(0, abs=1e-5), name
    assert got["rmse_percent"] == pytest.approx(0, abs=1e-5)
    for name in ("correlation", "xsim", "xsim_uniform", "ssim", "ssim_challenge", "dgm_slope"):
        assert got[name] == pytest.approx(1, abs=1e-9), name
    assert got["dgm_deviation"] == pytest.approx(0, abs=1e-9)
    assert got["psnr_db"] == inf
    assert q.hfen(TRUTH * MASK, TRUTH, MASK) == 0
    assert q.xsim(TRUTH * MASK, TRUTH, MASK) == pytest.approx(1, abs=1e-9)


def test_detrended_error_follows_from_the_correlation():
    """100 √(1/ρ² − 1), and the plain error is never below 100 √(1 − ρ²)."""
    for noise in (0.001, 0.03, 0.3):
        chi, truth, mask, _ = maps(noise=noise)
        rho = q.correlation(chi, truth, mask)
        assert q.nrmse_detrend(chi, truth, mask) == pytest.approx(100 * sqrt(1 / rho**2 - 1), rel=1e-6)
        assert q.nrmse(chi, truth, mask) >= 100 * sqrt(1 - rho**2) - 1e-6


def test_scale_and_offset():
    """A map of half the size errs by 50 % and is perfect once detrended; an offset is none, in `quality`."""
    half = torch.where(MASK, 0.5 * TRUTH + 0.3, torch.zeros(()))
    assert q.nrmse(half, TRUTH, MASK) == pytest.approx(50, abs=1e-3)
    assert q.nrmse_detrend(half, TRUTH, MASK) == pytest.approx(0, abs=1e-3)
    assert q.correlation(-half, TRUTH, MASK) == pytest.approx(-1)
    assert q.region_slope(half, TRUTH, MASK, LABELS, q.DEEP_GREY) == pytest.approx(0.5, abs=1e-5)
    shifted = torch.where(MASK, TRUTH + 0.3, torch.zeros(()))
    assert q.rmse_ppb(shifted, TRUTH, MASK) == pytest.approx(0, abs=1e-3)
    assert q.xsim(shifted, TRUTH * MASK, MASK) < 0.2
    a, b = q.quality(CHI, TRUTH, MASK), q.quality(torch.where(MASK, CHI + 0.3, CHI), TRUTH, MASK)
    for name in ("nrmse", "nrmse_detrend", "correlation", "rmse_ppb", "xsim", "ssim", "psnr_db"):
        assert a[name] == pytest.approx(b[name], rel=1e-4), name


def test_worked_by_hand():
    """Two voxels: truth ±0.1, map (0.2, −0.1), demeaned ±0.15: error 50 %, 50 ppb; range 0.2, so 12.04 dB."""
    truth, chi = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[0, 0], truth[0, 0], chi[0, 0] = True, torch.tensor([0.1, -0.1]), torch.tensor([0.2, -0.1])
    assert q.nrmse(chi, truth, mask) == pytest.approx(50)
    assert q.rmse_ppb(chi, truth, mask) == pytest.approx(50)
    assert q.mae_ppb(chi, truth, mask) == pytest.approx(50)
    assert q.span(truth, mask) == pytest.approx(0.2)
    assert q.psnr_db(chi, truth, mask, 0.2) == pytest.approx(20 * log10(4))


def test_eroded_and_broken_voxels_count_as_zero():
    """Giving up the rim costs what zeros there cost, NaN likewise; coverage tells how much is missing."""
    rim = MASK & ~(occupancy(GRID, 12.0) > 0.5)
    zeros, broken = CHI.clone(), CHI.clone()
    zeros[rim], broken[rim] = 0, torch.nan
    whole, cut = q.quality(CHI, TRUTH, MASK, LABELS), q.quality(zeros, TRUTH, MASK, LABELS)
    assert cut == pytest.approx(q.quality(broken, TRUTH, MASK, LABELS))
    assert cut["coverage"] == pytest.approx(1 - float(rim.sum() / MASK.sum()))
    assert whole["coverage"] == 1


def test_agrees_with_the_leaderboards_scorer():
    """Where the definitions agree: all but the Gaussian XSIM."""
    theirs, _ = qsm_eval.score_arrays(
        CHI.double().numpy(), TRUTH.double().numpy(), MASK.numpy(), "chi", LABELS.numpy()
    )
    ours = q.quality(CHI, TRUTH, MASK, LABELS)
    pairs = {"xsim": "xsim_uniform", "dgm_linearity": "dgm_deviation"}
    for name in (
        *("nrmse", "nrmse_detrend", "nrmse_tissue", "nrmse_blood", "nrmse_dgm", "dgm_linearity"),
        *("correlation", "xsim", "hfen", "coverage"),
    ):
        assert ours[pairs.get(name, name)] == pytest.approx(theirs[name], rel=1e-4), name


def test_ssim_agrees_with_scikit_image():
    """Same window, constants and range; the mean in the mask."""
    a, t = (torch.where(MASK, m, torch.zeros(())) for m in (CHI, TRUTH))
    width = q.span(t, MASK)
    _, full = structural_similarity(
        *(m.double().numpy() for m in (a, t)),
        data_range=width,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert q.ssim(a, t, MASK, width) == pytest.approx(full[MASK.numpy()].mean(), abs=1e-6)


def test_challenge_ssim_written_out():
    """With scipy's filters: least of both made 0, largest 255, zeros outside, Gaussian σ 1.5 cut to 5³."""
    a, t = CHI.double().numpy(), TRUTH.double().numpy()
    m = MASK.numpy()
    low, high = min(a[m].min(), t[m].min()), max(a[m].max(), t[m].max())
    x, y = (np.where(m, 255 * (v - low) / (high - low), 0.0) for v in (a, t))

    def mean(v):
        return gaussian_filter(v, 1.5, truncate=1.0)

    mx, my, c1, c2 = mean(x), mean(y), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    full = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert q.ssim_challenge(CHI, TRUTH, MASK) == pytest.approx(full[m].mean(), abs=1e-6)


def test_an_outlier_lifts_the_challenge_ssim_but_not_xsim():
    """Why both are shown: one voxel of 5 ppm in the map stretches the range of the former."""
    spoilt = CHI.clone()
    spoilt[24, 22, 20] = 5.0
    assert q.ssim_challenge(spoilt, TRUTH, MASK) > q.ssim_challenge(CHI, TRUTH, MASK) + 0.02
    assert q.xsim(spoilt, TRUTH * MASK, MASK) < q.xsim(CHI, TRUTH * MASK, MASK)


def test_psnr_agrees_with_scikit_image():
    """Over the voxels of the mask, both demeaned, for the range that is stated beside it."""
    a, t = (m[MASK].double().numpy() for m in (CHI, TRUTH))
    got = q.quality(CHI, TRUTH, MASK)
    theirs = peak_signal_noise_ratio(t - t.mean(), a - a.mean(), data_range=got["range_ppm"])
    assert got["psnr_db"] == pytest.approx(theirs, rel=1e-5)


def test_mutual_information_agrees_with_scikit_image():
    """On maps whose ends hold more than the share that is set aside, so that both make the same bins."""
    everywhere = torch.ones_like(MASK)
    one, two = torch.randn(2, *GRID.shape, generator=torch.Generator().manual_seed(4)).clamp(-1.5, 1.5)
    mixed = (one + 0.5 * two).clamp(-1.5, 1.5)
    ours = q.mutual_information(mixed, one, everywhere)
    theirs = normalized_mutual_information(mixed.double().numpy(), one.double().numpy(), bins=64)
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_shift_scale_and_blur_are_told_apart():
    """A known shift leaves the demeaned errors at 0, a known scale is the slope, a blur takes detail."""
    inside = MASK & (TRUTH > -1)
    truth = torch.where(inside, TRUTH, torch.zeros(()))
    shifted = q.quality(truth + 0.05 * inside, truth, inside, LABELS)
    assert shifted["nrmse"] == pytest.approx(0, abs=1e-3)
    rms = float(truth[inside].double().square().mean().sqrt())
    assert shifted["rmse_percent"] == pytest.approx(100 * 0.05 / rms, rel=1e-4)
    assert shifted["ssim_challenge"] < 1
    scaled = q.quality(1.25 * truth, truth, inside, LABELS)
    assert (scaled["nrmse"], scaled["hfen"]) == pytest.approx((25, 25), rel=1e-4)
    assert scaled["dgm_slope"] == pytest.approx(1.25, rel=1e-5)
    assert scaled["nrmse_detrend"] == pytest.approx(0, abs=1e-3)
    blurred = torch.from_numpy(gaussian_filter(truth.numpy(), 1.5))
    got = q.quality(blurred, truth, inside, LABELS)
    # the truth's detail L t, blurred once more, is what is left of it: 100 ‖G L t − L t‖ / ‖L t‖
    detail = gaussian_laplace(truth.double().numpy(), 1.5, truncate=5.0)
    left = gaussian_laplace(np.where(inside, blurred.double().numpy(), 0.0), 1.5, truncate=5.0)
    at = inside.numpy()
    expected = 100 * np.linalg.norm((left - detail)[at]) / np.linalg.norm(detail[at])
    assert got["hfen"] == pytest.approx(expected, rel=1e-4)
    sharp = [sharpness_ppb_per_mm(Chi(m, inside, GRID)) for m in (blurred, truth)]
    assert sharp[0] < 0.7 * sharp[1]


def test_xsim_from_its_formula_written_out():
    """Window by window, cut at the array's edge."""
    make = torch.Generator().manual_seed(5)
    a, t = 0.1 * torch.randn(2, 6, 7, 8, generator=make, dtype=torch.float64)
    w = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    kernel, c1, c2 = np.einsum("i,j,k->ijk", w, w, w), 0.01**2, 0.001**2
    values = []
    for at in np.ndindex(a.shape):
        window = tuple(slice(max(i - 3, 0), i + 4) for i in at)
        part = tuple(slice(max(3 - i, 0), 3 + n - i) for i, n in zip(at, a.shape, strict=True))
        x, y, k = a[window].numpy(), t[window].numpy(), kernel[part] / kernel[part].sum()
        mx, my = (k * x).sum(), (k * y).sum()
        vx, vy, cov = (k * (x - mx) ** 2).sum(), (k * (y - my) ** 2).sum(), (k * (x - mx) * (y - my)).sum()
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    everywhere = torch.ones(a.shape, dtype=torch.bool)
    assert q.xsim(a, t, everywhere) == pytest.approx(np.mean(values), rel=1e-9)


def test_what_is_not_defined_is_nan():
    """A region that is not there, a constant truth, an uncorrelated map."""
    nothing = torch.zeros_like(LABELS)
    got = q.quality(CHI, TRUTH, MASK, nothing)
    for name in ("nrmse_tissue", "nrmse_blood", "nrmse_dgm", "dgm_slope"):
        assert isnan(got[name]), name
    flat = torch.zeros_like(TRUTH)
    assert isnan(q.nrmse(CHI, flat, MASK))
    assert q.nrmse_detrend(flat, TRUTH, MASK) == inf
    assert q.nrmse(flat, TRUTH, MASK) == pytest.approx(100)


def test_regions_against_numpy():
    """Count, mean, deviation and median of each label inside the mask; 0 is not a region."""
    chi = Chi(CHI, MASK, GRID)
    labels = LABELS.clone()
    labels[0, 0, 0] = 99  # outside the mask
    rows = {r.label: r for r in regions(chi, labels.float(), {3: "putamen", 50: "claustrum"})}
    assert sorted(rows) == [*range(1, 12), 50, 99]
    for label in range(1, 12):
        v, r = CHI.double().numpy()[(labels == label).numpy() & MASK.numpy()], rows[label]
        assert (r.voxels, r.in_mask) == (v.size, 1)
        assert (r.mean_ppm, r.sd_ppm, r.median_ppm) == pytest.approx((v.mean(), v.std(), np.median(v)))
    assert (rows[3].name, rows[4].name) == ("putamen", "4")
    assert (rows[50].voxels, rows[99].voxels, rows[99].in_mask) == (0, 0, 0)
    assert isnan(rows[50].mean_ppm)


def test_regions_refuse_another_grid():
    """Silently skipping a label map that does not fit has cost users of other tools weeks."""
    with pytest.raises(ValueError, match="resample labels to"):
        regions(Chi(CHI, MASK, GRID), LABELS[1:])


def test_every_measure_has_its_definition():
    calcified = torch.where(
        (LABELS == 0) & (TRUTH.abs() < 1) & (torch.arange(48)[:, None, None] < 20), 16, LABELS
    )
    assert set(q.quality(CHI, TRUTH, MASK, calcified * MASK)) == set(AGAINST_TRUTH)


def test_mutual_information():
    """2 for a map that follows from the truth, near 1 for one that has nothing to do with it."""
    other = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(5))
    noisy = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(6))
    assert q.mutual_information(3 + 2 * noisy, noisy, MASK) == pytest.approx(2, abs=0.02)
    assert q.mutual_information(other, noisy, MASK) < 1.1
    assert 1.05 < q.mutual_information(CHI, TRUTH, MASK) < 2


def test_eroded_regions_leave_out_the_edge():
    """An error at the edge of the nuclei alone does not count further in."""
    deep = MASK & q.among(LABELS, q.DEEP_GREY)
    edge = deep & q.dilate(~deep)
    got = q.quality(torch.where(edge, TRUTH + 0.5, TRUTH), TRUTH, MASK, LABELS)
    assert got["nrmse_dgm"] > 10
    assert got["nrmse_dgm_eroded"] == pytest.approx(0, abs=1e-3)

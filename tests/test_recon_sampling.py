"""Sampling patterns: counts, distances, lattices and complements, all seen from outside."""

import warnings
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k2chi.recon.sampling import CAIPI, PoissonDisk, Regular


def centred(pattern, echo=0):
    """The mask as pictures show it, zero frequency in the middle."""
    return torch.fft.fftshift(pattern.sampled[echo]).numpy()


def signed(n):
    return np.arange(n) - n // 2


@given(ny=st.integers(8, 256), nz=st.integers(8, 256), af=st.floats(2, 10), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_poisson_reaches_any_acceleration_at_any_size(ny, nz, af, seed):
    """The count is the nearest whole number; the full centre takes no more than half of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pattern = PoissonDisk(af, seed=seed)((ny, nz), 2)
    counts = pattern.sampled.sum((1, 2)).tolist()
    assert counts == [round(ny * nz / af)] * 2
    y, z = pattern.calibration
    block = centred(pattern)[ny // 2 - y // 2 :, nz // 2 - z // 2 :][:y, :z]
    assert block.all()
    assert y * z <= max(counts[0] / 2, 1)


@pytest.mark.parametrize("af", [3, 4, 5, 8])
def test_clinical_matrix(af):
    """Within 2 % of what was asked, and the centre as asked."""
    pattern = PoissonDisk(af)((205, 164))
    assert pattern.acceleration[0] == pytest.approx(af, rel=0.02)
    assert pattern.acceleration_ellipse[0] == pytest.approx(af * np.pi / 4, rel=0.02)
    assert pattern.calibration == (24, 24)


def test_small_square_that_others_refuse():
    pattern = PoissonDisk(4, calibration=(20, 20))((96, 96))
    assert pattern.acceleration[0] == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_lines_keep_their_distance(jitter):
    """No two lines outside the full centre are nearer than the mean of their spacings, less the jitter."""
    falloff, size = 3.0, (96, 80)
    pattern = PoissonDisk(6, (12, 12), falloff=falloff, jitter=jitter)(size, 3)
    assert pattern.spacing > 0.5
    radius = np.hypot(*np.meshgrid(*(signed(n) / (n / 2) for n in size), indexing="ij"))
    own = pattern.spacing * (1 + falloff * np.minimum(radius, 1)) * (1 - jitter)
    far = np.maximum(np.abs(signed(96))[:, None] / 6, np.abs(signed(80))[None] / 6) > 1.1
    for echo in range(3):
        y, z = np.nonzero(centred(pattern, echo) & far)
        apart = np.hypot(y[:, None] - y, z[:, None] - z)
        least = (own[y, z][:, None] + own[y, z]) / 2
        np.fill_diagonal(apart, np.inf)
        assert (apart >= least - 1e-9).all()


def test_density_falls_outward():
    pattern = PoissonDisk(5)((160, 160))
    radius = np.hypot(signed(160)[:, None], signed(160)[None]) / 80
    rings = [centred(pattern)[(radius >= a) & (radius < a + 0.2)].mean() for a in (0.2, 0.4, 0.6, 0.8)]
    assert all(inner > 1.2 * outer for inner, outer in pairwise(rings))
    assert not centred(pattern)[radius > 1.02].any()


def test_a_seed_is_a_pattern():
    one, again, other = (PoissonDisk(4, (16, 16), seed=s)((64, 64), 2).sampled for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_echoes_complement_each_other():
    """Echoes share far fewer lines than patterns of different seeds do, and together fill more of k-space."""
    together = PoissonDisk(6, (12, 12))((96, 96), 4)
    apart = [PoissonDisk(6, (12, 12), seed=s)((96, 96)) for s in range(4)]
    unrelated = type(together)(torch.cat([p.sampled for p in apart]), together.calibration)
    assert together.overlap < 0.6 * unrelated.overlap
    assert together.sampled.any(0).sum() > 1.15 * unrelated.sampled.any(0).sum()
    assert PoissonDisk(6, complementary=False)((96, 96), 3).overlap == 1


def test_centre_too_large_is_said():
    with pytest.warns(UserWarning, match=r"24×24 lines takes more than half of the 102 lines: 7×7 is taken"):
        PoissonDisk(10)((32, 32))


def test_too_few_lines_left_is_said():
    with pytest.warns(UserWarning, match="less than an acceleration of 2 needs"):
        pattern = PoissonDisk(2, partial_fourier=(0.625, 0.625))((64, 64))
    assert pattern.acceleration[0] > 2.5


def lattice(pattern):
    """Offsets from the zero frequency, among the lines of echo 0, without full centre."""
    mask = centred(pattern)
    return {(y, z) for y, z in product(*(range(-6, 7) for _ in range(2))) if mask[y + 16, z + 18]}


def test_lattices():
    """Regular and sheared lattices hold the zero frequency and are closed under their own steps."""
    assert lattice(Regular((3, 2), (0, 0))((32, 36))) == {
        (y, z) for y in range(-6, 7, 3) for z in range(-6, 7, 2)
    }
    sheared = lattice(CAIPI((2, 3), 1, (0, 0))((32, 36)))
    assert sheared == {(2 * i, i + 3 * j) for i in range(-3, 4) for j in range(-9, 9) if abs(i + 3 * j) <= 6}
    assert lattice(CAIPI((2, 2), 0, (0, 0))((32, 36))) == lattice(Regular((2, 2), (0, 0))((32, 36)))


@given(
    ny=st.integers(8, 120),
    nz=st.integers(8, 120),
    ry=st.integers(1, 4),
    rz=st.integers(1, 4),
    full=st.integers(0, 30),
    shear=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_regular_counts(ny, nz, ry, rz, full, shear):
    """One line in R₁R₂, and the block in full, whatever the size."""
    method = CAIPI((ry, rz), rz - 1, (full, full)) if shear else Regular((ry, rz), (full, full))
    pattern = method((ny, nz), 2)
    y, z = pattern.calibration
    assert (y, z) == (min(full, ny), min(full, nz))
    mask = centred(pattern)
    assert mask[ny // 2, nz // 2]
    block = (slice(ny // 2 - y // 2, ny // 2 - y // 2 + y), slice(nz // 2 - z // 2, nz // 2 - z // 2 + z))
    assert mask[block].all()
    outside = mask.copy()
    outside[block] = False
    assert outside.sum() <= (ny // ry + 1) * (nz // rz + 1)


def test_alternating_echoes_fill_k_space():
    """With one echo for each line of the cell, every line is measured once."""
    for method in (Regular((2, 3), (0, 0), alternate=True), CAIPI((2, 3), 2, (0, 0), alternate=True)):
        assert (method((24, 24), 6).sampled.sum(0) == 1).all()


@pytest.mark.parametrize("method", [Regular, CAIPI, PoissonDisk])
def test_shutter_and_partial_fourier(method):
    """Corners go with the shutter; a partial axis keeps its share, and its centre."""
    mask = centred(method(calibration=(8, 8), ellipse=True)((64, 48)))
    assert not mask[:6, :6].any()
    assert not mask[-6:, -6:].any()
    half = centred(method(calibration=(8, 8), partial_fourier=(0.75, 1.0))((64, 48)))
    assert not half[:16].any()
    assert half[16:20].any()
    assert half[28:36, 20:28].all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PoissonDisk(0.5), "acceleration 0.5 is out of range: choose 1 to 20"),
        (lambda: PoissonDisk(falloff=-1), "falloff"),
        (lambda: PoissonDisk(jitter=2), "jitter"),
        (lambda: Regular((0, 1)), "choose 1 to 12"),
        (lambda: Regular(calibration=(-1, 2)), "negative"),
        (lambda: Regular(partial_fourier=(0.5, 1)), "above 0.5"),
        (lambda: CAIPI((2, 3), 3), "shift 3 repeats a smaller one: choose 0 to 2"),
    ],
)
def test_settings_out_of_range(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_report_is_a_sentence():
    text = str(PoissonDisk(5)((120, 100), 2))
    assert "true acceleration 5.00 (3.9" in text
    assert "centre of 24×24 lines full" in text

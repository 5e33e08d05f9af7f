"""Raw data of a head: sums written out by hand, coils by closed form, noise, order and time of readouts."""

from dataclasses import replace
from math import tau

import numpy as np
import pytest
import torch

from k2chi.data import Grid, Lines
from k2chi.ops.fourier import from_scanner, ifft
from k2chi.phantom.coilarray import CoilArray
from k2chi.phantom.encoder import ramp_positions
from k2chi.phantom.head import Head
from k2chi.phantom.protocols import PROTOCOLS, Protocol, clock
from k2chi.phantom.rawscan import RawScan, RawSimulation
from k2chi.phantom.shapes import Sphere
from k2chi.phantom.trains import plan
from k2chi.recon.sampling import CAIPI, PoissonDisk, Regular
from k2chi.units import GAMMA_BAR_MHZ_PER_T

SPHERE = Sphere(30.0, 0.5, (0.0, 4.0, 14.0))
GRE = Protocol("test", (22, 20, 15), (8.0, 8.0, 9.0), (0.004, 0.008), 0.03, 15.0)
EPI = replace(GRE, te_s=(0.020,), train=3, spacing_s=0.003, ramp=0.15, tr_s=0.05)
PLAIN = RawScan(GRE, CoilArray(4), snr=0.0, fine_mm=0.0, shim_order=0)


def ball(grid: Grid, b0_tesla: float) -> Head:
    """A paramagnetic sphere in a ball of water; air around."""
    near = Sphere(80.0, 1.0, SPHERE.centre_mm).source(grid, 2)
    source = SPHERE.source(grid, 2)
    ones = torch.ones(grid.shape)
    return Head(
        grid,
        9.4 * (1 - near) + source,
        20 + 10 * source,
        ones,
        near,
        0 * ones,
        (near > 0.5).to(torch.int16),
        near > 0.99,
        b0_tesla,
    )


def placed(sim: RawSimulation, echo: int = 0) -> torch.Tensor:
    """Coil images by the plain inverse transform, averages added up, oversampling cut off."""
    e = sim.raw.encoding
    nx, ny, nz = e.matrix
    k = torch.zeros(sim.raw.coils, e.samples, ny, nz, dtype=torch.complex64)
    for b in sim.raw.lines(echo):
        forward = torch.where(b.reverse[:, None, None], b.data.flip(-1), b.data)
        for line, y, z in zip(forward, b.ky.tolist(), b.kz.tolist(), strict=True):
            k[:, :, y, z] += line
    images = ifft(from_scanner(k, (e.centre_sample, *e.centre[1:])))
    return images[:, nx - nx // 2 : nx - nx // 2 + nx]


def joined(blocks) -> Lines:
    """All blocks as one."""
    blocks = list(blocks)
    return Lines(
        *(
            torch.cat([getattr(b, n) for b in blocks])
            for n in ("data", "ky", "kz", "average", "shot", "reverse", "time_s")
        )
    )


@pytest.fixture(scope="module")
def gre() -> RawSimulation:
    """No noise, simulated on the acquired grid: images come back as they went in."""
    return PLAIN(ball)


def signal(sim: RawSimulation, t: float) -> torch.Tensor:
    """Magnetisation times sensitivity at the time t, written out again."""
    p, at = sim.truth, ball(sim.truth.grid, 3.0)
    e1, flip = np.exp(-sim.raw.facts["RepetitionTime"]), np.radians(15.0)
    m = at.m0 * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * torch.exp(-t * at.r2star_per_s)
    phase = tau * GAMMA_BAR_MHZ_PER_T * 3.0 * t * p.total_ppm + p.offset_rad
    return torch.polar(m, phase) * sim.maps.planes()


def test_cartesian_readouts_are_the_transform_of_the_images(gre: RawSimulation) -> None:
    """Odd and even sizes, no fine grid: the inverse transform gives S·M at each echo time."""
    for echo, t in enumerate(GRE.te_s):
        expected = signal(gre, t)
        assert float((placed(gre, echo) - expected).norm() / expected.norm()) < 1e-4


def test_a_paramagnetic_sphere_is_positive(gre: RawSimulation) -> None:
    """Above and below it along B0 the phase rises with the echo time, beside it it falls; by its own law."""
    first, second = placed(gre, 0), placed(gre, 1)
    turned = (second * first.conj()).sum(0).angle() / (tau * GAMMA_BAR_MHZ_PER_T * 3.0 * 0.004)
    grid = gre.truth.grid
    affine = torch.tensor(grid.affine, dtype=torch.float64)

    def at(x: float, y: float, z: float) -> float:
        p = torch.tensor([x, y, z, 1.0], dtype=torch.float64)
        i = torch.linalg.solve(affine, p)[:3].round().long().tolist()
        return float(turned[i[0], i[1], i[2]])

    pole, side = at(0, 4, 14 + 45), at(45, 4, 14)
    expected = 0.5 / 3 * (30 / 45) ** 3
    assert pole - side == pytest.approx(3 * expected, rel=0.2)
    assert pole > 0 > side


def test_epi_readouts_are_sums_at_their_own_moment() -> None:
    """Samples by brute force: decay and frequency at that readout's time, ramps, ghost, reversal, shots."""
    how = replace(PLAIN, protocol=EPI, ghost_rad=0.4, ghost_slope_rad=0.9, breathing_hz=3.0)
    sim = how(ball)
    lines = joined(sim.raw.lines(0))
    grid = sim.truth.grid
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in grid.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    position = torch.tensor(sim.raw.encoding.position, dtype=torch.float64)
    assert len(lines.ky) == 20 * 15
    assert lines.reverse.any()
    assert len(set(lines.shot.tolist())) == 7 * 15
    for n in (0, 1, 2, 57, 111, 298):
        ky, kz = int(lines.ky[n]), int(lines.kz[n])
        delay = 0.020 + (ky - 10) / 7 * 0.003
        start = int(lines.shot[n]) * 0.05
        assert float(lines.time_s[n]) == pytest.approx(start + delay, abs=1e-6)
        image = signal(sim, delay).to(torch.complex128)
        sign = -1.0 if lines.reverse[n] else 1.0
        image = image * torch.exp(0.5j * sign * (0.4 + 0.9 * x / 22))
        image = image * np.exp(1j * tau * 3.0 * np.sin(tau * start / 4) * delay)
        for sample in (3, 20, 40):
            k = sign * position[sample]  # a reversed readout runs the other way
            wave = torch.exp(-1j * tau * (k * x / 44 + (ky - 10) * y / 20 + (kz - 7) * z / 15))
            expected = (image * wave).sum((1, 2, 3)) / (44 * 20 * 15) ** 0.5
            error = (lines.data[n, :, sample] - expected).norm() / expected.norm()
            assert float(error) < 2e-3, (n, sample)


def turns(drifting: Lines, still: Lines) -> torch.Tensor:
    """Phase of each readout against the same one without the fault [rad]."""
    return (drifting.data * still.data.conj()).sum((1, 2)).angle().double()


@pytest.mark.parametrize("train", [1, 3])
def test_the_field_drifts_on_through_dummies_and_averages(train) -> None:
    """Phase 2π · drift · time of the pulse · time since the pulse, of every readout and navigator."""
    p = replace(GRE if train == 1 else EPI, te_s=(0.02,), tr_s=0.05, averages=2, dummies=7, alternate=True)
    still, drifting = (
        replace(PLAIN, protocol=p, coils=CoilArray(1), drift_hz_per_min=d)(ball).raw for d in (0.0, 6.0)
    )
    a, b = joined(drifting.lines(0)), joined(still.lines(0))
    pulse = 7 + a.average * p.shots() + a.shot
    since = a.time_s.double() - pulse * 0.05
    first = 0.02 - 0.003 * (20 // 2) / 7 if train > 1 else 0.02
    assert float(since.min()) == pytest.approx(first, abs=1e-5)
    expected = tau * 0.1 * pulse * 0.05 * since
    assert (turns(a, b) - expected).abs().max() < 1e-3
    assert expected.max() > 0.15
    one, two = (a[a.average == n] for n in (0, 1))
    assert torch.equal(two.reverse, ~one.reverse)
    if train > 1:
        n, m = drifting.navigators(0), still.navigators(0)
        pulse = 7 + n.average * p.shots() + n.shot
        since = n.time_s.double() - pulse * 0.05
        assert (turns(n, m) - tau * 0.1 * pulse * 0.05 * since).abs().max() < 1e-3
        assert (since - (0.02 - 0.003 - 0.003 * torch.tensor([3.0, 2.0, 1.0]).repeat(210))).abs().max() < 1e-5
        assert n.reverse.tolist() == [False, True, False] * 105 + [True, False, True] * 105


def test_even_echoes_may_run_backwards() -> None:
    """Bipolar: the second echo is read from the other end, and is its image but for the ghost's slope."""
    how = replace(PLAIN, protocol=replace(GRE, bipolar=True), ghost_slope_rad=0.8)
    sim = how(ball)
    assert sim.raw.scan.bipolar
    assert [bool(joined(sim.raw.lines(e)).reverse.any()) for e in (0, 1)] == [False, True]
    x = (torch.arange(22) - 11) / 22
    for echo, sign in ((0, 0.5), (1, -0.5)):
        expected = signal(sim, GRE.te_s[echo]) * torch.exp(1j * sign * 0.8 * x)[:, None, None]
        assert float((placed(sim, echo) - expected).norm() / expected.norm()) < 1e-4


def test_fat_turns_at_its_own_frequency() -> None:
    """A chemical shift of −3.4 ppm adds to the phase, and to nothing else."""

    def fat(grid: Grid, b0_tesla: float) -> Head:
        head = ball(grid, b0_tesla)
        return replace(head, shift_ppm=-3.4 * head.brain.float())

    a, b = PLAIN(fat), PLAIN(ball)
    for echo, t in enumerate(GRE.te_s):
        turn = torch.exp(1j * tau * GAMMA_BAR_MHZ_PER_T * 3.0 * -3.4 * t * a.truth.brain)
        expected = placed(b, echo) * turn
        assert float((placed(a, echo) - expected).norm() / expected.norm()) < 1e-3


def test_the_reference_has_an_echo_time_of_its_own() -> None:
    """Calibration lines by brute force, one a pulse, without ghost and reversal."""
    p = replace(EPI, reference=(8, 5), reference_te_s=0.006)
    sim = replace(PLAIN, protocol=replace(p, ramp=0.0), ghost_rad=0.4)(ball)
    lines = joined(sim.raw.reference())
    assert len(lines.ky) == 40
    assert not lines.reverse.any()
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in sim.truth.grid.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    image = signal(sim, 0.006).to(torch.complex128)
    for n in (0, 17, 39):
        ky, kz = int(lines.ky[n]) - 10, int(lines.kz[n]) - 7
        wave = torch.exp(-1j * tau * ((20 - 22) * x / 44 + ky * y / 20 + kz * z / 15))
        expected = (image * wave).sum((1, 2, 3)) / (44 * 20 * 15) ** 0.5
        assert float((lines.data[n, :, 20] - expected).norm() / expected.norm()) < 2e-3


def test_navigators_are_the_middle_of_k_space() -> None:
    """Three readouts before each train; forward and backward differ by the ghost alone."""
    how = replace(PLAIN, protocol=replace(EPI, ramp=0.0), ghost_rad=0.5, ghost_slope_rad=0.0)
    sim = how(ball)
    nav = sim.raw.navigators(0)
    assert nav.reverse.tolist() == [False, True, False] * 105
    assert (nav.ky == 10).all()
    assert (nav.kz == 7).all()
    assert torch.equal(nav.shot, torch.arange(105).repeat_interleave(3))
    first, back, third = nav.data[0], nav.data[1].flip(-1), nav.data[2]
    # halfway between the outer two in decay and phase, but for the ghost
    middle = (first + third) / 2
    assert float((back * middle.conj()).sum().angle()) == pytest.approx(-0.5, abs=0.03)


def test_ramps_cover_the_same_range() -> None:
    """The plateau is even, ramps are denser, and forward and reversed readouts meet the same places."""
    k = ramp_positions(64, 0.2)
    assert torch.allclose(k, -k.flip(0))
    assert float(k[-1]) == pytest.approx(32, abs=0.3)
    steps = k.diff()
    assert (steps > 0).all()
    assert float(steps.max()) == pytest.approx(1 / 0.8)
    assert torch.allclose(steps[20:40], steps.max())
    assert float(steps[0]) < 0.3
    assert torch.equal(ramp_positions(7, 0.0), torch.arange(7.0, dtype=torch.float64) - 3)


def test_noise_is_that_of_the_coils() -> None:
    """The noise scan and the readouts have the covariance of the array; echoes and averages differ."""
    how = replace(PLAIN, snr=5.0, protocol=replace(GRE, averages=2))
    noisy, clean = how(ball), replace(how, snr=0.0)(ball)
    a, b, again = (joined(s.raw.lines(0)) for s in (noisy, clean, noisy))
    grain = (a.data - b.data).permute(1, 0, 2).flatten(1)
    expected = 2 * noisy.truth.noise**2 * noisy.maps.covariance
    scale = float(expected.abs().max())
    for sample in (grain, noisy.raw.noise):
        found = sample @ sample.mH / sample.shape[1]
        assert float((found - expected).abs().max()) < 0.06 * scale
        assert float((found.imag * expected.imag).sum()) > 0.5 * float(expected.imag.square().sum())
    assert torch.equal(a.data, again.data)
    half = len(a.data) // 2
    assert a.average.tolist() == [0] * half + [1] * half
    one, two = (a.data - b.data)[:half].flatten(), (a.data - b.data)[half:].flatten()
    assert abs(float((one * two.conj()).real.mean())) < 0.05 * scale
    second = joined(noisy.raw.lines(1)).data - joined(clean.raw.lines(1)).data
    assert abs(float((one * second[:half].flatten().conj()).real.mean())) < 0.05 * scale
    best = noisy.maps.planes()
    whitened = torch.linalg.solve(torch.linalg.cholesky(expected), best.flatten(1))
    snr = whitened.norm(dim=0) * signal(noisy, 0.004)[0].abs().flatten() / best[0].abs().flatten()
    brain = noisy.truth.brain.flatten()
    assert float(snr[brain].mean() * 2**0.5) == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(
    "pattern", [Regular((2, 1), (4, 15)), CAIPI((2, 2), 1, (4, 4)), PoissonDisk(3, (4, 4))], ids=repr
)
def test_only_the_pattern_is_read(pattern) -> None:
    """Each line of the pattern once, in order of time, with the counts that the scan time is made of."""
    p = replace(GRE, pattern=pattern)
    mask = p.sampled()
    for echo in range(2):
        order = plan(p, mask[echo], echo)
        seen = torch.zeros(20, 15, dtype=torch.int64)
        seen[order.ky, order.kz] += 1
        assert torch.equal(seen == 1, mask[echo])
        assert len(order) == int(mask[echo].sum())
    assert mask[:, 10, 7].all()
    assert p.scan_time_s() == pytest.approx(int(mask.sum((1, 2)).max()) * 0.03)


@pytest.mark.parametrize(
    "pattern", [Regular((1, 1), (0, 0)), Regular((2, 1), (0, 0)), CAIPI((2, 2), 1, (0, 0))]
)
def test_trains_cross_k_space(pattern) -> None:
    """No train is longer than it may be, directions alternate, and time is linear along ky with the shift."""
    p = replace(EPI, matrix=(22, 24, 16), pattern=pattern)
    mask = p.sampled()[0]
    order = plan(p, mask)
    assert len(order) == int(mask.sum()) == len({*zip(order.ky.tolist(), order.kz.tolist(), strict=True)})
    assert int(torch.bincount(order.shot).max()) <= 3
    for shot in range(3):
        mine = order.shot == shot
        assert order.reverse[mine].tolist() == [bool(n % 2) for n in range(int(mine.sum()))]
        assert (order.delay_s[mine].diff() - 0.003).abs().max() < 1e-8
        assert (order.kz[mine] == order.kz[mine][0]).all()
    step = (order.delay_s - 0.020) / (order.ky - 12).double()
    step = step[(order.ky - 12).abs() > 2]
    assert float(step.max() - step.min()) < 1e-7
    still = plan(replace(p, shift=False), mask)
    assert len(torch.unique(still.delay_s)) == 3
    assert torch.equal(torch.sort(still.ky)[0], torch.sort(order.ky)[0])


def test_scan_times_are_those_published() -> None:
    """Of the protocols whose matrix could be inferred; the Poisson ones are stated as they come out."""
    for name in ("gre", "epi-2", "epi-1", "gre8-2"):
        p = PROTOCOLS[name]
        assert clock(p.scan_time_s()) == clock(p.published_s), name
    assert clock(PROTOCOLS["gre"].scan_time_s()) == "7:02"
    for p in PROTOCOLS.values():
        assert p.assumed or not p.published_s


def test_a_train_too_long_is_refused() -> None:
    """What, why and the remedy."""
    with pytest.raises(ValueError, match="shorten the train"):
        replace(EPI, train=9)
    with pytest.raises(ValueError, match="spacing_s"):
        replace(EPI, spacing_s=0.0)
    with pytest.raises(ValueError, match="leave no plateau"):
        replace(EPI, ramp=0.5)


def test_a_loop_has_the_field_of_a_loop() -> None:
    """On the axis of a circular loop the field falls as (a² + d²)^(−3/2)."""
    array = CoilArray(6, jitter=0.0)
    middle, at, step = array.loops()
    radius = (at[2] - middle[2]).norm(dim=1).mean()
    normal = torch.linalg.cross(at[2, 0] - middle[2], step[2, 0])
    normal = normal / normal.norm()
    current = normal
    normal = normal * torch.sign(normal @ (torch.tensor(array.centre_mm).double() - middle[2]))
    depth = torch.tensor([30.0, 60.0, 90.0], dtype=torch.float64)
    b = array._field(middle[2] + depth[:, None] * normal)[2].abs()
    law = (radius**2 + depth**2) ** -1.5
    assert torch.allclose(b / b[0], law / law[0], rtol=0.02)
    wave = array._field(middle[2] + depth[:, None] * normal)[2].angle()
    assert float((wave[0] - wave[1]) % tau) == pytest.approx(tau * 30 / 260, rel=1e-3)
    turn = torch.atan2(-current[1], current[0])  # B along the axis, as Bx − iBy
    assert torch.exp(1j * (wave - turn + tau * depth / 260)).real.min() > 0.999
    strong = replace(array, b0_tesla=7.0)._field(middle[2] + depth[:, None] * normal)[2].angle()
    assert float((strong[0] - strong[1]) % tau) == pytest.approx(tau * 30 / 260 * 7 / 3 % tau, rel=1e-3)


def test_maps_are_of_mean_one_and_of_the_scanner() -> None:
    """Root sum of squares in the head; the wavelength is that of the protocol's field."""
    inside = ball(GRE.grid(), 3.0).brain
    strength = CoilArray(16)(GRE.grid()).planes()[:, inside].abs().square().sum(0).sqrt()
    assert float(strength.mean()) == pytest.approx(1.0, abs=0.15)
    high = replace(PLAIN, protocol=replace(GRE, b0_tesla=7.0))(ball).maps
    assert torch.equal(high.coarse, CoilArray(4, b0_tesla=7.0)(GRE.grid()).coarse)


def test_maps_are_smooth_enough_to_be_interpolated() -> None:
    """Fewer millimetres between the points change the maps in the head by little."""
    grid = GRE.grid()
    inside = ball(grid, 3.0).brain
    a = CoilArray(16)(grid).planes()[:, inside]
    b = CoilArray(16, step_mm=6.0)(grid).planes()[:, inside]
    assert float((a - b).norm() / b.norm()) < 0.02


def test_neighbours_share_noise() -> None:
    """The covariance is Hermitian, positive, of mean one, and larger between neighbours."""
    array = CoilArray(16)
    c = array(GRE.grid()).covariance
    assert torch.allclose(c, c.mH, atol=1e-6)
    assert float(torch.linalg.eigvalsh(c).min()) > 0.1
    assert float(c.diagonal().real.mean()) == pytest.approx(1, abs=1e-4)
    middle = array.loops()[0]
    apart = torch.cdist(middle, middle)
    pair = apart + 1e9 * torch.eye(16)
    size = c.abs() / torch.sqrt(c.diagonal().real[:, None] * c.diagonal().real)
    near, far = size.gather(1, pair.argmin(1)[:, None]).mean(), size[apart > 200].mean()
    assert float(near) > 2 * float(far)


def test_coils_that_cannot_be_are_refused() -> None:
    """What, why and the remedy."""
    with pytest.raises(ValueError, match="choose 1 to 128"):
        CoilArray(0)
    with pytest.raises(ValueError, match="choose above 0"):
        CoilArray(own_noise=0.0)

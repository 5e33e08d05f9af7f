"""Readouts come to their places in k-space: against the transform of the image that made them."""

from dataclasses import replace

import pytest
import torch
from raw_cases import SHAPE, Plan, picture, raw_of, smooth_maps

from k2chi.ops.fourier import fft, from_scanner, ifft
from k2chi.recon.assemble import Assemble


def case(plan=Plan(), coils=3, shape=SHAPE, te_s=(0.02,)):
    """Coil images and the readouts of them."""
    maps = smooth_maps(coils, shape)
    images = torch.stack([picture(shape) * torch.exp(torch.tensor(2j * e)) for e in range(len(te_s))])
    return images[:, None] * maps, raw_of(images, maps, plan, te_s)


def off(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shape", [(24, 20, 10), (23, 21, 9), (22, 19, 5)])
@pytest.mark.parametrize("oversampling", [1.0, 2.0, 1.5])
def test_full_sampling_gives_the_transform_of_the_coil_images(shape, oversampling):
    truth, raw = case(Plan(oversampling=oversampling), shape=shape)
    k = Assemble()(raw, 0)
    assert off(k.data[0], fft(truth[0])) < 1e-5
    assert off(ifft(k.data), truth) < 1e-5
    assert k.sampled.all()


def test_agrees_with_the_whole_array_turned_at_once():
    """The scanner's array in its own order, through `from_scanner`."""
    _, raw = case(Plan(oversampling=1.0))
    array = torch.zeros(3, *SHAPE, dtype=torch.complex64)
    for block in raw.lines(0):
        array[:, :, block.ky, block.kz] = block.data.permute(1, 2, 0)
    assert off(Assemble()(raw, 0).data[0], from_scanner(array, tuple(n // 2 for n in SHAPE))) < 1e-6


def test_each_echo_is_its_own():
    truth, raw = case(te_s=(0.01, 0.02))
    k = Assemble()(raw, 1)
    assert off(k.data[0], fft(truth[1])) < 1e-5
    assert k.scan.te_s == (0.02,)


def test_partial_fourier_leaves_zeros_and_the_rest_in_place():
    truth, raw = case(Plan(skip=(0, 5, 2)))
    k = Assemble()(raw, 0)
    kept = fft(truth) * k.sampled
    assert off(k.data, kept) < 1e-5
    assert int(k.sampled.sum()) == (20 - 5) * (10 - 2)


def test_an_asymmetric_echo_is_zero_where_it_was_not_read():
    truth, raw = case(Plan(oversampling=1.0, skip=(7, 0, 0)))
    k = Assemble()(raw, 0)
    assert off(k.data, fft(truth) * k.sampled) < 1e-5
    assert int(k.sampled[0, :, 0, 0].sum()) == 24 - 7


def test_undersampling_is_known():
    keep = torch.zeros(20, 10, dtype=torch.bool)
    keep[::2, ::3] = True
    truth, raw = case(Plan(keep=keep))
    k = Assemble()(raw, 0)
    assert int(k.sampled.sum()) == int(keep.sum())
    assert off(k.data, fft(truth) * k.sampled) < 1e-5
    assert not (k.data * ~k.sampled).any()


def test_slices_are_transformed_too():
    truth, raw = case(Plan(slices=True))
    k = Assemble()(raw, 0)
    assert off(ifft(k.data), truth) < 1e-5
    keep = torch.zeros(20, 10, dtype=torch.bool)
    keep[::2] = True
    _, raw = case(Plan(slices=True, keep=keep))
    assert int(Assemble()(raw, 0).sampled.sum()) == 10 * 10
    keep[0, 3] = False
    with pytest.raises(ValueError, match="different places"):
        Assemble()(case(Plan(slices=True, keep=keep))[1], 0)


def test_reversed_readouts_are_turned():
    truth, raw = case(Plan(shots=4))
    assert any(block.reverse.any() for block in raw.lines(0))
    assert off(Assemble()(raw, 0).data, fft(truth)) < 1e-5


def test_averages_halve_the_variance_of_noise():
    truth, raw = case(Plan(averages=4, noise=1.0, seed=3))
    one = Assemble()(case(Plan(noise=1.0, seed=4))[1], 0).data - fft(truth)
    four = Assemble()(raw, 0).data - fft(truth)
    assert float(one.abs().square().mean()) == pytest.approx(1.0, rel=0.05)  # unit noise stays unit noise
    assert float(four.abs().square().mean()) == pytest.approx(0.25, rel=0.2)


def test_mixed_coils_are_the_mix_of_coils():
    _, raw = case(Plan(noise=0.1, reference=(8, 6)))
    mix = torch.randn(2, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    plain, mixed = Assemble()(raw, 0), Assemble()(raw, 0, mix)
    for a, b in [(plain.data[0], mixed.data[0]), (plain.reference, mixed.reference)]:
        assert off(torch.einsum("vc,cxyz->vxyz", mix, a), b) < 1e-5
    assert off(mix @ plain.noise, mixed.noise) < 1e-6


def test_the_reference_is_the_centre_of_k_space():
    for size in [(8, 6), (7, 5), (8, 5)]:
        truth, raw = case(Plan(reference=size))
        r = Assemble()(raw, 0).reference
        assert tuple(r.shape) == (3, 24, *size)
        whole = torch.fft.fftshift(fft(truth[0]), dim=(1, 2, 3))
        y, z = 10 - size[0] // 2, 5 - size[1] // 2
        assert off(r, whole[:, :, y : y + size[0], z : z + size[1]]) < 1e-5


def test_what_does_not_fit_is_refused():
    _, raw = case()

    def with_lines(change):
        return replace(raw, lines=lambda echo: (change(b) for b in raw.lines(echo)))

    with pytest.raises(ValueError, match="counters do not fit"):
        Assemble()(with_lines(lambda b: replace(b, ky=b.ky + 5)), 0)
    with pytest.raises(ValueError, match="samples"):
        Assemble()(with_lines(lambda b: replace(b, data=b.data[..., :-1])), 0)
    with pytest.raises(ValueError, match="no readouts of echo 1"):
        Assemble()(replace(raw, lines=lambda echo: iter(())), 0)
    with pytest.raises(ValueError, match="no echo 1"):
        Assemble()(raw, 1)
    with pytest.raises(ValueError, match="does not fit a grid"):
        Assemble()(replace(raw, encoding=replace(raw.encoding, centre=(12, 3, 5))), 0)
    with pytest.raises(ValueError, match="a mix of 2 coils"):
        Assemble()(raw, 0, torch.ones(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="oversampling"):
        Assemble()(replace(raw, encoding=replace(raw.encoding, oversampling=1.0)), 0)
    holes = replace(raw, reference=lambda: (b[b.ky != 10] for b in raw.lines(0)))
    with pytest.raises(ValueError, match="holes at the centre"):
        Assemble()(holes, 0)
    with pytest.raises(ValueError, match="holds no readouts"):
        Assemble()(replace(raw, reference=lambda: iter(())), 0)

"""Phase in every common unit becomes the same radians; what is wrong is refused in one sentence."""

from math import pi, tau
from pathlib import Path

import numpy as np
import pytest
import torch
from images import TES, save, scan

from k2chi.io.echoes import conjugate, read_complex, read_echoes
from k2chi.io.fieldmap import read_field
from k2chi.io.phase import phase_scale

MAG, PHASE, INSIDE = scan()
SHARED = Path(__file__).parents[2] / "shared" / "data"


def steps(phase, full, dtype, low=0):
    return np.clip(np.round((phase + pi) / tau * full) + low, low, low + full - 1).astype(dtype)


def files(tmp_path, mag=MAG, phase=PHASE, **more):
    return [save(tmp_path / "m.nii", mag)], [save(tmp_path / "p.nii", phase, **more)]


def turned(a, b):
    """Largest distance in phase between two complex arrays, on the circle [rad]."""
    return float((torch.polar(torch.ones_like(a), a) - torch.polar(torch.ones_like(b), b)).abs().max())


WAYS = {
    "radians": (PHASE, np.float32, None, 0),
    "0…2π": (PHASE % tau, np.float32, None, 0),
    "−4096…4095": (steps(PHASE, 8192, np.int16, -4096), np.int16, None, 0),
    "0…4095": (steps(PHASE, 4096, np.int16), np.int16, None, 0),
    "0…4095 with slope to −4096…4094": (steps(PHASE, 4096, np.int16), np.int16, 2, -4096),
    "0…65535": (steps(PHASE, 65536, np.uint16), np.uint16, None, 0),
    "−2048…2047": (steps(PHASE, 4096, np.int16, -2048), np.int16, None, 0),
    "milliradians": (np.round(PHASE * 1000), np.int16, None, 0),
    "degrees": (np.round(PHASE * 180 / pi), np.int16, None, 0),
    "stray slope": (PHASE, np.float32, 0.00117, 0),
    "units of π": (PHASE / pi, np.float32, None, 0),
    "integers scaled to rad": (steps(PHASE, 4096, np.int16), np.int16, tau / 4096, -pi),
    "floats −4096…4096": (PHASE / pi * 4096, np.float32, None, 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_unit_gives_the_same_phase(tmp_path, way):
    stored, dtype, slope, inter = WAYS[way]
    m, p = files(tmp_path, phase=stored, dtype=dtype, slope=slope, inter=inter)
    echoes, source = read_echoes(m, p, TES, 3.0)
    expected = torch.from_numpy(np.moveaxis(PHASE, -1, 0)).float()
    coarse = 0.02 if way == "degrees" else 0.004
    assert turned(echoes.signal.angle(), expected) < coarse, source.says
    assert echoes.unwrapped_rad is None
    torch.testing.assert_close(echoes.signal.abs(), torch.from_numpy(np.moveaxis(MAG, -1, 0)).float())


def test_stray_slope_is_said(tmp_path):
    m, p = files(tmp_path, phase=PHASE, slope=0.00117)
    assert "stray" in read_echoes(m, p, TES, 3.0)[1].says[0]


def test_3d_files_an_echo_equal_one_4d_file(tmp_path):
    m, p = files(tmp_path)
    one, _ = read_echoes(m, p, TES, 3.0)
    ms = [save(tmp_path / f"m{e}.nii.gz", MAG[..., e]) for e in range(3)]
    ps = [save(tmp_path / f"p{e}.nii.gz", PHASE[..., e]) for e in range(3)]
    assert torch.equal(one.signal, read_echoes(ms, ps, TES, 3.0)[0].signal)


def test_real_and_imaginary(tmp_path):
    m, p = files(tmp_path)
    r = save(tmp_path / "r.nii", MAG * np.cos(PHASE))
    i = save(tmp_path / "i.nii", MAG * np.sin(PHASE))
    a, _ = read_echoes(m, p, TES, 3.0)
    b, _ = read_complex([r], [i], TES, 3.0)
    torch.testing.assert_close(a.signal, b.signal, rtol=1e-4, atol=1e-3)


def unwrapped():
    """The noise-free field's phase, without wraps: up to several turns."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in PHASE.shape[:3]], indexing="ij")
    return (4 * axes[2] + 2 * axes[0])[..., None] * np.asarray(TES) / TES[0]


@pytest.mark.parametrize("masked", [False, True])
def test_unwrapped_phase_is_recognised(tmp_path, masked):
    phase = unwrapped() * (INSIDE[..., None] if masked else 1)
    m, p = files(tmp_path, mag=MAG * (INSIDE[..., None] if masked else 1), phase=phase)
    echoes, source = read_echoes(m, p, TES, 3.0)
    assert "unwrapped" in source.says[0]
    np.testing.assert_allclose(np.moveaxis(echoes.unwrapped_rad.numpy(), 0, -1), phase, atol=1e-4)


def test_conjugate_twice_is_nothing(tmp_path):
    m, p = files(tmp_path, phase=unwrapped())
    echoes, _ = read_echoes(m, p, TES, 3.0)
    once = conjugate(echoes)
    assert torch.equal(once.unwrapped_rad, -echoes.unwrapped_rad)
    assert turned(once.signal.angle(), -echoes.signal.angle()) < 1e-6
    assert torch.equal(conjugate(once).signal, echoes.signal)


def test_few_nan_voxels_are_left_out(tmp_path):
    """They become zero signal, leave the mask, and a warning counts them."""
    phase, mag = PHASE.copy(), MAG.copy()
    phase[9, 9, 9, 1] = np.nan
    mag[9, 9, 8, 0] = np.inf
    m, p = files(tmp_path, mag, phase)
    mask = save(tmp_path / "mask.nii", INSIDE, dtype=np.uint8)
    echoes, source = read_echoes(m, p, TES, 3.0, mask)
    assert torch.isfinite(torch.view_as_real(echoes.signal)).all()
    assert not echoes.signal[:, 9, 9, 8:10].any()
    assert int(INSIDE.sum()) - int(echoes.mask.sum()) == 2
    assert len(source.warnings) == 2
    assert source.warnings[0].startswith("1 phase voxels")


def test_without_magnitude(tmp_path):
    _, p = files(tmp_path)
    echoes, source = read_echoes([], p, TES, 3.0)
    assert "no magnitude" in source.warnings[0]
    torch.testing.assert_close(echoes.signal.abs(), torch.ones_like(echoes.signal.abs()))


OTHER = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
BAD = {
    "swapped": ({"mag": PHASE, "phase": MAG}, {}, "m.nii looks like phase and p.nii like magnitude"),
    "swapped integers": (
        {"mag": steps(PHASE, 4096, np.int16), "phase": np.round(MAG * 20)}, {}, "m.nii looks like phase"),
    "negative magnitude": ({"mag": PHASE}, {}, "a magnitude cannot be negative|looks like phase"),
    "constant phase": ({"phase": PHASE * 0}, {}, "0 everywhere: this is no phase"),
    "empty magnitude": ({"mag": MAG * 0}, {}, "magnitude is 0 everywhere"),
    "all NaN": ({"phase": PHASE * np.nan}, {}, "100% of the phase voxels are NaN"),
    "no echo times": ({}, {"te_s": ()}, "no echo time is known"),
    "too few echo times": ({}, {"te_s": (0.01,)}, "3 echoes but 1 echo times"),
    "falling echo times": ({}, {"te_s": (0.01, 0.005, 0.02)}, "must be positive and rising"),
    "ms": ({}, {"te_s": (4.0, 10.0, 16.0)}, "look like ms"),
    "no field strength": ({}, {"b0_tesla": None}, "field strength unknown"),
    "echoes differ": ({"mag": MAG[..., :2]}, {}, "3 echoes of phase but 2 of magnitude"),
    "phase elsewhere": ({"affine": OTHER}, {}, "away from"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(tmp_path, case):
    change, call, says = BAD[case]
    m, p = files(tmp_path, **change)
    with pytest.raises(ValueError, match=says):
        read_echoes(m, p, **{"te_s": TES, "b0_tesla": 3.0, **call})


def test_bad_masks_are_refused(tmp_path):
    m, p = files(tmp_path)
    empty = save(tmp_path / "empty.nii", INSIDE * 0)
    with pytest.raises(ValueError, match=r"empty\.nii: the mask is empty"):
        read_echoes(m, p, TES, 3.0, empty)
    small = save(tmp_path / "small.nii", INSIDE[1:])
    with pytest.raises(ValueError, match=r"small\.nii: has \(19, 22, 16\) voxels"):
        read_echoes(m, p, TES, 3.0, small)
    hollow = save(tmp_path / "q.nii", np.where(INSIDE[..., None], np.nan, PHASE))
    inside = save(tmp_path / "inside.nii", INSIDE)
    with pytest.raises(ValueError, match=r"inside\.nii: most voxels inside the mask are NaN"):
        read_echoes(m, [hollow], TES, 3.0, inside)


@pytest.mark.parametrize(("unit", "per_ppm"), [("ppm", 1.0), ("Hz", 127.732434), ("rad", 8.0256657)])
def test_field_units(tmp_path, unit, per_ppm):
    """0.1 ppm at 3 T is 12.77 Hz, and 0.80 rad after 10 ms."""
    path = save(tmp_path / "f.nii", INSIDE * 0.1 * per_ppm)
    field, _ = read_field(path, unit, (0.01,), 3.0, local=True)
    assert field.local
    np.testing.assert_array_equal(field.mask.numpy(), INSIDE)
    np.testing.assert_allclose(field.ppm.numpy(), INSIDE * 0.1, rtol=1e-6)


def test_field_unit_from_json(tmp_path):
    path = save(tmp_path / "f.nii", INSIDE * 12.7732434)
    (tmp_path / "f.json").write_text('{"Units": "Hz"}')
    assert float(read_field(path, None, (), 3.0, local=False)[0].ppm.max()) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="JSON says Hz, but --units says ppm"):
        read_field(path, "ppm", (), 3.0, local=False)


def test_field_refusals(tmp_path):
    path = save(tmp_path / "f.nii", INSIDE * 50.0)
    for unit, b0, te, says in (
        (None, 3.0, (), "unit of the field is not known"),
        ("Hz", None, (), "give --b0"),
        ("rad", 3.0, (), "give --te"),
        ("ppm", 3.0, (), "do not occur in a head"),
    ):
        with pytest.raises(ValueError, match=says):
            read_field(path, unit, te, b0, local=False)


def test_unknown_scale_without_wraps_is_refused():
    ramp = torch.linspace(0, 700, 1000).round().reshape(1, 10, 10, 10)
    with pytest.raises(ValueError, match="unit cannot be told"):
        phase_scale(ramp)


@pytest.mark.shared
def test_real_crop_with_stray_slope():
    """Three real echoes: neighbours differ little in space once read right."""
    folder = SHARED / "romeo-crop"
    if not folder.exists():
        pytest.skip("the real crop is not here")
    echoes, source = read_echoes([folder / "Mag.nii"], [folder / "Phase.nii"], (0.004, 0.008, 0.012), 7.0)
    assert "stray" in source.says[0]
    assert float(echoes.signal.angle().abs().max()) == pytest.approx(pi, abs=1e-3)
    echoes, source = read_echoes([], [folder / "phase_with_nan.nii"], (0.004, 0.008), 7.0)
    assert "NaN" in source.warnings[0]
    assert torch.isfinite(torch.view_as_real(echoes.signal)).all()

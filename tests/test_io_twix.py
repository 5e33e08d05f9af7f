"""Siemens raw data: files of known content and real ones, two readers, and odd files refused in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps
from scipy.spatial.transform import Rotation
from test_io_ismrmrd import joined, same
from twix_cases import header, noise_records, protocol, ramps, records, write

from k2chi.data import Grid, Lines, as_affine
from k2chi.io.twix import directions, is_twix, read
from k2chi.ops.fourier import ifft
from k2chi.recon.assemble import Assemble

DATA = Path(__file__).parents[2] / "shared" / "data" / "twix"
SHAPE = (16, 12, 8)
COLUMNS = ("data", "ky", "kz", "average", "reverse")


def oblique(shape=SHAPE):
    a = np.eye(4)
    a[:3, :3] = Rotation.from_euler("xyz", [20, -35, 70], degrees=True).as_matrix() @ np.diag([0.7, 0.8, 2])
    a[:3, 3] = 31, -17, 8
    return Grid(shape, as_affine(a))


def case(plan=Plan(), te_s=(0.004, 0.012), coils=2, surplus=(0, 0)):
    images = torch.stack([picture(SHAPE) * 1j**n for n in range(len(te_s))])
    raw = raw_of(images, smooth_maps(coils, SHAPE), plan, te_s, oblique())
    return replace(raw, encoding=replace(raw.encoding, surplus=surplus))


def written(path, raw, new=True, changes=(), made="", **how):
    return write(path, (header(protocol(raw, changes), made), records(raw, new, **how)), new=new)


def sorted_lines(blocks):
    """By place, average and direction: two files may hold readouts in another order."""
    blocks = [blocks] if isinstance(blocks, Lines) else list(blocks)
    key = [joined(blocks, n).numpy() for n in ("reverse", "ky", "kz", "average")]
    order = torch.from_numpy(np.lexsort(key))
    return Lines(*[joined(blocks, n)[order] for n in ("data", "ky", "kz", "average", "shot", "reverse")])


PLANS = {
    "GRE": Plan(noise=0.1),
    "EPI": Plan(shots=4, averages=2, reference=(6, 4), noise=0.1),
    "slices": Plan(slices=True),
    "partial": Plan(skip=(5, 2, 1)),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("version", ["VB", "VD", "XA"])
def test_file_of_known_content(name, version, tmp_path):
    """Samples bit by bit; counters, place in space, protocol. XA leaves the echo counter at zero."""
    raw = case(PLANS[name], surplus=(2, 0 if PLANS[name].slices else 2))
    path = written(tmp_path / "a.dat", raw, version != "VB", xa=version == "XA")
    assert is_twix(path)
    back = read(path)
    for echo in range(2):
        same(sorted_lines(raw.lines(echo)), sorted_lines(back.lines(echo)), COLUMNS)
        if raw.navigators is not None:
            same(sorted_lines(raw.navigators(echo)), sorted_lines(back.navigators(echo)), COLUMNS)
    if raw.reference is not None:
        same(sorted_lines(raw.reference()), sorted_lines(back.reference()), COLUMNS)
    assert back.scan.te_s == raw.scan.te_s
    assert back.scan.b0_tesla == pytest.approx(3, abs=1e-6)
    assert back.facts["RepetitionTime"] == 0.039
    assert back.grid.shape == raw.grid.shape
    np.testing.assert_allclose(back.grid.affine, raw.grid.affine, atol=2e-5)
    assert replace(back.encoding, spacing_s=0) == replace(raw.encoding, spacing_s=0)


def test_image_stands_where_the_header_says(tmp_path):
    """A point source comes out at its place in space, through file, assembly and affine."""
    image = torch.zeros(1, *SHAPE, dtype=torch.complex128)
    image[0, 11, 4, 6] = 1
    grid = oblique()
    raw = raw_of(image, torch.ones(1, *SHAPE, dtype=torch.complex128), Plan(), (0.01,), grid)
    back = read(written(tmp_path / "a.dat", raw))
    found = ifft(Assemble()(back, 0).data)[0, 0].abs()
    where = np.unravel_index(int(found.argmax()), SHAPE)
    world = np.asarray(back.grid.affine) @ (*where, 1)
    np.testing.assert_allclose(world, np.asarray(grid.affine) @ (11, 4, 6, 1), atol=1e-4)


def test_excitations_are_numbered(tmp_path):
    """Readouts of one excitation share a number, navigators too, echoes too."""
    raw = case(PLANS["EPI"])
    back = read(written(tmp_path / "a.dat", raw))
    for echo in range(2):
        same(sorted_lines(raw.lines(echo)), sorted_lines(back.lines(echo)), ("ky", "kz", "average", "shot"))
        a, b = raw.navigators(echo), back.navigators(echo)
        assert sorted(zip(a.average.tolist(), a.shot.tolist(), strict=True)) == sorted(
            zip(b.average.tolist(), b.shot.tolist(), strict=True)
        )


def test_noise_of_an_earlier_measurement(tmp_path):
    """The last measurement is read; noise grows with the bandwidth: 20 µs against 5 µs a sample."""
    raw = case(te_s=(0.01,))
    hiss = torch.randn(2, 500, dtype=torch.complex64)
    first = (header(protocol(raw, {"sRXSPEC.alDwellTime[0]": 20000})), noise_records(hiss.numpy()))
    path = write(tmp_path / "a.dat", first, (header(protocol(raw)), records(raw)))
    back = read(path)
    torch.testing.assert_close(back.noise, 2 * hiss)
    assert not back.warnings
    same(sorted_lines(raw.lines(0)), sorted_lines(back.lines(0)), COLUMNS)


def test_ramp_sampling_by_closed_form(tmp_path):
    """Positions are the area under a trapezoid: even on its flat part, quadratic on its ramps."""
    raw = case(Plan(position=tuple(np.linspace(-16, 15, 32)), shots=3), te_s=(0.02,))
    back = read(written(tmp_path / "a.dat", raw, made=ramps(100, 200, 100, 20, 360)))
    k = np.asarray(back.encoding.position)
    np.testing.assert_allclose(k, -k[::-1], atol=1e-9)
    t = 20 + 360 / 32 * (np.arange(32) + 0.5)
    flat = (t > 100) & (t < 300)
    np.testing.assert_allclose(np.diff(k[flat], 2), 0, atol=1e-9)
    slope = np.diff(k[flat])[0] / (360 / 32)
    np.testing.assert_allclose(k[~flat & (t < 200)], slope * (t[t < 100] ** 2 / 200 - 150), atol=1e-9)
    inside = 2 * (20**2 / 200)  # area before the first and after the last sample is not seen
    assert slope * (300 - inside) == pytest.approx(32)


def test_axes_run_against_the_gradients():
    """No turn: phase along x, readout along y of the patient; images run the other way."""
    np.testing.assert_allclose(directions(np.array([1.0, 0, 0, 0])), -np.eye(3)[:, [1, 0, 2]], atol=1e-12)


def test_field_strength_from_the_frequency(tmp_path):
    raw = case(te_s=(0.01,))
    other = {"sTXSPEC.asNucleusInfo[0].tNucleus": '"23Na"', "sProtConsistencyInfo.flNominalB0": 2.9}
    assert read(written(tmp_path / "a.dat", raw, changes=other)).scan.b0_tesla == 2.9
    none = {"sTXSPEC.asNucleusInfo[0].lFrequency": None}
    path = written(tmp_path / "b.dat", raw, changes=none)
    with pytest.raises(ValueError, match="give --b0"):
        read(path)
    assert read(path, b0_tesla=7.0).scan.b0_tesla == 7


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0.4, 0.99])
def test_truncated(tmp_path, new, share):
    path = written(tmp_path / "a.dat", case(), new)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="cut short") as error:
        read(path)
    assert "copy or export it again" in str(error.value)


def changing(**columns):
    def change(rows):
        for name, value in columns.items():
            rows[5][2][name.replace("_", ".")] = value

    return change


def shorter(rows):
    rows[5] = (rows[5][0], rows[5][1][:, :20], rows[5][2])


def lost_echo(rows):
    del rows[5]


BAD = {
    "line": ({}, {"change": changing(Counter_Lin=77)}, "says line 77, but the header has 12"),
    "partition": ({}, {"change": changing(Counter_Par=50)}, "says partition 50"),
    "sizes": ({}, {"change": shorter}, "20, 32 samples: one matrix size"),
    "echoes": ({}, {"xa": True, "change": lost_echo}, "read 1 to 2 times"),
    "radial": ({"sKSpace.ucTrajectory": 2}, {}, "radial scan: only Cartesian"),
    "multislice": ({}, {"change": changing(EvalInfoMask=1 << 38)}, "simultaneous multi-slice"),
    "no TE": ({"lContrasts": 4}, {}, "though the header has 4 echo times"),
    "no FOV": ({"sSliceArray.asSlice[0].dPhaseFOV": 0}, {}, "no field of view"),
    "slabs": ({}, {"change": changing(Counter_Sli=1)}, "several slabs"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_words(name, tmp_path):
    changes, how, words = BAD[name]
    path = written(tmp_path / "a.dat", case(), changes=changes, **how)
    with pytest.raises(ValueError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)


def test_accelerated_without_reference(tmp_path):
    keep = torch.zeros(12, 8, dtype=torch.bool)
    keep[::2] = True
    raw = case(Plan(keep=keep), te_s=(0.01,))
    raw = replace(raw, encoding=replace(raw.encoding, acceleration=(2, 1)))
    with pytest.raises(ValueError, match="accelerated 2×1, but it holds no reference"):
        read(written(tmp_path / "a.dat", raw))
    keep[3:10] = True
    raw = replace(case(Plan(keep=keep), te_s=(0.01,)), encoding=raw.encoding)
    assert read(written(tmp_path / "b.dat", raw)).encoding.acceleration == (2, 1)


def test_slices_out_of_order(tmp_path):
    """Slices numbered by time come out by place, and the affine is that of the first place."""
    raw = case(PLANS["slices"], te_s=(0.01,))
    number = [4, 0, 5, 1, 6, 2, 7, 3]

    def renumbered(rows):
        for _, _, head in rows:
            head["Counter.Sli"] = number[head["Counter.Sli"]]

    back = read(written(tmp_path / "a.dat", raw, change=renumbered))
    same(sorted_lines(raw.lines(0)), sorted_lines(back.lines(0)), COLUMNS)
    np.testing.assert_allclose(back.grid.affine, raw.grid.affine, atol=2e-5)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\0" * 20000, b"P5 " * 9000], ids=len)
def test_no_raw_data(tmp_path, data):
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    assert not is_twix(path)
    with pytest.raises(ValueError, match="no raw data of Siemens"):
        read(path)


FILES = {
    "epi.dat": ((80, 80, 1), (2.5, 2.5, 4.0), 0.027),
    "gre.dat": ((160, 160, 1), (1.25, 1.25, 4.0), 0.003),
    "gre_bodycoil.dat": ((128, 128, 1), (1.5, 1.5, 5.0), 0.003),
    "gre_hist_fullsize.dat": ((160, 160, 1), (1.375, 1.375, 5.0), 0.003),
    "singlechannel.dat": ((256, 256, 1), (0.75, 0.75, 5.0), 0.00369),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", FILES)
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data")
@pytest.mark.filterwarnings("ignore")
def test_real_files(name):
    """Size and place by the protocol; an object with edges on empty ground; two readers, same samples."""
    import mapvbvd

    shape, voxel, te = FILES[name]
    raw = read(DATA / name)
    assert raw.grid.shape == shape
    assert raw.grid.voxel_mm == pytest.approx(voxel, rel=1e-5)
    assert raw.scan.te_s == (te,)
    k = Assemble()(raw, 0)
    image = ifft(k.data[0])[..., 0].abs().square().sum(0).sqrt()
    border = torch.cat([image[:6, :6].flatten(), image[-6:, -6:].flatten()])
    n, m = shape[0] // 8, shape[1] // 8
    inside = image[2 * n : -2 * n, 2 * m : -2 * m].quantile(0.8)
    assert inside > (4 if name == "epi.dat" else 10) * border.mean()
    twix = mapvbvd.mapVBVD(str(DATA / name), quiet=True)
    twix = twix[-1] if isinstance(twix, list) else twix
    twix.image.flagRemoveOS = twix.image.flagRampSampRegrid = False
    other = np.moveaxis(twix.image.unsorted(), 2, 0).swapaxes(1, 2)[: len(joined(raw.lines(0), "ky"))]
    ours = joined(list(raw.lines(0)), "data").numpy()
    if name == "epi.dat":  # mapVBVD reads reflected lines forward
        back = joined(list(raw.lines(0)), "reverse").numpy()
        ours = np.where(back[:, None, None], ours[..., ::-1], ours)
        ours, other = np.abs(ours), np.abs(other)
    np.testing.assert_allclose(ours, other, atol=1e-6 * np.abs(other).max())


@pytest.mark.shared
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data")
def test_water_lies_level_in_a_phantom():
    """Gravity is a witness: the air bubble is on top, which is anterior for a phantom lying supine."""
    raw = read(DATA / "gre.dat")
    image = ifft(Assemble()(raw, 0).data[0])[..., 0].abs().square().sum(0).sqrt()
    affine = np.asarray(raw.grid.affine)
    assert affine[1, 1] > 0.9 * raw.grid.voxel_mm[1]  # second axis runs to the front
    column = image[int(0.55 * 160)] > 0.3 * image.quantile(0.8)
    rows = torch.nonzero(column)[:, 0]
    width = (image > 0.3 * image.quantile(0.8)).float().sum(0)
    top, bottom = width[int(rows.max()) - 2], width[int(rows.min()) + 2]
    assert top > 1.5 * bottom  # a circle is narrow at its ends; the water level cuts one off

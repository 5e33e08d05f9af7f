"""ISMRMRD: what is written comes back, other programs read it, and odd files are refused in words."""

import warnings
from dataclasses import replace

import h5py
import ismrmrd as reference
import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps

from k2chi.data import Grid, as_affine
from k2chi.io import counters
from k2chi.io.ismrmrd import is_ismrmrd, read, write
from k2chi.recon.assemble import Assemble

SHAPE = (16, 12, 8)
COLUMNS = ("data", "ky", "kz", "average", "shot", "reverse", "time_s")


def case(plan=Plan(), te_s=(0.0041, 0.0123), coils=3, **changes):
    images = torch.stack([picture(SHAPE) * 1j**n for n in range(len(te_s))])
    raw = raw_of(images, smooth_maps(coils, SHAPE), plan, te_s, **changes)
    return replace(raw, facts={"RepetitionTime": 0.039, "FlipAngle": 15.0, "Mood": (1.0, 2.0)})


def joined(blocks, name):
    return torch.cat([getattr(b, name) for b in blocks])


def same(a, b, columns=COLUMNS):
    a, b = ([x] if hasattr(x, "ky") else list(x) for x in (a, b))
    for name in columns:
        x, y = joined(a, name), joined(b, name)
        torch.testing.assert_close(y, x.to(y.dtype), rtol=0, atol=0, msg=name)


def oblique(shape=SHAPE):
    """Turned about all axes, voxels unequal, off the middle, left-handed."""
    from scipy.spatial.transform import Rotation

    a = np.eye(4)
    a[:3, :3] = Rotation.from_euler("xyz", [20, -35, 70], degrees=True).as_matrix() @ np.diag([0.7, -0.8, 2])
    a[:3, 3] = 31, -17, 8
    return Grid(shape, as_affine(a))


PLANS = {
    "GRE": Plan(noise=0.1),
    "EPI": Plan(shots=4, averages=2, reference=(6, 4), noise=0.1),
    "slices": Plan(slices=True),
    "partial": Plan(skip=(5, 2, 1)),
    "ramps": Plan(position=tuple(17 * np.sin(np.linspace(-1, 1, 40))), shots=3),
}


@pytest.mark.parametrize("name", PLANS)
def test_what_is_written_comes_back(name, tmp_path):
    """Samples and counters bit by bit, header to the digits of the format."""
    raw = case(PLANS[name], grid=oblique())
    back = read(write(raw, tmp_path / "a.h5"))
    for echo in range(2):
        same(raw.lines(echo), back.lines(echo))
        assert (raw.navigators is None) == (back.navigators is None)
        if raw.navigators is not None:
            same(raw.navigators(echo), back.navigators(echo))
    if raw.reference is not None:
        same(raw.reference(), back.reference())
    if raw.noise is not None:
        torch.testing.assert_close(back.noise, raw.noise, rtol=0, atol=0)
    assert back.scan == raw.scan
    assert back.facts == raw.facts
    assert back.grid.shape == raw.grid.shape
    np.testing.assert_allclose(back.grid.affine, raw.grid.affine, atol=2e-5)
    np.testing.assert_allclose(back.encoding.position, raw.encoding.position, atol=2e-6)
    assert replace(back.encoding, position=()) == replace(raw.encoding, position=())


def test_writes_again_the_same_bytes_of_data(tmp_path):
    raw = case(PLANS["EPI"])
    first = read(write(raw, tmp_path / "a.h5"))
    second = read(write(first, tmp_path / "b.h5"))
    same(first.lines(1), second.lines(1))
    assert second.grid == first.grid
    assert second.encoding == first.encoding


def test_small_blocks_are_the_same_readouts(tmp_path, monkeypatch):
    """Reading in pieces changes nothing, also where echoes are interleaved in the file."""
    path = write(case(), tmp_path / "a.h5")
    whole = list(read(path).lines(1))
    monkeypatch.setattr(counters, "BLOCK_BYTES", 8 * 3 * 32 * 7)
    blocks = list(read(path).lines(1))
    assert len(blocks) > 5
    same(whole, blocks)
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        half = len(rows) // 2
        file["dataset/data"][:] = np.stack([rows[:half], rows[half:]], axis=1).ravel()
    same(whole, read(path).lines(1))


def test_other_programs_read_it(tmp_path):
    """The reference library reads header and readouts; the header is valid by its schema."""
    raw = case(PLANS["EPI"])
    path = write(raw, tmp_path / "a.h5")
    with reference.Dataset(str(path), mode="r") as file:
        header = reference.xsd.CreateFromDocument(file.read_xml_header())
        found = [file.read_acquisition(n) for n in range(file.number_of_acquisitions())]
    image = [
        a for a in found if not a.flags or (a.is_flag_set(reference.ACQ_IS_REVERSE) and a.flags == 1 << 21)
    ]
    lines = list(raw.lines(0)) + list(raw.lines(1))
    np.testing.assert_array_equal(np.stack([a.data for a in image]), joined(lines, "data").numpy())
    assert [a.idx.kspace_encode_step_1 for a in image] == joined(lines, "ky").tolist()
    assert header.sequenceParameters.TE == [4.1, 12.3]
    assert header.encoding[0].encodedSpace.matrixSize.x == 32
    assert header.encoding[0].trajectory.value == "epi"
    assert sum(a.is_flag_set(reference.ACQ_IS_NOISE_MEASUREMENT) for a in found) == 1


def foreign(path, shape=(8, 6), slices=1, te=(5.0, 9.0), seed=0, **limits):
    """A file as converters write it: no words of ours, echoes interleaved, slices in odd order."""
    x, y = shape
    times = "".join(f"<TE>{t}</TE>" for t in te)
    text = f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
    <experimentalConditions><H1resonanceFrequency_Hz>123263034</H1resonanceFrequency_Hz>
    </experimentalConditions><encoding><trajectory>{limits.get("trajectory", "cartesian")}</trajectory>
    <encodedSpace><matrixSize><x>{2 * x}</x><y>{y}</y><z>1</z></matrixSize>
    <fieldOfView_mm><x>{4 * x}</x><y>{3 * y}</y><z>5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
    <fieldOfView_mm><x>{2 * x}</x><y>{3 * y}</y><z>5</z></fieldOfView_mm></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{y - 1}</maximum>
    <center>{y // 2}</center></kspace_encoding_step_1></encodingLimits>
    <parallelImaging><accelerationFactor><kspace_encoding_step_1>{limits.get("factor", 1)}
    </kspace_encoding_step_1><kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
    </parallelImaging></encoding>
    <sequenceParameters><TR>30</TR>{times}<flipAngle_deg>12</flipAngle_deg></sequenceParameters>
    </ismrmrdHeader>"""
    rng = np.random.default_rng(seed)
    order = [*range(1, slices, 2), *range(0, slices, 2)]  # even ones last, numbered by time
    with reference.Dataset(str(path), create_if_needed=True) as file:
        file.write_xml_header(text.encode())
        for ky in range(0, y, limits.get("factor", 1)):
            for number, at in enumerate(order):
                for contrast in range(len(te)):
                    k = rng.normal(size=(2, 2 * x)) + 1j * rng.normal(size=(2, 2 * x))
                    a = reference.Acquisition.from_array(k.astype(np.complex64))
                    a.idx.kspace_encode_step_1, a.idx.contrast, a.idx.slice = ky, contrast, number
                    a.center_sample = x
                    a.position[:] = (1, 2, 7.0 * at)
                    a.read_dir[:], a.phase_dir[:], a.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
                    file.append_acquisition(a)
    return path


def test_files_of_converters(tmp_path):
    """Slices in order of place, not of time; the gap between them; LPS to RAS; facts by BIDS names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = read(foreign(tmp_path / "a.h5", slices=4))
    assert raw.grid.shape == (8, 6, 4)
    assert raw.grid.voxel_mm == (2.0, 3.0, 7.0)
    affine = np.asarray(raw.grid.affine)
    np.testing.assert_allclose(affine @ (4, 3, 0, 1), (-1, -2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(np.diag(affine)[:3], (-2, -3, 7), atol=1e-6)
    assert raw.encoding.oversampling == 2
    assert raw.encoding.slices
    assert raw.scan.te_s == (0.005, 0.009)
    assert raw.scan.b0_tesla == pytest.approx(2.89503, abs=1e-4)
    assert raw.facts["RepetitionTime"] == 0.03
    lines = list(raw.lines(0))
    assert joined(lines, "kz").tolist() == [1, 3, 0, 2] * 6
    assert joined(lines, "shot").tolist() == list(range(24))
    assert raw.noise is None


def test_image_stands_where_the_header_says(tmp_path):
    """A point source at a known place comes out there, through file and grid, for an oblique grid."""
    image = torch.zeros(1, *SHAPE, dtype=torch.complex128)
    image[0, 11, 4, 6] = 1
    grid = oblique()
    raw = raw_of(image, torch.ones(1, *SHAPE, dtype=torch.complex128), Plan(), (0.01,), grid)
    back = read(write(raw, tmp_path / "a.h5"))
    k = Assemble()(back, 0)
    found = torch.fft.ifftn(k.data[0, 0], norm="ortho").abs()
    where = np.unravel_index(int(found.argmax()), SHAPE)
    world = np.asarray(back.grid.affine) @ (*where, 1)
    np.testing.assert_allclose(world, np.asarray(grid.affine) @ (11, 4, 6, 1), atol=1e-4)
    assert float(found.max()) == pytest.approx(1, abs=1e-5)


BAD = {
    "spiral": ({"trajectory": "spiral"}, "spiral scan: only Cartesian"),
    "no TE": ({"te": ()}, "give --te"),
    "calibration": ({"factor": 2}, "no reference"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_in_words(name, tmp_path):
    changes, words = BAD[name]
    if name == "no TE":
        path = foreign(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            text = file["dataset/xml"][0].replace(b"<TE>5.0</TE><TE>9.0</TE>", b"")
            file["dataset/xml"][0] = text
    else:
        path = foreign(tmp_path / "a.h5", **changes)
    with pytest.raises(ValueError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)


def changed(path, column, value, row=-1):
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        head = rows["head"]
        target = head["idx"] if column in head["idx"].dtype.names else head
        target[column][row] = value
        file["dataset/data"][:] = rows
    return path


def test_wrong_counters(tmp_path):
    path = changed(write(case(), tmp_path / "a.h5"), "kspace_encode_step_1", 99)
    with pytest.raises(ValueError, match="says line 99, but the header has 12"):
        read(path)


def test_mixed_matrix_sizes(tmp_path):
    path = changed(write(case(), tmp_path / "a.h5"), "number_of_samples", 30)
    with pytest.raises(ValueError, match="30, 32 samples: one matrix size"):
        read(path)


def test_readout_shorter_than_it_says(tmp_path):
    path = changed(write(case(), tmp_path / "a.h5"), "number_of_samples", 40, slice(None))
    with pytest.raises(ValueError, match="shorter than its header says"):
        list(read(path).lines(0))


def test_missing_echo(tmp_path):
    raw = case()
    path = write(replace(raw, lines=lambda e: raw.lines(e) if e else iter(())), tmp_path / "a.h5")
    with pytest.raises(ValueError, match="no readouts of echo 1"):
        read(path)


def test_only_noise(tmp_path):
    path = changed(write(case(), tmp_path / "a.h5"), "flags", 1 << 18, slice(None))
    with pytest.raises(ValueError, match="none of an image"):
        read(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated(tmp_path, share):
    path = write(case(), tmp_path / "a.h5")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="cut short or damaged"):
        read(path)


def test_other_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert not is_ismrmrd(path)
    with pytest.raises(ValueError, match="not ISMRMRD"):
        read(path)


def test_field_strength_that_contradicts_itself(tmp_path):
    path = write(case(), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0]
        file["dataset/xml"][0] = text.replace(b"127732434", b"63866217")
    with pytest.raises(ValueError, match=r"3 T and 63\.8"):
        read(path)
    assert read(path, b0_tesla=1.5).scan.b0_tesla == 1.5


def test_a_failing_write_leaves_nothing(tmp_path):
    def lines(echo):
        yield next(case().lines(0))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(replace(case(), lines=lines), tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_repetitions_are_told(tmp_path):
    raw = case(te_s=(0.01,))
    path = write(raw, tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        again = rows.copy()
        again["head"]["idx"]["repetition"] = 1
        for r in again:
            r["data"] = r["data"] * 2
        file["dataset/data"].resize(2 * len(rows), axis=0)
        file["dataset/data"][:] = np.concatenate([rows, again])
    first, second = read(path), read(path, repetition=1)
    assert any("2 repetitions; number 1" in w for w in first.warnings)
    same(raw.lines(0), first.lines(0))
    torch.testing.assert_close(joined(second.lines(0), "data"), 2 * joined(first.lines(0), "data"))
    with pytest.raises(ValueError, match="not 3"):
        read(path, repetition=2)

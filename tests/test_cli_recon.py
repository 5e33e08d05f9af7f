"""Raw data through the command line: images with their sidecars, χ from raw data, and bad input refused."""

import json
import re
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps
from test_cli import call
from test_io_ismrmrd import changed
from test_io_rawdata import put
from test_io_twix import case, changing, shorter, written

from k2chi import config
from k2chi.data import Grid, as_affine
from k2chi.io.ismrmrd import write
from k2chi.io.rawdata import open_raw
from k2chi.ops.fourier import centred_fft
from k2chi.pipeline import Pipeline

SHAPE = (24, 20, 16)
TES = (0.004, 0.010, 0.016)
SMALL = ("--set", "recon.compression = 'none'")
FAST = [
    *("--set", 'invert.method = "TKD"', "--set", 'unwrap.method = "LaplacianUnwrap"'),
    *("--set", "background.largest_mm = 4.0", "--sign", "+"),
]
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 1.4, -0.6, -9], [0, 0.5, 1.7, -13], [0, 0, 0, 1.0]])


def straight(affine):
    """The nearest grid without shear."""
    u, _, v = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    out = affine.copy()
    out[:3, :3] = u @ v * [1.5, 1.5, 1.8]
    return out


def echoes():
    """A ball with a smooth field that grows with the echo time."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in SHAPE], indexing="ij")
    ball = ((x / 0.8) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2 < 1).double()
    hz = 20 * x - 15 * y * z + 40 * torch.exp(-((x - 0.2) ** 2 + y**2 + z**2) / 0.05)
    return torch.stack([ball * torch.exp(2j * torch.pi * t * hz) for t in TES])


def kspace(coils=3):
    g = torch.Generator().manual_seed(0)
    k = centred_fft(echoes()[:, None] * smooth_maps(coils, SHAPE))
    return (k + 1e-3 * torch.randn(k.shape, dtype=k.dtype, generator=g)).to(torch.complex64).numpy()


@pytest.fixture
def no_pages(monkeypatch):
    """Records without the page for reading, whose figures cost more than all else here."""
    monkeypatch.setattr("k2chi.app.report.html", lambda *_: "")
    monkeypatch.setattr("k2chi.app.recon.page", lambda *_: "")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A file of raw data with noise and a protocol."""
    folder = tmp_path_factory.mktemp("raw")
    noise = 1e-3 * torch.randn(3, 500, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    np.save(folder / "noise.npy", noise.numpy())
    facts = {"RepetitionTime": 0.039, "FlipAngle": 15.0}
    affine = [[float(v) for v in row] for row in straight(AFFINE)]
    settings = {"te_s": list(TES), "voxel_mm": None, "affine": affine, "noise": "noise.npy", "facts": facts}
    path = put(folder / "scan.npy", kspace(), **settings)
    return write(open_raw(path), folder / "scan.h5")


@pytest.fixture(scope="module")
def images(raw, tmp_path_factory):
    """What `k2chi recon` makes of it."""
    out = tmp_path_factory.mktemp("out") / "images"
    result = call("recon", raw, out, *SMALL, "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_images_with_sidecars_and_records(raw, images):
    """Every part of every echo at its place, what BIDS asks for, recipe that reads back, page, hashes."""
    out, record = images
    names = {f"echo-{e}_part-{p}_MEGRE" for e in (1, 2, 3) for p in ("mag", "phase", "real", "imag")}
    notes = {"recon.html", "recon.json", "recon.toml", "recon.txt"}
    ends = (".nii.gz", ".json")
    assert {p.name for p in out.iterdir()} == {n + end for n in names for end in ends} | notes
    parts = {p: nib.load(out / f"echo-2_part-{p}_MEGRE.nii.gz") for p in ("mag", "phase", "real", "imag")}
    np.testing.assert_allclose(parts["mag"].affine, straight(AFFINE), atol=1e-4)
    signal = parts["real"].get_fdata() + 1j * parts["imag"].get_fdata()
    polar = parts["mag"].get_fdata() * np.exp(1j * parts["phase"].get_fdata())
    np.testing.assert_allclose(polar, signal, atol=1e-5 * np.abs(signal).max())
    told = json.loads((out / "echo-2_part-phase_MEGRE.json").read_text())
    assert told["EchoTime"] == TES[1]
    assert told["EchoNumber"] == 2
    assert told["MagneticFieldStrength"] == 3
    assert told["RepetitionTime"] == 0.039
    assert told["FlipAngle"] == 15
    assert told["Units"] == "rad"
    assert told["ImageType"][-1] == "P"
    np.testing.assert_allclose(told["AcquisitionVoxelSize"], (1.5, 1.5, 1.8), atol=1e-4)
    assert told["Reconstruction"]["unfold"]["method"] == "CGSENSE"
    assert record["inputs"] == {str(raw): record["inputs"][str(raw)]}
    assert len(record["inputs"][str(raw)]) == 64
    assert "3 coils, 3 echoes, 24 × 20 × 16 points" in record["said"][0]
    assert config.loads((out / "recon.toml").read_text(), Pipeline).recon.compression is None
    text = (out / "recon.html").read_text()
    assert "Complex images were computed" in text
    assert all(
        s.startswith(("data:image/png", "https://doi.org"))
        for s in re.findall(r'(?:src|href)="([^"]{0,30})', text)
    )


def test_images_are_those_that_were_scanned(images):
    """Phase differences of echoes are those of the field; magnitude is even where the object is."""
    out, _ = images
    truth = echoes().numpy()
    inside = np.abs(truth[0]) > 0
    first, second = (
        nib.load(out / f"echo-{e}_part-real_MEGRE.nii.gz").get_fdata()
        + 1j * nib.load(out / f"echo-{e}_part-imag_MEGRE.nii.gz").get_fdata()
        for e in (1, 2)
    )
    turn = np.angle(second * first.conj() * (truth[1] * truth[0].conj()).conj())[inside]
    assert np.abs(turn).max() < 0.05
    assert np.abs(first)[~inside].mean() < 0.02 * np.abs(first)[inside].mean()


@pytest.mark.usefixtures("no_pages")
def test_raw_data_to_chi_in_one_step_or_two(raw, images, tmp_path):
    """One recipe, the same map."""
    one = call("qsm", raw, tmp_path / "one", *SMALL, *FAST, "--json")
    assert one.exit_code == 0, one.output
    two = call("qsm", images[0], tmp_path / "two", *SMALL, *FAST)
    assert two.exit_code == 0, two.output
    a, b = (nib.load(tmp_path / n / "Chimap.nii.gz").get_fdata() for n in ("one", "two"))
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())
    record = json.loads(one.stdout)
    assert "recon" in record["seconds"]
    assert list(record["inputs"]) == [str(raw)]
    assert "coil sensitivities were found" in (tmp_path / "one" / "methods.md").read_text()


@pytest.mark.usefixtures("no_pages")
def test_bids_names_and_parts(raw, tmp_path):
    """A subject's name makes a data set; k2chi bids finds it."""
    out = tmp_path / "set"
    for name in ("sub-01_ses-a", "sub-02_ses-a"):
        done = call("recon", raw, out, "--name", name, "--no-complex", *SMALL)
        assert done.exit_code == 0, done.output
    files = sorted(p.name for p in (out / "sub-02" / "ses-a" / "anat").glob("*.nii.gz"))
    assert files[0] == "sub-02_ses-a_echo-1_part-mag_MEGRE.nii.gz"
    assert len(files) == 6
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "raw"
    assert (out / "logs" / "sub-01_ses-a_recon.json").exists()
    done = call("bids", out, tmp_path / "maps", "--until", "unwrap", "--json")
    assert done.exit_code == 0, done.output
    assert call("recon", raw, out, "--name", "scan 1", *SMALL).exit_code == 2


@pytest.mark.usefixtures("no_pages")
def test_epi_is_t2starw_with_its_facts(tmp_path):
    """BIDS keeps EPI out of MEGRE; distortion depends on the effective echo spacing."""
    shape = (16, 12, 8)
    plan = Plan(shots=4, spacing_s=0.002, noise=1e-3)
    grid = Grid(shape, as_affine(np.diag([2.0, 2.0, 2.0, 1.0])))
    path = write(raw_of(picture(shape)[None], smooth_maps(2, shape), plan, (0.02,), grid), tmp_path / "a.h5")
    done = call("recon", path, tmp_path / "out", *SMALL)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "part-mag_T2starw.json").read_text())
    assert told["EchoTrainLength"] == 3
    assert told["EffectiveEchoSpacing"] == pytest.approx(0.002 / 4)
    assert told["TotalReadoutTime"] == pytest.approx(0.002 / 4 * 11)
    assert told["PulseSequenceType"] == "EPI"


def field_map(path, hz, shape=(8, 8, 8), mm=4.0, x_mm=-4.0):
    """A uniform field map on a coarser grid about the same place, its axes turned round."""
    affine = np.array([[0, 0, mm, x_mm], [-mm, 0, 0, 28], [0, mm, 0, -8], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(np.full(shape, hz, dtype=np.float32), affine), path)
    return path


def test_epi_is_unwarped_by_a_field_map_of_another_grid(tmp_path):
    """Two voxels of shift go; what was done is told; without a map that is told, too."""
    shape, hz = (16, 12, 8), 2 / (12 * 0.002)
    grid = Grid(shape, as_affine(np.diag([2.0, 2.0, 2.0, 1.0])))

    def scan(name, off_hz):
        plan = Plan(shots=1, spacing_s=0.002, noise=1e-3, off_hz=off_hz)
        return write(
            raw_of(picture(shape)[None], smooth_maps(2, shape), plan, (0.02,), grid), tmp_path / name
        )

    def image(out):
        return nib.load(tmp_path / out / "part-mag_T2starw.nii.gz").get_fdata()

    raw, truth = scan("a.h5", hz), scan("b.h5", 0.0)
    where = field_map(tmp_path / "f.nii", hz)
    for out, path, more in (
        ("true", truth, ()),
        ("bent", raw, ()),
        ("back", raw, ("--unwarp", where, "--units", "Hz")),
    ):
        done = call("recon", path, tmp_path / out, "--no-complex", *SMALL, *more)
        assert done.exit_code == 0, done.output
    norm = np.linalg.norm(image("true"))
    assert np.linalg.norm(image("bent") - image("true")) > 0.3 * norm
    assert np.linalg.norm(image("back") - image("true")) < 0.1 * norm
    assert "not unwarped: 10 Hz of field move voxels by" in (tmp_path / "bent" / "recon.txt").read_text()
    assert "unwarped by a field map" in (tmp_path / "back" / "recon.txt").read_text()
    told = {out: (tmp_path / out / "recon.html").read_text() for out in ("bent", "back")}
    assert ["Jezzard" in told[out] for out in ("bent", "back")] == [False, True]
    inputs = json.loads((tmp_path / "back" / "recon.json").read_text())["inputs"]
    assert set(inputs) == {str(raw), str(where)}
    far = field_map(tmp_path / "g.nii", hz, x_mm=900)
    done = call("recon", raw, tmp_path / "o", *SMALL, "--unwarp", far, "--units", "Hz")
    assert "do not overlap" in done.output


@pytest.mark.usefixtures("no_pages")
def test_qsm_takes_a_mask_for_raw_data(raw, images, tmp_path):
    """On the grid of the images; one of another grid is refused by name, before any work."""
    like = nib.load(images[0] / "echo-1_part-mag_MEGRE.nii.gz")
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[6:18, 5:15, 4:12] = 1
    good, small, shifted = (tmp_path / f"{n}.nii.gz" for n in ("good", "small", "shifted"))
    nib.save(nib.Nifti1Image(mask, like.affine), good)
    nib.save(nib.Nifti1Image(mask[:-1], like.affine), small)
    moved = like.affine.copy()
    moved[0, 3] += 5
    nib.save(nib.Nifti1Image(mask, moved), shifted)
    done = call("qsm", raw, tmp_path / "out", *SMALL, "--mask", good, "--until", "mask", "--json")
    assert done.exit_code == 0, done.output
    assert str(good) in json.loads(done.stdout)["inputs"]
    found = nib.load(tmp_path / "out" / "desc-brain_mask.nii.gz").get_fdata()
    np.testing.assert_array_equal(found, mask)
    for path, words in (
        (small, "(23, 20, 16) voxels but the images of scan.h5 has (24, 20, 16)"),
        (shifted, "away from"),
    ):
        done = call("qsm", raw, tmp_path / "no", *SMALL, "--mask", path)
        assert done.exit_code == 2
        assert words in done.output
        assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("no_pages")
def test_finished_results_are_kept(raw, images, tmp_path):
    out = shutil.copytree(images[0], tmp_path / "copy")
    before = (out / "recon.json").read_text()
    result = call("recon", raw, out, *SMALL)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (out / "recon.json").read_text() == before
    assert call("recon", raw, out, *SMALL, "--overwrite").exit_code == 0


BAD = {
    "nothing": (b"", "the file is empty"),
    "text": (b"none " * 5000, "supported are Siemens twix"),
    "truncated": (None, "cut short"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["recon", "qsm"])
def test_bad_input_leaves_nothing(command, name, tmp_path):
    """Exit code 2, one sentence, no folder."""
    data, words = BAD[name]
    path = tmp_path / "a.dat"
    if data is None:
        written(path, case())
        data = path.read_bytes()[:-5000]
    path.write_bytes(data)
    result = call(command, path, tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.startswith("k2chi: ")
    assert not (tmp_path / "out").exists()


def siemens(path, plan=Plan(), changes=(), acceleration=(1, 1), **how):
    """A Siemens file of one echo."""
    scan = case(plan, te_s=(0.01,))
    scan = replace(scan, encoding=replace(scan.encoding, acceleration=acceleration))
    return written(path.with_suffix(".dat"), scan, changes=changes, **how)


def ismrmrd_of(path, column, value, row=-1):
    """An ISMRMRD file with a number of a readout's header changed."""
    return changed(write(case(te_s=(0.01,)), path.with_suffix(".h5")), column, value, row)


def half():
    """Every second line, nothing more."""
    keep = torch.zeros(12, 8, dtype=torch.bool)
    keep[::2] = True
    return keep


DAMAGED = {
    "no reference": (lambda p: siemens(p, Plan(keep=half()), acceleration=(2, 1)), "no reference readouts"),
    "counter": (lambda p: siemens(p, change=changing(Counter_Lin=77)), "line 77, but the header has 12"),
    "sizes": (lambda p: siemens(p, change=shorter), "20, 32 samples: one matrix size"),
    "radial": (lambda p: siemens(p, changes={"sKSpace.ucTrajectory": 2}), "a radial scan: only Cartesian"),
    "no echo time": (lambda p: siemens(p, changes={"alTE[0]": 0}), "--te"),
    "no strength": (lambda p: siemens(p, changes={"sTXSPEC.asNucleusInfo[0].lFrequency": None}), "--b0"),
    "ISMRMRD counter": (
        lambda p: ismrmrd_of(p, "kspace_encode_step_1", 99),
        "line 99, but the header",
    ),
    "ISMRMRD sizes": (lambda p: ismrmrd_of(p, "number_of_samples", 30), "30, 32 samples: one matrix size"),
    "ISMRMRD spiral": (lambda p: ismrmrd_of(p, "trajectory_dimensions", 2, 0), "only Cartesian"),
    "ISMRMRD noise": (lambda p: ismrmrd_of(p, "flags", 1 << 18, slice(None)), "none of an image"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_scans_that_cannot_be_used_leave_nothing(name, tmp_path):
    """Exit code 2; one sentence says which file, what is wrong and what to do; no folder, no traceback."""
    make, words = DAMAGED[name]
    path = make(tmp_path / "scan")
    result = call("recon", path, tmp_path / "out")
    said = " ".join(result.output.split())
    assert result.exit_code == 2, said
    assert said.startswith(f"k2chi: {path}: ")
    assert words in said
    assert re.search(r": give|; give|; export|; split|; reconstruct", said), said
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_damage_that_shows_while_reading_leaves_nothing(tmp_path):
    """Part of the images could be made; none are written."""
    data = kspace()
    data[2, 0, 0, 0, 0] = np.nan
    path = put(tmp_path / "a.npy", data, te_s=list(TES))
    result = call("recon", path, tmp_path / "out", *SMALL)
    assert result.exit_code == 2
    assert "NaN" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_pages")
def test_missing_noise_is_told_once(tmp_path):
    result = call(
        "recon", put(tmp_path / "a.npy", kspace(), te_s=list(TES)), tmp_path / "out", *SMALL, "--json"
    )
    told = json.loads(result.stdout)["warnings"]
    assert sum("no noise" in words for words in told) == 1


def test_options_that_do_not_fit(raw, tmp_path):
    assert "k2chi recon" in call("qsm", raw, tmp_path / "o", "--unwrapped").output
    refused = call(
        "recon", raw, tmp_path / "o", "--unwarp", field_map(tmp_path / "f.nii", 1.0), "--units", "Hz"
    )
    assert "not EPI" in refused.output
    assert "--unwarp is for raw data" in call("qsm", tmp_path, tmp_path / "o", "--unwarp", raw).output
    assert "no such file" in call("recon", tmp_path / "x.h5", tmp_path / "o").output
    assert "repetitions 1 to 1, not 4" in call("recon", raw, tmp_path / "o", "--repetition", 4).output

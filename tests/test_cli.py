"""The command line, in process: what it writes, what it says, and how it refuses."""

import errno
import json
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from images import AFFINE, TES, save, scan
from typer.testing import CliRunner

from k2chi import __version__, about, config
from k2chi.app import console
from k2chi.app.cli import app
from k2chi.io import ismrmrd
from k2chi.measure.definitions import DEFINITIONS
from k2chi.phantom.protocols import PROTOCOLS, QUICK
from k2chi.pipeline import Pipeline

MAG, PHASE, INSIDE = scan()
FAST = [
    *("--set", 'invert.method = "TKD"', "--set", 'unwrap.method = "LaplacianUnwrap"'),
    *("--set", "background.largest_mm = 4.0", "--sign", "+"),
]
TIMES = [a for t in TES for a in ("--te", str(t))]


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def files(tmp_path):
    """Magnitude, phase and mask on disk."""
    return {
        "m": save(tmp_path / "m.nii.gz", MAG),
        "p": save(tmp_path / "p.nii.gz", PHASE),
        "mask": save(tmp_path / "mask.nii.gz", INSIDE),
    }


def given(files):
    return [
        "--magnitude",
        files["m"],
        "--phase",
        files["p"],
        *TIMES,
        "--b0",
        3,
        "--mask",
        files["mask"],
        *FAST,
    ]


def data_set(root, subjects=("01",), mask=True):
    """Three echoes a subject, with everything in JSON."""
    for sub in subjects:
        folder = root / f"sub-{sub}" / "anat"
        folder.mkdir(parents=True)
        for e, te in enumerate(TES):
            for part, data in (("mag", MAG), ("phase", PHASE)):
                stem = f"sub-{sub}_echo-{e + 1}_part-{part}_MEGRE"
                save(folder / f"{stem}.nii.gz", data[..., e])
                (folder / f"{stem}.json").write_text(json.dumps({"EchoTime": te, "MagneticFieldStrength": 3}))
        if mask:
            there = root / "derivatives" / "bet"
            there.mkdir(parents=True, exist_ok=True)
            save(there / f"sub-{sub}_desc-brain_mask.nii.gz", INSIDE)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def test_files_to_maps_with_records(files, tmp_path):
    """Maps on the input's grid; recipe that reads back to the same pipeline; hashes; report; methods."""
    out = tmp_path / "out"
    result = call("qsm", out, *given(files), "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    chi = nib.load(out / "Chimap.nii.gz")
    np.testing.assert_allclose(chi.affine, AFFINE, atol=1e-6)
    assert chi.shape == INSIDE.shape
    assert not chi.get_fdata()[~INSIDE].any()
    assert np.ptp(chi.get_fdata()) > 0
    recipe = config.loads((out / "recipe.toml").read_text(), Pipeline)
    assert type(recipe.invert).__name__ == "TKD"
    assert recipe.background.largest_mm == 4.0
    assert len(record["inputs"]) == 3
    assert all(len(sha) == 64 for sha in record["inputs"].values())
    assert set(record["seconds"]) >= {"unwrap", "combine", "background", "invert", "reference"}
    assert {p.name for p in out.iterdir()} >= {
        "report.html",
        "methods.md",
        "log.txt",
        "run.json",
        "R2starmap.nii.gz",
    }
    text = (out / "methods.md").read_text()
    assert "https://doi.org/10.1002/mrm.22135" in text
    assert "echo times of 4, 10, 16 ms" in text
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_same_input_same_maps(files, tmp_path):
    for name in ("a", "b"):
        assert call("qsm", tmp_path / name, *given(files)).exit_code == 0
    names = [p.name for p in (tmp_path / "a").glob("*.nii.gz")]
    assert len(names) >= 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_report_is_self_contained_and_complete(files, tmp_path):
    call("qsm", tmp_path / "out", *given(files))
    page = (tmp_path / "out" / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert sources
    assert all(s.startswith(("data:image/png", "https://doi.org")) for s in sources)
    for words in (
        "−0.1…0.2 ppm",
        "Histogram",
        "Time of each stage",
        "TKD",
        "sha256",
        "Sign of the phase taken as it is",
    ):
        assert words in page, words


def test_existing_results_are_kept_unless_told(files, tmp_path):
    out = tmp_path / "out"
    assert call("qsm", out, *given(files)).exit_code == 0
    before = (out / "run.json").read_text()
    again = call("qsm", out, *given(files))
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert (out / "run.json").read_text() == before
    assert call("qsm", out, *given(files), "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("mask", "desc-brain_mask"),
        ("unwrap", "part-phase_desc-unwrapped_MEGRE"),
        ("total", "desc-total_fieldmap"),
        ("local", "desc-local_fieldmap"),
    ],
)
def test_stops_anywhere(files, tmp_path, until, last):
    result = call("qsm", tmp_path / "out", *given(files), "--until", until)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / f"{last}.nii.gz").exists()
    assert not (tmp_path / "out" / "Chimap.nii.gz").exists()


def test_starts_from_its_own_field_maps(files, tmp_path):
    """Hz on disk, read back through the JSON's unit: the same χ as in one go."""
    out = tmp_path / "out"
    call("qsm", out, *given(files))
    whole = nib.load(out / "Chimap.nii.gz").get_fdata()
    for option, name in (("--field", "total"), ("--local-field", "local")):
        there = tmp_path / name
        source = out / f"desc-{name}_fieldmap.nii.gz"
        result = call("qsm", there, option, source, "--mask", files["mask"], *FAST)
        assert result.exit_code == 0, result.output
        again = nib.load(there / "Chimap.nii.gz").get_fdata()
        np.testing.assert_allclose(again, whole, atol=1e-6)


def test_real_and_imaginary_and_conjugate(files, tmp_path):
    """Real and imaginary give the same χ; turning the sign gives its negative."""
    call("qsm", tmp_path / "a", *given(files))
    a = nib.load(tmp_path / "a" / "Chimap.nii.gz").get_fdata()
    r = save(tmp_path / "r.nii", MAG * np.cos(PHASE))
    i = save(tmp_path / "i.nii", MAG * np.sin(PHASE))
    common = [*TIMES, "--b0", 3, "--mask", files["mask"], *FAST]
    call("qsm", tmp_path / "b", "--real", r, "--imag", i, *common)
    call("qsm", tmp_path / "c", "--real", r, "--imag", i, *common, "--sign", "-")
    b, c = (nib.load(tmp_path / n / "Chimap.nii.gz").get_fdata() for n in "bc")
    np.testing.assert_allclose(b, a, atol=1e-4)
    np.testing.assert_allclose(c, -b, atol=1e-4)


def bad(name, tmp_path, files):
    """Arguments of a call that cannot work, and what must be said."""
    out = tmp_path / "out"
    broken = tmp_path / "cut.nii.gz"
    broken.write_bytes(files["p"].read_bytes()[:5000])
    flat = save(tmp_path / "flat.nii", PHASE[:, :, 0, 0])
    wrong = save(tmp_path / "wrong.nii", INSIDE[:-1])
    empty = save(tmp_path / "empty.nii", INSIDE * 0)
    nan = save(tmp_path / "nan.nii", PHASE * np.nan)
    sheared = AFFINE.copy()
    sheared[:3, 0] = sheared[:3, 1]
    lone = tmp_path / "lone"
    lone.mkdir()
    blocked = tmp_path / "file"
    blocked.write_text("")
    one = tmp_path / "one.nii"
    save(one, PHASE[..., 0], affine=np.eye(4))
    raw = bytearray(one.read_bytes())
    raw[280:296] = bytes(16)
    one.write_bytes(raw)
    unreadable = tmp_path / "x.nii.gz"
    unreadable.write_bytes(files["p"].read_bytes())
    (tmp_path / "x.json").write_text("{")
    good = given(files)
    p, b0, both = files["p"], ("--b0", 3), ["--magnitude", files["m"], "--phase", files["p"]]
    phase = ["--magnitude", files["m"], "--phase"]
    ms = ("--te", 4, "--te", 10, "--te", 16)
    te = ("--te", 0.01)
    cases = {
        "no echo times": ([*both, *b0], "no echo time is known"),
        "echo times in ms": ([*both, *ms, *b0], "look like ms"),
        "no field strength": ([*both, *TIMES], "field strength unknown"),
        "swapped": (["--magnitude", p, "--phase", files["m"], *TIMES, *b0], "swap them"),
        "NaN": ([*phase, nan, *TIMES, *b0], "NaN or infinite"),
        "empty mask": ([*good, "--mask", empty], "mask is empty"),
        "2D": (["--phase", flat, *te, *b0], "needs 3D volumes"),
        "other grid": ([*good, "--mask", wrong], "voxels but"),
        "singular affine": (["--phase", one, *te, *b0], "affine is singular"),
        "truncated gzip": ([*phase, broken, *TIMES, *b0], "cut.nii.gz"),
        "unreadable JSON": ([*phase, unreadable, *b0], "x.json: line 1 is not JSON"),
        "missing file": ([*phase, tmp_path / "no.nii", *TIMES, *b0], "there is no such file"),
        "one place only": ([], "give an input and an output folder"),
        "both": ([lone, *good], "not both"),
        "unknown recipe": ([*good, "--recipe", "fasst"], "no recipe 'fasst'"),
        "unknown setting": ([*good, "--set", "invert.treshold = 1"], "did you mean threshold"),
        "bad setting": ([*good, "--set", "invert.threshold = 2.0"], "choose 0 < threshold"),
        "no unit": (["--field", save(tmp_path / "f.nii", INSIDE * 0.1), *b0], "give --units"),
        "no GPU": ([*good, "--device", "cuda:77"], "not usable here"),
    }
    cases = {k: (["qsm", out, *args], says) for k, (args, says) in cases.items()}
    cases |= {
        "nothing there": (["qsm", lone, out], "no scan with phase found"),
        "no folder": (["qsm", tmp_path / "nowhere", out], "there is no such folder"),
        "output is a file": (["qsm", blocked / "out", *good], "is a file where a folder is needed"),
        "group": (["bids", lone, out, "group"], "give participant"),
        "bad method": (["methods", "NDII"], "no method 'NDII'"),
        "compare": (["compare", files["m"], tmp_path / "no.nii"], "there is no such file"),
    }
    return cases[name] if name else tuple(cases)


NAMES = (
    *(
        "no echo times",
        "echo times in ms",
        "no field strength",
        "swapped",
        "NaN",
        "empty mask",
        "2D",
        "other grid",
    ),
    *("singular affine", "truncated gzip", "unreadable JSON", "missing file", "nothing there", "no folder"),
    *(
        "one place only",
        "both",
        "output is a file",
        "unknown recipe",
        "unknown setting",
        "bad setting",
        "no unit",
    ),
    *("no GPU", "group", "bad method", "compare"),
)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gets_one_sentence_and_leaves_nothing(tmp_path, files, name):
    """Exit code 2, one line on stderr, no traceback, nothing half-written."""
    args, says = bad(name, tmp_path, files)
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "no space is left"), (errno.EROFS, "no permission"), (errno.EACCES, "no permission")],
)
def test_disk_errors_leave_nothing(monkeypatch, files, tmp_path, number, says):
    """The disk fails after some maps are written: all of them go."""
    written = []

    def failing(source, target):
        written.append(target)
        if len(written) == 4:
            raise OSError(number, os.strerror(number), str(target))
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", failing)
    result = call("qsm", tmp_path / "out", *given(files))
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(written) == 4
    assert not (tmp_path / "out").exists()


def test_full_disk_is_noticed_before_the_work(monkeypatch, files, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    result = call("qsm", tmp_path / "out", *given(files))
    assert result.exit_code == 2
    assert "make room" in result.stderr


def test_bids_app(tmp_path):
    """Two subjects, one broken: the other is done, exit code 1; a second call only does what is missing."""
    raw, out = data_set(tmp_path / "raw", ("01", "02")), tmp_path / "out"
    cut = raw / "sub-01" / "anat" / "sub-01_echo-2_part-phase_MEGRE.nii.gz"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:900])
    result = call("bids", raw, out, "participant", *FAST)
    assert result.exit_code == 1
    assert "failed: sub-01: " in result.stderr
    assert cut.name in result.stderr
    chi = out / "sub-02" / "anat" / "sub-02_Chimap.nii.gz"
    assert chi.exists()
    assert not list(out.glob("sub-01*"))
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0] == {"Name": "k2chi", "Version": __version__}
    side = json.loads(chi.with_name("sub-02_Chimap.json").read_text())
    assert "bids:raw:sub-02/anat/sub-02_echo-1_part-phase_MEGRE.nii.gz" in side["Sources"]
    cut.write_bytes(whole)
    stamp = chi.stat().st_mtime_ns
    again = call("bids", raw, out, *FAST, "--json")
    assert again.exit_code == 0
    assert [o["state"] for o in json.loads(again.stdout)] == ["done", "skipped"]
    assert chi.stat().st_mtime_ns == stamp
    changed = call(
        "bids", raw, out, *FAST, "--set", "invert.threshold = 0.3", "--participant-label", "02", "--json"
    )
    assert [o["state"] for o in json.loads(changed.stdout)] == ["done"]


def test_scans_in_processes_of_their_own(tmp_path):
    """The outcome comes back from the child, and its files are there."""
    raw, out = data_set(tmp_path / "raw"), tmp_path / "out"
    result = call("bids", raw, out, *FAST, "--n-procs", 2, "--threads", 1, "--json")
    assert [o["state"] for o in json.loads(result.stdout)] == ["done"], result.output
    assert (out / "sub-01" / "anat" / "sub-01_Chimap.nii.gz").exists()


def test_qsm_takes_a_data_set_of_one_scan(tmp_path):
    raw = data_set(tmp_path / "raw")
    assert call("qsm", raw, tmp_path / "out", *FAST).exit_code == 0
    assert (tmp_path / "out" / "sub-01_Chimap.nii.gz").exists()
    two = data_set(tmp_path / "two", ("01", "02"))
    result = call("qsm", two, tmp_path / "other", *FAST)
    assert result.exit_code == 2
    assert "holds 2 scans" in result.stderr


def test_compare(tmp_path):
    """A map twice the truth: correlation 1, demeaned error 100 %."""
    truth = np.random.default_rng(0).normal(size=(12, 12, 12))
    a, b = save(tmp_path / "a.nii", 2 * truth), save(tmp_path / "b.nii", truth)
    found = json.loads(call("compare", a, b, "--json").stdout)
    assert found["nrmse"] == pytest.approx(100, rel=1e-3)
    assert found["correlation"] == pytest.approx(1)
    assert "100 ‖a − t‖" in call("compare", a, b).stdout


def test_compare_without_a_truth_and_where_nothing_is_defined(tmp_path):
    """Noise, streaks and sharpness need no truth; what is not defined is null or said in words, not nan."""
    chi = save(tmp_path / "a.nii", np.random.default_rng(0).normal(scale=0.01, size=(12, 12, 12)))
    assert set(json.loads(call("compare", chi, "--json").stdout)) == {
        *("noise_ppb", "streak_index", "sharpness_ppb_per_mm")
    }
    constant = save(tmp_path / "b.nii", np.full((12, 12, 12), 0.1))
    found = json.loads(call("compare", chi, constant, "--json").stdout, parse_constant=pytest.fail)
    assert found["nrmse"] is None
    shown = call("compare", chi, constant).stdout
    assert re.search(r"nrmse +not defined", shown)
    assert not re.search(r"\b(nan|inf)\b", shown)
    labels = save(tmp_path / "l.nii", np.zeros((12, 12, 12)))
    for args, says in (
        ((chi, constant, "--labels", labels), "no label lies in the mask"),
        ((chi, "--labels", labels), "needs a truth"),
        ((chi, "--figure", tmp_path / "d.png"), "needs a truth"),
        ((chi, save(tmp_path / "c.nii", np.ones((12, 12, 10)))), "give volumes of one grid"),
    ):
        refused = call("compare", *args)
        assert refused.exit_code == 2
        assert says in refused.stderr


def test_every_measure_is_defined_in_the_help():
    shown = " ".join(call("compare", "--help").stdout.split())
    for name, words in DEFINITIONS.items():
        assert f"{name}: {words}" in shown


def test_compare_asks_about_ppb_and_draws(tmp_path):
    """A thousandfold unit is not guessed; once told, the measures are the same. The picture is there."""
    truth = np.random.default_rng(0).normal(scale=0.1, size=(12, 14, 16))
    ppm = save(tmp_path / "a.nii", 1.5 * truth), save(tmp_path / "b.nii", truth)
    ppb = save(tmp_path / "c.nii", 1500 * truth), save(tmp_path / "d.nii", 1000 * truth)
    refused = call("compare", *ppb, "--json")
    assert refused.exit_code == 2
    assert "looks like ppb" in refused.stderr
    assert "--unit ppb" in refused.stderr
    mixed = call("compare", ppb[0], ppm[1])
    assert mixed.exit_code == 2
    assert "bring both to one unit" in mixed.stderr
    one = json.loads(call("compare", *ppm, "--json").stdout)
    two = json.loads(call("compare", *ppb, "--unit", "ppb", "--json").stdout)
    assert one == pytest.approx(two, rel=1e-4, abs=1e-4)
    call("compare", *ppm, "--figure", tmp_path / "d.png")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    other = call("compare", *ppm, "--figure", tmp_path / "d.txt")
    assert other.exit_code == 2
    assert "one of these endings" in other.stderr


def test_methods_lists_every_setting():
    found = json.loads(call("methods", "--json").stdout)
    stages = [m["stage"] for m in found]
    assert list(dict.fromkeys(stages)) == [s for s, hint in about.stages(Pipeline) if about.choices(hint)]
    assert all(m["sentence"].endswith(".") for m in found)
    assert all(s["help"] and s["type"] for m in found for s in m["settings"])
    text = call("methods", "tkd").stdout
    assert "invert.threshold = 0.15" in text
    assert "doi.org/10.1002/mrm.22135" in text


def test_sources_and_weighted_images_are_written(tmp_path):
    """Where the recipe asks for them: both pools, SWI and its projection, with their units."""
    made = call("simulate", "gre", tmp_path / "in", "--voxel", 5, 5, 5)
    assert made.exit_code == 0, made.output
    sets = ['invert.method = "TKD"', 'separate.method = "R2StarSeparation"', 'swi.method = "SWI"']
    options = [o for line in sets for o in ("--set", line)]
    done = call("qsm", tmp_path / "in", tmp_path / "out", *options, "--set", 'separate.invert.method = "TKD"')
    assert done.exit_code == 0, done.output
    files = {p.name for p in (tmp_path / "out").rglob("*.nii.gz")}
    for label in ("desc-paramagnetic_Chimap", "desc-diamagnetic_Chimap", "swi", "minIP"):
        assert any(f.endswith(f"{label}.nii.gz") for f in files), label
    said = next((tmp_path / "out").rglob("*desc-paramagnetic_Chimap.json"))
    assert json.loads(said.read_text(encoding="utf-8"))["Units"] == "ppm"


def test_raw_data_are_simulated(tmp_path, monkeypatch):
    """ISMRMRD that reads back as the scan it came from, truth beside it, the scan time said."""
    small = replace(QUICK, matrix=(24, 20, 14), voxel_mm=(9.0, 9.0, 12.0), published_s=9.0)
    monkeypatch.setitem(PROTOCOLS, "small", small)
    out = tmp_path / "scan"
    done = call("simulate", "kspace", out, "--protocol", "small", "--coils", 3, "--averages", 2, "--seed", 4)
    assert done.exit_code == 0, done.output
    assert "0:17, published 0:09" in done.stdout
    raw = ismrmrd.read(out / "raw.h5")
    assert (raw.coils, raw.grid.shape, raw.scan.te_s) == (3, (24, 20, 14), small.te_s)
    blocks = list(raw.lines(1))
    assert sum(len(b.ky) for b in blocks) == 2 * 20 * 14
    assert {n for b in blocks for n in b.average.tolist()} == {0, 1}
    assert np.allclose(raw.grid.affine, small.grid().affine, atol=1e-4)
    chi = nib.load(out / "truth" / "Chimap.nii.gz")
    assert chi.shape == (24, 20, 14)
    told = json.loads((out / "protocol.json").read_text(encoding="utf-8"))
    assert told["Simulation"]["protocol"]["averages"] == 2


def test_protocols_are_listed_with_their_scan_times():
    """As text and as JSON; an unknown one is refused with those there are."""
    assert "7:02, published 7:02" in call("simulate", "protocols").stdout
    rows = json.loads(call("simulate", "protocols", "--json").stdout)
    assert {r["protocol"] for r in rows} == set(PROTOCOLS)
    assert next(r for r in rows if r["protocol"] == "epi-1")["published_s"] == 116
    refused = call("simulate", "kspace", "nowhere", "--protocol", "spiral")
    assert refused.exit_code == 2
    assert "epi-2" in refused.output
    assert call("simulate", "kspace", "nowhere", "--voxel", 1, 1, 1).exit_code == 2
    assert call("simulate", "gre").exit_code == 2


@pytest.mark.parametrize("name", config.shipped())
def test_shipped_recipes_read(name):
    """And survive a round trip."""
    recipe = config.recipe(name, Pipeline)
    assert config.loads(config.dumps(recipe), Pipeline) == recipe


def test_default_recipe_is_the_pipeline_as_it_comes():
    assert config.recipe("default", Pipeline) == Pipeline()


def test_version_and_help():
    assert call("--version").stdout.strip() == f"k2chi {__version__}"
    assert "participant" in call("bids", "--help").stdout


def test_errors_in_words():
    assert "memory" in console.sentence(MemoryError())
    assert console.sentence(ValueError("a\n  b")) == "a b"


def test_a_reader_that_has_seen_enough_is_no_bad_input(capsys):
    """`k2chi … | head` closes the pipe: nothing to tell about the output folder."""

    @console.plain_errors
    def command():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        command()
    assert not capsys.readouterr().err

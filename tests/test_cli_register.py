"""`k2chi register`, `k2chi atlas` and `k2chi roi --atlas`; χ is never resampled."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from heads import motion, seen, straight, turned_grid
from images import save
from typer.testing import CliRunner

from k2chi.app import overlay
from k2chi.app.cli import app
from k2chi.app.lesions import forward
from k2chi.data import as_affine
from k2chi.io import atlas as shelf
from k2chi.io import register as engine
from k2chi.io.nifti import write
from k2chi.io.transforms import read_matrix, write_matrix
from k2chi.measure.alignment import Alignment, dice
from k2chi.measure.residual import Octant
from k2chi.measure.space import Transform

GRID, OTHER, MOVE = straight((28, 32, 26), 2.6), turned_grid((24, 32, 26), (3.0, 2.5, 2.7)), motion()
NAMES = ("L Putamen", "R Putamen", "L Caudate", "R Caudate", "L Red Nucleus", "R Red Nucleus")


def call(*args):
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture
def known(monkeypatch):
    """The engine finds the true motion at once: what is tested here is what is done with it."""

    def at_once(method, moving, fixed, out):
        truth = Transform((as_affine(MOVE),))
        files = (write_matrix(out.with_name(f"{out.name}_0GenericAffine.txt"), truth.matrix),)
        record = {"Transforms": [files[0].name], "Seconds": 0.0}
        return engine.judged(truth, files, moving, fixed, method.warped, record, out)

    monkeypatch.setattr(engine, "register", at_once)
    monkeypatch.setattr("k2chi.app.roiatlas.register", at_once)


@pytest.fixture
def files(tmp_path):
    """A template with labels on a grid of their own, and a subject: the same head after a known motion."""
    atlas = tmp_path / "mine"
    atlas.mkdir()
    image, mask, _ = seen(OTHER)
    finer = turned_grid((34, 36, 36), (2.0, 2.0, 2.0))
    write(atlas / "head_magnitude.nii.gz", image, OTHER)
    write(atlas / "head_mask.nii.gz", mask, OTHER)
    write(atlas / "head_dseg.nii.gz", seen(finer)[2], finer)
    rows = "".join(f"{n}\t{name}\n" for n, name in enumerate(NAMES, 1))
    (atlas / "head_dseg.tsv").write_text("index\tname\n" + rows, encoding="utf-8")
    fixed, brain, truth = seen(GRID, MOVE)
    chi = (0.01 * truth.float() - 0.025) * brain
    write(tmp_path / "chi.nii.gz", chi, GRID)
    write(tmp_path / "mag.nii.gz", fixed, GRID)
    write(tmp_path / "brain.nii.gz", brain, GRID)
    return tmp_path, atlas, truth


def test_register_writes_transform_overlay_and_labels(files, known):
    folder, atlas, truth = files
    out = folder / "reg"
    done = call(
        "register", atlas / "head_magnitude.nii.gz", folder / "mag.nii.gz", out, "--moving-mask",
        atlas / "head_mask.nii.gz", "--fixed-mask", folder / "brain.nii.gz", "--labels",
        atlas / "head_dseg.nii.gz",
        "--apply", atlas / "head_magnitude.nii.gz",
    )  # fmt: skip
    assert done.exit_code == 0, done.output + done.stderr
    got = nib.load(folder / "reg_head_dseg.nii.gz")
    assert np.asarray(got.affine) == pytest.approx(np.asarray(GRID.affine))
    numbers = np.asarray(got.dataobj)
    for n in range(1, 7):
        a, b = numbers == n, truth.numpy() == n
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85
    said = json.loads((folder / "reg_head_magnitude.json").read_text(encoding="utf-8"))
    assert said["B0Direction"] == pytest.approx(list(np.linalg.inv(MOVE)[:3, 2]), abs=1e-5)
    rows = np.loadtxt(folder / "reg_moving-to-fixed.txt")
    assert rows == pytest.approx(np.linalg.inv(MOVE))
    assert np.asarray(read_matrix(folder / "reg_itk.txt")) == pytest.approx(MOVE)
    # both are read by `k2chi lesions --transform`, which wants the way from the FLAIR to χ
    for name in ("reg_moving-to-fixed.txt", "reg_itk.txt"):
        assert np.asarray(forward(folder / name)) == pytest.approx(np.linalg.inv(MOVE))
    said = json.loads((folder / "reg_xfm.json").read_text(encoding="utf-8"))["Quality"]
    assert said["worst_mm"] < 1
    assert len(said["octants_mm"]) == 8
    assert "still apart by 0." in done.stdout
    assert (folder / "reg_overlay.png").stat().st_size > 20_000
    again = call("register", atlas / "head_magnitude.nii.gz", folder / "mag.nii.gz", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_registering_again_takes_away_what_it_does_not_replace(files, known):
    """Labels brought over by the run before would look like this one's."""
    folder, atlas, _ = files
    pair = ("register", atlas / "head_magnitude.nii.gz", folder / "mag.nii.gz", folder / "reg")
    assert call(*pair, "--labels", atlas / "head_dseg.nii.gz").exit_code == 0
    (folder / "reg_mine_dseg.nii.gz").write_bytes(b"mine")
    assert (folder / "reg_head_dseg.nii.gz").exists()
    assert call(*pair, "--overwrite").exit_code == 0
    assert not (folder / "reg_head_dseg.nii.gz").exists()
    assert not (folder / "reg_head_dseg.json").exists()
    assert {"reg_mine_dseg.nii.gz", "reg_moved.nii.gz", "reg_overlay.png"} < {
        p.name for p in folder.iterdir()
    }


def test_the_overlay_names_the_worst_place():
    image, mask, _ = seen(GRID)
    worst = Octant("left front upper", (0.0, 3.0, 4.0), 0.2, 0.4)
    places = (worst, Octant("right back lower", (1.0, 0.0, 0.0), 0.4, 0.4))
    figure = overlay.registration(image, image, mask, GRID, "a on b", Alignment(octants=places))
    assert figure.texts[0].get_text() == "a on b · apart by 3.0 mm, left front upper by 5.0 mm"
    plain = overlay.registration(image, image, mask, GRID, "a on b", Alignment())
    assert plain.texts[0].get_text() == "a on b"


def test_register_refuses_phase_and_images_apart(files, known):
    folder, atlas, _ = files
    phase = save(folder / "x_phase.nii.gz", np.zeros((4, 4, 4)))
    away = np.diag([1.0, 1, 1, 1])
    away[:3, 3] = 5000
    far = save(folder / "far.nii.gz", np.ones((4, 4, 4)), away)
    moving, fixed = atlas / "head_magnitude.nii.gz", folder / "mag.nii.gz"
    for more, words in (
        (("--apply", phase), "phase cannot be interpolated"),
        (("--labels", far), "do not overlap"),
        (("--moving-mask", far), "far.nii.gz"),
    ):
        got = call("register", moving, fixed, folder / "n", *more)
        assert got.exit_code == 2, words
        assert words in got.stderr
    assert "no such folder" in call("register", moving, fixed, folder / "no" / "n").stderr


def test_roi_brings_an_atlas_to_native_space(files, known):
    folder, atlas, _ = files
    out = folder / "t.tsv"
    done = call(
        "roi", folder / "chi.nii.gz", out, "--atlas", atlas, "--magnitude", folder / "mag.nii.gz", "--mask",
        folder / "brain.nii.gz", "--erode", 1, "--figure", "--nuclei", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output + done.stderr
    rows = json.loads(done.stdout)
    assert [(r["region"], r["side"]) for r in rows[:2]] == [("pu", "left"), ("pu", "right")]
    for row in rows:
        assert row["mean_ppm"] == pytest.approx(0.01 * row["label"] - 0.025, abs=0.003)
        assert row["iqr_ppm"] == pytest.approx(row["p75_ppm"] - row["p25_ppm"])
    labels = np.asarray(nib.load(folder / "t_dseg.nii.gz").dataobj)
    assert labels.shape == GRID.shape
    for ending in (
        "overlay.png",
        "regions.svg",
        "regions.pdf",
        "violins.png",
        "dseg.tsv",
        "xfm.json",
        "share.nii.gz",
    ):
        assert (folder / f"t_{ending}").exists(), ending
    weighed = call(
        "roi", folder / "chi.nii.gz", folder / "u.tsv", "--atlas", atlas, "--magnitude",
        folder / "mag.nii.gz",
        "--partial-volume", "--json",
    )  # fmt: skip
    whole = {r["label"]: r["volume_mm3"] for r in rows}
    assert all(r["volume_mm3"] > whole[r["label"]] for r in json.loads(weighed.stdout))


def test_the_way_through_a_t1_is_magnitude_to_t1_to_template(files, monkeypatch):
    """The T1 lies elsewhere; labels still come to χ, by one chain, and its brain is χ's mask moved there."""
    folder, atlas, truth = files
    away = motion((-8, 6, 12), (-6, 5, 3))
    t1, brain, _ = seen(GRID, away)
    write(folder / "t1.nii.gz", t1, GRID)
    write(atlas / "head_Chimap.nii.gz", 0.01 * seen(OTHER)[2].float(), OTHER)
    way = {"Rigid": np.linalg.inv(away) @ MOVE, "SyN": away}
    scenes = []

    def at_once(method, moving, fixed, out, threads=0):
        kind = type(method).__name__
        scenes.append((moving, fixed))
        truth = Transform((as_affine(way[kind]),))
        record = {"Transforms": [], "Seconds": 0.0}
        return engine.judged(truth, (), moving, fixed, method.warped, record, out)

    monkeypatch.setattr("k2chi.app.roiatlas.register", at_once)
    done = call(
        "roi", folder / "chi.nii.gz", folder / "t.tsv", "--atlas", atlas, "--magnitude",
        folder / "mag.nii.gz", "--mask", folder / "brain.nii.gz", "--t1", folder / "t1.nii.gz",
    )  # fmt: skip
    assert done.exit_code == 0, done.output + done.stderr
    labels = torch.from_numpy(np.asarray(nib.load(folder / "t_dseg.nii.gz").dataobj))
    for n in range(1, 7):
        assert dice(labels == n, truth == n) > 0.85
    template, person = scenes[1]
    assert dice(person.mask, brain) > 0.97
    # the atlas has χ, so it drives the warp too: the template's own, and the person's where the T1 lies
    assert dice(template.second > 0.005, seen(OTHER)[2] > 0) > 0.99
    there = seen(GRID, away)[2]
    assert np.corrcoef(person.second[there > 0], there[there > 0])[0, 1] > 0.8
    said = json.loads((folder / "t_dseg.json").read_text(encoding="utf-8"))
    assert said["WarpFollows"] == "image and χ"


def test_chi_drives_the_warp_if_the_atlas_has_it_and_nobody_objects(files, monkeypatch):
    folder, atlas, _ = files
    followed = []

    def seen_by(method, moving, fixed, out):
        followed.append((moving.second is not None, fixed.second is not None))
        raise ValueError("enough")

    monkeypatch.setattr("k2chi.app.roiatlas.register", seen_by)
    args = (
        "roi",
        folder / "chi.nii.gz",
        folder / "t.tsv",
        "--atlas",
        atlas,
        "--magnitude",
        folder / "mag.nii.gz",
    )
    assert "enough" in call(*args).stderr
    write(atlas / "head_Chimap.nii.gz", 0.01 * seen(OTHER)[2].float(), OTHER)
    for more in ((), ("--hybrid",), ("--no-hybrid",)):
        assert "enough" in call(*args, *more).stderr
    assert followed == [(False, False), (True, True), (True, True), (False, False)]


def test_roi_with_an_atlas_says_what_it_needs(files, known, monkeypatch):
    folder, atlas, _ = files
    chi, mag = folder / "chi.nii.gz", folder / "mag.nii.gz"
    monkeypatch.setattr(shelf, "home", lambda: folder / "nowhere")
    for args, words in (
        ((chi, "--atlas", atlas), "needs OUT.tsv and --magnitude"),
        ((chi, folder / "t.tsv", "--atlas", "cit168", "--magnitude", mag), "k2chi atlas fetch cit168"),
        ((chi, folder / "t.tsv", "--atlas", "brodmann", "--magnitude", mag), "no atlas 'brodmann'"),
        ((chi, folder / "t.tsv", "--atlas", atlas, "--magnitude", mag, "--hybrid"), "no map of χ"),
        ((chi,), "give a label image"),
    ):
        got = call("roi", *args)
        assert got.exit_code == 2, words
        assert words in got.stderr
    said = json.loads((atlas / "atlas.json").read_text()) if (atlas / "atlas.json").exists() else {}
    (atlas / "atlas.json").write_text(json.dumps({**said, "contrast": "T1"}), encoding="utf-8")
    warned = call("roi", chi, folder / "w.tsv", "--atlas", atlas, "--magnitude", mag)
    assert "give --t1" in warned.stderr


def test_labels_and_table_that_do_not_fit_and_ppb_are_said(files):
    folder, _, truth = files
    labels = write(folder / "x_dseg.nii.gz", truth, GRID)
    (folder / "x_dseg.tsv").write_text("index\tname\n1\tL Putamen\n99\tdentate\n", encoding="utf-8")
    got = call("roi", folder / "chi.nii.gz", labels)
    assert got.exit_code == 0, got.stderr
    assert "5 labels have no name in the table: 2, 3, 4, 5, 6" in got.stderr
    assert "1 named labels are not in the image: 99 (dentate)" in got.stderr
    chi = np.asarray(nib.load(folder / "chi.nii.gz").dataobj)
    ppb = save(folder / "ppb.nii.gz", 1000 * chi, np.asarray(GRID.affine))
    asked = call("roi", ppb, labels)
    assert asked.exit_code == 2
    assert "looks like ppb" in asked.stderr
    a, b = (json.loads(call("roi", p, labels, "--json", *u).stdout) for p, u in
            ((folder / "chi.nii.gz", ()), (ppb, ("--unit", "ppb"))))  # fmt: skip
    assert [r["mean_ppm"] for r in a if r["voxels"]] == pytest.approx(
        [r["mean_ppm"] for r in b if r["voxels"]]
    )


def test_shares_of_a_probabilistic_atlas_weigh_each_region(files):
    folder, _, truth = files
    labels = write(folder / "x_dseg.nii.gz", truth, GRID)
    shares = np.stack([(truth.numpy() == n) * 0.5 for n in range(1, 7)], -1).astype(np.float32)
    shares[..., 0] += (truth.numpy() == 2) * 0.25
    weights = save(folder / "p.nii.gz", shares, np.asarray(GRID.affine))
    rows = json.loads(call("roi", folder / "chi.nii.gz", labels, "--weights", weights, "--json").stdout)
    n1, n2 = (int((truth == n).sum()) for n in (1, 2))
    assert rows[0]["mean_ppm"] == pytest.approx(
        (0.5 * n1 * -0.015 + 0.25 * n2 * -0.005) / (0.5 * n1 + 0.25 * n2), abs=1e-5
    )
    assert rows[1]["mean_ppm"] == pytest.approx(-0.005, abs=1e-6)


def test_the_catalogue_shows_licences(monkeypatch, tmp_path):
    monkeypatch.setattr(shelf, "home", lambda: tmp_path)
    got = call("atlas", "list").stdout
    assert "CC BY 4.0" in got
    assert "doi:10.1038/sdata.2018.63" in got

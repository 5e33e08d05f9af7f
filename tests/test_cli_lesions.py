"""`k2chi lesions`: tables, labels and pictures from files, and bad input said plainly."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from k2chi.app.cli import app
from k2chi.data import Grid, as_affine
from k2chi.io.nifti import write

SIZE = (36, 34, 30)
GRID = Grid.of(SIZE, (1.0, 1.0, 1.2))
RUN = CliRunner()


def k2chi(*args):
    return RUN.invoke(app, ["lesions", *map(str, args)])


def ball(grid, centre, radius):
    a = np.asarray(grid.affine)
    at = np.moveaxis(np.indices(grid.shape), 0, -1) @ a[:3, :3].T + a[:3, 3]
    return np.linalg.norm(at - centre, axis=-1) <= radius


PLACES = (((-7.0, 0, 0), 5.0), ((8.0, 6, 0), 4.0), ((6.0, -8, 4), 1.2))


@pytest.fixture
def scan(tmp_path):
    """χ with two lesions of 60 ppb and a small one; their mask on χ's grid, and on a turned FLAIR grid."""
    g = torch.Generator().manual_seed(0)
    chi, mask = torch.full(SIZE, -0.02), torch.zeros(SIZE, dtype=torch.bool)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    a = turn @ np.diag([0.9, 0.9, 0.9, 1])
    a[:3, 3] = -a[:3, :3] @ np.array([22, 22, 20])
    flair = Grid((45, 45, 40), as_affine(a))
    drawn = torch.zeros(flair.shape, dtype=torch.bool)
    for centre, radius in PLACES:
        here = torch.from_numpy(ball(GRID, centre, radius))
        chi[here] = 0.06
        mask |= here
        drawn |= torch.from_numpy(ball(flair, centre, radius))
    chi += 0.005 * torch.randn(SIZE, generator=g)
    write(tmp_path / "chi.nii.gz", chi, GRID)
    write(tmp_path / "mask.nii.gz", mask, GRID)
    write(tmp_path / "drawn.nii.gz", drawn, flair)
    write(tmp_path / "flair.nii.gz", drawn.float(), flair)
    write(tmp_path / "mag.nii.gz", 1 - chi, GRID)
    return tmp_path


def table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_tables_labels_and_pictures(scan):
    """Every file is there, every column explained, values as they were put in, on χ's grid as on FLAIR's."""
    for mask, more in (("mask", ()), ("drawn", ("--flair-grid", scan / "flair.nii.gz"))):
        out = scan / f"{mask}.tsv"
        done = k2chi(
            scan / "chi.nii.gz", scan / f"{mask}.nii.gz", out, *more, "--magnitude", scan / "mag.nii.gz"
        )
        assert done.exit_code == 0, done.output
        rows = table(out)
        assert [r["lesion"] for r in rows] == ["1", "2", "3"]
        for r, (centre, radius) in zip(rows, PLACES, strict=True):
            assert [float(r[f"centre_mm_{a}"]) for a in "xyz"] == pytest.approx(centre, abs=0.4)
            if radius > 3:
                assert float(r["native_mm3"]) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.06)
                assert float(r["chi_inside_mean_ppm"]) == pytest.approx(0.06, abs=0.008)
                assert float(r["chi_difference_ppm"]) == pytest.approx(0.08, abs=0.01)
                assert r["excluded"] == "n/a"
                assert float(r["magnitude_difference"]) == pytest.approx(-0.08, abs=0.01)
                assert (r["vein_on"], r["r2star_inside_mean_per_s"]) == ("magnitude", "n/a")
        assert "small" in rows[2]["excluded"]
        said = json.loads((scan / f"{mask}.json").read_text())
        profile = table(scan / f"{mask}_profile.tsv")
        assert set(said) == {*rows[0], *profile[0]}
        assert said["chi_inside_mean_ppm"]["Units"] == "ppm"
        assert said["extent_mm_x"]["Units"] == "mm"
        numbers = np.asarray(nib.load(scan / f"{mask}_dseg.nii.gz").dataobj)
        assert numbers.shape == SIZE
        assert "26 neighbours, on the grid of " + f"{mask}.nii.gz" in said["lesion"]["Description"]
        assert "3 mm along an axis" in said["excluded"]["Description"]
        assert "1 mm of tissue" in said["excluded"]["Description"]
        assert (scan / f"{mask}_drawn_dseg.nii.gz").exists() == (mask == "drawn")
        assert set(np.unique(numbers)) >= {0, 1, 2}
        assert (scan / f"{mask}_1.png").stat().st_size > 10_000
    assert not list(scan.glob(".*"))


def test_numbers_given_once_on_the_flairs_grid_are_kept(scan):
    """They are stored there; read again as numbers, they give the same table, with any neighbours."""
    assert k2chi(scan / "chi.nii.gz", scan / "drawn.nii.gz", scan / "a.tsv", "--no-figure").exit_code == 0
    frozen = scan / "a_drawn_dseg.nii.gz"
    image = nib.load(frozen)
    assert image.shape == nib.load(scan / "flair.nii.gz").shape
    np.testing.assert_allclose(image.affine, nib.load(scan / "flair.nii.gz").affine, atol=1e-5)
    again = k2chi(scan / "chi.nii.gz", frozen, scan / "b.tsv", "--labelled", "--neighbours", 6, "--no-figure")
    assert again.exit_code == 0
    assert [r["lesion"] for r in table(scan / "b.tsv")] == [r["lesion"] for r in table(scan / "a.tsv")]
    assert [r["volume_mm3"] for r in table(scan / "b.tsv")] == [
        r["volume_mm3"] for r in table(scan / "a.tsv")
    ]


def test_outlines_run_along_the_edges_of_voxels():
    """One pixel has four sides, two beside each other six; nothing has none."""
    from k2chi.app.lesionfigure import outline

    shown = np.zeros((4, 5), dtype=bool)
    assert outline(shown) == []
    shown[2, 3] = True
    corners = {(2.5, 1.5), (3.5, 1.5), (2.5, 2.5), (3.5, 2.5)}
    assert {end for line in outline(shown) for end in line} == corners
    assert len(outline(shown)) == 4
    shown[2, 4] = True
    assert len(outline(shown)) == 6


def test_json_and_labelled(scan):
    """Numbers given are kept: the table of a label image with 7 and 4 names these."""
    out = scan / "first.tsv"
    assert k2chi(scan / "chi.nii.gz", scan / "mask.nii.gz", out, "--no-figure").exit_code == 0
    image = nib.load(scan / "first_dseg.nii.gz")
    table_of = np.array([0, 7, 4, 0])
    write(scan / "own.nii.gz", torch.from_numpy(table_of[np.asarray(image.dataobj)]), GRID)
    done = k2chi(
        scan / "chi.nii.gz", scan / "own.nii.gz", scan / "o.tsv", "--labelled", "--json", "--no-figure"
    )
    said = json.loads(done.stdout)
    assert sorted(r["lesion"] for r in said["lesions"]) == [4, 7]
    assert not list(scan.glob("*.png"))
    refused = k2chi(scan / "chi.nii.gz", scan / "own.nii.gz", scan / "p.tsv")
    assert refused.exit_code == 2
    assert "--labelled" in refused.output


def test_the_same_bytes_twice(scan):
    for name in ("a", "b"):
        assert k2chi(scan / "chi.nii.gz", scan / "drawn.nii.gz", scan / f"{name}.tsv").exit_code == 0
    for end in (".tsv", ".json", "_profile.tsv", "_dseg.nii.gz", "_1.png"):
        assert (scan / f"a{end}").read_bytes() == (scan / f"b{end}").read_bytes()


def test_transform_brings_a_moved_mask_back(scan):
    """A FLAIR header that is 6 mm off, and the matrix that says so."""
    image = nib.load(scan / "drawn.nii.gz")
    a = image.affine.copy()
    a[2, 3] += 6
    write(
        scan / "off.nii.gz", torch.from_numpy(np.asarray(image.dataobj) > 0), Grid((45, 45, 40), as_affine(a))
    )
    shift = np.eye(4)
    shift[2, 3] = -6
    np.savetxt(scan / "shift.txt", shift)
    for mask, more in (("drawn", ()), ("off", ("--transform", scan / "shift.txt"))):
        done = k2chi(scan / "chi.nii.gz", scan / f"{mask}.nii.gz", scan / f"{mask}.tsv", "--no-figure", *more)
        assert done.exit_code == 0
    both = [np.asarray(nib.load(scan / f"{m}_dseg.nii.gz").dataobj) for m in ("drawn", "off")]
    assert (both[0] == both[1]).mean() > 0.9999


def test_sheets_show_magnitude_and_flair_where_chi_is(scan, monkeypatch):
    """Ten panels a lesion; a FLAIR whose header is off is brought back by the same matrix as the mask."""
    from k2chi.app import lesionfigure

    image = nib.load(scan / "drawn.nii.gz")
    a = image.affine.copy()
    a[2, 3] += 6
    values, off = torch.from_numpy(np.asarray(image.dataobj)), Grid((45, 45, 40), as_affine(a))
    write(scan / "off.nii.gz", values > 0, off)
    write(scan / "off_flair.nii.gz", 5.0 * values, off)
    np.savetxt(scan / "shift.txt", np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -6], [0, 0, 0, 1]]))
    made, pages = [], lesionfigure.pages

    def seen(*args, beside):
        made.append((beside, pages(*args, beside=beside)))
        return made[0][1]

    monkeypatch.setattr(lesionfigure, "pages", seen)
    done = k2chi(
        scan / "chi.nii.gz", scan / "off.nii.gz", scan / "o.tsv", "--transform", scan / "shift.txt",
        "--flair-grid", scan / "off_flair.nii.gz", "--magnitude", scan / "mag.nii.gz",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ((beside, ((_, sheet),)),) = made
    assert list(beside) == ["magnitude", "FLAIR"]
    mask = torch.from_numpy(np.asarray(nib.load(scan / "mask.nii.gz").dataobj)) > 0
    assert ((beside["FLAIR"] > 2.5) == mask).float().mean() > 0.995
    assert len(sheet.axes) == 10 * len(table(scan / "o.tsv"))
    windows = {im.get_clim() for ax in sheet.axes for im in ax.images}
    assert windows == {
        lesionfigure.WINDOW_PPM, (0.0, 5.0), (0.0, float(np.quantile(beside["magnitude"], 0.995)))
    }  # fmt: skip
    assert [ax.get_title("left") for ax in sheet.axes[3:10]].count("FLAIR") == 1
    titles = [ax.get_title("left") for ax in sheet.axes]
    assert titles.count("FLAIR") == titles.count("magnitude") == len(table(scan / "o.tsv"))


def test_overwriting_takes_away_what_the_run_before_left(scan):
    """Its pictures and numbers go if this run makes none; a file that somebody else put there stays."""
    chi, out = scan / "chi.nii.gz", scan / "o.tsv"
    assert k2chi(chi, scan / "drawn.nii.gz", out).exit_code == 0
    (scan / "o_2.png").write_bytes(b"mine")
    assert {"o_1.png", "o_drawn_dseg.nii.gz"} < {p.name for p in scan.iterdir()}
    assert k2chi(chi, scan / "mask.nii.gz", out, "--no-figure", "--overwrite").exit_code == 0
    left = {p.name for p in scan.glob("o[._]*")}
    assert left == {"o.tsv", "o.json", "o_profile.tsv", "o_dseg.nii.gz", "o_written.json", "o_2.png"}


def test_bad_input(scan):
    """Exit code 2, one sentence, and nothing written."""
    chi, mask = scan / "chi.nii.gz", scan / "mask.nii.gz"
    data = torch.from_numpy(np.asarray(nib.load(chi).dataobj).copy())
    far = np.asarray(GRID.affine).copy()
    far[0, 3] += 900
    write(scan / "ppb.nii.gz", 1000 * data, GRID)
    write(scan / "none.nii.gz", torch.zeros(SIZE), GRID)
    write(
        scan / "far.nii.gz",
        torch.from_numpy(np.asarray(nib.load(mask).dataobj).copy()),
        Grid(SIZE, as_affine(far)),
    )
    np.savetxt(scan / "stretch.txt", np.diag([2.0, 1, 1, 1]))
    (scan / "words.txt").write_text("not a matrix\n")
    (scan / "here.tsv").write_text("mine\n")
    before = sorted(scan.iterdir())
    out = scan / "out.tsv"
    for args, words in (
        ((chi, scan / "none.nii.gz", out), "empty"),
        ((chi, scan / "far.nii.gz", out), "overlap"),
        ((scan / "ppb.nii.gz", mask, out), "ppb"),
        ((scan / "none.nii.gz", mask, out), "zero everywhere"),
        ((chi, scan / "missing.nii.gz", out), "no such file"),
        ((chi, mask, out, "--flair-grid", scan / "flair.nii.gz"), "one grid"),
        ((chi, mask, out, "--transform", scan / "stretch.txt"), "rigid"),
        ((chi, mask, out, "--transform", scan / "words.txt"), "four rows"),
        ((chi, mask, out, "--magnitude", scan / "drawn.nii.gz"), "one grid"),
        ((chi, mask, out, "--share", "0"), "share"),
        ((chi, mask, scan / "out.csv"), ".tsv"),
        ((chi, mask, scan / "here.tsv"), "--overwrite"),
        ((chi, mask, scan / "no" / "out.tsv"), "no such folder"),
    ):
        done = k2chi(*args)
        assert done.exit_code == 2, (args, done.output)
        assert words in " ".join(done.output.split()), (words, done.output)
        assert sorted(scan.iterdir()) == before
    assert (scan / "here.tsv").read_text() == "mine\n"
    done = k2chi(scan / "ppb.nii.gz", mask, out, "--unit", "ppb", "--no-figure")
    assert done.exit_code == 0
    assert float(table(out)[0]["chi_inside_mean_ppm"]) == pytest.approx(0.06, abs=0.008)


def test_nothing_half_written(scan, monkeypatch):
    """A failure while the pictures are drawn leaves no table behind."""
    from k2chi.app import lesionfigure

    def fail(*args, **more):
        raise OSError(28, "no space", "disk")

    monkeypatch.setattr(lesionfigure, "pages", fail)
    before = sorted(scan.iterdir())
    assert k2chi(scan / "chi.nii.gz", scan / "mask.nii.gz", scan / "out.tsv").exit_code == 2
    assert sorted(scan.iterdir()) == before

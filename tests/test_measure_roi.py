"""Region tables: numbers by hand, honest intervals, sides, erosion; label tables of every known form."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import save
from typer.testing import CliRunner

from k2chi.app.cli import app
from k2chi.data import Chi, Grid
from k2chi.io.labels import read_names
from k2chi.measure.roi import DEEP_NUCLEI, eroded, merged, nuclei, regions, side_of

SHAPE = (14, 12, 10)
GRID = Grid.of(SHAPE, (1.0, 2.0, 0.5))
ALL = torch.ones(SHAPE, dtype=torch.bool)
BLOCK = torch.zeros(SHAPE, dtype=torch.int16)
BLOCK[2:9, 2:9, 2:9] = 3
DRAW = torch.Generator().manual_seed(0)


def test_percentiles_and_spread_are_numpys():
    chi = Chi(torch.randn(SHAPE, generator=DRAW), ALL, GRID)
    row = regions(chi, BLOCK)[0]
    v = chi.ppm[BLOCK == 3].double().numpy()
    assert row.volume_mm3 == pytest.approx(343)
    for name, q in (("p5_ppm", 5), ("p25_ppm", 25), ("median_ppm", 50), ("p75_ppm", 75), ("p95_ppm", 95)):
        assert getattr(row, name) == pytest.approx(np.percentile(v, q)), name
    assert row.mad_ppm == pytest.approx(1.4826 * np.median(np.abs(v - np.median(v))))
    assert row.ci_low_ppm < row.mean_ppm < row.ci_high_ppm


def test_weights_are_shares_of_voxels():
    """Half a voxel counts half: as if the voxel were there once beside one that is there twice."""
    chi = Chi(torch.zeros(SHAPE), ALL, GRID)
    chi.ppm[2, 2, 2], chi.ppm[2, 2, 3] = 1.0, 4.0
    labels, share = torch.zeros(SHAPE), torch.zeros(SHAPE)
    labels[2, 2, 2:4] = 7
    share[2, 2, 2], share[2, 2, 3] = 1.0, 0.5
    row = regions(chi, labels, weights=share)[0]
    assert row.mean_ppm == pytest.approx(2.0)
    assert row.volume_mm3 == pytest.approx(1.5)
    assert row.sd_ppm == pytest.approx(np.std([1, 1, 4]))


@pytest.mark.parametrize("smooth", [0.0, 0.6], ids=["white", "smooth"])
def test_the_interval_covers_the_true_mean(smooth):
    """Of 95 % intervals 92 to 99 in a hundred hold the mean, also where neighbours resemble each other.

    Measured 96 % white and 98 % smooth; counting all voxels as independent, 24 % of the latter would.
    """
    hits = naive = 0
    trials = 400
    labels = torch.zeros(24, 24, 24)
    labels[6:18, 6:18, 6:18] = 1
    grid, inside = Grid.of((24, 24, 24)), torch.ones(24, 24, 24, dtype=torch.bool)
    for _ in range(trials):
        x = torch.randn(24, 24, 24, generator=DRAW)
        for axis in range(3):  # an autoregression along each axis, settled before the region begins
            x = x.movedim(axis, 0).clone()
            for i in range(1, 24):
                x[i] += smooth * x[i - 1]
            x = x.movedim(0, axis)
        row = regions(Chi(x, inside, grid), labels)[0]
        hits += row.ci_low_ppm < 0 < row.ci_high_ppm
        naive += abs(row.mean_ppm) < 1.96 * row.sd_ppm / row.voxels**0.5
    assert 0.92 < hits / trials < 0.99
    if smooth:
        assert naive / trials < 0.7


def test_erosion_takes_layers_and_never_a_neighbours_voxels():
    inner = eroded(BLOCK, 1)
    assert int((inner == 3).sum()) == 5**3
    assert int((eroded(BLOCK, 2) == 3).sum()) == 3**3
    two = BLOCK.clone()
    two[5:9, 2:9, 2:9] = 4  # two regions that touch: both lose the layer between them
    apart = eroded(two, 1)
    assert set(apart.unique().tolist()) == {0, 3, 4}
    assert not (apart[4] == 3).any()
    assert not (apart[5] == 4).any()
    filled = torch.full(SHAPE, 5)
    assert int((eroded(filled, 1) == 5).sum()) == 12 * 10 * 8  # the array's edge is outside


@pytest.mark.parametrize(
    ("name", "base", "side"),
    [
        ("L Putamen", "putamen", "left"),
        ("Right-Caudate", "caudate", "right"),
        ("red nucleus left", "red nucleus", "left"),
        ("lh_GPe", "gpe", "left"),
        ("R Substantia-Nigra-pars-reticulata ", "substantia nigra pars reticulata", "right"),
        ("third ventricle", "third ventricle", ""),
        ("left", "left", ""),
    ],
)
def test_sides_are_read_from_names(name, base, side):
    assert side_of(name) == (base, side)


def test_left_and_right_become_one():
    names = {1: "L Putamen", 2: "R Putamen", 5: "brainstem"}
    labels = torch.tensor([0, 1, 2, 5]).reshape(1, 1, 4).expand(2, 2, 4)
    number, new = merged(labels, names)
    assert new == {1: "putamen", 5: "brainstem"}
    assert number[0, 0].tolist() == [0, 1, 1, 5]


def test_the_seven_nuclei_are_found_under_every_name():
    cit = {1: "L Putamen", 10: "R Globus Pallidus externa", 17: "L Substantia-Nigra-pars-reticulata ", 9: "x"}
    assert nuclei(cit) == {1: "Pu left", 10: "GPe right", 17: "SNr left"}
    from k2chi.phantom.tissue import LABELS

    short = {v.split()[0] for v in nuclei(LABELS).values()}
    assert short == set(DEEP_NUCLEI)
    assert len(nuclei(LABELS)) == 14


TABLES = {
    "a.tsv": "index\tname\tcolor\n1\tL Putamen\t#ff0000\n2\tR Putamen\t#00ff00\n",
    "surfer.txt": "#No. Label Name:\n\n0 Unknown 0 0 0 0\n1 L_Putamen 9 18 3 0\n2 R_Putamen 1 2 3 0\n",
    "snap.label": '0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "L Putamen"\n2 0 255 0 1 1 1 "R Putamen"\n',
    "map.json": '{"1": "L Putamen", "2": {"name": "R Putamen"}}',
    "list.json": '{"labels": ["Unknown", "L Putamen", "R Putamen"], "R": [0, 1, 2]}',
    "plain.csv": "1,L Putamen\n2,R Putamen\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_every_form_say_the_same(tmp_path, name):
    path = tmp_path / name
    path.write_text(TABLES[name], encoding="utf-8")
    found = read_names(path)
    assert {n: re.sub("_", " ", v) for n, v in found.items()} == {1: "L Putamen", 2: "R Putamen"}


def test_a_table_without_names_is_refused(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("number\tlabel\n1\tx\n", encoding="utf-8")
    with pytest.raises(ValueError, match="columns index and name"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a text file"):
        read_names(path)


def call(*args):
    return CliRunner().invoke(app, ["roi", *map(str, args)])


@pytest.fixture
def files(tmp_path):
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[1:6, 2:8, 2:8], labels[8:13, 2:8, 2:8] = 1, 2
    chi = np.where(labels == 1, 0.1, 0.2).astype(np.float32)
    (tmp_path / "x_dseg.tsv").write_text(TABLES["a.tsv"], encoding="utf-8")
    return save(tmp_path / "chi.nii.gz", chi), save(tmp_path / "x_dseg.nii.gz", labels), tmp_path / "out.tsv"


def test_the_command_writes_a_long_table_with_its_dictionary(files):
    chi, labels, out = files
    done = call(chi, labels, out, "--subject", "sub-1")
    assert done.exit_code == 0, done.output
    head, *lines = [line.split("\t") for line in out.read_text(encoding="utf-8").splitlines()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(r["region"], r["side"], float(r["mean_ppm"])) for r in rows] == [
        ("putamen", "left", pytest.approx(0.1)),
        ("putamen", "right", pytest.approx(0.2)),
    ]
    assert all(r["subject"] == "sub-1" and r["voxels"] == "180" for r in rows)
    assert set(json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))) == set(head)
    both = json.loads(call(chi, labels, "--merge-sides", "--nuclei", "--erode", "1", "--json").stdout)
    assert [(r["region"], r["voxels"]) for r in both] == [("pu", 2 * 3 * 4 * 4)]
    assert both[0]["mean_ppm"] == pytest.approx(0.15)
    again = call(chi, labels, out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_the_command_refuses_what_it_cannot_use(files, tmp_path):
    chi, labels, _ = files
    empty = save(tmp_path / "empty.nii.gz", np.zeros(SHAPE, dtype=np.int16))
    other = save(tmp_path / "other.nii.gz", np.ones((9, 9, 9), dtype=np.int16))
    for args, words in (
        ((chi, empty), "every label is 0"),
        ((chi, other), "grid"),
        ((chi, labels, tmp_path / "t.csv"), "written as .tsv"),
        ((chi, tmp_path / "none.nii.gz"), "none.nii.gz"),
    ):
        got = call(*args)
        assert got.exit_code == 2, words
        assert words in got.stderr


def test_a_region_that_is_not_there_has_no_numbers_but_a_row():
    chi = Chi(torch.zeros(SHAPE), ALL, GRID)
    rows = regions(chi, BLOCK, {3: "here", 9: "away"})
    assert [r.name for r in rows] == ["here", "away"]
    assert rows[1].voxels == 0
    assert rows[1].mean_ppm != rows[1].mean_ppm
    lost = regions(replace(chi, mask=BLOCK == 0), BLOCK)[0]
    assert lost.in_mask == 0

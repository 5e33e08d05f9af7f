"""`k2chi stats`: from a long table to tables and figures; what it asks, and what it refuses."""

import csv
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from test_measure_agreement import MINI, WRIGHT
from typer.testing import CliRunner

from k2chi.app.cli import app
from k2chi.app.statout import escaped
from k2chi.io.table import read_table
from k2chi.measure.agreement import limits
from k2chi.measure.association import paired_t, wilcoxon
from k2chi.measure.clustered import sign_flip


def call(*args):
    return CliRunner().invoke(app, ["stats", *(str(a) for a in args)])


def found(*args):
    """The results by name."""
    answer = call(*args, "--json")
    assert answer.exit_code == 0, answer.stderr
    return {(r["group"], r["name"]): r for r in json.loads(answer.stdout)["results"]}


def refused(*args):
    answer = call(*args)
    assert answer.exit_code == 2, answer.stdout
    assert not answer.stdout
    assert len(answer.stderr.strip().splitlines()) == 1
    return answer.stderr


def save(path, rows, apart="\t"):
    path.write_text("".join(apart.join(map(str, r)) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture
def flow(tmp_path):
    """Peak flow of 17 people with two meters, as a long table."""
    rows = [("subject", "meter", "flow")]
    for k, pair in enumerate(zip(WRIGHT, MINI, strict=True)):
        rows += [(f"sub-{k:02d}", m, v) for m, v in zip(("Wright", "mini"), pair, strict=True)]
    return save(tmp_path / "flow.tsv", rows)


PAIR = ("--value", "flow", "--by", "meter", "--subject", "subject")


@pytest.fixture
def reads(tmp_path):
    """Two readers and a consensus; 7 patients with 12 lesions each; one lesion one reader left out."""
    rng = np.random.default_rng(1)
    rows = [("patient", "lesion", "reader", "rim", "score")]
    for p in range(7):
        for k in range(12):
            rim = rng.random() < 0.3
            for who in ("A", "B", "consensus"):
                says = rim if who == "consensus" else rim ^ (rng.random() < 0.1)
                blank = (p, k, who) == (2, 3, "B")
                score = int(rng.integers(1, 4)) + (p % 3)
                rows.append((f"P{p}", k, who, "n/a" if blank else "yes" if says else "no", score))
    return save(tmp_path / "reads.csv", rows, ",")


LESIONS = ("--by", "reader", "--subject", "patient", "--item", "lesion")


@pytest.fixture
def regions(tmp_path):
    """Three regions, ten people, two methods, in ppm."""
    rng = np.random.default_rng(2)
    rows = [("subject", "age", "sex", "region", "method", "chi_ppm")]
    for s in range(10):
        age, sex = rng.integers(20, 80), "mf"[s % 2]
        for k, region in enumerate(("Pu", "GPi", "RN")):
            true = 0.05 * (k + 1) + 0.001 * age + 0.01 * rng.normal()
            for method, shift in (("CR", 0), ("DLR", 0.004)):
                rows.append(
                    (f"S{s}", age, sex, region, method, round(true + shift + 0.003 * rng.normal(), 6))
                )
    return save(tmp_path / "roi.tsv", rows)


ROI = ("--value", "chi_ppm", "--by", "method", "--subject", "subject", "--each", "region")


# ---- what comes out


def test_pairs_are_found_and_named(flow):
    """The same figures as from the arrays, with the levels' names instead of a and b."""
    r = found(flow, "--test", "paired-t", "--test", "bland-altman", *PAIR)
    t, ba = paired_t(WRIGHT, MINI), limits(WRIGHT, MINI)
    assert r[None, "Mean of Wright − mini (paired t)"]["p"] == pytest.approx(t.p)
    assert r[None, "Lower limit of agreement"]["ci_low"] == pytest.approx(ba.lower.ci[0])
    assert "Bland & Altman 1986" in r[None, "Bias (mean of Wright − mini)"]["citation"]
    turned = found(flow, "--test", "paired-t", *PAIR, "--pair", "mini", "Wright")
    assert turned[None, "Mean of mini − Wright (paired t)"]["estimate"] == pytest.approx(-t.estimate)


def test_the_order_of_rows_does_nothing(flow, tmp_path):
    head, *rows = flow.read_text().splitlines()
    mixed = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    other = tmp_path / "mixed.tsv"
    other.write_text("\n".join([head, *mixed]) + "\n")
    choice = ("--test", "wilcoxon", *PAIR, "--pair", "Wright", "mini")
    assert found(flow, *choice) == found(other, *choice)


def test_two_columns_side_by_side_are_a_pair(tmp_path):
    rows = [("id", "wright", "mini"), *((k, *p) for k, p in enumerate(zip(WRIGHT, MINI, strict=True)))]
    table = save(tmp_path / "wide.csv", rows, ";")
    r = found(table, "--test", "paired-t", "--value", "wright", "--value", "mini", "--subject", "id")
    assert r[None, "Mean of wright − mini (paired t)"]["p"] == pytest.approx(paired_t(WRIGHT, MINI).p)


def test_missing_pairs_are_listed(flow, tmp_path):
    lines = flow.read_text().splitlines()
    lines[3] = lines[3].rsplit("\t", 1)[0] + "\tn/a"  # sub-01, Wright
    del lines[6]  # sub-02, mini
    gaps = tmp_path / "gaps.tsv"
    gaps.write_text("\n".join(lines) + "\n")
    r = found(gaps, "--test", "wilcoxon", *PAIR)[None, "Pseudomedian of Wright − mini (Wilcoxon)"]
    keep = np.delete(np.arange(17), [1, 2])
    assert r["p"] == pytest.approx(wilcoxon(WRIGHT[keep], MINI[keep]).p)
    assert "2 without a pair: sub-01 (Wright missing), sub-02 (mini missing)" in r["notes"]


def test_regions_are_adjusted_together(regions):
    r = found(regions, "--test", "paired-t", *ROI)
    p = sorted(v["p"] for v in r.values())
    adjusted = sorted(v["p_adjusted"] for v in r.values())
    assert adjusted[0] == pytest.approx(3 * p[0])
    assert {v["adjusted_by"] for v in r.values()} == {"Holm over 3 tests"}
    assert {v["unit"] for v in r.values()} == {"ppm"}
    plain = found(regions, "--test", "paired-t", *ROI, "--adjust", "none")
    assert {v["p_adjusted"] for v in plain.values()} == {None}


def test_lesions_make_clusters_by_themselves(reads):
    """κ gets its cluster bootstrap, accuracy too, Bland–Altman its repeats; naive ones say they are."""
    r = found(reads, "--test", "kappa", "--value", "rim", "--pair", "A", "B", *LESIONS, "--classes", "no,yes")
    assert r[None, "Cohen's κ"]["n"] == 83
    assert any("naive" in n for n in r[None, "Cohen's κ"]["notes"])
    assert any("P2 3 (B missing)" in n for n in r[None, "Cohen's κ"]["notes"])
    both = r[None, "Cohen's κ"], r[None, "Cohen's κ (cluster bootstrap)"]
    assert both[0]["estimate"] == pytest.approx(both[1]["estimate"])
    assert both[0]["ci_low"] != both[1]["ci_low"]
    accuracy = ("--test", "accuracy", "--truth", "consensus", "--positive", "yes", "--value", "rim")
    assert len(found(reads, *accuracy, *LESIONS)) == 20
    pair = ("--value", "score", "--pair", "A", "B", *LESIONS)
    again = found(reads, "--test", "bland-altman", "--test", "clustered", *pair)
    assert any("7 subjects" in n for n in again[None, "Bias (mean of A − B)"]["notes"])
    flipped = again[None, "Mean of A − B (sign-flip by cluster)"]
    rows = read_table(reads)
    score, who = rows.numbers("score"), np.array(rows.words("reader"))
    names = np.array(rows.words("patient"))[who == "A"]
    assert flipped["p"] == pytest.approx(sign_flip(score[who == "A"] - score[who == "B"], names).p)
    assert "7 patients cannot reach p < 0.0156 in an exact test" in flipped["notes"]
    t = found(reads, "--test", "paired-t", *pair)[None, "Mean of A − B (paired t)"]
    assert any("--test clustered" in n for n in t["notes"])


def test_many_raters_and_their_gaps(reads):
    args = ("--value", "rim", *LESIONS, "--truth", "consensus", "--classes", "no,yes")
    r = found(reads, "--test", "fleiss", "--test", "ac1", "--test", "krippendorff", *args)
    assert len(r) == 6
    for name in ("Fleiss' κ", "Gwet's AC1", "Krippendorff's α (nominal)"):
        naive, by_patient = r[None, name], r[None, f"{name} (cluster bootstrap)"]
        assert by_patient["estimate"] == pytest.approx(naive["estimate"])
        assert "naive: takes lesions of a patient as independent" in naive["notes"]
        assert "fewer than 20 patients: the interval is too narrow" in by_patient["notes"]
    assert r[None, "Gwet's AC1"]["n"] == 84
    assert r[None, "Krippendorff's α (nominal)"]["n"] == 83


def test_two_readers_of_clustered_lesions_have_every_coefficient_twice(reads):
    """Naive and by patient: the same estimate; for numbers too, where patients differ the interval widens."""
    args = ("--value", "rim", *LESIONS, "--pair", "A", "B", "--classes", "no,yes")
    r = found(reads, "--test", "kappa", *args)
    for name in ("Raw agreement", "Cohen's κ", "Gwet's AC1", "PABAK"):
        assert r[None, f"{name} (cluster bootstrap)"]["estimate"] == pytest.approx(r[None, name]["estimate"])
    args = ("--value", "score", *LESIONS, "--pair", "A", "B")
    r = found(reads, *(a for t in ("icc", "ccc", "pearson", "spearman") for a in ("--test", t)), *args)
    for name in ("ICC(2,1)", "Concordance correlation (Lin)", "Pearson's r", "Spearman's ρ"):
        naive, by_patient = r[None, name], r[None, f"{name} (cluster bootstrap)"]
        assert by_patient["estimate"] == pytest.approx(naive["estimate"])
        assert by_patient["ci_low"] < naive["ci_low"] + 0.1
    assert r[None, "ICC(2,1)"]["counted"] == "lesions"
    r = found(reads, "--test", "deming", "--test", "passing-bablok", *args, "--unit", "points")
    for name in ("Deming slope (B on A)", "Deming intercept", "Passing–Bablok slope (B on A)"):
        naive, by_patient = r[None, name], r[None, f"{name} (cluster bootstrap)"]
        assert by_patient["estimate"] == naive["estimate"]
        assert by_patient["ci_low"] != naive["ci_low"] or name.startswith("Passing")  # whole scores tie
        assert by_patient["unit"] == naive["unit"] == ("points" if "intercept" in name else None)
    r = found(reads, "--test", "tost", "--margin", "0.8", *args)
    assert r[None, "Mean of patients' means of A − B (equivalence)"]["n"] == 7


def test_names_say_who_is_compared(reads):
    """First minus second, in McNemar's too; the bootstrapped mean has the unit of the others."""
    args = ("--value", "rim", *LESIONS, "--pair", "A", "B", "--positive", "yes")
    assert (None, "Share positive by A − by B (McNemar)") in found(reads, "--test", "mcnemar", *args)
    args = ("--value", "score", *LESIONS, "--pair", "A", "B", "--unit", "points")
    r = found(reads, "--test", "clustered", *args)
    assert {x["unit"] for x in r.values()} == {"points"}
    patients = r[None, "Pseudomedian of patients' means of A − B (Wilcoxon)"]
    assert "7 patients cannot reach p < 0.0156 in an exact test" in patients["notes"]


def test_sentences_share_their_notes(reads, tmp_path):
    """A note that holds for all is written once; naive and clustered intervals stand side by side."""
    out = tmp_path / "out"
    args = ("--value", "rim", *LESIONS, "--pair", "A", "B", "--classes", "no,yes", "--out", out)
    assert call(reads, "--test", "kappa", *args).exit_code == 0
    text = (out / "stats.md").read_text(encoding="utf-8")
    assert text.count("without a pair") == 1
    assert "All of them: 1 without a pair: P2 3 (B missing)." in text
    assert {p.name for p in (out / "figures").iterdir()} == {
        *(f"side-by-side_kappa.{e}" for e in ("png", "svg", "pdf"))
    }


def test_overwriting_takes_away_figures_of_the_run_before(flow, tmp_path):
    out = tmp_path / "out"
    assert call(flow, "--test", "deming", *PAIR, "--out", out).exit_code == 0
    (out / "figures" / "mine.png").write_bytes(b"mine")
    assert call(flow, "--test", "pearson", *PAIR, "--out", out, "--overwrite").exit_code == 0
    assert {p.name for p in (out / "figures").iterdir()} == {
        "mine.png",
        "pearson.png",
        "pearson.svg",
        "pearson.pdf",
    }


def test_a_region_that_lacks_a_method_does_not_stop_the_others(regions, tmp_path):
    """It has no pairs, and the table says whose are missing."""
    rows = [r for r in regions.read_text().splitlines() if not ("GPi" in r and "DLR" in r)]
    part = tmp_path / "part.tsv"
    part.write_text("\n".join(rows) + "\n")
    r = found(part, "--test", "paired-t", "--test", "bland-altman", *ROI)
    assert r["GPi", "Mean of CR − DLR (paired t)"]["estimate"] is None
    assert "S0 (DLR missing)" in " ".join(r["GPi", "Mean of CR − DLR (paired t)"]["notes"])
    assert r["RN", "Mean of CR − DLR (paired t)"]["adjusted_by"] == "Holm over 2 tests"


def test_a_patient_without_findings_does_not_stop_the_others(reads, tmp_path):
    """No rim in P0: its sensitivity is not estimable, its specificity is."""
    rows = [r.replace(",yes,", ",no,") if r.startswith("P0") else r for r in reads.read_text().splitlines()]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows) + "\n")
    args = ("--value", "rim", "--by", "reader", "--subject", "lesion", "--each", "patient")
    accuracy = ("--test", "accuracy", "--truth", "consensus", "--positive", "yes")
    r = found(table, *accuracy, *args)
    assert r["P0", "Sensitivity, A against consensus"]["estimate"] is None
    assert r["P0", "Specificity, A against consensus"]["estimate"] == 1
    k = found(table, "--test", "kappa", "--pair", "A", "B", *args)
    assert k["P0", "Cohen's κ"]["estimate"] is None
    assert k["P0", "PABAK"]["estimate"] == pytest.approx(1)


def test_models_take_covariates(regions):
    args = ("--value", "chi_ppm", "--covariate", "age", "--covariate", "sex")
    names = [n for _, n in found(regions, "--test", "linear", *args)]
    assert names[1:] == ["age (least squares)", "sex: m − f (least squares)"]
    for test in ("mixed", "gee"):
        r = found(regions, "--test", test, *args, "--subject", "subject")
        assert len(r) == 3
    r = found(regions, "--test", "trend", *args, "--each", "region")
    assert all(abs(v["estimate"] - 0.001) < 0.0005 for v in r.values())
    assert all(v["unit"] is None for v in r.values())  # it is ppm per year
    with_age = found(
        regions, "--test", "pearson", "--value", "chi_ppm", "--covariate", "age", "--each", "region"
    )
    assert ("Pu", "Pearson's r, chi_ppm with age") in with_age


EVERY = [
    "paired-t",
    "wilcoxon",
    "sign",
    "clustered",
    "bland-altman",
    "tost",
    "icc",
    "ccc",
    "deming",
    "passing-bablok",
    "pearson",
    "spearman",
]


def test_files_tell_the_same(regions, tmp_path):
    """TSV, CSV, JSON and sentences; the dictionary names every column; figures are readable."""
    out = tmp_path / "out"
    tests = [a for t in EVERY for a in ("--test", t)]
    answer = call(regions, *tests, *ROI, "--margin", 0.02, "--out", out, "--no-figures")
    assert answer.exit_code == 0, answer.stderr
    lines = {k: (out / f"stats.{k}").read_text(encoding="utf-8").splitlines() for k in ("tsv", "csv")}
    rows, comma = list(csv.DictReader(lines["tsv"], delimiter="\t")), list(csv.DictReader(lines["csv"]))
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["results"]
    assert len(rows) == len(comma) == len(results) > 40
    for a, b, c in zip(rows, comma, results, strict=True):
        assert a["name"] == b["name"] == c["name"]
        assert float(a["estimate"]) == float(b["estimate"]) == c["estimate"]
        assert a["p"] == ("n/a" if c["p"] is None else str(c["p"]))
        assert b["p"] == ("" if c["p"] is None else str(c["p"]))
    assert set(json.loads((out / "stats.json").read_text(encoding="utf-8"))) == set(rows[0])
    assert "nan" not in (out / "stats.tsv").read_text(encoding="utf-8").lower().replace("n/a", "")
    told = (out / "stats.md").read_text(encoding="utf-8")
    assert "## GPi" in told
    assert "Mean of CR − DLR (paired t): −0.00" in told
    tex = (out / "stats.tex").read_text(encoding="utf-8")
    assert tex.count(r"\\") == len(rows) + 4
    assert tex.isascii()
    assert "Wilcoxon" in answer.stdout
    assert "Sources" in answer.stdout


def test_figures_in_three_formats_and_always_the_same(flow, tmp_path):
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        answer = call(
            flow, "--test", "bland-altman", "--test", "deming", "--test", "sign", *PAIR, "--out", out
        )
        assert answer.exit_code == 0, answer.stderr
    names = sorted(p.name for p in (outs[0] / "figures").iterdir())
    assert names == sorted(
        f"{n}.{k}" for n in ("bland-altman", "deming", "persons") for k in ("pdf", "png", "svg")
    )
    for name in names:
        assert (outs[0] / "figures" / name).read_bytes() == (outs[1] / "figures" / name).read_bytes()
    svg = (outs[0] / "figures" / "deming.svg").read_text()
    assert svg.startswith("<?xml")


def test_forest_over_regions(regions, tmp_path):
    answer = call(regions, "--test", "ccc", *ROI, "--out", tmp_path / "o")
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "o" / "figures" / "forest_ccc_concordance-correlation-lin.png").stat().st_size > 5000


def test_latex_is_escaped():
    assert escaped("a_b & 5 % − κ<1") == r"a\_b \& 5 \% $-$ $\kappa$$<$1"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(flow, tmp_path):
    call(flow, "--test", "bland-altman", *PAIR, "--out", tmp_path / "o", "--no-figures")
    text = (tmp_path / "o" / "stats.tex").read_text()
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + text + "\\end{document}"
    (tmp_path / "t.tex").write_text(page)
    subprocess.run(["pdflatex", "-interaction=batchmode", "t.tex"], cwd=tmp_path, check=True)


# ---- what is asked and refused


@pytest.mark.parametrize(
    ("heading", "scale", "says"),
    [("chi_ppm", 1000, "look like ppb"), ("chi", 1000, "look like ppb"), ("chi_ppb", 1, "look like ppm")],
)
def test_units_are_asked_about_not_guessed(regions, tmp_path, heading, scale, says):
    head, *rows = (line.split("\t") for line in regions.read_text().splitlines())
    moved = [(*r[:-1], float(r[-1]) * scale) for r in rows]
    table = save(tmp_path / "t.tsv", [(*head[:-1], heading), *moved])
    args = ("--test", "paired-t", "--value", heading, *ROI[2:])
    assert says in refused(table, *args)
    told = found(table, *args, "--unit", "ppb" if scale == 1000 else "ppm")
    assert {r["unit"] for r in told.values()} == {"ppb" if scale == 1000 else "ppm"}


def test_methods_in_different_units_are_asked_about(regions, tmp_path):
    rows = [line.split("\t") for line in regions.read_text().splitlines()]
    for r in rows[1:]:
        r[-1] = str(float(r[-1]) * (1000 if r[4] == "DLR" else 1))
    table = save(tmp_path / "t.tsv", rows)
    assert "is one in ppb and the other in ppm?" in refused(table, "--test", "paired-t", *ROI)


def test_what_is_refused_says_what_to_do(flow, reads, regions, tmp_path):
    t = ("--test", "paired-t")
    assert "it has subject, meter, flow" in refused(flow, *t, "--value", "x", *PAIR[2:])
    assert "choose from paired-t" in refused(flow, "--test", "magic", *PAIR)
    assert "--by" in refused(flow, *t, "--value", "flow", "--subject", "subject")
    assert "--subject" in refused(flow, *t, "--value", "flow", "--by", "meter")
    assert "it has Wright, mini" in refused(flow, *t, *PAIR, "--pair", "Wright", "maxi")
    assert "choose two with --pair" in refused(reads, *t, "--value", "score", *LESIONS)
    assert "--item" in refused(reads, *t, "--value", "score", *LESIONS[:4], "--pair", "A", "B")
    assert "--each" in refused(regions, *t, *ROI[:-2])
    assert "no number" in refused(reads, *t, "--value", "rim", *LESIONS, "--pair", "A", "B")
    assert "needs --margin" in refused(flow, "--test", "tost", *PAIR)
    assert "whole scale" in refused(
        reads, "--test", "kappa", "--weights", "linear", "--value", "score", *LESIONS, "--pair", "A", "B"
    )
    assert "are not among the classes" in refused(
        reads, "--test", "kappa", "--value", "rim", *LESIONS, "--pair", "A", "B", "--classes", "no,maybe"
    )
    assert "--positive" in refused(reads, "--test", "mcnemar", "--value", "rim", *LESIONS, "--pair", "A", "B")
    assert "--truth" in refused(reads, "--test", "accuracy", "--value", "rim", *LESIONS, "--positive", "yes")
    assert "--covariate" in refused(regions, "--test", "linear", "--value", "chi_ppm")
    assert "choose 0.5" in refused(flow, *t, *PAIR, "--confidence", 95)
    assert "check the path" in refused(tmp_path / "none.tsv", *t, *PAIR)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no rows under a heading"),
        (b"a\tb\n", "no rows under a heading"),
        (b"a\ta\n1\t2\n", "two columns called 'a'"),
        (b"a\tb\n1\n", "row 1: has 1 cells where the heading has 2"),
        (b"a\tb\n\xff\xfe\t1\n", "not UTF-8"),
    ],
)
def test_no_table(tmp_path, text, says):
    path = tmp_path / "t.tsv"
    path.write_bytes(text)
    assert says in refused(path, "--test", "paired-t", *PAIR)


def test_nothing_half_written(flow, tmp_path, monkeypatch):
    """A failure while drawing leaves no folder; a folder that is in use is left alone."""
    from k2chi.app import statfigures

    def broken(*_):
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(statfigures, "save", broken)
    out = tmp_path / "new" / "out"
    assert "no space" in refused(flow, "--test", "bland-altman", *PAIR, "--out", out)
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    assert "--overwrite" in refused(flow, "--test", "sign", *PAIR, "--out", used)
    assert [p.name for p in used.iterdir()] == ["mine.txt"]
    assert call(flow, "--test", "sign", *PAIR, "--out", used, "--overwrite", "--no-figures").exit_code == 0
    assert (used / "mine.txt").read_text() == "keep"


def test_constant_readers_are_not_estimable_in_words(tmp_path):
    rows = [("p", "r", "rim"), *((f"P{k}", r, "no") for k in range(9) for r in "AB")]
    table = save(tmp_path / "t.tsv", rows)
    args = ("--test", "kappa", "--value", "rim", "--by", "r", "--subject", "p", "--classes", "no,yes")
    r = found(table, *args)
    assert r[None, "Cohen's κ"]["estimate"] is None
    assert "not estimable" in r[None, "Cohen's κ"]["sentence"]
    assert r[None, "Gwet's AC1"]["estimate"] == pytest.approx(1)
    shown = call(table, *args).stdout
    assert re.search(r"Cohen's κ +not estimable", shown)
    assert "nan" not in shown


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    """Byte order mark, CRLF, quotes with commas, blank lines, several spellings of missing."""
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffname,x\r\n"a, b",1.5\r\n\r\nc,NaN\r\nd,n/a\r\n'.encode())
    table = read_table(path)
    assert table.words("name") == ("a, b", "c", "d")
    assert table.numbers("x")[0] == 1.5
    assert np.isnan(table.numbers("x")[1:]).all()


def test_help_is_quick_and_names_every_test():
    from k2chi.app.statkinds import Statistic
    from k2chi.app.stats import TESTS

    assert TESTS.split() == list(Statistic)
    assert call("--help").exit_code == 0

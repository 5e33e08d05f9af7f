"""`k2chi stats`: agreement, association and difference tables with figures, from one long table."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2chi.app.console import plain_errors
from k2chi.app.options import AsJson, Overwrite

if TYPE_CHECKING:
    from k2chi.app.statdata import Grid, Wish
    from k2chi.app.statkinds import Statistic
    from k2chi.app.statout import Row
    from k2chi.io.table import Table

TESTS = (
    "paired-t wilcoxon sign clustered bland-altman tost icc ccc deming passing-bablok pearson spearman kappa "
    "mcnemar fleiss ac1 krippendorff accuracy linear hc3 robust mixed gee trend"
)


class Adjust(StrEnum):
    """How to allow for many groups."""

    holm, bh, none = "holm", "bh", "none"


class Weights(StrEnum):
    """Weights of κ."""

    none, linear, quadratic = "none", "linear", "quadratic"


class Form(StrEnum):
    """Forms of the ICC."""

    one, two, three = "1,1", "2,1", "3,1"
    one_k, two_k, three_k = "1,k", "2,k", "3,k"


class Scale(StrEnum):
    """Scales of Krippendorff's α."""

    nominal, ordinal, interval, ratio = "nominal", "ordinal", "interval", "ratio"


@plain_errors
def stats(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Long table, TSV or CSV, one value a row.")],
    test: Annotated[list[str], typer.Option(metavar="NAME", help=f"Repeatable; one of: {TESTS}.")],
    value: Annotated[list[str], typer.Option(help="Column of values; or two columns that make the pair.")],
    by: Annotated[str, typer.Option(help="Column of methods, readers or sessions to compare.")] = "",
    subject: Annotated[str, typer.Option(help="Column of persons: pairs lie within them.")] = "",
    item: Annotated[
        list[str], typer.Option(help="Column that tells a person's lesions apart; repeatable.")
    ] = [],  # noqa: B006
    each: Annotated[str, typer.Option(help="Column to split by, such as the region.")] = "",
    covariate: Annotated[list[str], typer.Option(help="Column that explains the value; repeatable.")] = [],  # noqa: B006
    pair: Annotated[
        tuple[str, str], typer.Option(metavar="FIRST SECOND", help="The two of --by; first minus second.")
    ] = ("", ""),
    truth: Annotated[str, typer.Option(help="The one of --by that is the reference, for accuracy.")] = "",
    positive: Annotated[str, typer.Option(help="The class that counts as a finding.")] = "",
    classes: Annotated[
        str, typer.Option(metavar="A,B,…", help="The whole scale in order, also classes nobody used.")
    ] = "",
    weights: Annotated[Weights, typer.Option(help="Weights of κ.")] = Weights.none,
    form: Annotated[Form, typer.Option(help="Form of the ICC, as Shrout and Fleiss name it.")] = Form.two,
    scale: Annotated[Scale, typer.Option(help="Scale of Krippendorff's α.")] = Scale.nominal,
    margin: Annotated[
        float | None, typer.Option(help="Margin of equivalence (tost), in the unit of the values.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Error variance of the second over the first (deming).")] = 1.0,
    confidence: Annotated[float, typer.Option(help="Confidence of the intervals.")] = 0.95,
    adjust: Annotated[Adjust, typer.Option(help="Adjust p over the groups of --each.")] = Adjust.holm,
    unit: Annotated[str, typer.Option(help="Unit of the values; from the column's name if not given.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of bootstraps and drawn permutations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and figures.")] = None,
    figures: Annotated[bool, typer.Option(help="Draw figures into the folder.")] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Agreement, differences and association, with intervals; patients counted as patients."""
    from k2chi.app import statout
    from k2chi.app.statdata import Wish, surveyed, unit_of
    from k2chi.io.table import read_table

    tests = chosen(test)
    if not 1 <= len(value) <= 2:
        raise ValueError(f"--value was given {len(value)} times: give one column, or two that make the pair")
    if out is not None and out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out}: is not empty; choose another folder, or pass --overwrite")
    wish = Wish(
        tuple(value), by, subject, tuple(item), tuple(p for p in pair if p), truth,
        tuple(c.strip() for c in classes.split(",") if c.strip()), positive, tuple(covariate), unit, margin,
        weights.value, form.value, scale.value, ratio, confidence, seed,
    )  # fmt: skip
    data = read_table(table)
    for name in (*wish.value, *wish.item, *wish.covariates, *(n for n in (by, subject, each) if n)):
        data.words(name)  # a column that is not there is told before anything is computed
    wish = surveyed(data, replace(wish, unit=unit_of(data, wish)))
    rows, grids = compute(data, tests, wish, each, adjust)
    files = write(out, rows, grids, wish.unit, figures) if out is not None else []
    if as_json:
        found = {"table": str(table), "unit": wish.unit or None, "results": statout.as_json(rows, wish.unit)}
        typer.echo(
            json.dumps({**found, "files": [str(f) for f in files]}, ensure_ascii=False, allow_nan=False)
        )
        return
    typer.echo(statout.text(rows, wish.unit))
    if out is not None:
        typer.echo(f"\nwrote {len(files)} files to {out}")


def chosen(names: Sequence[str]) -> "list[Statistic]":
    """The tests by name, each once."""
    from k2chi.app.statkinds import Statistic

    wrong = [n for n in names if n not in set(Statistic)]
    if wrong:
        raise ValueError(f"no test {wrong[0]!r}: choose from {', '.join(Statistic)}")
    return [Statistic(n) for n in dict.fromkeys(names)]


def compute(
    table: "Table", tests: "Sequence[Statistic]", wish: "Wish", each: str, adjust: Adjust
) -> "tuple[list[Row], dict[tuple[str, str], Grid]]":
    """Every test in every group, p-values adjusted over groups; and the values behind them."""
    from k2chi.app.statout import Row
    from k2chi.app.stattests import run
    from k2chi.measure.multiplicity import Method
    from k2chi.measure.multiplicity import adjust as adjusted

    rows, grids = [], {}
    for group in table.levels(each) if each else ("",):
        part = table.only(each, group) if each else table
        for test in tests:
            try:
                found, grid = run(test, part, wish)
            except ValueError as error:
                raise ValueError(f"{group}: {error}" if group else str(error)) from error
            rows += [Row(group, test.value, r) for r in found]
            if grid is not None:
                grids[group, test.value] = grid
    if not rows:
        raise ValueError(f"{table.path}: {each} is empty in every row; there is nothing to compute")
    if each and adjust is not Adjust.none:
        families: dict[tuple[str, str], list[int]] = {}
        for k, row in enumerate(rows):
            families.setdefault((row.test, row.result.name), []).append(k)
        for places in families.values():
            method: Method = "holm" if adjust is Adjust.holm else "bh"
            for k, r in zip(places, adjusted([rows[k].result for k in places], method), strict=True):
                rows[k] = replace(rows[k], result=r)
    return rows, grids


def write(
    out: Path, rows: "Sequence[Row]", grids: "dict[tuple[str, str], Grid]", unit: str, figures: bool
) -> list[Path]:
    """All tables and figures, or none."""
    from k2chi.app import statout
    from k2chi.io.derivatives import dumps, staged
    from k2chi.io.written import renewed

    texts = {
        "stats.tsv": statout.delimited(rows, unit, "\t", "n/a"),
        "stats.json": dumps({name: {"Description": told} for name, told in statout.COLUMNS.items()}),
        "stats.csv": statout.delimited(rows, unit, ",", ""),
        "stats.tex": statout.latex(rows, unit),
        "stats.md": statout.markdown(rows, unit),
        "results.json": dumps({"unit": unit or None, "results": statout.as_json(rows, unit)}),
    }
    with staged(out) as stage:
        for name, text in texts.items():
            (stage / name).write_text(text, encoding="utf-8")
        if figures:
            draw(stage / "figures", rows, grids, unit)
        made = sorted(p.relative_to(stage) for p in stage.rglob("*") if p.is_file())
    files = [out / p for p in made]
    return [*files, renewed(out / "written.json", files)]


def draw(folder: Path, rows: "Sequence[Row]", grids: "dict[tuple[str, str], Grid]", unit: str) -> None:
    """The figures that suit each test."""
    from k2chi.app import statfigures as pictures
    from k2chi.app.statkinds import Statistic as S

    folder.mkdir(parents=True, exist_ok=True)
    lines, drawn = (S.paired_t, S.wilcoxon, S.sign, S.clustered), set()
    scatters = (S.ccc, S.deming, S.passing_bablok, S.pearson, S.spearman, S.icc)
    for (group, test), grid in grids.items():
        found = [r.result for r in rows if (r.group, r.test) == (group, test)]
        stem = f"_{slug(group)}" if group else ""
        if test == S.bland_altman:
            figure = pictures.bland_altman(grid, found, unit, group)
            pictures.save(figure, folder / f"bland-altman{stem}")
        elif test == S.trend:
            pictures.save(pictures.trend(grid, found[0], unit, group), folder / f"trend{stem}")
        elif test in scatters and len(grid.levels) == 2:
            pictures.save(pictures.scatter(grid, found, unit, group), folder / f"{test}{stem}")
        elif test in lines and group not in drawn:
            pictures.save(pictures.persons(grid, unit, group), folder / f"persons{stem}")
            drawn.add(group)
    beside = {S.clustered: "difference", S.kappa: "agreement", S.accuracy: "share"}
    for group, test in dict.fromkeys((r.group, r.test) for r in rows):
        of = [r for r in rows if (r.group, r.test) == (group, test)]
        if test in beside and (sides := pictures.forest(of, unit, beside[S(test)])) is not None:
            stem = f"_{slug(group)}" if group else ""
            pictures.save(sides, folder / f"side-by-side_{test}{stem}")
    families: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.group and "limit of agreement" not in row.result.name:
            families.setdefault((row.test, row.result.name), []).append(row)
    for (test, name), family in families.items():
        whole = pictures.forest(family, unit)
        if whole is not None:
            pictures.save(whole, folder / f"forest_{test}_{slug(name)}")


def slug(words: str) -> str:
    """A part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-").lower()[:60] or "x"

"""Results as tables: for the terminal, TSV with its dictionary, CSV, LaTeX and sentences."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from k2chi.measure.result import Result, number


@dataclass(frozen=True)
class Row:
    """One result and where it is from."""

    group: str
    """Value of the --each column; empty without one."""
    test: str
    """Name of the test."""
    result: Result
    """The result."""


COLUMNS = {
    "group": "Value of the column that the table was split by",
    "test": "Name of the test as given to k2chi stats",
    "name": "What was estimated; differences are first minus second",
    "estimate": "Estimate; n/a where the data do not allow one",
    "ci_low": "Lower end of the confidence interval",
    "ci_high": "Upper end of the confidence interval",
    "confidence": "Confidence of the interval [0 to 1]",
    "statistic": "Test statistic with degrees of freedom",
    "statistic_value": "Its value",
    "p": "p-value, two-sided unless the notes say otherwise",
    "p_adjusted": "p-value adjusted for the other groups of the same test",
    "adjusted_by": "Method and size of the family of tests",
    "n": "Number of observations used",
    "counted": "What n counts",
    "unit": "Unit of estimate and interval; n/a where they have none or another",
    "notes": "What to keep in mind",
    "citation": "Source of the method",
}
"""Columns of the table, and their meaning: the data dictionary."""


def cells(row: Row, unit: str) -> dict[str, Any]:
    """One result as plain values; None where there is none."""
    r = row.result
    ends = r.ci or (None, None)
    return {
        "group": row.group or None,
        "test": row.test,
        "name": r.name,
        "estimate": r.estimate,
        "ci_low": _finite(ends[0]),
        "ci_high": _finite(ends[1]),
        "confidence": r.level if r.ci else None,
        "statistic": r.statistic[0] if r.statistic else None,
        "statistic_value": r.statistic[1] if r.statistic else None,
        "p": r.p,
        "p_adjusted": r.p_adjusted,
        "adjusted_by": r.adjusted_by or None,
        "n": r.n,
        "counted": r.counted,
        "unit": unit if unit and r.in_unit else None,
        "notes": "; ".join(r.notes) or None,
        "citation": r.citation,
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and isfinite(x) else None


def as_json(rows: Sequence[Row], unit: str) -> list[dict[str, Any]]:
    """Every result with its sentence."""
    return [
        {**cells(r, unit), "notes": list(r.result.notes), "sentence": r.result.sentence(unit)} for r in rows
    ]


def delimited(rows: Sequence[Row], unit: str, apart: str, missing: str) -> str:
    """A table of text; numbers in full, so that nothing is lost on the way to R or pandas."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=apart, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in rows:
        writer.writerow([missing if v is None else v for v in cells(r, unit).values()])
    return out.getvalue()


def p_cell(p: float | None) -> str:
    """As journals print it: .031, < .001, with no zero before the point."""
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def printed(row: Row, unit: str) -> list[str]:
    """Name, estimate, interval, p, adjusted p and n, as words for people."""
    r = row.result
    tail = f" {unit}" if unit and r.in_unit and r.estimate is not None else ""
    ci = f"[{number(r.ci[0])}, {number(r.ci[1])}]" if r.ci else ""
    return [r.name, number(r.estimate) + tail, ci, p_cell(r.p), p_cell(r.p_adjusted), f"{r.n} {r.counted}"]


def text(rows: Sequence[Row], unit: str) -> str:
    """The table for the terminal, by group, with notes and sources once each."""
    if not rows:
        return "no results"
    percent = {f"{100 * r.result.level:g} % CI" for r in rows if r.result.ci}
    head = ["", "estimate", " / ".join(sorted(percent)) or "CI", "p", "p adj.", "n"]
    body = [printed(r, unit) for r in rows]
    keep = [k for k in range(6) if k not in (3, 4) or any(line[k] for line in body)]
    widths = [max(len(line[k]) for line in (head, *body)) for k in range(6)]

    def line(values: list[str]) -> str:
        return "  ".join(values[k].ljust(widths[k]) for k in keep).rstrip()

    out, group = [line(head)], ""
    for r, values in zip(rows, body, strict=True):
        if r.group != group:
            out += ["", r.group]
            group = r.group
        out.append(line(values))
    said: dict[str, list[str]] = {}
    for r in rows:
        for note in r.result.notes:
            where = f"{r.group}, {r.result.name}" if r.group else r.result.name
            said.setdefault(note, []).append(where)
    if said:
        out += ["", "Notes"]
        for note, places in said.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            out.append(f"  {places[0]}{more}: {note}")
    out += ["", "Sources", *(f"  {c}" for c in sources(rows))]
    return "\n".join(out)


def sources(rows: Sequence[Row]) -> list[str]:
    """Each citation once, in order of use."""
    parts = (part for r in rows for part in r.result.citation.split("; "))
    return list(dict.fromkeys(re.sub(r"^[a-z ]+: ", "", part) for part in parts))


def markdown(rows: Sequence[Row], unit: str) -> str:
    """A sentence for each result, with its own notes; notes that several share once, then the sources."""
    out = ["# Results", ""]
    for group in dict.fromkeys(r.group for r in rows):
        here = [r.result for r in rows if r.group == group]
        times = Counter(note for r in here for note in r.notes)
        out += [f"## {group}", ""] if group else []
        for r in here:
            out.append(f"- {r.sentence(unit)}")
            out += [f"  - {note}" for note in r.notes if times[note] == 1]
        for note, count in times.items():
            if count > 1:
                names = [r.name for r in here if note in r.notes]
                of = "All of them" if count == len(here) else "; ".join(names)
                out += ["", f"{of}: {note}."]
        out.append("")
    return "\n".join([*out, "# Sources", "", *(f"- {c}" for c in sources(rows)), ""])


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "∞": r"$\infty$", "κ": r"$\kappa$", "ρ": r"$\rho$", "α": r"$\alpha$", "χ": r"$\chi$",
    "⁺": "$^{+}$", "–": "--", "’": "'",
}  # fmt: skip


def escaped(words: str) -> str:
    """Words that LaTeX prints as they are."""
    return "".join(SPECIAL.get(c, c) for c in words)


def latex(rows: Sequence[Row], unit: str) -> str:
    """A booktabs table; group names span it."""
    level = next((r.result.level for r in rows if r.result.ci), 0.95)
    adjusted = any(r.result.p_adjusted is not None for r in rows)
    head = ["", "Estimate", f"{100 * level:g}\\% CI", "$p$", *(["$p_\\mathrm{adj}$"] * adjusted), "$n$"]
    out = [
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        " & ".join(head) + r" \\",
        "\\midrule",
    ]
    group = ""
    for r in rows:
        if r.group != group:
            out.append(f"\\multicolumn{{{len(head)}}}{{l}}{{\\textit{{{escaped(r.group)}}}}} \\\\")
            group = r.group
        name, value, ci, p, p_adj, _ = printed(r, unit)
        line = [name, value, ci, p, *([p_adj] if adjusted else []), str(r.result.n)]
        out.append(" & ".join(escaped(c) for c in line) + r" \\")
    return "\n".join([*out, "\\bottomrule", "\\end{tabular}", ""])

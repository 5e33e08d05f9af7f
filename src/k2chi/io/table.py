"""Tables of text: TSV and CSV, as BIDS, spreadsheets and our own commands write them."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

MISSING = frozenset({"", "n/a", "NA", "N/A", "nan", "NaN", "null", "None"})
"""Spellings of a missing value."""
LISTED = 6


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of words, all equally long; a missing value is an empty word."""

    columns: dict[str, tuple[str, ...]]
    """Words under each heading."""
    path: Path
    """The file, for messages."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def words(self, name: str) -> tuple[str, ...]:
        """One column as it stands."""
        if name not in self.columns:
            there = ", ".join(self.columns)
            raise ValueError(f"{self.path}: has no column {name!r}; it has {there}")
        return self.columns[name]

    def numbers(self, name: str) -> Float[np.ndarray, " n"]:
        """One column as numbers, nan where a value is missing."""
        out = np.full(len(self), np.nan)
        for k, word in enumerate(self.words(name)):
            try:
                out[k] = float(word) if word else np.nan
            except ValueError:
                raise ValueError(
                    f"{self.path}, line {k + 2}: {name} is {word!r}, which is no number; "
                    "write numbers with a point, and n/a where a value is missing"
                ) from None
            if np.isinf(out[k]):
                raise ValueError(f"{self.path}, line {k + 2}: {name} is infinite; write n/a if it is missing")
        return out

    def numeric(self, name: str) -> bool:
        """Every word of the column that is there is a number."""
        try:
            self.numbers(name)
        except ValueError:
            return name not in self.columns
        return any(self.words(name))

    def only(self, name: str, word: str) -> "Table":
        """The rows that have `word` under `name`."""
        keep = [k for k, w in enumerate(self.words(name)) if w == word]
        return Table({n: tuple(c[k] for k in keep) for n, c in self.columns.items()}, self.path)

    def levels(self, name: str) -> tuple[str, ...]:
        """The different words of a column, in order of appearance."""
        return tuple(dict.fromkeys(w for w in self.words(name) if w))


def read_table(path: Path) -> Table:
    """Read a table with a heading line; tabs, commas or semicolons apart, UTF-8 with or without its mark.

    Raises ValueError where the file is no such table, with the line at fault.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text; export the table as TSV or CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    apart = max("\t,;", key=first.count)
    rows = [r for r in csv.reader(io.StringIO(text), delimiter=apart) if any(w.strip() for w in r)]
    if len(rows) < 2:
        raise ValueError(f"{path}: has no rows under a heading; give a TSV or CSV with one heading line")
    head = [w.strip() for w in rows[0]]
    twice = [h for h in dict.fromkeys(head) if head.count(h) > 1]
    if twice or "" in head:
        fault = f"two columns called {twice[0]!r}" if twice else "a column without a heading"
        raise ValueError(f"{path}: has {fault}; give each column a name of its own")
    for k, row in enumerate(rows[1:]):
        if len(row) != len(head):
            raise ValueError(
                f"{path}, row {k + 1}: has {len(row)} cells where the heading has {len(head)}; mend that row"
            )
    cells = [["" if w.strip() in MISSING else w.strip() for w in row] for row in rows[1:]]
    return Table({h: tuple(row[k] for row in cells) for k, h in enumerate(head)}, Path(path))

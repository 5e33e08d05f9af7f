"""From a long table to pairs: who belongs with whom, who is missing, and which unit it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Shaped

from k2chi.io.table import Table
from k2chi.measure.result import listed

PPM_AT_MOST = 2.0
"""Median |χ| above which values called ppm are asked about [ppm]; the brain has a tenth of it."""
UNLIKE = 300.0
"""Ratio of medians above which two columns are asked about."""


@dataclass(frozen=True)
class Wish:
    """Which columns say what, and the settings of the tests."""

    value: tuple[str, ...]
    """The column of values; or two columns, side by side, that make the pair."""
    by: str = ""
    """The column that says who or what each value is from: method, reader, session."""
    subject: str = ""
    """The column of persons."""
    item: tuple[str, ...] = ()
    """Columns that tell apart what a person has several of, such as lesions."""
    pair: tuple[str, ...] = ()
    """The two of `by` to compare: first minus second."""
    truth: str = ""
    """The one of `by` that is the reference."""
    classes: tuple[str, ...] = ()
    """The whole scale of classes in its order."""
    positive: str = ""
    """The class that counts as a finding."""
    covariates: tuple[str, ...] = ()
    """Columns that explain the value."""
    unit: str = ""
    """Unit of the values."""
    margin: float | None = None
    """Margin of equivalence, in the unit of the values."""
    weights: str = "none"
    """Weights of κ."""
    form: str = "2,1"
    """Form of the ICC."""
    scale: str = "nominal"
    """Scale of Krippendorff's α."""
    ratio: float = 1.0
    """Variance of the second method's error over that of the first."""
    confidence: float = 0.95
    """Confidence of the intervals."""
    seed: int = 0
    """Seed of the draws."""
    known: tuple[str, ...] = ()
    """Levels of `by` in the whole table, so that a part of it knows what it lacks."""
    seen: tuple[str, ...] = ()
    """Values that occur anywhere in the whole table, sorted, if they are few enough to be classes."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Values of complete units: one row a subject or lesion, one column a level of `by`."""

    values: Shaped[np.ndarray, "units levels"]
    """Numbers, or words."""
    levels: tuple[str, ...]
    """What the columns are."""
    subject: Shaped[np.ndarray, " units"]
    """Whose each row is."""
    notes: tuple[str, ...] = field(default=())
    """Which units were left out."""

    @property
    def repeated(self) -> bool:
        """A person has several rows."""
        return len(set(self.subject)) < len(self.subject)


MANY = 50
"""Different values from which on they are no classes."""


def surveyed(table: Table, wish: Wish) -> Wish:
    """The wish with what only the whole table can tell."""
    seen = sorted({w for name in wish.value for w in table.words(name) if w})
    known = table.levels(wish.by) if wish.by else ()
    return replace(wish, known=known, seen=tuple(seen) if len(seen) <= MANY else ())


def levels(table: Table, wish: Wish) -> tuple[str, ...]:
    """The levels to compare."""
    if len(wish.value) == 2:
        return wish.value
    if not wish.by:
        raise ValueError("say with --by which column holds the methods, readers or sessions to compare")
    there = wish.known or table.levels(wish.by)
    for asked in (*wish.pair, *([wish.truth] if wish.truth else [])):
        if asked not in there:
            raise ValueError(f"{table.path}: {wish.by} has no {asked!r}; it has {listed(there)}")
    if len(there) < 2:
        raise ValueError(f"{table.path}: {wish.by} has one level only ({listed(there)}); two are needed")
    return there


def pair_of(table: Table, wish: Wish) -> tuple[str, str]:
    """The two levels that make the pair."""
    there = levels(table, wish)
    chosen = wish.pair or there
    if len(chosen) != 2:
        raise ValueError(
            f"{table.path}: {wish.by} has {len(there)} levels ({listed(there)}); "
            "choose two with --pair FIRST SECOND"
        )
    return chosen[0], chosen[1]


def gather(table: Table, wish: Wish, wanted: Sequence[str], numbers: bool, gaps: bool = False) -> Grid:
    """Bring the values of `wanted` levels side by side; units with a gap go, unless `gaps` are allowed."""
    if not wish.subject:
        raise ValueError("say with --subject which column names the persons, so that pairs can be made")
    keys = list(zip(*(table.words(n) for n in (wish.subject, *wish.item)), strict=True))
    nameless = [k + 2 for k, key in enumerate(keys) if not all(key)]
    if nameless:
        raise ValueError(
            f"{table.path}, line {nameless[0]}: {wish.subject} or {listed(wish.item)} is missing"
        )
    place, cells = {level: j for j, level in enumerate(wanted)}, {}
    for name in wish.value:
        column: Sequence[object] = list(table.numbers(name)) if numbers else table.words(name)
        of = [name] * len(table) if len(wish.value) == 2 else table.words(wish.by)
        for key, level, value in zip(keys, of, column, strict=True):
            if level not in place:
                continue
            if (key, level) in cells:
                hint = "another --item" if wish.item else "the column that tells them apart with --item"
                raise ValueError(
                    f"{table.path}: {' '.join(key)} has several values for {level}; name {hint}, "
                    "and --each if the table holds several regions"
                )
            cells[key, level] = value
    empty: object = np.nan if numbers else ""
    units = list(dict.fromkeys(key for key, _ in cells))
    values = np.array([[cells.get((u, w), empty) for w in wanted] for u in units], dtype=object)
    values = values.reshape(len(units), len(wanted))
    gone = np.array([[v == "" or v != v for v in row] for row in values], dtype=bool).reshape(values.shape)
    drop = np.asarray(gone.all(1) if gaps else gone.any(1))
    lost = [
        f"{' '.join(u)} ({', '.join(w for w, g in zip(wanted, row, strict=True) if g)} missing)"
        for u, row, d in zip(units, gone, drop, strict=True)
        if d
    ]
    notes = (f"{len(lost)} without a pair: {listed(lost)}",) if lost else ()
    kept = values[~drop]
    who = np.array([str(u[0]) for u, d in zip(units, drop, strict=True) if not d])
    return Grid(kept.astype(float) if numbers else kept, tuple(wanted), who, notes)


def unit_of(table: Table, wish: Wish) -> str:
    """The unit of the values: as said, or from the heading. Asks where the numbers do not look like it."""
    names = " ".join(wish.value).lower()
    heading = next((u for u in ("ppm", "ppb") if u in names), "")
    if wish.unit:
        return wish.unit
    sizes = []
    for name in wish.value:
        if table.numeric(name):
            x = np.abs(table.numbers(name))
            of = table.words(wish.by) if wish.by and len(wish.value) == 1 else (name,) * len(table)
            for level in dict.fromkeys(of):
                here = x[[w == level for w in of]]
                here = here[np.isfinite(here)]
                sizes += [(level, float(np.median(here)))] if here.size else []
    if not sizes or not (heading or any(w in names for w in ("chi", "qsm", "suscept"))):
        return heading
    small, large = min(sizes, key=lambda s: s[1]), max(sizes, key=lambda s: s[1])
    if small[1] > 0 and large[1] / small[1] > UNLIKE:
        raise ValueError(
            f"{table.path}: values of {large[0]} are {large[1] / small[1]:.0f} times those of {small[0]}: "
            "is one in ppb and the other in ppm? Convert one, or pass --unit if they are as meant"
        )
    if heading != "ppb" and large[1] > PPM_AT_MOST:
        said = "says ppm" if heading else "gives no unit"
        raise ValueError(
            f"{table.path}: {wish.value[0]} {said}, but values around {large[1]:.3g} look like ppb: "
            "pass --unit ppb if they are, or --unit ppm if they are not"
        )
    if heading == "ppb" and 0 < large[1] < PPM_AT_MOST / 10:
        raise ValueError(
            f"{table.path}: {wish.value[0]} says ppb, but values around {large[1]:.3g} look like ppm: "
            "pass --unit ppm if they are, or --unit ppb if they are not"
        )
    return heading

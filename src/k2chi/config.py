"""Methods to TOML and back. Every choice is named (`method = "NDI"`); what is unknown is refused.

Works for any tree of frozen dataclasses whose fields are values, other dataclasses, or unions of them.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import tomli_w

from k2chi.about import NONE, describe, members, settings_hints, to_table

T = TypeVar("T")
# ---- values and tables ---------------------------------------------------------------------------


def from_table(hint: Any, table: Any, where: str = "") -> Any:
    """The value of type `hint` that `table` describes. ValueError names the place and what is valid."""
    choices = members(hint)
    methods: dict[str, type] = {m.__name__: m for m in choices if _is_method(m)}
    if table == NONE and NoneType in choices:
        return None
    if isinstance(table, Mapping) and methods:
        return _method(methods, table, where, NoneType in choices)
    for member in choices:
        found = _value(member, table, where)
        if found is not _NOT:
            return found
    if methods:
        raise ValueError(
            f'{where or "recipe"} must be a table that names its method: method = "{next(iter(methods))}"'
        )
    raise ValueError(f"{where} = {table!r} does not fit: give {describe(hint)}")


def _method(methods: Mapping[str, type], table: Mapping[str, Any], where: str, optional: bool) -> Any:
    only = next(iter(methods)) if len(methods) == 1 else None
    name = table.get("method", only)  # where there is no choice, nothing has to be named
    valid = [*methods, *([NONE] if optional else [])]
    if name == NONE and optional:
        return None
    if name is None:
        raise ValueError(f"{where or 'recipe'} names no method: add method = one of {', '.join(valid)}")
    if name not in methods:
        raise ValueError(
            f"{where or 'recipe'} has no method {name!r}{_near(name, valid)}; it has {', '.join(valid)}"
        )
    cls = methods[name]
    hints = settings_hints(cls)
    rest = {k: v for k, v in table.items() if k != "method"}
    for key in rest:
        if key not in hints:
            valid = list(hints) or ["no settings"]
            raise ValueError(f"{name} has no setting {key!r}{_near(key, valid)}; it has {', '.join(valid)}")
    values = {k: from_table(hints[k], v, f"{where}.{k}" if where else k) for k, v in rest.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where or 'recipe'}: {name} needs more settings ({error})") from error


_NOT = object()


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint`, or _NOT. Whole numbers pass as float; truth values are no numbers."""
    origin = get_origin(hint)
    if origin is Literal:
        return value if any(value == a and type(value) is type(a) for a in get_args(hint)) else _NOT
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        inner = get_args(hint)
        inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(inner) != len(value):
            return _NOT
        return tuple(
            from_table(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True))
        )
    if hint is bool or hint is str:
        return value if isinstance(value, hint) else _NOT
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    return _NOT


def _is_method(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _near(word: Any, valid: Sequence[str]) -> str:
    lower = {v.lower(): v for v in valid}
    close = get_close_matches(str(word).lower(), lower, n=1)
    return f" (did you mean {lower[close[0]]}?)" if close else ""


# ---- TOML ----------------------------------------------------------------------------------------


def dumps(method: Any) -> str:
    """TOML with every setting. The outermost name is left out: the reader knows it."""
    table = to_table(method)
    del table["method"]
    return tomli_w.dumps(table)


def loads(text: str, kind: type[T], where: str = "recipe") -> T:
    """A method of class `kind` from TOML; what is not mentioned keeps its default."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not TOML ({error}); repair the file") from error
    try:
        made: T = from_table(kind, {**table, "method": kind.__name__})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return made


def change(method: T, lines: Sequence[str]) -> T:
    """`method` with lines of TOML applied in turn, such as 'invert.iterations = 50'.

    Naming another method drops the settings of the old one.
    """
    table = to_table(method)
    for line in lines:
        try:
            update = tomllib.loads(line)
        except tomllib.TOMLDecodeError as error:
            hint = "text needs quotes" if re.match(r"\s*[\w.]+\s*=\s*[A-Za-z]", line) else str(error)
            raise ValueError(
                f"--set {line!r} is not a line of TOML ({hint}): "
                "write --set 'stage.setting = 1.5' or --set 'stage.method = \"NAME\"'"
            ) from error
        table = _merge(table, update, line)
        try:
            made: T = from_table(type(method), table)
        except ValueError as error:
            raise ValueError(f"--set {line!r}: {error}") from error
        table = to_table(made)
    result: T = from_table(type(method), table)
    return result


def _merge(old: Mapping[str, Any], new: Mapping[str, Any], line: str) -> dict[str, Any]:
    if "method" in new and new["method"] != old.get("method"):
        return dict(new)
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and before == NONE and "method" not in value:
            raise ValueError(f"--set {line!r}: {key} is none; choose a method for it first")
        merged[key] = (
            _merge(before, value, line)
            if isinstance(value, Mapping) and isinstance(before, Mapping)
            else value
        )
    return merged


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        f.name.removesuffix(".toml") for f in files("k2chi.recipes").iterdir() if f.name.endswith(".toml")
    )


def recipe(name: str | Path, kind: type[T]) -> T:
    """A recipe by shipped name or by file."""
    if str(name) in shipped():
        return loads(
            (files("k2chi.recipes") / f"{name}.toml").read_text(encoding="utf-8"), kind, f"recipe {name}"
        )
    path = Path(name)
    if not path.is_file():
        near = _near(name, shipped())
        raise ValueError(f"no recipe {str(name)!r}{near}: give a .toml file or one of {', '.join(shipped())}")
    return loads(path.read_text(encoding="utf-8"), kind, str(path))

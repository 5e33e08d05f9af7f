"""What a method says of itself: sentence, citations and settings, read from its source once."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NONE = "none"
"""How TOML, which has no null, writes that an optional stage or setting is left out."""


def to_table(method: Any) -> dict[str, Any]:
    """A method and its settings as a table that names the method."""
    table: dict[str, Any] = {"method": type(method).__name__}
    for f in dataclasses.fields(method):
        table[f.name] = plain(getattr(method, f.name))
    return table


def plain(value: Any) -> Any:
    """A setting as TOML can hold it."""
    if value is None:
        return NONE
    if dataclasses.is_dataclass(value):
        return to_table(value)
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def members(hint: Any) -> tuple[Any, ...]:
    """The types that a union is made of, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


@cache
def settings_hints(cls: type) -> dict[str, Any]:
    """Settings of a method with their types, in the order in which they stand."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def describe(hint: Any) -> str:
    """A type in words that a user can follow."""
    words: list[str] = []
    for m in members(hint):
        origin = get_origin(m)
        if origin is Literal:
            words += [repr(a) for a in get_args(m)]
        elif origin is tuple:
            inner = [describe(a) for a in get_args(m) if a is not Ellipsis]
            words.append(f"a list [{', '.join(inner)}{', …' if Ellipsis in get_args(m) else ''}]")
        elif m is NoneType:
            words.append(repr(NONE))
        elif dataclasses.is_dataclass(m):
            words.append(getattr(m, "__name__", str(m)))
        else:
            names = {
                bool: "true or false",
                int: "a whole number",
                float: "a number",
                str: "text",
                Path: "a path",
            }
            words.append(names.get(m, str(m)))
    return " or ".join(words)


@dataclass(frozen=True)
class Setting:
    """One setting of a method, as help pages show it."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True)
class About:
    """What there is to know about a method before using it."""

    stage: str
    name: str
    sentence: str
    citations: tuple[str, ...]
    settings: tuple[Setting, ...]


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The sentence under each field."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError):  # no source: frozen application or interactive session
        return {}
    docs: dict[str, str] = {}
    body = getattr(tree, "body", [])
    for node, after in pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
        ):
            text = getattr(after.value, "value", None)
            if isinstance(text, str):
                docs[node.target.id] = " ".join(text.split())
    return docs


def sentence(cls: type) -> str:
    """The first sentence of a method's docstring."""
    first = " ".join((inspect.getdoc(cls) or cls.__name__).split("\n\n")[0].split())
    return re.split(r"(?<=[^.\s]{2}[.])\s", first)[0]


CITATION = re.compile(
    r"([A-Z][\w’'-]+(?:(?:, | & | and )[A-Z][\w’'-]+)*(?: et al\.)?),? \(?((?:19|20)\d\d)\)?,? "
    r"([^;]{3,60}?),? doi:\s?(10\.\S*\w)"
)


def citations(cls: type) -> tuple[str, ...]:
    """Each source that a method's docstring names as authors, year, journal and DOI."""
    text = " ".join((inspect.getdoc(cls) or "").split())
    return tuple(
        f"{who} ({year}). {where.rstrip(',')}. https://doi.org/{doi}"
        for who, year, where, doi in CITATION.findall(text)
    )


def about(cls: type, stage: str = "") -> About:
    """A method's sentence, citations and settings."""
    docs = field_docs(cls)
    rows = []
    for f in dataclasses.fields(cls):
        default = f.default
        if default is dataclasses.MISSING:
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else None
        hint = settings_hints(cls).get(f.name)
        if hint is not None:
            rows.append(Setting(f.name, describe(hint), plain(default), docs.get(f.name, "")))
    return About(stage, cls.__name__, sentence(cls), citations(cls), tuple(rows))


def stages(kind: type) -> Iterator[tuple[str, Any]]:
    """Stages of `kind` with their types. One that is no choice but made of stages is followed by those."""
    for stage, hint in settings_hints(kind).items():
        yield stage, hint
        if dataclasses.is_dataclass(hint):
            yield from ((f"{stage}.{inner}", its) for inner, its in stages(hint))  # type: ignore[arg-type]


def choices(hint: Any) -> list[Any]:
    """The methods that a stage of this type may take; none for a plain setting."""
    return [m for m in members(hint) if dataclasses.is_dataclass(m)]


def methods(kind: type) -> Iterator[About]:
    """Every method that a stage of `kind` may take, stage by stage."""
    for stage, hint in stages(kind):
        for member in choices(hint):
            yield about(member, stage)


def used(method: Any) -> Iterator[tuple[str, Any]]:
    """Stage and method of each stage that a pipeline uses; as in `stages`, with what a stage is made of."""
    kind: Any = type(method)
    for stage, hint in settings_hints(kind).items():
        value = getattr(method, stage)
        if dataclasses.is_dataclass(value):
            yield stage, value
            if dataclasses.is_dataclass(hint):
                yield from ((f"{stage}.{inner}", its) for inner, its in used(value))


def differences(method: Any) -> dict[str, Any]:
    """Settings of a method that are not the default."""
    defaults = {s.name: s.default for s in about(type(method)).settings}
    return {k: v for k, v in to_table(method).items() if k != "method" and v != defaults[k]}

"""Configurations as JSON and back: the class's name under `kind`, then its fields."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def to_record(value: Any) -> Any:
    """Nested frozen dataclasses as JSON can hold them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "kind": type(value).__name__,
            **{f.name: to_record(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, tuple | list):
        return [to_record(v) for v in value]
    return value


def from_record(record: Any, classes: Iterable[type]) -> Any:
    """Undo `to_record`, for classes that are known. ValueError for one that is not, or wrong fields."""
    known = {c.__name__: c for c in classes}
    return _decoded(record, known)


def _decoded(record: Any, known: Mapping[str, type]) -> Any:
    if isinstance(record, Mapping):
        kind = str(record.get("kind"))
        if kind not in known:
            raise ValueError(f"the file speaks of {kind!r}, which is none of {', '.join(known)}")
        try:
            return known[kind](**{k: _decoded(v, known) for k, v in record.items() if k != "kind"})
        except TypeError as error:
            raise ValueError(
                f"the file's {kind} does not fit this version ({error}): train it anew"
            ) from error
    if isinstance(record, list):
        return tuple(_decoded(v, known) for v in record)
    return record

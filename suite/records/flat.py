"""Nested dataclasses as flat rows: in files and tables, a field that is a dataclass stands as its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column:
    """One name of a flat row."""

    field: Field[Any]
    """Of the dataclass that has it."""
    type: Any
    """The field's type, without annotations."""
    annotated: Any
    """The field's type, with annotations."""
    owner: type
    """The dataclass that has the field."""
    part: str = ""
    """The field of the row's class that holds the owner; empty where that is the class itself."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the rows of a dataclass are made and taken apart, found once for each class."""

    columns: Mapping[str, Column]
    values: Callable[[Any], tuple[Any, ...]]
    """The values of a row's columns, in their order."""


_LAYOUTS: dict[type, _Layout] = {}


def _layout(cls: type[Any]) -> _Layout:
    if cls not in _LAYOUTS:
        found: dict[str, Column] = {}
        types, annotated = get_type_hints(cls), get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            name, held = field.name, types[field.name]
            if is_dataclass(held) and isinstance(held, type):
                found |= {inner: replace(one, part=name) for inner, one in columns(held).items()}
            else:
                found[name] = Column(field, held, annotated[name], cls)
        paths = [f"{one.part}.{name}" if one.part else name for name, one in found.items()]
        _LAYOUTS[cls] = _Layout(found, attrgetter(*paths))
    return _LAYOUTS[cls]


def columns(cls: type[Any]) -> Mapping[str, Column]:
    """The columns of a dataclass's rows, by name, in the order of its fields."""
    return _layout(cls).columns


def flat(row: Any) -> dict[str, Any]:
    """The values of a dataclass, by column."""
    layout = _layout(type(row))
    return dict(zip(layout.columns, layout.values(row), strict=True))


def nested(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass of a flat row; columns that are missing have their defaults. Raises TypeError
    for a name that is no column, and for a missing one without a default.
    """
    known = columns(cls)
    own: dict[str, Any] = {}
    parts: dict[str, tuple[type, dict[str, Any]]] = {}
    for name, value in values.items():
        column = known.get(name)
        if column is None or not column.part:
            own[name] = value
        else:
            parts.setdefault(column.part, (column.owner, {}))[1][name] = value
    return cls(**own, **{part: owner(**given) for part, (owner, given) in parts.items()})


def changed(row: T, **values: Any) -> T:
    """The dataclass with some columns changed, as dataclasses.replace does it for fields."""
    return nested(type(row), {**flat(row), **values})

"""The JSON Schema (2020-12) of a dataclass: published for other readers, and what this suite's own
reader checks by.

A field says what it allows by its type. Annotated[int, ("minimum", 0), ("maximum", 9)] adds
keywords to those of int. Real numbers may be infinite or NaN, which JSON has no literals for: they
stand there as "inf", "-inf" and "nan".
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from suite.records.flat import columns, nested

T = TypeVar("T")
Schema = Mapping[str, Any]
Size = Annotated[float, ("minimum", 0)]
"""A real number that is not negative: an error, a share."""
LARGEST_INTEGER = 2**63 - 1
Count = Annotated[int, ("minimum", 0), ("maximum", LARGEST_INTEGER)]
Whole = Annotated[int, ("minimum", -LARGEST_INTEGER), ("maximum", LARGEST_INTEGER)]

NOT_FINITE = ("inf", "-inf", "nan")
REAL: Schema = {
    "anyOf": [
        {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max},
        {"enum": list(NOT_FINITE)},
    ]
}
SIZE: Schema = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": sys.float_info.max}, {"enum": ["inf", "nan"]}]
}
NAMES = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
SHOWN = 80
"""Characters of a refused value that a message shows."""


def of_dataclass(cls: type) -> dict[str, Any]:
    """The schema of a JSON object with the columns of a dataclass (flat.py): those without a default
    are required, others allowed.
    """
    given = columns(cls)
    return {
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "properties": {name: of_type(one.annotated) for name, one in given.items()},
        "required": [name for name, one in given.items() if _is_required(one.field)],
    }


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def described(cls: type, schema: Schema) -> dict[str, Any]:
    """A schema of a dataclass's rows, with the text below each field as the property's description."""
    texts = {name: _field_texts(one.owner).get(name) for name, one in columns(cls).items()}
    properties = {
        name: {"description": text, **one} if (text := texts.get(name)) else one
        for name, one in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def _field_texts(cls: type) -> dict[str, str]:
    """Field -> the text below it in the source, of a class and those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__[:-1]):
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for above, below in pairwise(tree.body):
            if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[ast.unparse(above.target)] = " ".join(text.split())
    return found


def of_type(hint: Any) -> dict[str, Any]:
    """The schema of what a field of this type holds. Raises TypeError for a type that has none."""
    simple: dict[Any, Schema] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: REAL,
    }
    simple |= {type(None): {"type": "null"}, Any: {}, Size: SIZE}
    if hint in simple:
        return dict(simple[hint])
    if get_origin(hint) is Annotated:
        base, *keywords = get_args(hint)
        return of_type(base) | {
            name: list(value) if isinstance(value, tuple) else value for name, value in keywords
        }
    if get_origin(hint) in (Union, UnionType):
        members = [of_type(member) for member in get_args(hint)]
        return {"anyOf": [one for member in members for one in member.get("anyOf", [member])]}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": of_type(get_args(hint)[0])}
    if get_origin(hint) is dict:
        inner = of_type(get_args(hint)[1])
        return {"type": "object", **({"additionalProperties": inner} if inner else {})}
    raise TypeError(f"a field of type {hint} has no schema")


def read(cls: type[T], data: Any, *, noun: str, schema: Schema) -> T:
    """The dataclass of a JSON object; what it has no field for is left out. Raises ValueError
    naming what is wrong.

    schema: of_dataclass(cls), or that with further properties, which are checked and left out.
    noun: for messages.
    """
    if not isinstance(data, dict):
        raise ValueError(f"a {noun} must be a JSON object, not a {type(data).__name__}")
    values = {name: take(data[name]) for name, take in _takers(schema).items() if name in data}
    unusual = [name for name, value in values.items() if value is UNUSUAL]
    for name in unusual:
        check(data[name], schema["properties"][name], name)
    missing = [name for name in schema["required"] if name not in data]
    if missing:
        raise ValueError(f"incomplete {noun}: it has no {', '.join(map(repr, missing))}")
    known = columns(cls)
    for name in unusual:
        values[name] = _value(known[name].type, data[name]) if name in known else None
    return nested(cls, {name: value for name, value in values.items() if name in known})


def check(value: Any, schema: Schema, name: str) -> None:
    """Raises ValueError, naming the value by `name`, where the schema does not allow it. Knows the
    keywords used here.
    """
    if "anyOf" in schema:
        if not any(conforms(value, one) for one in schema["anyOf"]):
            raise ValueError(f"{name}={_shown(value)} must be {' or '.join(map(_words, schema['anyOf']))}")
        return
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if kinds == ["object"] and not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, not {_shown(value)}")
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise ValueError(f"{name}={_shown(value)} must be {' or '.join(NAMES[kind] for kind in kinds)}")
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{name}={_shown(value)} is not one of {', '.join(schema['enum'])}")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        raise ValueError(f"{name}={_shown(value)} is not between {schema['minimum']} and {schema['maximum']}")
    for required in schema.get("required", ()):
        if required not in value:
            raise ValueError(f"{name} has no {required!r}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            check(item, schema["items"], f"{name}[{number}]")
    if isinstance(value, dict):
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if inner is not None:
                check(item, inner, f"{name}.{key:.{SHOWN}}")


def conforms(value: Any, schema: Schema) -> bool:
    """Whether check() lets the value pass."""
    try:
        check(value, schema, "")
    except ValueError:
        return False
    return True


def _is(value: Any, kind: str) -> bool:
    """Whether the value is of JSON Schema's type: 1.0 is an integer, true is no number."""
    if kind in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or value == value // 1)
    types: dict[str, type] = {
        "string": str,
        "boolean": bool,
        "array": list,
        "object": dict,
        "null": type(None),
    }
    return isinstance(value, types[kind])


def _words(one: Schema) -> str:
    """What a schema of anyOf allows."""
    if "enum" in one:
        return f"one of {', '.join(one['enum'])}"
    return NAMES[one["type"]] + (" of at least 0" if one.get("minimum") == 0 else "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


UNUSUAL = object()
Take = Callable[[Any], Any]
_TAKERS: dict[int, tuple[Schema, dict[str, Take]]] = {}


def _takers(schema: Schema) -> dict[str, Take]:
    """A short cut for each property: what check() lets pass, as _value() makes it, where its type
    shows that at once.
    """
    if id(schema) not in _TAKERS:
        takers = {name: _taker(one) for name, one in schema["properties"].items()}
        _TAKERS[id(schema)] = (schema, takers)  # with the schema, so that no other gets its id
    return _TAKERS[id(schema)][1]


def _taker(schema: Schema) -> Take:
    """value -> what a field holds of it, or UNUSUAL where check() and _value() have to decide. It
    never takes what they do not: exact types, ASCII, finite numbers only, and only the keywords
    named here.
    """
    if "anyOf" in schema:
        return _either_taker([take for one in schema["anyOf"] if (take := _taker(one)) is not _never])
    kind, others = schema.get("type"), schema.keys() - {"type"}
    low, high = schema.get("minimum", -sys.float_info.max), schema.get("maximum", sys.float_info.max)
    if kind == "null" and not others:
        return lambda value: value if value is None else UNUSUAL
    if kind == "boolean" and not others:
        return lambda value: value if type(value) is bool else UNUSUAL
    if kind in ("integer", "number") and others in (set(), {"minimum", "maximum"}):
        exact = int if kind == "integer" else float
        return lambda value: value if type(value) is exact and low <= value <= high else UNUSUAL
    if kind == "string" and others == {"enum"}:
        allowed = frozenset(text for text in schema["enum"] if text.isascii())
        return lambda value: value if type(value) is str and value in allowed else UNUSUAL
    if kind == "string" and not others:
        return lambda value: value if type(value) is str and value.isascii() else UNUSUAL
    if kind == "array" and others == {"items"}:
        return _list_taker(_taker(schema["items"]))
    if kind == "object" and not others:
        return lambda value: dict(value) if type(value) is dict and "".join(value).isascii() else UNUSUAL
    if kind == "object" and others == {"additionalProperties"}:
        return _object_taker(_taker(schema["additionalProperties"]))
    return _never


def _never(value: Any) -> Any:
    return UNUSUAL


def _either_taker(takes: Sequence[Take]) -> Take:
    def taken(value: Any) -> Any:
        for take in takes:
            if (found := take(value)) is not UNUSUAL:
                return found
        return UNUSUAL

    return taken


def _list_taker(take: Take) -> Take:
    def taken(value: Any) -> Any:
        items = tuple(map(take, value)) if type(value) is list else (UNUSUAL,)
        return UNUSUAL if UNUSUAL in items else items

    return taken


def _object_taker(take: Take) -> Take:
    def taken(value: Any) -> Any:
        if type(value) is not dict or not "".join(value).isascii():
            return UNUSUAL
        items = {key: take(item) for key, item in value.items()}
        return UNUSUAL if UNUSUAL in items.values() else items

    return taken


def _value(hint: Any, value: Any) -> Any:
    """A checked JSON value as its field holds it: tuples for lists, numbers for "inf".

    Raises UnicodeEncodeError, a ValueError, for text with lone surrogates, which no file can hold.
    """
    if get_origin(hint) in (Union, UnionType):
        return (
            None
            if value is None
            else _value(next(one for one in get_args(hint) if one is not type(None)), value)
        )
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], item) for item in value)
    if get_origin(hint) is dict:
        return {_value(str, key): _value(get_args(hint)[1], item) for key, item in value.items()}
    if hint is str:
        value.encode()
    return hint(value) if hint in (int, float) else value

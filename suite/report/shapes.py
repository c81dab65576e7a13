"""The shapes of measurements, as JSON Schema: strangers wrote them, so they are checked before use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from suite.records import schema

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
FLAG: Shape = {"type": "boolean"}
NULL: Shape = {"type": "null"}
REAL: Shape = dict(schema.REAL)
"""A number, or the text of one that is not finite."""
NUMBER: Shape = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
COUNT: Shape = {"type": "integer", "minimum": 1, "maximum": 2**53}
SHARE: Shape = {"type": "number", "minimum": 0, "maximum": 1}
LARGEST_DRAWN = 1e150
"""Axes reach beyond what they show, and must stay in the range of float64."""
DRAWN: Shape = {"type": "number", "minimum": 0, "maximum": LARGEST_DRAWN}
SECONDS: Shape = {"type": "number", "minimum": 1e-12, "maximum": 1e9}


def one_of(*values: str) -> Shape:
    return {"type": "string", "enum": list(values)}


def either(*shapes: Shape) -> Shape:
    return {"anyOf": [one for shape in shapes for one in shape.get("anyOf", [shape])]}


def or_null(*shapes: Shape) -> Shape:
    return either(*shapes, NULL)


def many(item: Shape) -> Shape:
    """A list of such items."""
    return {"type": "array", "items": item}


def by_name(value: Shape) -> Shape:
    """An object with any names, and such values."""
    return {"type": "object", "additionalProperties": value}


def fields(properties: Mapping[str, Shape] | None = None, /, *optional: str, **named: Shape) -> Shape:
    """An object with these fields, all required but the optional ones; others are allowed."""
    every = {**(properties or {}), **named}
    return {
        "type": "object",
        "properties": every,
        "required": [name for name in every if name not in optional],
    }

"""Input families: named, seeded, documented generators of logits, the same bits on every machine.

A family is one function (rows, n, format, draw) -> float64 [rows, n]; build() rounds its values to
the format. Register it with @family; its docstring's first sentence is what `softmax-suite list
inputs` shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from suite.formats import Array, Format
from suite.inputs.draws import Draw

Generator = Callable[[int, int, Format, Draw], Array]


@dataclass(frozen=True, slots=True)
class Family:
    """A named generator of rows of logits."""

    name: str
    generate: Generator
    fixed_shape: tuple[int, int] | None = None
    """(rows, n) of a family of captured data."""

    @property
    def summary(self) -> str:
        return first_sentence(self.generate)


def first_sentence(function: Callable[..., Any]) -> str:
    """What a function's docstring says first, in one line: what lists show of it."""
    paragraph = " ".join((function.__doc__ or "").strip().split("\n\n")[0].split())
    sentence, _, _ = paragraph.partition(". ")
    return sentence.removesuffix(".")


_FAMILIES: dict[str, Family] = {}


def family(generate: Generator, *, fixed_shape: tuple[int, int] | None = None) -> Generator:
    """Registers a generator under its function's name. Raises ValueError for a name that is taken
    or without a docstring.
    """
    name = free_name(generate, _FAMILIES)
    _FAMILIES[name] = Family(name, generate, fixed_shape)
    return generate


def free_name(generate: Callable[..., Any], taken: Iterable[str], *, of: str = "") -> str:
    """The function's name, for a family of it. Raises ValueError for a name that is taken or
    without a docstring.

    of: whose families these are, as a message says it.
    """
    name = generate.__name__
    if name in taken:
        raise ValueError(f"input family {name!r}{of} exists already")
    if not generate.__doc__:
        raise ValueError(f"input family {name!r}{of} needs a docstring that says what it is hard for")
    return name


def all_families() -> dict[str, Family]:
    """All families by name."""
    for module in ("families", "ends_and_tiles", "rounding", "known_bugs", "exhaustive", "captured"):
        importlib.import_module(f"suite.inputs.{module}")
    return dict(_FAMILIES)


def get_family(name: str) -> Family:
    """The family of that name. Raises ValueError with the valid names."""
    known = all_families()
    if name not in known:
        raise ValueError(f"unknown input family {name!r}; expected one of {', '.join(sorted(known))}")
    return known[name]


def build(name: str, rows: int, n: int, format: Format, seed: int) -> Array:
    """The family's rows for this seed, float64 [rows, n], every finite value a number of `format`."""
    fixed = get_family(name).fixed_shape
    if fixed not in (None, (rows, n)):
        raise ValueError(f"input family {name!r} has the shape {fixed}, not {(rows, n)}")
    draw = Draw(f"{name}|{rows}x{n}|{seed}")
    return rounded(get_family(name).generate(rows, n, format, draw), format)


def rounded(values: Array, format: Format) -> Array:
    """The numbers of the format nearest to these, the largest ones instead of infinity; what is not
    finite is kept.
    """
    finite = np.isfinite(values)
    clipped = np.clip(np.where(finite, values, 0.0), -format.largest, format.largest)
    return np.where(finite, format.round(clipped), values)

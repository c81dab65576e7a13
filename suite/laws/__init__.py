"""Laws: relations between several calls of one kernel. What one output tells is the judge's; what only two tell is here.

A law is one function (Trial) -> Finding, registered with @law. Both sides must lie within the op's own bound, so a law is
exactly as strict as the judge; whether they agree bit for bit is recorded, not judged.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.judge import Judgement

RELATIONS = ("batch", "permutation", "repeat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One judged call of a kernel, and the means to call it again.

    x: the float64 input. output: the judged float64 output. dim: the reduced dimension, counted from 0.
    keeps_length: whether the output has the input's shape. call: kernel on a float64 input to a float64 output.
    judge: the judgement of an output for a float64 input of any shape.
    """

    x: Any
    output: Any
    dim: int
    keeps_length: bool
    call: Callable[[Any], Any]
    judge: Callable[[Any, Any], Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """held: whether the law holds. bitwise: whether both sides have the same bits, None if that has no meaning. note: why."""

    held: bool
    bitwise: bool | None = None
    note: str = ""


Law = Callable[[Trial], Finding]


def get_law(name: str) -> Law:
    """The law of that name. Raises ValueError with the valid names."""
    if name not in RELATIONS:
        raise ValueError(f"unknown law {name!r}; expected one of {', '.join(RELATIONS)}")
    law: Law = getattr(importlib.import_module("suite.laws.relations"), name)
    return law


def all_laws() -> dict[str, str]:
    """Every law's name and its statement."""
    return {name: (get_law(name).__doc__ or "").strip().split("\n")[0] for name in RELATIONS}

"""Laws: relations between several calls of one kernel. What one output tells is the judge's; what only two tell is here.

A law is one function (Trial) -> Finding, registered with @law. Both sides must lie within the op's own bound, so a law is
exactly as strict as the judge; whether they agree bit for bit is recorded, not judged.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.formats import Format
from suite.judge import Judgement

RELATIONS = ("batch", "canaries", "neighbour", "permutation", "repeat", "replay", "shift", "written")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One judged call of a kernel, and the means to call it again.

    x: the float64 logits. output: the judged float64 output. dim: the dimension of the rows, counted from 0.
    keeps_length: whether the output has the logits' shape. targeted: whether each row has a target beside its logits.
    format: of the logits. call: kernel on float64 logits, all else as it was, to a float64 output; with memory="filled" or
    "guarded" under watch (suite/execution/memory.py).
    judge: the judgement of an output for float64 logits of any shape.
    """

    x: Any
    output: Any
    dim: int
    keeps_length: bool
    targeted: bool
    format: Format
    call: Callable[..., Any]
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

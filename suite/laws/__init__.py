"""Laws: relations between several calls of one kernel. What one output tells is the judge's; what only two tell is here.

A law is one generator function of relations.py: (Trial) -> calls, then a Finding. Both sides must lie within the op's own
bound, so a law is exactly as strict as the judge; whether they agree bit for bit is recorded, not judged.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from suite.formats import Format
from suite.judge import Judgement

RELATIONS = ("batch", "canaries", "neighbour", "permutation", "repeat", "replay", "shift", "written")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One judged call of a kernel, and the judge of further ones.

    x: the float64 logits. output: the judged float64 output. dim: the dimension of the rows, counted from 0.
    keeps_length: whether the output has the logits' shape. targeted: whether each row has a target beside its logits.
    format: of the logits. judge: the judgement of an output for float64 logits of any shape.
    """

    x: Any
    output: Any
    dim: int
    keeps_length: bool
    targeted: bool
    format: Format
    judge: Callable[[Any, Any], Judgement]


class Call(NamedTuple):
    """A further call that a law wants: of float64 logits, all else as it was; with memory="filled" or "guarded" under watch
    (suite/execution/memory.py).
    """

    x: Any
    memory: Literal["plain", "filled", "guarded"] = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """held: whether the law holds. bitwise: whether both sides have the same bits, None if that has no meaning. note: why.

    status: what the record's becomes where it does not hold, another than law_broken where a call of the law ended the kernel.
    """

    held: bool
    bitwise: bool | None = None
    note: str = ""
    status: str = "law_broken"


Inquiry = Generator[list[Call], list[Any], Finding]
Law = Callable[[Trial], Inquiry]
"""A generator: it yields all its calls at once, so that they can be made while it judges, gets their float64 outputs, and
returns its finding; or returns one without a call.
"""


def get_law(name: str) -> Law:
    """The law of that name. Raises ValueError with the valid names."""
    if name not in RELATIONS:
        raise ValueError(f"unknown law {name!r}; expected one of {', '.join(RELATIONS)}")
    law: Law = getattr(importlib.import_module("suite.laws.relations"), name)
    return law


def all_laws() -> dict[str, str]:
    """Every law's name and its statement."""
    return {name: (get_law(name).__doc__ or "").strip().split("\n")[0] for name in RELATIONS}

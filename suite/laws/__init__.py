"""Laws: relations between several calls of one kernel. What one output tells is the judge's; what
only two tell is here.

A law is one generator function of relations.py: (Trial) -> calls, then a Finding. Both sides must
lie within the op's own bound, so a law is exactly as strict as the judge; whether they agree bit
for bit is recorded, not judged.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from suite.formats import Format
from suite.inputs import first_sentence
from suite.verdict.judgement import Judgement

Memory = Literal["plain", "filled", "guarded"]
RELATIONS = ("batch", "canaries", "neighbour", "permutation", "repeat", "replay", "shift", "written")
"""Those of one tensor of logits; repeat, written and canaries hold for every op."""

ATTENTION = (
    "alone",
    "causal_prefix",
    "equal_values",
    "hidden_keys",
    "hostile_neighbours",
    "masked",
    "neutral",
    "other_inputs",
    "parts",
    "prefix",
    "repeated_heads",
    "reversed_keys",
    "reversed_queries",
    "shifted_scores",
    "wide_softcap",
    "with_log_sum_exp",
)
"""Those of attention."""

BACKWARD = ("double_backward", "doubled", "other_upstream")
"""Those of gradients."""

IN_PART = (
    "hidden_keys",
    "masked",
    "neutral",
    "parts",
    "repeated_heads",
    "shifted_scores",
    "wide_softcap",
    "with_log_sum_exp",
)
"""Those that still say something where a kernel declines some of their calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One judged call of a kernel, and the judge of further ones.

    inputs: float64, by name, the logits first. options: with defaults. output: the judged float64
    output, a tuple where the op has several. dim: the dimension of the rows, counted from 0.
    keeps_length: whether the output has the logits' shape. targeted: whether each row has a target
    beside its logits.
    format: of the logits. judge_call: the judgement of an output for such a call. supports: None,
    or why the kernel takes no such call.
    """

    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    output: Any
    dim: int
    keeps_length: bool
    targeted: bool
    format: Format
    judge_call: Callable[[Call, Any], Judgement]
    supports: Callable[[Call], str | None]

    @property
    def x(self) -> Any:
        """The logits."""
        return next(iter(self.inputs.values()))

    def call(self, x: Any, memory: Memory = "plain") -> Call:
        """A call of other logits, all else as it was."""
        return Call({next(iter(self.inputs)): x}, {}, memory)

    def judge(self, x: Any, output: Any) -> Judgement:
        """The judgement of an output for other logits, all else as it was."""
        return self.judge_call(self.call(x), output)


class Call(NamedTuple):
    """A further call that a law wants: these inputs and options in place of the trial's, an input
    of None left out; with memory="filled" or "guarded" under watch (suite/execution/memory.py).
    """

    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    memory: Memory = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """held: whether the law holds. bitwise: whether both sides have the same bits, None if that has
    no meaning. note: why.

    status: what the record's becomes where it does not hold, another than law_broken where a call
    of the law ended the kernel.
    """

    held: bool
    bitwise: bool | None = None
    note: str = ""
    status: str = "law_broken"


Inquiry = Generator[list[Call], list[Any], Finding]
Law = Callable[[Trial], Inquiry]
"""A generator: it yields all its calls at once, so that they can be made while it judges, gets
their float64 outputs, None for a call that the kernel declines, and returns its finding; or returns
one without a call.
"""


_MODULES = {"relations": RELATIONS, "attention": ATTENTION, "backward": BACKWARD}
_ALL = tuple(name for names in _MODULES.values() for name in names)


def get_law(name: str) -> Law:
    """The law of that name. Raises ValueError with the valid names."""
    for module, names in _MODULES.items():
        if name in names:
            law: Law = getattr(importlib.import_module(f"suite.laws.{module}"), name)
            return law
    raise ValueError(f"unknown law {name!r}; expected one of {', '.join(_ALL)}")


def all_laws() -> dict[str, str]:
    """Every law's name and its statement."""
    return {name: first_sentence(get_law(name)) for name in _ALL}

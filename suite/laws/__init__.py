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

from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.inputs import first_sentence
from suite.ops import Options
from suite.verdict.judgement import Judgement

Memory = Literal["plain", "filled", "guarded"]
"""plain: as it comes. filled: torch fills what it allocates uninitialised with NaN. guarded:
canaries, and filled.
"""

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


Inputs = Mapping[str, NDArray[Any]]
"""The inputs of a call, by argument: float64, or integers for class indices."""

Output = Array | tuple[Array, ...]
"""The float64 output of a call, a tuple where the op has several."""


class Call(NamedTuple):
    """A further call that a law wants."""

    inputs: Mapping[str, NDArray[Any] | None]
    """In place of the trial's; one of None is left out."""
    options: Options
    """In place of the trial's."""
    memory: Memory = "plain"
    """How memory is watched (suite/execution/memory.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One judged call of a kernel, and the judge of further ones."""

    inputs: Inputs
    """By name, the logits first."""
    options: Options
    """With defaults."""
    output: Any
    """The Output that was judged."""
    dim: int
    """The dimension of the rows, counted from 0."""
    keeps_length: bool
    """Whether the output has the logits' shape."""
    targeted: bool
    """Whether each row has a target beside its logits."""
    format: Format
    """Of the logits."""
    judge_output: Callable[[Inputs, Options, Output], Judgement]
    """The judgement of an output for such inputs and options."""
    unsupported: Callable[[Inputs, Options], str | None]
    """None, or why the kernel takes no such call."""

    @property
    def x(self) -> NDArray[Any]:
        """The logits."""
        return next(iter(self.inputs.values()))

    def call(self, x: NDArray[Any], memory: Memory = "plain") -> Call:
        """A call of other logits, all else as it was."""
        return Call({next(iter(self.inputs)): x}, {}, memory)

    def changed(self, call: Call) -> tuple[Inputs, Options]:
        """All inputs and options of a further call."""
        inputs = {
            name: values for name, values in {**self.inputs, **call.inputs}.items() if values is not None
        }
        return inputs, {**self.options, **call.options}

    def is_another_kind(self, call: Call) -> bool:
        """Whether a further call has other options, tensors or shapes, so that the kernel may decline it."""
        inputs, options = self.changed(call)
        return shapes_of(inputs) != shapes_of(self.inputs) or options != self.options

    def judge(self, x: NDArray[Any], output: Output) -> Judgement:
        """The judgement of an output for other logits, all else as it was."""
        return self.judge_call(self.call(x), output)

    def judge_call(self, call: Call, output: Output) -> Judgement:
        """The judgement of an output for a further call."""
        return self.judge_output(*self.changed(call), output)

    def supports(self, call: Call) -> bool:
        """Whether the kernel takes a further call, by what it declares."""
        return self.unsupported(*self.changed(call)) is None


def shapes_of(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs, by name."""
    return {name: tuple(values.shape) for name, values in inputs.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a law says of a kernel."""

    held: bool
    """Whether the law holds."""
    bitwise: bool | None = None
    """Whether both sides have the same bits; None where that has no meaning."""
    note: str = ""
    """Why."""
    status: str = "law_broken"
    """What the record's becomes where it does not hold: another one where a call ended the kernel."""


Inquiry = Generator[list[Call], list[Any], Finding]
"""The outputs that a law is sent are of type Output, or None in the laws of IN_PART."""

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

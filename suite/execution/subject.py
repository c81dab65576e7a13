"""What is evaluated: a kernel on a case, and the standard that it is judged by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from suite.case import Case
from suite.formats import Format
from suite.kernels import Domain, Kernel
from suite.laws import Inputs, Output, shapes_of
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.ops import AnyOp, Options, get_op
from suite.ops.rows import RowFacts
from suite.oracle import Oracle, Reference
from suite.verdict.judge import judge_outputs
from suite.verdict.judgement import Judgement
from suite.verdict.tensors import as_tuple


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A kernel on a case, in a format, on a device, and its judge."""

    case: Case
    kernel: Kernel
    format: Format
    """Of the logits."""
    device: str
    strict: bool
    """Judged by best practice, whatever the kernel declares."""
    oracle: Oracle

    @property
    def numerics(self) -> Numerics:
        return BEST_PRACTICE if self.strict else self.kernel.numerics

    @property
    def semantics(self) -> Semantics:
        return CONTRACT if self.strict else self.kernel.semantics

    @property
    def domain(self) -> Callable[[RowFacts, Format], Domain] | None:
        """The kernel's declared domain, where it counts."""
        return None if self.strict else self.kernel.domain

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """The case's, with defaults."""
        return self.case.resolved_options()

    def op(self, inputs: Inputs) -> AnyOp:
        """The op of a call: the backward where the gradient of an output is among the inputs."""
        return get_op(self.case.op).of(inputs)

    def unsupported(self, names: Iterable[str], options: Options) -> str | None:
        """None, or why the kernel takes no call with inputs of these names and these options."""
        op = get_op(self.case.op)
        further = [name for name in names if name in (*op.optional, *op.upstreams)]
        return self.kernel.supports(options, self.format, self.device, further=further)

    def references(self, inputs: Inputs, options: Options) -> tuple[Reference, ...]:
        """The exact outputs of a call."""
        return self.oracle.references(self.op(inputs), inputs, options, self.format, semantics=self.semantics)

    def judgement(
        self,
        inputs: Inputs,
        options: Options,
        output: Output,
        references: Sequence[Reference],
        *,
        statistics: bool = True,
    ) -> Judgement:
        """The judgement of what a call returned."""
        return judge_outputs(
            self.op(inputs),
            references,
            as_tuple(output),
            shapes_of(inputs),
            options,
            self.format,
            self.numerics,
            statistics=statistics,
        )

"""What every backward op has in common: the gradient of one input, by the gradient of the output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from suite.ops.op import UPSTREAM, AnyOp, Compared, Counts, FactsT, Op, Options, ProblemT, Result, Shapes


class BackwardOp(Op[ProblemT, FactsT]):
    """The gradient of one input of an op: an op like any other, with an input more, `upstream`.

    A call has the gradients of several inputs; each is an output, and a BackwardOp.
    """

    result = Result.GRADIENT

    def __init__(self, forward: AnyOp, wrt: str, wanted: tuple[str, ...], *, name: str, summary: str) -> None:
        self.forward = forward
        self.wrt = wrt
        """The input whose gradient this is."""
        self.wrt_of_call = wanted
        """All inputs whose gradients a call gives, in order."""
        self.name, self.summary = name, summary
        self.arguments = (*forward.arguments, UPSTREAM)
        self.optional = (*forward.optional, *forward.upstreams[1:])
        self.settings, self.options = forward.settings, forward.options

    @abstractmethod
    def part(self, wrt: str) -> Self:
        """The op of another gradient of the same call."""

    def outputs(self, options: Options) -> tuple[Self, ...]:
        return tuple(self if wrt == self.wrt else self.part(wrt) for wrt in self.wrt_of_call)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        resolved = self.forward.check_options(options, shapes)
        for name, output in zip(self.forward.upstreams, self.forward.outputs(resolved), strict=False):
            expected = output.output_shape(shapes, resolved)
            if name in shapes and shapes[name] != expected:
                raise ValueError(
                    f"{name} has shape {list(shapes[name])}; expected the output's, {list(expected)}"
                )
        return resolved

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return self.forward.axis(options, shape)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return shapes[self.wrt]

    def statistics(self, facts: FactsT, compared: Compared) -> Counts:
        """Zeros, where the exact gradient is certainly none: an exact 0 is known up to its radius only."""
        lost = compared.lost & (compared.certain > 0)
        return {
            "flushed": int(np.count_nonzero(lost)),
            "false_zeros": int(
                np.count_nonzero(lost & (compared.certain >= compared.format.smallest_normal))
            ),
            "dead_rows": int(np.count_nonzero((compared.y == 0).all(axis=1) & lost.any(axis=1))),
        }


def check_wanted(wrt: tuple[str, ...], summaries: Mapping[str, str]) -> None:
    """Raises ValueError where these are not inputs that have a gradient, at least one."""
    if not wrt or not set(wrt) <= set(summaries):
        raise ValueError(f"wrt={wrt!r} must name some of {', '.join(summaries)}")

"""merge_states: see definition.py, bound.py and kernels/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics, Semantics
from suite.ops import UPSTREAM, AnyOp, Op, Options, Result, Shapes
from suite.ops.arithmetic import Arithmetic
from suite.ops.logsumexp import definition as log_sum_exp
from suite.ops.merge_states import bound, definition
from suite.ops.merge_states.definition import StateFacts, States
from suite.ops.merge_states.inputs import StateInputs
from suite.ops.rows import Allowed, RowFacts, Rows


class MergeStates(Op[States, StateFacts]):
    """o_a, o_b [B, H, L, E] with lse_a, lse_b [B, H, L], float32 (float64 for float64), to (o, lse)
    of the same shapes.
    """

    name = "merge_states"
    summary = "the softmax-weighted mean of two attention outputs, by their log-sum-exps"
    arguments = ("o_a", "lse_a", "o_b", "lse_b")
    inputs = StateInputs()
    upstreams = (UPSTREAM, "upstream_lse")
    differentiable = ("o_a", "lse_a", "o_b", "lse_b")
    result = Result.AVERAGE
    dims = ("BATCH", "HEADS", "LENGTH", "SIZE")
    plain_family = "alike"
    operations_by_entry = (5, 6)

    def check_shapes(self, shapes: Shapes) -> None:
        o = shapes["o_a"]
        for name in self.arguments:
            expected = o if name.startswith("o") else o[:-1]
            if not o or shapes[name] != expected:
                raise ValueError(
                    f"{name} has shape {list(shapes[name])}; expected {list(expected)}, as o_a is {list(o)}"
                )

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return len(shape) - 1

    def input_format(self, name: str, format: Format) -> Format:
        return compute_format(format) if name.startswith("lse") else format

    def problem(self, inputs: Mapping[str, Array], options: Options) -> States:
        size = inputs["o_a"].shape[-1]
        x = np.stack([inputs["lse_a"].reshape(-1), inputs["lse_b"].reshape(-1)], axis=1)
        rows = len(x)
        return States(
            x, np.stack([inputs["o_a"].reshape(rows, size), inputs["o_b"].reshape(rows, size)], axis=1)
        )

    def special(self, problem: States, semantics: Semantics) -> NDArray[np.int8]:
        return definition.special(problem)

    def facts(self, problem: States) -> StateFacts:
        return definition.facts(problem)

    def scores(self, facts: StateFacts) -> RowFacts:
        return facts.rows

    def define(self, arithmetic: Arithmetic, problem: States) -> Any:
        return definition.define(arithmetic, problem)

    def bound(self, facts: StateFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.bound(facts, numerics, target)

    def outputs(self, options: Options) -> tuple[AnyOp, ...]:
        return (self, LOG_SUM_EXP)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return shapes["o_a"]

    def output_rows(self, output: NDArray[Any], problem: States, options: Options) -> NDArray[Any]:
        return output.reshape(len(problem.x), output.shape[-1])

    def output_index(
        self, row: int, column: int, problem: States, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        return (*(int(i) for i in np.unravel_index(row, shapes["o_a"][:-1])), column)


class MergedLogSumExp(MergeStates):
    """merge_states' second output."""

    name = "merge_states_lse"
    result = Result.LOG_SUM
    summary = "log(exp(lse_a) + exp(lse_b))"

    def special(self, problem: States, semantics: Semantics) -> NDArray[np.int8]:
        return definition.special_log_sum_exp(problem)

    def define(self, arithmetic: Arithmetic, problem: States) -> Any:
        return log_sum_exp.define(arithmetic, Rows(problem.x))

    def bound(self, facts: StateFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.bound_of_log_sum_exp(facts, numerics, target)

    def outputs(self, options: Options) -> tuple[AnyOp, ...]:
        return (self,)

    def output_format(self, format: Format) -> Format:
        return compute_format(format)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return shapes["o_a"][:-1]

    def output_rows(self, output: NDArray[Any], problem: States, options: Options) -> NDArray[Any]:
        return output.reshape(len(problem.x), 1)

    def output_index(
        self, row: int, column: int, problem: States, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(row, shapes["o_a"][:-1]))


OP = MergeStates()
LOG_SUM_EXP = MergedLogSumExp()

"""Backward of softmax: dx_i = p_i (g_i - sum_j p_j g_j) / T, g the upstream gradient. Bound: docs/gradients.md, section 2.

The hidden logit of off_by_one has a weight and no upstream gradient. -inf gives exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics
from suite.ops import Options
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.row_backward import (
    GradientFacts,
    RowBackward,
    allowed,
    saved_roundoff,
    stored_underflow,
    sum_error,
    underflow,
    upstream_rows,
)
from suite.ops.rows import Allowed, Rows
from suite.ops.softmax import OP as SOFTMAX
from suite.ops.softmax.bound import relative_error


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientRows(Rows):
    """Logits with the upstream gradient of their row, [rows, n] (0 at hidden logits) or [rows, 1]."""

    upstream: Array

    def take(self, rows: NDArray[np.intp]) -> Self:
        return replace(self, x=self.x[rows], upstream=self.upstream[rows])

    def content(self) -> bytes:
        return super().content() + b"|" + np.ascontiguousarray(self.upstream).tobytes()

    def describe(self, row: int, column: int | None) -> str:
        own = self.upstream[row, column if column is not None and self.upstream.shape[1] > 1 else 0]
        return f"{super().describe(row, column)}, upstream {float(own)!r} there"


class SoftmaxBackward(RowBackward):
    summary = "p_i (g_i - sum_j p_j g_j)"

    def problem(self, inputs: Mapping[str, Array], options: Options) -> GradientRows:
        rows = SOFTMAX.problem(inputs, options)
        upstream = upstream_rows(SOFTMAX, inputs, options)
        hidden = np.zeros((len(rows.x), rows.hidden))
        return GradientRows(
            rows.x,
            temperature=rows.temperature,
            hidden=rows.hidden,
            upstream=np.concatenate([upstream, hidden], axis=1),
        )

    def facts(self, problem: GradientRows) -> GradientFacts:
        ordinary = problem.ordinary
        safe = replace(problem, x=np.where(ordinary[:, None], problem.x, 0.0))
        return GradientFacts(problem.facts(), problem.upstream, self.define(Float64(), safe), ordinary)

    def define(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        e = arithmetic.shifted_exp(problem.x, problem.temperature)
        p = e / arithmetic.row_sum(e)
        g = arithmetic.lift(problem.upstream)
        dx = p * (g - arithmetic.row_sum(p * g)) / arithmetic.lift(np.array([[problem.temperature]]))
        return dx[:, : problem.shown.shape[1]]

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        """p_i (tau_i |g_i - S| + the error of S + (u_s + 4 u)(|g_i| + |S|)) / T, S = sum_j p_j g_j; tau_i is what softmax
        allows p_i relatively, and u_s a rounding to the format that P is saved in.
        """
        rows, g = facts.rows, facts.upstream
        u, saved, lost = (
            numerics.arithmetic(target).unit_roundoff,
            saved_roundoff(numerics, target),
            underflow(numerics, target),
        )
        tau = relative_error(rows, numerics, target) + saved + u
        p, terms = rows.probability, rows.probability * np.abs(g)
        mean = (rows.probability * g).sum(axis=1, keepdims=True)
        of_mean = (
            (terms * (tau + u)).sum(axis=1, keepdims=True) + sum_error(terms, u) + lost * np.abs(g).sum(axis=1, keepdims=True)
        )
        magnitude = np.abs(g) + np.abs(mean)
        shared = numerics.shift in ("row_max", "folded")  # else g_i and S may meet different exponentials of the same logit
        difference = np.abs(g - mean) if shared else magnitude
        error = p * (tau * difference + (1 + tau) * (of_mean + (saved + 4 * u) * magnitude)) + lost * (difference + of_mean)
        error = error + stored_underflow(rows, numerics, target)
        error = np.where((rows.x > -np.inf) & (tau < 0.5), error, np.where(rows.x > -np.inf, np.inf, 0.0))
        return allowed(facts, rows.shown(error / rows.temperature * (1 + 4 * u)), numerics, target)


def backward(wrt: tuple[str, ...]) -> RowBackward:
    """The backward op. wrt: the inputs whose gradient is wanted: x."""
    return OP


OP = SoftmaxBackward(SOFTMAX)

"""Backward of logsumexp: dx_i = g p_i, g the upstream gradient of the row. Bound:
docs/gradients.md, section 4.

A row of -inf, whose value is -inf, gives exactly 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Format
from suite.numerics import Numerics, Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.double_backward import DoubleBackward
from suite.ops.logsumexp import OP as LOG_SUM_EXP
from suite.ops.row_backward import (
    GradientFacts,
    GradientRows,
    UnaryBackward,
    allowed,
    recomputing,
    saved_roundoffs,
    stored_underflow,
    underflow,
)
from suite.ops.rows import Allowed
from suite.ops.softmax.bound import relative_error
from suite.ops.special import Special


class LogSumExpBackward(UnaryBackward):
    def special(self, problem: GradientRows, semantics: Semantics) -> NDArray[np.int8]:
        empty = (problem.x.max(axis=1, initial=-np.inf) == -np.inf) & np.isfinite(problem.upstream[:, 0])
        return np.where(empty[:, None], Special.FINITE, super().special(problem, semantics)).astype(np.int8)

    def define(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        e = arithmetic.shifted_exp(problem.x)
        return arithmetic.lift(problem.upstream) * (e / arithmetic.row_sum(e))

    def factor(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        return arithmetic.lift(problem.upstream)

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        """|g| p_i (tau_i + u_s + 2 u): p_i from the exponentials, saved in the tensors' own format
        or not, or as exp(x_i - lse) with lse in the format of the arithmetic, which costs |lse| u;
        in 16 bits it costs |lse| roundings of those, and is refused.
        """
        rows, g = facts.rows, np.abs(facts.upstream)
        u, lost = numerics.arithmetic(target).unit_roundoff, underflow(numerics, target)
        errors = []
        for saved in saved_roundoffs(numerics, target):
            tau = relative_error(rows, recomputing(numerics), target) + 2 * u + saved
            error = g * (rows.probability * tau + lost) + stored_underflow(rows, numerics, target)
            errors.append(np.where(rows.x > -np.inf, np.where(tau < 0.5, error, np.inf), 0.0))
        return allowed(facts, errors[0], errors[1], numerics, target)


OP = LogSumExpBackward(LOG_SUM_EXP, summary="g p_i")
DOUBLE_BACKWARD = DoubleBackward(OP)


def backward(wrt: tuple[str, ...]) -> LogSumExpBackward:
    """The backward op. wrt: the inputs whose gradient is wanted: x."""
    return OP

"""Backward of log_softmax: dx_i = g_i - p_i sum_j g_j, g the upstream gradient. Bound:
docs/gradients.md, section 3.

At a logit of -inf p is 0 and dx_i = g_i, or 0 from kernels that leave it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from suite.formats import Format
from suite.numerics import Numerics
from suite.ops.arithmetic import Arithmetic
from suite.ops.double_backward import DoubleBackward
from suite.ops.log_softmax import OP as LOG_SOFTMAX
from suite.ops.log_softmax.bound import bound as log_softmax_bound
from suite.ops.row_backward import (
    GradientFacts,
    GradientRows,
    UnaryBackward,
    allowed,
    recomputing,
    saved_roundoffs,
    stored_underflow,
    sum_error,
    underflow,
)
from suite.ops.rows import Allowed
from suite.ops.softmax.bound import relative_error


class LogSoftmaxBackward(UnaryBackward):
    def define(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        e = arithmetic.shifted_exp(problem.x)
        g = arithmetic.lift(problem.upstream)
        return g - e / arithmetic.row_sum(e) * arithmetic.row_sum(g)

    def factor(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        g = arithmetic.lift(problem.upstream)
        return arithmetic.lift(np.zeros((1, 1))) - arithmetic.row_sum(g)

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        """p_i (tau_i |G| + the error of G + 2 u |G|) + 4 u |g_i|, G = sum_j g_j; p_i from the
        exponentials, or exp(x_i - lse), or from the result kept in the format of the arithmetic;
        p_i may be saved in the tensors' own format. A rounding of the result to 16 bits costs |log
        p_i| of those, and is refused.
        """
        rows, g, p = facts.rows, facts.upstream, facts.rows.probability
        u, lost = numerics.arithmetic(target).unit_roundoff, underflow(numerics, target)
        of_result = log_softmax_bound(rows, numerics, numerics.arithmetic(target)).absolute
        from_result = np.expm1(of_result + u * (rows.finite_gap + rows.log_total + 2 * numerics.exp_ulp))
        total, of_total = np.abs(g.sum(axis=1, keepdims=True)), sum_error(np.abs(g), u)
        errors = []
        for saved in saved_roundoffs(numerics, target):
            tau = np.maximum(relative_error(rows, recomputing(numerics), target), from_result) + 2 * u + saved
            error = (
                p * (tau * total + (1 + tau) * of_total)
                + lost * (total + of_total)
                + 4 * u * (np.abs(g) + p * total)
            )
            error = error + stored_underflow(rows, numerics, target)
            errors.append(np.where(rows.x > -np.inf, np.where(tau < 0.5, error, np.inf), 4 * u * np.abs(g)))
        found = allowed(facts, errors[0], errors[1], numerics, target)
        assert found.flush_below is not None
        return replace(found, flush_below=np.where(rows.x > -np.inf, found.flush_below, np.inf))


OP = LogSoftmaxBackward(LOG_SOFTMAX, summary="g_i - p_i sum_j g_j")
DOUBLE_BACKWARD = DoubleBackward(OP)


def backward(wrt: tuple[str, ...]) -> LogSoftmaxBackward:
    """The backward op. wrt: the inputs whose gradient is wanted: x."""
    return OP

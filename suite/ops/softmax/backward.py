"""Backward of softmax: dx_i = p_i (g_i - sum_j p_j g_j) / T, g the upstream gradient. Bound:
docs/gradients.md, section 2.

The hidden logit of off_by_one has a weight and no upstream gradient. -inf gives exactly 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suite.formats import Format
from suite.numerics import Numerics
from suite.ops.arithmetic import Arithmetic
from suite.ops.double_backward import DoubleBackward
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
from suite.ops.softmax import OP as SOFTMAX
from suite.ops.softmax.bound import relative_error


class SoftmaxBackward(UnaryBackward):
    def define(self, arithmetic: Arithmetic, problem: GradientRows) -> Any:
        e = arithmetic.shifted_exp(problem.x, problem.temperature)
        p = e / arithmetic.row_sum(e)
        g = arithmetic.lift(problem.upstream)
        dx = p * (g - arithmetic.row_sum(p * g)) / arithmetic.lift(np.array([[problem.temperature]]))
        return dx[:, : problem.shown.shape[1]]

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        """p_i (tau_i (|g_i| + |S|) + the error of S + (u_s + 4 u)(|g_i| + |S|)) / T, S = sum_j p_j
        g_j; tau_i is what softmax allows p_i relatively, or exp(x_i - lse) costs, and u_s a
        rounding to the format that P is saved in. Not
        |g_i - S|: autograd of an online form has g_i and S meet different exponentials of one logit.
        """
        rows, g, p = facts.rows, facts.upstream, facts.rows.probability
        u, lost = numerics.arithmetic(target).unit_roundoff, underflow(numerics, target)
        mean = (p * g).sum(axis=1, keepdims=True)
        terms, magnitude = p * np.abs(g), np.abs(g) + np.abs(mean)
        errors = []
        for saved in saved_roundoffs(numerics, target):
            tau = relative_error(rows, recomputing(numerics), target) + saved + u
            of_mean = (terms * (tau + u)).sum(axis=1, keepdims=True) + sum_error(terms, u)
            of_mean = of_mean + lost * np.abs(g).sum(axis=1, keepdims=True)
            error = p * ((tau + (1 + tau) * (saved + 4 * u)) * magnitude + (1 + tau) * of_mean) + lost * (
                magnitude + of_mean
            )
            error = error + stored_underflow(rows, numerics, target)
            error = np.where(rows.x > -np.inf, np.where(tau < 0.5, error, np.inf), 0.0)
            errors.append(rows.shown(error / rows.temperature * (1 + 4 * u)))
        return allowed(facts, errors[0], errors[1], numerics, target)


OP = SoftmaxBackward(SOFTMAX, summary="p_i (g_i - sum_j p_j g_j)")
DOUBLE_BACKWARD = DoubleBackward(OP)


def backward(wrt: tuple[str, ...]) -> SoftmaxBackward:
    """The backward op. wrt: the inputs whose gradient is wanted: x."""
    return OP

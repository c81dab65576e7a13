"""Backward of cross_entropy: dz_i = w (p_i sum_c t_c - t_i), t the smoothed target, w the upstream
gradient of the row's loss, over the count where the loss is a mean. Bound: docs/gradients.md,
section 5.

An ignored row gives exactly 0, whatever its logits and however few rows are left; a row whose loss
is NaN or infinite gives anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import CONTRACT, Numerics, Semantics
from suite.ops import UPSTREAM, Options
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.cross_entropy import OP as CROSS_ENTROPY
from suite.ops.cross_entropy import definition
from suite.ops.cross_entropy.definition import ClassRows
from suite.ops.double_backward import DoubleBackward
from suite.ops.log_softmax.bound import bound as log_softmax_bound
from suite.ops.row_backward import (
    GradientFacts,
    RowBackward,
    allowed,
    recomputing,
    saved_roundoffs,
    stored_underflow,
    sum_error,
    underflow,
)
from suite.ops.rows import Allowed
from suite.ops.softmax.bound import relative_error
from suite.ops.special import Special


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassGradientRows(ClassRows):
    """Logits with their targets and the upstream gradient of their row's loss, [rows, 1]; divisor:
    by which it is divided.
    """

    upstream: Array

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        return np.asarray(
            np.isfinite(self.x.max(axis=1, initial=-np.inf)) & self.kept & np.isfinite(self.upstream[:, 0])
        )

    def take(self, rows: NDArray[np.intp]) -> Self:
        return replace(super().take(rows), upstream=self.upstream[rows])

    def content(self) -> bytes:
        return super().content() + b"|" + np.ascontiguousarray(self.upstream).tobytes()

    def describe(self, row: int, column: int | None) -> str:
        own = replace(self, divisor=None)
        return f"{ClassRows.describe(own, row, column)}, upstream {float(self.upstream[row, 0])!r}"


@dataclass(frozen=True, eq=False)
class ClassGradientFacts(GradientFacts):
    """What the bound needs of targets beside the facts of every gradient."""

    share: Array
    """[rows, n]: the weight of each class with smoothing."""
    weight: Array
    """[rows, 1]: w."""
    divisor: int | None
    """Of w, or None."""
    smoothed: bool


class CrossEntropyBackward(RowBackward[ClassGradientRows, ClassGradientFacts]):
    def problem(self, inputs: Mapping[str, Array], options: Options) -> ClassGradientRows:
        rows = CROSS_ENTROPY.problem(inputs, options)
        upstream = np.asarray(inputs[UPSTREAM], dtype=np.float64).reshape(-1, 1)
        given: dict[str, Any] = {field.name: getattr(rows, field.name) for field in fields(rows)}
        return ClassGradientRows(**given, upstream=np.broadcast_to(upstream, (len(rows.x), 1)))

    def special(self, problem: ClassGradientRows, semantics: Semantics) -> NDArray[np.int8]:
        ordinary = (definition.special(problem) == Special.FINITE) & np.isfinite(problem.upstream)
        return np.broadcast_to(np.where(ordinary, Special.FINITE, Special.ANYTHING), problem.x.shape).astype(
            np.int8
        )

    def facts(self, problem: ClassGradientRows) -> ClassGradientFacts:
        ordinary = problem.ordinary & (self.special(problem, CONTRACT)[:, 0] == Special.FINITE)
        upstream = np.where(np.isfinite(problem.upstream), problem.upstream, 0.0)
        safe = replace(problem, x=np.where(ordinary[:, None], problem.x, 0.0), upstream=upstream)
        of_loss = definition.facts(problem)
        weight = upstream / (problem.divisor or 1)
        return ClassGradientFacts(
            of_loss.rows,
            upstream,
            self.define(Float64(), safe),
            ordinary,
            of_loss.share,
            weight,
            problem.divisor,
            problem.smoothing > 0,
        )

    def define(self, arithmetic: Arithmetic, problem: ClassGradientRows) -> Any:
        e = arithmetic.shifted_exp(problem.x)
        p = e / arithmetic.row_sum(e)
        one, smoothing, classes, divisor = (
            arithmetic.lift(np.array([[float(v)]]))
            for v in (1.0, problem.smoothing, problem.x.shape[1], problem.divisor or 1)
        )
        target = arithmetic.lift(problem.weights)
        if problem.smoothing > 0:
            target = (one - smoothing) * target + smoothing / classes
        return arithmetic.lift(problem.upstream) / divisor * (p * arithmetic.row_sum(target) - target)

    def factor(self, arithmetic: Arithmetic, problem: ClassGradientRows) -> Any:
        g = arithmetic.lift(problem.upstream)
        one, smoothing, divisor = (
            arithmetic.lift(np.array([[float(v)]])) for v in (1.0, problem.smoothing, problem.divisor or 1)
        )
        total = arithmetic.row_sum(arithmetic.lift(problem.weights * problem.kept[:, None]))
        if problem.smoothing > 0:
            total = (one - smoothing) * total + smoothing * arithmetic.lift(
                problem.kept[:, None].astype(np.float64)
            )
        return g / divisor * total

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: ClassGradientFacts, numerics: Numerics, target: Format) -> Allowed:
        """|w| (p_i T (tau_i + sigma u + r u_s + 6 u) + t_i (r u_s + 8 u)), T = sum_c t_c. r: the
        gradient of the log-probabilities may pass through the tensors' own format, in which w, a
        count that it does not hold, and a share are rounded; and 2 u_s |dz_i|, as dz may be
        computed in the forward and stored until the upstream is there.
        """
        rows, t, w = facts.rows, facts.share, np.abs(facts.weight)
        u, lost = numerics.arithmetic(target).unit_roundoff, underflow(numerics, target)
        of_result = log_softmax_bound(rows, numerics, numerics.arithmetic(target)).absolute
        from_result = np.expm1(of_result + u * (rows.finite_gap + rows.log_total + 2 * numerics.exp_ulp))
        tau = np.maximum(relative_error(rows, recomputing(numerics), target), from_result)
        total = t.sum(axis=1, keepdims=True)
        mean = facts.divisor not in (None, 1)
        inexact = mean and float(target.round(np.array([float(facts.divisor or 1)]))[0]) != facts.divisor
        roundings = int(mean) + int(inexact) + 2 * int(facts.smoothed)
        p = rows.probability
        errors = []
        for once in saved_roundoffs(numerics, target):
            saved = roundings * once
            error = p * (total * (tau + saved + 6 * u) + sum_error(t, u)) + t * (saved + 8 * u) + lost * total
            error = error + stored_underflow(rows, numerics, target)
            error = np.where(rows.x > -np.inf, np.where(tau < 0.5, error, np.inf), t * (saved + 8 * u))
            errors.append(w * error + 2 * once * np.abs(facts.exact))
        rounded = np.where(total > 0, target.smallest_subnormal, 0.0)
        return allowed(facts, errors[0] + rounded, errors[1], numerics, target)


OP = CrossEntropyBackward(CROSS_ENTROPY, summary="w (p_i sum_c t_c - t_i)")
DOUBLE_BACKWARD = DoubleBackward(OP)


def backward(wrt: tuple[str, ...]) -> CrossEntropyBackward:
    """The backward op. wrt: the inputs whose gradient is wanted: logits."""
    return OP

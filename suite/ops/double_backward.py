"""Double backward of the row-wise ops: the gradient of <h, dx>, dx a gradient of the first
backward, h a further upstream.

With weights p, means under them H = sum p h, S = sum p g and C = sum p (h - H)(g - S), g the
upstream of the forward:

    softmax         p_k ((h_k - H)(g_k - S) - C) / T^2
    log_softmax     -G p_k (h_k - H),    G = sum g
    logsumexp       g p_k (h_k - H)
    cross_entropy   w T p_k (h_k - H)    (w, T: suite/ops/cross_entropy/backward.py)

Bound: docs/gradients.md, section 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics, Semantics
from suite.ops import SECOND, Options, Shapes
from suite.ops.arithmetic import Arithmetic, Float64
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
from suite.ops.row_op import RowProblem, as_rows
from suite.ops.rows import Allowed, RowFacts
from suite.ops.softmax.bound import relative_error
from suite.ops.special import Special


@dataclass(frozen=True, eq=False)
class Twice:
    """The problem of the first backward, and h [rows, n], 0 at hidden logits."""

    first: RowProblem
    second: Array

    @property
    def x(self) -> Array:
        return self.first.x

    @property
    def shown(self) -> Array:
        return self.first.shown

    @property
    def ordinary(self) -> NDArray[np.bool_]:
        return self.first.ordinary

    def take(self, rows: NDArray[np.intp]) -> Self:
        return replace(self, first=self.first.take(rows), second=self.second[rows])

    def content(self) -> bytes:
        return self.first.content() + b"|second|" + np.ascontiguousarray(self.second).tobytes()

    def describe(self, row: int, column: int | None) -> str:
        return f"{self.first.describe(row, column)}, second upstream {float(self.second[row, column or 0])!r}"


@dataclass(frozen=True, eq=False)
class TwiceFacts(GradientFacts):
    """What the bound needs beside the facts of the first gradient."""

    factor: Array | None
    """[rows, 1]: what stands before p_k (h_k - H), in magnitude; None of softmax."""
    second: Array
    """h."""


class DoubleBackward(RowBackward[Twice, TwiceFacts]):
    """Of one op, by its first backward."""

    def __init__(self, first: RowBackward[Any, Any]) -> None:
        super().__init__(first.forward, summary=f"the gradient of <h, {first.summary}>")
        self.first = first
        self.name = f"{first.forward.name} double backward"
        self.arguments = (*first.arguments, SECOND)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        if shapes[SECOND] != shapes[self.wrt]:
            raise ValueError(
                f"{SECOND} has shape {list(shapes[SECOND])}; expected that of {self.wrt},"
                f" {list(shapes[self.wrt])}"
            )
        return super().check_options(options, shapes)

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Twice:
        first = self.first.problem(inputs, options)
        second = as_rows(np.asarray(inputs[SECOND]), self.axis(options, inputs[SECOND].shape))
        return Twice(
            first,
            np.concatenate([second, np.zeros((len(second), first.x.shape[1] - second.shape[1]))], axis=1),
        )

    def special(self, problem: Twice, semantics: Semantics) -> NDArray[np.int8]:
        codes = self.first.special(problem.first, semantics)
        return np.where(problem.ordinary[:, None], codes, Special.ANYTHING).astype(np.int8)

    def facts(self, problem: Twice) -> TwiceFacts:
        first: GradientFacts = self.first.facts(problem.first)
        safe: Any = replace(problem.first, x=np.where(first.ordinary[:, None], problem.x, 0.0))  # type: ignore[type-var]
        exact = self.define(Float64(), Twice(safe, problem.second))
        factor = self.first.factor(Float64(), safe)
        return TwiceFacts(
            first.rows,
            first.upstream,
            exact,
            first.ordinary,
            None if factor is None else np.abs(factor),
            problem.second,
        )

    def scores(self, facts: TwiceFacts) -> RowFacts:
        return self.first.scores(facts)

    def define(self, arithmetic: Arithmetic, problem: Twice) -> Any:
        first: Any = problem.first
        e = arithmetic.shifted_exp(first.x, first.temperature)
        p, h = e / arithmetic.row_sum(e), arithmetic.lift(problem.second)
        centred = h - arithmetic.row_sum(p * h)
        factor = self.first.factor(arithmetic, first)
        if factor is not None:
            return factor * p * centred
        g = arithmetic.lift(first.upstream)
        product = centred * (g - arithmetic.row_sum(p * g))
        temperature = arithmetic.lift(np.array([[first.temperature]]))
        result = p * (product - arithmetic.row_sum(p * product)) / temperature / temperature
        return result[:, : problem.shown.shape[1]]

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def bound(self, facts: TwiceFacts, numerics: Numerics, target: Format) -> Allowed:
        """p_k ((tau_k + 16 u + 4 u_s) M_k + the same of all, weighted) and its underflow, M_k what
        the products may be.
        """
        rows, h, p = facts.rows, np.abs(facts.second), facts.rows.probability
        u, lost = numerics.arithmetic(target).unit_roundoff, underflow(numerics, target)
        own = numerics if facts.factor is None else recomputing(numerics)
        magnitude = h + (p * h).sum(axis=1, keepdims=True)
        if facts.factor is None:
            g = np.abs(facts.upstream)
            magnitude = magnitude * (g + (p * g).sum(axis=1, keepdims=True)) / rows.temperature**2
        else:
            sums = sum_error(np.broadcast_to(np.abs(facts.upstream), (len(p), facts.upstream.shape[1])), u)
            magnitude = magnitude * (facts.factor + sums)
        terms = p * magnitude
        errors = []
        for saved in saved_roundoffs(numerics, target):
            tau = relative_error(rows, own, target) + 16 * u + 4 * saved
            of_sums = (terms * tau).sum(axis=1, keepdims=True) + 4 * sum_error(terms, u)
            of_sums = of_sums + lost * magnitude.sum(axis=1, keepdims=True)
            error = p * (tau * magnitude + of_sums) * (1 + tau) + lost * (
                magnitude + terms.sum(axis=1, keepdims=True)
            )
            error = error + stored_underflow(rows, numerics, target)
            error = np.where(rows.x > -np.inf, np.where(tau < 0.5, error, np.inf), 0.0)
            errors.append(rows.shown(error))
        return allowed(facts, errors[0], errors[1], numerics, target)

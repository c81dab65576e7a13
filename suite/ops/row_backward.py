"""Backward of the row-wise ops: from logits and the upstream gradient of the output to the gradient
of the logits.

A backward op is an op like any other: its inputs are those of its forward op and `upstream`, its
output is the gradient of the logits. What its bound admits is in docs/gradients.md: arithmetic in
float32 for tensors of 16 bits, and saved tensors in the tensors' own format where that costs a
relative rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics, Semantics
from suite.ops import UPSTREAM, AnyOp, Options, Shapes
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.backward_op import BackwardOp
from suite.ops.row_op import RowProblem, as_rows, index_of
from suite.ops.rows import Allowed, RowFacts, Rows
from suite.ops.special import Special


@dataclass(frozen=True, eq=False)
class GradientFacts:
    """The ingredients of the bound of a gradient of rows."""

    rows: RowFacts
    """Of the logits."""
    upstream: Array
    """[rows, n] or [rows, 1]."""
    exact: Array
    """[rows, n]: the gradient in float64."""
    ordinary: NDArray[np.bool_]
    """[rows]: whether the row has a value to compute; where not, its gradient is exactly 0, or anything."""

    @property
    def x(self) -> Array:
        return self.rows.x


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientRows(Rows):
    """Logits with the upstream gradient of their row, [rows, n] (0 at hidden logits) or [rows, 1]."""

    upstream: Array

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        return np.asarray(
            np.isfinite(self.x.max(axis=1, initial=-np.inf)) & np.isfinite(self.upstream).all(axis=1)
        )

    def take(self, rows: NDArray[np.intp]) -> Self:
        return replace(self, x=self.x[rows], upstream=self.upstream[rows])

    def safe(self) -> Self:
        """With zeros in rows that have no gradient to compute."""
        ordinary = self.ordinary[:, None]
        return replace(
            self, x=np.where(ordinary, self.x, 0.0), upstream=np.where(ordinary, self.upstream, 0.0)
        )

    def content(self) -> bytes:
        return super().content() + b"|" + np.ascontiguousarray(self.upstream).tobytes()

    def describe(self, row: int, column: int | None) -> str:
        own = self.upstream[row, column if column is not None and self.upstream.shape[1] > 1 else 0]
        return f"{super().describe(row, column)}, upstream {float(own)!r} there"


RowProblemT = TypeVar("RowProblemT", bound=RowProblem)
GradientFactsT = TypeVar("GradientFactsT", bound=GradientFacts)


class RowBackward(BackwardOp[RowProblemT, GradientFactsT]):
    """Backward of an op of rows: the gradient of its logits."""

    def __init__(self, forward: AnyOp, *, summary: str) -> None:
        logits = forward.arguments[0]
        super().__init__(forward, logits, (logits,), name=f"{forward.name} backward", summary=summary)

    def part(self, wrt: str) -> Self:
        raise ValueError(f"{self.name} has one output, the gradient of {self.wrt}")

    def special(self, problem: RowProblemT, semantics: Semantics) -> NDArray[np.int8]:
        """A row whose value, or upstream, is NaN or infinite has no gradient to judge."""
        codes = np.where(problem.ordinary[:, None], Special.FINITE, Special.ANYTHING)
        return np.broadcast_to(codes, problem.shown.shape).astype(np.int8)

    def scores(self, facts: GradientFactsT) -> RowFacts:
        """Of twice the logits and the logarithm of the upstream: the way back has products of it
        with exponentials over the square of their sum.
        """
        rows = facts.rows
        largest = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            upstream = np.minimum(np.abs(facts.upstream).sum(axis=1, keepdims=True), largest)
            doubled = np.clip(2 * rows.x + np.log(np.maximum(upstream, 1.0)), -largest, largest)
        return RowFacts.of(
            np.where(rows.x > -np.inf, doubled, -np.inf), temperature=rows.temperature, hidden=rows.hidden
        )

    def output_rows(self, output: NDArray[Any], problem: RowProblemT, options: Options) -> NDArray[Any]:
        return as_rows(output, self.axis(options, output.shape))

    def output_index(
        self, row: int, column: int, problem: RowProblemT, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        shape = shapes[self.wrt]
        return index_of(row, column, shape, self.axis(options, shape))

    def factor(self, arithmetic: Arithmetic, problem: RowProblemT) -> Any:
        """[rows, 1]: what stands before p_k (h_k - H) in the gradient of <h, dx>
        (suite/ops/double_backward.py); None where that has another form.
        """
        return None


class UnaryBackward(RowBackward[GradientRows, GradientFacts]):
    """Backward of an op of one tensor x."""

    def problem(self, inputs: Mapping[str, Array], options: Options) -> GradientRows:
        rows = self.forward.problem(inputs, options)
        upstream = self.forward.output_rows(np.asarray(inputs[UPSTREAM]), rows, options)
        if rows.hidden:  # a hidden logit has a weight and no upstream gradient
            upstream = np.concatenate([upstream, np.zeros((len(rows.x), rows.hidden))], axis=1)
        return GradientRows(rows.x, temperature=rows.temperature, hidden=rows.hidden, upstream=upstream)

    def facts(self, problem: GradientRows) -> GradientFacts:
        safe = problem.safe()
        exact = self.define(Float64(), safe) if safe.x.shape[1] else np.zeros(safe.shown.shape)
        return GradientFacts(problem.facts(), safe.upstream, exact, problem.ordinary)


def saved_roundoffs(numerics: Numerics, target: Format) -> tuple[float, float]:
    """u of tensors that are saved for the backward in the tensors' own format, 0 where that is the
    arithmetic's; of all that is stored, where a kernel declares it: some four tensors then. And the
    same where there is a way back through a maximum: only a backward that is written by hand saves
    in the tensors' format, and it has none.
    """
    stored = numerics.format_of("probabilities", target)
    if stored is not None:
        return 4 * stored.unit_roundoff, 4 * stored.unit_roundoff
    return target.unit_roundoff if target.bits < numerics.arithmetic(target).bits else 0.0, 0.0


def recomputing(numerics: Numerics) -> Numerics:
    """These numerics of a kernel that recomputes its weights as exp(x - lse), lse in the format of
    the arithmetic.
    """
    return replace(numerics, shift="lse") if numerics.shift in ("row_max", "folded") else numerics


def underflow(numerics: Numerics, target: Format) -> float:
    """What a probability may lose by underflow: to 0 below the normal numbers of the arithmetic
    (twice, as torch's vectorised exp on CPU ends just above them), and to a subnormal or 0 where it
    is saved in the tensors' own format.
    """
    arithmetic = numerics.arithmetic(target)
    saved = target.smallest_subnormal if target.bits < arithmetic.bits else 0.0
    return 2 * arithmetic.smallest_normal + saved


def stored_underflow(facts: RowFacts, numerics: Numerics, target: Format) -> Array:
    """[rows, n]: what the gradient of an exponential e_i may lose by underflow where it is declared
    to be stored, times e_i.
    """
    stored = numerics.format_of("probabilities", target)
    if stored is None:
        return np.zeros(facts.x.shape)
    unshifted = numerics.shift == "none"
    e = (
        np.exp(np.where(facts.x > -np.inf, facts.x, -np.inf) / facts.temperature)
        if unshifted
        else facts.exponential
    )
    return np.asarray((3 + facts.x.shape[1]) * stored.smallest_subnormal * e)


def sum_error(terms: Array, unit_roundoff: float) -> Array:
    """[rows, 1]: what a sum of terms of these magnitudes [rows, n] may lose in any order: each
    addition u times its result, and no more than its smaller operand.
    """
    total = terms.sum(axis=1, keepdims=True)
    lost = np.minimum(terms, unit_roundoff * total).sum(axis=1, keepdims=True)
    return np.asarray(np.minimum(lost, unit_roundoff * np.maximum(terms.shape[1] - 1, 0) * total))


def allowed(
    facts: GradientFacts, error: Array, of_arithmetic: Array, numerics: Numerics, target: Format
) -> Allowed:
    """error [rows, n] with what every backward may add: what is left of the gradient through
    maxima, and a subnormal. of_arithmetic: the error of a kernel that saves nothing in the tensors'
    own format.

    A maximum that is subtracted has an exact gradient of 0. Autograd computes it, where it is not
    detached, as a sum over the entries of its tile, none of which is larger than itself: so each
    entry may get the errors of all that are not larger, and the rounding of their sum.
    """
    arithmetic = numerics.arithmetic(target)
    rows = facts.rows
    x = rows.shown(rows.x)
    own = np.where(x > -np.inf, of_arithmetic + arithmetic.unit_roundoff * np.abs(facts.exact), 0.0)
    error = error + np.where(x > -np.inf, 2 * _not_larger(own, x), 0.0)
    steps = (
        2 + error.shape[1]
    ) ** 2  # a product may round to a subnormal: n rescales on the way, and n terms of a maximum
    absolute = error * (1 + 2.0**-20) + np.where(
        (x > -np.inf) | (error > 0), steps * arithmetic.smallest_subnormal, 0.0
    )
    absolute = np.where(facts.ordinary[:, None], absolute, 0.0)
    flush_below = np.full(absolute.shape, arithmetic.smallest_normal)
    return Allowed(np.where(np.isnan(absolute), np.inf, absolute), flush_below)


def _not_larger(error: Array, x: Array) -> Array:
    """[rows, n]: of each entry, the sum of the errors at entries whose logit is not larger."""
    order = np.argsort(x, axis=1, kind="stable")
    ordered, sums = (
        np.take_along_axis(x, order, axis=1),
        np.cumsum(np.take_along_axis(error, order, axis=1), axis=1),
    )
    last = np.ones(x.shape, dtype=bool)  # of equal logits
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    sums = np.minimum.accumulate(np.where(last, sums, np.inf)[:, ::-1], axis=1)[:, ::-1]
    result = np.empty(x.shape)
    np.put_along_axis(result, order, sums, axis=1)
    return result

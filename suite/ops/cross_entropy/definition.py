"""cross_entropy of a row of logits z with the class weights w of its target, smoothed by e over n classes:

    loss = (1 - e) sum_c w_c l_c + (e / n) sum_c l_c,    l_c = log sum_j exp(z_j) - z_c = (m - z_c) +
        log sum_j exp(z_j - m)

w is one-hot for a class index, or given (class probabilities). A class of weight 0 takes no part,
whatever its logit.

Special values: an ignored row is exactly 0, whatever its logits; a row with NaN, or all -inf, is
NaN; a row with +inf is NaN, or inf from kernels that subtract from an infinite sum; weight on a
logit of -inf gives inf. Reductions: a NaN row makes the result NaN, an infinite one makes it inf;
the mean over no row is NaN (0 / 0), the sum over none is 0.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops import Values
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import RowFacts, Rows
from suite.ops.special import Special

LARGEST_FLOAT64 = Fraction(sys.float_info.max)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassRows(Rows):
    """Logits with their targets."""

    weights: Array
    """[rows, n], before smoothing."""
    kept: NDArray[np.bool_]
    """[rows]: False for an ignored row."""
    smoothing: float
    divisor: int | None
    """By which the sum of the losses is divided, None where the losses are not reduced."""

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.x.max(axis=1, initial=-np.inf)) & self.kept)

    def take(self, rows: NDArray[np.intp]) -> Self:
        return replace(self, x=self.x[rows], weights=self.weights[rows], kept=self.kept[rows])

    def content(self) -> bytes:
        parts = (np.ascontiguousarray(self.weights).tobytes(), self.kept.tobytes())
        return b"|".join([super().content(), *parts, f"{self.smoothing!r}|{self.divisor}".encode()])

    def describe(self, row: int, column: int | None) -> str:
        if self.divisor is not None:
            return f"{len(self.x)} rows of {self.x.shape[1]} classes, {int(self.kept.sum())} of them kept"
        if not self.kept[row]:
            return f"an ignored row; {super().describe(row, None)}"
        weights, target = self.weights[row], int(self.weights[row].argmax())
        what = (
            f"target {target}"
            if np.count_nonzero(weights) == 1
            else f"{np.count_nonzero(weights)} classes with weight"
        )
        return f"{what}, x = {float(self.x[row, target])!r} there, in {super().describe(row, None)}"


@dataclass(frozen=True)
class ClassFacts:
    """Facts of the rows, and what the bound needs of their targets."""

    rows: RowFacts
    share: Array
    """[rows, n]: the weight of each class with smoothing; 0 for an ignored row."""
    loss: Array
    """[rows, 1], in float64."""
    spread: Array
    """[rows, 1]: the sum of the surprisals of all classes where they are smoothed, else 0."""
    divisor: int | None

    @property
    def x(self) -> Array:
        return self.rows.x

    @property
    def terms(self) -> Array:
        """[rows, n]: share * l, of which a loss is the sum."""
        return np.asarray(
            np.where(self.share > 0, self.share * (self.rows.finite_gap + self.rows.log_total), 0.0)
        )


def facts(problem: ClassRows) -> ClassFacts:
    rows = RowFacts.of(np.where(problem.ordinary[:, None], problem.x, 0.0))
    share = (1 - problem.smoothing) * problem.weights + problem.smoothing / max(problem.x.shape[1], 1)
    share = np.where(problem.kept[:, None], share, 0.0)
    none = np.zeros((len(share), 1))
    found = ClassFacts(rows, share, none, none, problem.divisor)
    with np.errstate(over="ignore"):
        loss = found.terms.sum(axis=1, keepdims=True)
        surprisals = np.where(share > 0, rows.finite_gap + rows.log_total, 0.0).sum(axis=1, keepdims=True)
    return replace(found, loss=loss, spread=surprisals if problem.smoothing > 0 else none)


def define(arithmetic: Arithmetic, problem: ClassRows) -> Any:
    """The loss of each row, [rows, 1], in the numbers of `arithmetic`; largest logits finite, rows kept."""
    log_total = arithmetic.log(arithmetic.row_sum(arithmetic.shifted_exp(problem.x)))
    surprisal = log_total - arithmetic.shifted(problem.x)
    one, smoothing, classes = (
        arithmetic.lift(np.array([[v]])) for v in (1.0, problem.smoothing, float(problem.x.shape[1]))
    )
    targeted = arithmetic.row_sum(arithmetic.lift(problem.weights) * surprisal)
    if problem.smoothing == 0:
        return targeted
    return (one - smoothing) * targeted + smoothing / classes * arithmetic.row_sum(surprisal)


def special(problem: ClassRows) -> NDArray[np.int8]:
    """[rows, 1]: which kind of value the loss of each row is."""
    largest = problem.x.max(axis=1, initial=-np.inf)
    weighted = (problem.weights > 0) | (problem.smoothing > 0)
    beyond = (weighted & (problem.x == -np.inf)).any(axis=1)
    code = np.where(beyond, Special.POSITIVE_INFINITY, Special.FINITE)
    code = np.where(largest == np.inf, Special.NAN_OR_POSITIVE_INFINITY, code)
    code = np.where(np.isnan(largest) | (largest == -np.inf), Special.NAN, code)
    return np.where(problem.kept, code, Special.FINITE).astype(np.int8)[:, None]


def reduce(problem: ClassRows, rows: Values) -> Values:
    """The sum of the losses over the divisor, exactly, as one row; the losses themselves where they
    are not reduced.
    """
    if problem.divisor is None:
        return rows
    codes = {int(code) for code in rows.special[:, 0]}
    code = next(
        (c for c in (Special.NAN, Special.NAN_OR_POSITIVE_INFINITY, Special.POSITIVE_INFINITY) if c in codes),
        Special.FINITE,
    )
    if problem.divisor == 0:
        code = Special.NAN
    hi = lo = radius = 0.0
    if code == Special.FINITE:
        exact = _sum(rows.hi[:, 0], rows.lo[:, 0]) / problem.divisor
        if exact > LARGEST_FLOAT64:
            hi = math.inf  # larger than every float64, and certainly so: infinity is its rounding
        else:
            hi = float(exact)
            lo = float(exact - Fraction(hi))
            radius = float(rows.radius.sum()) / problem.divisor * (1 + 2.0**-40) + 2.0**-100 * abs(hi)
    return Values(np.array([[hi]]), np.array([[lo]]), np.array([[radius]]), np.array([[code]], dtype=np.int8))


def _sum(hi: Array, lo: Array) -> Fraction:
    """The exact sum of all values. fsum rounds once, and once more what that lost, which it leaves
    exact to 2^-100.
    """
    terms = [*hi.tolist(), *lo.tolist()]
    try:
        total = math.fsum(terms)
    except OverflowError:
        return sum((Fraction(term) for term in terms), Fraction(0))
    return Fraction(total) + Fraction(math.fsum([*terms, -total]))

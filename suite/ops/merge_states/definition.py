"""Merging two attention states, each an output o over some keys and the log-sum-exp of their scores:

    lse = log(exp(lse_a) + exp(lse_b)),   o = exp(lse_a - lse) o_a + exp(lse_b - lse) o_b

(FlashAttention-2, Dao 2023, section 3.1; Flash-Decoding, 2023.) A state with lse = -inf weighs
nothing, whatever finite numbers its o holds; two of them give o = 0 and lse = -inf. NaN or +inf in
a log-sum-exp gives NaN, in lse +inf too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import RowFacts
from suite.ops.special import Special


@dataclass(frozen=True, eq=False)
class States:
    """Pairs of states."""

    x: Array
    """[rows, 2]: their log-sum-exps."""
    value: Array
    """[rows, 2, E]: their outputs."""

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""
        return replace(self, x=self.x[rows], value=self.value[rows])

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        """[rows]: whether the larger log-sum-exp is finite, so that the row has something to compute."""
        return np.asarray(np.isfinite(self.x.max(axis=1)))

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""
        arrays = (self.x, self.value)
        return f"{self.value.shape}|".encode() + b"|".join(
            np.ascontiguousarray(array).tobytes() for array in arrays
        )

    def describe(self, row: int, column: int | None) -> str:
        lse_a, lse_b = (float(lse) for lse in self.x[row])
        return f"lse_a = {lse_a!r}, lse_b = {lse_b!r}"


@dataclass(frozen=True, eq=False)
class StateFacts:
    """The ingredients of the bounds: the facts of the log-sum-exps as scores, and the outputs."""

    rows: RowFacts
    value: Array

    @property
    def x(self) -> Array:
        return self.rows.x


def facts(problem: States) -> StateFacts:
    rows = RowFacts.of(np.where(problem.ordinary[:, None], problem.x, 0.0))
    weighed = (rows.probability > 0)[:, :, None] & np.isfinite(problem.value)
    return StateFacts(rows, np.where(weighed, problem.value, 0.0))


def define(arithmetic: Arithmetic, problem: States) -> Any:
    """[rows, E]: o of pairs with a finite larger log-sum-exp, in the numbers of `arithmetic`."""
    weight = arithmetic.shifted_exp(problem.x)
    value = arithmetic.lift(
        np.where(np.isfinite(problem.value) & (problem.x > -np.inf)[:, :, None], problem.value, 0.0)
    )
    return (weight[:, :1] * value[:, 0] + weight[:, 1:] * value[:, 1]) / arithmetic.row_sum(weight)


def special(problem: States) -> NDArray[np.int8]:
    """[rows, E]: which kind of value the definition of o has at each position."""
    largest = problem.x.max(axis=1)[:, None]
    weighed = (problem.x > -np.inf)[:, :, None]
    has_nan = (weighed & np.isnan(problem.value)).any(axis=1)
    above, below = ((weighed & (problem.value == sign * np.inf)).any(axis=1) for sign in (1, -1))
    code = np.where(
        above,
        Special.NAN_OR_POSITIVE_INFINITY,
        np.where(below, Special.NAN_OR_NEGATIVE_INFINITY, Special.FINITE),
    )
    code = np.where(has_nan | (above & below), Special.NAN, code)
    return np.where(np.isnan(largest) | (largest == np.inf), Special.NAN, code).astype(np.int8)


def special_log_sum_exp(problem: States) -> NDArray[np.int8]:
    """[rows, 1]: which kind of value the definition of lse has for each pair."""
    largest = problem.x.max(axis=1)[:, None]
    code = np.where(largest == -np.inf, Special.NEGATIVE_INFINITY, Special.FINITE)
    code = np.where(largest == np.inf, Special.NAN_OR_POSITIVE_INFINITY, code)
    return np.where(np.isnan(largest), Special.NAN, code).astype(np.int8)

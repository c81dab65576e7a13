"""Backward of merge_states: from the gradients dO of the merged output and dlse of the merged
log-sum-exp (0 where it is not given) to those of both states. With p_j = exp(lse_j - lse), j one of
a and b:

    do_j = p_j dO,   dlse_j = p_j (dO.(o_j - o) + dlse)

A state with lse = -inf has gradients of exactly 0, and so have two of them. A pair whose merged
output or log-sum-exp, whose upstream gradient or one of whose outputs is not finite has no gradient
to judge, except that of two states of -inf.

Bound (docs/gradients.md), first order. With A_j = |dO|.|o_j|, Abar = sum_j p_j A_j, x_j = dO.(o_j -
o) + dlse:

    weights   phi_j = 2.25 u D_j + 6 u [D_j > 0] + 2 u |m| + tau + u (3 |lse| + 3.25 ln s + ...)
              (D: gaps, m: larger lse)
    do_j      p_j (e^phi_j - 1 + 3 u) |dO|
    dlse_j    p_j (e^phi_j - 1) |x_j| + p_j (delta + u (E + 8) (A_j + Abar + |dlse|))
              delta = sum_l p_l (e^phi_l - 1) (A_l + Abar) and for the larger lse the errors of
              both: autograd through the maximum, whose gradient is exactly 0
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics, Semantics
from suite.ops import UPSTREAM, Options, Shapes
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.backward_op import BackwardOp, check_wanted
from suite.ops.merge_states import OP as MERGE
from suite.ops.merge_states import definition
from suite.ops.merge_states.bound import bound_of_log_sum_exp
from suite.ops.merge_states.definition import StateFacts, States
from suite.ops.rows import Allowed, RowFacts
from suite.ops.special import Special

UPSTREAM_LSE = "upstream_lse"


@dataclass(frozen=True, eq=False)
class Pairs(States):
    """Pairs of states with the gradients of what they become: upstream [rows, E], upstream_lse [rows, 1]."""

    upstream: Array
    upstream_lse: Array

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""
        taken = {name: getattr(self, name)[rows] for name in ("x", "value", "upstream", "upstream_lse")}
        return replace(self, **taken)

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""
        arrays = (self.upstream, self.upstream_lse)
        return b"|".join([super().content(), *(np.ascontiguousarray(array).tobytes() for array in arrays)])


def define(arithmetic: Arithmetic, problem: Pairs) -> tuple[Any, Any]:
    """p_j [rows, 2] and dlse_j [rows, 2] of pairs with a finite larger log-sum-exp, in the numbers
    of `arithmetic`.
    """
    weight = arithmetic.shifted_exp(problem.x)
    p = weight / arithmetic.row_sum(weight)
    value = arithmetic.lift(
        np.where(np.isfinite(problem.value) & (problem.x > -np.inf)[:, :, None], problem.value, 0.0)
    )
    upstream = arithmetic.lift(problem.upstream)
    apart = arithmetic.row_sum(upstream * (value[:, 0] - value[:, 1]))  # o_a - o = p_b (o_a - o_b)
    others = np.concatenate([p[:, 1:] * apart, -p[:, :1] * apart], axis=1)
    return p, p * (others + arithmetic.lift(problem.upstream_lse))


@dataclass(frozen=True, eq=False)
class PairFacts:
    """The ingredients of the bound: the facts of the states as pairs with the gradients of what
    they become.
    """

    states: StateFacts
    problem: Pairs

    @property
    def x(self) -> Array:
        return self.states.x


class MergeStatesBackward(BackwardOp[Pairs, PairFacts]):
    """The gradient of one state's output, [B, H, L, E], or log-sum-exp, [B, H, L]."""

    def __init__(self, wrt: str, wanted: tuple[str, ...]) -> None:
        super().__init__(MERGE, wrt, wanted, name=f"merge_states backward {wrt}", summary=SUMMARIES[wrt])
        self._side, self._of_output = int(wrt.endswith("b")), wrt.startswith("o")

    def part(self, wrt: str) -> MergeStatesBackward:
        return _part(wrt, self.wrt_of_call)

    def input_format(self, name: str, format: Format) -> Format:
        return compute_format(format) if name == UPSTREAM_LSE else MERGE.input_format(name, format)

    def output_format(self, format: Format) -> Format:
        return MERGE.input_format(self.wrt, format)

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Pairs:
        states = MERGE.problem(inputs, options)
        upstream = inputs[UPSTREAM].reshape(len(states.x), -1)
        upstream_lse = inputs.get(UPSTREAM_LSE, np.zeros(len(upstream))).reshape(-1, 1)
        return Pairs(states.x, states.value, upstream, upstream_lse)

    def special(self, problem: Pairs, semantics: Semantics) -> NDArray[np.int8]:
        finite = np.isfinite(problem.value).all(axis=(1, 2)) & np.isfinite(problem.upstream).all(axis=1)
        largest = problem.x.max(axis=1)
        clean = (finite & np.isfinite(problem.upstream_lse[:, 0]) & np.isfinite(largest)) | (
            largest == -np.inf
        )
        width = problem.value.shape[2] if self._of_output else 1
        return np.broadcast_to(
            np.where(clean, Special.FINITE, Special.ANYTHING)[:, None], (len(clean), width)
        ).astype(np.int8)

    def facts(self, problem: Pairs) -> PairFacts:
        finite = {
            name: np.where(np.isfinite(tensor := getattr(problem, name)), tensor, 0.0)
            for name in ("upstream", "upstream_lse")
        }
        return PairFacts(definition.facts(problem), replace(problem, **finite))

    def scores(self, facts: PairFacts) -> RowFacts:
        return facts.states.rows

    def define(self, arithmetic: Arithmetic, problem: Pairs) -> Any:
        safe = self.facts(problem).problem
        p, d_lse = define(arithmetic, safe)
        own = slice(self._side, self._side + 1)
        return p[:, own] * arithmetic.lift(safe.upstream) if self._of_output else d_lse[:, own]

    @np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
    def bound(self, facts: PairFacts, numerics: Numerics, target: Format) -> Allowed:
        arithmetic, rows, problem = numerics.arithmetic(target), facts.states.rows, facts.problem
        u, tiny, width = arithmetic.unit_roundoff, arithmetic.smallest_subnormal, problem.value.shape[2]
        stored = numerics.format_of("probabilities", target)
        error = 2 * numerics.exp_ulp
        phi = u * (2.25 * rows.finite_gap + error * (rows.gap > 0) + 2 * np.abs(rows.maximum))
        phi = phi + bound_of_log_sum_exp(facts.states, numerics, target).absolute
        phi = phi + u * (3 * np.abs(rows.log_sum_exp) + 3.25 * rows.log_total + error + 4)
        phi = phi + (2 * stored.unit_roundoff if stored is not None else 0.0)
        sees = rows.x > -np.inf
        p = np.where(sees, rows.probability, 0.0)
        grown = np.where(sees, np.where(p > 0, p * np.expm1(phi), 0.0) + 2 * arithmetic.smallest_normal, 0.0)
        known = grown.sum(axis=1, keepdims=True) < 0.5
        if self._of_output:
            side = slice(self._side, self._side + 1)
            upstream = np.abs(problem.upstream)
            absolute = (grown + 3 * u * p)[:, side] * upstream + tiny
            there = sees[:, side]
        else:
            of_products = np.einsum("rje,re->rj", np.abs(facts.states.value), np.abs(problem.upstream))
            mean = (p * of_products).sum(axis=1, keepdims=True)
            _, exact = define(Float64(), replace(problem, x=rows.x, value=facts.states.value))
            x = np.abs(exact / np.where(p > 0, p, 1.0))
            magnitude = of_products + mean + np.abs(problem.upstream_lse)
            of_mean = (grown * (of_products + mean)).sum(axis=1, keepdims=True)
            own = grown * x + (p + grown) * (of_mean + u * (width + 8) * magnitude) + tiny * (3 * width + 4)
            of_both = (own + 4 * u * p * magnitude).sum(axis=1, keepdims=True)
            absolute = np.where(rows.gap == 0, own + of_both, own)[:, self._side, None]
            there = sees[:, self._side, None]
        absolute = np.where(
            there & problem.ordinary[:, None], np.where(known, absolute * (1 + 2.0**-20), np.inf), 0.0
        )
        return Allowed(absolute, np.full(absolute.shape, compute_format(target).smallest_normal))

    def output_rows(self, output: NDArray[Any], problem: Pairs, options: Options) -> NDArray[Any]:
        return output.reshape(
            len(problem.x), -1 if len(problem.x) else (output.shape[-1] if self._of_output else 1)
        )

    def output_index(
        self, row: int, column: int, problem: Pairs, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        index = tuple(int(i) for i in np.unravel_index(row, shapes["lse_a"]))
        return (*index, column) if self._of_output else index


SUMMARIES = {
    "o_a": "p_j dO",
    "lse_a": "p_j (dO.(o_j - o) + dlse)",
    "o_b": "p_j dO",
    "lse_b": "p_j (dO.(o_j - o) + dlse)",
}


def backward(wrt: tuple[str, ...]) -> MergeStatesBackward:
    """The backward op whose outputs are the gradients of these inputs, in this order. Raises
    ValueError for one without any.
    """
    check_wanted(wrt, SUMMARIES)
    return _part(wrt[0], wrt)


@functools.cache
def _part(wrt: str, wanted: tuple[str, ...]) -> MergeStatesBackward:
    return MergeStatesBackward(wrt, wanted)

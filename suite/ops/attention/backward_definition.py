"""Backward of attention: from the gradients dO of the output and dlse of the log-sum-exp (0 where
it is not given) to those of q, k, v, an additive mask and a sink. With the scores s_ij of
definition.py and P_ij = exp(s_ij - lse_i), over visible keys:

    dV = P^T dO;   dP = dO V^T;   D_i = sum_j P_ij dP_ij = dO_i.O_i;   dS = P (dP - D + dlse)
    dQ = scale (dS (1 - t^2)) K;   dK = scale (dS (1 - t^2))^T Q;   t = tanh(scale q.k / c) with a
                                   softcap c, else 0
    dmask = dS;   dsink = sum_i P_i,sink (-D_i + dlse_i)

(FlashAttention-2, Dao 2023, algorithm 2.) dK and dV sum over the query heads that share a key head,
dmask over the dims that the mask was broadcast along, dsink over batches and queries. ALiBi slopes
and the scale have no gradient here.

Special values: a key that no query sees, a query that sees nothing and a mask entry of -inf have a
gradient of exactly 0. A query whose output, or whose upstream gradient, is not finite has no
gradient to judge, and neither has what it reaches: its key head, its mask row, its sink. Nor has
anything of a key head with a key or value that is not finite, visible or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.attention.backward_problem import Block, Gradient
from suite.ops.attention.definition import products, weights


def define(arithmetic: Arithmetic, problem: Gradient) -> Any:
    """The rows of one gradient, in the numbers of `arithmetic`."""
    output: Any = arithmetic.lift(np.zeros((len(problem.rows), problem.width)))
    for live in problem.live_blocks():
        p, d_s, d_sink, steepness = score_gradients(arithmetic, live)
        query, key, upstream = (
            arithmetic.lift(tensor) for tensor in (live.queries.query, live.key, live.upstream)
        )
        terms = Terms(
            p=p, d_s=d_s, d_sink=d_sink, d_product=d_s * steepness, query=query, key=key, upstream=upstream
        )
        place, values = pulled_back(arithmetic, problem, live, terms)
        np.add.at(output, place, values)
    scaled = problem.wrt in ("q", "k")
    return output * arithmetic.lift(np.array([[problem.scale]])) if scaled else output


def score_gradients(arithmetic: Arithmetic, block: Block) -> tuple[Any, Any, Any, Any]:
    """P and dS [n, S], the sink's dS [n, 1], and the slope of the scores [n, S] or 1, of queries
    that have a value.
    """
    queries = block.queries
    weight, total, maximum = weights(arithmetic, queries, block.key)
    p = weight / total
    d_p = arithmetic.matmul(arithmetic.lift(block.upstream), arithmetic.lift(block.value).T)
    shift = arithmetic.lift(block.upstream_lse[:, None]) - arithmetic.row_sum(p * d_p)
    d_sink = arithmetic.lift(np.zeros((len(queries.rows), 1)))
    if queries.sink is not None:
        sink = queries.sink[:, None]
        finite = arithmetic.lift(np.where(sink > -np.inf, sink, 0.0))
        d_sink = arithmetic.masked_exp(finite - maximum, sink > -np.inf) / total * shift
    steepness = slope_of_scores(arithmetic, block)
    if steepness is None:
        steepness = arithmetic.lift(np.ones((1, 1)))
    return p, p * (d_p + shift), d_sink, steepness


def slope_of_scores(arithmetic: Arithmetic, block: Block) -> Any:
    """The derivative of the scores by scale q.k, [n, S]; None where it is 1."""
    terms = [term.finite() for term in block.queries.terms]
    if not any(term.has_slope for term in terms):
        return None
    slope, scores = None, products(arithmetic, block.queries, block.key)
    for term in terms:
        if term.has_slope:
            own = term.slope(arithmetic, scores)
            slope = own if slope is None else slope * own
        scores = term.apply(arithmetic, scores)
    return slope


_EXACT: WeakKeyDictionary[Block, tuple[Array, Array, Array, Array]] = WeakKeyDictionary()
"""The gradients of a call share what their blocks need."""


def exact_gradients(block: Block) -> tuple[Array, Array, Array, Array]:
    """score_gradients() in float64."""
    if block not in _EXACT:
        p, d_s, d_sink, steepness = score_gradients(Float64(), block)
        _EXACT[block] = (p, d_s, d_sink, steepness)
    return _EXACT[block]


@dataclass(frozen=True, eq=False, kw_only=True)
class Terms:
    """What the gradients of a block of n queries are linear in, in any arithmetic."""

    p: Any
    """P [n, S]."""
    d_s: Any
    """dS [n, S]."""
    d_sink: Any
    """The sink's dS [n, 1]."""
    d_product: Any
    """dS times the slope of the scores [n, S]."""
    query: Any
    """[n, E]."""
    key: Any
    """[S, E]."""
    upstream: Any
    """[n, Ev]."""


def pulled_back(
    arithmetic: Arithmetic, problem: Gradient, block: Block, terms: Terms
) -> tuple[NDArray[np.intp], Any]:
    """(which rows of the gradient, what this block adds to each), before the scale. A row may be
    named more than once.
    """
    if problem.wrt == "q":
        return np.searchsorted(problem.rows, block.queries.rows), arithmetic.matmul(
            terms.d_product, terms.key
        )
    if problem.wrt in ("k", "v"):
        group, key = np.divmod(problem.rows, max(problem.keys, 1))
        place = np.flatnonzero(group == block.group)
        left, right = (terms.d_product, terms.query) if problem.wrt == "k" else (terms.p, terms.upstream)
        return place, arithmetic.matmul(left[:, key[place]].T, right)
    rows = problem.row_of(block.queries.rows)
    place = np.searchsorted(problem.rows, rows)
    if problem.wrt == "sink":
        return place, terms.d_sink
    return place, terms.d_s if problem.width > 1 or problem.keys == 1 else arithmetic.row_sum(terms.d_s)

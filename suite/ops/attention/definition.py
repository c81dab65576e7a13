"""attention of a query q over keys k_j with values v_j:

    s_j = scale q.k_j, changed by the settings that have a term, in order:
          c tanh(s_j / c) with a softcap c;   - slope |i + o - j| with ALiBi;   + mask_j
    O = sum_j p_j v_j,   p_j = exp(s_j - m) / (sum_j exp(s_j - m) + exp(sink - m)),   over the visible keys j

m being the largest of these scores (Vaswani et al. 2017, eq. 1; ALiBi: Press et al. 2021; softcap:
Gemma 2, 2024; sink, a logit without a value: Xiao et al. 2023, gpt-oss). Visibility: a boolean
mask, causal j <= i + o, a window, the first kv_lengths keys.

Special values: a query without a visible key gives 0, whatever it holds; NaN in q or in a visible
k, or a score of +inf, gives NaN; a visible value that is not finite gives NaN or its own infinity
in its column. Keys that are not visible have no influence at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.attention.settings.base import Mask, Term
from suite.ops.rows import RowFacts
from suite.ops.special import Special


@dataclass(frozen=True, eq=False, kw_only=True)
class Queries:
    """The queries of one call, each with what it sees: the canonical form of attention's inputs."""

    query: Array
    """[rows, E]."""
    key: Array
    """[groups, S, E]."""
    value: Array
    """[groups, S, Ev]."""
    group: NDArray[np.intp]
    """[rows]: whose keys a query sees."""
    visible: Mask
    """[rows, S]."""
    scale: float
    terms: tuple[Term, ...] = ()
    """How settings change the scores, in order (suite/ops/attention/settings)."""
    sink: Array | None = None
    """[rows], or None."""
    rows: NDArray[np.intp]
    """Which queries of all [B, H, L] these are, flat."""
    of_heads: NDArray[np.intp]
    """[B H]: whose keys a head reads."""
    length: int
    """L."""
    is_finite: bool
    """Whether no input gives any query a result that is not finite."""

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""
        by_row = {name: getattr(self, name) for name in ("query", "group", "visible", "sink", "rows")}
        taken = {name: values[rows] for name, values in by_row.items() if values is not None}
        return replace(self, **taken, terms=tuple(term.take(rows) for term in self.terms))

    @cached_property
    def x(self) -> Array:
        """[rows, S], or with a sink [rows, S + 1]: the scores in float64; -inf where a key is not visible."""
        with np.errstate(invalid="ignore", over="ignore"):
            scores = np.where(self.visible, self._scores(), -np.inf)
        return scores if self.sink is None else np.concatenate([scores, self.sink[:, None]], axis=1)

    def _scores(self) -> Array:
        scores = np.empty(self.visible.shape)
        for group in np.unique(self.group):
            rows = self.group == group
            scores[rows] = self.scale * (self.query[rows] @ self.key[group].T)
        for term in self.terms:
            scores = term.apply(Float64(), scores)
        return scores

    @cached_property
    def ordinary(self) -> Mask:
        """[rows]: whether the largest score is finite, so that the row has something to compute."""
        return np.asarray(np.isfinite(self.x.max(axis=1, initial=-np.inf)))

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""
        arrays = (self.query, self.key, self.value, self.group, self.visible, self.sink, self.rows)
        text = f"{self.scale!r}|{[None if a is None else a.shape for a in arrays]}|"
        parts = (b"" if a is None else np.ascontiguousarray(a).tobytes() for a in arrays)
        return b"|".join([text.encode(), *parts, *(term.content() for term in self.terms)])

    def describe(self, row: int, column: int | None) -> str:
        """What the query of an output entry sees."""
        seen, scores = int(self.visible[row].sum()), self.x[row]
        finite = scores[np.isfinite(scores)]
        reach = f", largest score {float(finite.max())!r}" if finite.size else ""
        of_values = "" if column is None else f"column {column} of the values, "
        return f"{of_values}a query that sees {seen} of {self.visible.shape[1]} keys{reach}"


def special(problem: Queries) -> NDArray[np.int8]:
    """[rows, Ev]: which kind of value the definition has at each position."""
    largest = problem.x.max(axis=1, initial=-np.inf)
    sees = problem.visible.any(axis=1)
    wrong = sees & np.isnan(problem.query).any(axis=1) | np.isnan(largest) | (largest == np.inf)
    code = np.full((len(wrong), problem.value.shape[2]), Special.FINITE, dtype=np.int8)
    for group in np.flatnonzero(~np.isfinite(problem.value).all(axis=(1, 2))):
        rows = problem.group == group
        value = problem.value[group]
        kinds = {
            Special.NAN: np.isnan(value),
            Special.NAN_OR_POSITIVE_INFINITY: value == np.inf,
            Special.NAN_OR_NEGATIVE_INFINITY: value == -np.inf,
        }
        has = {kind: problem.visible[rows] @ which > 0 for kind, which in kinds.items()}
        found = np.full(has[Special.NAN].shape, Special.FINITE)
        for kind in (Special.NAN_OR_POSITIVE_INFINITY, Special.NAN_OR_NEGATIVE_INFINITY):
            found = np.where(has[kind], kind, found)
        both = has[Special.NAN_OR_POSITIVE_INFINITY] & has[Special.NAN_OR_NEGATIVE_INFINITY]
        code[rows] = np.where(has[Special.NAN] | both, Special.NAN, found)
    return np.where(wrong[:, None], Special.NAN, code).astype(np.int8)


def define(arithmetic: Arithmetic, problem: Queries) -> Any:
    """[rows, Ev] of queries with a finite largest score, in the numbers of `arithmetic`."""
    output: Any = arithmetic.lift(np.zeros((len(problem.query), problem.value.shape[2])))
    for group in np.unique(problem.group):
        rows = np.flatnonzero(problem.group == group)
        value = np.where(np.isfinite(problem.value[group]), problem.value[group], 0.0)
        weight, total, _ = weights(arithmetic, problem.take(rows), problem.key[group])
        output[rows] = arithmetic.matmul(weight, arithmetic.lift(value)) / total
    return output


def weights(arithmetic: Arithmetic, problem: Queries, key: Array) -> tuple[Any, Any, Any]:
    """exp(s_j - m) [rows, S], their sum with the sink's [rows, 1], and m [rows, 1], for queries
    that see these keys [S, E].
    """
    scores = products(arithmetic, problem, key)
    for term in problem.terms:
        scores = term.finite().apply(arithmetic, scores)
    maximum = arithmetic.lift(problem.x.max(axis=1, keepdims=True))
    weight = arithmetic.masked_exp(scores - maximum, problem.visible)
    total = arithmetic.row_sum(weight)
    if problem.sink is not None:
        sink = problem.sink[:, None]
        finite = arithmetic.lift(np.where(sink > -np.inf, sink, 0.0))
        total = total + arithmetic.masked_exp(finite - maximum, sink > -np.inf)
    return weight, total, maximum


def products(arithmetic: Arithmetic, problem: Queries, key: Array) -> Any:
    """scale q.k [rows, S], for queries that see these keys [S, E]; a key that nobody sees may hold
    anything: it counts as 0.
    """
    finite = np.where(np.asarray(problem.visible.any(axis=0))[:, None], key, 0.0)
    return arithmetic.lift(np.array([[problem.scale]])) * arithmetic.matmul(
        arithmetic.lift(problem.query), arithmetic.lift(finite).T
    )


@dataclass(frozen=True, eq=False)
class AttentionFacts:
    """The ingredients of the bound."""

    rows: RowFacts
    """The facts of the scores, a sink's last."""
    products: Array
    """[rows, S]: |scale| sum_t |q_t k_jt|."""
    added: Array
    """[rows, S]: what settings add to the scores, in magnitude."""
    problem: Queries
    """Whose facts they are."""

    @property
    def x(self) -> Array:
        return self.rows.x


def facts(problem: Queries) -> AttentionFacts:
    rows = RowFacts.of(np.where(problem.ordinary[:, None], problem.x, 0.0))
    products = np.zeros(problem.visible.shape)
    for group in np.unique(problem.group):
        mine = problem.group == group
        products[mine] = abs(problem.scale) * (np.abs(problem.query[mine]) @ np.abs(problem.key[group]).T)
    added = np.zeros(problem.visible.shape)
    for term in problem.terms:
        own = term.added()
        if own is not None:
            added += own
    return AttentionFacts(rows, products, added, problem)

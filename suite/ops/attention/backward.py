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

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.inputs.draws import Draw
from suite.numerics import Numerics, Semantics
from suite.ops import UPSTREAM, Op, Options, Shapes
from suite.ops.arithmetic import Arithmetic, Float64
from suite.ops.attention import OP as ATTENTION
from suite.ops.attention import backward_bound, definition
from suite.ops.attention.definition import AttentionFacts, Queries, products, weights
from suite.ops.attention.sample import TILES, WHOLE, sampled_rows
from suite.ops.rows import Allowed, RowFacts
from suite.ops.special import Special

UPSTREAM_LSE = "upstream_lse"

SAMPLED_ROWS = 48
"""How many keys of each head, or rows of a mask, are judged where a problem is too large to be
judged whole.
"""


# the definition


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
    """P and dS [n, S], the sink's dS [n, 1], and the slope of the softcap [n, S] or 1, of queries
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
    steepness: Any = arithmetic.lift(np.ones((1, 1)))
    if queries.softcap is not None:
        tanh = arithmetic.tanh(
            products(arithmetic, queries, block.key) / arithmetic.lift(np.array([[queries.softcap]]))
        )
        steepness = steepness - tanh * tanh
    return p, p * (d_p + shift), d_sink, steepness


@dataclass(frozen=True, eq=False, kw_only=True)
class Terms:
    """What the gradients of a block of n queries are linear in, in any arithmetic: P, dS and dS
    times the slope of the softcap [n, S], the sink's dS [n, 1]; and query [n, E], key [S, E],
    upstream [n, Ev].
    """

    p: Any
    d_s: Any
    d_sink: Any
    d_product: Any
    query: Any
    key: Any
    upstream: Any


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


# the inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Some queries of one head, with the keys [S, E] and values [S, Ev] that they read and the
    upstream gradients [n, Ev], [n].

    group: of the keys. clean: [n], whether a query's gradient can be judged.
    """

    queries: Queries
    group: int
    key: Array
    value: Array
    upstream: Array
    upstream_lse: Array
    clean: NDArray[np.bool_]

    @cached_property
    def live(self) -> Block:
        """Those with something to compute."""
        chosen = np.flatnonzero(self.clean & self.queries.ordinary)
        return replace(
            self,
            queries=self.queries.take(chosen),
            upstream=self.upstream[chosen],
            upstream_lse=self.upstream_lse[chosen],
            clean=self.clean[chosen],
        )

    @cached_property
    def facts(self) -> AttentionFacts:
        return definition.facts(self.queries)

    @cached_property
    def exact(self) -> tuple[Array, Array, Array, Array]:
        """score_gradients() in float64."""
        p, d_s, d_sink, steepness = score_gradients(Float64(), self)
        return p, d_s, d_sink, steepness

    @cached_property
    def errors(self) -> dict[tuple[Numerics, str], backward_bound.Errors]:
        """What was found out about the last numerics and formats: the gradients of a call share it."""
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Gradient:
    """One gradient of one call: the canonical form of a backward op's inputs.

    wrt: of which input. rows: which rows of it, flat and ascending: of q [B H L], of k and v [B G
    S], of a mask all but its last dim, of a sink its entries. queries: those of all [B H L] that
    these depend on. digest: of inputs and options.
    """

    wrt: str
    inputs: Mapping[str, Array]
    options: Options
    rows: NDArray[np.intp]
    queries: NDArray[np.intp]
    digest: str = field(repr=False)

    @property
    def x(self) -> Array:
        """[rows, n]: the scores of the queries where the rows are queries, else zeros."""
        return self.all_queries.x if self.wrt == "q" else np.zeros((len(self.rows), 1))

    @property
    def shown(self) -> Array:
        return self.x

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        """[rows]: whether there is something to compute."""
        return self.clean & self.all_queries.ordinary if self.wrt == "q" else self.clean

    @property
    def length(self) -> int:
        return int(self.inputs["q"].shape[2])

    @property
    def heads(self) -> int:
        return int(self.inputs["q"].shape[1])

    @property
    def groups(self) -> int:
        return int(self.inputs["k"].shape[1])

    @property
    def keys(self) -> int:
        return int(self.inputs["k"].shape[2])

    @property
    def width(self) -> int:
        """The entries of a row."""
        return 1 if self.wrt == "sink" else int((1, *np.shape(self.inputs[self.wrt]))[-1])

    @property
    def scale(self) -> float:
        given = self.options["scale"]
        return float(given) if given is not None else 1 / float(np.sqrt(self.inputs["q"].shape[3]))

    @cached_property
    def all_queries(self) -> Queries:
        return ATTENTION.queries(self.inputs, self.options, self.queries)

    def row_of(self, queries: NDArray[np.intp]) -> NDArray[np.intp]:
        """The row of a mask, of a sink or of q that each query has; of k and v, its key head."""
        head, i = np.divmod(queries, max(self.length, 1))
        batch, head = np.divmod(head, max(self.heads, 1))
        if self.wrt == "mask":
            shape = (1, 1, 1, 1, *np.shape(self.inputs["mask"]))[-4:-1]
            place = tuple(
                np.where(n == 1, 0, index) for n, index in zip(shape, (batch, head, i), strict=True)
            )
            return np.ravel_multi_index(place, shape)
        if self.wrt == "sink":
            return head
        return queries if self.wrt == "q" else batch * self.groups + head // (self.heads // self.groups)

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""
        chosen = self.rows[rows]
        needed = chosen // max(self.keys, 1) if self.wrt in ("k", "v") else chosen
        return replace(self, rows=chosen, queries=self.queries[np.isin(self.row_of(self.queries), needed)])

    def blocks(self) -> Iterator[Block]:
        """The queries, head by head. Those of a small problem are remembered, so that its gradients
        share what they need.
        """
        remembered = len(self.queries) * self.keys <= REMEMBERED_SCORES
        name = f"{self.digest}|{hashlib.blake2b(self.queries.tobytes()).hexdigest()}"
        if remembered and name in _BLOCKS:
            _BLOCKS.move_to_end(name)
            yield from _BLOCKS[name]
            return
        if remembered:
            made = _BLOCKS[name] = tuple(self._blocks())
            while (
                sum(block.queries.visible.size for blocks in _BLOCKS.values() for block in blocks)
                > REMEMBERED_SCORES
            ):
                _BLOCKS.popitem(last=False)
            yield from made
        else:
            yield from self._blocks()

    def live_blocks(self) -> Iterator[Block]:
        """What there is to compute."""
        return (block.live for block in self.blocks() if len(block.live.queries.rows))

    def _blocks(self) -> Iterator[Block]:
        head = self.queries // max(self.length, 1)
        size = max(BLOCK // max(self.keys, 1), 1)
        upstream = self.inputs[UPSTREAM].reshape(-1, self.inputs[UPSTREAM].shape[-1])
        upstream_lse = self.inputs.get(UPSTREAM_LSE, np.zeros(len(upstream))).reshape(-1)
        for one in np.unique(head):
            of_head = self.queries[head == one]
            for start in range(0, len(of_head), size):
                yield self._block(of_head[start : start + size], upstream, upstream_lse)

    def _block(self, rows: NDArray[np.intp], upstream: Array, upstream_lse: Array) -> Block:
        queries = ATTENTION.queries(self.inputs, self.options, rows)
        group = int(queries.group[0])
        key, value = queries.key[group], queries.value[group]
        finite = np.isfinite(key).all() and np.isfinite(value).all()
        clean = (
            np.isfinite(queries.query).all(axis=1)
            & (definition.special(queries) == Special.FINITE).all(axis=1)
            & finite
        )
        clean &= np.isfinite(upstream[rows]).all(axis=1) & np.isfinite(upstream_lse[rows])
        return Block(
            queries=queries,
            group=group,
            key=key,
            value=value,
            upstream=upstream[rows],
            upstream_lse=upstream_lse[rows],
            clean=clean,
        )

    @cached_property
    def clean(self) -> NDArray[np.bool_]:
        """[rows]: whether the gradient of a row can be judged: every query that it depends on can."""
        unclean: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
        for block in self.blocks():
            unclean.append(block.queries.rows[~block.clean])
        reached = np.unique(self.row_of(np.concatenate(unclean)))
        return ~np.isin(self.rows // max(self.keys, 1) if self.wrt in ("k", "v") else self.rows, reached)

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""
        return f"{self.digest}|{self.wrt}|".encode() + self.rows.tobytes()

    def describe(self, row: int, column: int | None) -> str:
        """What the row of an output entry is of."""
        at = int(self.rows[row])
        if self.wrt in ("k", "v"):
            return f"key {at % self.keys} of key head {at // self.keys} (batch entry by batch entry)"
        if self.wrt == "q":
            return self.all_queries.describe(row, None)
        if self.wrt == "sink":
            return f"the sink of head {at}, {float(self.inputs['sink'][at])!r}"
        mask = np.asarray(self.inputs["mask"]).reshape(-1, self.width)
        return f"a mask entry of {float(mask[at, column or 0])!r}"


BLOCK = 2**22
"""How many scores are in memory at a time."""

REMEMBERED_SCORES = 2**21
"""How many scores of the last problems are remembered, with about 150 bytes for each."""

_BLOCKS: OrderedDict[str, tuple[Block, ...]] = OrderedDict()


@dataclass(frozen=True, eq=False)
class GradientFacts:
    """The ingredients of the bound are those of the problem's blocks."""

    problem: Gradient

    @property
    def x(self) -> Array:
        return self.problem.x


# the ops


class AttentionBackward(Op):
    """(q, k, v, ..., upstream [B, H, L, Ev]) to the gradient of one of them; upstream_lse [B, H,
    L], with return_lse.

    wrt: whose gradient this op's is. wanted: all of a call, each an output. The gradient has its
    input's shape and format.
    """

    arguments = (*ATTENTION.arguments, UPSTREAM)
    optional = (*ATTENTION.optional, UPSTREAM_LSE)
    options = ATTENTION.options
    keeps_length = False
    lower_limit = float("-inf")

    def __init__(self, wrt: str, wanted: tuple[str, ...]) -> None:
        self.wrt, self._wanted = wrt, wanted
        self.name = f"attention backward {wrt}"  # type: ignore[misc]
        self.summary = SUMMARIES[wrt]  # type: ignore[misc]

    def outputs(self, options: Options) -> tuple[Op, ...]:
        return tuple(self if wrt == self.wrt else _part(wrt, self._wanted) for wrt in self._wanted)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        resolved = ATTENTION.check_options(options, shapes)
        expected = ATTENTION.output_shape(shapes, options)
        for name, shape in ((UPSTREAM, expected), (UPSTREAM_LSE, expected[:-1])):
            if name in shapes and shapes[name] != shape:
                raise ValueError(
                    f"{name} has shape {list(shapes[name])}; expected the output's, {list(shape)}"
                )
        if UPSTREAM_LSE in shapes and not options["return_lse"]:
            raise ValueError(
                f"{UPSTREAM_LSE} is given, but return_lse is False: without it the call has no such output"
            )
        return resolved

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return ATTENTION.axis(options, shape)

    def input_format(self, name: str, format: Format) -> Format:
        return compute_format(format) if name == UPSTREAM_LSE else format

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Gradient:
        q, k = inputs["q"], inputs["k"]
        queries = np.arange(int(np.prod(q.shape[:3])))
        digest = _digest(inputs, options)
        whole = Gradient(
            wrt=self.wrt, inputs=inputs, options=options, rows=queries, queries=queries, digest=digest
        )
        if self.wrt == "q":
            rows = sampled_rows(q, k)
            return replace(whole, rows=rows, queries=rows)
        if self.wrt == "sink":
            return replace(whole, rows=np.arange(q.shape[1]))
        if self.wrt in ("k", "v"):
            outer, inner = k.shape[0] * k.shape[1], k.shape[2]
        else:
            *before, length, _ = (1, 1, 1, 1, *np.shape(inputs["mask"]))[-4:]
            outer, inner = int(np.prod(before)), length
        every = replace(whole, rows=np.arange(outer * inner))
        if len(queries) * k.shape[2] <= WHOLE or inner <= SAMPLED_ROWS:
            return every
        return every.take(_sampled(outer, inner, f"sampled {self.wrt}|{digest}"))

    def special(self, problem: Gradient, semantics: Semantics) -> NDArray[np.int8]:
        code = np.where(problem.clean, Special.FINITE, Special.ANYTHING)[:, None]
        return np.broadcast_to(code, (len(problem.rows), problem.width)).astype(np.int8)

    def facts(self, problem: Gradient) -> GradientFacts:
        return GradientFacts(problem)

    def scores(self, facts: GradientFacts) -> RowFacts:
        """Of the queries that the judged rows depend on."""
        return definition.facts(facts.problem.all_queries).rows

    def define(self, arithmetic: Arithmetic, problem: Gradient) -> Any:
        return define(arithmetic, problem)

    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        return backward_bound.bound(facts.problem, numerics, target)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return shapes[self.wrt]

    def output_rows(self, output: NDArray[Any], problem: Gradient, options: Options) -> NDArray[Any]:
        before = output.shape if self.wrt == "sink" else output.shape[:-1]
        return output.reshape(int(np.prod(before)), problem.width)[problem.rows]

    def output_index(
        self, row: int, column: int, problem: Gradient, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        at = int(problem.rows[row])
        if len(shapes[self.wrt]) < 2:  # a sink, or a mask of no dim or one
            return (at,) if self.wrt == "sink" else (column,)[: len(shapes[self.wrt])]
        return (*(int(i) for i in np.unravel_index(at, shapes[self.wrt][:-1])), column)

    def beyond_rows(
        self, output: NDArray[Any], problem: Gradient, options: Options
    ) -> NDArray[np.bool_] | None:
        """No NaN is right anywhere where every query has a finite output."""
        if len(problem.rows) * problem.width == output.size or not all(
            np.isfinite(t).all() for t in problem.inputs.values()
        ):
            return None
        return np.asarray(np.isnan(output))


SUMMARIES = {
    "q": "scale sum_j dS_ij k_j, dS = P (dP - D + dlse)",
    "k": "scale sum_i dS_ij q_i",
    "v": "sum_i P_ij dO_i",
    "mask": "dS, summed over what the mask was broadcast along",
    "sink": "sum_i P_i,sink (dlse_i - D_i)",
}


def backward(wrt: tuple[str, ...]) -> AttentionBackward:
    """The backward op whose outputs are the gradients of these inputs, in this order. Raises
    ValueError for one without any.
    """
    unknown = [name for name in wrt if name not in SUMMARIES]
    if unknown or not wrt:
        raise ValueError(f"wrt={wrt!r} must name some of {', '.join(SUMMARIES)}")
    return _part(wrt[0], wrt)


@functools.cache
def _part(wrt: str, wanted: tuple[str, ...]) -> AttentionBackward:
    return AttentionBackward(wrt, wanted)


def _digest(inputs: Mapping[str, Array], options: Options) -> str:
    digest = hashlib.blake2b(repr(sorted(options.items())).encode(), digest_size=20)
    for name in sorted(inputs):
        tensor = np.ascontiguousarray(inputs[name])
        digest.update(f"|{name}|{tensor.dtype}|{tensor.shape}|".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _sampled(outer: int, inner: int, key: str) -> NDArray[np.intp]:
    """Of `outer` times `inner` rows, the first and last, those at tile edges and some drawn, for
    each of the outer ones.
    """
    draw = Draw(key)
    edges = [0, inner - 1] + [
        i for tile in TILES for i in (tile - 1, tile, inner // tile * tile - 1, inner // tile * tile)
    ]
    chosen = []
    for one in range(outer):
        drawn = (int(i) for i in draw.integers(inner, SAMPLED_ROWS))
        own = list(dict.fromkeys(i for i in (*edges, *drawn) if 0 <= i < inner))[:SAMPLED_ROWS]
        chosen += [one * inner + i for i in sorted(own)]
    return np.array(chosen, dtype=np.intp)

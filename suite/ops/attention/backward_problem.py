"""The inputs of attention's backward in canonical form: which rows of which gradient, and the
queries that these depend on, block by block.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops import UPSTREAM, Options
from suite.ops.attention import OP as ATTENTION
from suite.ops.attention import definition
from suite.ops.attention.definition import AttentionFacts, Queries
from suite.ops.attention.settings.scale import SCALE
from suite.ops.special import Special

UPSTREAM_LSE = "upstream_lse"

BLOCK = 2**22
"""How many scores are in memory at a time."""

REMEMBERED_SCORES = 2**21
"""How many scores of the last problems are remembered, with about 150 bytes for each."""

_BLOCKS: OrderedDict[str, tuple[Block, ...]] = OrderedDict()


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Some queries of one head, with all that their gradients depend on."""

    queries: Queries
    group: int
    """Of the keys."""
    key: Array
    """[S, E]."""
    value: Array
    """[S, Ev]."""
    upstream: Array
    """[n, Ev], the gradients of the outputs."""
    upstream_lse: Array
    """[n], those of the log-sum-exps."""
    clean: NDArray[np.bool_]
    """[n]: whether a query's gradient can be judged."""

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Gradient:
    """One gradient of one call: the canonical form of a backward op's inputs."""

    wrt: str
    """Of which input."""
    inputs: Mapping[str, Array]
    options: Options
    rows: NDArray[np.intp]
    """Which rows of that input, flat and ascending: of q [B H L], of k and v [B G S], of a mask all
    but its last dim, of a sink its entries.
    """
    queries: NDArray[np.intp]
    """Which queries of all [B H L] these depend on."""
    digest: str = field(repr=False)
    """Of inputs and options."""

    @property
    def x(self) -> Array:
        """[rows, n]: the scores of the queries where the rows are queries, else zeros."""
        return self.all_queries.x if self.wrt == "q" else np.zeros((len(self.rows), 1))

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
        return SCALE.factor(self.options["scale"], self.inputs["q"].shape[3])

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


@dataclass(frozen=True, eq=False)
class GradientFacts:
    """The ingredients of the bound are those of the problem's blocks."""

    problem: Gradient

    @property
    def x(self) -> Array:
        return self.problem.x

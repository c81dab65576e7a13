"""Backward of attention: the ops of the gradients of q, k, v, an additive mask and a sink. See
backward_definition.py (the mathematics), backward_problem.py (the inputs), backward_bound.py.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.inputs.draws import Draw
from suite.numerics import Numerics, Semantics
from suite.ops import Options, Shapes
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention import OP as ATTENTION
from suite.ops.attention import backward_bound, backward_definition, definition
from suite.ops.attention.backward_problem import UPSTREAM_LSE, Gradient, GradientFacts
from suite.ops.attention.sample import TILES, WHOLE, sampled_rows
from suite.ops.backward_op import BackwardOp, check_wanted
from suite.ops.rows import Allowed, RowFacts
from suite.ops.special import Special

SAMPLED_ROWS = 48
"""How many keys of each head, or rows of a mask, are judged where a problem is too large to be
judged whole.
"""


class AttentionBackward(BackwardOp[Gradient, GradientFacts]):
    """(q, k, v, ..., upstream [B, H, L, Ev]) to the gradient of one of them, with its shape and
    format; upstream_lse [B, H, L], with return_lse.
    """

    def __init__(self, wrt: str, wanted: tuple[str, ...]) -> None:
        super().__init__(ATTENTION, wrt, wanted, name=f"attention backward {wrt}", summary=SUMMARIES[wrt])

    def part(self, wrt: str) -> AttentionBackward:
        return _part(wrt, self.wrt_of_call)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        resolved = super().check_options(options, shapes)
        if UPSTREAM_LSE in shapes and not options["return_lse"]:
            raise ValueError(
                f"{UPSTREAM_LSE} is given, but return_lse is False: without it the call has no such output"
            )
        return resolved

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
        return backward_definition.define(arithmetic, problem)

    def bound(self, facts: GradientFacts, numerics: Numerics, target: Format) -> Allowed:
        return backward_bound.bound(facts.problem, numerics, target)

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
    check_wanted(wrt, SUMMARIES)
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

"""attention: see definition.py and bound.py. judge() knows it; kernels and cases are to come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics, Semantics
from suite.ops import Op, Options, Shapes
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention import bound, definition
from suite.ops.attention.definition import AttentionFacts, Queries
from suite.ops.rows import Allowed

CAUSAL = (None, "top_left", "bottom_right")


class Attention(Op):
    """q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev] to [B, H, L, Ev]; head h reads key head h // (H / G).

    mask: boolean (True = visible) or additive, broadcastable to [B, H, L, S]. alibi_slopes [H]. sink [H]: a logit without a
    value. kv_lengths [B]. Options: causal "top_left" (j <= i) or "bottom_right" (j <= i + S - L); scale, 1 / sqrt(E) by
    default; softcap; window (left, right), None = unlimited.
    """

    name = "attention"
    arguments = ("q", "k", "v")
    optional = ("mask", "alibi_slopes", "sink", "kv_lengths")
    options: ClassVar[Options] = {"causal": None, "scale": None, "softcap": None, "window": None, "enable_gqa": False}
    keeps_length = False
    lower_limit = float("-inf")
    summary = "sum_j softmax_j(scale q.k_j) v_j over the visible keys j"

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        q, k, v = (shapes[name] for name in self.arguments)
        for name, shape in zip(self.arguments, (q, k, v), strict=True):
            if len(shape) != 4:
                raise ValueError(f"{name} has shape {list(shape)}; expected four dims: batch, head, position, entry")
        if k[:3] != v[:3] or q[0] != k[0] or q[3] != k[3]:
            raise ValueError(
                f"q {list(q)}, k {list(k)} and v {list(v)} do not match: expected [B, H, L, E], [B, G, S, E], [B, G, S, Ev]"
            )
        if not k[1] or q[1] % k[1]:
            raise ValueError(f"q has {q[1]} heads, which {k[1]} heads of k cannot share evenly")
        if q[1] != k[1] and not options["enable_gqa"]:
            raise ValueError(f"q has {q[1]} heads and k has {k[1]}: that needs enable_gqa=True")
        self._check_optional(shapes, q, k)
        if options["causal"] not in CAUSAL:
            raise ValueError(f"causal={options['causal']!r} is not one of None, 'top_left', 'bottom_right'")
        scale = options["scale"]
        if scale is not None and not (isinstance(scale, int | float) and math.isfinite(scale)):
            raise ValueError(f"scale={scale!r} must be a finite number")
        softcap = options["softcap"]
        if softcap is not None and not (isinstance(softcap, int | float) and 0 < softcap < math.inf):
            raise ValueError(f"softcap={softcap!r} must be a number above 0")
        window = options["window"]
        if window is not None:
            sides = tuple(window) if isinstance(window, tuple | list) else ()
            if len(sides) != 2 or any(s is not None and (not isinstance(s, int) or s < 0) for s in sides):
                raise ValueError(f"window={window!r} must be (left, right), each None or an integer that is not negative")
            window = sides
        return {**options, "window": window}

    def _check_optional(self, shapes: Shapes, q: tuple[int, ...], k: tuple[int, ...]) -> None:
        full = (q[0], q[1], q[2], k[2])
        mask = shapes.get("mask")
        if mask is not None and (len(mask) > 4 or any(m not in (1, f) for m, f in zip(mask[::-1], full[::-1], strict=False))):
            raise ValueError(f"mask has shape {list(mask)}, which does not broadcast to {list(full)}")
        for name, size in (("alibi_slopes", q[1]), ("sink", q[1]), ("kv_lengths", q[0])):
            if name in shapes and shapes[name] != (size,):
                raise ValueError(f"{name} has shape {list(shapes[name])}; expected [{size}]")

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return 2

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Queries:
        q, k, v = (inputs[name] for name in self.arguments)
        batches, heads, length, head_size = q.shape
        groups, size = k.shape[1], k.shape[2]
        full = (batches, heads, length, size)
        mask: Any = inputs.get("mask")
        lengths, slopes, sink = (inputs.get(name) for name in ("kv_lengths", "alibi_slopes", "sink"))
        i, j = np.arange(length)[:, None], np.arange(size)[None, :]
        offset = size - length if options["causal"] == "bottom_right" else 0
        seen = np.broadcast_to(self._seen(i + offset, j, options), full)
        if mask is not None and mask.dtype == np.bool_:
            seen = seen & mask  # True is visible
        if lengths is not None:
            seen = seen & (j < np.asarray(lengths).reshape(-1, 1, 1, 1))
        bias = None
        if mask is not None and mask.dtype != np.bool_:
            bias = np.broadcast_to(mask, full).reshape(-1, size)
            seen = seen & (np.broadcast_to(mask, full) != -np.inf)
        of_head = np.tile(np.repeat(np.arange(heads), length), batches)
        head = np.arange(batches)[:, None] * groups + np.arange(heads)[None, :] // max(heads // groups, 1)
        distance = np.broadcast_to(np.abs(i + offset - j).astype(np.float64), full).reshape(-1, size)
        scale = options["scale"] if options["scale"] is not None else 1 / math.sqrt(head_size)
        return Queries(
            query=q.reshape(-1, head_size),
            key=k.reshape(-1, size, head_size),
            value=v.reshape(-1, size, v.shape[3]),
            group=np.repeat(head.reshape(-1), length),
            visible=np.ascontiguousarray(seen).reshape(-1, size),
            scale=float(scale),
            softcap=options["softcap"],
            bias=bias,
            slope=None if slopes is None else slopes[of_head],
            distance=None if slopes is None else distance,
            sink=None if sink is None else sink[of_head],
        )

    @staticmethod
    def _seen(position: NDArray[np.intp], j: NDArray[np.intp], options: Options) -> NDArray[np.bool_]:
        """[L, S]: what causal and window let a query at this position see."""
        seen = np.ones(np.broadcast_shapes(position.shape, j.shape), dtype=bool)
        if options["causal"] is not None:
            seen &= j <= position
        left, right = options["window"] or (None, None)
        if left is not None:
            seen &= j >= position - left
        if right is not None:
            seen &= j <= position + right
        return seen

    def special(self, problem: Queries, semantics: Semantics) -> NDArray[np.int8]:
        return definition.special(problem)

    def facts(self, problem: Queries) -> AttentionFacts:
        return definition.facts(problem)

    def define(self, arithmetic: Arithmetic, problem: Queries) -> Any:
        return definition.define(arithmetic, problem)

    def bound(self, facts: AttentionFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.bound(facts, numerics, target)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return (*shapes["q"][:3], shapes["v"][3])

    def output_rows(self, output: NDArray[Any], options: Options) -> NDArray[Any]:
        return output.reshape(-1, output.shape[-1])

    def output_index(self, row: int, column: int, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return (*(int(i) for i in np.unravel_index(row, shapes["q"][:3])), column)


OP = Attention()

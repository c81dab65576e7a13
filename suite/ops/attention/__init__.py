"""attention: see definition.py, bound.py, log_sum_exp.py (its second output), sample.py and kernels/."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics, Semantics
from suite.ops import UPSTREAM, AnyOp, Describe, Op, Options, Result, Shapes, TorchKernel
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention import bound, definition, log_sum_exp, places
from suite.ops.attention.definition import AttentionFacts, Queries
from suite.ops.attention.sample import sampled_rows
from suite.ops.rows import Allowed, RowFacts

LARGEST = 1e300
"""The largest scale or softcap: twice it is still a number of float64."""

AUDITED = 2**23
"""How many products of a query may take part in an audit."""

CAUSAL = (None, "top_left", "bottom_right")


class Attention(Op[Queries, AttentionFacts]):
    """q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev] to [B, H, L, Ev]; head h reads key head h // (H / G).

    mask: boolean (True = visible) or additive, broadcastable to [B, H, L, S]. alibi_slopes [H].
    sink [H]: a logit without a value. kv_lengths [B]. Options: causal "top_left" (j <= i) or
    "bottom_right" (j <= i + S - L); scale, 1 / sqrt(E) by default; softcap; window (left, right),
    None = unlimited; return_lse: also the log-sum-exp of each query's scores.
    """

    name = "attention"
    summary = "sum_j softmax_j(scale q.k_j) v_j over the visible keys j"
    arguments = ("q", "k", "v")
    optional = ("mask", "alibi_slopes", "sink", "kv_lengths")
    upstreams = (UPSTREAM, "upstream_lse")
    differentiable = ("q", "k", "v", "mask", "sink")
    options: Mapping[str, Any] = {
        "causal": None,
        "scale": None,
        "softcap": None,
        "window": None,
        "enable_gqa": False,
        "return_lse": False,
    }
    result = Result.AVERAGE
    dims = ("BATCH", "HEADS", "LENGTH", "SIZE")
    limited_by = "operations"
    torch = TorchKernel(
        "torch.nn.functional.scaled_dot_product_attention",
        ("sdpa_flash", "sdpa_math", "sdpa_efficient", "sdpa_cudnn"),
        differentiated="sdpa_math",
        parameters=frozenset({"attn_mask", "is_causal", "scale", "enable_gqa"}),
    )
    measured = ("vanishing",)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        q, k, v = (shapes[name] for name in self.arguments)
        for name, shape in zip(self.arguments, (q, k, v), strict=True):
            if len(shape) != 4:
                raise ValueError(
                    f"{name} has shape {list(shape)}; expected four dims: batch, head, position, entry"
                )
        if k[:3] != v[:3] or q[0] != k[0] or q[3] != k[3]:
            raise ValueError(
                f"q {list(q)}, k {list(k)} and v {list(v)} do not match: expected [B, H, L, E], [B, G, S, E],"
                " [B, G, S, Ev]"
            )
        if not q[3] or not v[3]:
            raise ValueError(f"q {list(q)} and v {list(v)} have a head size of 0; expected at least 1")
        if not k[1] or q[1] % k[1]:
            raise ValueError(f"q has {q[1]} heads, which {k[1]} heads of k cannot share evenly")
        if q[1] != k[1] and not options["enable_gqa"]:
            raise ValueError(f"q has {q[1]} heads and k has {k[1]}: that needs enable_gqa=True")
        self._check_optional(shapes, q, k)
        if options["causal"] not in CAUSAL:
            raise ValueError(f"causal={options['causal']!r} is not one of None, 'top_left', 'bottom_right'")
        scale = options["scale"]
        if scale is not None and not _is_number(scale):
            raise ValueError(f"scale={scale!r} must be a finite number")
        softcap = options["softcap"]
        if softcap is not None and not (_is_number(softcap) and softcap > 0):
            raise ValueError(f"softcap={softcap!r} must be a number above 0")
        window = options["window"]
        if window is not None:
            sides = tuple(window) if isinstance(window, tuple | list) else ()
            if len(sides) != 2 or any(
                s is not None and not (_is_number(s) and s == int(s) and 0 <= s < 2**31) for s in sides
            ):
                raise ValueError(
                    f"window={window!r} must be (left, right), each None or an integer from 0 to 2^31 - 1"
                )
            window = tuple(None if side is None else int(side) for side in sides)
        return {
            **options,
            "window": window,
            "scale": None if scale is None else float(scale),
            "softcap": None if softcap is None else float(softcap),
        }

    def _check_optional(self, shapes: Shapes, q: tuple[int, ...], k: tuple[int, ...]) -> None:
        full = (q[0], q[1], q[2], k[2])
        mask = shapes.get("mask")
        if mask is not None and (
            len(mask) > 4 or any(m not in (1, f) for m, f in zip(mask[::-1], full[::-1], strict=False))
        ):
            raise ValueError(f"mask has shape {list(mask)}, which does not broadcast to {list(full)}")
        for name, size in (("alibi_slopes", q[1]), ("sink", q[1]), ("kv_lengths", q[0])):
            if name in shapes and shapes[name] != (size,):
                raise ValueError(f"{name} has shape {list(shapes[name])}; expected [{size}]")

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return 2

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Queries:
        return self.queries(inputs, options, sampled_rows(inputs["q"], inputs["k"]))

    def queries(self, inputs: Mapping[str, Array], options: Options, rows: NDArray[np.intp]) -> Queries:
        """The canonical form of these queries of all [B, H, L], flat."""
        q, k, v = (inputs[name] for name in self.arguments)
        if not k.shape[2]:  # no key is one that nobody sees
            k, v = (np.zeros((*tensor.shape[:2], 1, tensor.shape[3])) for tensor in (k, v))
            others = {name: tensor for name, tensor in inputs.items() if name != "mask"}
            return self.queries({**others, "k": k, "v": v, "kv_lengths": np.zeros(q.shape[0])}, options, rows)
        batches, heads, length, head_size = q.shape
        groups, size = k.shape[1], k.shape[2]
        head, i = np.divmod(rows, max(length, 1))
        batch, head = np.divmod(head, max(heads, 1))
        j = np.arange(size)
        position = (i + offset(length, size, options))[:, None]
        visible = seen(position, j, options)
        lengths, slopes, sink = (inputs.get(name) for name in ("kv_lengths", "alibi_slopes", "sink"))
        if lengths is not None:
            if not (
                (lengths >= 0) & (lengths <= inputs["k"].shape[2]) & (lengths == np.floor(lengths))
            ).all():
                raise ValueError(
                    f"kv_lengths={lengths!r} must be integers from 0 to {inputs['k'].shape[2]}, the number of"
                    " keys"
                )
            visible &= j < np.asarray(lengths)[batch, None]
        bias = None
        mask: Any = inputs.get("mask")
        if mask is not None:
            if mask.dtype.kind not in "bf":
                raise ValueError(
                    f"mask has dtype {mask.dtype}; expected bool (True = visible) or floating, which is added"
                )
            given = np.broadcast_to(mask, (batches, heads, length, size))[batch, head, i]
            bias = None if given.dtype == np.bool_ else given
            visible &= given if bias is None else given != -np.inf
        of_heads = (
            np.arange(batches)[:, None] * groups + np.arange(heads) // max(heads // groups, 1)
        ).reshape(-1)
        scale = options["scale"] if options["scale"] is not None else 1 / math.sqrt(head_size)
        return Queries(
            query=q.reshape(batches * heads * length, head_size)[rows],
            key=k.reshape(batches * groups, size, head_size),
            value=v.reshape(batches * groups, size, v.shape[3]),
            group=of_heads[batch * heads + head],
            visible=visible,
            scale=float(scale),
            softcap=options["softcap"],
            bias=bias,
            slope=None if slopes is None else slopes[head],
            distance=None if slopes is None else np.abs(position - j).astype(np.float64),
            sink=None if sink is None else sink[head],
            rows=rows,
            of_heads=of_heads,
            length=length,
            is_finite=all(_is_finite(name, tensor) for name, tensor in inputs.items()),
        )

    def special(self, problem: Queries, semantics: Semantics) -> NDArray[np.int8]:
        return definition.special(problem)

    def facts(self, problem: Queries) -> AttentionFacts:
        return definition.facts(problem)

    def audited(self, problem: Queries, radius: Array) -> NDArray[np.intp]:
        """The ordinary query of the largest radius, and the one in the middle, where ball
        arithmetic takes about a second.
        """
        ordinary = np.flatnonzero(problem.ordinary)
        work = problem.visible.shape[1] * (problem.query.shape[1] + problem.value.shape[2])
        if not len(ordinary) or work > AUDITED:
            return ordinary[:0]
        return np.unique(
            [ordinary[radius[ordinary].max(axis=1, initial=0.0).argmax()], ordinary[len(ordinary) // 2]]
        )

    def scores(self, facts: AttentionFacts) -> RowFacts:
        return facts.rows

    def define(self, arithmetic: Arithmetic, problem: Queries) -> Any:
        return definition.define(arithmetic, problem)

    def bound(self, facts: AttentionFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.bound(facts, numerics, target)

    def places(self, failed: NDArray[np.bool_], problem: Queries) -> Mapping[str, str]:
        return places.rows(failed, problem)

    def marking(self, inputs: Mapping[str, Array]) -> tuple[Mapping[str, Array], Describe] | None:
        marked, width = places.blocks(inputs["v"])
        size = inputs["k"].shape[2]
        return {**inputs, "v": marked}, lambda failed, got, exact: places.keys(
            failed, got, exact, width, size
        )

    def outputs(self, options: Options) -> tuple[AnyOp, ...]:
        return (self, LOG_SUM_EXP) if options["return_lse"] else (self,)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return (*shapes["q"][:3], shapes["v"][3])

    def output_rows(self, output: NDArray[Any], problem: Queries, options: Options) -> NDArray[Any]:
        return output.reshape(int(np.prod(output.shape[:3])), output.shape[3])[problem.rows]

    def output_index(
        self, row: int, column: int, problem: Queries, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        return (*(int(i) for i in np.unravel_index(problem.rows[row], shapes["q"][:3])), column)

    def operations(self, shapes: Shapes, options: Options, *, backward: bool) -> int:
        """Of the matrix products alone: 2 (E + Ev) a pair of query and visible key, and for the
        backward, which computes the scores again, 6 E + 4 Ev more.
        """
        (batch, heads, length, size), value_size = shapes["q"], shapes["v"][3]
        pairs = batch * heads * visible_pairs(length, shapes["k"][2], options["causal"])
        return pairs * (2 * (size + value_size) + (6 * size + 4 * value_size if backward else 0))

    def beyond_rows(
        self, output: NDArray[Any], problem: Queries, options: Options
    ) -> NDArray[np.bool_] | None:
        """An average of values is no larger than the largest of them; twice that covers every
        rounding of weights whose bound is below one half, and a sum that is off by half.
        """
        if len(problem.rows) == output[..., 0].size or not problem.is_finite:
            return None
        largest = np.abs(problem.value).max(axis=1, initial=0.0)[problem.of_heads]
        outputs = output.reshape(len(problem.of_heads), problem.length, -1)
        return np.asarray(~(np.abs(outputs) <= 2 * largest[:, None])).reshape(output.shape)


class LogSumExp(Attention):
    """attention's second output, float32 (float64 for float64): the log-sum-exp of each query's
    scores, with a sink's.
    """

    name = "attention_lse"
    result = Result.LOG_SUM
    summary = "log sum_j exp(scale q.k_j) over the visible keys j"

    def outputs(self, options: Options) -> tuple[AnyOp, ...]:
        return (self,)

    def output_format(self, format: Format) -> Format:
        return compute_format(format)

    def special(self, problem: Queries, semantics: Semantics) -> NDArray[np.int8]:
        return log_sum_exp.special(problem)

    def define(self, arithmetic: Arithmetic, problem: Queries) -> Any:
        return log_sum_exp.define(arithmetic, problem)

    def bound(self, facts: AttentionFacts, numerics: Numerics, target: Format) -> Allowed:
        return log_sum_exp.bound(facts, numerics, target)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        return shapes["q"][:3]

    def output_rows(self, output: NDArray[Any], problem: Queries, options: Options) -> NDArray[Any]:
        return output.reshape(-1, 1)[problem.rows]

    def output_index(
        self, row: int, column: int, problem: Queries, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(problem.rows[row], shapes["q"][:3]))

    def beyond_rows(
        self, output: NDArray[Any], problem: Queries, options: Options
    ) -> NDArray[np.bool_] | None:
        if len(problem.rows) == output.size or not problem.is_finite:
            return None
        return np.asarray(np.isnan(output) | (output == np.inf))


def offset(length: int, keys: int, options: Options) -> int:
    """The position of the first query among the keys."""
    return keys - length if options["causal"] == "bottom_right" else 0


def seen(position: NDArray[np.intp], j: NDArray[np.intp], options: Options) -> NDArray[np.bool_]:
    """[L, S]: which of the keys j causal and window let a query at this position see."""
    visible = np.ones(np.broadcast_shapes(position.shape, j.shape), dtype=bool)
    if options["causal"] is not None:
        visible &= j <= position
    left, right = options["window"] or (None, None)
    if left is not None:
        visible &= j >= position - left
    if right is not None:
        visible &= j <= position + right
    return visible


def visible_pairs(length: int, keys: int, causal: str | None) -> int:
    """How many pairs of a query and a key that it sees a head has."""
    if causal is None:
        return length * keys
    last = np.arange(length) + (
        keys - length if causal == "bottom_right" else 0
    )  # the last key that each query sees
    return int(np.clip(last + 1, 0, keys).sum())


def _is_number(value: Any) -> bool:
    kinds: Any = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool) and bool(abs(value) <= LARGEST)


def _is_finite(name: str, tensor: Any) -> bool:
    """Whether a tensor gives no query a result that is not finite; -inf hides a key, and leaves a
    sink out.
    """
    return bool((np.isfinite(tensor) | ((tensor == -np.inf) if name in ("mask", "sink") else False)).all())


OP = Attention()
LOG_SUM_EXP = LogSumExp()

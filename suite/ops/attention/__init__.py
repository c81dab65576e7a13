"""attention: see definition.py, bound.py, log_sum_exp.py (its second output), sample.py and kernels/."""

from __future__ import annotations

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
from suite.ops.attention.inputs import AttentionInputs
from suite.ops.attention.sample import sampled_rows
from suite.ops.attention.settings import SETTINGS, SIZES, TENSORS
from suite.ops.attention.settings.base import AttentionSetting, Place, Term
from suite.ops.attention.settings.causal import CAUSAL
from suite.ops.attention.settings.scale import SCALE
from suite.ops.rows import Allowed, RowFacts

AUDITED = 2**23
"""How many products of a query may take part in an audit."""


class Attention(Op[Queries, AttentionFacts]):
    """q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev] to [B, H, L, Ev]; head h reads key head h //
    (H / G). Its options and optional tensors are in settings/.
    """

    name = "attention"
    summary = "sum_j softmax_j(scale q.k_j) v_j over the visible keys j"
    arguments = ("q", "k", "v")
    settings = (*SETTINGS, *SIZES)
    inputs = AttentionInputs()
    upstreams = (UPSTREAM, "upstream_lse")
    differentiable = ("q", "k", "v", *(name for name, one in TENSORS.items() if one.differentiable))
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

    def check_shapes(self, shapes: Shapes) -> None:
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
        shapes = {name: np.shape(tensor) for name, tensor in inputs.items()}
        batches, heads, length, head_size = q.shape
        groups, size = k.shape[1], k.shape[2]
        head, i = np.divmod(rows, max(length, 1))
        batch, head = np.divmod(head, max(heads, 1))
        place = Place(
            batch=batch[:, None],
            head=head[:, None],
            query=i[:, None],
            shape=(batches, heads, length, size),
            offset=CAUSAL.offset(options["causal"], length, size),
        )
        visible = np.ones((len(rows), size), dtype=np.bool_)
        terms: list[Term] = []
        for setting, value in given(inputs, options):
            if setting.name in TENSORS:
                setting.check_tensor(value, shapes)
            shown = setting.visible(value, place)
            if shown is not None:
                visible &= shown
        for setting, value in sorted(given(inputs, options), key=lambda one: one[0].stage):
            term = setting.term(value, place)
            if term is not None:
                terms.append(term)
        of_heads = (
            np.arange(batches)[:, None] * groups + np.arange(heads) // max(heads // groups, 1)
        ).reshape(-1)
        sink = inputs.get("sink")
        return Queries(
            query=q.reshape(batches * heads * length, head_size)[rows],
            key=k.reshape(batches * groups, size, head_size),
            value=v.reshape(batches * groups, size, v.shape[3]),
            group=of_heads[batch * heads + head],
            visible=visible,
            scale=SCALE.factor(options["scale"], head_size),
            terms=tuple(terms),
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


def given(inputs: Mapping[str, Any], options: Options) -> list[tuple[AttentionSetting, Any]]:
    """The settings of a call that are not at their default, with their values."""
    found = []
    for setting in SETTINGS:
        value = inputs.get(setting.name) if setting.name in TENSORS else options[setting.name]
        if value is not None and value is not setting.default:
            found.append((setting, value))
    return found


def visible_pairs(length: int, keys: int, causal: str | None) -> int:
    """How many pairs of a query and a key that it sees a head has."""
    if causal is None:
        return length * keys
    # The last key that each query sees.
    last = np.arange(length) + (keys - length if causal == "bottom_right" else 0)
    return int(np.clip(last + 1, 0, keys).sum())


def _is_finite(name: str, tensor: Any) -> bool:
    """Whether a tensor gives no query a result that is not finite; -inf hides a key, and leaves a
    sink out.
    """
    leaves_out = name in TENSORS and TENSORS[name].minus_infinity_hides
    return bool((np.isfinite(tensor) | ((tensor == -np.inf) if leaves_out else False)).all())


OP = Attention()
LOG_SUM_EXP = LogSumExp()

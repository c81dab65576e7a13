"""Judges what timed calls returned: of large cases some rows, which no kernel can foresee."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.case import Case
from suite.execution.timed import Kept, rolled
from suite.formats import Array, Format
from suite.kernels import Kernel
from suite.ops import get_op
from suite.ops.attention import Attention
from suite.ops.attention.definition import Queries
from suite.oracle import Oracle
from suite.tensors import to_float64
from suite.verdict.judge import Judgement, judge_outputs

JUDGED_ROWS = 64
"""Rows that are judged of the last timed output."""

FURTHER_ROWS = 16
"""Rows that are judged of each single call after it."""


def judge_kept(
    kernel: Kernel,
    case: Case,
    kept: Kept,
    inputs: Mapping[str, NDArray[Any]],
    rows: NDArray[np.intp],
    format: Format,
    oracle: Oracle,
) -> Judgement:
    """Judges an output of a timed call: of a case of rows these rows, which are all that was kept;
    of attention these queries, against all keys; of its gradients those of one of these queries'
    head and of what shares its keys. Of a call on further inputs FURTHER_ROWS of them.

    inputs: of the set that `kept` names.
    """
    op, options = get_op(case.op).of(inputs), case.resolved_options()
    outputs = tuple(to_float64(one) for one in kept.outputs)
    few = np.random.default_rng([kept.set, kept.shift])
    some = np.arange(len(rows)) if kept.timed else drawn_rows(len(rows), few, FURTHER_ROWS)
    if len(case.shape) == 2:
        inputs = _rolled_rows(inputs, rows[some], kept.shift)
        outputs = tuple(one[some] for one in outputs)
    else:
        inputs = {name: rolled(values, kept.shift, np.roll) for name, values in inputs.items()}
        if type(op) is Attention:
            op = _SomeQueries(rows[some])
        elif "k" in inputs:
            inputs, outputs = one_group(inputs, outputs, int(rows[len(rows) // 2]))
    shapes = {name: tuple(values.shape) for name, values in inputs.items()}
    references = oracle.references(op, inputs, options, format, semantics=kernel.semantics)
    return judge_outputs(op, references, outputs, shapes, options, format, kernel.numerics, statistics=False)


def one_group(
    inputs: Mapping[str, NDArray[Any]], outputs: tuple[Array, ...], query: int
) -> tuple[dict[str, NDArray[Any]], tuple[Array, ...]]:
    """Attention's inputs and gradients of the heads that share keys with that of a query, flat in
    [B, H, L]: they depend on nothing else.
    """
    (_, heads, length, _), groups = inputs["q"].shape, inputs["k"].shape[1]
    batch, head = divmod(query // length, heads)

    def of_group(values: Any) -> Any:
        shared = values.shape[1] // groups
        first = head * groups // heads * shared
        return values[batch : batch + 1, first : first + shared]

    return {name: of_group(values) for name, values in inputs.items()}, tuple(
        of_group(one) for one in outputs
    )


class _SomeQueries(Attention):
    """attention of which only some queries, flat in [B, H, L], are judged."""

    def __init__(self, rows: NDArray[np.intp]) -> None:
        self._rows = rows

    def problem(self, inputs: Mapping[str, Array], options: Mapping[str, Any]) -> Queries:
        return self.queries(inputs, options, self._rows)


def drawn_rows(count: int, generator: np.random.Generator, most: int = JUDGED_ROWS) -> NDArray[np.intp]:
    """`most` numbers from 0 to count - 1 in order, the first and the last among them, or all."""
    if count <= most:
        return np.arange(count)
    within = 1 + generator.choice(count - 2, most - 2, replace=False)
    return np.sort(np.concatenate([[0, count - 1], within]))


def rows_taken(inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(values[rows]) for name, values in inputs.items()}


def _rolled_rows(
    inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], shift: int
) -> dict[str, NDArray[Any]]:
    """The rows of rolled() inputs, without rolling the others."""
    taken = rows_taken(inputs, (rows - shift) % len(next(iter(inputs.values()))))
    return {name: np.roll(values, shift, 1) if values.ndim == 2 else values for name, values in taken.items()}

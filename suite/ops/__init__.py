"""The ops: each a definition (mathematics and special values, written once), a bound and kernels, in a folder of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics, Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import Allowed, RowFacts

NAMES = ("softmax", "log_softmax", "logsumexp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """An operation with a definition.

    arguments, outputs: their names. options: the names and defaults of what changes the meaning of a call.
    define: rows of logits [rows, n] to values, in any arithmetic. special: the kind of value at each position.
    bound: facts, declared numerics and the output's format to what is allowed.
    keeps_length: whether the output has the input's shape, or lacks the reduced dimension.
    lower_limit: no exact result is below it. summary: the formula, in one line.
    """

    name: str
    arguments: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    options: Mapping[str, Any] = field(default_factory=lambda: {"dim": -1})
    define: Callable[[Arithmetic, Array], Any]
    special: Callable[[Array, Semantics], NDArray[np.int8]]
    bound: Callable[[RowFacts, Numerics, Format], Allowed]
    keeps_length: bool
    lower_limit: float
    summary: str

    def resolve_options(self, options: Mapping[str, Any] | None, dimensions: int) -> dict[str, Any]:
        """The options with defaults filled in. Raises ValueError for an unknown name or a dim out of range."""
        given = dict(options or {})
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ValueError(f"{self.name} has no option {unknown[0]!r}; valid options: {', '.join(self.options)}")
        resolved = {**self.options, **given}
        dim = resolved["dim"]
        integer = isinstance(dim, int | np.integer) and not isinstance(dim, bool)
        if not integer or not -dimensions <= dim < dimensions:
            raise ValueError(f"dim={dim!r} must be an integer from {-dimensions} to {dimensions - 1}")
        return {**resolved, "dim": int(dim)}

    def rows(self, x: NDArray[Any], options: Mapping[str, Any]) -> NDArray[Any]:
        """x with the reduced dimension last, as [rows, n]."""
        moved = np.moveaxis(x, options["dim"], -1)
        count = int(np.prod(moved.shape[:-1], dtype=np.int64))
        return np.ascontiguousarray(moved).reshape(count, moved.shape[-1])

    def output_shape(self, shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, ...]:
        if self.keeps_length:
            return shape
        dim = options["dim"] % len(shape)
        return shape[:dim] + shape[dim + 1 :]

    def output_rows(self, output: NDArray[Any], options: Mapping[str, Any]) -> NDArray[Any]:
        """An output of the right shape as the rows of the reference: [rows, n], or [rows, 1]."""
        return self.rows(output, options) if self.keeps_length else output.reshape(-1, 1)

    def output_index(self, row: int, column: int, shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, ...]:
        """The index in the output tensor of an entry of its rows; `shape` is the input's."""
        dim = options["dim"] % len(shape)
        others = shape[:dim] + shape[dim + 1 :]
        index = tuple(int(i) for i in np.unravel_index(row, others)) if others else ()
        return (*index[:dim], column, *index[dim:]) if self.keeps_length else index


def get_op(name: str) -> Op:
    """The op of that name. Raises ValueError with the valid names."""
    if name not in NAMES:
        raise ValueError(f"unknown op {name!r}; expected one of {', '.join(NAMES)}")
    op = importlib.import_module(f"suite.ops.{name}").OP
    assert isinstance(op, Op)
    return op

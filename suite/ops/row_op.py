"""Ops of one tensor that work along one dim of it: softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.inputs import OpInputs, RowInputs
from suite.ops.op import Compared, Counts, Mask, Op, Options, Problem, Shapes
from suite.ops.rows import RowFacts, Rows
from suite.settings import Setting, Wording


class RowProblem(Problem, Protocol):
    """Rows of logits, each with a row of the output."""

    @property
    def shown(self) -> Array:
        """[rows, k]: the logits that have an entry in the output."""


def check_dim(dim: Any, dimensions: int) -> int:
    """dim as an int. Raises ValueError where a tensor with so many dimensions has no such dim."""
    integer = isinstance(dim, int | np.integer) and not isinstance(dim, bool)
    if not integer or not -dimensions <= dim < dimensions:
        raise ValueError(f"dim={dim!r} must be an integer from {-dimensions} to {dimensions - 1}")
    return int(dim)


class Dim(Setting):
    """The dim of x that the op works along."""

    name = "dim"
    default = -1
    levels = (-1, 0, 1)
    wordings = (Wording("dim", "dim", "other dim", "along another dim than the last"),)

    def check(self, value: Any, shapes: Shapes) -> int:
        return check_dim(value, len(shapes["x"]))

    def permits(self, level: Any, others: Mapping[str, Any]) -> bool:
        dimensions = others.get("dimensions", 2)
        return bool(-dimensions <= level < dimensions)


DIM = Dim()


def as_rows(x: NDArray[Any], dim: int) -> NDArray[Any]:
    """x with this dim last, as [rows, n]."""
    moved = np.moveaxis(x, dim, -1)
    count = int(np.prod(moved.shape[:-1], dtype=np.int64))
    return np.ascontiguousarray(moved).reshape(count, moved.shape[-1])


def index_of(row: int, column: int, shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """The index in a tensor of this shape of an entry of its rows along `dim`."""
    others = shape[:dim] + shape[dim + 1 :]
    index = tuple(int(i) for i in np.unravel_index(row, others)) if others else ()
    return (*index[:dim], column, *index[dim:])


class RowOp(Op[Rows, RowFacts]):
    """An op of rows of x. A class of its own needs a name, a definition and a bound."""

    arguments = ("x",)
    differentiable = ("x",)
    of_rows = True
    inputs: OpInputs = RowInputs("x")
    settings: tuple[Setting, ...] = (DIM,)

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return int(options["dim"]) % len(shape)

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Rows:
        return Rows(as_rows(inputs["x"], options["dim"]))

    def facts(self, problem: Rows) -> RowFacts:
        return problem.facts()

    def scores(self, facts: RowFacts) -> RowFacts:
        return facts

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        shape = shapes["x"]
        if self.keeps_length:
            return shape
        dim = self.axis(options, shape)
        return shape[:dim] + shape[dim + 1 :]

    def output_rows(self, output: NDArray[Any], problem: Rows, options: Options) -> NDArray[Any]:
        return as_rows(output, options["dim"]) if self.keeps_length else output.reshape(-1, 1)

    def output_index(
        self, row: int, column: int, problem: Rows, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        dim = self.axis(options, shapes["x"])
        index = index_of(row, column, shapes["x"], dim)
        return index if self.keeps_length else index[:dim] + index[dim + 1 :]

    def telling(self, problem: Rows, finite: Mask) -> Mask:
        """All but entries at -inf, which have nothing to be judged by but their exact 0: they say
        nothing of a kernel whose numbers are unjudged.
        """
        return finite & (problem.shown > -np.inf) if self.keeps_length else finite

    def statistics(self, facts: RowFacts, compared: Compared) -> Counts:
        if not self.keeps_length:
            return {}
        return {
            "flushed": int(np.count_nonzero(compared.lost)),
            "inversions": _inversions(facts, compared.y),
        }


def _inversions(facts: RowFacts, y: Array) -> int:
    """Neighbours in the order of x whose outputs are in the wrong order."""
    if y.shape != facts.x.shape:
        return 0  # hidden logits, or nothing to compare
    x_sorted = np.take_along_axis(facts.x, facts.order, axis=1)
    y_sorted = np.take_along_axis(y, facts.order, axis=1)
    return int(np.count_nonzero((x_sorted[:, 1:] > x_sorted[:, :-1]) & (y_sorted[:, 1:] < y_sorted[:, :-1])))

"""The ops: each a definition (mathematics and special values, written once), a bound and kernels,
in a folder of its own.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics, Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import Allowed, RowFacts, Rows

NAMES = ("softmax", "log_softmax", "logsumexp", "cross_entropy", "attention", "merge_states")
"""All ops."""

ROW_OPS = NAMES[:4]
"""Those of rows of logits, which have a tolerance, a profile and thresholds."""

UPSTREAM = "upstream"
"""The input of a backward op that holds the gradient of its forward op's output."""

SECOND = "second"
"""The input of a double backward: the upstream of the gradient that the first backward gives."""

TILES = (128, 64, 32, 16)

Describe = Callable[[NDArray[np.bool_], Array, Array], str]
"""Where a kernel goes wrong, by which entries of the rows fail, the rows, and the exact ones."""

Shapes = Mapping[str, tuple[int, ...]]
Options = Mapping[str, Any]


class Values(NamedTuple):
    """Exact values as rows: hi + lo within radius, where special (suite.ops.rows) says FINITE."""

    hi: Array
    lo: Array
    radius: Array
    special: NDArray[np.int8]


class Op(ABC):
    """An operation with a definition.

    name; arguments: the names of its input tensors, the logits first. optional: those of further
    ones, given by name.
    upstreams: those of the gradients of its outputs, in order. differentiable: those of the inputs
    that have a gradient.
    options: names and defaults of what changes the meaning of a call. keeps_length: the output has the
    logits' shape. lower_limit: no exact result is below it. summary: the formula, in one line.

    A problem holds the inputs of one call in canonical form, as rows (suite.ops.rows.Rows or a
    subclass); facts are what its bound is made of. Both are computed once and shared by every
    kernel that is judged on these inputs.
    """

    name: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    upstreams: ClassVar[tuple[str, ...]] = (UPSTREAM,)
    differentiable: ClassVar[tuple[str, ...]]
    options: ClassVar[Options]
    keeps_length: ClassVar[bool]
    lower_limit: ClassVar[float]
    summary: ClassVar[str]

    def of(self, tensors: Mapping[str, Any]) -> Op:
        """This op; or its backward, where the gradient of an output is among the tensors of a call;
        or its double backward, where the gradient of that is. Raises NotImplementedError where an
        op has none.
        """
        if UPSTREAM not in tensors:
            alone = [name for name in (*self.upstreams, SECOND) if name in tensors]
            if alone:
                raise ValueError(f"{alone[0]} is given without {UPSTREAM}, the gradient of the first output")
            return self
        if SECOND in tensors:
            first = self.of({name: tensor for name, tensor in tensors.items() if name != SECOND})
            doubled: Op = importlib.import_module("suite.ops.double_backward").double_backward(first)
            return doubled
        backward: Op = importlib.import_module(f"suite.ops.{self.name}.backward").backward(
            self.wanted(tensors)
        )
        return backward

    def wanted(self, tensors: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the tensors whose gradients its backward gives, in order: the floating ones
        that have one.
        """
        return tuple(
            name for name in self.differentiable if name in tensors and "bool" not in str(tensors[name].dtype)
        )

    @abstractmethod
    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        """The options in canonical form. Raises ValueError for a value that has no meaning for
        inputs of these shapes.
        """

    @abstractmethod
    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        """The dim of logits of this shape that the op works along, counted from 0."""

    @abstractmethod
    def problem(self, inputs: Mapping[str, Array], options: Options) -> Any:
        """The canonical form of these inputs."""

    @abstractmethod
    def special(self, problem: Any, semantics: Semantics) -> NDArray[np.int8]:
        """[rows, k]: which kind of value the definition has at each position (suite.ops.rows)."""

    @abstractmethod
    def facts(self, problem: Any) -> Any:
        """The ingredients of the bound; rows without a finite largest logit count as zeros."""

    def audited(self, problem: Any, radius: Array) -> NDArray[np.intp]:
        """The rows whose float64 reference is compared with a certified one, as a check of the
        oracle itself; most ops need none, as their bounds are checked on all kinds of rows by
        tests.
        """
        return np.zeros(0, dtype=np.intp)

    def scores(self, facts: Any) -> RowFacts:
        """The facts of what is exponentiated, by which a kernel may declare its domain."""
        rows: RowFacts = facts
        return rows

    @abstractmethod
    def define(self, arithmetic: Arithmetic, problem: Any) -> Any:
        """The values [rows, k] of rows with a finite largest logit, in the numbers of `arithmetic`."""

    @abstractmethod
    def bound(self, facts: Any, numerics: Numerics, target: Format) -> Allowed:
        """What is allowed, in the shape of the rows that define() gives, before rounding to `target`."""

    def reduce(self, problem: Any, rows: Values) -> Values:
        """The output's values from those of the rows; most ops have one for one."""
        return rows

    def reduced_bound(self, facts: Any, numerics: Numerics, target: Format) -> Allowed:
        """What is allowed, in the shape of what reduce() gives."""
        return self.bound(facts, numerics, target)

    @abstractmethod
    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        """The shape of the output for inputs of these shapes."""

    @abstractmethod
    def output_rows(self, output: NDArray[Any], problem: Any, options: Options) -> NDArray[Any]:
        """An output of the right shape as the rows of the reference."""

    @abstractmethod
    def output_index(
        self, row: int, column: int, problem: Any, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        """The index in the output tensor of an entry of its rows."""

    def places(self, failed: NDArray[np.bool_], problem: Any) -> Mapping[str, str]:
        """Where the failing entries [rows, k] sit, in words, by tile size or kind of place."""
        return column_places(failed)

    def marking(self, inputs: Mapping[str, Array]) -> tuple[Mapping[str, Array], Describe] | None:
        """Inputs for one more call of a kernel that failed, and what its output rows then say about
        where; or None.
        """
        return None

    def outputs(self, options: Options) -> tuple[Op, ...]:
        """The ops of the outputs, in order: most have one, their own."""
        return (self,)

    def input_format(self, name: str, format: Format) -> Format:
        """The format of this floating input where the first one has `format`."""
        return format

    def output_format(self, format: Format) -> Format:
        """The format of the output for inputs of this format."""
        return format

    def beyond_rows(self, output: NDArray[Any], problem: Any, options: Options) -> NDArray[np.bool_] | None:
        """Where the reference has a sample of the rows only: which entries of all the output cannot
        be right whatever the reference would be; in the output's shape.
        """
        return None

    def resolve_options(self, options: Options | None, shapes: Shapes) -> dict[str, Any]:
        """The options with defaults filled in. Raises ValueError for an unknown name or a value
        without a meaning.
        """
        given = dict(options or {})
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ValueError(
                f"{self.name} has no option {unknown[0]!r}; valid options: {', '.join(self.options)}"
            )
        return self.check_options({**self.options, **given}, shapes)


def parse_option(op: Op, name: str, text: str) -> Any:
    """The value that a text gives the option, by the type of its default. Raises ValueError where
    it gives none.

    Where the default is None: None, an integer, a number, two of these joined by a comma, or the text itself.
    """
    if op.options[name] is None:
        parts = [_plain(part) for part in text.split(",")]
        return parts[0] if len(parts) == 1 else tuple(parts)
    kind = type(op.options[name])
    if kind is bool:
        if text not in ("True", "False"):
            raise ValueError(f"{name}={text!r} must be True or False")
        return text == "True"
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} must be a {kind.__name__}") from None


def _plain(text: str) -> Any:
    if text == "None":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_dim(dim: Any, dimensions: int) -> int:
    """dim as an int. Raises ValueError where a tensor with so many dimensions has no such dim."""
    integer = isinstance(dim, int | np.integer) and not isinstance(dim, bool)
    if not integer or not -dimensions <= dim < dimensions:
        raise ValueError(f"dim={dim!r} must be an integer from {-dimensions} to {dimensions - 1}")
    return int(dim)


def as_rows(x: NDArray[Any], dim: int) -> NDArray[Any]:
    """x with this dim last, as [rows, n]."""
    moved = np.moveaxis(x, dim, -1)
    count = int(np.prod(moved.shape[:-1], dtype=np.int64))
    return np.ascontiguousarray(moved).reshape(count, moved.shape[-1])


class RowOp(Op):
    """An op of one tensor x that works along one dim: softmax, log_softmax, logsumexp."""

    arguments = ("x",)
    differentiable = ("x",)
    options: ClassVar[Options] = {"dim": -1}

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        return {**options, "dim": check_dim(options["dim"], len(shapes["x"]))}

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return int(options["dim"]) % len(shape)

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Rows:
        return Rows(as_rows(inputs["x"], options["dim"]))

    def facts(self, problem: Rows) -> Any:
        return problem.facts()

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        shape = shapes["x"]
        if self.keeps_length:
            return shape
        dim = self.axis(options, shape)
        return shape[:dim] + shape[dim + 1 :]

    def output_rows(self, output: NDArray[Any], problem: Rows | None, options: Options) -> NDArray[Any]:
        return as_rows(output, options["dim"]) if self.keeps_length else output.reshape(-1, 1)

    def output_index(
        self, row: int, column: int, problem: Rows, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        shape = shapes["x"]
        dim = self.axis(options, shape)
        others = shape[:dim] + shape[dim + 1 :]
        index = tuple(int(i) for i in np.unravel_index(row, others)) if others else ()
        return (*index[:dim], column, *index[dim:]) if self.keeps_length else index


def column_places(failed: NDArray[np.bool_]) -> dict[str, str]:
    """Where in a tile the failures sit, for the largest tile size for which that says more than
    chance would.
    """
    columns = np.nonzero(failed)[1]
    described: dict[str, str] = {}
    for size in TILES:
        if failed.shape[1] <= size or len(columns) < 2 or described:
            continue
        position, counts = np.unique(columns % size, return_counts=True)
        top = int(np.argmax(counts))
        share = counts[top] / len(columns)
        if share >= max(0.5, 4.0 / size):
            described[str(size)] = f"{share:.0%} of the failures at column = {position[top]} (mod {size})"
    return described


def get_op(name: str) -> Op:
    """The op of that name. Raises ValueError with the valid names."""
    if name not in NAMES:
        raise ValueError(f"unknown op {name!r}; expected one of {', '.join(NAMES)}")
    op = importlib.import_module(f"suite.ops.{name}").OP
    assert isinstance(op, Op)
    return op

"""cross_entropy: see definition.py, bound.py and kernels/."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.inputs.targets import Target
from suite.numerics import Numerics, Semantics
from suite.ops import Op, Options, Result, Shapes, TorchKernel, Values
from suite.ops.arithmetic import Arithmetic
from suite.ops.cross_entropy import bound, definition
from suite.ops.cross_entropy.definition import ClassFacts, ClassRows
from suite.ops.cross_entropy.inputs import CrossEntropyInputs
from suite.ops.cross_entropy.settings import IgnoreIndex, LabelSmoothing, Reduction
from suite.ops.row_op import as_rows
from suite.ops.rows import Allowed, RowFacts


class CrossEntropy(Op[ClassRows, ClassFacts]):
    """logits [n], [N, n] or [N, n, ...] with classes in dim 1 (dim 0 of a single row); target:
    class indices (int64, the logits' shape without classes) or class probabilities (the logits'
    shape and format), as torch has them.
    """

    name = "cross_entropy"
    summary = "-sum_c w_c log_softmax(logits)_c over the classes, reduced over the rows"
    arguments = ("logits", "target")
    differentiable = ("logits",)
    settings = (IgnoreIndex(), LabelSmoothing(), Reduction(), Target())
    of_rows = True
    inputs = CrossEntropyInputs("logits")
    result = Result.LOSS  # a difference of logarithms may round to just below 0
    options_by_row = MappingProxyType({"reduction": "none"})
    operations_by_entry = (4, 3)
    torch = TorchKernel("torch.nn.functional.cross_entropy", ("fused",), differentiated="fused")
    measured = ("vanishing",)

    def check_shapes(self, shapes: Shapes) -> None:
        logits, target = shapes["logits"], shapes["target"]
        if not logits:
            raise ValueError("logits has no dim; expected [n], [N, n] or [N, n, ...]")
        dim = self.axis({}, logits)
        if not logits[dim]:
            raise ValueError(
                f"logits of shape {list(logits)} have no class; expected at least one in dim {dim}"
            )
        if target not in (logits, logits[:dim] + logits[dim + 1 :]):
            raise ValueError(
                f"target has shape {list(target)}; logits of shape {list(logits)} need that or [N, ...]"
            )

    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        return 0 if len(shape) == 1 else 1

    def problem(self, inputs: Mapping[str, Array], options: Options) -> ClassRows:
        logits, target = inputs["logits"], np.asarray(inputs["target"])
        dim = self.axis(options, logits.shape)
        x = as_rows(logits, dim)
        probabilities = target.dtype.kind == "f"
        if target.shape != (logits.shape if probabilities else logits.shape[:dim] + logits.shape[dim + 1 :]):
            kind = "class probabilities" if probabilities else "class indices"
            raise ValueError(
                f"target has the shape {list(target.shape)}, which {kind} for logits {list(logits.shape)}"
                " have not"
            )
        if probabilities:
            if not (np.isfinite(target).all() and (target >= 0).all()):
                raise ValueError("target has class probabilities that are negative or not finite")
            weights, kept = as_rows(target, dim), np.ones(len(x), dtype=bool)
            count = len(x)
        else:
            index = target.reshape(-1)
            kept = index != options["ignore_index"]
            count = int(kept.sum())
            wrong = kept & ((index < 0) | (index >= x.shape[1]))
            if wrong.any():
                raise ValueError(
                    f"target has class {int(index[wrong][0])}; expected 0 to {x.shape[1] - 1} or ignore_index"
                )
            weights = np.zeros(x.shape)
            weights[np.flatnonzero(kept), index[kept]] = 1.0
        divisor = {"none": None, "sum": 1, "mean": count}[options["reduction"]]
        return ClassRows(
            x=x, weights=weights, kept=kept, smoothing=options["label_smoothing"], divisor=divisor
        )

    def special(self, problem: ClassRows, semantics: Semantics) -> NDArray[np.int8]:
        return definition.special(problem)

    def facts(self, problem: ClassRows) -> ClassFacts:
        return definition.facts(problem)

    def scores(self, facts: ClassFacts) -> RowFacts:
        return facts.rows

    def define(self, arithmetic: Arithmetic, problem: ClassRows) -> Any:
        return definition.define(arithmetic, problem)

    def bound(self, facts: ClassFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.bound(facts, numerics, target)

    def reduce(self, problem: ClassRows, rows: Values) -> Values:
        return definition.reduce(problem, rows)

    def reduced_bound(self, facts: ClassFacts, numerics: Numerics, target: Format) -> Allowed:
        return bound.reduced_bound(facts, numerics, target)

    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        if options["reduction"] != "none":
            return ()
        logits = shapes["logits"]
        dim = self.axis(options, logits)
        return logits[:dim] + logits[dim + 1 :]

    def output_rows(self, output: NDArray[Any], problem: ClassRows, options: Options) -> NDArray[Any]:
        return output.reshape(-1, 1)

    def output_index(
        self, row: int, column: int, problem: ClassRows, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        shape = self.output_shape(shapes, options)
        return tuple(int(i) for i in np.unravel_index(row, shape)) if shape else ()


OP = CrossEntropy()

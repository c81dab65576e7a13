"""softmax: see definition.py, bound.py and kernels/."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from suite.formats import Array
from suite.ops import Compared, Options, Result, TorchKernel
from suite.ops.op import Counts, Mask
from suite.ops.row_op import DIM, RowOp, as_rows
from suite.ops.rows import RowFacts, Rows
from suite.ops.softmax.bound import bound
from suite.ops.softmax.definition import define, special
from suite.ops.softmax.settings import OffByOne, Temperature


class Softmax(RowOp):
    """Rows of x / temperature along dim."""

    name = "softmax"
    summary = "exp(x_i) / sum_j exp(x_j)"
    settings = (DIM, Temperature(), OffByOne())
    result = Result.PROBABILITY
    keeps_length = True
    lower_limit = 0.0
    operations_by_entry = (5, 4)
    torch = TorchKernel("torch.softmax", ("fused",), differentiated="fused")
    measured = ("exponential", "thresholds", "tolerance", "vanishing")
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Rows:
        x = as_rows(inputs["x"], options["dim"])
        if options["off_by_one"]:
            x = np.concatenate([x, np.zeros((len(x), 1))], axis=1)
        return Rows(x, temperature=options["temperature"], hidden=int(options["off_by_one"]))

    def vanished(self, facts: RowFacts) -> Mask:
        """Far behind the largest logit: e^-800 is below every float64."""
        return np.asarray(facts.shown(facts.gap) > 800)

    def statistics(self, facts: RowFacts, compared: Compared) -> Counts:
        below_one = facts.shown(facts.probability) < 1
        saturated = int(np.count_nonzero(compared.finite & (compared.y == 1) & below_one))
        return {**super().statistics(facts, compared), "saturated": saturated}

    def row_note(self, row: Array) -> str:
        return f"sums to {row.sum():.6g}"


OP = Softmax()

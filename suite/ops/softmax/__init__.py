"""softmax: see definition.py, bound.py and kernels/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from suite.formats import Array
from suite.ops import Options, RowOp, Shapes, as_rows
from suite.ops.rows import Rows
from suite.ops.softmax.bound import bound
from suite.ops.softmax.definition import define, special


class Softmax(RowOp):
    """Options: dim; temperature, a finite number above 0; off_by_one, for one more exp(0) in the
    denominator.
    """

    name = "softmax"
    options: ClassVar[Options] = {"dim": -1, "temperature": 1.0, "off_by_one": False}
    keeps_length = True
    lower_limit = 0.0
    summary = "exp(x_i) / sum_j exp(x_j)"
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        temperature, off_by_one = options["temperature"], options["off_by_one"]
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not number or not 0 < temperature < float("inf"):
            raise ValueError(f"temperature={temperature!r} must be a finite number above 0")
        if not isinstance(off_by_one, bool):
            raise ValueError(f"off_by_one={off_by_one!r} must be True or False")
        return {**super().check_options(options, shapes), "temperature": float(temperature)}

    def problem(self, inputs: Mapping[str, Array], options: Options) -> Rows:
        x = as_rows(inputs["x"], options["dim"])
        if options["off_by_one"]:
            x = np.concatenate([x, np.zeros((len(x), 1))], axis=1)
        return Rows(x, temperature=options["temperature"], hidden=int(options["off_by_one"]))


OP = Softmax()

"""softmax(x)_i = exp(x_i - m) / sum_j exp(x_j - m), m = max x, which is exp(x_i) / sum_j exp(x_j) for every finite m.

Special values: -inf gives exactly 0; a row with NaN or +inf, or all -inf, gives a NaN row (zeros for all -inf where
empty_row = "zero" is declared).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.numerics import Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import FINITE, NAN


def define(arithmetic: Arithmetic, x: Array) -> Any:
    """softmax of each row of x [rows, n] (float64, largest entry finite, -inf allowed), in the numbers of `arithmetic`."""
    e = arithmetic.shifted_exp(x)
    return e / arithmetic.row_sum(e)


def special(x: Array, semantics: Semantics) -> NDArray[np.int8]:
    """[rows, n]: which kind of value the definition has at each position."""
    largest = x.max(axis=1, initial=-np.inf)
    empty = (largest == -np.inf) & (semantics.empty_row == "nan")
    not_a_number = np.isnan(largest) | (largest == np.inf) | empty
    return np.broadcast_to(np.where(not_a_number, NAN, FINITE)[:, None], x.shape).astype(np.int8)

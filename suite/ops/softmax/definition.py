"""softmax(x)_i = exp(x_i - m) / sum_j exp(x_j - m), m = max x, which is exp(x_i) / sum_j exp(x_j)
for every finite m.

With a temperature T, of x / T. Off by one, the denominator has one more term, exp(0) = 1: the same
as a further logit 0 without an output (Miller, "Attention is off by one", 2023; the softmax1 of
quiet attention).

Special values: -inf gives exactly 0; a row with NaN or +inf, or all -inf, gives a NaN row (zeros
for all -inf where empty_row = "zero" is declared). Off by one, a row of -inf has a finite logit
still, and gives zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.numerics import Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.rows import Rows
from suite.ops.special import Special


def define(arithmetic: Arithmetic, problem: Rows) -> Any:
    """softmax of each row of x [rows, n] (float64, largest entry finite, -inf allowed), in the
    numbers of `arithmetic`.
    """
    e = arithmetic.shifted_exp(problem.x, problem.temperature)
    return (e / arithmetic.row_sum(e))[:, : problem.shown.shape[1]]


def special(problem: Rows, semantics: Semantics) -> NDArray[np.int8]:
    """[rows, n]: which kind of value the definition has at each position."""
    largest = problem.x.max(axis=1, initial=-np.inf)
    empty = (largest == -np.inf) & (semantics.empty_row == "nan")
    not_a_number = np.isnan(largest) | (largest == np.inf) | empty
    return np.broadcast_to(
        np.where(not_a_number, Special.NAN, Special.FINITE)[:, None], problem.shown.shape
    ).astype(np.int8)

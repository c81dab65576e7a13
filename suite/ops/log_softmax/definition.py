"""log_softmax(x)_i = (x_i - m) - log sum_j exp(x_j - m), m = max x.

Special values: -inf gives -inf; a row with NaN, or all -inf, gives a NaN row; a row with +inf gives
NaN, where -inf is as good anywhere but at the +inf.
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
    """log_softmax of each row of x [rows, n] (float64, largest entry finite), in the numbers of
    `arithmetic`; 0 at -inf.
    """
    log_total = arithmetic.log(arithmetic.row_sum(arithmetic.shifted_exp(problem.x)))
    return arithmetic.shifted(problem.x) - log_total


def special(problem: Rows, semantics: Semantics) -> NDArray[np.int8]:
    """[rows, n]: which kind of value the definition has at each position."""
    x = problem.x
    largest = x.max(axis=1, initial=-np.inf)[:, None]
    codes = np.where(x == -np.inf, Special.NEGATIVE_INFINITY, Special.FINITE)
    codes = np.where(
        largest == np.inf, np.where(x == np.inf, Special.NAN, Special.NAN_OR_NEGATIVE_INFINITY), codes
    )
    return np.where(np.isnan(largest) | (largest == -np.inf), Special.NAN, codes).astype(np.int8)

"""logsumexp(x) = m + log sum_j exp(x_j - m), m = max x.

Special values: an empty row or a row of -inf gives -inf; +inf without NaN gives +inf; NaN gives NaN.
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
    """logsumexp of each row of x [rows, n] (float64, largest entry finite), [rows, 1] in the
    numbers of `arithmetic`.
    """
    total = arithmetic.row_sum(arithmetic.shifted_exp(problem.x))
    return arithmetic.lift(problem.x.max(axis=1, keepdims=True)) + arithmetic.log(total)


def special(problem: Rows, semantics: Semantics) -> NDArray[np.int8]:
    """[rows, 1]: which kind of value the definition has for each row."""
    largest = problem.x.max(axis=1, initial=-np.inf)[:, None]
    codes = np.where(largest == -np.inf, Special.NEGATIVE_INFINITY, Special.FINITE)
    codes = np.where(largest == np.inf, Special.POSITIVE_INFINITY, codes)
    return np.where(np.isnan(largest), Special.NAN, codes).astype(np.int8)

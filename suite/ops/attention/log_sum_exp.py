"""attention's log-sum-exp: lse = m + log(sum_j exp(s_j - m) + exp(sink - m)), over the visible keys
j, natural.

Special values: a query without a visible key gives -inf, with a sink the sink; NaN in q or in a
visible k gives NaN, an score of +inf gives NaN or +inf.

Its bound is logsumexp's (docs/verdict.md, 4), which is absolute, and what the scores are wrong by:
sum_j p_j (e^t_j - 1), t_j being the error of score j.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Format
from suite.numerics import Numerics
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention.bound import score_error
from suite.ops.attention.definition import AttentionFacts, Queries, weights
from suite.ops.logsumexp.bound import bound as bound_of_scores
from suite.ops.rows import Allowed
from suite.ops.special import Special

LAG = 8 * math.log(2)
"""How far a maximum may lag behind, where it moves only when it grows by more (FlashAttention-4):
lse is then the sum of a smaller m and a larger logarithm, which are rounded by themselves.
"""


def special(problem: Queries) -> NDArray[np.int8]:
    """[rows, 1]: which kind of value the definition has for each query."""
    largest = problem.x.max(axis=1, initial=-np.inf)
    code = np.where(largest == -np.inf, Special.NEGATIVE_INFINITY, Special.FINITE)
    code = np.where(largest == np.inf, Special.NAN_OR_POSITIVE_INFINITY, code)
    wrong = problem.visible.any(axis=1) & np.isnan(problem.query).any(axis=1) | np.isnan(largest)
    return np.where(wrong, Special.NAN, code)[:, None].astype(np.int8)


def define(arithmetic: Arithmetic, problem: Queries) -> Any:
    """[rows, 1] of queries with a finite largest score, in the numbers of `arithmetic`."""
    output: Any = arithmetic.lift(np.zeros((len(problem.query), 1)))
    for group in np.unique(problem.group):
        rows = np.flatnonzero(problem.group == group)
        _, total, maximum = weights(arithmetic, problem.take(rows), problem.key[group])
        output[rows] = maximum + arithmetic.log(total)
    return output


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: AttentionFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each query's log-sum-exp, [rows, 1], before rounding to the
    format `target`.
    """
    exact = bound_of_scores(facts.rows, replace(numerics, shift="folded"), target)
    p = facts.rows.probability
    wrong = np.where(p > 0, p * np.expm1(score_error(facts, numerics, target)), 0.0).sum(
        axis=1, keepdims=True
    )
    u = numerics.arithmetic(target).unit_roundoff
    lagging = u * (3.25 + 2 * numerics.log_ulp) * LAG
    absolute = exact.absolute + lagging + np.where(wrong < 0.5, wrong / (1 - wrong), np.inf)
    return Allowed(absolute, may_overflow=exact.may_overflow)

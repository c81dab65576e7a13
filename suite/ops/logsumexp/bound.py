"""The bound of logsumexp, an absolute one (docs/verdict.md, section 4):

    u (3.25 max(|m|, |y|) + 8 ln s + 2) + (relative error of s),    m = max x, y = logsumexp(x)

3.25 admits the base-2 form (m log2 e + log2 s) ln 2 with a rounded constant on either side. Near y
= 0 the result has no relative accuracy in any kernel, so ulps are shown and never judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.formats import Array, Format
from suite.numerics import Numerics
from suite.ops.rows import LOG2_E, Allowed, RowFacts, total_error, underflow_scale


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: RowFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each row's logsumexp, [rows, 1], before rounding to the format
    `target`.
    """
    u = numerics.arithmetic(target).unit_roundoff
    log_error = 2 * numerics.log_ulp
    y = np.abs(facts.log_sum_exp)
    total = total_error(facts, numerics, target)
    rounding = 3.25 * u * np.maximum(np.abs(facts.maximum), y) + u * (log_error * facts.log_total + 2)
    if numerics.shift == "none":
        rounding = rounding + u * log_error * y
    stored = numerics.format_of("probabilities", target)
    if stored is not None:
        rounding = rounding + stored.unit_roundoff * facts.log_total

    eta, scale = underflow_scale(facts, numerics, target)
    total = total + eta * facts.visible * scale
    absolute = rounding + total / (1 - np.minimum(total, 0.5)) + eta
    # Beyond largest / log2(e) the base-2 form overflows on its way to an infinity of m's sign,
    # accepted there besides.
    overflows = LOG2_E * np.abs(facts.maximum) >= numerics.arithmetic(target).largest
    meaningful = (total < 0.5) & (rounding < 0.5 * np.maximum(1.0, y))
    return Allowed(np.where(meaningful, absolute, np.inf), may_overflow=overflows)


@np.errstate(over="ignore", invalid="ignore")
def common_error(facts: RowFacts, numerics: Numerics, target: Format) -> Array:
    """[rows]: the relative error that all weights exp(x_j - lse) of a row share, that of the lse
    subtracted; 0 where a kernel does not declare that it subtracts lse.
    """
    if numerics.shift != "lse":
        return np.zeros(len(facts.x))
    u = numerics.arithmetic(target).unit_roundoff
    subtracted = bound(facts, replace(numerics, shift="folded"), target).absolute[:, 0]
    rounding = u * (np.abs(facts.log_sum_exp) + facts.log_total + 2 * numerics.exp_ulp)[:, 0]
    return np.asarray(np.expm1(subtracted + rounding))

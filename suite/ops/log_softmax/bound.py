"""The bound of log_softmax, an absolute one: the result is a logarithm, so a relative error of the
sum is absolute here.

    u (2.25 (D_i + |z_i|) + 9 ln s) + (relative error of s),    z_i = log_softmax(x)_i
        (docs/verdict.md, section 3)

Rounding x - max x costs u D_i, the base-2 form ((x - m) log2 e - log2 s) ln 2 another 1.25 u (D_i +
|z_i|); the last subtraction rounds to u |z_i|. The form x - lse costs u |lse| more and must be
declared (shift = "lse"); stored exponentials (`probabilities`) cost a rounding of their sum and one
of its logarithm.
"""

from __future__ import annotations

import numpy as np

from suite.formats import Format
from suite.numerics import Numerics
from suite.ops.rows import LOG2_E, Allowed, RowFacts, total_error, underflow_scale


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: RowFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each entry of log_softmax, [rows, n], before rounding to the
    format `target`.
    """
    u = numerics.arithmetic(target).unit_roundoff
    gap = facts.finite_gap
    result = gap + facts.log_total
    total = total_error(facts, numerics, target)
    rounding = 2.25 * u * gap + 2.25 * u * result + u * (2 * numerics.log_ulp + 1) * facts.log_total
    if numerics.shift in ("lse", "none"):
        rounding = rounding + u * (2 * np.abs(facts.log_sum_exp) + np.abs(facts.maximum) + result)
    stored = numerics.format_of("probabilities", target)
    if stored is not None:
        log = np.abs(facts.log_sum_exp) if numerics.shift in ("lse", "none") else facts.log_total
        rounding = rounding + stored.unit_roundoff * log
    scores = numerics.format_of("scores", target)
    if scores is not None:
        rounding = rounding + scores.unit_roundoff * (gap + result)

    eta, scale = underflow_scale(facts, numerics, target)
    total = total + eta * facts.visible * scale
    absolute = rounding + total / (1 - np.minimum(total, 0.5)) + eta
    # Beyond largest / log2(e) the base-2 form overflows on its way to -inf, which is accepted there besides.
    overflows = LOG2_E * gap >= numerics.arithmetic(target).largest
    meaningful = (total < 0.5) & (rounding < 0.5 * np.maximum(1.0, result))
    return Allowed(np.where(meaningful, absolute, np.inf), may_overflow=overflows & (facts.x > -np.inf))

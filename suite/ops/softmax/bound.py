"""The bound of softmax: relative error U_i u, with (docs/verdict.md, section 2)

    U_i = 3.25 D_i + 2.25 Dbar + 6 ([D_i > 0] + 1 - q) + sigma + 7 rho + 10 ln s + 5

for every algorithm whose error depends on x only through max x - x. Declared numerics add their own terms.
"""

from __future__ import annotations

import numpy as np

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics
from suite.ops.rows import Allowed, RowFacts, total_error, underflow_scale


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: RowFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each entry of softmax, [rows, n], before rounding to the format
    `target`.
    """
    p = facts.probability
    relative = relative_error(facts, numerics, target)
    eta, scale = underflow_scale(facts, numerics, target)
    absolute = p * (relative / (1 - relative) + eta * scale * facts.visible) + eta * (scale + 1)
    flush_below = compute_format(target).smallest_normal * (1 + relative)
    meaningless = ~(relative < 0.5)
    if meaningless.any():
        # A first-order bound says nothing from one half on, except that a result which even exp(2 U
        # u) cannot lift out of the underflow is 0: the far tail of a row with a large negative
        # sentinel stays judged.
        gone = -facts.gap - facts.log_total + 2 * relative < np.log(eta) - 1
        tail = eta * ((1 + facts.visible * p) * scale + 1)
        absolute = np.where(meaningless, np.where(gone, tail, np.inf), absolute)
        flush_below = np.where(meaningless, 0.0, flush_below)
    return Allowed(facts.shown(np.where(facts.x > -np.inf, absolute, 0.0)), facts.shown(flush_below))


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def relative_error(facts: RowFacts, numerics: Numerics, target: Format) -> Array:
    """U_i u of a kernel with these numerics, first order, [rows, n]."""
    u = numerics.arithmetic(target).unit_roundoff
    exp_error, log_error = 2 * numerics.exp_ulp, 2 * numerics.log_ulp
    gap = facts.finite_gap

    of_row = total_error(facts, numerics, target) + u * ((log_error + 2) * facts.log_total + 5)
    if numerics.shift == "none":
        magnitude = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0) / facts.temperature
        of_entry = facts.argument_roundings * u * magnitude + u * exp_error
    else:
        of_entry = (facts.argument_roundings + 1) * u * gap + u * exp_error * (gap > 0)
    if numerics.shift == "lse":
        of_row = of_row + 2 * u * np.abs(facts.log_sum_exp)
        of_entry = of_entry + u * (gap + facts.log_total)
    if numerics.shift == "folded":
        of_row = of_row + 2 * u * np.abs(facts.maximum)
    stored = numerics.format_of("probabilities", target)
    if stored is not None:
        of_row = of_row + stored.unit_roundoff
    scores = numerics.format_of("scores", target)
    if scores is not None:
        of_entry = of_entry + scores.unit_roundoff * gap
    return np.asarray(of_row + of_entry)

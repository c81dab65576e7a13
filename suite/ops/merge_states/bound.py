"""The bound of a merged output (docs/verdict.md, 15), first order, in units of u of the arithmetic.
With weights p_a, p_b, the merged output O, the larger log-sum-exp m and gaps D = m - lse:

    exponents   theta = 2.25 D + 6 [D > 0] + 2 |m|                           (|m|: base two, folded exponents)
    weights     sum_j p_j (e^theta_j - 1) |o_j - O| / (1 - sum_j p_j (e^theta_j - 1))
    sums        3 sum_j p_j |o_j| + 4 |O|
    shift lse   |O| (e^tau - 1),  tau = |lse| + ln s + ...
                (declared: both weights share the error of lse)

lse has logsumexp's bound. Outputs are merged in the arithmetic, float32 for 16-bit ones, and rounded once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.formats import Format, compute_format
from suite.numerics import Numerics
from suite.ops.logsumexp.bound import bound as bound_of_scores
from suite.ops.logsumexp.bound import common_error
from suite.ops.merge_states.definition import StateFacts
from suite.ops.rows import Allowed


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: StateFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of o, [rows, E], before rounding to the format `target`."""
    arithmetic, rows, value = numerics.arithmetic(target), facts.rows, facts.value
    u = arithmetic.unit_roundoff
    error = 2 * numerics.exp_ulp
    theta = u * (2.25 * rows.finite_gap + error * (rows.gap > 0) + 2 * np.abs(rows.maximum))
    p = rows.probability
    grown = np.where(p > 0, p * np.expm1(theta), 0.0)
    kappa = grown.sum(axis=1)[:, None]
    output = np.einsum("rj,rje->re", p, value)
    mass = np.einsum("rj,rje->re", p, np.abs(value))
    weights = np.einsum("rj,rje->re", grown, np.abs(value - output[:, None])) / (1 - kappa)
    stored = numerics.format_of("probabilities", target)
    cast = 2 * stored.unit_roundoff * mass if stored is not None else 0.0
    common = common_error(rows, numerics, target)[:, None] * np.abs(output)
    tail = arithmetic.smallest_normal * np.abs(value).sum(axis=1) + 2 * arithmetic.smallest_subnormal
    absolute = np.where(
        kappa < 0.5,
        weights + u * (3 * mass + 4 * np.abs(output)) * (1 + kappa) + common + cast + tail,
        np.inf,
    )
    return Allowed(absolute, np.full(absolute.shape, compute_format(target).smallest_normal))


def bound_of_log_sum_exp(facts: StateFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of lse, [rows, 1], before rounding to the format `target`."""
    return bound_of_scores(facts.rows, replace(numerics, shift="folded"), target)

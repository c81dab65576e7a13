"""The bound of attention (docs/verdict.md, 14), first order, in units of u of the arithmetic. With
weights p_j, output O, largest score m, gaps D_j = m - s_j, M_j = |scale| sum_t |q_t k_jt| + what
ALiBi and a mask add:

    score    theta_j = 2.25 D_j + 6 [D_j > 0] + 7 rho_j + 2 |m| + (E + 3) M_j
             (rho_j: rescales that key j can meet)
    weights     sum_j p_j (e^theta_j - 1) |v_j - O| / (1 - sum_j p_j (e^theta_j - 1))
    shift lse   |O| (e^tau - 1),  tau = |lse| + ln s + ...   (declared: all weights share the error of lse)
    sums        sum_j p_j |v_j| (sigma + rho_j + 2) + |O| (sigma + rho + 4)
                (sigma: of a sum in any order)
    P stored    u_P max(sum_j p_j |v_j|, sum_j p_j |v_j - O|)
                (P in the tensors' own format)

Errors of scores act through |v_j - O|: a constant value hides them, and an error that all weights
share does nothing. The folded exponent fma(s, c, -m c) with its 2 |m| is what fused kernels do, so
it is the default here.
"""

from __future__ import annotations

import numpy as np

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics
from suite.ops.attention.definition import AttentionFacts
from suite.ops.logsumexp.bound import common_error
from suite.ops.rows import Allowed


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: AttentionFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each entry of the output [rows, Ev], before rounding to the
    format `target`.
    """
    arithmetic = numerics.arithmetic(target)
    problem, rows, u = facts.problem, facts.rows, arithmetic.unit_roundoff
    stored = numerics.format_of("probabilities", target) or (
        target if target.bits < arithmetic.bits else arithmetic
    )
    keys = problem.visible.shape[1]

    theta = weight_error(facts, numerics, target)
    p, x = rows.probability, rows.x
    # A weight that not even its error lifts out of the underflow counts as its own size, and as
    # nothing that exp could give.
    gone = -rows.gap + theta < np.log(arithmetic.smallest_normal)
    grown = np.where(p > 0, p * np.expm1(np.where(gone, 0.0, theta)), 0.0) + np.where(
        gone & (x > -np.inf), p + arithmetic.smallest_normal, 0.0
    )
    kappa = grown.sum(axis=1)
    # Twice: torch's vectorised exp on CPU gives 0 from 2^-125.5 on, just above the smallest normal number.
    tail = 2 * arithmetic.smallest_normal + stored.smallest_subnormal
    common = common_error(facts.rows, numerics, target)
    sigma_total = rows.summation(u)[:, 0]
    absolute = np.full((len(p), problem.value.shape[2]), np.inf)
    for row in range(len(p)):
        seen = problem.visible[row]
        if not seen.any():
            absolute[row] = 0.0
        if not seen.any() or not kappa[row] < 0.5:
            continue
        v = np.where(np.isfinite(value := problem.value[problem.group[row]][seen]), value, 0.0)
        weight, more, rescaled = p[row, :keys][seen], grown[row, :keys][seen], rows.larger[row, :keys][seen]
        output = weight @ v
        magnitude, deviation = np.abs(v), np.abs(v - output)
        mass = weight @ magnitude
        lost = np.minimum(weight[:, None] * magnitude, u * mass).sum(axis=0)
        weights = more @ deviation / (1 - kappa[row])
        if problem.sink is not None:
            weights = weights + grown[row, keys] * np.abs(output) / (1 - kappa[row])
        sums = lost + u * ((weight * (rescaled + 2)) @ magnitude)
        sums = sums + u * np.abs(output) * (sigma_total[row] + rows.rescales[row, 0] + 4)
        cast = stored.unit_roundoff * np.maximum(mass, weight @ deviation)
        absolute[row] = (
            common[row] * np.abs(output)
            + weights
            + (sums + cast) * (1 + kappa[row])
            + tail * magnitude.sum(axis=0)
            + arithmetic.smallest_subnormal * len(v)
        )
    flush_below = np.full(absolute.shape, compute_format(target).smallest_normal)
    return Allowed(absolute, flush_below)


def weight_error(facts: AttentionFacts, numerics: Numerics, target: Format) -> Array:
    """theta_j [rows, n]: the error of the score of each weight relative to that of the largest."""
    rows = facts.rows
    u = numerics.arithmetic(target).unit_roundoff
    error = 2 * numerics.exp_ulp
    theta = u * (
        2.25 * rows.finite_gap + error * (rows.gap > 0) + (error + 1) * rows.larger + 2 * np.abs(rows.maximum)
    )
    theta = theta + score_error(facts, numerics, target)
    return np.asarray(np.where(rows.x > -np.inf, theta, 0.0))


def score_error(facts: AttentionFacts, numerics: Numerics, target: Format) -> Array:
    """[rows, n]: the error of each score before anything is subtracted from it; a sink has none."""
    problem = facts.problem
    u = numerics.arithmetic(target).unit_roundoff
    head = problem.query.shape[1]
    raw, magnitude = u * (head + 3) * facts.products, facts.products
    for term in problem.terms:
        raw, magnitude = term.error(raw, magnitude, numerics, u)
    raw = raw + 3 * u * facts.added
    scores = numerics.format_of("scores", target)
    if scores is not None:
        raw = raw + 2 * scores.unit_roundoff * (magnitude + facts.added)
    return raw if problem.sink is None else np.concatenate([raw, np.zeros((len(raw), 1))], axis=1)

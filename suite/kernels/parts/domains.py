"""Where kernels work whose exponents are not differences of logits: theory, for the domains that
they declare.
"""

from __future__ import annotations

import numpy as np

from suite.formats import Format, compute_format
from suite.kernels import Domain
from suite.ops.rows import LOG2_E, RowFacts

GUARD = 8.0


def unshifted_domain(facts: RowFacts, format: Format) -> Domain:
    """The sum of exp(x_j) in `format` overflows iff lse > ln Omega, and is 0 iff every x_j < -(p -
    emin) ln 2.

    Within GUARD roundings of a threshold either side may happen; between -emin ln 2 and (p - emin)
    ln 2 below zero the exponentials are subnormal, or 0 on a device that flushes. Where a base-2
    form would overflow, so may any result.
    """
    margin = GUARD * format.unit_roundoff
    lse, largest = facts.log_sum_exp[:, 0], facts.maximum[:, 0]
    overflows = (lse > format.ln_omega + margin) & (LOG2_E * np.abs(lse) < format.largest)
    vanishes = largest < -format.exp_underflow - margin
    works = (lse < format.ln_omega - margin) & (largest > -format.exp_subnormal + margin)
    return Domain(
        np.asarray(works), np.asarray(overflows | vanishes), "exp(x) without a shift leaves the format"
    )


def cancelling_domain(facts: RowFacts, format: Format) -> Domain:
    """exp2(fma(x, c, -fl(m c))) is 2^r at the maximum, r the rounding error of m c: it overflows
    once r exceeds 127.

    It works while r < 64, and may go either way beyond (pytorch/pytorch#100775).
    """
    limit = 64 / (LOG2_E * compute_format(format).unit_roundoff)
    works = np.abs(facts.maximum[:, 0]) < min(limit, compute_format(format).largest / 2)
    return Domain(
        np.asarray(works), np.zeros_like(works), "the rounding error of max x * log2(e) alone overflows exp2"
    )


def product_domain(facts: RowFacts, format: Format) -> Domain:
    """x log2(e) must not overflow: it works for |x| below half of the largest number, and may go
    either way beyond.
    """
    visible = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0).max(axis=1)
    works = visible < compute_format(format).largest / 2
    return Domain(np.asarray(works), np.zeros_like(works), "x * log2(e) overflows")

"""Where a kernel that takes exp(x) without a shift works: theory, for the domains of the naive kernels."""

from __future__ import annotations

import numpy as np

from suite.formats import Format
from suite.kernels import Domain
from suite.ops.rows import RowFacts

GUARD = 8.0


def unshifted_domain(facts: RowFacts, format: Format) -> Domain:
    """The sum of exp(x_j) in `format` overflows iff lse > ln Omega, and is 0 iff every x_j < -(p - emin) ln 2.

    Within GUARD roundings of a threshold either side may happen; between -emin ln 2 and (p - emin) ln 2 below zero the
    exponentials are subnormal, or 0 on a device that flushes.
    """
    margin = GUARD * format.unit_roundoff
    lse, largest = facts.log_sum_exp[:, 0], facts.maximum[:, 0]
    overflows = lse > format.ln_omega + margin
    vanishes = largest < -format.exp_underflow - margin
    works = (lse < format.ln_omega - margin) & (largest > -format.exp_subnormal + margin)
    return Domain(np.asarray(works), np.asarray(overflows | vanishes), "exp(x) without a shift leaves the format")

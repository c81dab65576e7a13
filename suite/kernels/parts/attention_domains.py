"""Where attention kernels work whose exponents are not differences of scores. facts: of the scores,
a sink's among them.

None says where it must fail: what a row gives there depends on its values, and a sink has none.
"""

from __future__ import annotations

import numpy as np

from suite.formats import Format, compute_format
from suite.kernels import Domain
from suite.ops.rows import LOG2_E, RowFacts

GUARD = 1.0
"""How far a computed score may be from the exact one, wherever it decides anything."""


def unshifted_domain(facts: RowFacts, format: Format) -> Domain:
    """sum exp(s_j) must be finite. With a largest s of at least 0 it is also no less than 1, so
    that what underflows is as little as it is to a shifted kernel.
    """
    lse, largest = facts.log_sum_exp[:, 0], facts.maximum[:, 0]
    works = (lse < compute_format(format).ln_omega - GUARD) & (largest >= GUARD)
    return Domain(np.asarray(works), np.zeros_like(works), "exp(s) without a shift leaves the format")


def folded_domain(facts: RowFacts, format: Format) -> Domain:
    """exp2(fma(s, c, -fl(m c))), for the m of every block: it works while the rounding error of m c
    is below 64.
    """
    arithmetic = compute_format(format)
    visible = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0).max(axis=1)
    works = visible < 64 / (LOG2_E * arithmetic.unit_roundoff)
    return Domain(
        np.asarray(works), np.zeros_like(works), "the rounding error of max s * log2(e) alone overflows exp2"
    )

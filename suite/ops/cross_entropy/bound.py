"""The bound of cross_entropy, an absolute one. A row's loss is a sum of share_c l_c with l_c =
-log_softmax(z)_c:

    sum_c share_c (bound of log_softmax at c) + u (sigma + 5) loss
        (docs/verdict.md, section 5)

With a declared shift of "lse" or "none" the sums of z and of lse count in the place of their differences.
sigma: the additions, as for every sum of terms of one sign; 5: the roundings of weights, smoothing
and products. A reduction adds the rows' bounds, and u (sigma + 3) times the sum of the losses for
its own additions and its division. Sums of finite terms overflow on the way to a finite mean, of
all surprisals for smoothing and of all losses: inf passes there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics
from suite.ops.cross_entropy.definition import ClassFacts
from suite.ops.log_softmax.bound import bound as log_softmax_bound
from suite.ops.rows import Allowed


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(facts: ClassFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each row's loss, [rows, 1], before rounding to the format `target`."""
    arithmetic = numerics.arithmetic(target)
    of_class = log_softmax_bound(facts.rows, numerics, target)
    inherited = np.where(facts.share > 0, facts.share * of_class.absolute, 0.0).sum(axis=1, keepdims=True)
    additions = np.maximum(_additions(facts.terms, arithmetic), _additions(facts.share, arithmetic))
    added = facts.loss
    if numerics.shift in ("lse", "none"):  # the sums may be of z and of lse, not of their differences
        logits = np.where(facts.share > 0, facts.share * np.abs(facts.x), 0.0)
        added = added + logits.sum(axis=1, keepdims=True)
        added = added + facts.share.sum(axis=1, keepdims=True) * np.abs(facts.rows.log_sum_exp)
        additions = np.maximum(additions, _additions(logits, arithmetic))
    absolute = inherited + arithmetic.unit_roundoff * (additions + 5) * added + arithmetic.smallest_subnormal
    ignored = facts.share.sum(axis=1, keepdims=True) == 0
    overflows = _overflows(facts.spread, arithmetic)
    if of_class.may_overflow is not None:
        overflows |= (of_class.may_overflow & (facts.share > 0)).any(axis=1, keepdims=True)
    return Allowed(np.where(ignored, 0.0, absolute), may_overflow=overflows)


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def reduced_bound(facts: ClassFacts, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of the output: that of the rows, or of their sum over the divisor,
    [1, 1].
    """
    rows = bound(facts, numerics, target)
    if facts.divisor is None:
        return rows
    arithmetic = numerics.arithmetic(target)
    losses = facts.loss.T
    own = arithmetic.unit_roundoff * (_additions(losses, arithmetic) + 3) * losses.sum(axis=1, keepdims=True)
    absolute = (rows.absolute.sum(axis=0, keepdims=True) + own) / max(
        facts.divisor, 1
    ) + arithmetic.smallest_subnormal
    overflows = _overflows(losses.sum(axis=1, keepdims=True), arithmetic)
    if rows.may_overflow is not None:
        overflows |= rows.may_overflow.any(axis=0, keepdims=True)
    return Allowed(absolute, may_overflow=overflows)


def _overflows(total: Array, arithmetic: Format) -> NDArray[np.bool_]:
    """Where a sum of this size, with its rounding errors, may overflow the arithmetic."""
    return np.asarray(total >= arithmetic.largest * (1 - 2.0**-10))


def _additions(terms: Array, arithmetic: Format) -> Array:
    """[rows, 1]: rounding errors of a sum of these terms >= 0 [rows, n] in any order, in units of u
    times the sum.
    """
    u = arithmetic.unit_roundoff
    total = terms.sum(axis=1, keepdims=True)
    lost = np.where(total > 0, np.minimum(terms, u * total).sum(axis=1, keepdims=True) / (u * total), 0.0)
    return np.asarray(np.minimum(np.maximum(np.count_nonzero(terms, axis=1)[:, None] - 1.0, 0.0), lost))

"""What is recorded of an output and not judged: errors in ulps, counts, and which numerics fit."""

from __future__ import annotations

from typing import cast

import numpy as np

from suite.formats import Array, Format
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import AnyOp, Compared
from suite.ops.op import Counts
from suite.ops.special import Special
from suite.oracle import Reference
from suite.verdict.interval import Interval, interval_of, is_inside
from suite.verdict.special import Mask

TELLING_SHARE = 0.05
"""A smaller share of failures is a slip of indices, which any wide model of rounding would "explain"."""

FITTING = (
    Numerics(exp_ulp=1.0, log_ulp=1.0),
    BEST_PRACTICE,
    Numerics(exp_ulp=16.0, log_ulp=16.0),
    Numerics(shift="folded"),
    Numerics(shift="lse"),
    Numerics(shift="none"),
    Numerics(probabilities="input"),
    Numerics(probabilities="input", scores="input"),
    Numerics(probabilities="bfloat16"),
    Numerics(probabilities="bfloat16", scores="bfloat16"),
    Numerics(accumulate="float16", probabilities="float16", scores="float16"),
    Numerics(accumulate="bfloat16", probabilities="bfloat16", scores="bfloat16"),
)
"""From tight to loose: the first that the errors satisfy is recorded as what the kernel's numerics
look like.
"""


class Statistics(Counts, total=False):
    """Fields of a Judgement."""

    fits: str | None
    bias_ulp: float
    bias_error_ulp: float
    max_ulp: float


def statistics(op: AnyOp, reference: Reference, interval: Interval, format: Format, y: Array) -> Statistics:
    """Errors and counts of an output, given as rows."""
    finite = (reference.special == Special.FINITE) & np.isfinite(y)
    compared = Compared(
        y=y,
        finite=finite,
        lost=finite & (y == 0) & (interval.nearest != 0),
        certain=np.abs(reference.hi) - reference.radius,
        format=format,
    )
    result: Statistics = {}
    result.update(cast(Statistics, op.statistics(reference.facts, compared)))
    error = ulp_errors(reference, format, y)
    if error.size:
        result["bias_ulp"] = float(error.mean())
        result["bias_error_ulp"] = float(error.std() / np.sqrt(error.size))
        result["max_ulp"] = float(np.abs(error).max())
    return result


@np.errstate(over="ignore", invalid="ignore")
def ulp_errors(reference: Reference, format: Format, y: Array) -> Array:
    """Signed errors, in ulps of the exact value, of the finite entries whose exact value is a
    normal number; flat.
    """
    normal = (
        (reference.special == Special.FINITE)
        & np.isfinite(y)
        & (np.abs(reference.hi) >= format.smallest_normal)
    )
    return np.asarray(((y - reference.hi) - reference.lo)[normal] / format.ulp(reference.hi[normal]))


def fitting(
    op: AnyOp, reference: Reference, format: Format, y: Array, declared: Numerics, failed: Mask
) -> str | None:
    """The tightest numerics of FITTING that every finite entry satisfies, None if none does."""
    finite = reference.special == Special.FINITE
    if not finite.any() or (failed & ~(finite & np.isfinite(y))).any():
        return None
    if failed.any() and failed.mean() < TELLING_SHARE:
        return None
    for numerics in FITTING:
        if not failed.any() and numerics == BEST_PRACTICE and declared == BEST_PRACTICE:
            return str(numerics)
        interval = interval_of(op, reference, numerics, format)
        if interval.allowed.judged[finite].mean() >= 0.5 and is_inside(reference, interval, y).all():
            return str(numerics)
    return None

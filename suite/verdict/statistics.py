"""What is recorded of an output and not judged: errors in ulps, counts, and which numerics fit."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from suite.formats import Array, Format
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import UPSTREAM, Op
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


class Statistics(TypedDict, total=False):
    """Fields of a Judgement."""

    fits: str | None
    bias_ulp: float
    bias_error_ulp: float
    max_ulp: float
    inversions: int
    saturated: int
    flushed: int
    false_zeros: int
    dead_rows: int


def statistics(op: Op, reference: Reference, interval: Interval, format: Format, y: Array) -> Statistics:
    """Errors and counts of an output, given as rows."""
    finite = (reference.special == Special.FINITE) & np.isfinite(y)
    error = ulp_errors(reference, format, y)
    result: Statistics = {}
    if error.size:
        result["bias_ulp"] = float(error.mean())
        result["bias_error_ulp"] = float(error.std() / np.sqrt(error.size))
        result["max_ulp"] = float(np.abs(error).max())
    if op.keeps_length:
        result["flushed"] = int(np.count_nonzero(finite & (y == 0) & (interval.nearest != 0)))
        result["inversions"] = _inversions(reference, y)
    if UPSTREAM in op.arguments:
        certain = np.abs(reference.hi) - reference.radius  # an exact 0 is known up to its radius only
        lost = finite & (y == 0) & (interval.nearest != 0) & (certain > 0)
        result["flushed"] = int(np.count_nonzero(lost))
        result["false_zeros"] = int(np.count_nonzero(lost & (certain >= format.smallest_normal)))
        result["dead_rows"] = int(np.count_nonzero((y == 0).all(axis=1) & lost.any(axis=1)))
    if op.lower_limit == 0:
        below_one = reference.facts.shown(reference.facts.probability) < 1
        result["saturated"] = int(np.count_nonzero(finite & (y == 1) & below_one))
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


def _inversions(reference: Reference, y: Array) -> int:
    facts = reference.facts
    if y.shape != facts.x.shape:
        return 0  # hidden logits, or nothing to compare
    x_sorted = np.take_along_axis(facts.x, facts.order, axis=1)
    y_sorted = np.take_along_axis(y, facts.order, axis=1)
    return int(np.count_nonzero((x_sorted[:, 1:] > x_sorted[:, :-1]) & (y_sorted[:, 1:] < y_sorted[:, :-1])))


def fitting(
    op: Op, reference: Reference, format: Format, y: Array, declared: Numerics, failed: Mask
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

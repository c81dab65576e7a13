"""Intervals: which outputs the bound allows, and how much of the bound an output uses.

    RN(max(0, p - b - r)) <= output <= RN(p + b + r)
p = exact result, r = radius of the reference, b = the bound of the declared numerics, RN = one
rounding to the output's format. docs/verdict.md derives the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from suite.formats import Array, Format, two_sum
from suite.numerics import Numerics
from suite.ops import AnyOp
from suite.ops.rows import Allowed
from suite.ops.special import Special
from suite.oracle import Reference
from suite.verdict.special import Mask, by_position


@dataclass(frozen=True, slots=True)
class Interval:
    """What each entry may be, for one reference, numerics and format. Arrays are [rows, k]."""

    allowed: Allowed
    """The bound."""
    lower: Array
    """The smallest number inside."""
    upper: Array
    """The largest number inside."""
    infinite_too: Mask
    """Where an infinity lies inside."""
    nearest: Array
    """The exact value rounded to the format."""


_INTERVALS: WeakKeyDictionary[Reference, dict[tuple[Numerics, str], Interval]] = WeakKeyDictionary()
"""Kernels that share a reference and a declaration share the intervals."""


def interval_of(op: AnyOp, reference: Reference, numerics: Numerics, format: Format) -> Interval:
    """The interval of every entry, remembered for as long as the reference is in use."""
    found = _INTERVALS.setdefault(reference, {})
    key = (numerics, format.name)
    if key not in found:
        found[key] = _interval(op, reference, op.reduced_bound(reference.facts, numerics, format), format)
    return found[key]


def _interval(op: AnyOp, reference: Reference, allowed: Allowed, format: Format) -> Interval:
    hi, lo = reference.hi, reference.lo
    reach = np.nextafter(allowed.absolute + reference.radius, np.where(allowed.absolute > 0, np.inf, 0.0))
    lower = np.maximum(format.round(*two_sum(hi, lo - reach)), op.lower_limit)
    upper = format.round(*two_sum(hi, lo + reach))
    lower = np.where(allowed.judged, lower, -np.inf)
    upper = np.where(allowed.judged, upper, np.inf)
    nearest = format.round(*two_sum(hi, lo))
    return Interval(allowed, lower, upper, (allowed.judged & np.isinf(upper)) | np.isinf(nearest), nearest)


def is_inside(reference: Reference, interval: Interval, y: Array) -> Mask:
    """Which entries are inside their interval, special values by their own rule. NaN is never inside."""
    allowed, hi = interval.allowed, reference.hi
    inside = (interval.lower <= y) & (y <= interval.upper) & (np.isfinite(y) | interval.infinite_too)
    if allowed.may_overflow is not None:
        inside |= allowed.may_overflow & (y == np.copysign(np.inf, hi))
    if allowed.flush_below is not None:
        inside |= (y == 0) & (np.abs(hi) <= allowed.flush_below)
    return by_position(reference.special, y, inside)


def ratios(reference: Reference, interval: Interval, format: Format, y: Array, inside: Mask) -> Array:
    """How much of its bound each entry uses: the distance from the exact value to what rounds to y,
    divided by b + r.

    0 where y is the correctly rounded result, above 1 exactly where the entry fails, inf where
    nothing is allowed and where a special value is wrong.
    """
    result = np.zeros(y.shape)
    # Nearly all entries of 16 bits are the nearest number, and cost nothing.
    other = (y != interval.nearest) | ~inside
    y, hi, lo, inside = y[other], reference.hi[other], reference.lo[other], inside[other]
    below, above = format.neighbours(y)
    under = (hi - y) - (above - y) / 2 + lo
    over = (y - hi) - (y - below) / 2 - lo
    distance = np.maximum(np.maximum(under, over), 0.0)
    share = distance / (interval.allowed.absolute[other] + reference.radius[other])
    share = np.where(distance == 0, 0.0, share)
    special = (reference.special[other] != Special.FINITE) | ~np.isfinite(y)
    passing = np.where(special, 0.0, np.minimum(share, 1.0))
    failing = np.where(special, np.inf, np.maximum(share, np.nextafter(1.0, 2.0)))
    result[other] = np.where(inside, passing, failing)
    return result

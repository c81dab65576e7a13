"""The tiers of the oracle: how a definition's rows get a value and a certified radius."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.formats import float64 as float64_format
from suite.numerics import Numerics
from suite.ops import Op
from suite.ops.arithmetic import Arb, Float64, Mpmath
from suite.ops.op import FactsT, ProblemT
from suite.oracle import libm
from suite.oracle.certified import ASSUMED_ULP, Certified, certified_tier

Mask = NDArray[np.bool_]
FIRST_BITS, LAST_BITS = 128, 8192
TINY = 5e-324


def sufficient(hi: Array, radius: Array, allowed: Array, target: Format, finite: Mask) -> Mask:
    """[rows]: whether the radius is small enough everywhere in the row for a verdict that does not
    depend on it.

    Small enough is 2^-10 ulp of the output; where no double-double can be that close (results near
    0 of a logarithm, subnormal results), 2^-6 of what the bound allows; and never asked to be below
    the smallest float64.
    """
    needed = np.fmax(np.fmax(target.ulp(hi) * 2.0**-10, allowed * 2.0**-6), TINY)
    return np.asarray(np.all((radius <= needed) | ~finite, axis=1))


def float64(
    op: Op[ProblemT, FactsT], problem: ProblemT, facts: FactsT, rows: NDArray[np.intp]
) -> tuple[Array, Array]:
    """(hi, radius) of these rows in double precision: the radius is the op's own bound at u = 2^-53."""
    if len(rows) < len(problem.x):
        problem = problem.take(rows)
        facts = op.facts(problem)
    numerics = Numerics(exp_ulp=ASSUMED_ULP, log_ulp=ASSUMED_ULP)
    hi = op.define(Float64(), problem)
    return hi, op.bound(facts, numerics, float64_format).absolute


def certified(
    op: Op[ProblemT, Any],
    problem: ProblemT,
    rows: NDArray[np.intp],
    allowed: Array,
    target: Format,
    finite: Mask,
) -> Certified:
    """These rows by Arb, or by mpmath where python-flint is missing, with as many bits as the verdict needs.

    Raises ArithmeticError where even LAST_BITS bits leave a radius that is too large, which no
    input known does.
    """
    tier = certified_tier()
    evaluate = arb if tier == "arb" else mpmath
    shape = (len(rows), finite.shape[1])
    result = Certified(rows, np.zeros(shape), np.zeros(shape), np.zeros(shape), tier)
    pending, bits = np.arange(len(rows)), FIRST_BITS
    while len(pending) and bits <= LAST_BITS:
        chosen = rows[pending]
        hi, lo, radius = evaluate(op, problem.take(chosen), bits)
        beyond = ~np.isfinite(hi)  # larger than every float64, and certainly so: infinity is its rounding
        result.hi[pending] = hi
        result.lo[pending], result.radius[pending] = np.where(beyond, 0.0, lo), np.where(beyond, 0.0, radius)
        enough = sufficient(
            result.hi[pending], result.radius[pending], allowed[chosen], target, finite[chosen]
        )
        pending, bits = pending[~enough], 2 * bits
    if len(pending):
        raise ArithmeticError(
            f"{op.name}: {LAST_BITS} bits do not certify row {rows[pending[0]]} of the input"
        )
    return result


def plausible(
    stored: Certified,
    op: Op[ProblemT, FactsT],
    problem: ProblemT,
    facts: FactsT,
    rows: NDArray[np.intp],
    allowed: Array,
    target: Format,
    finite: Mask,
) -> bool:
    """Whether these rows of a stored reference are as certain as certified() makes them, and
    nowhere outside of what float64 proves. A file may have been altered: its own radius proves
    nothing.
    """
    at, finite = np.searchsorted(stored.rows, rows), finite[rows]
    hi, lo, radius = stored.hi[at], stored.lo[at], stored.radius[at]
    if (finite & np.isnan(hi)).any() or not sufficient(hi, radius, allowed[rows], target, finite).all():
        return False
    if not libm.is_accurate():  # then float64 proves nothing here
        return True
    own, proved = float64(op, problem, facts, rows)
    with np.errstate(invalid="ignore"):  # infinity less infinity: both are beyond float64
        outside = ~(np.abs((hi - own) + lo) <= proved + radius) & np.isfinite(own) & np.isfinite(proved)
    return not (outside & finite).any()


def arb(op: Op[ProblemT, Any], problem: ProblemT, bits: int) -> tuple[Array, Array, Array]:
    """(hi, lo, radius) of the problem's rows by ball arithmetic with `bits` bits: rigorous."""
    arithmetic = Arb()
    with arithmetic.precision(bits):
        value = op.define(arithmetic, problem)
        hi = _to_float(value, _middle)
        rest = value - arithmetic.lift(hi)
        lo = _to_float(rest, _middle)
        radius = _to_float(rest - arithmetic.lift(lo), _largest_magnitude)
    return hi, lo, np.nextafter(radius, np.inf)


def mpmath(op: Op[ProblemT, Any], problem: ProblemT, bits: int) -> tuple[Array, Array, Array]:
    """(hi, lo, radius) of the problem's rows by mpmath; the radius is the op's own bound at u = 2^-bits."""
    arithmetic = Mpmath()
    with arithmetic.precision(bits):
        value = op.define(arithmetic, problem)
        hi = _to_float(value, float)
        lo = _to_float(value - arithmetic.lift(hi), float)
    working = Format(
        name=f"{bits} bits", precision=bits, emin=-(2**40), emax=2**40, largest=np.inf, bits=bits
    )
    facts = op.facts(problem)
    radius = op.bound(facts, Numerics(exp_ulp=ASSUMED_ULP, log_ulp=ASSUMED_ULP), working).absolute
    radius = np.nextafter(radius + 2.0**-52 * np.abs(lo), np.inf)
    vanished = op.vanished(facts)
    if vanished is not None:  # the value is 0 to within TINY, whatever the bits say
        radius = np.where(vanished, TINY, radius)
    return hi, lo, radius


def _middle(ball: Any) -> float:
    return float(ball.mid())


def _largest_magnitude(ball: Any) -> float:
    return float(ball.abs_upper())


def _to_float(values: Any, convert: Any) -> Array:
    return np.asarray(np.frompyfunc(convert, 1, 1)(values), dtype=np.float64)

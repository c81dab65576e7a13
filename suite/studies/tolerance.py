"""A tolerance to paste: the rtol and atol that the bound of an op leads to, for
torch.testing.assert_close and allclose.

    |y - exact| <= atol + rtol |exact|    for every honest kernel, its output y rounded to the dtype

The bound of every row-wise op is at most c + k |exact| (docs/tolerance.md), so two evaluations of
it with worst-case facts give c and k; an input instead of a worst case gives its own, smaller ones.
One pair for all entries is weaker than judge(), which has a bound for each entry: use it where only
assert_close can be had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from suite.floating_point import subnormals_kept
from suite.formats import DTYPES, Array, Format, get_format
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import AnyOp, Result, get_op, measured_by
from suite.ops.arithmetic import Float64
from suite.ops.row_op import check_dim
from suite.ops.rows import RowFacts, Rows
from suite.tensors import dtype_name, is_tensor, to_float64

Against = Literal["exact", "rounded reference", "other kernel"]
AGAINST: tuple[Against, ...] = get_args(Against)

ASSERT_CLOSE_DEFAULTS = {
    "float64": (1e-7, 1e-7),
    "float32": (1.3e-6, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float16": (1e-3, 1e-5),
}
"""(rtol, atol) of torch.testing.assert_close by dtype (https://docs.pytorch.org/docs/stable/testing.html)."""

SAYS_NOTHING = 0.5
MARGIN = 2.0**-20
"""Covers what the comparison itself adds: its float64 arithmetic, and a float64 kernel in the place
of the exact result.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A pair (rtol, atol) with what it holds for."""

    op: str
    dtype: str

    n: int
    """The length of the rows."""

    against: Against
    """What the output is compared with."""

    rtol: float
    """Rounded up to three digits, as atol is."""

    atol: float

    assumptions: str
    """Of the rows and the kernel."""

    basis: str
    """Where the numbers come from."""

    defaults: str
    """How those of assert_close differ."""

    assert_close: str
    """A line to paste; y is the kernel's output, x its input."""


class NoToleranceError(ValueError):
    """No pair (rtol, atol) says anything about these rows."""


@dataclass(frozen=True, slots=True)
class Pair:
    """|output - exact| <= atol + rtol |exact|."""

    rtol: float
    atol: float

    def against(self, other: Pair) -> Pair:
        """For outputs of this pair, compared with values of another pair instead of the exact ones.

        |y - v| <= (atol + atol') + (rtol + rtol') |exact|, and |exact| <= (|v| + atol') / (1 - rtol').
        """
        if other.rtol >= 1:
            return Pair(math.inf, math.inf)
        rtol = (self.rtol + other.rtol) / (1 - other.rtol)
        return Pair(rtol, self.atol + other.atol + rtol * other.atol)


def tolerance(
    op: str,
    shape: int | Sequence[int] | None = None,
    dtype: str | None = None,
    *,
    dim: int = -1,
    gap: float | None = None,
    largest: float | None = None,
    numerics: Numerics = BEST_PRACTICE,
    input: Any = None,
    against: Against = "exact",
) -> Tolerance:
    """The tolerance for an op on rows of a shape and dtype in the worst case, or on one `input`,
    which is sharper.

    shape: of the kernel's input, or the length of its rows. dim: the reduced one. gap: how far a
    logit is at most below its row's largest, those at -inf left out. largest: the largest magnitude
    of a finite logit. Without gap and largest, every row whose results the format can hold.
    input: a torch tensor or numpy array in their place; dtype is then its own unless given.
    against: "exact", "rounded reference" (the exact result rounded once to dtype) or "other kernel"
    (another honest kernel's result in dtype).

    Raises NoToleranceError where the pair would say nothing (an error of a half, or an overflow, is
    allowed), ValueError or TypeError for misuse.
    """
    _check(op, against, gap, largest)
    definition = get_op(op)
    if input is not None:
        if any(given is not None for given in (shape, gap, largest)):
            raise ValueError("shape, gap and largest are read from the input; give either them or the input")
        x, format = _values(input, dtype)
        options = definition.resolve_options({"dim": dim}, {"x": x.shape})
        problem = definition.problem({"x": x}, options)
        n = problem.x.shape[1]
        with subnormals_kept():
            pair, assumptions, basis = _of_rows(definition, problem, format, numerics)
    else:
        if dtype is None or shape is None:
            missing = [word for word, given in (("shape", shape), ("dtype", dtype)) if given is None]
            raise ValueError(f"a tolerance needs a {' and a '.join(missing)}, or an input")
        format, n = _format(dtype), _length(shape, dim)
        with subnormals_kept():
            pair, assumptions, basis = _of_worst_case(definition, n, format, numerics, gap, largest)
    advice = "use judge()" if input is not None else "use --input (input=) or judge()"
    where = f"{op} in {format.name} at n = {n} against {against}"
    compared = _compared(pair, against, format, where, advice)
    if numerics != BEST_PRACTICE:
        assumptions += f"; declared numerics: {numerics}"
    return Tolerance(
        op=op,
        dtype=format.name,
        n=n,
        against=against,
        rtol=compared.rtol,
        atol=compared.atol,
        assumptions=assumptions,
        basis=basis,
        defaults=_defaults(definition, format, n, compared),
        assert_close=_line(op, format, dim, against, compared),
    )


def _check(op: str, against: str, gap: float | None, largest: float | None) -> None:
    known = measured_by("tolerance")
    if op not in known:
        raise ValueError(
            f"op {op!r} has no tolerance, as its bound is not one of a row of logits; expected"
            f" {', '.join(known)}"
        )
    if against not in AGAINST:
        raise ValueError(f"against={against!r} is not one of {', '.join(AGAINST)}")
    for name, value in (("gap", gap), ("largest", largest)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name}={value!r} must be a number")


def _compared(pair: Pair, against: Against, format: Format, where: str, advice: str) -> Pair:
    """The pair for what the output is compared with, rounded up. Raises NoToleranceError."""
    reference = {
        "exact": Pair(0.0, 0.0),
        "rounded reference": Pair(format.unit_roundoff, format.smallest_subnormal / 2),
        "other kernel": pair,
    }
    compared = pair.against(reference[against])
    if not (compared.rtol < SAYS_NOTHING and compared.atol < SAYS_NOTHING):
        raise NoToleranceError(
            f"no tolerance says anything about {where}: an error of one half is allowed; {advice}"
        )
    return Pair(_rounded_up(compared.rtol), _rounded_up(compared.atol))


# The mathematics: a pair in the worst case, and a pair for given rows.


@dataclass(frozen=True)
class WorstFacts(RowFacts):
    """Facts that no row of length n and of gaps up to `reach` exceeds, at two entries: results of
    magnitude 0 and 1.
    """

    n: int = 1
    reach: float = math.inf

    @classmethod
    def of_length(cls, op: AnyOp, n: int, format: Format, gap: float) -> WorstFacts:
        """For softmax, a normal result p >= 2^emin has a gap of at most -emin ln 2; for logsumexp,
        |max x| <= |y| + ln n.
        """
        zero_one = np.array([[0.0], [1.0]])
        gaps = (
            np.full((2, 1), min(gap, format.exp_subnormal)) if op.result is Result.PROBABILITY else zero_one
        )
        total = np.full((2, 1), float(n))
        return cls(np.zeros((2, 1)), math.log(n) + zero_one, gaps, np.exp(-gaps), total, n=n, reach=gap)

    @cached_property
    def probability(self) -> Array:
        return np.array([[0.0], [1.0]])

    @cached_property
    def log_sum_exp(self) -> Array:
        return np.array([[0.0], [1.0]])

    @cached_property
    def mean_gap(self) -> Array:
        """Dbar = entropy - ln s <= ln n."""
        return np.full((2, 1), min(self.reach, math.log(self.n)))

    @cached_property
    def top_mass(self) -> Array:
        return np.full((2, 1), 1.0 if self.reach == 0 else 1 / self.n)

    @cached_property
    def rescales(self) -> Array:
        """rho <= (n - 1) / 2: the k-th largest term has at most k - 1 larger ones, and the larger
        k, the smaller p.
        """
        return np.full((2, 1), 0.0 if self.reach == 0 else (self.n - 1) / 2)

    @cached_property
    def visible(self) -> Array:
        return np.full((2, 1), float(self.n))

    def summation(self, unit_roundoff: float) -> Array:
        return np.full((2, 1), float(self.n - 1))


def _of_worst_case(
    op: AnyOp, n: int, format: Format, numerics: Numerics, gap: float | None, largest: float | None
) -> tuple[Pair, str, str]:
    """(pair, assumptions, basis) against the exact result."""
    if numerics.shift != "row_max":
        raise ValueError(
            f"numerics with shift={numerics.shift!r} depend on where the rows lie: give the input"
        )
    for name, value in (("gap", gap), ("largest", largest)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name}={value!r} must be at least 0")
    limit = _limit(format)
    if op.result is Result.LOG_SUM:
        largest = _within(limit, "largest", largest, format)
    reach = min(math.inf if gap is None else gap, math.inf if largest is None else 2 * largest)
    if op.result is Result.LOG_PROBABILITY:
        reach = _within(limit, "gap", None if reach == math.inf else reach, format)

    facts = WorstFacts.of_length(op, n, format, reach)
    allowed = op.bound(facts, numerics, format)
    intercept, slope = _line_through(allowed.absolute)
    u, eta = format.unit_roundoff, format.smallest_subnormal
    rtol, atol = slope + u * (1 + slope), intercept * (1 + u) + eta / 2
    if op.result is Result.PROBABILITY:
        atol += format.smallest_normal * slope  # results below the normal numbers, whatever their gap
    if allowed.flush_below is not None:
        atol = max(atol, float(allowed.flush_below.max()))  # an exact 0 for a subnormal result

    gaps = "any gaps max x - x_i" if reach == math.inf else f"gaps max x - x_i of at most {reach:.6g}"
    size = f", |x| at most {largest:.6g}" if largest is not None else ""
    assumptions = (
        f"every row of {n} logits with a finite largest one, {gaps}{size}; -inf beside them is compared by"
        " equality"
    )
    basis = (
        f"suite/ops/{op.name}/bound.py at the worst facts of a row of {n}, and one rounding to {format.name}"
    )
    return Pair(rtol, atol), assumptions, basis


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def _of_rows(op: AnyOp, problem: Rows, format: Format, numerics: Numerics) -> tuple[Pair, str, str]:
    """(pair, assumptions, basis) against the exact result of these rows."""
    rows = problem.take(np.flatnonzero(problem.ordinary))
    if not len(rows.x):
        raise ValueError(
            "the input has no row with a finite largest logit, so its results are special values"
        )
    facts = op.facts(rows)
    allowed = op.bound(facts, numerics, format)
    exact = np.abs(op.define(Float64(), rows))
    counted = facts.x > -np.inf if op.keeps_length else np.ones(exact.shape, dtype=np.bool_)
    u, eta = format.unit_roundoff, format.smallest_subnormal

    beyond = exact + allowed.absolute >= format.largest
    if allowed.may_overflow is not None:
        beyond |= allowed.may_overflow
    beyond &= allowed.judged & counted
    if beyond.any():
        raise NoToleranceError(
            f"no tolerance says anything about {int(beyond.sum())} entries of this input: an honest kernel"
            f" overflows there, as the base-2 form or {format.name} does; use judge(), or -inf in the place"
            " of a large negative sentinel"
        )
    needed = allowed.absolute + np.maximum(u * (exact + allowed.absolute), eta / 2)
    flushed = np.zeros(exact.shape, dtype=np.bool_)
    if allowed.flush_below is not None:
        flushed = exact <= allowed.flush_below
        needed = np.where(flushed, np.maximum(needed, exact), needed)
    needed, exact, flushed = needed[counted], exact[counted], flushed[counted]

    if op.result is Result.PROBABILITY:
        normal = (exact >= format.smallest_normal) & ~flushed
        rtol = float(np.max(needed[normal] / exact[normal], initial=u))
    else:
        # The part of a logarithm's error that grows with it; what is left is absolute.
        worst = WorstFacts.of_length(op, 1, format, math.inf)
        _, slope = _line_through(op.bound(worst, replace(numerics, shift="row_max"), format).absolute)
        rtol = slope + u * (1 + slope)
    atol = float(np.max(needed - rtol * exact, initial=eta / 2))

    left_out = int((~problem.ordinary).sum())
    assumptions = f"this input, {problem.x.shape[0]} rows of {problem.x.shape[1]}"
    if left_out:
        assumptions += (
            f"; {left_out} without a finite largest logit are left out: their results are special values"
        )
    share = float(np.median(needed / (atol + rtol * exact)))
    basis = (
        f"suite/ops/{op.name}/bound.py at the facts of the input, and one rounding to {format.name}; its"
        f" bound for the median entry is {share:.2g} of what the pair against the exact result allows there"
    )
    return Pair(rtol, atol), assumptions, basis


def _line_through(absolute: Array) -> tuple[float, float]:
    """(c, k) of c + k |exact| from its values at 0 and 1; infinite where the bound says nothing."""
    at_zero, at_one = (float(value) for value in absolute[:, 0])
    return (at_zero, at_one - at_zero) if math.isfinite(at_zero + at_one) else (math.inf, math.inf)


# Around it.


def _limit(format: Format) -> float:
    """Up to here neither a logarithm in `format` overflows nor its base-2 form on the way (log2 e /
    2 < 1).
    """
    return format.largest / 2


def _within(limit: float, name: str, value: float | None, format: Format) -> float:
    if value is not None and value > limit:
        raise ValueError(f"{name}={value!r} must be at most {limit:.6g}, half the largest {format.name}")
    return limit if value is None else value


def _values(input: Any, dtype: str | None) -> tuple[Array, Format]:
    if not is_tensor(input):
        raise TypeError(f"input is a {type(input).__name__}; expected a torch tensor or numpy array")
    format = _format(dtype_name(input) if dtype is None else dtype)
    if input.ndim == 0 or 0 in input.shape:
        raise ValueError(
            f"input has shape {list(input.shape)}; expected at least one row of at least one logit"
        )
    values = to_float64(input)
    if not format.holds(values):
        raise ValueError(f"input has values that {format.name} cannot hold")
    return values, format


def _format(dtype: str) -> Format:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    return get_format(dtype)


def _length(shape: int | Sequence[int], dim: int) -> int:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    n = int(sizes[check_dim(dim, len(sizes))])
    if not 1 <= n < 2**63:
        raise ValueError(
            f"shape {list(sizes)} has rows of {n} logits; expected at least one, and less than 2^63"
        )
    return n


def _rounded_up(value: float) -> float:
    return float(Context(prec=3, rounding=ROUND_CEILING).create_decimal_from_float(value * (1 + MARGIN)))


def _defaults(op: AnyOp, format: Format, n: int, pair: Pair) -> str:
    """What assert_close allows by default, in times of the pair, where results of such rows typically lie."""
    rtol, atol = ASSERT_CLOSE_DEFAULTS[format.name]
    places = (
        {"1": 1.0, f"1/{n}": 1 / n} if op.result is Result.PROBABILITY else {"0": 0.0, f"ln {n}": math.log(n)}
    )
    times = {place: (atol + rtol * size) / (pair.atol + pair.rtol * size) for place, size in places.items()}
    text = " and ".join(f"{value:.2g} times this at |result| = {place}" for place, value in times.items())
    tight = "; below 1 they are tighter than theory" if min(times.values()) < 1 else ""
    return f"assert_close's defaults for {format.name} (rtol {rtol:g}, atol {atol:g}) allow {text}{tight}"


def _line(op: str, format: Format, dim: int, against: Against, pair: Pair) -> str:
    """Compared in float64, as assert_close compares 16-bit tensors in 16 bits, with roundings of its own."""
    expected = {
        "exact": "exact",
        "rounded reference": "reference.double()",
        "other kernel": "other.double()",
    }[against]
    if against == "exact" and format.name != "float64":
        expected = f"torch.{op}(x.double(), {dim})"
    given = f"rtol={pair.rtol:g}, atol={pair.atol:g}"
    return f"torch.testing.assert_close(y.double(), {expected}, {given}, equal_nan=True)"

"""The verdict: is this output what the op's definition allows, and if not, where, by how much, and what fits?

    from suite import judge
    judge("softmax", x, y).raise_if_failed()

Special values are compared by position first; then each finite entry by interval:
    RN(max(0, p - b - r)) <= output <= RN(p + b + r)
p = exact result, r = radius of the reference, b = the bound of the declared numerics, RN = one
rounding to the output's format. NaN is never inside an interval. docs/verdict.md derives the
bounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from suite.floating_point import subnormals_kept
from suite.formats import Array, Format, get_format, two_sum
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.ops import SECOND, UPSTREAM, Op, Shapes, get_op
from suite.ops.rows import Allowed
from suite.ops.special import Special
from suite.oracle import Oracle, Reference, certified_entry
from suite.records.record import by_precedence
from suite.tensors import device_name, dtype_name, format_of, is_tensor, to_float64, to_numpy

Mask = NDArray[np.bool_]
TELLING_SHARE = 0.05

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


class JudgementError(AssertionError):
    """Raised by raise_if_failed(); its text is the judgement's message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The entry that uses most of its bound.

    index: in the output tensor. row, column: in its rows. got, expected (20 digits of a failure),
    lower, upper: as text.
    ratio: error before the output's rounding, in times of the bound. ulp: error in ulps of the
    output's format.
    """

    index: tuple[int, ...]
    row: int
    column: int
    got: str
    expected: str
    lower: str
    upper: str
    ratio: float
    ulp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What judge() found. Counts are entries of the output; ratios are in times of the bound,
    before the output's rounding.

    status: passed, unjudged, or the first of broken. broken: every status that holds, in order of precedence.
    judged: share with a meaningful bound of the entries that hold a number (neither special nor 0 by a mask).
    ratio: the largest. failed, entries, failed_rows: counts.
    overflow: entries that are NaN or infinite where the definition is finite. row_status: the
    status of each row.
    bias_ulp, bias_error_ulp: mean signed error of normal results and its standard error. max_ulp:
    the largest error.
    inversions: neighbours in the order of x whose outputs are in the wrong order. saturated:
    exactly 1 where p < 1.
    flushed: exactly 0 where the exact result rounds to something else. false_zeros, dead_rows: of a
    gradient, entries that are exactly 0 where the exact one is a normal number of the format, and
    rows of nothing but 0 where the exact ones round to others. digest: of the output's values.
    fits: the tightest numerics that all errors satisfy. tiles: per tile size, where in the tile the
    failures sit.
    """

    op: str
    dtype: str
    shape: tuple[int, ...]
    """Of the logits."""
    status: str
    broken: tuple[str, ...] = ()
    judged: float = 0.0
    ratio: float = 0.0
    failed: int = 0
    entries: int = 0
    failed_rows: int = 0
    overflow: int = 0
    worst: Worst | None = None
    bias_ulp: float | None = None
    bias_error_ulp: float | None = None
    max_ulp: float | None = None
    inversions: int | None = None
    saturated: int = 0
    flushed: int = 0
    false_zeros: int | None = None
    dead_rows: int | None = None
    digest: str = ""
    fits: str | None = None
    first_failing_column: int | None = None
    tiles: Mapping[str, str] = field(default_factory=dict)
    numerics: str = "best practice"
    tier: str = ""
    message: str = ""
    row_status: tuple[str, ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def raise_if_failed(self) -> None:
        """Raises JudgementError (an AssertionError) with the whole message unless the status is passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise JudgementError(self.message)

    def __str__(self) -> str:
        return self.message


def judge(
    op: str,
    inputs: Any,
    output: Any,
    *,
    options: Mapping[str, Any] | None = None,
    numerics: Numerics = BEST_PRACTICE,
    semantics: Semantics = CONTRACT,
    oracle: Oracle | None = None,
) -> Judgement:
    """Judges one output of one op. Needs tensors only: torch or numpy, any device, any strides.

    op: a name of `softmax-suite list ops`. inputs: the tensor x, or a mapping of the op's
    arguments: {"x": x}, {"logits": logits, "target": target}; with "upstream", the gradient of the
    op's output, its backward is judged. output: what the kernel returned for them, a tuple where
    the op has several: gradients in the order of the inputs. options: such as {"dim": -1}.
    numerics, semantics: what the kernel declares about itself; the default is best practice.

    Raises TypeError or ValueError for misuse (unknown op or option, an input that is no tensor of a
    known format). Whatever is wrong with the output is a status.
    """
    if not isinstance(numerics, Numerics) or not isinstance(semantics, Semantics):
        raise TypeError(
            f"numerics={numerics!r} and semantics={semantics!r} must be suite.Numerics and suite.Semantics"
        )
    tensors = _named_inputs(get_op(op), inputs)
    definition = get_op(op).of(tensors)
    name, logits = next(iter(tensors.items()))
    format = format_of(logits)
    if format is None or logits.ndim == 0:
        raise ValueError(
            f"input {name} has dtype {dtype_name(logits)} and shape {tuple(logits.shape)}; expected floating,"
            " with a dim"
        )
    for other in definition.arguments:
        own = format_of(tensors[other])
        if own is not None and own != definition.input_format(other, format):
            expected = definition.input_format(other, format).name
            raise ValueError(
                f"input {other} has dtype {own.name}; expected {expected}, as {name} has {format.name}"
            )
    shapes = {name: tuple(int(n) for n in tensor.shape) for name, tensor in tensors.items()}
    resolved = definition.resolve_options(options, shapes)
    parts = zip(get_op(op).upstreams, get_op(op).outputs(resolved), strict=False)
    for other, expected_format in (
        {name: part.output_format(format) for name, part in parts} | {SECOND: format}
    ).items():
        if other in tensors and format_of(tensors[other]) != expected_format:
            raise ValueError(
                f"input {other} has dtype {dtype_name(tensors[other])}; expected {expected_format.name}"
            )
    if (
        UPSTREAM in tensors
        and isinstance(output, tuple | list)
        and len(output) == len(definition.outputs(resolved)) == 1
    ):
        [output] = output  # as torch.autograd.grad returns it
    wrong = check_output(definition, output, shapes, dtype_name(logits), device_name(logits), resolved)
    if wrong is not None:
        status, reason = wrong
        return Judgement(
            op=definition.name, dtype=format.name, shape=shapes[name], status=status, broken=(status,),
            numerics=str(numerics),
            message=f"{definition.name} {format.name} {list(shapes[name])}: {status}: {reason}",
        )  # fmt: skip
    with subnormals_kept():
        values: dict[str, Any] = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        references = (oracle or default_oracle()).references(
            definition, values, resolved, format, semantics=semantics
        )
        outputs = [to_float64(one) for one in as_tuple(output)]
        return judge_outputs(definition, references, outputs, shapes, resolved, format, numerics)


def as_tuple(output: Any) -> tuple[Any, ...]:
    """The outputs of a call: those of a tuple or list, or the one."""
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def check_output(
    op: Op, output: Any, shapes: Shapes, dtype: str, device: str, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    """(status, reason) where the output is no dense tensor of the right device, shape and dtype, or
    not as many of them as the op has; else None.

    shapes: of the inputs, by name; dtype, device: of the logits, as they were before the call.
    """
    parts = op.outputs(options)
    if len(parts) == 1:
        return _check_tensor(parts[0], output, shapes, dtype, device, options)
    if not isinstance(output, tuple | list) or len(output) != len(parts):
        names = ", ".join(part.name for part in parts)
        return (
            "wrong_type",
            f"returned {_describe(output)}; expected a tuple of {len(parts)} tensors: {names}",
        )
    for part, one in zip(parts, output, strict=True):
        wrong = _check_tensor(part, one, shapes, part.output_format(get_format(dtype)).name, device, options)
        if wrong is not None:
            return wrong[0], f"{part.name}: {wrong[1]}"
    return None


def _check_tensor(
    op: Op, output: Any, shapes: Shapes, dtype: str, device: str, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    expected = op.output_shape(shapes, options)
    if not is_tensor(output):
        return "wrong_type", f"returned {_describe(output)}; expected one tensor"
    try:
        where, what, got = device_name(output), dtype_name(output), tuple(int(n) for n in output.shape)
        layout = str(getattr(output, "layout", "torch.strided"))
        if where != device:
            return "wrong_type", f"returned a tensor on {where}; the input is on {device}"
        if layout != "torch.strided":
            return "wrong_type", f"returned a tensor with layout {layout}; expected a dense one"
        if got != expected:
            return "wrong_shape", f"returned shape {list(got)}; expected {list(expected)}"
        if what != dtype:
            return "wrong_dtype", f"returned {what}; expected {dtype}"
        to_float64(output[tuple(slice(1) for _ in got)])  # one entry tells whether the others can be read
    except Exception as error:  # a tensor subclass may refuse anything
        return "wrong_type", f"returned a {type(output).__name__} that cannot be read: {type(error).__name__}"
    return None


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def judge_values(
    op: Op,
    reference: Reference,
    output: Array,
    shapes: Shapes,
    options: Mapping[str, Any],
    format: Format,
    numerics: Numerics,
    *,
    statistics: bool = True,
) -> Judgement:
    """Judges an output of the right shape and dtype, given as float64, against its reference.
    `shapes`: of the inputs.

    statistics: also find what is recorded and not judged, which takes as long as the verdict.
    """
    y = op.output_rows(output, reference.problem, options)
    interval = _interval(op, reference, numerics, format)
    allowed, inside = interval.allowed, _inside(reference, interval, y)
    finite = reference.special == Special.FINITE
    escaped = finite & ~np.isfinite(y) & ~inside
    inaccurate = finite & np.isfinite(y) & ~inside
    unlawful = ~finite & ~inside
    failed = ~inside

    # An entry at -inf has nothing to be judged by but its exact 0: it says nothing of a kernel
    # whose numbers are unjudged.
    telling = finite & (reference.problem.shown > -np.inf) if op.keeps_length else finite
    share = float(allowed.judged[telling].mean()) if telling.any() else 1.0
    broken = [
        status
        for status, holds in (
            ("nonfinite", escaped.any()),
            ("inaccurate", inaccurate.any()),
            ("law_broken", unlawful.any()),
            ("unjudged", share < 0.5),
        )
        if holds
    ]
    beyond = op.beyond_rows(output, reference.problem, options)
    if beyond is not None and beyond.any() and not broken:
        broken = ["inaccurate" if np.isfinite(output[beyond]).all() else "nonfinite"]
    ratio = _ratio(reference, interval, format, y, inside)
    judgement = Judgement(
        op=op.name,
        dtype=format.name,
        shape=shapes[op.arguments[0]],
        status=broken[0] if broken else "passed",
        broken=tuple(broken),
        judged=share,
        ratio=float(ratio.max()) if y.size else 0.0,
        failed=int(failed.sum()),
        entries=int(y.size),
        failed_rows=int(failed.any(axis=1).sum()),
        overflow=int(escaped.sum()),
        worst=_worst(op, reference, format, y, ratio, interval, shapes, options) if y.size else None,
        digest=hashlib.blake2b(np.ascontiguousarray(y).tobytes(), digest_size=8).hexdigest(),
        fits=_fits(op, reference, format, y, numerics, failed) if statistics else None,
        first_failing_column=int(np.flatnonzero(failed.any(axis=0))[0]) if failed.any() else None,
        tiles=op.places(failed, reference.problem),
        numerics=str(numerics),
        tier=reference.tier,
        row_status=_row_status(escaped, inaccurate, unlawful),
        **(_statistics(op, reference, interval, format, y) if statistics else {}),
    )
    message = _message(judgement, reference, y, failed)
    if beyond is not None and beyond.any():
        index = [int(i) for i in np.argwhere(beyond)[0]]
        what = (
            f"{int(beyond.sum())} entries cannot be right whatever the reference, the first at index {index}"
        )
        message += f"\n  beyond    {what}: {float(output[tuple(index)])!r}"
    return replace(judgement, message=message)


def failing(
    op: Op,
    reference: Reference,
    output: Array,
    options: Mapping[str, Any],
    format: Format,
    numerics: Numerics,
) -> Mask:
    """[rows, k]: the entries of an output that are not inside their interval."""
    y = op.output_rows(output, reference.problem, options)
    return ~_inside(reference, _interval(op, reference, numerics, format), y)


def judge_outputs(
    op: Op,
    references: Sequence[Reference],
    outputs: Sequence[Array],
    shapes: Shapes,
    options: Mapping[str, Any],
    format: Format,
    numerics: Numerics,
    *,
    statistics: bool = True,
) -> Judgement:
    """Judges the outputs of an op, each against its reference, as judge_values() does: the first
    one's judgement, with what is broken in any.
    """
    judgements = [
        judge_values(
            part,
            reference,
            y,
            shapes,
            options,
            part.output_format(format),
            numerics if part is op else numerics.of(format),
            statistics=statistics,
        )
        for part, reference, y in zip(op.outputs(options), references, outputs, strict=True)
    ]
    first, *others = judgements
    for other in others:
        broken = by_precedence({*first.broken, *other.broken})
        rows = _rows_of_both(first.row_status, other.row_status)
        worse = other.worst is not None and (
            first.worst is None or other.worst.ratio > max(first.worst.ratio, 1.0)
        )
        first = replace(
            first,
            status=broken[0] if broken else first.status,
            broken=broken,
            ratio=max(first.ratio, other.ratio),
            failed=first.failed + other.failed,
            entries=first.entries + other.entries,
            overflow=first.overflow + other.overflow,
            flushed=first.flushed + other.flushed,
            false_zeros=_added(first.false_zeros, other.false_zeros),
            dead_rows=_added(first.dead_rows, other.dead_rows),
            failed_rows=sum(status != "passed" for status in rows),
            worst=other.worst if worse else first.worst,
            digest=hashlib.blake2b(f"{first.digest}{other.digest}".encode(), digest_size=8).hexdigest(),
            row_status=rows,
            message="\n".join(one.message for one in (first, other) if one.broken)
            or f"{first.message}; {other.message}",
        )
    return first


def _rows_of_both(first: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The status of each row of the first output, by both. Rows of another kind (keys beside
    queries) gather from all of these: where one of them fails and none of the first does, each may
    be to blame.
    """
    if len(first) == len(other):
        return tuple(b if a == "passed" else a for a, b in zip(first, other, strict=True))
    broken = next((status for status in other if status != "passed"), "passed")
    return first if any(status != "passed" for status in first) else (broken,) * len(first)


def _added(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


@dataclass(frozen=True, slots=True)
class _Interval:
    """What each entry may be, for one reference, numerics and format.

    infinite_too: where an infinity lies inside. nearest: the exact value rounded to the format.
    """

    allowed: Allowed
    lower: Array
    upper: Array
    infinite_too: Mask
    nearest: Array


_INTERVALS: WeakKeyDictionary[Reference, dict[tuple[Numerics, str], _Interval]] = WeakKeyDictionary()
"""Kernels that share a reference and a declaration share the intervals."""


def _interval(op: Op, reference: Reference, numerics: Numerics, format: Format) -> _Interval:
    found = _INTERVALS.setdefault(reference, {})
    key = (numerics, format.name)
    if key not in found:
        found[key] = _intervals_of(op, reference, op.reduced_bound(reference.facts, numerics, format), format)
    return found[key]


def _intervals_of(op: Op, reference: Reference, allowed: Allowed, format: Format) -> _Interval:
    hi, lo = reference.hi, reference.lo
    reach = np.nextafter(allowed.absolute + reference.radius, np.where(allowed.absolute > 0, np.inf, 0.0))
    lower = np.maximum(format.round(*two_sum(hi, lo - reach)), op.lower_limit)
    upper = format.round(*two_sum(hi, lo + reach))
    lower = np.where(allowed.judged, lower, -np.inf)
    upper = np.where(allowed.judged, upper, np.inf)
    nearest = format.round(*two_sum(hi, lo))
    return _Interval(allowed, lower, upper, (allowed.judged & np.isinf(upper)) | np.isinf(nearest), nearest)


def _inside(reference: Reference, interval: _Interval, y: Array) -> Mask:
    """Which entries are inside their interval, special values by their own rule."""
    allowed, hi = interval.allowed, reference.hi
    inside = (interval.lower <= y) & (y <= interval.upper) & (np.isfinite(y) | interval.infinite_too)
    if allowed.may_overflow is not None:
        inside |= allowed.may_overflow & (y == np.copysign(np.inf, hi))
    if allowed.flush_below is not None:
        inside |= (y == 0) & (np.abs(hi) <= allowed.flush_below)
    if not reference.special.any():
        return inside
    by_position = {
        Special.NAN: np.isnan(y),
        Special.POSITIVE_INFINITY: y == np.inf,
        Special.NEGATIVE_INFINITY: y == -np.inf,
        Special.NAN_OR_NEGATIVE_INFINITY: np.isnan(y) | (y == -np.inf),
        Special.NAN_OR_POSITIVE_INFINITY: np.isnan(y) | (y == np.inf),
        Special.ANYTHING: np.ones(y.shape, dtype=bool),
    }
    for code, right in by_position.items():
        inside = np.where(reference.special == code, right, inside)
    return inside


def _ratio(reference: Reference, interval: _Interval, format: Format, y: Array, inside: Mask) -> Array:
    """How much of the bound each entry uses: the distance from the exact value to what rounds to y,
    over b + r.

    0 where y is the correctly rounded result, above 1 exactly where the entry fails, inf where
    nothing is allowed and where a special value is wrong.
    """
    result = np.zeros(y.shape)
    other = (
        y != interval.nearest
    ) | ~inside  # nearly all entries of 16 bits are the nearest number, and cost nothing
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


def _worst(
    op: Op,
    reference: Reference,
    format: Format,
    y: Array,
    ratio: Array,
    interval: _Interval,
    shapes: Shapes,
    options: Mapping[str, Any],
) -> Worst:
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    finite = reference.special[row, column] == Special.FINITE
    hi, got = float(reference.hi[row, column]), float(y[row, column])
    expected = Special(reference.special[row, column]).text
    if finite and ratio[row, column] <= 1:
        expected = repr(hi)
    elif finite:
        exact = (hi, float(reference.lo[row, column]))
        reduced = len(reference.hi) != len(reference.problem.x)
        if reference.tier == "float64" and not reduced and reference.problem.ordinary[row]:
            exact = certified_entry(op, reference.problem, row, column)
        expected = _digits(*exact)
    return Worst(
        index=op.output_index(row, column, reference.problem, shapes, options),
        row=row,
        column=column,
        got=repr(got),
        expected=expected,
        lower=repr(float(interval.lower[row, column])) if finite else expected,
        upper=repr(float(interval.upper[row, column])) if finite else expected,
        ratio=float(ratio[row, column]),
        ulp=abs(got - hi) / float(format.ulp(hi)) if finite else float("nan"),
    )


def _digits(hi: float, lo: float) -> str:
    """hi + lo to 20 significant digits."""
    import mpmath

    with mpmath.workprec(128):
        return str(mpmath.nstr(mpmath.mpf(hi) + mpmath.mpf(lo), 20))


def _statistics(
    op: Op, reference: Reference, interval: _Interval, format: Format, y: Array
) -> dict[str, Any]:
    """What is recorded and not judged."""
    finite = (reference.special == Special.FINITE) & np.isfinite(y)
    error = ulp_errors(reference, format, y)
    result: dict[str, Any] = {}
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


def _fits(
    op: Op, reference: Reference, format: Format, y: Array, declared: Numerics, failed: Mask
) -> str | None:
    """The tightest numerics of FITTING that every finite entry satisfies, None if none does."""
    finite = reference.special == Special.FINITE
    if not finite.any() or (failed & ~(finite & np.isfinite(y))).any():
        return None
    if failed.any() and failed.mean() < TELLING_SHARE:
        # a few wrong entries are a slip of indices, which any wide model of rounding would "explain"
        return None
    for numerics in FITTING:
        if not failed.any() and numerics == BEST_PRACTICE and declared == BEST_PRACTICE:
            return str(numerics)
        interval = _interval(op, reference, numerics, format)
        if interval.allowed.judged[finite].mean() >= 0.5 and _inside(reference, interval, y).all():
            return str(numerics)
    return None


def _row_status(escaped: Mask, inaccurate: Mask, unlawful: Mask) -> tuple[str, ...]:
    status = np.full(escaped.shape[0], "passed", dtype="U10")
    for mask, name in ((unlawful, "law_broken"), (inaccurate, "inaccurate"), (escaped, "nonfinite")):
        status[mask.any(axis=1)] = name
    return tuple(status.tolist())


def _message(judgement: Judgement, reference: Reference, y: Array, failed: Mask) -> str:
    """The text of a judgement: where, got, expected, how bad, how many, where in the tile, what fits."""
    head = f"{judgement.op} {judgement.dtype} {list(judgement.shape)}: {judgement.status}"
    worst = judgement.worst
    if worst is None or judgement.passed:
        return (
            f"{head}, {judgement.ratio:.3g} times of bound, {judgement.judged:.0%} of {judgement.entries}"
            " entries judged"
        )
    if judgement.status == "unjudged":
        return (
            f"{head}: only {judgement.judged:.0%} of {judgement.entries} entries have a meaningful bound with"
            f" the declared numerics ({judgement.numerics}); nothing was proved"
        )
    lines = [
        f"{head}; broken: {', '.join(judgement.broken)}",
        f"  where     index {list(worst.index)}",
        f"  got       {worst.got}",
        f"  expected  {worst.expected}",
        f"  allowed   [{worst.lower}, {worst.upper}]",
        f"  input     {reference.problem.describe(worst.row, worst.column if y.shape[1] > 1 else None)}",
        f"  how bad   {worst.ratio:.4g} times of bound, {worst.ulp:.4g} ulp; numerics: {judgement.numerics}",
        f"  how many  {judgement.failed} of {judgement.entries} entries, in {judgement.failed_rows} of"
        f" {y.shape[0]} rows"
        + (
            f"; {judgement.overflow} are NaN or infinite where the definition is finite"
            if judgement.overflow
            else ""
        ),
    ]
    if judgement.op == "softmax":
        lines.append(f"  its row   sums to {y[worst.row].sum():.6g}")
    if y.shape[1] > 1:
        place = [f"first failing column {judgement.first_failing_column}", *judgement.tiles.values()]
        lines.append(f"  in tile   {'; '.join(place)}")
    if judgement.fits:
        lines.append(f"  looks like {judgement.fits}")
    return "\n".join(lines)


def _named_inputs(op: Op, inputs: Any) -> dict[str, Any]:
    """The inputs by name, in the order of the op's arguments. Raises ValueError or TypeError for
    what they cannot be.
    """
    if not isinstance(inputs, Mapping):
        inputs = {"x": inputs}
    if not set(op.arguments) <= set(inputs) <= {*op.arguments, *op.optional, *op.upstreams, SECOND}:
        further = f" and, where there are any, {', '.join(op.optional)}" if op.optional else ""
        further += f"; for its backward {', '.join(op.upstreams)}"
        raise ValueError(
            f"inputs has the keys {sorted(inputs)}; {op.name} takes {', '.join(op.arguments)}{further}"
        )
    for name, tensor in inputs.items():
        if is_tensor(tensor) and dtype_name(tensor) == "bool" and name != "mask":
            raise ValueError(
                f"input {name} has dtype bool; expected floating values, or integers for class indices"
            )
        if not is_tensor(tensor):
            raise TypeError(f"input {name} is {_describe(tensor)}; expected a torch tensor or numpy array")
        layout = str(getattr(tensor, "layout", "torch.strided"))
        if layout != "torch.strided":
            raise ValueError(f"input {name} has layout {layout}; expected a dense tensor")
    return {
        name: inputs[name] for name in (*op.arguments, *op.optional, *op.upstreams, SECOND) if name in inputs
    }


def _describe(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "its repr raises"
    return f"a {type(value).__name__} ({text[:60]}{'...' if len(text) > 60 else ''})"


_ORACLE: list[Oracle] = []


def default_oracle() -> Oracle:
    """The oracle of plain judge() calls: shared in this process, costly references on disk."""
    if not _ORACLE:
        from suite.oracle.cache import default_folder

        _ORACLE.append(Oracle(default_folder()))
    return _ORACLE[0]

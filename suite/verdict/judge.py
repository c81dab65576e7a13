"""The verdict: is this output what the op's definition allows, and if not, where, by how much, and what fits?

    from suite import judge
    judge("softmax", x, y).raise_if_failed()

Special values are compared by position first (special.py); then each finite entry must lie in its
interval (interval.py). docs/verdict.md derives the bounds.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from suite.floating_point import subnormals_kept
from suite.formats import Array, Format
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.ops import UPSTREAM, AnyOp, Shapes, get_op
from suite.ops.special import Special
from suite.oracle import Oracle, Reference, certified_entry
from suite.tensors import device_name, dtype_name, to_float64, to_numpy
from suite.verdict.interval import Interval, interval_of, is_inside, ratios
from suite.verdict.judgement import Judgement, JudgementError, Worst, merged
from suite.verdict.message import beyond_message, message
from suite.verdict.special import Mask
from suite.verdict.statistics import fitting
from suite.verdict.statistics import statistics as statistics_of
from suite.verdict.tensors import Accepted, accepted, as_tuple, check_output

__all__ = ["Judgement", "JudgementError", "Worst", "judge", "judge_outputs", "judge_values"]


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
    call = accepted(get_op(op), inputs, options)
    output = _without_autograd_tuple(call, output)
    wrong = check_output(
        call.op, output, call.shapes, dtype_name(call.logits), device_name(call.logits), call.options
    )
    if wrong is not None:
        return _refused(call, numerics, *wrong)
    with subnormals_kept():
        values: dict[str, Any] = {name: to_numpy(tensor) for name, tensor in call.tensors.items()}
        references = (oracle or default_oracle()).references(
            call.op, values, call.options, call.format, semantics=semantics
        )
        outputs = [to_float64(one) for one in as_tuple(output)]
        return judge_outputs(call.op, references, outputs, call.shapes, call.options, call.format, numerics)


def _without_autograd_tuple(call: Accepted, output: Any) -> Any:
    """The gradient of a single input alone, which torch.autograd.grad returns in a tuple."""
    alone = isinstance(output, tuple | list) and len(output) == len(call.op.outputs(call.options)) == 1
    return output[0] if UPSTREAM in call.tensors and alone else output


def _refused(call: Accepted, numerics: Numerics, status: str, reason: str) -> Judgement:
    """The judgement of an output that is no tensor of the right kind."""
    op, dtype, shape = call.op.name, call.format.name, next(iter(call.shapes.values()))
    return Judgement(
        op=op,
        dtype=dtype,
        shape=shape,
        status=status,
        broken=(status,),
        numerics=str(numerics),
        message=f"{op} {dtype} {list(shape)}: {status}: {reason}",
    )


def judge_outputs(
    op: AnyOp,
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
    judgements = (
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
    )
    return functools.reduce(merged, judgements)


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def judge_values(
    op: AnyOp,
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
    interval = interval_of(op, reference, numerics, format)
    failures = _failures(reference, interval, y)
    failed = failures.all
    judged = _judged_share(op, reference, interval)
    beyond = op.beyond_rows(output, reference.problem, options)
    broken = _broken(failures, judged)
    if beyond is not None and beyond.any() and not broken:
        broken = ("inaccurate" if np.isfinite(output[beyond]).all() else "nonfinite",)
    ratio = ratios(reference, interval, format, y, ~failed)
    recorded = statistics_of(op, reference, interval, format, y) if statistics else {}
    if statistics:
        recorded["fits"] = fitting(op, reference, format, y, numerics, failed)
    judgement = Judgement(
        op=op.name,
        dtype=format.name,
        shape=shapes[op.arguments[0]],
        status=broken[0] if broken else "passed",
        broken=broken,
        judged=judged,
        ratio=float(ratio.max()) if y.size else 0.0,
        failed=int(failed.sum()),
        entries=int(y.size),
        failed_rows=int(failed.any(axis=1).sum()),
        overflow=int(failures.escaped.sum()),
        worst=_worst(op, reference, format, y, ratio, interval, shapes, options) if y.size else None,
        digest=hashlib.blake2b(np.ascontiguousarray(y).tobytes(), digest_size=8).hexdigest(),
        first_failing_column=int(np.flatnonzero(failed.any(axis=0))[0]) if failed.any() else None,
        tiles=dict(op.places(failed, reference.problem)),
        numerics=str(numerics),
        tier=reference.tier,
        row_status=_row_status(failures),
        **recorded,
    )
    lines = [message(op, judgement, reference, y)]
    if beyond is not None and beyond.any():
        lines.append(beyond_message(beyond, output))
    return replace(judgement, message="\n".join(lines))


def failing(
    op: AnyOp,
    reference: Reference,
    output: Array,
    options: Mapping[str, Any],
    format: Format,
    numerics: Numerics,
) -> Mask:
    """[rows, k]: the entries of an output that are not inside their interval."""
    y = op.output_rows(output, reference.problem, options)
    return ~is_inside(reference, interval_of(op, reference, numerics, format), y)


class _Failures(NamedTuple):
    """The entries that fail, by what is wrong with them."""

    escaped: Mask
    """NaN or infinite where the definition is finite."""
    inaccurate: Mask
    """Finite, as in the definition, and outside the interval."""
    unlawful: Mask
    """Another special value than the definition's, or a number in its place."""

    @property
    def all(self) -> Mask:
        return self.escaped | self.inaccurate | self.unlawful


def _failures(reference: Reference, interval: Interval, y: Array) -> _Failures:
    outside = ~is_inside(reference, interval, y)
    finite = reference.special == Special.FINITE
    return _Failures(
        escaped=outside & finite & ~np.isfinite(y),
        inaccurate=outside & finite & np.isfinite(y),
        unlawful=outside & ~finite,
    )


def _judged_share(op: AnyOp, reference: Reference, interval: Interval) -> float:
    """The share of the numbers that have a meaningful bound, of those that say something."""
    telling = op.telling(reference.problem, reference.special == Special.FINITE)
    return float(interval.allowed.judged[telling].mean()) if telling.any() else 1.0


def _broken(failures: _Failures, judged: float) -> tuple[str, ...]:
    """Every status that holds, in order of precedence."""
    holds = {
        "nonfinite": failures.escaped.any(),
        "inaccurate": failures.inaccurate.any(),
        "law_broken": failures.unlawful.any(),
        "unjudged": judged < 0.5,
    }
    return tuple(status for status, it_does in holds.items() if it_does)


def _row_status(failures: _Failures) -> tuple[str, ...]:
    status = np.full(failures.escaped.shape[0], "passed", dtype="U10")
    for mask, name in (
        (failures.unlawful, "law_broken"),
        (failures.inaccurate, "inaccurate"),
        (failures.escaped, "nonfinite"),
    ):
        status[mask.any(axis=1)] = name
    return tuple(status.tolist())


def _worst(
    op: AnyOp,
    reference: Reference,
    format: Format,
    y: Array,
    ratio: Array,
    interval: Interval,
    shapes: Shapes,
    options: Mapping[str, Any],
) -> Worst:
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    finite = reference.special[row, column] == Special.FINITE
    hi, got = float(reference.hi[row, column]), float(y[row, column])
    expected = Special(reference.special[row, column]).text
    if finite:
        expected = repr(hi) if ratio[row, column] <= 1 else _exact_digits(op, reference, row, column)
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


def _exact_digits(op: AnyOp, reference: Reference, row: int, column: int) -> str:
    """The exact value of an entry to 20 significant digits, by arbitrary precision where that can be had."""
    import mpmath

    hi, lo = float(reference.hi[row, column]), float(reference.lo[row, column])
    reduced = len(reference.hi) != len(reference.problem.x)
    if reference.tier == "float64" and not reduced and reference.problem.ordinary[row]:
        hi, lo = certified_entry(op, reference.problem, row, column)
    with mpmath.workprec(128):
        return str(mpmath.nstr(mpmath.mpf(hi) + mpmath.mpf(lo), 20))


@functools.cache
def default_oracle() -> Oracle:
    """The oracle of plain judge() calls: shared in this process, costly references on disk."""
    from suite.oracle.cache import default_folder

    return Oracle(default_folder())

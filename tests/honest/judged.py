"""Correct kernels against the judge: none may ever fail.

Rows are free of NaN and +inf, because special values are the judge's own tests, and inside the domain
that a kernel declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from suite import inputs
from suite.case import Case, fixed_shape
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.formats import FORMATS, Array, Format
from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op, row_ops
from suite.oracle import Oracle
from suite.records.record import PASSING, Record
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import judge_values
from tests.honest import attention, backward, states
from tests.honest.rows import KERNELS
from tests.mutants.search import cases_of

FAMILIES = list(inputs.all_families())


def rows_without_nan(case: Case, format: Format, most_rows: int | None) -> dict[str, Array]:
    """The case's inputs, without the rows that hold NaN or +inf; of more than most_rows, so many
    that lie evenly among them.

    Where losses are added up or a temperature divides, without those whose sum or quotient float64
    cannot hold either.
    """
    given = case.inputs(format)
    logits = next(iter(given.values()))
    options = case.resolved_options()
    limit = (
        1e300
        if options.get("reduction") in ("mean", "sum") or options.get("temperature", 1.0) < 1
        else np.inf
    )
    unfit = np.isnan(logits) | (logits == np.inf) | (np.isfinite(logits) & (np.abs(logits) > limit))
    chosen = np.flatnonzero(~unfit.any(axis=1))
    if most_rows is not None and len(chosen) > most_rows:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most_rows).astype(int)]
    return {name: values[chosen] for name, values in given.items()}


def ratios(
    op: str,
    family: str,
    dtype: str,
    *,
    seeds: int,
    shapes: list[tuple[int, int]],
    most_rows: int | None = None,
) -> Iterator[tuple[str, str, float]]:
    """(kernel, what failed or "", largest error over its bound) of every honest kernel on every
    input and setting.
    """
    definition, format, oracle = get_op(op), FORMATS[dtype], Oracle()
    fixed = inputs.get_family(family).fixed_shape
    kernels = [kernel for kernel in KERNELS if kernel.op == op]
    settings = {str(setting): setting for kernel in kernels for setting in kernel.settings}.values()
    for seed in range(1 if fixed else seeds):
        for shape in [fixed] if fixed else shapes:
            for setting in settings:
                options = {name: value for name, value in setting.items() if name != "target"}
                target = setting.get("target", "indices")
                case = Case(op=op, family=family, shape=shape, options=options, seed=seed, target=target)
                resolved = case.resolved_options()
                given = rows_without_nan(case, format, most_rows)
                facts = oracle.reference(definition, given, resolved, format).facts
                for kernel in kernels:
                    if setting not in kernel.settings:
                        continue
                    own = given
                    if kernel.domain is not None:
                        meant = kernel.domain(facts, format).works
                        own = {name: values[meant] for name, values in given.items()}
                    output = kernel.call(*(to_torch(values, format) for values in own.values()), **options)
                    judgement = judge_values(
                        definition,
                        oracle.reference(definition, own, resolved, format),
                        to_float64(output),
                        {name: values.shape for name, values in own.items()},
                        resolved,
                        format,
                        kernel.numerics,
                        statistics=False,
                    )
                    nothing_proved = judgement.status == "unjudged" and kernel.numerics != BEST_PRACTICE
                    failed = "" if judgement.passed or nothing_proved else f"{case.id}: {judgement.message}"
                    yield kernel.name, failed, judgement.ratio


def kernels_of(op: str, direction: str = "forward") -> list[Kernel]:
    """The correct kernels of an op that is judged by its cases."""
    if direction == "backward":
        return backward.kernels(op)
    return {"attention": attention.kernels, "merge_states": states.kernels}[op]()


def records(
    op: str, dtype: str, *, seeds: int, every: int = 1, direction: str = "forward"
) -> Iterator[Record]:
    """What every correct kernel of attention or merge_states, or of any op's backward, gets on the
    op's smoke and quick cases, laws included.

    every: of the cases, one in so many for each kernel, so that each case meets some kernel.
    """
    cases, oracle, host = cases_of(op, dtype, "quick", direction), Oracle(remembered=10), InProcess()
    for place, (_, case) in enumerate(cases):
        for seed in range(1 if fixed_shape(op, case.family) else seeds):
            for index, kernel in enumerate(kernels_of(op, direction)):
                if (place + index + seed * every // seeds) % every == 0:
                    yield evaluate(replace(case, seed=seed), kernel, dtype=dtype, oracle=oracle, host=host)


def found(
    op: str, dtype: str, seeds: int, shapes: list[tuple[int, int]], every: int, direction: str
) -> Iterator[tuple[str, str, float]]:
    """(kernel, what failed or "", largest error over its bound) of the op's correct kernels; on
    rows, of these shapes.
    """
    if op in row_ops() and direction == "forward":
        for family in FAMILIES:
            yield from ratios(op, family, dtype, seeds=seeds, shapes=shapes)
        return
    for record in records(op, dtype, seeds=seeds, every=every, direction=direction):
        if record.status != "unsupported":
            failed = "" if record.status in PASSING else f"{record.case}: {record.message}"
            yield record.kernel, failed, record.judgement.ratio or 0.0

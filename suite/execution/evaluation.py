"""The engine: evaluate(case, kernel) -> Record. pytest items, check, run and reproduce all call it.

unsupported? -> inputs -> call, with references meanwhile -> judgement -> declared domain
-> side effects -> laws -> where it fails -> torch's error -> record
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from suite.case import Case
from suite.execution.baseline import torch_ratio
from suite.execution.calls import Calls, law_answer, one_or_all, outputs_of
from suite.execution.host import Host, Outcome
from suite.execution.in_process import InProcess
from suite.execution.isolation import TIMEOUT_SECONDS
from suite.execution.recorded import with_verdict, without_verdict
from suite.execution.subject import Subject
from suite.formats import Array, get_format
from suite.kernels import Domain, Kernel
from suite.laws import Call as LawCall
from suite.laws import Inputs, Output, Trial
from suite.laws.runner import Answer, run_laws
from suite.ops import Options
from suite.oracle import Oracle, Reference
from suite.records.known_failures import KnownFailure, apply
from suite.records.record import Record
from suite.records.store import Store
from suite.verdict.domain import check_domain, within_domain
from suite.verdict.judge import default_oracle, failing
from suite.verdict.judgement import Judgement
from suite.verdict.verdict import Verdict


def evaluate(
    case: Case,
    kernel: Kernel,
    *,
    dtype: str = "float32",
    oracle: Oracle | None = None,
    device: str = "cpu",
    host: Host | None = None,
    store: Store | None = None,
    known: Sequence[KnownFailure] = (),
    strict: bool = False,
    env_id: str = "",
    inputs: Inputs | None = None,
    input_file: str = "",
    timeout: float | None = TIMEOUT_SECONDS,
) -> Record:
    """Runs a kernel on a case and judges it: never raises for the kernel's fault, and the record is
    stored on return.

    dtype: a format's name. oracle: the one that judge() uses, by default. known: failures that are
    known, which strict ignores. strict: judge by best practice, whatever the kernel declares.
    inputs: in place of the case's own, from `input_file`. timeout: seconds that the kernel may take
    in all its calls of this case, where the host can end them; None for no limit. Raises ValueError
    for misuse: an unknown dtype, a kernel of another op.
    """
    if kernel.op != case.op:
        raise ValueError(f"kernel {kernel.id} is a kernel of {kernel.op}, case {case.id} is one of {case.op}")
    subject = Subject(
        case=case,
        kernel=kernel,
        format=get_format(dtype),
        device=device,
        strict=strict,
        oracle=oracle or default_oracle(),
    )
    host = host or InProcess()
    record = replace(_evaluated(subject, host, inputs, timeout), env_id=env_id)
    host.note(record)
    if input_file:
        options = "".join(f" --option {name}={value}" for name, value in case.options.items())
        given = f"--input {shlex.quote(input_file)}{options}"
        record = replace(record, reproduce=record.reproduce.replace(f"--case {case.id}", given))
    if not strict:
        record = apply(record, known)
    if store is not None:
        store.append(record)
    return record


def _evaluated(subject: Subject, host: Host, given: Inputs | None, timeout: float | None) -> Record:
    """The record of an evaluation, each step of which may end it."""
    case, options = subject.case, subject.options
    reason = subject.unsupported(given or case.shapes(), options)
    if reason is not None:
        return without_verdict(subject, "unsupported", reason)
    inputs = given if given is not None else _inputs(case.id, subject.format.name)
    calls = Calls(subject, inputs, host, timeout)
    pending = calls.judged()
    # Meanwhile: a kernel in a process of its own is at work already.
    references = subject.references(inputs, options)
    [outcome] = pending
    if outcome.status == "unsupported" and not calls.declines_benign_input():
        message = f"{outcome.message} (only on this case's input)"
        outcome = replace(outcome, status="raised", message=message)
    if outcome.status is not None:
        return without_verdict(subject, outcome.status, outcome.message, outcome)

    outputs = outputs_of(outcome)
    judgement = subject.judgement(inputs, options, outputs, references)
    name = f"{subject.op(inputs).name} {subject.format.name} {list(judgement.shape)}"
    verdict = Verdict(judgement, name)
    if subject.domain is not None:
        _check_domain(verdict, subject, calls, references[0])
    if judgement.broken == ("unjudged",) and case.unjudged:
        verdict.excuse(case.unjudged)
    _check_side_effects(verdict, outcome)
    bitwise = _check_laws(verdict, subject, calls, inputs, outputs) if verdict.clean else {}
    if judgement.failed and not verdict.known:
        _locate(verdict, subject, calls, inputs, outputs[0], references[0])
    ratio = torch_ratio(subject, calls, inputs, references[0], judgement.max_ulp)
    return with_verdict(subject, outcome, verdict, bitwise=bitwise, torch_ratio=ratio)


@functools.lru_cache(maxsize=4)
def _inputs(case_id: str, dtype: str) -> Inputs:
    """A case's inputs, which all kernels share in turn; none gets these arrays themselves."""
    return Case.from_id(case_id).inputs(get_format(dtype))


def _check_domain(verdict: Verdict, subject: Subject, calls: Calls, reference: Reference) -> None:
    domain = calls.domain(reference)
    if isinstance(domain, Domain):
        check_domain(verdict, domain, reference, backward=subject.case.direction == "backward")
    else:
        status, why = domain
        verdict.breaks("domain", why, status=status)


def _check_side_effects(verdict: Verdict, outcome: Outcome) -> None:
    if outcome.modified:
        verdict.breaks("input untouched", "the kernel changed its input tensor")
    if outcome.state_changes:
        changes = "; ".join(outcome.state_changes)
        verdict.breaks("global state untouched", f"the kernel changed {changes} (put back)")


def _check_laws(
    verdict: Verdict, subject: Subject, calls: Calls, inputs: Inputs, outputs: tuple[Array, ...]
) -> dict[str, bool]:
    """Adds the laws that are broken; returns which of them had the same bits on both sides."""

    def judged(inputs: Inputs, options: Options, output: Output) -> Judgement:
        references = subject.references(inputs, options)
        judgement = subject.judgement(inputs, options, output, references, statistics=False)
        if judgement.broken and subject.domain is not None:
            domain = calls.domain(references[0])
            return within_domain(judgement, domain) if isinstance(domain, Domain) else judgement
        return judgement

    def answers(wanted: Iterable[LawCall]) -> Iterator[Answer]:
        return map(law_answer, calls.submit((*trial.changed(call), call.memory) for call in wanted))

    op = subject.op(inputs)
    trial = Trial(
        inputs=inputs,
        options=subject.options,
        output=one_or_all(outputs),
        dim=op.axis(subject.options, next(iter(inputs.values())).shape),
        keeps_length=op.keeps_length,
        targeted="target" in op.arguments,
        format=subject.format,
        judge_output=judged,
        unsupported=subject.unsupported,
    )
    findings = run_laws(subject.case.laws, trial, answers)
    for name, finding in findings.items():
        if not finding.held:
            verdict.breaks(name, finding.note, status=finding.status)
    return {name: found.bitwise for name, found in findings.items() if found.bitwise is not None}


def _locate(
    verdict: Verdict,
    subject: Subject,
    calls: Calls,
    inputs: Inputs,
    output: Array,
    reference: Reference,
) -> None:
    """Adds where in its inputs the kernel goes wrong, by one more call; nothing where the op has no
    such call, or where another output is wrong.
    """
    op = subject.op(inputs)
    options, format, numerics = subject.options, subject.format, subject.numerics
    marking = op.marking(inputs)
    if marking is None or not failing(op, reference, output, options, format, numerics).any():
        return
    marked, describe = marking
    outcome = calls.of(marked)
    if outcome.status is not None:
        return
    output = outputs_of(outcome)[0]
    reference = subject.references(marked, options)[0]
    rows = op.output_rows(output, reference.problem, options)
    where = describe(failing(op, reference, output, options, format, numerics), rows, reference.hi)
    if where:
        verdict.locate(where)

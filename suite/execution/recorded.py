"""How a record is made of an evaluation."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from typing import Any

from suite.execution.host import Outcome
from suite.execution.subject import Subject
from suite.ops import get_op
from suite.records.found import Effects
from suite.records.record import Record
from suite.verdict.verdict import Verdict
from suite.version import __version__


def without_verdict(subject: Subject, status: str, message: str, outcome: Outcome | None = None) -> Record:
    """The record of an evaluation that ended before there was an output to judge."""
    broken = () if status == "unsupported" else (status,)
    return _record(subject, outcome, status=status, broken=broken, message=message)


def with_verdict(
    subject: Subject,
    outcome: Outcome,
    verdict: Verdict,
    *,
    bitwise: Mapping[str, bool],
    torch_ratio: float | None,
) -> Record:
    """The record of a judged output."""
    status = verdict.status
    return _record(
        subject,
        outcome,
        status=status,
        message=verdict.message,
        broken=verdict.broken or verdict.judgement.broken,
        known=verdict.known if status == "known_failure" else "",
        bitwise=dict(bitwise),
        torch_ratio=torch_ratio,
        judgement=verdict.judgement.recorded(),
    )


def _record(subject: Subject, outcome: Outcome | None, **found: Any) -> Record:
    case, kernel = subject.case, subject.kernel
    return Record(
        suite_version=__version__,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kernel=kernel.id,
        kernel_version=kernel.version,
        outside=kernel.outside,
        op=case.op,
        case=case.id,
        family=case.family,
        shape=case.shape,
        options={
            name: get_op(case.op).setting(name).text(value) if isinstance(value, tuple) else value
            for name, value in case.options.items()
        },
        laws=case.laws,
        profile=case.profile,
        seed=case.seed,
        dtype=subject.format.name,
        device=subject.device,
        direction=case.direction,
        strict=subject.strict,
        reproduce=reproducing(subject),
        numerics=f"{subject.numerics}{', domain' if subject.domain is not None else ''}",
        outcome=outcome.recorded() if outcome else Effects(),
        **found,
    )


def reproducing(subject: Subject) -> str:
    """The command that evaluates the same again."""
    case, device = subject.case, subject.device
    words = ["softmax-suite", "check", "--op", case.op, "--kernel", subject.kernel.id]
    words += ["--dtype", subject.format.name]
    words += ["--device", device] if device != "cpu" else []
    words += ["--strict"] if subject.strict else []
    return shlex.join([*words, "--case", case.id])

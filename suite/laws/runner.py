"""Runs the laws of a case: collects the calls that they want, and gives each law its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from suite.laws import IN_PART, Call, Finding, Inquiry, Output, Trial, get_law

DECLINED = Finding(held=True, note="the kernel takes no such call")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a law's call."""

    output: Output | None = None
    """Float64; None where the call returned nothing that can be judged."""
    failed: Finding | None = None
    """Why the law is broken by the call itself."""
    unsupported: bool = False
    """The kernel declines the call."""
    lost: bool = False
    """The call ended the kernel, which is asked nothing more about this case."""


Answers = Callable[[Iterable[Call]], Iterator[Answer]]
"""Makes calls one after the other: answers in their order, up to the first that is lost."""


def run_laws(names: Sequence[str], trial: Trial, answers: Answers) -> dict[str, Finding]:
    """The finding of each law, by name; of those up to the first whose call ended the kernel."""
    findings: dict[str, Finding] = {}
    inquiries = {name: get_law(name)(trial) for name in names}
    wanted: dict[str, list[Call]] = {}
    for name, inquiry in inquiries.items():
        try:
            wanted[name] = next(inquiry)
        except StopIteration as end:  # it needs no call
            findings[name] = end.value
    answered = answers(call for calls in wanted.values() for call in calls)
    for name, calls in wanted.items():
        # The calls first: zip asks for no answer beyond the last of them.
        given = [answer for _, answer in zip(calls, answered, strict=False)]
        findings[name] = _finding(name, inquiries[name], trial, calls, given)
        if any(answer.lost for answer in given):
            break
    return findings


def _finding(
    name: str, inquiry: Inquiry, trial: Trial, calls: Sequence[Call], answers: Sequence[Answer]
) -> Finding:
    """What a law finds in the answers to its calls, fewer of them where the kernel was lost."""
    outputs: list[Output | None] = []
    for call, answer in zip(calls, answers, strict=False):
        declined = answer.unsupported and trial.is_another_kind(call)
        if answer.failed is not None and not declined:
            return answer.failed
        outputs.append(answer.output)
    missing = [output is None for output in outputs]
    if any(missing) and (name not in IN_PART or all(missing)):
        return DECLINED
    try:
        inquiry.send(outputs)
    except StopIteration as end:
        finding: Finding = end.value
        return finding
    raise RuntimeError(f"the law {name} wants further calls after its answers")

"""The calls of one evaluation: tensors are built, calls submitted to the host, and their time counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from suite.execution.host import LOST, Call, DiedError, Host, Outcome
from suite.execution.subject import Subject
from suite.formats import Array
from suite.inputs.layouts import arrange
from suite.kernels import Domain
from suite.laws import Finding, Inputs, Memory, Output
from suite.laws.runner import Answer
from suite.ops import Options
from suite.oracle import Reference
from suite.tensors import to_float64, to_torch
from suite.verdict.tensors import as_tuple

Wanted = tuple[Inputs, Options, Memory]
"""A call to make."""


class Calls:
    """Calls the kernel of a subject on its host, within the time of the case."""

    def __init__(self, subject: Subject, inputs: Inputs, host: Host, seconds: float | None) -> None:
        """inputs: of the call that is judged. seconds: for all calls; None for no limit."""
        self._subject, self._inputs, self._host = subject, inputs, host
        self._op = subject.op(inputs)
        self._seconds_left = seconds

    def submit(self, wanted: Iterable[Wanted]) -> Iterator[Outcome]:
        """The outcomes of calls, in order; the last one where the kernel is lost. A host of another
        process is at work as soon as this returns.
        """
        calls = (Call(self.tensors(inputs), options, memory) for inputs, options, memory in wanted)
        outcomes = self._host.submit(self._subject.kernel, calls, limit_seconds=self._seconds_left)
        return self._timed(outcomes)

    def _timed(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        for outcome in outcomes:
            if self._seconds_left is not None:
                self._seconds_left = max(self._seconds_left - outcome.elapsed_seconds, 0.0)
            yield outcome

    def judged(self) -> Iterator[Outcome]:
        """submit() of the call that is judged."""
        return self.submit([(self._inputs, self._subject.options, "plain")])

    def of(self, inputs: Inputs) -> Outcome:
        """The outcome of a call with the case's options on other inputs."""
        [outcome] = self.submit([(inputs, self._subject.options, "plain")])
        return outcome

    def declines_benign_input(self) -> bool:
        """Whether the kernel declines zeros of the same shapes too."""
        benign = {name: np.zeros_like(values) for name, values in self._inputs.items()}
        return self.of(benign).status == "unsupported"

    def tensors(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """The inputs as the kernel gets them: in their format, on their device, in the case's
        layout where they allow it.
        """
        subject = self._subject
        tensors = {
            name: to_torch(values, self._op.input_format(name, subject.format), subject.device)
            for name, values in inputs.items()
        }
        return {
            name: arrange(tensor, subject.case.layout) if self._is_arranged(name, tensor) else tensor
            for name, tensor in tensors.items()
        }

    def _is_arranged(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether the case's layout applies: a tensor can be expanded only where its slices are equal."""
        if name not in self._op.arguments or not tensor.ndim:
            return False
        return self._subject.case.layout != "expanded" or torch.equal(
            tensor.nan_to_num(), tensor[:1].expand_as(tensor).nan_to_num()
        )

    def domain(self, reference: Reference) -> Domain | tuple[str, str]:
        """The kernel's declared domain for these rows, or a status and what is wrong with the declaration."""
        declared = self._subject.domain
        assert declared is not None
        try:
            facts = self._op.scores(reference.facts)
            domain = declared(facts, self._subject.format)
            shapes = {np.shape(domain.works), np.shape(domain.fails)}
        except DiedError as error:
            return error.status, f"{error.status}: {error}"
        except Exception as error:  # it is the kernel author's code
            return "law_broken", f"the declared domain raises {type(error).__name__}: {str(error)[:200]}"
        expected = (len(facts.x),)
        if shapes == {expected}:
            return domain
        return "law_broken", f"the declared domain has masks of shapes {shapes}; expected {expected}"


def outputs_of(outcome: Outcome) -> tuple[Array, ...]:
    """What a call returned, as float64, copied: a kernel may write its next output where this one is."""
    return tuple(to_float64(value) for value in as_tuple(outcome.value))


def one_or_all(outputs: tuple[Array, ...]) -> Output:
    """The output of an op that has one, the tuple of several."""
    return outputs if len(outputs) > 1 else outputs[0]


def law_answer(outcome: Outcome) -> Answer:
    """What came of a law's call, for the law."""
    broken = ""
    if outcome.status is not None:
        broken = f"{outcome.status}: {outcome.message}"
    elif outcome.modified or outcome.state_changes:
        changed = "its input tensor" if outcome.modified else "; ".join(outcome.state_changes)
        broken = f"a further call changed {changed}"
    elif outcome.overrun:
        broken = outcome.overrun
    if not broken:
        return Answer(output=one_or_all(outputs_of(outcome)))
    lost = outcome.status in LOST
    status = outcome.status if outcome.status is not None and lost else "law_broken"
    return Answer(
        failed=Finding(held=False, note=broken, status=status),
        unsupported=outcome.status == "unsupported",
        lost=lost,
    )

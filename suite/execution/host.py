"""Hosts: where a kernel's code runs. A host turns a call into an Outcome, whatever the kernel does.

InProcess (in_process.py) calls it here; Isolated (isolated.py) in a process of its own, by way of
an InProcess over there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from suite.execution import timed
from suite.kernels import Kernel
from suite.laws import Memory
from suite.ops import get_op
from suite.records.found import Effects
from suite.records.record import Record

LOST = ("crashed", "timed_out", "out_of_memory", "not_run")
"""The statuses after which nothing more is asked of a kernel about the same case."""


class DiedError(Exception):
    """A kernel's process is gone and will not answer. status: crashed, timed_out or out_of_memory.
    output: its last words.
    """

    def __init__(self, status: str, message: str, output: str) -> None:
        super().__init__(message)
        self.status, self.output = status, output


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Effects):
    """What came of one call."""

    status: str | None = None
    """None where the kernel returned an output that can be judged, else raised, unsupported,
    out_of_memory, wrong_type, wrong_shape, wrong_dtype, crashed, timed_out or not_run.
    """
    message: str = ""
    """The reason for a status."""
    value: torch.Tensor | tuple[torch.Tensor, ...] | None = None
    """What it returned, a tuple where the op has several outputs; None with a status."""
    elapsed_seconds: float = 0.0
    """Wall clock with all that a host does."""
    modified: bool = False
    """The input's bits are not what they were."""
    lost: bool = False
    """The process or the device is of no use after this call."""
    overrun: str = ""
    """What it wrote outside its tensors, where that was watched."""
    state_changes: tuple[str, ...] = ()
    """Global switches that it changed, put back since."""

    def recorded(self) -> Effects:
        """What a record holds of it."""
        return Effects(seconds=self.seconds, warnings=self.warnings, output=self.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOutcome:
    """What came of timing a kernel."""

    status: str | None = None
    """As of an Outcome; None where it was timed, or where `timed` says why there are no times."""
    message: str = ""
    """The reason for a status."""
    timed: timed.Timed = field(default_factory=timed.Timed)
    """Times, or why there are none."""
    lost: bool = False
    """The process or the device is of no use any more."""


class Call(NamedTuple):
    """A call to make."""

    tensors: Mapping[str, torch.Tensor]
    """Inputs by name, which are the kernel's from then on."""
    options: Mapping[str, Any]
    """Of the op."""
    memory: Memory = "plain"
    """How memory is watched."""


class Host(ABC):
    """Where kernels run. limit_seconds: what a call may take that belongs to no case; None where
    the host cannot end one.
    """

    limit_seconds: float | None = None

    @abstractmethod
    def submit(
        self, kernel: Kernel, calls: Iterable[Call], *, limit_seconds: float | None = None
    ) -> Iterator[Outcome]:
        """Calls the kernel on these inputs one after the other: outcomes in their order, up to the
        first that is lost.

        A host of another process is at work while its caller does something else; the caller takes
        every outcome. Never raises for the kernel's fault; KeyboardInterrupt passes. limit_seconds:
        after which the call at hand is timed_out, where the host can end it.
        """

    @abstractmethod
    def time(self, kernel: Kernel, task: timed.Task, *, limit_seconds: float | None = None) -> TimedOutcome:
        """Times a kernel that has passed, where it runs: nothing else calls it meanwhile. Never
        raises for the kernel's fault; KeyboardInterrupt passes. limit_seconds: after which it is
        timed_out, where the host can end it.
        """

    def note(self, record: Record) -> None:  # noqa: B027 - most need not know
        """Hears what became of each case of a kernel, in order, those of a run that is resumed
        among them. A host of processes sets kernels aside by it.
        """

    def call(
        self, kernel: Kernel, inputs: torch.Tensor | Mapping[str, torch.Tensor], options: Mapping[str, Any]
    ) -> Outcome:
        """The outcome of one call that belongs to no case, of the first argument alone or of
        tensors by name.
        """
        tensors = {get_op(kernel.op).arguments[0]: inputs} if isinstance(inputs, torch.Tensor) else inputs
        [outcome] = self.submit(kernel, [Call(tensors, options)], limit_seconds=self.limit_seconds)
        return outcome

"""Hosts: where a kernel's code runs. A host turns a call into an Outcome, whatever the kernel does.

InProcess calls it here; Isolated (isolated.py) in a process of its own, by way of an InProcess over there.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from suite.execution import state, timed
from suite.execution.adapters import adapted_call, wrong_kind
from suite.execution.gradients import WrongTypeError
from suite.execution.memory import Guards, filled, guarding
from suite.kernels import Kernel
from suite.laws import Memory
from suite.ops import get_op
from suite.records.record import Record
from suite.tensors import bits, dtype_name

KEPT_CHARACTERS = 2000
"""Of what a kernel prints, and of a message."""
KEPT_TEXTS, TEXT_CHARACTERS = 20, 300
"""Of warnings and the like: how many different ones, and how much of each."""


class DiedError(Exception):
    """A kernel's process is gone and will not answer. status: crashed, timed_out or out_of_memory.
    output: its last words.
    """

    def __init__(self, status: str, message: str, output: str) -> None:
        super().__init__(message)
        self.status, self.output = status, output


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one call.

    status: None where the kernel returned an output that can be judged, else raised, unsupported,
    out_of_memory, wrong_type, wrong_shape, wrong_dtype, crashed, timed_out or not_run, with the
    reason in message.
    value: the tensor that it returned, or the tuple of them where the op has several; None with a
    status. seconds: wall clock of the call alone; elapsed_seconds: with all that a host does.
    modified: the input's bits are not what they were. lost: the process or the device is of no use
    after this call.
    overrun: what it wrote outside its tensors, where that was watched.
    state_changes: global switches that it changed, put back since. warnings, output: what it warned
    of and printed.
    """

    status: str | None = None
    message: str = ""
    value: torch.Tensor | tuple[torch.Tensor, ...] | None = None
    seconds: float | None = None
    elapsed_seconds: float = 0.0
    modified: bool = False
    lost: bool = False
    overrun: str = ""
    state_changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOutcome:
    """What came of timing a kernel: times, or why there are none; or a status, as of an Outcome,
    with the reason in message.

    lost: the process or the device is of no use any more.
    """

    status: str | None = None
    message: str = ""
    timed: timed.Timed = field(default_factory=timed.Timed)
    lost: bool = False


LOST = ("crashed", "timed_out", "out_of_memory", "not_run")
"""The statuses after which nothing more is asked of a kernel about the same case."""


class Call(NamedTuple):
    """A call to make: input tensors by name, which are the kernel's from then on, options, and how
    memory is watched.
    """

    tensors: Mapping[str, torch.Tensor]
    options: Mapping[str, Any]
    memory: Memory = "plain"


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


class InProcess(Host):
    """Calls kernels in this process: for this suite's own kernels, and for any that is trusted not
    to crash or hang.

    disposable: the process is the kernel's own, and may exit if it wants to. There is no time
    limit: nothing ends a call here.
    """

    def __init__(self, *, disposable: bool = False) -> None:
        self._disposable = disposable
        self._lost = ""

    def submit(
        self, kernel: Kernel, calls: Iterable[Call], *, limit_seconds: float | None = None
    ) -> Iterator[Outcome]:
        for call in calls:
            yield self._outcome(kernel, call.tensors, call.options, call.memory)

    def time(self, kernel: Kernel, task: timed.Task, *, limit_seconds: float | None = None) -> TimedOutcome:
        device = torch.device(task.device)
        if self._lost and device.type == "cuda":
            return TimedOutcome(
                status="not_run", message=f"this process lost the device before: {self._lost}"
            )
        ran = self._ran(lambda: timed.run(kernel, task), device)
        status, message = ran.status, ran.message
        if status is None and ran.state_changes:
            status = "law_broken"
            message = (
                f"global state untouched: the kernel changed {'; '.join(ran.state_changes)} (put back) in a"
                " timed call"
            )
        if status is not None:
            return TimedOutcome(status=status, message=message, lost=bool(self._lost))
        return TimedOutcome(timed=ran.value)

    def _outcome(
        self, kernel: Kernel, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], memory: Memory
    ) -> Outcome:
        start = time.perf_counter()
        first = next(iter(tensors.values()))
        device = first.device
        if self._lost and device.type == "cuda":
            return Outcome(status="not_run", message=f"this process lost the device before: {self._lost}")
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        dtype = dtype_name(first)
        guards = Guards() if memory == "guarded" else None
        if guards is not None:
            tensors = {name: guards.around(tensor, "the input") for name, tensor in tensors.items()}
        before = {name: bits(tensor) for name, tensor in tensors.items()}
        ran = self._ran(lambda: _watched_call(kernel, tensors, options, memory, guards), device)
        status, message = ran.status, ran.message
        value, seconds = ran.value or (None, None)
        if status is None:
            op = get_op(kernel.op).of(tensors)
            status, message = wrong_kind(op, value, shapes, dtype, str(device), options) or (None, "")
        return Outcome(
            status=status,
            message=shortened(message, KEPT_CHARACTERS),
            value=(tuple(value) if isinstance(value, list) else value) if status is None else None,
            seconds=seconds,
            elapsed_seconds=time.perf_counter() - start,
            lost=bool(self._lost),
            overrun=guards.broken() if guards is not None else "",
            modified=not self._lost
            and not all(np.array_equal(before[name], bits(tensor)) for name, tensor in tensors.items()),
            state_changes=ran.state_changes,
            warnings=ran.warnings,
            output=ran.output,
        )

    def _ran(self, work: Callable[[], Any], device: torch.device) -> _Ran:
        """What came of work() in the strict state, which calls a kernel; the state is put back."""
        modules = len(sys.modules)
        outside = state.read()
        strict = state.strict(outside)
        state.write(strict, outside)
        printed = _Tail()
        caught: list[warnings.WarningMessage] = []
        status: str | None = None
        message, value = "", None
        try:
            with _recorded(printed, disposable=self._disposable) as caught:
                value = work()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)  # where an error of the kernel shows
        except _ExitedError as error:
            status, message = "crashed", exception_text(error)
        except NotImplementedError as error:
            status, message = "unsupported", exception_text(error)
        except WrongTypeError as error:
            status, message = "wrong_type", str(error)
        except timed.WrongOutputError as error:
            status, message = error.status, str(error)
        except timed.ChangedInputError as error:
            status, message = "law_broken", f"input untouched: {error}"
        except (MemoryError, torch.OutOfMemoryError) as error:
            status, message = "out_of_memory", exception_text(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self._disposable:
                raise  # the user's; in a process of its own nobody but the kernel raises it
            out_of_memory = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
            status, message = "out_of_memory" if out_of_memory else "raised", exception_text(error)
        finally:
            after = state.read()
            changes = state.changes(strict, after)
            drawn = (
                [c for c in changes if c.endswith("_seed")] if len(sys.modules) > modules else []
            )  # import jax does
            state.write(outside, after)
        if status is not None and device.type == "cuda" and (lost := _device_error(device)):
            self._lost = lost
            status, message = "crashed", f"{message}; after it the device answers nothing but: {lost}"
        return _Ran(
            status=status,
            message=message,
            value=value,
            state_changes=some(change for change in changes if change not in drawn),
            warnings=some(
                (
                    *map(_warning_text, caught),
                    *(f"what it imported in its call changed {change}" for change in drawn),
                )
            ),
            output=printed.text(),
        )


class _Ran(NamedTuple):
    """What came of something that calls a kernel. status, message, ...: as of an Outcome. value:
    what it returned.
    """

    status: str | None
    message: str
    value: Any
    state_changes: tuple[str, ...]
    warnings: tuple[str, ...]
    output: str


_UNWATCHABLE = ("fail_on_recompile", "no rule registered for HigherOrderOperator")
"""What torch says where a mode of ours cannot look on: in a graph of torch.compile, in flex_attention."""


def _watched_call(
    kernel: Kernel,
    tensors: Mapping[str, torch.Tensor],
    options: Mapping[str, Any],
    memory: Memory,
    guards: Guards | None,
) -> tuple[Any, float]:
    """adapted_call() under the watch of `memory`. Where torch cannot watch allocations, canaries
    are around the inputs only.
    """
    if memory == "filled":
        with filled():
            return adapted_call(kernel, tensors, options)
    if guards is not None:
        try:
            with guarding(guards):
                return adapted_call(kernel, tensors, options)
        except RuntimeError as error:
            if not any(sign in str(error) for sign in _UNWATCHABLE):
                raise
    return adapted_call(kernel, tensors, options)


def _device_error(device: torch.device) -> str:
    """What a CUDA device says to the smallest task: nothing, or the error of an earlier kernel,
    which stays for good.
    """
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


@contextlib.contextmanager
def _recorded(printed: _Tail, *, disposable: bool) -> Iterator[list[warnings.WarningMessage]]:
    with (
        contextlib.nullcontext() if disposable else _no_silent_exit(),
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        warnings.simplefilter("always")
        yield caught


class _ExitedError(BaseException):
    """The kernel called os._exit."""


@contextlib.contextmanager
def _no_silent_exit() -> Iterator[None]:
    """os._exit in a kernel of Python would end this process with the kernel's exit code, 0
    included: it raises instead.
    """
    original, process = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            original(status)  # a fork of the kernel's, which ends as it should
        raise _ExitedError(f"os._exit({status}) would have ended this process")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = original


class _Tail(io.TextIOBase):
    """A stream that keeps the last KEPT_CHARACTERS of what is written to it."""

    def __init__(self) -> None:
        self._kept = ""
        self._dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        joined = self._kept + text[-KEPT_CHARACTERS:]
        self._dropped += len(self._kept) + len(text) - len(joined[-KEPT_CHARACTERS:])
        self._kept = joined[-KEPT_CHARACTERS:]
        return len(text)

    def text(self) -> str:
        kept = _clean(self._kept)
        return f"[{self._dropped} characters before this] {kept}" if self._dropped else kept


def exception_text(error: BaseException) -> str:
    """The exception and the kernel's own line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    for frame in reversed(frames):
        if frame.filename != __file__ and not frame.filename.startswith(sys.prefix):
            place = f" (at {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
            break
    kind = "" if isinstance(error, _ExitedError) else f"{shortened(type(error).__name__)}: "
    return f"{kind}{shortened(_text(error), 500)}{shortened(place)}"


def some(texts: Iterable[str]) -> tuple[str, ...]:
    """The first KEPT_TEXTS different ones, each shortened, and how many more there are."""
    different = list(dict.fromkeys(map(shortened, texts)))
    more = len(different) - KEPT_TEXTS
    return (*different[:KEPT_TEXTS], *([f"and {more:,} more"] if more > 0 else ()))


def shortened(text: str, characters: int = TEXT_CHARACTERS) -> str:
    """The beginning of a text that may be of any length, without lone surrogates."""
    return _clean(text[:characters])


def _warning_text(warning: warnings.WarningMessage) -> str:
    return f"{warning.category.__name__[:100]}: {_text(warning.message)[:200]}"


def _text(said: BaseException | str) -> str:
    """What an exception or a warning says, which is code of the kernel's author."""
    try:
        return str(said)
    except Exception:
        return "its message cannot be shown"


def _clean(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

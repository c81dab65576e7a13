"""The host that calls kernels in this process, in a strict state that is put back after each call."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from suite.execution import state, timed
from suite.execution.adapters import adapted_call, wrong_kind
from suite.execution.gradients import WrongTypeError
from suite.execution.host import Call, Host, Outcome, TimedOutcome
from suite.execution.memory import Guards, filled, guarding, new_guards
from suite.execution.texts import KEPT_CHARACTERS, Tail, said, shortened, some, warning_text
from suite.kernels import Kernel
from suite.laws import Memory
from suite.ops import get_op
from suite.tensors import bits, dtype_name


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
        guards = new_guards() if memory == "guarded" else None
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
        printed = Tail()
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
            imported = len(sys.modules) > modules
            # An import may draw random numbers, as that of jax does: that is no fault of the kernel.
            drawn = [change for change in changes if imported and change.endswith("_seed")]
            state.write(outside, after)
        imports_drew = [f"what it imported in its call changed {change}" for change in drawn]
        if status is not None and device.type == "cuda" and (lost := _device_error(device)):
            self._lost = lost
            status, message = "crashed", f"{message}; after it the device answers nothing but: {lost}"
        return _Ran(
            status=status,
            message=message,
            value=value,
            state_changes=some(change for change in changes if change not in drawn),
            warnings=some([*map(warning_text, caught), *imports_drew]),
            output=printed.text(),
        )


class _Ran(NamedTuple):
    """What came of something that calls a kernel: as an Outcome has it."""

    status: str | None
    message: str
    value: Any
    """What it returned."""
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
def _recorded(printed: Tail, *, disposable: bool) -> Iterator[list[warnings.WarningMessage]]:
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


def exception_text(error: BaseException) -> str:
    """The exception and the kernel's own line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    for frame in reversed(frames):
        if frame.filename != __file__ and not frame.filename.startswith(sys.prefix):
            place = f" (at {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
            break
    kind = "" if isinstance(error, _ExitedError) else f"{shortened(type(error).__name__)}: "
    return f"{kind}{shortened(said(error), 500)}{shortened(place)}"

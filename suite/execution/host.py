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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from suite.execution import state
from suite.execution.adapters import adapted_call
from suite.execution.memory import Guards, Memory, filled, guarding
from suite.isolation import TIMEOUT_SECONDS
from suite.judge import check_output
from suite.kernels import Kernel
from suite.ops import get_op
from suite.records import Record
from suite.tensors import bits, dtype_name

KEPT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one call.

    status: None where the kernel returned an output that can be judged, else raised, unsupported, out_of_memory, wrong_type,
    wrong_shape, wrong_dtype, crashed, timed_out or not_run, with the reason in message.
    value: what it returned, None with a status. seconds: wall clock of the call alone; elapsed_seconds: with all that a host
    does. modified: the input's bits are not what they were. lost: the process or the device is of no use after this call.
    overrun: what it wrote outside its tensors, where that was watched.
    state_changes: global switches that it changed, put back since. warnings, output: what it warned of and printed.
    """

    status: str | None = None
    message: str = ""
    value: torch.Tensor | None = None
    seconds: float | None = None
    elapsed_seconds: float = 0.0
    modified: bool = False
    lost: bool = False
    overrun: str = ""
    state_changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    output: str = ""


LOST = ("crashed", "timed_out", "out_of_memory", "not_run")
"""The statuses after which nothing more is asked of a kernel about the same case."""


class Call(NamedTuple):
    """A call to make: its input tensors, which are the kernel's from then on, and how memory is watched."""

    tensors: tuple[torch.Tensor, ...]
    memory: Memory = "plain"


class Host(ABC):
    """Where kernels run."""

    @abstractmethod
    def submit(
        self, kernel: Kernel, calls: Iterable[Call], options: Mapping[str, Any], *, limit_seconds: float | None = None
    ) -> Iterator[Outcome]:
        """Calls the kernel on these inputs one after the other: outcomes in their order, up to the first that is lost.

        A host of another process is at work while its caller does something else; the caller takes every outcome.
        Never raises for the kernel's fault; KeyboardInterrupt passes. limit_seconds: after which the call at hand is
        timed_out, where the host can end it.
        """

    def note(self, record: Record) -> None:  # noqa: B027 - most need not know
        """Hears what became of each case of a kernel, in order, those of a run that is resumed among them. A host of processes
        sets kernels aside by it.
        """

    def call(self, kernel: Kernel, inputs: torch.Tensor | tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> Outcome:
        """The outcome of one call, which may take as long as a case."""
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        [outcome] = self.submit(kernel, [Call(tensors)], options, limit_seconds=TIMEOUT_SECONDS)
        return outcome


class InProcess(Host):
    """Calls kernels in this process: for this suite's own kernels, and for any that is trusted not to crash or hang.

    disposable: the process is the kernel's own, and may exit if it wants to. There is no time limit: nothing ends a call here.
    """

    def __init__(self, *, disposable: bool = False) -> None:
        self._disposable = disposable
        self._lost = ""

    def submit(
        self, kernel: Kernel, calls: Iterable[Call], options: Mapping[str, Any], *, limit_seconds: float | None = None
    ) -> Iterator[Outcome]:
        for call in calls:
            yield self._outcome(kernel, call.tensors, options, call.memory)

    def _outcome(
        self, kernel: Kernel, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any], memory: Memory
    ) -> Outcome:
        start = time.perf_counter()
        device = tensors[0].device
        if self._lost and device.type == "cuda":
            return Outcome(status="not_run", message=f"this process lost the device before: {self._lost}")
        shapes = dict(zip(get_op(kernel.op).arguments, (tuple(tensor.shape) for tensor in tensors), strict=True))
        dtype = dtype_name(tensors[0])
        guards = Guards() if memory == "guarded" else None
        if guards is not None:
            tensors = tuple(guards.around(tensor, "the input") for tensor in tensors)
        before = [bits(tensor) for tensor in tensors]
        modules = len(sys.modules)
        outside = state.read()
        strict = state.strict(outside)
        state.write(strict, outside)
        printed = _Tail()
        caught: list[warnings.WarningMessage] = []
        status: str | None = None
        message, value, seconds = "", None, None
        try:
            with _recorded(printed, disposable=self._disposable) as caught:
                value, seconds = _watched_call(kernel, tensors, options, memory, guards)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)  # where an error of the kernel shows
        except _ExitedError as error:
            status, message = "crashed", exception_text(error)
        except NotImplementedError as error:
            status, message = "unsupported", exception_text(error)
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
            drawn = [c for c in changes if c.endswith("_seed")] if len(sys.modules) > modules else []  # import jax does
            state.write(outside, after)
        if status is None:
            status, message = _wrong_kind(kernel, value, shapes, dtype, str(device), options) or (None, "")
        elif device.type == "cuda" and (lost := _device_error(device)):
            self._lost = lost
            status, message = "crashed", f"{message}; after it the device answers nothing but: {lost}"
        return Outcome(
            status=status,
            message=message,
            value=value if status is None else None,
            seconds=seconds,
            elapsed_seconds=time.perf_counter() - start,
            lost=bool(self._lost),
            overrun=guards.broken() if guards is not None else "",
            modified=not self._lost
            and not all(np.array_equal(was, bits(tensor)) for was, tensor in zip(before, tensors, strict=True)),
            state_changes=tuple(change for change in changes if change not in drawn),
            warnings=(
                *dict.fromkeys(_clean(f"{w.category.__name__}: {str(w.message)[:200]}") for w in caught),
                *(f"what it imported in its call changed {change}" for change in drawn),
            ),
            output=printed.text(),
        )


def _watched_call(
    kernel: Kernel, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any], memory: Memory, guards: Guards | None
) -> tuple[Any, float]:
    """adapted_call() under the watch of `memory`. A graph of torch.compile has canaries around its inputs only."""
    if memory == "filled":
        with filled():
            return adapted_call(kernel, tensors, options)
    if guards is not None:
        try:
            with guarding(guards):
                return adapted_call(kernel, tensors, options)
        except RuntimeError as error:
            if "fail_on_recompile" not in str(error):
                raise
    return adapted_call(kernel, tensors, options)


def _wrong_kind(
    kernel: Kernel, output: Any, shapes: Mapping[str, tuple[int, ...]], dtype: str, device: str, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    """(status, reason) where the output is nothing that can be judged."""
    if isinstance(output, np.ndarray | np.generic):
        return "wrong_type", "returned a numpy array; expected one tensor of torch (numpy kernels declare adapter='numpy')"
    return check_output(get_op(kernel.op), output, shapes, dtype, device, options)


def _device_error(device: torch.device) -> str:
    """What a CUDA device says to the smallest task: nothing, or the error of an earlier kernel, which stays for good."""
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
    """os._exit in a kernel of Python would end this process with the kernel's exit code, 0 included: it raises instead."""
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
    try:
        text = _clean(str(error))
    except Exception:
        text = "its message cannot be shown"
    kind = "" if isinstance(error, _ExitedError) else f"{type(error).__name__}: "
    return f"{kind}{text[:500]}{place}"


def _clean(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

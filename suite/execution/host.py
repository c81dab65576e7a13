"""Hosts: where a kernel's code runs. A host turns a call into an Outcome, whatever the kernel does.

In process, for now. Hosts in child processes answer with the same Outcome and add `crashed` and `timed_out`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from suite.execution import state
from suite.execution.adapters import adapted_call
from suite.execution.memory import Guards, Memory, filled, guarding
from suite.kernels import Kernel
from suite.tensors import bits

KEPT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one call.

    status: None where the kernel returned, else raised, unsupported or out_of_memory, with the reason in message.
    value: what it returned. seconds: wall clock of the call alone. modified: the input's bits are not what they were.
    overrun: what it wrote outside its tensors, where that was watched.
    state_changes: global switches that it changed, put back since. warnings, output: what it warned of and printed.
    """

    status: str | None = None
    message: str = ""
    value: Any = None
    seconds: float | None = None
    modified: bool = False
    overrun: str = ""
    state_changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    output: str = ""


class Host(Protocol):
    """Where kernels run."""

    def call(
        self,
        kernel: Kernel,
        inputs: torch.Tensor | tuple[torch.Tensor, ...],
        options: Mapping[str, Any],
        *,
        memory: Memory = "plain",
    ) -> Outcome:
        """Calls the kernel on its input tensors. Never raises for the kernel's fault; KeyboardInterrupt passes."""


class InProcess:
    """Calls kernels in this process: for this suite's own kernels, and for any that is trusted not to crash or hang."""

    def call(
        self,
        kernel: Kernel,
        inputs: torch.Tensor | tuple[torch.Tensor, ...],
        options: Mapping[str, Any],
        *,
        memory: Memory = "plain",
    ) -> Outcome:
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        guards = Guards() if memory == "guarded" else None
        if guards is not None:
            tensors = tuple(guards.around(tensor, "the input") for tensor in tensors)
        before = [bits(tensor) for tensor in tensors]
        outside = state.read()
        strict = state.strict()
        state.write(strict)
        printed = _Tail()
        caught: list[warnings.WarningMessage] = []
        status: str | None = None
        message, value, seconds = "", None, None
        try:
            with _recorded(printed) as caught:
                value, seconds = _watched_call(kernel, tensors, options, memory, guards)
        except NotImplementedError as error:
            status, message = "unsupported", _exception_text(error)
        except (MemoryError, torch.OutOfMemoryError) as error:
            status, message = "out_of_memory", _exception_text(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            out_of_memory = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
            status, message = "out_of_memory" if out_of_memory else "raised", _exception_text(error)
        finally:
            changes = state.changes(strict, state.read())
            state.write(outside)
        return Outcome(
            status=status,
            message=message,
            value=value,
            seconds=seconds,
            overrun=guards.broken() if guards is not None else "",
            modified=not all(np.array_equal(was, bits(tensor)) for was, tensor in zip(before, tensors, strict=True)),
            state_changes=tuple(changes),
            warnings=tuple(dict.fromkeys(_clean(f"{w.category.__name__}: {str(w.message)[:200]}") for w in caught)),
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


@contextlib.contextmanager
def _recorded(printed: _Tail) -> Iterator[list[warnings.WarningMessage]]:
    with (
        _no_silent_exit(),
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        warnings.simplefilter("always")
        yield caught


@contextlib.contextmanager
def _no_silent_exit() -> Iterator[None]:
    """os._exit in a kernel of Python would end this process with the kernel's exit code, 0 included: it raises instead."""
    original = os._exit

    def refuse(status: int) -> NoReturn:
        raise SystemExit(f"os._exit({status})")

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


def _exception_text(error: BaseException) -> str:
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
    return f"{type(error).__name__}: {text[:500]}{place}"


def _clean(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

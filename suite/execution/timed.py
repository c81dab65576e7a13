"""A kernel's call with its tensors in place: timed on fresh inputs, and some of its outputs kept
for the judge.

    the inputs of two seeds, in turn, in the same memory -> samples; the last output is kept
    then single calls: on inputs never seen before (their outputs are kept), and on those of the call before

A kernel whose calls are quick on inputs that it has seen, and slow on others, answers from memory:
it gets no times.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from suite.execution.adapters import adapter_of, wrong_kind
from suite.kernels import Kernel
from suite.ops import UPSTREAM, get_op
from suite.tensors import bits, dtype_name
from suite.timing import cpu, cuda, memory
from suite.timing.statistics import Timing
from suite.verdict.tensors import as_tuple

FRESH_CALLS = 4
"""Single calls of a round on inputs never seen before. With the last timed call before them five in
a row are judged: a kernel that skips calls shows.
"""

SEEN_CALLS = 3
"""Single calls of a round, after those, on the inputs of the call before."""

ROUNDS = 6
"""While fresh inputs seem to take longer: the machine may have been busy."""

REMEMBERED = 1.5
"""How many times as long the shortest call on fresh inputs takes where others were not computed."""

SLACK_SECONDS = 3e-6
"""How much longer it takes besides."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is timed, and how."""

    sets: tuple[Mapping[str, torch.Tensor], ...]
    """Inputs by name, on the CPU, taken in turn."""
    device: str
    """Where the kernel gets them."""
    options: Mapping[str, Any]
    """Of the op."""
    further: tuple[Mapping[str, torch.Tensor], ...] = ()
    """Inputs of single calls after the sets, where those are so small that rolling them changes
    nothing. Where they end, the first set is rolled.
    """
    rows: tuple[int, ...] | None = None
    """The rows of the outputs, along the first dim, that are kept; None for all of them."""
    cache: cpu.Cache = "warm"
    """As in suite.timing.cpu.measure."""
    target: float = 0.01
    """As in suite.timing.cpu.measure."""
    budget_seconds: float = 0.1
    """As in suite.timing.cpu.measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An output of a call on the inputs of a set."""

    set: int
    """The number of the set, among the task's sets and further ones."""
    shift: int
    """How far the set was rolled; see rolled()."""
    outputs: tuple[torch.Tensor, ...]
    """The rows that the task asks for."""
    timed: bool = False
    """The call was among those of a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What was found by timing a kernel."""

    timing: Timing | None = None
    """None where there are no times."""
    untimed: str = ""
    """Why there are none."""
    peak_bytes: int | None = None
    """The largest memory of a call; None where it could not be measured."""
    kept: tuple[Kept, ...] = ()
    """The last timed output, and those of the calls on inputs never seen before."""


class WrongOutputError(Exception):
    """A timed call returned nothing that can be judged. status: wrong_type, wrong_shape or wrong_dtype."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ChangedInputError(Exception):
    """A timed call changed its inputs."""


def run(kernel: Kernel, task: Task) -> Timed:
    """Times the kernel's calls of a task, on this thread, in the process's present state.

    Raises WrongOutputError, ChangedInputError, and whatever the kernel raises.
    """
    running = Running(kernel, task)
    with running.scope():
        peak = memory.peak_bytes(running, device=running.device) if kernel.adapter == "torch" else None
        timing = _timing(running, task)
        last = (len(timing.samples_seconds) - 1) % len(task.sets)
        kept = [Kept(set=last, shift=0, outputs=running.kept(), timed=True)]
        running.check_inputs(last)
        lazy = next(
            (type(one) for one in as_tuple(running.output) if isinstance(one, torch.Tensor) and _is_odd(one)),
            None,
        )
        if lazy is not None:
            return Timed(
                untimed=f"its output is a {lazy.__name__}, which may hold no values yet when the call returns"
            )
        probed, remembered = _probed(running, timing.median.value)
    return Timed(
        timing=None if remembered else timing, untimed=remembered, peak_bytes=peak, kept=(*kept, *probed)
    )


def _timing(running: Running, task: Task) -> Timing:
    if running.device.startswith("cuda"):
        return cuda.measure(
            running,
            device=running.device,
            prepare=running.load,
            sets=len(task.sets),
            target=task.target,
            budget_seconds=task.budget_seconds,
        )
    return cpu.measure(
        running,
        prepare=running.load,
        sets=len(task.sets),
        cache=task.cache,
        target=task.target,
        budget_seconds=task.budget_seconds,
        threads=torch.get_num_threads(),
    )


def _is_odd(tensor: torch.Tensor) -> bool:
    """Whether it is of a subclass, which may compute only when it is looked at."""
    return type(tensor) not in (torch.Tensor, torch.nn.Parameter)


def _probed(running: Running, timed_seconds: float) -> tuple[list[Kept], str]:
    """The outputs of single calls on inputs never seen before, and what must be said of a kernel
    that answers from memory.

    It does where these calls take longer than the timed ones, and longer than single calls on the
    inputs of the call before: a single call may take longer for reasons of its own.
    """
    kept: list[Kept] = []
    fresh, seen = list[float](), list[float]()
    for _ in range(ROUNDS):
        for _ in range(FRESH_CALLS):
            running.load_fresh(len(kept))
            running.touch()  # so that both kinds of calls find the caches alike
            fresh.append(_single_seconds(running))
            kept.append(running.kept_of_fresh(len(kept)))
        running.check_fresh(len(kept) - 1)
        if not _longer(fresh, timed_seconds):
            return [*kept, *_behind(running, len(kept))], ""
        for _ in range(SEEN_CALLS):
            running.touch()
            seen.append(_single_seconds(running))
        if not _longer(fresh, min(seen)) and len(seen) > SEEN_CALLS:
            return [*kept, *_behind(running, len(kept))], ""
    times = (
        f"{min(fresh) * 1e6:,.1f} us on inputs never seen before, {min(seen) * 1e6:,.1f} us on those of the"
        " call before"
    )
    return kept, f"it answers from memory: {times}"


def _longer(seconds: Sequence[float], than: float) -> bool:
    return min(seconds) > REMEMBERED * than + SLACK_SECONDS


def _behind(running: Running, number: int) -> list[Kept]:
    """On a GPU: the output of a call whose inputs are written behind other work on the stream, read
    as soon as that stream has come past the call. A kernel on another stream, which does not wait
    for the inputs or is not waited for, has it wrong.
    """
    if not running.device.startswith("cuda"):
        return []
    cuda.occupy(running.device)
    running.load_fresh(number)
    running()
    return [running.kept_of_fresh(number)]


def _single_seconds(running: Running) -> float:
    if running.device.startswith("cuda"):
        return cuda.synchronized_seconds(running, running.device)
    begin = time.perf_counter_ns()
    running()
    return (time.perf_counter_ns() - begin) * 1e-9


class Running:
    """A call of a kernel with its tensors in place: load(i) puts the values of set i into them,
    output is the last one's.

    Of a case of the backward a call is the forward and the way back, as training has them.
    """

    def __init__(self, kernel: Kernel, task: Task) -> None:
        self._kernel, self._task, self._adapter = kernel, task, adapter_of(kernel)
        self._op = get_op(kernel.op)
        every = (*task.sets, *task.further)
        self._sets = [{name: tensor.to(task.device) for name, tensor in one.items()} for one in every]
        self._tensors = {name: tensor.clone() for name, tensor in self._sets[0].items()}
        self._scratch = {name: torch.empty_like(tensor) for name, tensor in self._tensors.items()}
        self._call: Callable[[], Any]
        self.device = str(next(iter(self._tensors.values())).device)
        self.output: Any = None
        with self.scope():
            self._place()

    def __call__(self) -> Any:
        self.output = None  # first, so that a call may take the memory of the last one's output
        self.output = self._call()
        return self.output

    def scope(self) -> AbstractContextManager[Any]:
        """What must hold while it is called."""
        return self._adapter.scope(self._tensors)

    def load(self, index: int, *, shift: int = 0) -> None:
        """Puts the values of a set, rolled, into the memory that the kernel reads: what it has
        stored by address is stale.
        """
        with torch.no_grad():
            for name, values in self._sets[index].items():
                if self._tensors[name].shape != values.shape:
                    raise ChangedInputError(_changed(name))
                self._tensors[name].copy_(rolled(values, shift, torch.roll))
        if self._adapter.finished is not None:  # a library whose arrays never change
            self._place()

    def load_fresh(self, number: int) -> None:
        """load() of inputs that no call has seen: number 0, 1, ..."""
        index, shift = self._fresh(number)
        self.load(index, shift=shift)

    def kept_of_fresh(self, number: int) -> Kept:
        """The last output, of the fresh inputs of that number."""
        index, shift = self._fresh(number)
        return Kept(set=index, shift=shift, outputs=self.kept())

    def check_fresh(self, number: int) -> None:
        """check_inputs() of the fresh inputs of that number."""
        index, shift = self._fresh(number)
        self.check_inputs(index, shift=shift)

    def _fresh(self, number: int) -> tuple[int, int]:
        """(set, shift) of the fresh inputs of that number."""
        further = number < len(self._task.further)
        return (len(self._task.sets) + number, 0) if further else (0, number - len(self._task.further) + 1)

    def touch(self) -> None:
        """Reads the inputs."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                self._scratch[name].copy_(tensor)

    def kept(self) -> tuple[torch.Tensor, ...]:
        """A copy of the rows of the last output that the task asks for, as they are now: on a GPU,
        as soon as its stream has come past the call. Raises WrongOutputError.
        """
        value = self._adapter.tensors(self.output)
        copies: list[torch.Tensor] = []
        with contextlib.suppress(Exception):  # of what is no such tensor, which is told below
            rows = (
                slice(None) if self._task.rows is None else torch.tensor(self._task.rows, device=self.device)
            )
            # Before anything else takes time.
            copies = [one.detach()[rows].clone() for one in as_tuple(value)]
        op = self._op.of(self._tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in self._sets[0].items()}
        dtype = dtype_name(next(iter(self._tensors.values())))
        if UPSTREAM in self._tensors and isinstance(value, tuple) and len(value) == 1:
            [value] = value  # autograd's tuple of one gradient
        wrong = wrong_kind(op, value, shapes, dtype, self.device, {**op.options, **self._task.options})
        if wrong is None and len(copies) < len(as_tuple(value)):
            wrong = "wrong_type", f"returned a {type(self.output).__name__} that cannot be copied"
        if wrong is not None:
            raise WrongOutputError(*wrong)
        return tuple(copies)

    def check_inputs(self, index: int, *, shift: int = 0) -> None:
        """Raises ChangedInputError where the tensors do not hold the bits of a set, rolled."""
        for name, values in self._sets[index].items():
            expected, found = rolled(values, shift, torch.roll), self._tensors[name].detach()
            if found.shape != expected.shape or not np.array_equal(bits(found), bits(expected)):
                raise ChangedInputError(_changed(name))

    def _place(self) -> None:
        """The function with its arguments: what stands between a kernel and its call is decided
        here, outside the clock.
        """
        given = {name: tensor for name, tensor in self._tensors.items() if name not in self._op.upstreams}
        if UPSTREAM in self._tensors:
            for name in self._op.wanted(given):
                given[name].requires_grad_()
        arrays = self._adapter.arrays(given)
        positional, named = replace(self._kernel, call=_arguments)(arrays, options=self._task.options)
        forward = functools.partial(self._kernel.call, *positional, **named)
        finished = self._adapter.finished
        if finished is not None:
            self._call = lambda: finished(forward())
        else:
            self._call = self._backward(forward) if UPSTREAM in self._tensors else forward

    def _backward(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        leaves = [self._tensors[name] for name in self._op.wanted(self._tensors)]
        upstreams = [self._tensors[name] for name in self._op.upstreams if name in self._tensors]

        def both() -> Any:
            with torch.enable_grad():
                outputs = as_tuple(forward())
            return torch.autograd.grad(outputs, leaves, upstreams)

        return both


def rolled(values: T, shift: int, roll: Callable[[T, tuple[int, ...], tuple[int, ...]], T]) -> T:
    """A tensor's values moved by `shift` places around: other inputs of the same distribution, made
    where they lie.

    Of tensors of one or two dims in each of them, so that a single row changes too; of others along
    dim 2, that of the queries and the keys. roll: numpy's or torch's.
    """
    if shift == 0:
        return values
    dims = (2,) if values.ndim > 2 else tuple(range(values.ndim))  # type: ignore[attr-defined]
    return roll(values, (shift,) * len(dims), dims)


def _changed(name: str) -> str:
    return f"the kernel changed its input {name} in a timed call"


def _arguments(*positional: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """In place of a kernel's function: what it would have been called with."""
    return positional, named

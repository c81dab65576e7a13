"""The host for kernels that may crash, hang or poison their process: each has a process of its own,
replaced when it dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

import numpy as np
import torch

from suite.execution import timed
from suite.execution.child import FLOATING_POINT
from suite.execution.host import Call, DiedError, Host, Outcome, TimedOutcome
from suite.execution.isolation import TIMEOUT_SECONDS
from suite.execution.process import RAN_OUT, KernelProcess
from suite.execution.texts import KEPT_CHARACTERS
from suite.execution.wire import START, NoResourceError
from suite.formats import Format
from suite.kernels import Domain, Kernel, UnloadableError, from_description
from suite.ops.rows import RowFacts
from suite.records.record import Record
from suite.timing.statistics import Timing

ATTEMPTS = 3
"""How many processes in a row a kernel may kill before it is set aside."""

REQUEST_BYTES = 2**26
"""The size at which a request with several calls is full, and the others wait for the next one."""

LOAD_SECONDS = 600.0
"""What loading a kernel may take, as the first import of one may compile it."""


@dataclass(slots=True)
class _Server:
    """A kernel's process, if one runs, and the processes that it has killed."""

    process: KernelProcess | None = None
    """None before the first call and after a death."""
    unanswered: int = 0
    """Calls that were sent and whose outcomes were not taken yet."""
    deaths: list[str] = field(default_factory=list)
    """How it ended processes in its cases, since it last answered."""
    calls_lost: int = 0
    """Processes that it ended apart from its cases, in all."""
    case_seconds: float = 0.0
    """What it may take for the case at hand."""
    set_aside: str = ""
    """Why it is asked nothing more; empty while it is."""
    printed: str = ""
    """What its import printed."""
    warnings: tuple[str, ...] = ()
    """What its import changed."""

    def lost_a_call(self, where: str, last: str) -> None:
        """Counts a process that ended apart from its cases; too many set the kernel aside."""
        self.calls_lost += 1
        if self.calls_lost >= ATTEMPTS:
            ended = f"it ended {self.calls_lost} processes where it was {where}"
            self.set_aside = f"set aside: {ended}; the last: {last}"


class Isolated(Host):
    """Calls each kernel in a process of its own, by its id: FILE.py:FUNC, pkg.mod:FUNC, or a name.

    memory_bytes: what a kernel may take beside what its process starts with; None for no limit.
    load_seconds: what its import may take. limit_seconds: what its declared domain may take, and a
    call that belongs to no case. Use as a context manager, or call close(). Raises NoResourceError
    where the machine has no process or memory to give, whatever the kernel.
    """

    def __init__(
        self,
        *,
        memory_bytes: int | None = None,
        load_seconds: float = LOAD_SECONDS,
        limit_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._memory_bytes, self._load_seconds, self.limit_seconds = memory_bytes, load_seconds, limit_seconds
        self._servers: dict[tuple[str, str], _Server] = {}  # by kernel, and op or what else it serves

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, specification: str, op: str, *, device: str = "cpu") -> list[Kernel]:
        """The kernels of `op` that a --kernel argument names, without importing anything of them here.

        Raises ValueError, naming what is missing and what is there, or how the process ended that
        tried to import it.
        """
        server = self._servers.setdefault((specification, op), _Server())
        try:
            answer = self._loaded(server, specification, op, device)
        except DiedError as error:
            self._drop(server)
            raise UnloadableError(
                f"{specification} cannot be loaded: {error}{_last_words(error.output)}"
            ) from None
        kernels = [self._kernel(description) for description in answer.get("kernels", ())]
        if specification not in (kernel.id for kernel in kernels):
            self._drop(server)  # each of them has a process of its own, later
        if "error" in answer:
            raise ValueError(answer["error"])
        return kernels

    def submit(
        self, kernel: Kernel, calls: Iterable[Call], *, limit_seconds: float | None = None
    ) -> Iterator[Outcome]:
        server = self._servers.setdefault((kernel.id, kernel.op), _Server())
        if len(server.deaths) >= ATTEMPTS and not server.set_aside:
            server.set_aside = (
                f"set aside: it ended {len(server.deaths)} processes in a row; the last: {server.deaths[-1]}"
            )
        if server.set_aside:
            return iter([Outcome(status="not_run", message=server.set_aside)])
        server.case_seconds = max(server.case_seconds, limit_seconds or 0.0)
        if server.unanswered:  # somebody was interrupted
            self._drop(server)
        waiting = iter(calls)
        try:
            sent = self._send(server, kernel, waiting)
        except DiedError as error:
            return iter([self._lost(server, error, 0.0)])
        return self._outcomes(server, kernel, sent, waiting, limit_seconds)

    def call(
        self, kernel: Kernel, inputs: torch.Tensor | Mapping[str, torch.Tensor], options: Mapping[str, Any]
    ) -> Outcome:
        """As ever, but a kernel that ends its process again and again is not asked for ever: nobody
        judges these calls.
        """
        outcome = super().call(kernel, inputs, options)
        server = self._servers[kernel.id, kernel.op]
        server.case_seconds = 0.0
        if outcome.status in ("crashed", "timed_out", "out_of_memory") and outcome.lost:
            server.lost_a_call("measured", f"{outcome.status}, {outcome.message}")
        return outcome

    def time(self, kernel: Kernel, task: timed.Task, *, limit_seconds: float | None = None) -> TimedOutcome:
        server = self._servers.setdefault((kernel.id, kernel.op), _Server())
        if server.set_aside:
            return TimedOutcome(status="not_run", message=server.set_aside)
        if server.unanswered:  # somebody was interrupted
            self._drop(server)
        try:
            process = self._running(server, kernel, task.device)
            process.send(_request("time", kernel, task.device) | _described(task, process))
            answer = process.receive("being timed", limit_seconds=limit_seconds)
            process.printed()
            if answer["status"] is not None:
                outcome = TimedOutcome(
                    status=answer["status"], message=answer["message"], lost=answer["lost"]
                )
            else:
                outcome = TimedOutcome(timed=_timed(answer, process))
        except DiedError as error:
            self._drop(server)
            server.lost_a_call("timed", f"{error.status}, {error}")
            return TimedOutcome(status=error.status, message=f"{error}{_last_words(error.output)}", lost=True)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            self._drop(server)
            return TimedOutcome(
                status="crashed",
                message=f"its process answers nonsense ({type(error).__name__}: {error})",
                lost=True,
            )
        if outcome.lost:
            self._drop(server)
        return outcome

    def _send(self, server: _Server, kernel: Kernel, calls: Iterator[Call]) -> int:
        """Sends as many of the calls as one request may hold; returns how many. Raises DiedError."""
        process, described, end = None, [], START
        for tensors, options, memory in calls:
            if process is None:
                request = _request("call", kernel, str(next(iter(tensors.values())).device))
                process = self._running(server, kernel, request["device"])
            descriptions, end = process.memory.write((tensor.cpu() for tensor in tensors.values()), start=end)
            described.append(
                {"names": list(tensors), "tensors": descriptions, "options": dict(options), "memory": memory}
            )
            if end > REQUEST_BYTES:
                break
        if process is not None:
            process.send(request | {"calls": described, "end": end})
        server.unanswered = len(described)
        return len(described)

    def _outcomes(
        self,
        server: _Server,
        kernel: Kernel,
        sent: int,
        waiting: Iterator[Call],
        limit_seconds: float | None,
    ) -> Iterator[Outcome]:
        left = limit_seconds
        while sent:
            for _ in range(sent):
                outcome = self._received(server, left)
                yield outcome
                if outcome.lost:
                    return
                left = None if left is None else max(left - outcome.elapsed_seconds, 0.0)
            try:
                sent = self._send(server, kernel, waiting)
            except DiedError as error:
                yield self._lost(server, error, 0.0)
                return

    def _received(self, server: _Server, limit_seconds: float | None) -> Outcome:
        start, process = time.perf_counter(), server.process
        assert process is not None
        try:
            answer = process.receive(
                "in its call", limit_seconds=limit_seconds, asked_seconds=server.case_seconds
            )
        except DiedError as error:
            return self._lost(server, error, time.perf_counter() - start)
        server.unanswered -= 1
        try:
            outcome = _outcome(answer, process, server)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            nonsense = f"its process answers nonsense ({type(error).__name__}: {error})"
            return self._lost(server, DiedError("crashed", nonsense, ""), time.perf_counter() - start)
        if outcome.lost:
            self._drop(server)
        return outcome

    def _lost(self, server: _Server, error: DiedError, seconds: float) -> Outcome:
        """The outcome of a call in which the process ended, which is not to be asked again."""
        self._drop(server)
        output = error.output[-KEPT_CHARACTERS:]
        return Outcome(
            status=error.status, message=str(error), output=output, elapsed_seconds=seconds, lost=True
        )

    def note(self, record: Record) -> None:
        server = self._servers.setdefault((record.kernel, record.op), _Server())
        server.case_seconds = 0.0
        statuses = record.broken or (record.status,)
        if "not_run" in statuses:
            server.set_aside = record.message
        elif {"crashed", "timed_out"} & {*statuses} or (
            "out_of_memory" in statuses and RAN_OUT in record.message
        ):
            server.deaths.append(f"{statuses[0]}, {record.message.splitlines()[-1].strip()}")
        elif "unsupported" not in statuses:
            server.deaths.clear()

    def close(self) -> None:
        """Ends every process. The next call would start a new one."""
        for server in self._servers.values():
            self._drop(server)

    def _running(self, server: _Server, kernel: Kernel, device: str) -> KernelProcess:
        """The kernel's process with the kernel loaded. Raises DiedError where it cannot be had."""
        if server.process is not None and server.process.is_abandoned():
            self._drop(server)  # with the server of all processes, which is no fault of this kernel's
        if server.process is None:
            answer = self._loaded(server, kernel.id, kernel.op, device)
            if "error" in answer:
                raise DiedError(
                    "crashed", f"could be loaded before, but not again: {answer['error']}", server.printed
                )
            versions = {d["version"] for d in answer.get("kernels", ()) if d["id"] == kernel.id}
            if kernel.outside and versions != {kernel.version}:
                raise DiedError(
                    "crashed",
                    "its file was edited while the run went on; start the run again",
                    server.printed,
                )
        assert server.process is not None
        return server.process

    def _loaded(self, server: _Server, specification: str, op: str, device: str) -> dict[str, Any]:
        """Starts the process if there is none, and has it load what the specification names."""
        if server.process is None:
            cuda = device.startswith("cuda")
            try:
                server.process = KernelProcess(
                    method="spawn" if cuda else "forkserver",
                    memory_bytes=None if cuda else self._memory_bytes,
                )
            except OSError as error:
                raise NoResourceError("a process for a kernel", error) from None
        request = {"do": "load", "specification": specification, "op": op}
        server.process.send(request)
        answer = server.process.receive("in its import", limit_seconds=self._load_seconds)
        server.printed = server.process.printed()
        changed = [change for change in answer.get("changes", ()) if not change.startswith(FLOATING_POINT)]
        server.warnings = tuple(f"importing it changed {change}" for change in changed)
        return answer

    def _kernel(self, description: Mapping[str, Any]) -> Kernel:
        def domain(facts: RowFacts, format: Format) -> Domain:
            return self._domain(kernel, facts, format)

        kernel = from_description(description, call=_not_here, domain=domain)
        return kernel

    def _domain(self, kernel: Kernel, facts: RowFacts, format: Format) -> Domain:
        """Asks the kernel's process for its declared domain.

        Raises RuntimeError where the declaration raises, DiedError where it hangs or ends its process.
        """
        # Another process than that of the calls, whose answers may be waiting to be read.
        server = self._servers.setdefault((kernel.id, f"domain for {kernel.op}"), _Server())
        arrays = {
            f.name: value for f in fields(facts) if isinstance(value := getattr(facts, f.name), np.ndarray)
        }
        others = {f.name: getattr(facts, f.name) for f in fields(facts) if f.name not in arrays}
        try:
            process = self._running(server, kernel, "cpu")
            request = {
                "do": "domain",
                "kernel": kernel.id,
                "op": kernel.op,
                "dtype": format.name,
                "facts": others,
                "tensors": process.memory.write(
                    torch.from_numpy(np.array(array)) for array in arrays.values()
                )[0],
            }
            process.send(request)
            answer = process.receive("in its domain", limit_seconds=self.limit_seconds)
            process.printed()
        except DiedError:
            self._drop(server)
            raise
        if "error" in answer:
            raise RuntimeError(answer["error"])
        works, fails = process.memory.read(answer["tensors"])
        return Domain(works.numpy(), fails.numpy(), answer["why"])

    def _drop(self, server: _Server) -> None:
        if server.process is not None:
            server.process.close()
            server.process = None
        server.unanswered = 0


def _request(do: str, kernel: Kernel, device: str) -> dict[str, Any]:
    """What every request that calls the kernel says."""
    return {
        "do": do,
        "kernel": kernel.id,
        "op": kernel.op,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _described(task: timed.Task, process: KernelProcess) -> dict[str, Any]:
    """A task as a request has it, its tensors in the shared memory."""
    end, sets = START, []
    for one in (*task.sets, *task.further):
        described, end = process.memory.write(one.values(), start=end)
        sets.append({"names": list(one), "tensors": described})
    asked = {f.name: getattr(task, f.name) for f in fields(task)} | {"options": dict(task.options)}
    asked |= {"sets": sets[: len(task.sets)], "further": sets[len(task.sets) :]}
    return {"task": asked, "end": end}


def _timed(answer: Mapping[str, Any], process: KernelProcess) -> timed.Timed:
    """What the kernel's process found, and the tensors that it kept."""
    found = answer["timing"]
    return timed.Timed(
        timing=(
            None if found is None else Timing(**found | {"samples_seconds": tuple(found["samples_seconds"])})
        ),
        untimed=answer["untimed"],
        peak_bytes=answer["peak_bytes"],
        kept=tuple(
            timed.Kept(**one | {"outputs": tuple(process.memory.read(one["outputs"]))})
            for one in answer["kept"]
        ),
    )


def _outcome(answer: Mapping[str, Any], process: KernelProcess, server: _Server) -> Outcome:
    """The outcome that the kernel's process answered with, its output tensor and what was printed
    behind Python's back.
    """
    given = {f.name: answer[f.name] for f in fields(Outcome)}
    printed = process.printed(kept_bytes=KEPT_CHARACTERS)
    values = process.memory.read(answer["value"]) if answer["value"] is not None else ()
    given |= {
        "value": values if len(values) > 1 else next(iter(values), None),
        "state_changes": tuple(answer["state_changes"]),
        "warnings": (*server.warnings, *answer["warnings"]),
        "output": "\n".join(text for text in (answer["output"], printed) if text),
    }
    return Outcome(**given)


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return f"; it printed last: {lines[-1][:200]}" if lines else ""


def _not_here(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("this kernel runs in a process of its own, by its host, and cannot be called here")

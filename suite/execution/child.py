"""What runs in the process of a kernel: it loads the kernel by name, and answers calls one after the other.

Requests and answers are JSON texts; tensors lie in shared memory (wire.py). Whatever the kernel
does to this process ends with it. This is isolation from accidents, no sandbox against malice.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from suite.execution import state, timed
from suite.execution.host import Call, Outcome
from suite.execution.in_process import InProcess, exception_text
from suite.execution.limits import die_with_parent, restrict
from suite.execution.printed import MARK
from suite.execution.texts import KEPT_CHARACTERS, shortened, some
from suite.execution.wire import NoResourceError, SharedMemory
from suite.formats import get_format
from suite.kernels import Kernel, describe, load_kernels
from suite.ops.rows import RowFacts

WHERE = signal.SIGUSR1
"""The signal to which this process answers with the Python line that it is at, even while C code runs."""

FLOATING_POINT = ("subnormals_flushed", "rounding")
"""The switches that nobody sets in an import on purpose."""

_FORK_SECONDS = 0.2

Answer = dict[str, Any]


def clear_up_at_exit() -> None:
    """For the server that these processes are forked from, which ends when the suite does, whatever
    ends that: it takes with it what they have started, and the socket that a suite that is killed
    leaves behind.
    """
    atexit.register(_clear_up, os.getpid(), _listening_at())


def _clear_up(server: int, sockets: Sequence[Path]) -> None:
    if os.getpid() != server:
        return
    for process in _children_of(server):
        for kill in (os.killpg, os.kill):  # one that has just been forked has no group of its own yet
            with contextlib.suppress(OSError):
                kill(process, signal.SIGKILL)
    for path in sockets:  # closed by now
        with contextlib.suppress(OSError):
            path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # made for the socket; one with anything else in it stays


def _listening_at() -> list[Path]:
    """The paths of the sockets on which this process listens. Linux only."""
    found = []
    for descriptor in list(Path("/proc/self/fd").glob("*")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor.name))) as one:
            if one.family == socket.AF_UNIX and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(Path(one.getsockname()))
    return [path for path in found if path.is_absolute()]


def serve(
    connection: Connection, memory: Connection, output: Connection, settings: Mapping[str, Any]
) -> None:
    """Answers requests until the other side closes the connection.

    memory: the shared file, as the kind of descriptor that multiprocessing hands over. output:
    where file descriptors 1 and 2 go, for what C code prints. settings: "memory_bytes" or None.
    """
    # so that everything the kernel starts can be killed with it, and Ctrl-C is the parent's to answer
    os.setsid()
    die_with_parent()
    multiprocessing.current_process().daemon = (
        False  # else the kernel could not start processes by multiprocessing
    )
    _let_server_end()
    _redirect(output)
    faulthandler.enable(2, all_threads=False)
    faulthandler.register(WHERE, 2, all_threads=False)
    restrict(settings["memory_bytes"])
    _Server(connection, SharedMemory(os.dup(memory.fileno())), output.fileno()).run()


def _let_server_end() -> None:
    """Closes this process's copy of the pipe whose end tells the server that the suite is gone.

    Else a kernel that hangs would keep the server, and thereby itself, after a suite that was killed.
    """
    server: Any = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def _redirect(output: Connection) -> None:
    """Standard output and error to the parent, standard input from nowhere."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


class _Server:
    def __init__(self, connection: Connection, memory: SharedMemory, output: int) -> None:
        self._connection, self._memory, self._output = connection, memory, output
        memory.ask = self._ask
        self._process = os.getpid()
        self._host = InProcess(disposable=True)
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._import_changes: list[str] = []
        self._known_children: set[int] = set()

    def run(self) -> None:
        self._answer({"ready": True})
        while True:
            try:
                request = json.loads(self._connection.recv_bytes())
            except EOFError:
                return
            try:
                for answer in getattr(self, f"_{request['do']}")(request):
                    self._answer(answer)
            except (MemoryError, NoResourceError):
                self._memory.tell_ran_out()
                os._exit(1)

    def _ask(self, size: int) -> None:
        """Has the suite make the shared memory larger, where a limit of the kernel's keeps this
        process from it.
        """
        self._connection.send_bytes(json.dumps({"reach": size}).encode())
        self._connection.recv_bytes()

    def _answer(self, answer: Answer) -> None:
        self._end_if_forked()
        os.set_blocking(self._output, True)  # a kernel may have changed that
        os.write(self._output, MARK)
        self._connection.send_bytes(json.dumps(answer).encode())

    def _load(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """Loads what a --kernel argument names; answers with descriptions, or with the text of a
        ValueError.
        """
        before = state.read()
        try:
            loaded = load_kernels(request["specification"], request["op"])
        except BaseException as error:  # an import may raise anything
            own = isinstance(error, ValueError)
            cannot = f"{request['specification']} cannot be loaded: {exception_text(error)}"
            yield {"error": shortened(str(error), KEPT_CHARACTERS) if own else cannot}
            return
        after = state.read()
        changes = state.changes(before, after)
        state.write(state.strict(after), after)  # here and now, so that no call needs to
        self._import_changes += [change for change in changes if change.startswith(FLOATING_POINT)]
        self._end_if_forked()
        if self._returned_twice():
            self._import_changes.append("the number of processes: its import forked, and returned in both")
            self._memory.flag = False
        for kernel in loaded:
            self._kernels[kernel.id, kernel.op] = kernel
        yield {"kernels": [describe(kernel) for kernel in loaded], "changes": changes}

    def _call(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """Calls the kernel on tensors in the shared memory, once for each of "calls"; their outputs
        go behind "end".
        """
        kernel = self._kernels[request["kernel"], request["op"]]
        torch.set_num_threads(request["threads"])
        calls = (self._read(call, request["device"]) for call in request["calls"])
        end = request["end"]
        for outcome in self._host.submit(kernel, calls):
            answer, end = self._answer_to_call(outcome, end)
            yield answer

    def _time(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """Times the kernel on the task's sets of inputs in the shared memory; the outputs that are
        kept go behind "end".
        """
        kernel, asked = self._kernels[request["kernel"], request["op"]], request["task"]
        torch.set_num_threads(request["threads"])
        calls = {
            name: [
                self._read(one | {"options": asked["options"], "memory": "plain"}, "cpu")
                for one in asked[name]
            ]
            for name in ("sets", "further")
        }
        sets = {name: tuple(one.tensors for one in of_name) for name, of_name in calls.items()}
        rows = None if asked["rows"] is None else tuple(asked["rows"])
        task = timed.Task(**asked | sets | {"options": calls["sets"][0].options, "rows": rows})
        outcome = self._host.time(kernel, task)
        self._end_if_forked()
        found, end = outcome.timed, request["end"]
        kept = []
        for one in found.kept:
            described, end = self._memory.write(
                (output.cpu().contiguous() for output in one.outputs), start=end
            )
            kept.append({"set": one.set, "shift": one.shift, "timed": one.timed, "outputs": described})
        yield {
            "status": outcome.status,
            "message": outcome.message,
            "lost": outcome.lost,
            "timing": None if found.timing is None else asdict(found.timing),
            "untimed": found.untimed,
            "peak_bytes": found.peak_bytes,
            "kept": kept,
        }

    def _end_if_forked(self) -> None:
        """Ends a copy of this process that the kernel forked and let return, and leaves word of it."""
        if os.getpid() != self._process:
            self._memory.flag = True
            os._exit(0)

    def _read(self, call: Mapping[str, Any], device: str) -> Call:
        tensors = zip(call["names"], self._memory.read(call["tensors"]), strict=True)
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in call["options"].items()
        }
        return Call({name: tensor.to(device) for name, tensor in tensors}, options, call["memory"])

    def _answer_to_call(self, outcome: Outcome, end: int) -> tuple[Answer, int]:
        self._end_if_forked()
        changes = [*outcome.state_changes, *some(self._import_changes)]
        if self._returned_twice():
            changes.append("the number of processes: it forked, and returned in both")
            self._memory.flag = False
        answer = {f.name: getattr(outcome, f.name) for f in fields(outcome)} | {
            "value": None,
            "state_changes": changes,
        }
        if outcome.value is not None:
            values = outcome.value if isinstance(outcome.value, tuple) else (outcome.value,)
            plain = (value.detach().resolve_conj().resolve_neg().cpu().contiguous() for value in values)
            answer["value"], end = self._memory.write(plain, start=end)
        return answer, end

    def _domain(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """The kernel's declared domain for facts whose arrays are in the shared memory; "works" and
        "fails" come back there.
        """
        kernel = self._kernels[request["kernel"], request["op"]]
        assert kernel.domain is not None
        facts = RowFacts(
            *(tensor.numpy() for tensor in self._memory.read(request["tensors"])), **request["facts"]
        )
        try:
            domain = kernel.domain(facts, get_format(request["dtype"]))
            masks = [torch.from_numpy(mask.astype(bool)) for mask in (domain.works, domain.fails)]
            yield {"tensors": self._memory.write(masks)[0], "why": shortened(str(domain.why))}
        except Exception as error:
            yield {"error": exception_text(error)}

    def _returned_twice(self) -> bool:
        """Whether a fork of this process came back from the kernel too. One that is still at work
        gets a moment to.
        """
        running = {process for process in _forks_of(self._process) if process not in self._known_children}
        deadline = time.monotonic() + _FORK_SECONDS
        while running and not self._memory.flag and time.monotonic() < deadline:
            time.sleep(0.001)
            running &= _forks_of(self._process)
        self._known_children |= running
        return self._memory.flag


def _forks_of(process: int) -> set[int]:
    """Running children of this process that are copies of it: not those that became another
    program. Linux only.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # the usual case, told by one system call
    found = set()
    with contextlib.suppress(OSError):
        own = Path(f"/proc/{process}/cmdline").read_bytes()
        for child in _children_of(process):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/cmdline").read_bytes() == own:  # empty for one that has ended
                    found.add(child)
    return found


def _children_of(process: int) -> list[int]:
    """The processes that this one started, as far as the system tells. Linux only."""
    with contextlib.suppress(OSError):
        return [
            int(child)
            for child in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        ]
    return []

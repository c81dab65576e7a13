"""The parent's side of a kernel's process: starts it, asks it with a deadline, reads what it
prints, kills it.

A process is forked from a server that has torch and this package imported already, or started
afresh for CUDA, which does not survive a fork.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from suite.execution import child, isolation
from suite.execution.host import DiedError
from suite.execution.limits import killings_for_memory
from suite.execution.printed import KEPT_BYTES, Printed
from suite.execution.wire import SharedMemory

RAN_OUT = "its process ran out of memory"
SERVER_GONE = 255
"""What multiprocessing says of a process whose server can no longer tell how it ended."""

START_SECONDS = 120.0


_WORD_SECONDS = 0.5
"""How long a process may take to say where it is: one that hangs does so at once, but on a busy machine."""


class KernelProcess:
    """A running process that serves one kernel. After DiedError it is of no more use.

    Making one raises OSError, NoResourceError among them, where the machine has none to give.
    """

    def __init__(self, *, method: isolation.Method, memory_bytes: int | None) -> None:
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            isolation.start_server()
        self.memory = SharedMemory()
        self._killed_for_memory = killings_for_memory()
        self._connection, theirs = multiprocessing.Pipe()
        self._output, output = multiprocessing.Pipe(duplex=False)
        self._printed = Printed(self._output.fileno())
        settings = {"memory_bytes": memory_bytes}
        with (
            theirs,
            output,
            Connection(os.dup(self.memory.file_descriptor)) as memory,
            isolation.no_main_module(),
        ):
            arguments = {"target": child.serve, "args": (theirs, memory, output, settings), "daemon": True}
            self._process = context.Process(**arguments)
            try:
                self._process.start()
            except (EOFError, OSError):  # somebody killed the server; starting once more starts it, too
                self._process = context.Process(**arguments)
                self._process.start()
        self._poll = select.poll()
        for descriptor in (self._connection.fileno(), self._process.sentinel):
            self._poll.register(descriptor, select.POLLIN)
        self.receive("starting", limit_seconds=START_SECONDS)
        self.printed()

    def send(self, request: Mapping[str, Any]) -> None:
        """Sends a request. Raises DiedError where the process has ended since its last answer."""
        # The sentinel comes late: the server tells the exit code, then closes it.
        if self._process.exitcode is not None:
            raise self._died("after a call had returned")
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(request).encode())

    def printed(self, *, kept_bytes: int = KEPT_BYTES) -> str:
        """What C code and the like printed for the answer just received, its end where that is long."""
        return self._printed.of_answer(kept_bytes=kept_bytes)

    def is_abandoned(self) -> bool:
        """Whether it ended because the server that it was forked from did."""
        return bool(self._process.exitcode == SERVER_GONE)

    def kill(self) -> None:
        """Ends the process and all that it started."""
        pid = self._process.pid
        assert pid is not None
        alive = self._process.exitcode is None
        # A number that is free again may be somebody else's by now: then nobody is left in our
        # process's group.
        if alive or not _exists(pid):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        if alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)  # not yet in a group of its own
            self._process.join(10)

    def close(self) -> None:
        self.kill()
        self._connection.close()
        self._printed.close()
        self._output.close()
        self.memory.close()

    def receive(
        self, doing: str, *, limit_seconds: float | None, asked_seconds: float = 0.0
    ) -> dict[str, Any]:
        """The next answer. Raises DiedError where none comes; doing: what the message of a death
        says it was at.

        asked_seconds: the limit of which limit_seconds are left. Raises NoResourceError where the
        process needs more shared memory than the machine has.
        """
        deadline = None if limit_seconds is None else time.monotonic() + limit_seconds
        connection, sentinel = self._connection.fileno(), self._process.sentinel
        try:
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                ready = {
                    descriptor for descriptor, _ in self._poll.poll(None if left is None else left * 1000)
                }
                if connection in ready:
                    answer = self._answer()
                    if answer is None:
                        raise self._died(doing, closed=sentinel not in ready)
                    if "reach" not in answer:
                        return answer
                    self.memory.reach(int(answer["reach"]))
                    self.send({})
                    continue
                if sentinel in ready:
                    raise self._died(doing)
                if left == 0.0:
                    raise self._timed_out(limit_seconds or 0.0, asked_seconds, doing)
        except DiedError:
            raise
        except BaseException:
            self.kill()
            raise

    def _answer(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            answer = json.loads(self._connection.recv_bytes())
            return answer if isinstance(answer, dict) else None
        return None

    def _timed_out(self, limit_seconds: float, asked_seconds: float, doing: str) -> DiedError:
        before, deadline = self._printed.rest(), time.monotonic() + _WORD_SECONDS
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, child.WHERE)
        while self._printed.rest() == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        output = self._printed.rest()
        self.kill()
        left = (
            f", what was left of {asked_seconds:.3g} s for all calls of its case"
            if asked_seconds > limit_seconds
            else ""
        )
        place = _line_in(output)
        return DiedError(
            "timed_out", f"still {doing} after {limit_seconds:.3g} s{left}{place}", _without_machinery(output)
        )

    def _died(self, doing: str, *, closed: bool = False) -> DiedError:
        """Why the process is gone, from its exit code and its last words."""
        self._process.join(5 if closed else 10)  # a busy machine takes a while to tell of an end
        code = self._process.exitcode
        output = self._printed.rest()
        self.kill()
        place, output = _line_in(output), _without_machinery(output)
        if code is None:
            return DiedError("crashed", f"closed its connection to the suite, {doing}{place}", output)
        if self.memory.ran_out or "std::bad_alloc" in output:
            return DiedError("out_of_memory", f"{RAN_OUT}: none was left, {doing}{place}", output)
        if code == -signal.SIGKILL and killings_for_memory() > self._killed_for_memory:
            return DiedError("out_of_memory", f"{RAN_OUT}: the system killed it, {doing}", output)
        how = f"was killed by {_signal(-code)}" if code < 0 else f"exited with code {code}"
        return DiedError("crashed", f"its process {how}, {doing}{place}", output)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _exists(pid: int) -> bool:
    try:
        os.getsid(pid)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


_MACHINERY = (
    str(Path(__file__).parent) + os.sep,
    str(Path(__file__).parents[1] / "kernels" / "declaration.py"),
    str(Path(multiprocessing.__file__).parent) + os.sep,
    "<",
)
"""The files between a process's start and its kernel, which tell nobody anything."""


def _line_in(output: str) -> str:
    """The innermost line of a Python file that a dump of faulthandler shows, less those of
    libraries and of this package.
    """
    own = str(Path(__file__).parents[1])
    for line in output.splitlines():
        file, rest = _frame(line)
        if file and not file.startswith((sys.prefix, sys.base_prefix, own, "<")):
            number, _, function = rest.partition(" in ")
            return f" (at {Path(file).name}:{number} in {function})"
    return ""


def _without_machinery(output: str) -> str:
    """What was printed, less the lines of faulthandler's dump that are above the kernel's."""
    return "".join(
        line for line in output.splitlines(keepends=True) if not _frame(line)[0].startswith(_MACHINERY)
    )


def _frame(line: str) -> tuple[str, str]:
    """(file, what follows) of a line of faulthandler's dump; nothing of any other."""
    text = line.strip()
    if not text.startswith('File "') or ", line " not in text:
        return "", ""
    file, _, rest = text.removeprefix('File "').partition('", line ')
    return file, rest

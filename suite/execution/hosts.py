"""Which host a kernel runs in: this suite's own in this process, those from outside each in a
process of its own.
"""

from __future__ import annotations

from suite.execution.host import Host
from suite.execution.in_process import InProcess
from suite.execution.isolated import Isolated
from suite.execution.isolation import TIMEOUT_SECONDS, Isolate
from suite.execution.limits import GIBIBYTE, default_memory_bytes
from suite.kernels import Kernel, is_importable, kernel_names, load_kernels
from suite.records.record import Record

LOADING = 10.0
"""How many times as long as its calls of a case the import of a kernel may take, as the first one
may compile it.
"""


class Hosts:
    """Loads kernels and says where they run. Use as a context manager, or call close().

    isolate: which kernels run in a process of their own. memory_gibibytes: what such a process may
    take; half of this machine's memory by default. timeout: the seconds of a case, of a declared
    domain and of a call that is measured; an import may take LOADING times as many.
    """

    def __init__(
        self,
        *,
        isolate: Isolate = "outside",
        memory_gibibytes: float | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._isolate = isolate
        self._here = InProcess()
        memory_bytes = (
            default_memory_bytes() if memory_gibibytes is None else int(memory_gibibytes * GIBIBYTE)
        )
        self._elsewhere = Isolated(
            memory_bytes=memory_bytes, load_seconds=LOADING * timeout, limit_seconds=timeout
        )

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, specification: str, op: str, *, device: str = "cpu") -> list[Kernel]:
        """The kernels of `op` that a --kernel argument names; one from outside is imported in its
        own process only.

        Raises ValueError, naming what is missing and what is there.
        """
        if self._isolate == "never" or specification in kernel_names(op) or not is_importable(specification):
            return load_kernels(specification, op)
        return self._elsewhere.load(specification, op, device=device)

    def of(self, kernel: Kernel) -> Host:
        """The host of a kernel."""
        isolated = self._isolate == "always" or (self._isolate == "outside" and kernel.outside)
        return self._elsewhere if isolated else self._here

    def recall(self, record: Record) -> None:
        """Tells of the records of a run that is resumed, one after the other: what was set aside stays so."""
        self._elsewhere.note(record)

    def close(self) -> None:
        self._elsewhere.close()

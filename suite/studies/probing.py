"""What the chapters about a kernel share: its calls, the speed that decides how much is asked, and the
Measurement of what was found.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suite.formats import Format
from suite.kernels import Kernel
from suite.ops import AnyOp, get_op, measured_by
from suite.records.record import Measurement
from suite.version import __version__

if TYPE_CHECKING:
    import torch

    from suite.execution.host import Host, Outcome


class UnmeasuredError(Exception):
    """The kernel cannot be measured; the text is the reason."""


class Probe(abc.ABC):
    """A kernel that a chapter asks, in one format on one device.

    host: where its calls run, this process by default.
    """

    chapter: str
    further: tuple[str, ...] = ()
    """The optional tensors of its calls, an upstream gradient among them."""

    def __init__(self, kernel: Kernel, format: Format, device: str = "cpu", host: Host | None = None) -> None:
        from suite.execution.in_process import InProcess

        self.kernel, self.format, self.device, self.host = kernel, format, device, host or InProcess()
        self.op: AnyOp = get_op(kernel.op)
        self.options: dict[str, Any] = {**self.op.options, **self.op.options_by_row}

    @abc.abstractmethod
    def data(self) -> dict[str, Any]:
        """The chapter's data, JSON-ready. Raises UnmeasuredError."""

    def unsupported(self) -> str | None:
        """Why the kernel is not asked at all, or None."""
        return self.kernel.supports(self.options, self.format, self.device, further=self.further)

    def measurement(self) -> Measurement:
        """What the kernel does wrong is a reason in the data, which then has nothing else."""
        try:
            reason = self.unsupported()
            data = self.data() if reason is None else {"reason": reason}
        except UnmeasuredError as error:
            data = {"reason": str(error)}
        return Measurement(
            kind=self.chapter,
            kernel=self.kernel.id,
            op=self.kernel.op,
            dtype=self.format.name,
            device=self.device,
            suite_version=__version__,
            data=data,
        )

    def slowness(self, seconds: float, limit: float, what: str) -> str:
        """Why less is asked of this kernel than of others; empty where it is fast enough."""
        if self.kernel.slow:
            return "declared slow"
        return f"{what} takes more than {1000 * limit:g} ms" if seconds > limit else ""

    def call_kernel(
        self, inputs: torch.Tensor | Mapping[str, torch.Tensor], options: Mapping[str, Any], where: str = ""
    ) -> Outcome:
        """The outcome of one call that returned a result, else UnmeasuredError with `where` in its text."""
        outcome = self.host.call(self.kernel, inputs, options)
        if outcome.status is not None:
            raise UnmeasuredError(f"{outcome.status}{where}: {outcome.message}")
        return outcome


def refuse_other_ops(kernel: Kernel, chapter: str, are: str) -> None:
    """ValueError for a kernel of an op that the chapter does not measure."""
    known = measured_by(chapter)
    if kernel.op not in known:
        raise ValueError(
            f"kernel {kernel.id} is a kernel of {kernel.op}; {chapter} {are} measured of {', '.join(known)}"
        )

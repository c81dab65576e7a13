"""Measurements of a kernel apart from any case: curves and thresholds for the report's chapters. They are no verdicts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.execution.host import Host
    from suite.kernels import Kernel
    from suite.records import Measurement

CHAPTERS = ("exponential", "thresholds")
OPS = ("softmax", "log_softmax", "logsumexp")


def measure_kernel(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Iterator[Measurement]:
    """The measurements of every chapter; none of a kernel of an op that the chapters do not know."""
    if kernel.op in OPS:
        for chapter in CHAPTERS:
            yield importlib.import_module(f"suite.measure.{chapter}").measure(kernel, dtype, device=device, host=host)

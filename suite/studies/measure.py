"""Measurements of a kernel apart from any case: curves and thresholds for the report's chapters.
They are no verdicts.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from suite.ops import get_op

if TYPE_CHECKING:
    from suite.execution.host import Host
    from suite.kernels import Kernel
    from suite.records.record import Measurement

CHAPTERS = {"exponential": "forward", "thresholds": "forward", "vanishing": "backward"}
"""Chapter -> the direction that it is about. An op says itself which of them know it."""


def chapters_of(op: str, directions: Sequence[str]) -> list[str]:
    """The chapters about kernels of this op, in these directions."""
    measured = get_op(op).measured
    return [name for name, direction in CHAPTERS.items() if direction in directions and name in measured]


def measure_kernel(
    kernel: Kernel,
    dtype: str,
    *,
    device: str = "cpu",
    host: Host | None = None,
    directions: Sequence[str] = ("forward", "backward"),
) -> Iterator[Measurement]:
    """The measurements of every chapter about it; none of a kernel of an op that the chapters do not know."""
    for chapter in chapters_of(kernel.op, directions):
        yield importlib.import_module(f"suite.studies.{chapter}").measure(
            kernel, dtype, device=device, host=host
        )

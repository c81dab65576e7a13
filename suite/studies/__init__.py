"""Measurements of a kernel apart from any case: curves and thresholds for the report's chapters.
They are no verdicts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from suite.ops import get_op
from suite.records.configuration import in_shard
from suite.records.store import read_measurements

if TYPE_CHECKING:
    from suite.execution.host import Host
    from suite.kernels import Kernel
    from suite.records.record import Measurement
    from suite.session import Session

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


def measure_missing(session: Session, say: Callable[[int, int, str], None]) -> None:
    """Appends the measurements of every kernel and format of a session to its run folder, but those
    that are there; of the backward also those of depth, which are no kernel's.

    A shard takes its share of the kernels. Where the request wants torch's alone: chapters of
    gradients of torch's own kernels; depth from quick on. say: gets the number of each kernel and
    format, how many there are, and what is measured. Raises StoreError where the folder takes no more.
    """
    request, store, env_id = session.request, session.store, session.environment["env_id"]
    assert store is not None
    torch_only = request.measure == "torch"
    directions = ("backward",) if torch_only else request.directions
    there = set(read_measurements(store.folder, []))
    pairs = [
        (kernel, dtype)
        for op in request.ops
        for kernel in session.kernels[op]
        for dtype in request.dtypes
        if in_shard(f"{op} {kernel.id} {dtype}", request.shard)
        and not (torch_only and kernel.id != _differentiated(op))
        and any(
            (chapter, op, kernel.id, dtype, request.device) not in there
            for chapter in chapters_of(op, directions)
        )
    ]
    for number, (kernel, dtype) in enumerate(pairs):
        say(number, len(pairs), f"{kernel.op} {kernel.id} {dtype}")
        for measurement in measure_kernel(
            kernel, dtype, device=request.device, host=session.hosts.of(kernel), directions=directions
        ):
            if (measurement.kind, kernel.op, kernel.id, dtype, request.device) not in there:
                store.append_measurement(replace(measurement, env_id=env_id))
    deep = "backward" in directions and in_shard("depth", request.shard)
    if deep and not (torch_only and request.profile == "smoke") and "depth" not in {key[0] for key in there}:
        from suite.studies import depth

        say(len(pairs), len(pairs), "gradients through depth")
        for measurement in depth.measure(dtypes=request.dtypes):
            store.append_measurement(replace(measurement, env_id=env_id))


def _differentiated(op: str) -> str:
    """torch's own kernel, whose gradients are measured where nobody asked; empty for none."""
    own = get_op(op).torch
    return own.differentiated if own is not None else ""

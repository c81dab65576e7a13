"""Which kernel to use: for what a new run has timed, the answer in each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suite.records.record import Measurement
from suite.records.store import Run
from suite.report.advice import Advice, Group, Standing, Subject, advise, grouped, ranked, standings
from suite.report.compare import throughput_of
from suite.report.compare_tables import input_of, of_bound
from suite.report.speed import median, times_of
from suite.report.words import count, digits, seconds, with_direction

AS_FAST = 3
"""Kernels as fast as the best that are named."""
FASTER = 2
"""Faster ones that are not safe."""
ROOFS = (
    ("bytes", "copy_bytes_per_second", 1e9, "GB/s"),
    ("operations", "matmul_operations_per_second", 1e12, "TFLOP/s"),
)


def best_kernels(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], int]:
    """(a row for each input that a new run has timed, how many inputs the base alone has timed). A
    row has the cells of each run, the base first: one for each device.
    """
    found: dict[tuple[Any, ...], dict[int, list[dict[str, Any]]]] = {}
    for number, run in enumerate(runs):
        timed = throughput_of(run)
        standing = standings(run.records, timed)
        for group, measurements in sorted(grouped(timed).items()):
            cell = _cell(group, advise(ranked(measurements), standing), standing)
            shape = tuple(measurements[0].data["shape"])
            key = (group.op, group.direction, group.dtype, shape, group.case)
            found.setdefault(key, {}).setdefault(number, []).append(cell)
    rows = [
        {
            "op": with_direction(op, direction),
            "dtype": dtype,
            "input": input_of(case),
            "cells": [by_run.get(number, []) for number in range(len(runs))],
        }
        for (op, direction, dtype, _, case), by_run in sorted(found.items(), key=lambda item: item[0])
        if any(by_run.keys() - {0})
    ]
    return rows, len(found) - len(rows)


def base_alone(number: int, base: str) -> str:
    """A sentence about the inputs that only the base has timed, "" where there are none."""
    verb = "is" if number == 1 else "are"
    return f"{count(number, 'input')} that {base} alone has timed {verb} left out." if number else ""


def _cell(group: Group, advice: Advice, standing: Mapping[Subject, Standing]) -> dict[str, Any]:
    use = advice.use
    found: dict[str, Any] = dict.fromkeys(("kernel", "time", "rate", "error", "declares"), "")
    found |= {
        "device": group.device,
        "as_fast": [m.kernel for m in advice.as_fast[:AS_FAST]],
        "faster": [
            f"{m.kernel} ({reason}, {seconds(median(times_of(m)))})" for m, reason in advice.unsafe[:FASTER]
        ],
    }
    if use is not None:
        found |= {
            "kernel": use.kernel,
            "time": seconds(median(times_of(use))),
            "rate": rate(use),
            "error": of_bound(use.data.get("ratio")),
            "declares": standing[Subject.of(use)].declares,
        }
    return found


def rate(m: Measurement) -> str:
    """GB/s of the least traffic, or TFLOP/s where the operations take longer on this machine than the
    traffic; with the share of what this machine reaches, where that was measured.
    """
    second, found = median(times_of(m)), []
    for amount, peak, scale, unit in ROOFS:
        done, most = m.data.get(amount), m.data.get(peak)
        if done:
            share = done / second / most if most else 0.0
            text = f"{digits(done / second / scale)} {unit}" + (f", {share:.0%}" if most else "")
            found.append((share, text))
    if not found:
        return ""
    return max(found)[1] if max(found)[0] else found[0][1]

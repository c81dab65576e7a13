"""Speed beside accuracy: each point is judged, timed on fresh inputs, and its last timed output judged again.

    for each op, format, length, ...: for each kernel:
        evaluate() on the case's inputs    a kernel that does not pass gets no times
        time it where it runs, on the inputs of the seeds behind the case's, in turn
        (suite/execution/timed.py) judge JUDGED_ROWS rows of the last timed output, and fewer of
        some single calls on further inputs Measurement(kind="throughput") -> the run folder

docs/bench.md says what a number means.
"""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from suite.bench.kept import drawn_rows, judge_kept, rows_taken
from suite.bench.plan import Point
from suite.bench.traffic import least_bytes
from suite.case import Case
from suite.execution.hosts import LOADING
from suite.execution.timed import FRESH_CALLS, ROUNDS, Task, Timed
from suite.formats import Format, get_format
from suite.ops import get_op
from suite.records.known_failures import apply
from suite.records.record import Measurement, Record
from suite.session import Session
from suite.tensors import to_torch
from suite.timing import cpu, machine
from suite.version import __version__

KIND = "throughput"
LINE_SECONDS = 5.0

WHOLE = 2**21
"""Entries of logits up to which evaluate() judges all rows; beyond, JUDGED_ROWS of them."""

FRESH = 2
"""Sets of inputs, of the seeds behind the case's, that samples take in turn."""

SMALL = 2**14
"""Entries of a shape below which single calls have inputs of seeds of their own."""

FURTHER = ROUNDS * FRESH_CALLS
"""How many such inputs."""


class Bench:
    """Measures points on the device of a session, one after the other. The number of threads is
    torch's present one.
    """

    def __init__(
        self,
        session: Session,
        *,
        cache: cpu.Cache = "warm",
        target: float = 0.01,
        budget_seconds: float = 0.1,
        seed: int | None = None,
    ) -> None:
        """budget_seconds: for the samples of a point. seed: of the rows that are judged; by default
        one that nobody foresees. It is recorded.
        """
        self.session, self._device = session, session.request.device
        self._cache, self._target, self._budget_seconds = cache, target, budget_seconds
        self.seed = secrets.randbits(32) if seed is None else seed
        self._held_of, self._held = ("", ""), dict[int, Mapping[str, NDArray[Any]]]()
        self._on_cuda = self._device.startswith("cuda")
        self._copy_bytes_per_second: float | None = None
        self._matmul_operations_per_second: dict[str, float] = {}

    def measure(self, point: Point) -> tuple[Record | None, Measurement | None]:
        """The verdict on a point and its measurement, both stored; no measurement of what is
        unsupported, no record where not even the inputs fit into memory.

        Never raises for the kernel's fault: what it does wrong while it is timed is the measurement's status.
        """
        kernel, case, dtype = point
        try:
            record, data = self._judged_and_timed(point)
        except MemoryError as error:
            record, data = None, self._about(point, None) | {
                "status": "out_of_memory",
                "note": f"the inputs and their references do not fit into memory: {error}"
            }  # fmt: skip
        if data is None:
            return record, None
        measurement = Measurement(
            kind=KIND,
            kernel=kernel.id,
            op=case.op,
            dtype=dtype,
            device=self._device,
            case=case.id,
            suite_version=__version__,
            env_id=self.session.environment["env_id"],
            data=data,
        )
        if self.session.store is not None:
            self.session.store.append_measurement(measurement)
        return record, measurement

    def _judged_and_timed(self, point: Point) -> tuple[Record, dict[str, Any] | None]:
        """The verdict, and the data of the measurement, if any."""
        kernel, case, dtype = point
        judged = self._inputs(case, dtype)
        few = self._rows(case) if len(case.shape) == 2 and int(np.prod(case.shape)) > WHOLE else None
        inputs = judged if few is None else rows_taken(judged, few)
        record = self.session.evaluate(case, kernel, dtype, inputs=inputs)
        if record.status == "unsupported":
            return record, None
        data = self._about(point, record)
        if record.status == "passed":
            data |= self._timed(point, get_format(dtype), record)
            if few is not None:
                data["note"] = "; ".join(
                    filter(None, (data["note"], f"judged on {len(few)} of {case.shape[0]} rows"))
                )
        return record, data

    def _rows(self, case: Case) -> NDArray[np.intp]:
        """The rows of a case, or the queries of all its heads, that are judged where not all are:
        the first, the last, and others that no kernel can foresee. All kernels of a case are judged
        on the same.
        """
        count = case.shape[0] if len(case.shape) == 2 else int(np.prod(case.shape[:3]))
        return drawn_rows(count, np.random.default_rng([self.seed, zlib.crc32(case.id.encode())]))

    def _about(self, point: Point, record: Record | None) -> dict[str, Any]:
        """What a measurement holds without times."""
        case = point.case
        copy, matmul = self._best(point.dtype)
        return {
            "status": record.status if record else "",
            "ratio": record.judgement.ratio if record else None,
            "max_ulp": record.judgement.max_ulp if record else None,
            "digest": record.judgement.digest if record else "",
            "direction": case.direction,
            "shape": list(case.shape),
            "length": case.shape[2] if len(case.shape) == 4 else case.shape[-1],
            "bytes": least_bytes(case, get_format(point.dtype), case.shapes()),
            "operations": get_op(case.op).operations(
                case.shapes(), case.resolved_options(), backward=bool(case.upstream)
            ),
            "clock": "cuda_event" if self._on_cuda else "perf_counter",
            "cache": "flushed" if self._on_cuda else self._cache,
            "threads": torch.get_num_threads(),
            "calls_per_sample": 0,
            "samples_seconds": [],
            "median_seconds": None,
            "low_seconds": None,
            "high_seconds": None,
            "peak_bytes": None,
            "compile_seconds": None,
            "copy_bytes_per_second": copy,
            "matmul_operations_per_second": matmul,
            "judged_rows_seed": self.seed,
            "note": record.message if record and record.status != "passed" else "",
        }

    def _best(self, dtype: str) -> tuple[float, float]:
        """What this machine copies a second, and multiplies in this format: measured once."""
        if self._copy_bytes_per_second is None:
            self._copy_bytes_per_second = machine.copy_bytes_per_second(self._device)
        if dtype not in self._matmul_operations_per_second:
            self._matmul_operations_per_second[dtype] = machine.matmul_operations_per_second(
                self._device, dtype
            )
        return self._copy_bytes_per_second, self._matmul_operations_per_second[dtype]

    def _timed(self, point: Point, format: Format, record: Record) -> dict[str, Any]:
        """The times of a kernel that passed; or the status of what went wrong with it after all,
        and no times.
        """
        kernel, case, dtype = point
        further = FURTHER if int(np.prod(case.shape)) < SMALL else 0
        sets = [self._inputs(case, dtype, 1 + number) for number in range(FRESH + further)]
        op, rows = get_op(case.op).of(sets[0]), self._rows(case)
        tensors = tuple(
            {name: to_torch(values, op.input_format(name, format)) for name, values in one.items()}
            for one in sets
        )
        task = Task(
            sets=tensors[:FRESH],
            further=tensors[FRESH:],
            device=self._device,
            options=case.resolved_options(),
            rows=tuple(rows.tolist()) if len(case.shape) == 2 else None,
            cache=self._cache,
            target=self._target,
            budget_seconds=self._budget_seconds,
        )
        limit = LOADING * self.session.request.timeout
        outcome = self.session.hosts.of(kernel).time(kernel, task, limit_seconds=limit)
        if outcome.status is not None:
            # It has passed: it does not decline.
            status = "raised" if outcome.status == "unsupported" else outcome.status
            return self._failed(record, status, (status,), f"while it was timed: {outcome.message}")
        for kept in outcome.timed.kept:
            judgement = judge_kept(kernel, case, kept, sets[kept.set], rows, format, self.session.oracle)
            if not judgement.passed:
                which = "the last timed output" if kept.timed else "a call after the timed ones"
                wrong = (
                    f"{judgement.failed:,} of {judgement.entries:,} entries, up to {judgement.ratio:.3g}"
                    " × the bound"
                )
                note = f"{which}: {wrong}\n{judgement.message}"
                return self._failed(record, judgement.status, judgement.broken, note)
        return _speed(outcome.timed, record.outcome.seconds or 0.0)

    def _inputs(self, case: Case, dtype: str, further: int = 0) -> Mapping[str, NDArray[Any]]:
        """The inputs of a case, or of the seed so far behind its own. Those of the last case are
        kept: kernels share them.
        """
        if self._held_of != (case.id, dtype):
            self._held_of = case.id, dtype
            self._held.clear()
        if further not in self._held:
            self._held[further] = replace(case, seed=case.seed + further).inputs(get_format(dtype))
        return self._held[further]

    def _failed(self, record: Record, status: str, broken: Sequence[str], note: str) -> dict[str, Any]:
        """The status and the note of a kernel that passed and then failed; the failure may be known."""
        found = apply(replace(record, status=status, broken=tuple(broken), message=note), self.session.known)
        return {
            "status": found.status,
            "note": f"{found.message}\nknown: {found.known}" if found.known else found.message,
        }


def _speed(timed: Timed, first_seconds: float) -> dict[str, Any]:
    """The times among the data of a measurement. first_seconds: of the judged call, in which it was
    compiled.
    """
    timing = timed.timing
    if timing is None:
        return {"note": f"not timed: {timed.untimed}"}
    if min(timing.samples_seconds) <= 0:
        return {"note": "not timed: its calls took no time by the clock of its process"}
    return {
        "clock": timing.clock,
        "calls_per_sample": timing.calls_per_sample,
        "samples_seconds": list(timing.samples_seconds),
        "median_seconds": timing.median.value,
        "low_seconds": timing.median.low,
        "high_seconds": timing.median.high,
        "peak_bytes": timed.peak_bytes,
        "compile_seconds": max(max(first_seconds, timing.first_seconds) - timing.median.value, 0.0),
        "overhead_seconds": timing.overhead_seconds,
        "note": timing.note,
        **(timing.details or {}),
    }


def sweep(
    bench: Bench, wanted: Sequence[Point], say: Callable[[str], None]
) -> Iterator[tuple[Record | None, Measurement | None]]:
    """The points one after the other, with a line on what is being done every LINE_SECONDS."""
    shown = time.monotonic()
    for number, point in enumerate(wanted):
        if time.monotonic() - shown > LINE_SECONDS:
            shown = time.monotonic()
            say(f"timing {number} of {len(wanted)}: {point.kernel.id} {point.dtype} {point.case.id}")
        yield bench.measure(point)

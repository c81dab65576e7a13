"""Speed beside accuracy: each point is judged, timed on fresh inputs, and its last timed output judged again.

    for each op, format, length, ...: for each kernel:
        evaluate() on the case's inputs    a kernel that does not pass gets no times
        time it where it runs, on the inputs of the seeds behind the case's, in turn
        (suite/execution/timed.py) judge JUDGED_ROWS rows of the last timed output, and fewer of
        some single calls on further inputs Measurement(kind="throughput") -> the run folder

docs/bench.md says what a number means.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.hosts import LOADING, Hosts
from suite.execution.isolation import TIMEOUT_SECONDS
from suite.execution.timed import FRESH_CALLS, ROUNDS, Kept, Task, Timed, rolled
from suite.formats import Array, Format, get_format
from suite.kernels import Kernel, own_kernels
from suite.ops import NAMES, AnyOp, get_op
from suite.ops.attention import Attention
from suite.ops.attention.definition import Queries
from suite.oracle import Oracle
from suite.oracle.cache import default_folder
from suite.records.known_failures import KnownFailure, apply
from suite.records.record import Measurement, Record
from suite.records.store import Store
from suite.tensors import to_float64, to_torch
from suite.timing import cpu, machine
from suite.verdict.judge import judge_outputs
from suite.verdict.judgement import Judgement
from suite.version import __version__

KIND = "throughput"
OPS = tuple(name for name in NAMES if get_op(name).torch is not None)
"""What is measured where nobody names an op: whatever torch has a kernel for, too."""

JUDGED_ROWS, FURTHER_ROWS = 64, 16
"""Rows that are judged of the last timed output, and of each single call after it."""

WHOLE = 2**21
"""Entries of logits up to which evaluate() judges all rows; beyond, JUDGED_ROWS of them."""

FRESH = 2
"""Sets of inputs, of the seeds behind the case's, that samples take in turn."""

SMALL, FURTHER = 2**14, ROUNDS * FRESH_CALLS
"""Entries of a shape below which single calls have inputs of seeds of their own, and how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a profile measures. lengths: of rows; attention_lengths: of queries and keys. entries:
    of logits, about, whatever the length. head_sizes, causal: of attention. budget_seconds: for the
    samples of a point. slow: slow kernels too.
    """

    lengths: tuple[int, ...]
    attention_lengths: tuple[int, ...]
    entries: int
    dtypes: tuple[str, ...]
    head_sizes: tuple[int, ...] = (64,)
    causal: tuple[str | None, ...] = (None,)
    budget_seconds: float
    slow: bool = False


PLANS: dict[str, Plan] = {
    "smoke": Plan(
        lengths=(256, 4096), attention_lengths=(256,), entries=2**16, dtypes=("float32",), budget_seconds=0.02
    ),
    "quick": Plan(
        lengths=(256, 2048, 16384),
        attention_lengths=(256, 512, 2048),
        entries=2**18,
        dtypes=("float32", "bfloat16"),
        budget_seconds=0.05,
    ),
    "standard": Plan(
        lengths=(256, 1024, 4096, 16384, 65536, 128256),
        attention_lengths=(256, 512, 1024, 2048, 4096),
        entries=2**20,
        dtypes=("float32", "bfloat16", "float16"),
        head_sizes=(64, 128),
        causal=(None, "top_left"),
        budget_seconds=0.5,
        slow=True,
    ),
}  # fmt: skip
FEWEST_ROWS, HEADS, MERGE_HEADS, MERGE_SIZE = 8, 2, 8, 64


class Point(NamedTuple):
    """One kernel on one case in one format: one measurement."""

    kernel: Kernel
    case: Case
    dtype: str


def points(
    kernels: Mapping[str, Sequence[Kernel]],
    plan: Plan,
    *,
    dtypes: Sequence[str] = (),
    direction: str = "forward",
    lengths: Sequence[int] = (),
    shapes: Sequence[tuple[int, ...]] = (),
) -> list[Point]:
    """What is measured, in order: kernels side by side, so that they share inputs, references and
    the weather.

    kernels: by op. dtypes, lengths, shapes: in place of the plan's. Raises ValueError for a shape
    that an op cannot have.
    """
    return [
        Point(kernel, case, dtype)
        for op, chosen in kernels.items()
        for dtype in dtypes or plan.dtypes
        for case in cases(op, plan, direction=direction, lengths=lengths, shapes=shapes)
        for kernel in chosen
    ]


def cases(
    op: str,
    plan: Plan,
    *,
    direction: str = "forward",
    lengths: Sequence[int] = (),
    shapes: Sequence[tuple[int, ...]] = (),
) -> list[Case]:
    """The cases of an op. Raises ValueError, naming the shape, where one is of the wrong number of
    dims or empty.
    """
    definition = get_op(op)
    settings: list[dict[str, Any]] = [dict(definition.options_by_row)]
    if "causal" in definition.options:
        settings = [{"causal": causal} if causal else {} for causal in plan.causal]
    for shape in shapes:
        if len(shape) != len(definition.dims) or min(shape) < 1:
            raise ValueError(
                f"--shape {'x'.join(map(str, shape))} is none of {op}: expected {'x'.join(definition.dims)},"
                " each at least 1"
            )
    upstream = "normal" if direction == "backward" else ""
    return [
        Case(op=op, family=definition.plain_family, shape=shape, options=options, upstream=upstream)
        for options in settings
        for shape in shapes or _shapes(definition, plan, lengths)
    ]


def _shapes(op: AnyOp, plan: Plan, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    if op.limited_by == "operations":
        return [(1, HEADS, n, size) for size in plan.head_sizes for n in lengths or plan.attention_lengths]
    if not op.of_rows:
        return [(1, MERGE_HEADS, n, MERGE_SIZE) for n in lengths or plan.attention_lengths]
    return [(max(plan.entries // n, FEWEST_ROWS), n) for n in lengths or plan.lengths]


def default_kernels(ops: Sequence[str], *, slow: bool, device: str) -> dict[str, list[Kernel]]:
    """This suite's own kernels of these ops that run on the device; slow: those too that compile or
    interpret.
    """
    kind = device.split(":")[0]
    return {
        op: [k for k in own_kernels(op).values() if (slow or not k.slow) and kind in (k.devices or (kind,))]
        for op in ops
    }


def named_kernels(
    specifications: Sequence[str], ops: Sequence[str], hosts: Hosts, *, device: str
) -> dict[str, list[Kernel]]:
    """The kernels that --kernel names, by op; a name that only some of the ops have is taken for those.

    Raises ValueError for one that none of them has, and for a function that does not say which op it is of.
    """
    chosen: dict[str, list[Kernel]] = {op: [] for op in ops}
    for specification in dict.fromkeys(specifications):
        found, errors = list[Kernel](), list[str]()
        for op in ops:
            try:
                found += hosts.load(specification, op, device=device)
            except ValueError as error:
                errors.append(str(error))
        if not found:
            raise ValueError(errors[0])
        if len(found) > 1 and not any(kernel.declared for kernel in found):
            raise ValueError(
                f"--kernel {specification!r} does not say what it computes: name one with --op"
                f" ({', '.join(ops)}), or declare it with @kernel"
            )
        for kernel in found:
            chosen[kernel.op].append(kernel)
    return chosen


def check_device(device: str) -> None:
    """Raises ValueError where torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"--device {device!r} cannot be used: {reason}; expected cpu, cuda, cuda:1, ..."
        ) from None
    if torch.device(device).type not in ("cpu", "cuda"):
        raise ValueError(f"--device {device!r} has no clock here; expected cpu, cuda, cuda:1, ...")


class Bench:
    """Measures points on one device, one after the other. The number of threads is torch's present one.

    limit_seconds: what the timing of a point may take, where its host can end it. seed: of the rows
    that are judged; by default one that nobody foresees. It is recorded.
    """

    def __init__(
        self,
        *,
        device: str,
        hosts: Hosts,
        oracle: Oracle,
        store: Store | None = None,
        env_id: str = "",
        known: Sequence[KnownFailure] = (),
        cache: cpu.Cache = "warm",
        target: float = 0.01,
        budget_seconds: float = 0.1,
        limit_seconds: float = LOADING * TIMEOUT_SECONDS,
        seed: int | None = None,
    ) -> None:
        self._device, self._hosts, self._oracle, self._store, self._env_id = (
            device,
            hosts,
            oracle,
            store,
            env_id,
        )
        self._known, self._cache, self._target, self._budget_seconds = known, cache, target, budget_seconds
        self._limit_seconds = limit_seconds
        self.seed = secrets.randbits(32) if seed is None else seed
        self._held_of, self._held = ("", ""), dict[int, Mapping[str, NDArray[Any]]]()
        self._on_cuda = device.startswith("cuda")
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
            env_id=self._env_id,
            data=data,
        )
        if self._store is not None:
            self._store.append_measurement(measurement)
        return record, measurement

    def _judged_and_timed(self, point: Point) -> tuple[Record, dict[str, Any] | None]:
        """The verdict, and the data of the measurement, if any."""
        kernel, case, dtype = point
        judged = self._inputs(case, dtype)
        few = self._rows(case) if len(case.shape) == 2 and int(np.prod(case.shape)) > WHOLE else None
        record = evaluate(
            case,
            kernel,
            dtype=dtype,
            oracle=self._oracle,
            device=self._device,
            host=self._hosts.of(kernel),
            store=self._store,
            known=self._known,
            env_id=self._env_id,
            inputs=judged if few is None else _rows_taken(judged, few),
        )
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
            "ratio": record.ratio if record else None,
            "max_ulp": record.max_ulp if record else None,
            "digest": record.digest if record else "",
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
        outcome = self._hosts.of(kernel).time(kernel, task, limit_seconds=self._limit_seconds)
        if outcome.status is not None:
            status = (
                "raised" if outcome.status == "unsupported" else outcome.status
            )  # it has passed: it does not decline
            return self._failed(record, status, (status,), f"while it was timed: {outcome.message}")
        for kept in outcome.timed.kept:
            judgement = judge_kept(kernel, case, kept, sets[kept.set], rows, format, self._oracle)
            if not judgement.passed:
                which = "the last timed output" if kept.timed else "a call after the timed ones"
                wrong = (
                    f"{judgement.failed:,} of {judgement.entries:,} entries, up to {judgement.ratio:.3g}"
                    " times of bound"
                )
                note = f"{which}: {wrong}\n{judgement.message}"
                return self._failed(record, judgement.status, judgement.broken, note)
        return _speed(outcome.timed, record.seconds or 0.0)

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
        found = apply(replace(record, status=status, broken=tuple(broken), message=note), self._known)
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


def judge_kept(
    kernel: Kernel,
    case: Case,
    kept: Kept,
    inputs: Mapping[str, NDArray[Any]],
    rows: NDArray[np.intp],
    format: Format,
    oracle: Oracle,
) -> Judgement:
    """Judges an output of a timed call: of a case of rows these rows, which are all that was kept;
    of attention these queries, against all keys; of its gradients those of one of these queries'
    head and of what shares its keys. Of a call on further inputs FURTHER_ROWS of them.

    inputs: of the set that `kept` names.
    """
    op, options = get_op(case.op).of(inputs), case.resolved_options()
    outputs = tuple(to_float64(one) for one in kept.outputs)
    few = np.random.default_rng([kept.set, kept.shift])
    some = np.arange(len(rows)) if kept.timed else drawn_rows(len(rows), few, FURTHER_ROWS)
    if len(case.shape) == 2:
        inputs = _rolled_rows(inputs, rows[some], kept.shift)
        outputs = tuple(one[some] for one in outputs)
    else:
        inputs = {name: rolled(values, kept.shift, np.roll) for name, values in inputs.items()}
        if type(op) is Attention:
            op = _SomeQueries(rows[some])
        elif "k" in inputs:
            inputs, outputs = _one_group(inputs, outputs, int(rows[len(rows) // 2]))
    shapes = {name: tuple(values.shape) for name, values in inputs.items()}
    references = oracle.references(op, inputs, options, format, semantics=kernel.semantics)
    return judge_outputs(op, references, outputs, shapes, options, format, kernel.numerics, statistics=False)


def _one_group(
    inputs: Mapping[str, NDArray[Any]], outputs: tuple[Array, ...], query: int
) -> tuple[dict[str, NDArray[Any]], tuple[Array, ...]]:
    """Attention's inputs and gradients of the heads that share keys with that of a query, flat in
    [B, H, L]: they depend on nothing else.
    """
    (_, heads, length, _), groups = inputs["q"].shape, inputs["k"].shape[1]
    batch, head = divmod(query // length, heads)

    def of_group(values: Any) -> Any:
        shared = values.shape[1] // groups
        first = head * groups // heads * shared
        return values[batch : batch + 1, first : first + shared]

    return {name: of_group(values) for name, values in inputs.items()}, tuple(
        of_group(one) for one in outputs
    )


class _SomeQueries(Attention):
    """attention of which only some queries, flat in [B, H, L], are judged."""

    def __init__(self, rows: NDArray[np.intp]) -> None:
        self._rows = rows

    def problem(self, inputs: Mapping[str, Array], options: Mapping[str, Any]) -> Queries:
        return self.queries(inputs, options, self._rows)


def drawn_rows(count: int, generator: np.random.Generator, most: int = JUDGED_ROWS) -> NDArray[np.intp]:
    """`most` numbers from 0 to count - 1 in order, the first and the last among them, or all."""
    if count <= most:
        return np.arange(count)
    within = 1 + generator.choice(count - 2, most - 2, replace=False)
    return np.sort(np.concatenate([[0, count - 1], within]))


def _rows_taken(inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(values[rows]) for name, values in inputs.items()}


def _rolled_rows(
    inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], shift: int
) -> dict[str, NDArray[Any]]:
    """The rows of rolled() inputs, without rolling the others."""
    taken = _rows_taken(inputs, (rows - shift) % len(next(iter(inputs.values()))))
    return {name: np.roll(values, shift, 1) if values.ndim == 2 else values for name, values in taken.items()}


def least_bytes(case: Case, format: Format, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The least traffic of a call: each input read and each output written once, and of a backward,
    which begins with the forward, the inputs read again, the upstream gradients read and the
    gradients written.
    """
    op, options = get_op(case.op), case.resolved_options()
    forward = {name: shape for name, shape in shapes.items() if name not in op.upstreams}

    def size(name: str, of: AnyOp) -> int:
        if name == "target" and case.target != "probabilities":
            return 8
        return of.input_format(name, format).bits // 8

    read = sum(int(np.prod(shape)) * size(name, op) for name, shape in forward.items())
    written = sum(
        int(np.prod(part.output_shape(forward, options))) * part.output_format(format).bits // 8
        for part in op.outputs(options)
    )
    if not case.upstream:
        return read + written
    back = sum(int(np.prod(shapes[name])) * size(name, op) for name in op.upstreams if name in shapes)
    gradients = sum(
        int(np.prod(shapes[name])) * size(name, op) for name in op.differentiable if name in shapes
    )
    return read + written + read + back + gradients


@contextlib.contextmanager
def device_lock(device: str, *, folder: Path | None = None) -> Iterator[None]:
    """One bench of a device at a time: two would time each other. The end of the process, however
    it comes, frees the device.

    Raises ValueError where another process of this user holds it, and under pytest-xdist, whose
    workers run side by side.
    """
    import fcntl

    if "PYTEST_XDIST_WORKER" in os.environ:
        raise ValueError(
            "times of workers side by side are times of each other: run it without pytest-xdist (-n)"
        )
    folder = folder or default_folder()
    path = folder / f"bench-{_whole_name(device).replace(':', '-')}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ValueError(f"the lock {str(path)!r} of the device cannot be made: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise ValueError(
                f"device {device} is being measured by process {holder}; two at once time each other"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _whole_name(device: str) -> str:
    """The name that a device has alone: there is one CPU, and "cuda" is the present one."""
    kind, _, index = device.partition(":")
    return (
        f"{kind}:{index or torch.cuda.current_device()}"
        if kind == "cuda" and torch.cuda.is_available()
        else kind
    )


LINE_SECONDS = 5.0


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

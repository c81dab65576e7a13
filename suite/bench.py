"""Speed beside accuracy: each point is judged, timed on fresh inputs, and its last timed output judged again.

    for each op, format, length, ...: for each kernel:
        evaluate() on the case's inputs    a kernel that does not pass gets no times
        time it on the inputs of the seeds behind the case's, put into the same memory in turn
        judge JUDGED_ROWS rows of the last timed output
        Measurement(kind="throughput") -> the run folder

docs/bench.md says what a number means.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from suite.case import Case
from suite.execution import evaluate, state
from suite.execution.host import exception_text
from suite.execution.hosts import Hosts
from suite.formats import Array, Format, get_format
from suite.judge import Judgement, as_tuple, check_output, judge_outputs
from suite.kernels import Kernel, load_kernels, own_kernels
from suite.known_failures import KnownFailure
from suite.ops import UPSTREAM, Op, get_op
from suite.ops.attention import Attention
from suite.ops.attention.definition import Queries
from suite.oracle import Oracle
from suite.oracle.cache import default_folder
from suite.records import Measurement, Record
from suite.store import Store
from suite.tensors import to_float64, to_torch
from suite.timing import cpu, cuda, machine, memory
from suite.timing.statistics import Timing
from suite.version import __version__

KIND = "throughput"
OPS = ("softmax", "log_softmax", "logsumexp", "cross_entropy", "attention")
"""What is measured where nobody names an op."""

JUDGED_ROWS = 64
"""Rows of the last timed output that are judged again."""

WHOLE = 2**21
"""Entries of logits up to which evaluate() judges all rows; beyond, JUDGED_ROWS of them."""

FRESH = 2
"""Sets of inputs, of the seeds behind the case's, that samples take in turn."""

FAMILIES = {"merge_states": "alike"}
"""Of the cases, where it is not "normal"."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {"cross_entropy": {"reduction": "none"}}
"""Of the cases: a loss for each row can be judged row by row."""

OPERATIONS = {"softmax": (5, 4), "log_softmax": (5, 4), "logsumexp": (4, 3), "cross_entropy": (4, 3), "merge_states": (5, 6)}
"""Floating-point operations of the definition for an entry, forward and backward: a comparison, subtraction, exponential,
addition and division (or subtraction) each count one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a profile measures. lengths: of rows; attention_lengths: of queries and keys. entries: of logits, about, whatever
    the length. head_sizes, causal: of attention. budget_seconds: for the samples of a point. slow: slow kernels too.
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
    """What is measured, in order: kernels side by side, so that they share inputs, references and the weather.

    kernels: by op. dtypes, lengths, shapes: in place of the plan's. Raises ValueError for a shape that an op cannot have.
    """
    return [
        Point(kernel, case, dtype)
        for op, chosen in kernels.items()
        for dtype in dtypes or plan.dtypes
        for case in cases(op, plan, direction=direction, lengths=lengths, shapes=shapes)
        for kernel in chosen
    ]


def cases(
    op: str, plan: Plan, *, direction: str = "forward", lengths: Sequence[int] = (), shapes: Sequence[tuple[int, ...]] = ()
) -> list[Case]:
    """The cases of an op. Raises ValueError, naming the shape, where one is of the wrong number of dims or empty."""
    settings: list[dict[str, Any]] = [dict(OPTIONS.get(op, {}))]
    if op == "attention":
        settings = [{"causal": causal} if causal else {} for causal in plan.causal]
    dims = 4 if op in ("attention", "merge_states") else 2
    for shape in shapes:
        if len(shape) != dims or min(shape) < 1:
            names = "BATCHxHEADSxLENGTHxSIZE" if dims == 4 else "ROWSxLENGTH"
            raise ValueError(f"--shape {'x'.join(map(str, shape))} is none of {op}: expected {names}, each at least 1")
    upstream = "normal" if direction == "backward" else ""
    return [
        Case(op=op, family=FAMILIES.get(op, "normal"), shape=shape, options=options, upstream=upstream)
        for options in settings
        for shape in shapes or _shapes(op, plan, lengths)
    ]


def _shapes(op: str, plan: Plan, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    if op == "attention":
        return [(1, HEADS, n, size) for size in plan.head_sizes for n in lengths or plan.attention_lengths]
    if op == "merge_states":
        return [(1, MERGE_HEADS, n, MERGE_SIZE) for n in lengths or plan.attention_lengths]
    return [(max(plan.entries // n, FEWEST_ROWS), n) for n in lengths or plan.lengths]


def default_kernels(ops: Sequence[str], *, slow: bool, device: str) -> dict[str, list[Kernel]]:
    """This suite's own kernels of these ops that run on the device; slow: those too that compile or interpret."""
    kind = device.split(":")[0]
    return {op: [k for k in own_kernels(op).values() if (slow or not k.slow) and kind in (k.devices or (kind,))] for op in ops}


def named_kernels(specifications: Sequence[str], ops: Sequence[str], hosts: Hosts, *, device: str) -> dict[str, list[Kernel]]:
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
                f"--kernel {specification!r} does not say what it computes: name one with --op ({', '.join(ops)}), "
                "or declare it with @kernel"
            )
        for kernel in found:
            chosen[kernel.op].append(kernel)
    return chosen


def check_device(device: str) -> None:
    """Raises ValueError where torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device!r} cannot be used: {reason}; expected cpu, cuda, cuda:1, ...") from None
    if torch.device(device).type not in ("cpu", "cuda"):
        raise ValueError(f"--device {device!r} has no clock here; expected cpu, cuda, cuda:1, ...")


class Bench:
    """Measures points on one device, one after the other. The number of threads is torch's present one."""

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
    ) -> None:
        self._device, self._hosts, self._oracle, self._store, self._env_id = device, hosts, oracle, store, env_id
        self._known, self._cache, self._target, self._budget_seconds = known, cache, target, budget_seconds
        self._on_cuda = device.startswith("cuda")
        self._copy_bytes_per_second: float | None = None
        self._matmul_operations_per_second: dict[str, float] = {}

    def measure(self, point: Point) -> tuple[Record, Measurement | None]:
        """The verdict on a point and its measurement, both stored; no measurement of what is unsupported.

        Never raises for the kernel's fault: what it raises while it is timed is the measurement's status.
        """
        kernel, case, dtype = point
        format = get_format(dtype)
        judged = _inputs(case.id, dtype)
        few = rows_of(case) if len(case.shape) == 2 and int(np.prod(case.shape)) > WHOLE else None
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
        data = self._about(point, record, {name: tuple(x.shape) for name, x in judged.items()})
        if record.status == "passed":
            data |= self._timed(point, format, first_seconds=record.seconds or 0.0)
            if few is not None:
                data["note"] = "; ".join(filter(None, (data["note"], f"judged on {len(few)} of {case.shape[0]} rows")))
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

    def _about(self, point: Point, record: Record, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """What a measurement holds without times."""
        case = point.case
        copy, matmul = self._best(point.dtype)
        return {
            "status": record.status,
            "ratio": record.ratio,
            "max_ulp": record.max_ulp,
            "digest": record.digest,
            "direction": case.direction,
            "shape": list(case.shape),
            "length": case.shape[2] if len(case.shape) == 4 else case.shape[-1],
            "bytes": least_bytes(case, get_format(point.dtype), shapes),
            "operations": operations(case),
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
            "note": "" if record.status == "passed" else record.message,
        }

    def _best(self, dtype: str) -> tuple[float, float]:
        """What this machine copies a second, and multiplies in this format: measured once."""
        if self._copy_bytes_per_second is None:
            self._copy_bytes_per_second = machine.copy_bytes_per_second(self._device)
        if dtype not in self._matmul_operations_per_second:
            self._matmul_operations_per_second[dtype] = machine.matmul_operations_per_second(self._device, dtype)
        return self._copy_bytes_per_second, self._matmul_operations_per_second[dtype]

    def _timed(self, point: Point, format: Format, *, first_seconds: float) -> dict[str, Any]:
        """The times of a kernel that passed; or the status of what went wrong with it after all, and no times.

        first_seconds: of the judged call, in which it was compiled.
        """
        kernel, case, dtype = point
        fresh = [replace(case, seed=case.seed + 1 + i) for i in range(FRESH)]
        sets = [_inputs(one.id, dtype) for one in fresh]
        try:
            with _strict_state():
                running = Running(timed_kernel(kernel), case, sets, format, self._device)
                peak = memory.peak_bytes(running, device=self._device) if kernel.adapter == "torch" else None
                timing = self._time(running)
                output = as_tuple(running.output)
            judgement = judge_rows(kernel, case, sets[-1], output, format, self._oracle)
        except UntimedError as error:
            return {"note": f"not timed: {error}"}
        except (MemoryError, torch.OutOfMemoryError) as error:
            self._release()
            return {"status": "out_of_memory", "note": exception_text(error)}
        except (Exception, SystemExit) as error:
            return {"status": "raised", "note": f"while it was timed: {exception_text(error)}"}
        if not judgement.passed:
            return {"status": judgement.status, "note": f"the last timed output: {judgement.message}"}
        return {
            "clock": timing.clock,
            "calls_per_sample": timing.calls_per_sample,
            "samples_seconds": list(timing.samples_seconds),
            "median_seconds": timing.median.value,
            "low_seconds": timing.median.low,
            "high_seconds": timing.median.high,
            "peak_bytes": peak,
            "compile_seconds": max(max(first_seconds, timing.first_seconds) - timing.median.value, 0.0),
            "overhead_seconds": timing.overhead_seconds,
            "note": timing.note,
            **(timing.details or {}),
        }

    def _time(self, running: Running) -> Timing:
        if self._on_cuda:
            return cuda.measure(
                running,
                device=self._device,
                prepare=running.load,
                sets=FRESH,
                target=self._target,
                budget_seconds=self._budget_seconds,
            )
        return cpu.measure(
            running,
            prepare=running.load,
            sets=FRESH,
            cache=self._cache,
            target=self._target,
            budget_seconds=self._budget_seconds,
            threads=torch.get_num_threads(),
        )

    def _release(self) -> None:
        """What a kernel that ran out of memory held is free for the next one."""
        if self._on_cuda:
            torch.cuda.empty_cache()


class UntimedError(Exception):
    """A kernel that can be judged and not timed; the text says why."""


class Running:
    """A call of a kernel with its tensors in place: load(i) puts the values of set i into them, output is the last one's.

    Of a case of the backward a call is the forward and the way back, as training has them.
    Raises UntimedError for a kernel whose arrays cannot be written to.
    """

    def __init__(
        self, kernel: Kernel, case: Case, sets: Sequence[Mapping[str, NDArray[Any]]], format: Format, device: str
    ) -> None:
        if kernel.adapter == "jax":
            raise UntimedError("arrays of JAX cannot be written to, so fresh inputs cannot take the place of others")
        op = get_op(case.op)
        op = op.of(sets[0])
        self._sets = [
            {name: to_torch(values, op.input_format(name, format), device) for name, values in one.items()} for one in sets
        ]
        self._tensors = {name: tensor.clone() for name, tensor in self._sets[0].items()}
        self._call = self._forward(kernel, case)
        if UPSTREAM in self._tensors:
            self._call = self._backward(self._call, case)
        self.output: Any = None

    def __call__(self) -> Any:
        self.output = None  # first, so that a call may take the memory of the last one's output
        self.output = self._call()
        return self.output

    def load(self, index: int) -> None:
        """Puts the values of a set into the memory that the kernel reads: what it has stored by address is stale."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(self._sets[index][name])

    def _forward(self, kernel: Kernel, case: Case) -> Callable[[], Any]:
        """The function with its arguments: what stands between a kernel and its call is decided once, outside the clock."""
        given = {name: tensor for name, tensor in self._tensors.items() if name not in get_op(case.op).upstreams}
        if UPSTREAM in self._tensors:
            for name in get_op(case.op).wanted(given):
                given[name].requires_grad_()
        arrays = given if kernel.adapter == "torch" else {name: tensor.numpy() for name, tensor in given.items()}
        positional, named = replace(kernel, call=_arguments)(arrays, options=case.resolved_options())
        return functools.partial(kernel.call, *positional, **named)

    def _backward(self, forward: Callable[[], Any], case: Case) -> Callable[[], Any]:
        op = get_op(case.op)
        leaves = [self._tensors[name] for name in op.wanted(self._tensors)]
        upstreams = [self._tensors[name] for name in op.upstreams if name in self._tensors]

        def both() -> Any:
            with torch.enable_grad():
                outputs = as_tuple(forward())
            return torch.autograd.grad(outputs, leaves, upstreams)

        return both


def _arguments(*positional: Any, **named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """In place of a kernel's function: what it would have been called with."""
    return positional, named


def timed_kernel(kernel: Kernel) -> Kernel:
    """The kernel in this process: one from outside was judged in a process of its own, where calls cannot be timed."""
    if not kernel.outside:
        return kernel
    return next(one for one in load_kernels(kernel.id, kernel.op) if one.id == kernel.id)


def judge_rows(
    kernel: Kernel,
    case: Case,
    inputs: Mapping[str, NDArray[Any]],
    output: tuple[Any, ...],
    format: Format,
    oracle: Oracle,
) -> Judgement:
    """Judges JUDGED_ROWS rows of an output, or all where there are fewer: of attention that many queries, against all keys; of
    its gradients those that the reference samples.
    """
    op, options = get_op(case.op).of(inputs), case.resolved_options()
    shapes = {name: tuple(values.shape) for name, values in inputs.items()}
    value = output if len(op.outputs(options)) > 1 or len(output) > 1 else output[0]
    if any(not isinstance(one, torch.Tensor) for one in output):
        output = tuple(torch.from_numpy(np.asarray(one)) for one in output)
        value = output[0]
    wrong = check_output(op, value, shapes, format.name, str(output[0].device), options)
    if wrong is not None:
        status, reason = wrong
        return Judgement(op=op.name, dtype=format.name, shape=case.shape, status=status, message=f"{status}: {reason}")
    if len(case.shape) == 2:
        rows = rows_of(case)
        inputs = _rows_taken(inputs, rows)
        output = tuple(one.detach()[torch.from_numpy(rows).to(one.device)] for one in output)
        shapes = {name: tuple(values.shape) for name, values in inputs.items()}
    elif type(op) is Attention:
        op = _SomeQueries(evenly(int(np.prod(case.shape[:3]))))
    references = oracle.references(op, inputs, options, format, semantics=kernel.semantics)
    values = [to_float64(one) for one in output]
    return judge_outputs(op, references, values, shapes, options, format, kernel.numerics, statistics=False)


class _SomeQueries(Attention):
    """attention of which only some queries, flat in [B, H, L], are judged."""

    def __init__(self, rows: NDArray[np.intp]) -> None:
        self._rows = rows

    def problem(self, inputs: Mapping[str, Array], options: Mapping[str, Any]) -> Queries:
        return self.queries(inputs, options, self._rows)


def rows_of(case: Case) -> NDArray[np.intp]:
    """The rows of a case of two dims that are judged where not all are."""
    return evenly(case.shape[0])


def evenly(count: int) -> NDArray[np.intp]:
    """JUDGED_ROWS numbers from 0 to count - 1, the first and the last among them, or all."""
    return np.unique(np.linspace(0, count - 1, min(count, JUDGED_ROWS)).round().astype(np.intp))


def _rows_taken(inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(values[rows]) for name, values in inputs.items()}


def least_bytes(case: Case, format: Format, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The least traffic of a call: each input read and each output written once, and of a backward, which begins with the
    forward, the inputs read again, the upstream gradients read and the gradients written.
    """
    op, options = get_op(case.op), case.resolved_options()
    forward = {name: shape for name, shape in shapes.items() if name not in op.upstreams}

    def size(name: str, of: Op) -> int:
        if name == "target" and case.target != "probabilities":
            return 8
        return of.input_format(name, format).bits // 8

    read = sum(int(np.prod(shape)) * size(name, op) for name, shape in forward.items())
    written = sum(
        int(np.prod(part.output_shape(forward, options))) * part.output_format(format).bits // 8 for part in op.outputs(options)
    )
    if not case.upstream:
        return read + written
    back = sum(int(np.prod(shapes[name])) * size(name, op) for name in op.upstreams if name in shapes)
    gradients = sum(int(np.prod(shapes[name])) * size(name, op) for name in op.differentiable if name in shapes)
    return read + written + read + back + gradients


def operations(case: Case) -> int:
    """Floating-point operations of the definition. Attention: of its matrix products alone, 2 (E + Ev) a pair of query and
    visible key, and for its backward, which computes the scores again, 6 E + 4 Ev more. Others: OPERATIONS an entry.
    """
    if case.op == "attention":
        sizes = case.sizes()
        pairs = sizes.batch * sizes.heads * visible_pairs(sizes.length, sizes.keys, case.resolved_options()["causal"])
        both = 2 * (sizes.head_size + sizes.value_size)
        return pairs * (both + (6 * sizes.head_size + 4 * sizes.value_size if case.upstream else 0))
    forward, backward = OPERATIONS[case.op]
    return int(np.prod(case.shape)) * (forward + (backward if case.upstream else 0))


def visible_pairs(length: int, keys: int, causal: str | None) -> int:
    """How many pairs of a query and a key that it sees a head has."""
    if causal is None:
        return length * keys
    last = np.arange(length) + (keys - length if causal == "bottom_right" else 0)  # the last key that each query sees
    return int(np.clip(last + 1, 0, keys).sum())


@functools.lru_cache(maxsize=4)
def _inputs(case_id: str, dtype: str) -> Mapping[str, NDArray[Any]]:
    """A case's inputs, which all kernels share in turn."""
    return Case.from_id(case_id).inputs(get_format(dtype))


@contextlib.contextmanager
def _strict_state() -> Iterator[None]:
    """Kernels are timed in the state in which they are judged: full precision, no gradients, subnormals kept."""
    outside = state.read()
    state.write(state.strict(outside), outside)
    try:
        yield
    finally:
        state.write(outside, state.read())


@contextlib.contextmanager
def device_lock(device: str, *, folder: Path | None = None) -> Iterator[None]:
    """One bench of a device at a time: two would time each other. The end of the process, however it comes, frees the device.

    Raises ValueError where another process of this user holds it, and under pytest-xdist, whose workers run side by side.
    """
    import fcntl

    if "PYTEST_XDIST_WORKER" in os.environ:
        raise ValueError("times of workers side by side are times of each other: run it without pytest-xdist (-n)")
    folder = folder or default_folder()
    path = folder / f"bench-{device.replace(':', '-')}.lock"
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
            raise ValueError(f"device {device} is being measured by process {holder}; two at once time each other") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


LINE_SECONDS = 5.0


def sweep(bench: Bench, wanted: Sequence[Point], say: Callable[[str], None]) -> Iterator[tuple[Record, Measurement | None]]:
    """The points one after the other, with a line on what is being done every LINE_SECONDS."""
    shown = time.monotonic()
    for number, point in enumerate(wanted):
        if time.monotonic() - shown > LINE_SECONDS:
            shown = time.monotonic()
            say(f"timing {number} of {len(wanted)}: {point.kernel.id} {point.dtype} {point.case.id}")
        yield bench.measure(point)

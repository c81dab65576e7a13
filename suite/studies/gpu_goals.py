"""What a GPU run measures beside the commands: the machine, our timer beside another, and our
kernels beside their goals.

    softmax-suite gpu-goals STAGE --device cuda --out FILE.json        STAGE: facts, timers, goals

Every goal is a ratio of two times of the same run, with the better of the two as 1: nothing is
compared with another day. A kernel whose output is wrong gets no time. On the CPU everything is
small and Triton is interpreted: that tests this file.
"""

from __future__ import annotations

import functools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from suite.formats import get_format
from suite.inputs.draws import Draw
from suite.kernels import own_kernels
from suite.kernels.attention.sdpa import REFUSALS
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op
from suite.oracle import Oracle
from suite.records.environment import probe
from suite.tensors import dtype_name, to_float64, to_numpy
from suite.timing import cpu, cuda, machine
from suite.verdict.judge import judge_outputs
from suite.verdict.tensors import as_tuple

TIMERS_AGREE = 0.02
"""How far our CUDA timer may be from triton.testing.do_bench."""

CPU_TIMERS_AGREE = 0.03
"""How far our CPU timer may be from torch.utils.benchmark."""

CANNOT_LOOK_FAST = 0.9
"""What a call that leaves its work on another stream must take at least, in times of one that does not."""

OF_COPY, OF_TORCH, OF_COPY_VOCABULARY, OF_BEST_BACKEND = 0.9, 1.0, 0.85, 0.6
LONGEST_WITHOUT_SPILLS = 32768
"""Rows of triton_fused that a program holds in its registers (docs/gpu.md)."""

BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
ROUNDS = 5
ORACLE = Oracle()
"""It remembers: many candidates of a kernel are judged on the same inputs."""

JUDGED_ROWS = 16
"""Rows of an output that are judged; all of softmax's rows repeat them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is measured. rows, lengths: of softmax; vocabulary: rows and length. attention: B, H, L,
    E. matrix: rows of a square one. budget_seconds: of a timing. triton: what the names of Triton's
    kernels end with.
    """

    rows: int
    lengths: tuple[int, ...]
    vocabulary: tuple[int, int]
    attention: tuple[int, int, int, int]
    matrix: int
    budget_seconds: float
    triton: str


ON_CUDA = Sizes(
    rows=8192,
    lengths=(1024, 4096, 16384, 65536),
    vocabulary=(4096, 128256),
    attention=(1, 16, 8192, 128),
    matrix=8192,
    budget_seconds=0.5,
    triton="",
)
ON_CPU = Sizes(
    rows=32,
    lengths=(64, 256),
    vocabulary=(16, 1000),
    attention=(1, 1, 64, 32),
    matrix=128,
    budget_seconds=0.05,
    triton="_interpreter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: what was measured, and the goal where there is one; met: None where
    there is none.
    """

    what: str
    measured: float | None
    unit: str
    goal: float | None = None
    met: bool | None = None
    note: str = ""


def at_least(what: str, measured: float, goal: float, *, note: str = "") -> Row:
    """A ratio that is to be `goal` at least."""
    return Row(what=what, measured=measured, unit="", goal=goal, met=measured >= goal, note=note)


def unusable(device: str) -> str:
    """Why nothing can be measured on a device, to follow its name; "" where it can."""
    if device == "cpu":
        return ""
    found = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if not found:
        return " is not one of cuda, cuda:N, cpu"
    count = torch.cuda.device_count()
    if not count:
        return ": torch finds no CUDA device here"
    return f": torch finds {count} CUDA devices here, from cuda:0" if int(found[1] or 0) >= count else ""


def on_device(device: str) -> AbstractContextManager[Any]:
    """Makes a CUDA device the current one inside: events and streams are the current device's,
    whatever a tensor's is.
    """
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def sizes_of(device: str) -> Sizes:
    return ON_CUDA if device.startswith("cuda") else ON_CPU


def facts(device: str) -> Iterator[Row]:
    """What the machine can do at best."""
    yield Row(what="copy", measured=machine.copy_bytes_per_second(device) / 1e9, unit="GB/s")
    for dtype in ("bfloat16", "float32"):
        rate = machine.matmul_operations_per_second(device, dtype)
        yield Row(what=f"matmul {dtype}", measured=rate / 1e12, unit="TFLOP/s")


def timers(device: str) -> Iterator[Row]:
    """Our timer beside another, taking turns; on CUDA also a call that leaves its work on another stream."""
    sizes = sizes_of(device)
    x = repeated("timers", (sizes.rows, sizes.lengths[-2]), device)
    matrix = repeated("timers", (sizes.matrix, sizes.matrix), device)
    target, product = torch.empty_like(x), torch.empty_like(matrix)
    calls: dict[str, Callable[[], Any]] = {
        "copy": lambda: target.copy_(x),
        "softmax": lambda: torch.softmax(x, -1),
        "matmul": lambda: torch.mm(matrix, matrix, out=product),
    }
    other, goal = (of_triton, TIMERS_AGREE) if device.startswith("cuda") else (of_torch, CPU_TIMERS_AGREE)
    for name, call in calls.items():
        ratios = [seconds(call, device) / other(call) for _ in range(ROUNDS)]
        ratio = statistics.median(ratios)
        yield Row(
            what=f"our timer / {other.__name__.removeprefix('of_')}'s, {name}",
            measured=ratio,
            unit="",
            goal=goal,
            met=abs(ratio - 1) <= goal,
            note=f"within {goal:.0%} of 1; {ROUNDS} rounds from {min(ratios):.3f} to {max(ratios):.3f}",
        )
    if device.startswith("cuda"):
        yield hidden_work(calls["matmul"], device)


def hidden_work(call: Callable[[], Any], device: str) -> Row:
    """A mutant: the work goes to a stream of its own, and the call returns without waiting for it."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def hidden() -> None:
        with torch.cuda.stream(side):
            call()

    honest = seconds(call, device)
    by_events = statistics.median(cuda.event_seconds(hidden, device) for _ in range(ROUNDS))
    return at_least(
        "unsynchronised / honest, by our timer",
        seconds(hidden, device) / honest,
        CANNOT_LOOK_FAST,
        note=f"events alone would say {by_events / honest:.3f}",
    )


def of_triton(call: Callable[[], Any]) -> float:
    """Seconds of a call by triton.testing.do_bench."""
    from triton.testing import do_bench

    return float(do_bench(call, return_mode="median")) * 1e-3


def of_torch(call: Callable[[], Any]) -> float:
    """Seconds of a call by torch.utils.benchmark."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=ON_CPU.budget_seconds).median)


def goals(device: str) -> Iterator[Row]:
    """The kernels that have a goal, those of the rows first."""
    copy = machine.copy_bytes_per_second(device)
    sizes = sizes_of(device)
    one = functools.partial(of_rows, device=device, copy=copy)
    for length in sizes.lengths:
        names = ("triton_fused", "triton_online") if length > LONGEST_WITHOUT_SPILLS else ("triton_fused",)
        yield from attempted(one, (sizes.rows, length), names, goal=OF_COPY, beside_torch=OF_TORCH)
    yield from attempted(one, sizes.vocabulary, ("triton_online", "triton_split"), goal=OF_COPY_VOCABULARY)
    for causal in (None, "top_left"):
        yield from attempted(of_attention, causal, device)


def attempted(measure: Callable[..., Iterable[Row]], *arguments: Any, **named: Any) -> Iterator[Row]:
    """The rows of a measurement; where it raises, one that says so, and the next measurement goes on."""
    try:
        yield from measure(*arguments, **named)
    except Exception as error:  # a kernel's compiler, a lack of memory, a fault of the device
        what = f"{' '.join(map(str, arguments))}: {type(error).__name__}"
        yield Row(what=what, measured=None, unit="", met=False, note=(str(error).splitlines() or [""])[0])


def of_rows(
    shape: tuple[int, int],
    names: Sequence[str],
    *,
    device: str,
    copy: float,
    goal: float,
    beside_torch: float | None = None,
) -> Iterator[Row]:
    """softmax of bfloat16: its bytes over those that a copy moves in its time, and torch's time over its own.

    copy: bytes a second. goal: of the first ratio, for the fastest of the kernels; beside_torch: of
    the second.
    """
    rows, length = shape
    x = repeated(f"goals|{length}", shape, device)
    few = x[: min(rows, JUDGED_ROWS)]
    found, wrong = dict[str, float](), list[str]()
    for name in names:
        kernel = own_kernels("softmax")[name + sizes_of(device).triton].call
        y = kernel(x)
        message = failure("softmax", {"x": few}, y[-len(few) :], {})
        if not message and not torch.equal(
            y.reshape(-1, *few.shape), y[: len(few)].expand(rows // len(few), -1, -1)
        ):
            message = "equal rows have unlike bits"
        if message:
            wrong.append(f"{name}: {message}")
        else:
            found[name] = seconds(lambda kernel=kernel: kernel(x), device)  # type: ignore[misc]
    what = f"softmax {rows} x {length} bfloat16"
    if not found:
        yield Row(
            what=f"{what}: of copy", measured=None, unit="", goal=goal, met=False, note="; ".join(wrong)
        )
        return
    best = min(found, key=found.__getitem__)
    moved = 2 * x.numel() * x.element_size()
    target = torch.empty_like(x)
    same = seconds(lambda: target.copy_(x), device)
    notes = [f"{name} {time * 1e6:.1f} us" for name, time in found.items()]
    notes += [f"a copy of this size {same * 1e6:.1f} us", *wrong]
    yield at_least(f"{what}: of copy", moved / found[best] / copy, goal, note="; ".join(notes))
    # `copy` is of a gigabyte: a small one does not reach it, as a time of a few microseconds has a
    # launch in it.
    yield Row(what=f"{what}: of a copy of this size", measured=same / found[best], unit="")
    theirs = seconds(lambda: torch.softmax(x, -1), device)
    beside = Row(what=f"{what}: torch's time / ours", measured=theirs / found[best], unit="")
    yield beside if beside_torch is None else at_least(beside.what, theirs / found[best], beside_torch)


def of_attention(causal: str | None, device: str) -> Iterator[Row]:
    """Attention's forward: the time of torch's fastest backend over ours. The last queries of the
    last head are judged.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = sizes_of(device).attention
    q, k, v = (normal(f"goals|{name}", shape, device) for name in "qkv")
    what = (
        f"attention {'x'.join(map(str, shape))} bfloat16 {'causal' if causal else 'full'}: best backend's"
        " time / ours"
    )
    kernel = own_kernels("attention")[f"triton_flash{sizes_of(device).triton}"].call
    output = as_tuple(kernel(q, k, v, causal=causal))[0]
    last = {"q": q[:, -1:, -JUDGED_ROWS:], "k": k[:, -1:], "v": v[:, -1:]}
    message = failure(
        "attention", last, output[:, -1:, -JUDGED_ROWS:], {"causal": "bottom_right" if causal else None}
    )
    if message:
        yield Row(what=what, measured=None, unit="", goal=OF_BEST_BACKEND, met=False, note=message)
        return

    def theirs() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal is not None)

    found, failed = dict[str, float](), list[str]()
    for name in BACKENDS:
        with sdpa_kernel(getattr(SDPBackend, name)):
            try:
                found[name] = seconds(theirs, device)
            except RuntimeError as error:
                if not str(error).startswith(REFUSALS):
                    failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    if not found:
        raise NotImplementedError("; ".join(["no backend of torch takes the call", *failed]))
    ours, best = seconds(lambda: kernel(q, k, v, causal=causal), device), min(found, key=found.__getitem__)
    batch, heads, length, size = shape
    operations = 4 * batch * heads * length * length * size / (2 if causal else 1)
    notes = [f"{operations / ours / 1e12:.1f} TFLOP/s; best: {best}", f"ours {ours * 1e3:.3f} ms"]
    notes += [*(f"{name} {time * 1e3:.3f} ms" for name, time in found.items()), *failed]
    yield at_least(what, found[best] / ours, OF_BEST_BACKEND, note="; ".join(notes))


def failure(op: str, inputs: Mapping[str, torch.Tensor], output: Any, options: Mapping[str, Any]) -> str:
    """Why an output, or one of several, is wrong; "" where it is right. With an upstream gradient:
    of the backward.
    """
    definition = get_op(op).of(inputs)
    dtype = get_format(dtype_name(next(iter(inputs.values()))))
    shapes = {name: tuple(x.shape) for name, x in inputs.items()}
    resolved = definition.resolve_options(options, shapes)
    references = ORACLE.references(
        definition, {name: to_numpy(x) for name, x in inputs.items()}, resolved, dtype
    )
    outputs = [to_float64(one) for one in as_tuple(output)]
    judgement = judge_outputs(
        definition, references, outputs, shapes, resolved, dtype, BEST_PRACTICE, statistics=False
    )
    return "" if judgement.passed else judgement.message.splitlines()[0]


def normal(key: str, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Standard normal numbers in bfloat16, the same on every machine."""
    return torch.from_numpy(Draw(key).normal(*shape)).bfloat16().to(device)


def repeated(key: str, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Rows of such numbers, JUDGED_ROWS of them over and over: drawing them all would take longer
    than all else here.
    """
    rows, length = shape
    few = normal(key, (min(rows, JUDGED_ROWS), length), device)
    return few.repeat(-(-rows // len(few)), 1)[:rows]


def seconds(call: Callable[[], Any], device: str) -> float:
    """The median by our own timer."""
    budget = sizes_of(device).budget_seconds
    if device.startswith("cuda"):
        return cuda.measure(call, device=device, budget_seconds=budget).median.value
    return cpu.measure(call, budget_seconds=budget).median.value


STAGES: dict[str, Callable[[str], Iterator[Row]]] = {"facts": facts, "timers": timers, "goals": goals}


def write_rows(stage: str, device: str, out: Path, *, say: Callable[[str], None]) -> None:
    """Measures one stage and writes what it found after every row, so that an end before its time
    leaves the rest.
    """
    rows = list[dict[str, Any]]()
    with torch.no_grad(), on_device(device):
        for row in STAGES[stage](device):
            rows.append(asdict(row))
            text = json.dumps({"environment": probe(device), "rows": rows}, indent=1)
            out.write_text(text, encoding="utf-8")
            say(f"{row.what} {row.measured} {row.unit} {row.note}")

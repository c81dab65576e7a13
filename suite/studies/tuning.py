"""Times configurations of the Triton kernels and stores the fastest for this device.

    for each kernels: for the stored configuration and each candidate, the nearest to it first, all
    in this process: time every shape, and judge the output of what is the fastest so far

The one with the smallest geometric mean of its times over the stored one's is kept, where it gains
GAIN when both are timed again in turns: the fastest of many is the luckiest too. After a fault of
the device nothing is kept of its kernels, and the program ends, as all that follows in this process
would fail. FILE holds all entries, with this device's rewritten after each kernel; in the place of
suite/kernels/parts/triton_configurations.json it counts.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite.kernels import own_kernels
from suite.kernels.parts.triton_configuration import (
    FILE,
    Configuration,
    configuration,
    names_of,
    read,
    trying,
)
from suite.ops import get_op
from suite.studies.gpu_goals import JUDGED_ROWS, failure, normal, on_device, repeated, seconds

GAIN = 0.02
"""The least share of the stored one's time that a candidate must save: less is noise."""

ROUNDS = 3
"""In which the fastest candidate and the stored one take turns."""

CANDIDATES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "fused": {"entries": (1024, 2048, 4096, 8192), "entries_per_warp": (256, 512, 1024, 2048)},
    "online": {"block": (1024, 4096, 8192, 16384, 32768), "entries": (16384,), "warps": (4, 8, 16, 32)},
    "split": {
        "shortest_part": (1024, 4096, 8192),
        "most_parts": (1024,),
        "entries": (4096, 8192),
        "warps": (4, 8, 16),
    },
    "rows": {"entries": (1024, 2048, 4096, 8192), "warps": (4, 8, 16)},
    "attention": {"queries": (32, 64), "keys": (32, 64), "warps": (4, 8), "stages": (1, 2)},
    "attention_backward": {"queries": (32, 64), "keys": (32, 64), "warps": (4, 8), "stages": (1, 2)},
    "attention_16_bit": {"queries": (64, 128), "keys": (32, 64, 128), "warps": (4, 8), "stages": (2, 3, 4)},
    "attention_backward_16_bit": {
        "queries": (32, 64, 128),
        "keys": (32, 64, 128),
        "warps": (4, 8),
        "stages": (1, 2, 3),
    },
}
"""Kernels -> parameter -> values: every combination is a candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is timed. name: of a kernel of `op` that has the configuration. shapes: of rows, or of
    attention's q. format: of the tensors.
    """

    op: str
    name: str
    shapes: tuple[tuple[int, ...], ...]
    backward: bool = False
    format: torch.dtype = torch.bfloat16


ROWS, VOCABULARY, ATTENTION = (
    ((8192, 1024), (8192, 4096), (8192, 32768)),
    ((4096, 128256),),
    ((1, 16, 4096, 128),),
)
ON_CUDA = {
    "fused": Work(op="softmax", name="triton_fused", shapes=ROWS),
    "online": Work(op="softmax", name="triton_online", shapes=VOCABULARY),
    "split": Work(op="softmax", name="triton_split", shapes=VOCABULARY),
    "rows": Work(op="log_softmax", name="triton_fused", shapes=ROWS),
    "attention": Work(op="attention", name="triton_flash", shapes=ATTENTION, format=torch.float32),
    "attention_backward": Work(
        op="attention", name="triton_flash", shapes=ATTENTION, backward=True, format=torch.float32
    ),
    "attention_16_bit": Work(op="attention", name="triton_flash", shapes=ATTENTION),
    "attention_backward_16_bit": Work(op="attention", name="triton_flash", shapes=ATTENTION, backward=True),
}
ON_CPU = {
    name: Work(
        op=work.op,
        name=f"{work.name}_interpreter",
        shapes=((4, 256),) if get_op(work.op).of_rows else ((1, 1, 32, 16),),
        backward=work.backward,
        format=(
            torch.float16 if name.endswith("16_bit") else work.format
        ),  # the interpreter's bfloat16 is float32
    )
    for name, work in ON_CUDA.items()
}


def candidates(values: Mapping[str, Sequence[int]]) -> Iterator[dict[str, int]]:
    """Every combination of the values of each parameter."""
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def nearest_first(tried: Iterable[Configuration], stored: Configuration) -> list[Configuration]:
    """By how often a parameter must be doubled or halved to come from the stored one, which is left
    out: it was chosen with care, so what is near is likely, and the time may not suffice for all.
    """

    def distance(one: Configuration) -> float:
        return sum(abs(math.log2(one[name] / value)) for name, value in stored.items())

    return sorted((one for one in tried if one != stored), key=distance)


class DeviceLostError(RuntimeError):
    """A candidate after which the device no longer answers this process."""


def lost(device: str) -> str:
    """Why a device no longer answers; "" where it does."""
    if not device.startswith("cuda"):
        return ""
    try:
        torch.ones(1, device=device).item()
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trials:
    """The work of one kernels' configurations on one device."""

    kernels: str
    work: Work
    device: str
    tensors: Sequence[torch.Tensor]

    def times(self, candidate: Configuration) -> list[float] | str:
        """The seconds of each tensor, or why there are none."""
        return self._each(candidate, lambda _, call: seconds(call, self.device))

    def wrong(self, candidate: Configuration) -> str:
        """Why an output is wrong, or there is none; "" where all are right."""
        found = self._each(candidate, lambda x, call: _wrong(self.work, x, call()))
        return found if isinstance(found, str) else next(filter(None, found), "")

    def _each(
        self, candidate: Configuration, measure: Callable[[torch.Tensor, Callable[[], Any]], Any]
    ) -> list[Any] | str:
        """What `measure` gives for each tensor and its call; or why there is nothing."""
        try:
            with trying(self.kernels, candidate):
                return [measure(x, _call(self.work, x)) for x in self.tensors]
        except Exception as error:  # its compiler's, or too little shared memory or registers for it
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
            if why := lost(self.device):
                raise DeviceLostError(
                    f"{self.kernels} {dict(candidate)}: {reason}; the device no longer answers: {why}"
                ) from None
            return reason


def tune(
    kernels: str,
    work: Work,
    tried: Sequence[Configuration],
    device: str,
    *,
    say: Callable[[str], None],
    until: float = math.inf,
) -> Configuration:
    """The fastest of the stored configuration and those tried, until a time of the monotonic clock.

    One that does not compile, or whose output is wrong, is not taken. Raises RuntimeError where
    that holds of the stored one, and DeviceLostError where the device does not answer after a
    candidate.
    """
    stored = configuration(kernels, torch.device(device))
    draw = repeated if get_op(work.op).of_rows else normal
    tensors = [draw(f"tune|{kernels}", shape, device).to(work.format) for shape in work.shapes]
    trials = _Trials(kernels=kernels, work=work, device=device, tensors=tensors)
    first = trials.wrong(stored) or trials.times(stored)
    if isinstance(first, str):
        raise RuntimeError(f"{kernels}: the stored configuration {dict(stored)}: {first}")
    best, least = stored, 1.0
    for number, candidate in enumerate(tried):
        if time.monotonic() > until:
            say(f"{kernels}: its time is over; of {len(tried)} candidates {len(tried) - number} are left")
            break
        found = trials.times(candidate)
        ratio = math.inf if isinstance(found, str) else geometric_mean(found, first)
        what = found if isinstance(found, str) else f"{ratio:.3f} of the stored time"
        say(f"{kernels} {dict(candidate)}: {what}")
        if ratio < least:
            if message := trials.wrong(candidate):
                say(f"{kernels} {dict(candidate)}: {message}")
            else:
                best, least = candidate, ratio
    if best is stored:
        return stored
    again = _in_turns(trials.times, best, stored)
    say(f"{kernels} {dict(best)}: {again:.3f} of the stored time, taking turns")
    return best if again <= 1 - GAIN else stored


def _in_turns(
    times: Callable[[Configuration], list[float] | str], one: Configuration, stored: Configuration
) -> float:
    """The time of a configuration over the stored one's, timed again in turns: the fastest of many is
    the luckiest too. Infinite where one of them has no time.
    """
    rounds = [(times(one), times(stored)) for _ in range(ROUNDS)]
    return statistics.median(
        math.inf if isinstance(a, str) or isinstance(b, str) else geometric_mean(a, b) for a, b in rounds
    )


def geometric_mean(times: Sequence[float], others: Sequence[float]) -> float:
    """Of the ratios of times."""
    return math.exp(statistics.fmean(math.log(a / b) for a, b in zip(times, others, strict=True)))


def _call(work: Work, x: torch.Tensor) -> Callable[[], Any]:
    """The kernel on a tensor; attention is causal, of one tensor three times. With the way back: of
    an upstream gradient that is 0 but for the last queries, so that they alone decide all
    gradients.
    """
    kernel = own_kernels(work.op)[work.name].call
    if get_op(work.op).of_rows:
        return lambda: kernel(x)
    if not work.backward:
        return lambda: kernel(x, x, x, causal="top_left")
    q, k, v = (x.clone().requires_grad_() for _ in range(3))
    upstream = torch.zeros_like(x)
    upstream[:, :, -JUDGED_ROWS:] = x[:, :, -JUDGED_ROWS:]

    def both() -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            return torch.autograd.grad(kernel(q, k, v, causal="top_left"), (q, k, v), upstream)

    return both


def _wrong(work: Work, x: torch.Tensor, output: Any) -> str:
    """Why an output is wrong, by its last rows, or queries of the last head; "" where it is right."""
    if get_op(work.op).of_rows:
        return failure(work.op, {"x": x[-JUDGED_ROWS:]}, output[-JUDGED_ROWS:], {})
    head = x[:, -1:]
    last = head[:, :, -JUDGED_ROWS:]
    inputs = {"q": last, "k": head, "v": head}
    if not work.backward:
        return failure(work.op, inputs, output[:, -1:, -JUDGED_ROWS:], {"causal": "bottom_right"})
    d_q, d_k, d_v = (gradient[:, -1:] for gradient in output)
    gradients = (d_q[:, :, -JUDGED_ROWS:], d_k, d_v)
    return failure(work.op, {**inputs, "upstream": last}, gradients, {"causal": "bottom_right"})


def write(path: Path, device: str, kernels: str, chosen: Configuration) -> None:
    """Puts a configuration into this device's entry of a file; one that is not there begins as the
    package's.
    """
    entries: dict[str, Any] = read(path if path.exists() else FILE)
    entries.setdefault(names_of(torch.device(device))[0], {})[kernels] = dict(chosen)
    lines = ",\n".join(
        f' "{name}": {{\n'
        + ",\n".join(f'  "{one}": {json.dumps(found)}' for one, found in entry.items())
        + "\n }"
        for name, entry in entries.items()
    )
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def tune_all(
    wanted: Sequence[str], out: Path, device: str, *, budget_seconds: float, say: Callable[[str], None]
) -> bool:
    """Tunes these kernels and writes each one's configuration into a file; each has a share of the
    budget by its number of candidates. False after a fault of the device, with what is left said.

    Raises ValueError for an invalid file, before anything is tuned, and RuntimeError where the
    stored configuration of a kernel does not work.
    """
    read(out if out.exists() else FILE)
    works = ON_CUDA if device.startswith("cuda") else ON_CPU
    tried = {
        kernels: nearest_first(candidates(CANDIDATES[kernels]), configuration(kernels, torch.device(device)))
        for kernels in wanted
    }
    end = time.monotonic() + budget_seconds
    with on_device(device):
        for number, kernels in enumerate(wanted):
            share = len(tried[kernels]) / max(sum(len(tried[one]) for one in wanted[number:]), 1)
            until = time.monotonic() + (end - time.monotonic()) * share
            try:
                chosen = tune(kernels, works[kernels], tried[kernels], device, say=say, until=until)
            except DeviceLostError as fault:
                say(str(fault))
                say("left: " + " ".join(f"--kernels {one}" for one in wanted[number:]))
                return False
            write(out, device, kernels, chosen)
            say(f"{kernels}: {dict(chosen)}")
    return True

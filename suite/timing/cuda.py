"""Times of a call on a CUDA device: events on its stream, the L2 cache flushed before each, the
whole device waited for.

    first call -> warm-up -> do events see the work? -> samples by events -> the same from a graph,
    where the call is short

Kernels are launched asynchronously: a clock on the host that does not wait sees the launch alone,
and so do events where the work runs on another stream. So the first question is whether the device
is still busy once the events are over; if it is, the host's clock is taken instead, with the device
waited for before and after. Nothing of the device's settings is changed.
"""

from __future__ import annotations

import importlib
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from suite.timing.statistics import Timing, sample_until_narrow

WARM_UP_CALLS = 3
WARM_UP_SECONDS = 0.05
"""Clocks rise under load: calls go on for at least so long before the first sample."""

L2_TIMES = 2
LEAST_FLUSH_BYTES = 64 * 2**20

PROBES = 5
UNSEEN_SECONDS, UNSEEN_SHARE = 30e-6, 0.1
"""How much longer than an idle device's answer, and than the events' own time, the device may be
busy after the last event.
"""

SMALL_SECONDS = 1e-3
"""Calls below this are replayed from a graph: a launch from Python takes tens of microseconds,
longer than the flush before it keeps the device busy, and would be in their time.
"""

LAUNCH_BOUND = 1.25
"""Calls one after the other that take so many times as long each as from a graph are marked launch-bound."""

BACK_TO_BACK = 20


ELSEWHERE = (
    "works on other streams, which events do not see: the host's clock, the device waited for before and"
    " after"
)
"""The note of a timing by the host's clock."""


Take = Callable[[Callable[[], Any], str], float]
"""(call, device) -> the seconds of one call."""


def measure(
    call: Callable[[], Any],
    *,
    device: str,
    prepare: Callable[[int], None] | None = None,
    sets: int = 1,
    target: float = 0.01,
    budget_seconds: float = 1.0,
) -> Timing:
    """The timing of call(), which launches its work on the current stream of `device`. Raises
    whatever the call raises.

    prepare, sets, target, budget_seconds: as in suite.timing.cpu.measure. The L2 cache is always
    flushed. details of the timing: the device's clocks, power, temperature and reasons of
    throttling before and after, where nvidia-ml-py is installed; launch_bound; eager_seconds, of a
    call among others without a graph and without a flush, which would hide its launch.
    """
    import torch

    prepare = prepare or (lambda _: None)
    with torch.cuda.device(device):
        before = device_state(device)
        flush = Flush(device)
        prepare(0)
        first = synchronized_seconds(call, device)
        once = _warmed_up(call, device)
        take, clock, note = event_seconds, "cuda_event", ""
        if works_elsewhere(call, device):
            take, clock, note = synchronized_seconds, "perf_counter", ELSEWHERE

        def samples_of(timed: Callable[[], Any], take: Take) -> tuple[float, ...]:
            def sample(index: int) -> float:
                prepare(index % sets)
                flush()
                return take(timed, device)

            found = sample_until_narrow(
                sample, now=time.perf_counter, target=target, budget_seconds=budget_seconds, together=sets
            )
            return tuple(found)

        timing = Timing(
            samples_seconds=samples_of(call, take),
            clock=clock,
            cache="flushed",
            calls_per_sample=1,
            first_seconds=first,
            note=note,
            details={"device_before": before, "launch_bound": False},
        )
        if clock == "cuda_event" and once < SMALL_SECONDS:
            eager = back_to_back_seconds(call, device)  # before the capture, whose output is the last call's
            captured = graph_of(call)
            if captured is not None:
                replay, output = captured
                timing = by_graph(timing, samples_of(replay, event_seconds), eager)
                spoil(output)
                replay()  # so that the output is of a replay, all of it
        return replace(timing, details={**(timing.details or {}), "device_after": device_state(device)})


def event_seconds(call: Callable[[], Any], device: str) -> float:
    """Seconds between two events on the current stream around the call. What was queued before,
    such as a flush, is outside.
    """
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3


def synchronized_seconds(call: Callable[[], Any], device: str) -> float:
    """Seconds of the host's clock from an idle device to an idle device: launch and waiting are in them."""
    import torch

    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def works_elsewhere(call: Callable[[], Any], device: str) -> bool:
    """Whether the device is still busy when the events around the call are over: then they do not
    see all of its work.
    """
    import torch

    torch.cuda.synchronize(device)
    idle, late, seen = [], [], []
    for _ in range(PROBES):
        begin = time.perf_counter()
        torch.cuda.synchronize(device)
        idle.append(time.perf_counter() - begin)
        seen.append(event_seconds(call, device))
        begin = time.perf_counter()
        torch.cuda.synchronize(device)
        late.append(time.perf_counter() - begin)
    return unseen(statistics.median(late), statistics.median(idle), statistics.median(seen))


def unseen(late: float, idle: float, seen: float) -> bool:
    """late, idle: seconds until the device answers after the events, and when it has nothing to do.
    seen: the events' own.
    """
    return late - idle > max(UNSEEN_SECONDS, UNSEEN_SHARE * seen)


def graph_of(call: Callable[[], Any]) -> tuple[Callable[[], None], Any] | None:
    """A function that replays the call's kernels without launching them one by one, and the output
    that it fills; None where they cannot be captured, or where nothing was.

    The inputs are read where they lie, so fresh ones are copied there.
    """
    import torch

    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*graph is empty", category=UserWarning)
            with torch.cuda.graph(graph):
                output = call()
    except (
        RuntimeError,
        UserWarning,
    ):  # it waits for the device, copies from the host, asks for a value, or does nothing here
        torch.cuda.synchronize()
        call()  # so that what the call left last is of a call, not of half a capture
        return None
    return graph.replay, output


def spoil(output: Any) -> None:
    """Fills an output's tensors of numbers with NaN: what a replay does not write shows."""
    import torch

    for one in output if isinstance(output, tuple | list) else (output,):
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            one.detach().fill_(torch.nan)


OCCUPIED_CYCLES = 4_000_000
"""Some 2 ms: longer than Python takes to launch a few calls."""


def occupy(device: str) -> None:
    """Keeps the current stream busy: what is launched on it next waits, and what is launched on
    another one does not.
    """
    import torch

    with torch.cuda.device(device):
        torch.cuda._sleep(OCCUPIED_CYCLES)  # type: ignore[no-untyped-call]


def back_to_back_seconds(call: Callable[[], Any], device: str) -> float:
    """Seconds per call of several, one after the other: what is longer counts, the work or its launch."""
    return event_seconds(lambda: [call() for _ in range(BACK_TO_BACK)], device) / BACK_TO_BACK


def by_graph(timing: Timing, samples: tuple[float, ...], eager_seconds: float) -> Timing:
    """The timing of a graph's samples, marked where calls one after the other take longer: then
    Python keeps them waiting.
    """
    graph = replace(timing, samples_seconds=samples, clock="cuda_graph")
    bound = eager_seconds > LAUNCH_BOUND * graph.median.value
    note = (
        f"launch-bound: {eager_seconds * 1e6:.1f} us a call when launched from Python"
        if bound
        else timing.note
    )
    return replace(
        graph,
        note=note,
        details={**(timing.details or {}), "launch_bound": bound, "eager_seconds": eager_seconds},
    )


def _warmed_up(call: Callable[[], Any], device: str) -> float:
    """The shortest of several calls by events, in seconds."""
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < WARM_UP_CALLS or time.perf_counter() - begin < WARM_UP_SECONDS:
        seconds.append(event_seconds(call, device))
    return min(seconds)


class Flush:
    """Writes a buffer of at least twice the L2 cache on the current stream, before the events."""

    def __init__(self, device: str) -> None:
        import torch

        l2 = int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0))
        size = max(L2_TIMES * l2, LEAST_FLUSH_BYTES)
        self._buffer = torch.empty(size, dtype=torch.uint8, device=device)

    def __call__(self) -> None:
        self._buffer.zero_()


def device_state(device: str) -> dict[str, Any] | None:
    """Clocks, power, temperature and what throttles the device, only read; None where nvidia-ml-py
    is not there or fails.
    """
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return _read_state(pynvml, device)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def _read_state(pynvml: Any, device: str) -> dict[str, Any]:
    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"  # NVML counts devices that CUDA may not see
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return {
        "sm_clock_megahertz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_megahertz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "power_watts": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "temperature_celsius": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "throttling": throttling(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
    }


THROTTLING = {
    0x02: "applications clocks setting",
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's reasons, as nvml.h names them; idle (0x01) throttles nothing."""


def throttling(reasons: int) -> list[str]:
    """The reasons of NVML's mask, in words."""
    return [text for bit, text in THROTTLING.items() if reasons & bit]

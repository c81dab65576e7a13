"""Times of a call on the CPU: the monotonic clock, so many calls a sample that the clock is fine
enough, the median of many.

    first call (alone) -> warm-up -> calls per sample -> overhead of an empty function -> samples
    until the interval is narrow

Caches are warm: the same inputs again, written or read just before; or flushed: a buffer twice as
large as the last-level cache is written before every call, outside the clock.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from suite.timing.statistics import Timing, sample_until_narrow

Cache = Literal["warm", "flushed"]
CACHES: tuple[Cache, ...] = ("warm", "flushed")
Clock = Callable[[], int]
"""Nanoseconds of a monotonic clock."""

SAMPLE_SECONDS = 1e-3
"""The least length of a sample: an interruption of 10 microseconds is 1 % of it, and reading the
clock 0.01 %.
"""

RESOLUTIONS = 1000
"""A sample is at least so many times as long as the clock is fine."""

WARM_UP_SECONDS = 0.02
WARM_UP_CALLS = 2
MOST_CALLS = 100_000
"""In a sample, which an empty function would fill without end."""

UNKNOWN_CACHE_BYTES = 64 * 2**20
"""The last-level cache where the system does not tell."""


def measure(
    call: Callable[[], Any],
    *,
    prepare: Callable[[int], None] | None = None,
    sets: int = 1,
    cache: Cache = "warm",
    target: float = 0.01,
    budget_seconds: float = 1.0,
    clock: Clock = time.perf_counter_ns,
    flush: Callable[[], None] | None = None,
    threads: int = 1,
) -> Timing:
    """The timing of call(), called on this thread. Raises ValueError for another cache state, and
    whatever the call raises.

    prepare: called with 0 to sets - 1 in turn, before every sample and outside the clock: puts
    fresh inputs where the call reads them. target: the relative width of the interval of the median
    that is enough. budget_seconds: after which no more samples are taken. flush: empties the
    caches, by default Flush(). threads: recorded only.
    """
    if cache not in CACHES:
        raise ValueError(f"cache={cache!r} is not one of {', '.join(CACHES)}")
    prepare = prepare or (lambda _: None)
    prepare(0)
    first = _seconds(call, 1, clock)
    once = _warmed_up(call, clock)
    if cache == "flushed":
        flush, calls = flush or Flush(), 1
    else:
        flush, calls = (lambda: None), calls_per_sample(once, resolution_seconds(clock))

    def take(index: int) -> float:
        prepare(index % sets)
        flush()
        return max(_seconds(call, calls, clock) - overhead, 0.0)

    with _no_garbage_collection():
        overhead = overhead_seconds(calls, clock)
        samples = sample_until_narrow(
            take, now=lambda: clock() * 1e-9, target=target, budget_seconds=budget_seconds, together=sets
        )
    return Timing(
        samples_seconds=tuple(samples),
        clock="perf_counter",
        cache=cache,
        calls_per_sample=calls,
        first_seconds=first,
        overhead_seconds=overhead,
        threads=threads,
    )


def _seconds(call: Callable[[], Any], calls: int, clock: Clock) -> float:
    """Seconds per call of so many calls. The loop and the call of the function are in it:
    overhead_seconds() is those alone.
    """
    repeated = range(calls)
    begin = clock()
    for _ in repeated:
        call()
    return (clock() - begin) * 1e-9 / calls


def _warmed_up(call: Callable[[], Any], clock: Clock) -> float:
    """The shortest of several calls, in seconds: WARM_UP_CALLS at least, for WARM_UP_SECONDS."""
    best, spent, calls = math.inf, 0.0, 0
    while calls < WARM_UP_CALLS or (spent < WARM_UP_SECONDS and calls < MOST_CALLS):
        seconds = _seconds(call, 1, clock)
        best, spent, calls = min(best, seconds), spent + seconds, calls + 1
    return best


def calls_per_sample(once: float, resolution: float) -> int:
    """How many calls of `once` seconds a sample needs to be long enough for a clock of this
    resolution, in seconds.
    """
    wanted = max(SAMPLE_SECONDS, RESOLUTIONS * resolution)
    return min(max(math.ceil(wanted / once), 1), MOST_CALLS) if once > 0 else MOST_CALLS


def resolution_seconds(clock: Clock) -> float:
    """The smallest step above 0 between readings of the clock, one after the other."""
    steps = []
    for _ in range(20):
        begin = now = clock()
        while now == begin:
            now = clock()
        steps.append(now - begin)
    return min(steps) * 1e-9


def overhead_seconds(calls: int, clock: Clock) -> float:
    """What a sample of so many calls shows per call for an empty function: the harness itself. The
    smallest of some tries.
    """
    return min(_seconds(_nothing, calls, clock) for _ in range(5))


def _nothing() -> None:
    """Takes the place of the call."""


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Flush:
    """Writes a buffer of twice the last-level cache: what was in the caches is there no more."""

    def __init__(self, size_bytes: int | None = None) -> None:
        import torch

        self._buffer = torch.zeros(
            2 * (size_bytes or last_level_cache_bytes()), dtype=torch.uint8, device="cpu"
        )

    def __call__(self) -> None:
        self._buffer.add_(1)


def last_level_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """The size of the largest cache that the system names; UNKNOWN_CACHE_BYTES where it names none."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = []
    for path in folder.glob("index*/size"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = path.read_text(encoding="ascii").strip()
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=UNKNOWN_CACHE_BYTES)

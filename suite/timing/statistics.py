"""Samples of a time and what they say: the median with an interval that needs no distribution, when
to stop, how it scales.

The median of a time is what repeats: its mean is moved by every interruption, its minimum by luck.
The order statistics x_(k) and x_(n+1-k) enclose the median of any distribution with probability 1 -
2 P(B < k), B binomial(n, 1/2): at least 95 %.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEWEST = 6
"""Samples, below which not even the smallest and the largest enclose the median with probability
LEVEL: 1 - 2/2^5 < 0.95.
"""

MOST = 200
"""Samples that are taken and stored; at 200 the interval is x_(86) to x_(115)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval, in the unit of the samples."""

    value: float
    low: float
    high: float

    @property
    def relative_width(self) -> float:
        return (self.high - self.low) / self.value if self.value > 0 else math.inf


@functools.cache
def order_statistic(n: int, level: float = LEVEL) -> int:
    """The largest k for which x_(k) and x_(n+1-k), counted from 1, enclose the median with
    probability `level`; 0 for none.
    """
    outside, k = 0, 0
    while k < n // 2:
        outside += math.comb(n, k)
        if 2 * outside > (1 - level) * 2**n:
            break
        k += 1
    return k


def median_interval(samples: Sequence[float]) -> Interval:
    """The median and its interval. Raises ValueError for fewer than FEWEST samples, which enclose nothing."""
    k = order_statistic(len(samples))
    if k == 0:
        raise ValueError(f"{len(samples)} samples; an interval of the median needs at least {FEWEST}")
    ordered = sorted(samples)
    return Interval(float(np.median(ordered)), ordered[k - 1], ordered[-k])


def sample_until_narrow(
    take: Callable[[int], float],
    *,
    now: Callable[[], float],
    target: float,
    budget_seconds: float,
    together: int = 1,
    most: int = MOST,
) -> list[float]:
    """Samples take(0), take(1), ... until their interval is narrower than `target` times the
    median, or the budget ends.

    now: seconds. together: samples are taken so many at a time, one for each set of inputs, so that
    the last is always of the last set. At least FEWEST are taken, whatever they cost: fewer say
    nothing.
    """
    samples: list[float] = []
    begin = now()
    while len(samples) + together <= most:
        samples += [take(len(samples) + i) for i in range(together)]
        if len(samples) < FEWEST:
            continue
        if now() - begin >= budget_seconds or median_interval(samples).relative_width <= target:
            break
    return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a timer found of one call.

    samples_seconds: seconds per call, of each sample. clock: "perf_counter", "cuda_event" or
    "cuda_graph". cache: "warm" or "flushed". calls_per_sample: over how many calls a sample is the
    mean. first_seconds: of the first call of all.
    overhead_seconds: what an empty function took in its place, which is subtracted from the
    samples. threads: of torch.
    note: what else a reader must know. details: of the device, before and after.
    """

    samples_seconds: tuple[float, ...]
    clock: str
    cache: str
    calls_per_sample: int
    first_seconds: float
    overhead_seconds: float = 0.0
    threads: int = 1
    note: str = ""
    details: Mapping[str, Any] | None = None

    @property
    def median(self) -> Interval:
        return median_interval(self.samples_seconds)


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a time grows with length: time ~ length^exponent.

    exponent: of all lengths, with its bootstrap interval. last: between the two longest alone; one
    that differs much says that the time is no power of the length, or not yet. lengths: those
    measured.
    """

    exponent: Interval
    last: float
    lengths: tuple[int, ...]


RESAMPLES = 1000


def scaling(
    samples: Mapping[int, Sequence[float]],
    integers: Callable[[int, int], NDArray[np.int64]],
    *,
    resamples: int = RESAMPLES,
) -> Scaling | None:
    """The exponent of a least-squares line through log median against log length; None below three lengths.

    samples: by length. integers: (limit, count) -> integers below limit, the source of the
    bootstrap. Each resample draws as many samples of every length as there are, with replacement:
    the interval is that of the noise of the times, at these lengths, not of the choice of lengths.
    """
    lengths = tuple(sorted(length for length, found in samples.items() if len(found)))
    if len(lengths) < 3:
        return None
    ordered = [np.asarray(samples[length], dtype=np.float64) for length in lengths]
    x = np.log(np.asarray(lengths, dtype=np.float64))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of each log time in the slope of the line
    drawn = [
        np.median(one[integers(len(one), resamples * len(one)).reshape(resamples, -1)], axis=1)
        for one in ordered
    ]
    slopes = np.sort(weights @ np.log(drawn))
    outside = int(resamples * (1 - LEVEL) / 2)
    medians = np.log([np.median(one) for one in ordered])
    return Scaling(
        Interval(float(weights @ medians), float(slopes[outside]), float(slopes[-1 - outside])),
        float((medians[-1] - medians[-2]) / (x[-1] - x[-2])),
        lengths,
    )

"""Is one measurement faster than another? The ratio of two medians, its bootstrap interval, a verdict.

docs/compare.md says why the rules are as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from suite.formats import Array
from suite.records.record import PASSING, Measurement
from suite.timing.statistics import FEWEST, LEVEL

THRESHOLD = 0.05
"""The share by which a median must differ for FASTER or SLOWER."""
SPEEDS = ("SLOWER", "AMBIGUOUS", "FASTER", "SAME", "not comparable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A throughput measurement in both runs, or in one of them."""

    base: Measurement | None
    new: Measurement | None
    ratio: float | None = None
    """Median time of new over that of base; None without samples on both sides."""
    low: float | None = None
    """The lower end of its 95 % interval."""
    high: float | None = None
    verdict: str = ""
    """One of SPEEDS; "" where a side is missing or neither has times."""
    note: str = ""
    """Why it is not what one would expect."""
    change: str = ""
    """What happened to its status while it was timed, of CHANGES; "" where its evaluation says it too."""

    @property
    def measurement(self) -> Measurement:
        found = self.new or self.base
        assert found is not None
        return found


def judge_speed(base: Measurement | None, new: Measurement | None, *, threshold: float = THRESHOLD) -> Speed:
    """The ratio of two median times with its interval, and the verdict of verdict_of()."""
    if base is None or new is None:
        return Speed(base=base, new=new)
    before, after = times_of(base), times_of(new)
    if not before and not after:
        return Speed(base=base, new=new)
    if not before or not after:
        side, m = ("new", new) if before else ("base", base)
        note = f"{side} has no times: {m.data['status']}"
        return Speed(base=base, new=new, verdict="not comparable", note=note)
    unlike = [
        f"{name} {base.data[name]} against {new.data[name]}"
        for name in (("cache", "clock") if base.device == new.device else ("cache",))
        if base.data[name] != new.data[name]
    ]
    if unlike:
        return Speed(base=base, new=new, verdict="not comparable", note="; ".join(unlike))
    ratio, fewest = median(after) / median(before), min(len(before), len(after))
    if fewest < FEWEST:
        note = f"{fewest} samples; an interval needs {FEWEST}"
        return Speed(base=base, new=new, ratio=ratio, verdict="AMBIGUOUS", note=note)
    low, high = ratio_interval(before, after)
    verdict = verdict_of(low, high, threshold)
    return Speed(base=base, new=new, ratio=ratio, low=math.exp(low), high=math.exp(high), verdict=verdict)


def verdict_of(low: float, high: float, threshold: float) -> str:
    """The verdict of an interval of the logarithm of the ratio.

    FASTER where the ratio's interval lies below 1 / (1 + threshold), SLOWER where it lies above 1 +
    threshold, SAME where it lies between; else AMBIGUOUS. The two limits are each other's inverse,
    so that swapping the runs swaps FASTER and SLOWER.
    """
    limit = math.log1p(threshold)
    if high < -limit:
        return "FASTER"
    if low > limit:
        return "SLOWER"
    return "SAME" if -limit <= low and high <= limit else "AMBIGUOUS"


def ratio_interval(base: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of log(median of new / median of base) over all bootstrap
    resamples of both.

    A resample's median is one of the n samples, and how likely each is has a closed form
    (resampled_median()). So the bootstrap distribution is known exactly, and none is drawn: no
    seed, no noise, and [-high, -low] where the runs are swapped. Efron, "Bootstrap methods: another
    look at the jackknife", Ann. Statist. 7 (1979), has the same for one median.
    """
    (before, before_chance), (after, after_chance) = _likely_medians(base), _likely_medians(new)
    difference = np.subtract.outer(after, before).ravel()
    chance = np.multiply.outer(after_chance, before_chance).ravel()
    order = np.argsort(difference)
    difference, chance = difference[order], chance[order]
    tail = (1 - LEVEL) / 2
    return float(difference[_quantile(chance, tail)]), float(difference[::-1][_quantile(chance[::-1], tail)])


@functools.cache
def resampled_median(n: int) -> Array:
    """How likely each of n ordered samples is the median of a resample of n of them; of an even n,
    either middle one with one half, which are each other's mirror images. The m-th smallest of n
    draws is at most the k-th sample with probability P(B >= m), B binomial(n, k / n).
    """
    k = np.arange(n + 1)
    p = np.clip(k / n, 1e-300, 1 - 2.0**-53)
    factorial = np.cumsum(np.concatenate([[0.0], np.log(np.arange(1, n + 1))]))
    log_choose = factorial[n] - factorial - factorial[::-1]
    drawn = np.exp(log_choose + k * np.log(p)[:, None] + (n - k) * np.log1p(-p)[:, None])
    chance: Array = np.diff(drawn[:, (n + 1) // 2 :].sum(axis=1))
    return (chance + chance[::-1]) / 2


def _likely_medians(samples: Sequence[float]) -> tuple[Array, Array]:
    """(logarithms of the samples that a resample's median may be, how likely each is); those never
    seen are left out.
    """
    chance = resampled_median(len(samples))
    seen = chance > 1e-9
    return np.log(np.sort(np.asarray(samples, dtype=np.float64)))[seen], chance[seen]


def _quantile(chance: Array, tail: float) -> int:
    """The first position up to which the chances add up to the tail."""
    return min(int(np.searchsorted(np.cumsum(chance), tail)), len(chance) - 1)


def median(samples: Sequence[float]) -> float:
    return float(np.median(samples))


def times_of(m: Measurement) -> list[float]:
    """The samples of a throughput measurement, in seconds per call; [] where its kernel did not pass."""
    found: list[float] = m.data["samples_seconds"] if m.data["status"] in PASSING else []
    return found

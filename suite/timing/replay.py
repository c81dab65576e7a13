"""A clock for pytest-benchmark that tells the samples of our own timers: its table, JSON, save and
compare then hold those.

pytest-benchmark times end - start of a call by the clock it is given. Its own, on a device that
works asynchronously, would time launches; this one stands at 0 but for what the call that is
"timed" puts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class ReplayClock:
    """timer=CLOCK, and CLOCK.replaying(samples) as the function to time: round i takes sample i, to
    the bit.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def __call__(self) -> float:
        """What was put there since the last reading, so that end - start is that, without a rounding."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def replaying(self, samples: Iterable[float]) -> Callable[[], None]:
        """A function each call of which takes the next sample's time. Raises StopIteration behind
        the last.
        """
        rest = iter(samples)

        def replay() -> None:
            self._seconds = next(rest)

        return replay


CLOCK = ReplayClock()

"""A stopwatch for one call on the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """(result, seconds) of one call by the monotonic clock. One reading is a hint of the order of
    magnitude, no benchmark.
    """
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start

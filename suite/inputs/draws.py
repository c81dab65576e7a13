"""Numbers that are the same bits on every machine: a counter-based integer source, a table of
normal quantiles, + - *.

No library's random method, exp, log or cos is used: torch.randn differs between CPU capabilities
with one seed, and numpy's normal stream is not stable by policy.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array


class Draw:
    """A stream of numbers that is a function of its key alone.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over a counter that starts at a hash of the key.
    """

    def __init__(self, key: str) -> None:
        self._counter = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")

    def words(self, *shape: int) -> NDArray[np.uint64]:
        """Uniform 64-bit integers of this shape."""
        count = int(np.prod(shape, dtype=np.int64))
        with np.errstate(over="ignore"):
            z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
                self._counter
            )
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
        self._counter = (self._counter + 0x9E3779B97F4A7C15 * count) % 2**64
        return z.reshape(shape)

    def uniform(self, *shape: int) -> Array:
        """Uniform multiples of 2^-53 in [0, 1)."""
        return (self.words(*shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, limit: int, *shape: int) -> NDArray[np.int64]:
        """Integers from 0 to limit - 1; limit below 2^32, bias below 2^-32."""
        return ((self.words(*shape) >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers, at most 4.76 in magnitude, by linear interpolation in the table
        of quantiles.
        """
        words = self.words(*shape)
        table = _quantiles()
        knots = len(table) - 1
        position = ((words >> np.uint64(12)) & np.uint64(2**40 - 1)).astype(np.float64) * (knots * 2.0**-40)
        index = position.astype(np.int64)
        value = table[index] + (position - index) * (table[index + 1] - table[index])
        return np.where((words & np.uint64(1)) == 0, value, -value)


@functools.cache
def _quantiles() -> Array:
    path = Path(__file__).parent / "data" / "normal_quantiles.txt"
    return np.array([float.fromhex(line) for line in path.read_text().split()])

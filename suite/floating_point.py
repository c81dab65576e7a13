"""The floating-point mode of this thread: whether subnormal numbers survive.

Loading any shared object linked with -ffast-math sets flush-to-zero for the loading thread and every later one. From then
on float64 arithmetic, numpy's exp and every reference computed here would be wrong, so the mode is checked, not assumed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_SUBNORMAL = np.array([1e-310])
_ONE = np.array([1.0])


def subnormals_are_flushed() -> bool:
    """Whether float64 arithmetic of this thread gives 0 for a subnormal result."""
    return bool((_SUBNORMAL * _ONE)[0] == 0.0)


def keep_subnormals() -> bool:
    """Switches flushing off for this thread if it is on; returns whether it was. Raises RuntimeError where that fails."""
    if not subnormals_are_flushed():
        return False
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
    if subnormals_are_flushed():
        raise RuntimeError(
            "this process flushes subnormal numbers to zero (a library built with -ffast-math was loaded), and the mode "
            "cannot be switched off here; no reference computed in it would be true"
        )
    return True


@contextmanager
def subnormals_kept() -> Iterator[None]:
    """Runs the block with subnormals kept, then puts the thread's mode back."""
    flushed = keep_subnormals()
    try:
        yield
    finally:
        if flushed:
            sys.modules["torch"].set_flush_denormal(True)

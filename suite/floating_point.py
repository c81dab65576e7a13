"""The floating-point mode of this thread: whether subnormal numbers survive, and which way results
are rounded.

Loading any shared object linked with -ffast-math sets flush-to-zero for the loading thread and
every later one. From then on float64 arithmetic, numpy's exp and every reference computed here
would be wrong, so the mode is checked, not assumed.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_SUBNORMAL = np.array([1e-310])
_ONE = np.array([1.0])
_LITTLE = 2.0**-60
_ROUNDINGS = {(False, False): "to nearest", (True, False): "upward", (False, True): "downward"}


def subnormals_are_flushed() -> bool:
    """Whether float64 arithmetic of this thread gives 0 for a subnormal result."""
    return bool((_SUBNORMAL * _ONE)[0] == 0.0)


def keep_subnormals() -> bool:
    """Switches flushing off for this thread if it is on; returns whether it was. Raises
    RuntimeError where that fails.
    """
    if not subnormals_are_flushed():
        return False
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
    if subnormals_are_flushed():
        raise RuntimeError(
            "this process flushes subnormal numbers to zero (a library built with -ffast-math was loaded),"
            " and the mode cannot be switched off here; no reference computed in it would be true"
        )
    return True


def rounding() -> str:
    """ "to nearest", "upward", "downward" or "toward zero": seen on 1 + 2^-60, -1 - 2^-60 and 1 - 2^-60."""
    one = float(_ONE[0])
    if one - _LITTLE < one and -one - _LITTLE == -one:
        return "toward zero"
    return _ROUNDINGS[one + _LITTLE > one, -one - _LITTLE < -one]


def round_to_nearest() -> None:
    """Puts the rounding of this thread back to nearest, C's FE_TONEAREST, which is 0 on x86 and ARM."""
    ctypes.CDLL(None).fesetround(0)


@contextmanager
def subnormals_kept() -> Iterator[None]:
    """Runs the block with subnormals kept, then puts the thread's mode back."""
    flushed = keep_subnormals()
    try:
        yield
    finally:
        if flushed:
            sys.modules["torch"].set_flush_denormal(True)

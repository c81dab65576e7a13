"""e^-g to far more digits than a format has."""

from __future__ import annotations

from typing import Any

import numpy as np

from suite.formats import Array, Format, float64
from suite.ops.arithmetic import Arb, Arithmetic, Float64, Mpmath
from suite.oracle.certified import certified_tier


def exact_arithmetic(format: Format) -> Any:
    if format.precision < float64.precision:
        return Float64()
    return Arb() if certified_tier() == "arb" else Mpmath()


def exponentials(gaps: Array, format: Format) -> tuple[Array, Array]:
    """(hi, lo): e^-g, far below an ulp of the format."""
    arithmetic: Arithmetic = exact_arithmetic(format)
    if isinstance(arithmetic, Float64):
        return np.exp(-gaps), np.zeros(len(gaps))
    assert isinstance(arithmetic, Arb | Mpmath)
    with arithmetic.precision(128):
        value = arithmetic.exp(arithmetic.lift(-gaps))
        hi = np.asarray(value, dtype=np.float64)
        return hi, np.asarray(value - arithmetic.lift(hi), dtype=np.float64)

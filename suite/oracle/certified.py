"""What the parts of the oracle share: certified rows, which certified tier there is, and what float64 assumes."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from suite.formats import Array

ASSUMED_ULP = 4.0
"""The accuracy of exp and log, in ulps, that the float64 and mpmath tiers assume; libm.py measures it."""


class Certified(NamedTuple):
    """Rows of a certified tier: hi + lo within radius of the exact value."""

    hi: Array
    lo: Array
    radius: Array
    tier: str


def certified_tier() -> str:
    """The certified tier of this installation: arb where python-flint is installed, else mpmath."""
    return "arb" if importlib.util.find_spec("flint") else "mpmath"

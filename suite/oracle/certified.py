"""What the parts of the oracle share: certified rows, which certified tier there is, and what
float64 assumes.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array

ASSUMED_ULP = 4.0
"""The accuracy of exp and log, in ulps, that the float64 and mpmath tiers assume; libm.py measures it."""


class Certified(NamedTuple):
    """Rows of a problem by a certified tier: hi + lo within radius of the exact value."""

    rows: NDArray[np.intp]
    """Which, ascending."""
    hi: Array
    lo: Array
    radius: Array
    tier: str

    def serves(self, rows: NDArray[np.intp], columns: int) -> bool:
        """Whether it has these rows, of so many columns, from a tier as good as this installation's.

        Another machine's float64 tier may have left fewer rows to the certified one.
        """
        shape = (len(self.rows), columns)
        whole = self.hi.shape == self.lo.shape == self.radius.shape == shape and bool(
            np.isin(rows, self.rows).all()
        )
        return whole and self.tier in ("arb", certified_tier())


def certified_tier() -> str:
    """The certified tier of this installation: arb where python-flint is installed, else mpmath."""
    return "arb" if importlib.util.find_spec("flint") else "mpmath"

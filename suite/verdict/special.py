"""Special values: where the definition has no number, the position decides and nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.special import Special

Mask = NDArray[np.bool_]

_RIGHT: dict[int, Callable[[Array], Mask]] = {
    Special.NAN: np.isnan,
    Special.POSITIVE_INFINITY: lambda y: y == np.inf,
    Special.NEGATIVE_INFINITY: lambda y: y == -np.inf,
    Special.NAN_OR_NEGATIVE_INFINITY: lambda y: np.isnan(y) | (y == -np.inf),
    Special.NAN_OR_POSITIVE_INFINITY: lambda y: np.isnan(y) | (y == np.inf),
    Special.ANYTHING: lambda y: np.ones(y.shape, dtype=np.bool_),
}
"""Code of a special value -> which outputs are right there."""


def by_position(special: NDArray[np.int8], y: Array, inside: Mask) -> Mask:
    """`inside`, with the entries that are special in the definition decided by their own rule."""
    if not special.any():
        return inside
    for code, right in _RIGHT.items():
        inside = np.where(special == code, right(y), inside)
    return inside

"""Where in its rows an output is wrong, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TILES = (128, 64, 32, 16)


def column_places(failed: NDArray[np.bool_]) -> dict[str, str]:
    """Where in a tile the failures [rows, k] sit, for the largest tile size for which that says
    more than chance would.
    """
    columns = np.nonzero(failed)[1]
    described: dict[str, str] = {}
    for size in TILES:
        if failed.shape[1] <= size or len(columns) < 2 or described:
            continue
        position, counts = np.unique(columns % size, return_counts=True)
        top = int(np.argmax(counts))
        share = counts[top] / len(columns)
        if share >= max(0.5, 4.0 / size):
            described[str(size)] = f"{share:.0%} of the failures at column = {position[top]} (mod {size})"
    return described

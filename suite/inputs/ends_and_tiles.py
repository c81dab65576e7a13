"""Families about places: where in a row, a tile or a batch the hard entry stands."""

from __future__ import annotations

import numpy as np

from suite.formats import Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw
from suite.inputs.families import TILES, boundaries


@family
def maximum_at_boundaries(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """The maximum at the end of a row or tile, 2 to 1000 above normal logits: a kernel that misses
    it overflows.

    Row 0 has it last, row 1 first, the others at the boundaries in turn.
    """
    x = draw.normal(rows, n)
    if n == 0:
        return x
    places = boundaries(n)
    start = int(draw.integers(len(places), 1)[0])
    heights = (1000.0, 100.0, 20.0, 2.0)
    for row in range(rows):
        place = (n - 1, 0)[row] if row < 2 else places[(start + row) % len(places)]
        x[row, place] = 5 + heights[(row + row // 4) % 4]
    return x


@family
def masked_tiles_far_below(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Leading and trailing tiles of -inf, and every other logit far below 0: a running maximum that
    starts at 0 or -1e4 shows.

    30 rows meet each side, tile width and depth.
    """
    depths = np.array([-20000.0, -1000.0, -120.0])
    x = draw.normal(rows, n) + depths[np.arange(rows) % 3][:, None]
    fitting = [size for size in TILES if size < n] or [max(n - 1, 0)]
    for row in range(rows):
        width = fitting[-1 - (row // 2) % len(fitting)]
        if row % 2 == 0:
            x[row, :width] = -np.inf
        else:
            x[row, n - width :] = -np.inf
    return np.asarray(x)


@family
def mixed_rows(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Ordinary rows between ones of NaN, +inf, -inf only, huge, tiny and far-off logits: nothing
    may leak from row to row.
    """
    x = 2 * draw.normal(rows, n)
    for row in range(1, rows, 2):
        kind = (row // 2) % 8
        if kind == 0:
            x[row] *= 2.0**12
        elif kind == 1:
            x[row] = -np.inf
        elif kind == 2:
            x[row] -= 30000.0
        elif kind == 3:
            x[row, draw.integers(n, 1) if n else []] = np.nan
        elif kind == 4:
            x[row] += 30000.0
        elif kind == 5:
            x[row, draw.integers(n, 1) if n else []] = np.inf
        elif kind == 6:
            x[row] *= 2.0**-20
        else:
            x[row, draw.integers(2, n) == 1] = -np.inf
    return x


@family
def alternating(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Signs that alternate, the negative logits larger: a maximum of magnitudes, or of bits read as
    integers, shows.
    """
    heights = np.array([1.0, 60.0, 12.0, 300.0, 5.0, 100.0, 30.0, 20000.0])[np.arange(rows) % 8][:, None]
    start = (np.arange(rows) + np.arange(rows) // 8)[:, None]
    positive = (np.arange(n)[None, :] + start) % 2 == 0
    return np.asarray(np.where(positive, heights, -heights - 1) + draw.uniform(rows, n) / 2)


@family
def several_masked_tiles(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Two or three tiles of -inf in front, or behind, with logits far apart beside them: the second
    tile is not the first.
    """
    x = 3 * draw.normal(rows, n)
    for row in range(rows):
        width = TILES[(row // 4) % len(TILES)] * (2 + row % 2)
        width = min(width, max(n - 1, 0))
        if row % 4 < 2:
            x[row, :width] = -np.inf
        else:
            x[row, n - width :] = -np.inf
    return x

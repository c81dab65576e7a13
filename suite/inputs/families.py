"""The input families of the row-wise ops. Each is hard for something that kernels are known to get wrong."""

from __future__ import annotations

import numpy as np

from suite.formats import FORMATS, Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw

TILES = (16, 32, 64, 128, 1024)
WIDE = tuple(FORMATS[name] for name in ("float16", "bfloat16", "float32", "float64"))


def coarse(threshold: float) -> float:
    """A closed threshold to 10 binary digits: its last bits come from the machine's logarithm, and
    inputs must not.
    """
    return float(np.rint(threshold * 1024) / 1024)


@family
def normal_small(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Normal logits with deviation 1/8: nearly uniform rows, where every term of the sum counts."""
    return np.asarray(draw.normal(rows, n) / 8)


@family
def normal(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Normal logits with deviation 1: what most tests use, and all that they use."""
    return np.asarray(draw.normal(rows, n))


@family
def normal_large(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Normal logits with deviation 16: gaps of 100 and results down to the subnormals in one row."""
    return np.asarray(draw.normal(rows, n) * 16)


@family
def overflow_edge(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """The largest logit, or the sum, just below and just above where exp overflows in each format."""
    x = -8 * draw.uniform(rows, n)
    for row in range(rows):
        edge = WIDE[(row // 4) % len(WIDE)]
        step = 1 + (2.0**-7 if row % 2 else -(2.0**-7))
        if row % 4 < 2:
            x[row] += coarse(edge.ln_omega) * step
            x[row, draw.integers(n, 1)[0]] = coarse(edge.ln_omega) * step
        else:
            x[row] = coarse(edge.sum_overflow(n)) * step
    return x


@family
def underflow_edge(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """One entry at 0 and the rest at gaps just around where exp(-gap) leaves the normal numbers and
    where it becomes 0.
    """
    edges = [coarse(g) for f in WIDE for g in (f.exp_subnormal, f.exp_underflow)]
    choice = np.array(edges)[draw.integers(len(edges), rows, n)]
    x = -choice * (1 + (draw.uniform(rows, n) - 0.5) * 2.0**-5)
    x[np.arange(rows), draw.integers(n, rows)] = 0.0
    return x


@family
def saturation_edge(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """One entry ahead of all others by the gap at which its probability rounds to exactly 1, a
    little more or less.
    """
    x = -draw.uniform(rows, n) / 16
    for row in range(rows):
        edge = WIDE[(row // 2) % len(WIDE)]
        gap = edge.saturation_rounded(max(n, 2)) if row % 2 else edge.saturation_in_format
        x[row, draw.integers(n, 1)[0]] = coarse(gap) * (1 + (row % 3 - 1) * 2.0**-6)
    return x


@family
def very_negative(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Every logit far below zero, from -90 to -50000, so that exp without a shift gives a row of zeros."""
    offsets = np.array([-90.0, -110.0, -200.0, -750.0, -1000.0, -5000.0, -20000.0, -50000.0])
    return np.asarray(draw.normal(rows, n) + offsets[np.arange(rows) % len(offsets)][:, None])


@family
def offset(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """A large common offset up to 1e6: softmax does not change, but a kernel that rounds lse or max
    * log2(e) does.
    """
    offsets = np.array([30.0, 100.0, -300.0, 1000.0, 10000.0, -10000.0, 60000.0, 1e6])
    return np.asarray(4 * draw.normal(rows, n) + offsets[np.arange(rows) % len(offsets)][:, None])


@family
def ties(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """All entries equal, several equal maxima, or few distinct values: sums that stagnate in a
    narrow accumulator.
    """
    x = np.zeros((rows, n))
    for row in range(rows):
        kind = row % 4
        if kind == 0:
            x[row] = (row // 4) * 10.0
        elif kind == 1:
            x[row] = np.where(draw.integers(4, n) == 0, 5.0, 5.0 - 4 * draw.uniform(n))
        elif kind == 2:
            x[row] = draw.integers(3, n) * 0.75 - 1
        else:
            x[row] = 3.0 - (np.arange(n) % 2) * 2
    return x


def boundaries(n: int) -> list[int]:
    """Positions at the ends of a row and of its tiles: 0, B-1, B, n/2, n-B, n-2, n-1 for each tile size B."""
    wanted = [0, n // 2, n - 2, n - 1, *(p for b in TILES for p in (b - 1, b, n - b))]
    return sorted({p for p in wanted if 0 <= p < n})


def _heavy_ends(rows: int, n: int, draw: Draw, floor: float) -> Array:
    places = boundaries(n)
    tiles = np.arange(0, n, TILES[-1])
    x = np.full((rows, n), floor)
    for row in range(rows):
        if row % 4 == 1:
            chosen = np.union1d(places, tiles)
        elif row % 4 == 3:
            inside = np.minimum(tiles + draw.integers(TILES[-1], len(tiles)), n - 1)
            chosen = np.union1d(np.union1d(places, inside), np.maximum(tiles - 1, 0))
        else:
            first = (row // 2) % len(places)
            chosen = np.array([places[first], places[-1 - first]])
        x[row, chosen] = 2 * draw.normal(len(chosen))
    return x


@family
def sparse(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Finite logits at tile boundaries and in each tile of 1024, all others -inf: a lost entry or
    tile shows at any length.
    """
    return _heavy_ends(rows, n, draw, -np.inf)


@family
def two_heavy_ends(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Large logits at tile boundaries and one in each tile of 1024, all others about 30 lower: one
    lost rescale shows.
    """
    return _heavy_ends(rows, n, draw, -30.0) - draw.uniform(rows, n) / 4


@family
def ramps(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Logits that rise or fall over 0 to 110: the running maximum changes at every step, or never."""
    heights = np.array([1.0, 10.0, 40.0, 110.0])
    x = np.arange(n) / max(n - 1, 1) * heights[(np.arange(rows) // 2) % 4][:, None]
    x[1::2] = x[1::2, ::-1]
    return np.asarray(x + draw.uniform(rows, n) / 64)


@family
def masked_tiles(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Leading, trailing and interior tiles of -inf, one row of -inf only: -inf - -inf is NaN in a
    careless recurrence.
    """
    x = 3 * draw.normal(rows, n)
    fitting = [size for size in TILES if size < n] or [max(n - 1, 0)]
    for row in range(rows):
        # The widest tile first: a row of 8 must meet it, and a kernel that guards 32 columns may
        # not guard 1024.
        width = fitting[-1 - (row // 4) % len(fitting)]
        kind = row % 4
        if kind == 0:
            x[row, :width] = -np.inf
        elif kind == 1:
            x[row, n - width :] = -np.inf
        elif kind == 2:
            start = n // 3
            x[row, start : min(start + width, n - 1)] = -np.inf
    if rows > 3:
        x[3] = -np.inf
    return x


@family
def sentinels(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Masking by a finite number (-1e4, -1e9, the lowest finite): exactly 0 behind it, and rows
    that are all sentinel.

    No row is all lowest finite: its max * log2(e) may overflow, which is legitimate in the base-2 form.
    """
    x = 2 * draw.normal(rows, n)
    for row in range(rows):
        if row % 4 == 3:
            x[row] = (-1e4, -1e9 if format.largest > 1e9 else -3e4)[(row // 4) % 2]
        else:
            hidden = draw.integers(2, n) == 1
            x[row, hidden] = (-1e4, -1e9, -format.largest)[row % 3]
            x[row, draw.integers(n, 1)] = 0.5
    return x


@family
def nan_and_infinity(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """NaN, +inf or both in some rows, ordinary rows between them: a special value stays in its row
    and is never lost.
    """
    x = 2 * draw.normal(rows, n)
    for row in range(rows):
        place = draw.integers(n, 2)
        kind = row % 8
        if kind in (0, 4):
            x[row, place[0]] = np.nan
        elif kind == 1:
            x[row, place[0]] = np.inf
        elif kind == 5:
            x[row, place] = np.inf
        elif kind == 7:
            x[row] = np.inf
        elif kind in (2, 6):
            x[row, place[1]] = -np.inf
            x[row, place[0]] = np.nan if kind == 2 else np.inf
    return x

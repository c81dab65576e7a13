"""Families about rounding: offsets, near-ties, subnormal numbers, and results beside a rounding boundary."""

from __future__ import annotations

import math

import numpy as np

from suite.formats import FORMATS, Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw
from suite.inputs.families import WIDE, coarse

LN2 = 0.6931471805599453


@family
def exact_offset(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Offsets up to half the largest number, in steps of the last bit: the inputs are exact, so no
    error is theirs.

    No max * log2(e) overflows. Formats too narrow for a step have equal entries there.
    """
    top = 2.0 ** (format.emax - 1)
    pairs = (
        (2.0**7, 1.0), (-(2.0**11), 1.0), (2.0**23, 1.0), (-(2.0**14), 16.0),
        (top, float(format.ulp(top))), (-(2.0**52), 1.0), (-top, float(format.ulp(top))), (2.0**10, 0.5),
    )  # fmt: skip
    base, step = np.array(pairs)[np.arange(rows) % len(pairs)].T
    steps = draw.integers(24, rows, n).astype(np.float64)
    return np.asarray(base[:, None] + np.copysign(step, base)[:, None] * steps)


@family
def tiny_logits(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Subnormal logits of each format and zeros of both signs: every exponential is 1, whatever
    their bits look like.
    """
    tiny = np.array([f.smallest_subnormal for f in WIDE])[np.arange(rows) % 4][:, None]
    steps = draw.integers(127, rows, n) + 1.0
    steps[draw.integers(3, rows, n) == 0] = 0.0
    steps[4::8] = 0.0
    return np.asarray(np.where(draw.integers(2, rows, n) == 1, -steps, steps) * tiny)


@family
def subnormal_results(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Results in every binade of each format's subnormals; in half the rows the division, not exp,
    takes them there.
    """
    x = np.zeros((rows, n))
    for row in range(rows):
        edge = WIDE[row % 4]
        low, high = coarse(edge.exp_subnormal), coarse(edge.exp_underflow)
        many = (row // 4) % 2 == 1
        total = coarse(math.log(max(n / 3, 1))) if many else 0.0
        x[row] = -(low - total + (high - low) * draw.uniform(n))
        if many:
            x[row, draw.integers(3, n) == 0] = 0.0
        x[row, draw.integers(n, 1) if n else []] = 0.0
    return x


@family
def geometric_gaps(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Gaps at multiples of ln 2 and odd multiples of ln 2 / 2: powers of two, and the seams of
    every exp's range reduction.
    """
    factors = np.array([1.0, 0.5, 0.25, 1.0])[np.arange(rows) % 4][:, None]
    start = draw.integers(120, rows)[:, None]
    steps = (np.arange(n)[None, :] + start) % 120
    steps[3::4] = -steps[3::4] + 119
    return np.asarray(-(steps * factors) * LN2)


@family
def near_ties(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Logits at and beside midpoints of bfloat16, float16 and float32 below a power of two: scores
    rounded on the way show.
    """
    # Exponent of the top, bits of its midpoints.
    pairs = (
        (10, 9),
        (3, 9),
        (14, 12),
        (10, 12),
        (20, 25),
        (24, 25),
    )
    exponent, bits = np.array(pairs)[np.arange(rows) % len(pairs)].T
    steps = draw.integers(8, rows, n) * np.ldexp(1.0, -bits)[:, None]
    beside = (draw.integers(3, rows, n) - 1.0) * 2.0**-30
    return np.asarray(np.ldexp(1.0, exponent)[:, None] * (1 - steps + beside))


@family
def midpoint_results(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Up to 8 finite logits whose largest result lies 2^-18 beside a midpoint of bfloat16 or
    float16: errors of 1e-5 show.

    Elsewhere a 16-bit output hides them. The best of 4,096 draws of multiples of 1/16, which are
    numbers of every format; their exponentials are products of one constant.
    """
    count = min(n, 8)
    x = np.full((rows, n), -np.inf)
    if count < 2:
        return np.zeros((rows, n))
    powers = np.ones(97)
    for k in range(1, 97):
        powers[k] = powers[k - 1] * 0.9394130628134758  # exp(-1/16)
    for row in range(rows):
        steps = draw.integers(97, 4096, count)
        steps[:, 0] = 0
        total = np.zeros(4096)
        for column in range(count):
            total += powers[steps[:, column]]
        result = 1 / total
        narrow = FORMATS[("bfloat16", "float16")[row % 2]]
        position = result / narrow.ulp(result)
        beside = np.abs(position - np.floor(position) - 0.5) * narrow.ulp(result) / result
        best = int(np.argmin(np.abs(beside - 2.0**-18)))
        places = np.argsort(draw.words(n), kind="stable")[:count]
        x[row, places] = -steps[best] / 16.0
    return x


@family
def log_near_zero(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Rows whose logsumexp, or whose largest log-probability, is next to 0: what is lost of the sum
    is all there is.

    Kinds: n entries of about -ln n; one entry at 0 ahead of equal ones; two that add up to 1 beside nothing.
    """
    x = np.zeros((rows, n))
    gaps = (3.0, 7.0, 12.0, 16.0, 30.0, 36.0, 60.0, 104.0)
    for row in range(rows):
        kind = row % 3
        if kind == 0:
            x[row] = -coarse(math.log(max(n, 1))) + (draw.uniform(n) - 0.5) / 64
        elif kind == 1:
            x[row] = -gaps[(row // 3) % len(gaps)] - draw.uniform(n) / 16
            x[row, draw.integers(n, 1) if n else []] = 0.0
        else:
            x[row] = -120.0 - draw.uniform(n)
            x[row, draw.integers(n, 1) if n else []] = -0.28768207245178096  # ln(3/4)
            x[row, :1] = -1.3862943611198906  # ln(1/4)
    return x

"""Every number of a 16-bit format as a logit."""

from __future__ import annotations

import numpy as np

from suite.formats import Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw

BIT_PATTERNS = 2**16


def every_16_bit_value(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Rows [v, 0] for all 65,536 bit patterns v of float16, in order (of bfloat16 in bfloat16):
    nothing is left untried.

    NaN and infinities are among them, and 65,536 is one row more than a 16-bit grid dimension holds.
    """
    patterns = np.arange(BIT_PATTERNS, dtype=np.uint32)
    narrow = (
        (patterns << 16).view(np.float32)
        if format.name == "bfloat16"
        else patterns.astype(np.uint16).view(np.float16)
    )
    # One quiet NaN for all: signalling ones raise flags.
    values = np.where(np.isnan(narrow), narrow.dtype.type(np.nan), narrow)
    return np.stack([values.astype(np.float64), np.zeros(BIT_PATTERNS)], axis=1)


family(every_16_bit_value, fixed_shape=(BIT_PATTERNS, 2))

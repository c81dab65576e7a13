"""Digests of input families: a changed bit anywhere changes recorded results, so tests hold them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite import inputs
from suite.formats import get_format
from suite.inputs import attention

SHAPE = (8, 33)
SIZES = attention.Sizes(2, 4, 9, 64, 2, 300, 16)


def digest(*arrays: NDArray[Any]) -> str:
    """64 bits, as hexadecimal, of the little-endian bytes of the arrays; one NaN is as good as another."""
    total = hashlib.blake2b(digest_size=8)
    for array in arrays:
        values = np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array
        total.update(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes())
    return total.hexdigest()


def of_logits(name: str) -> str:
    """Of the family's float32 rows of seed 0, SHAPE of them or all of captured data.

    Raises ValueError with the valid names.
    """
    rows, n = inputs.get_family(name).fixed_shape or SHAPE
    return digest(inputs.build(name, rows, n, get_format("float32"), 0))


def of_attention(name: str) -> str:
    """Of q, k and v of a family of attention: float32, seed 0, SIZES or those of captured data.

    Raises ValueError with the valid names.
    """
    sizes = attention.get_family(name).fixed or SIZES
    return digest(*attention.build(name, sizes, get_format("float32"), 0).values())

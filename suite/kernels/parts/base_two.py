"""exp by exp2, as attention kernels have it: exp(x) = exp2(x log2 e). Constants, and a fused multiply-add."""

from __future__ import annotations

import torch

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
_SPLITTER = 2.0**27 + 1


def rounded(value: float, x: torch.Tensor) -> float:
    """A constant as a kernel of x's dtype holds it."""
    return float(torch.tensor(value, dtype=x.dtype))


def fma(a: torch.Tensor, b: float, c: torch.Tensor) -> torch.Tensor:
    """a b + c rounded once, as torch cannot be asked to; b is a number of a's dtype, float32 or float64.

    In float32 the product is exact in float64, whose sum is rounded to 53 bits and then to 24: a
    tie in 2^29 may go wrong. In float64 product and sum have their rounding errors added (Dekker
    1971, Veltkamp's splitting; Knuth's two-sum), up to
    |a| = 2^996, beyond which the product is rounded on its own.
    """
    if a.dtype == torch.float32:
        return (a.double() * b + c.double()).float()
    product = a * b
    a_high, b_high = _SPLITTER * a - (_SPLITTER * a - a), _SPLITTER * b - (_SPLITTER * b - b)
    a_low, b_low = a - a_high, b - b_high
    product_error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    moved = total - product
    error = (product - (total - moved)) + (c - moved) + product_error
    return torch.where(error.isfinite(), total + error, total)

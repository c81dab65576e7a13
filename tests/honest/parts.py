"""Building blocks of correct kernels: f(x [rows, n]) of float32 or float64, without NaN or +inf."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from suite.formats import two_sum

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
Rows = torch.Tensor


def top(x: Rows) -> Rows:
    """The row maximum, 0 for a row of -inf, so that -inf - max stays -inf."""
    m = x.amax(-1, keepdim=True)
    return m.masked_fill(m == -torch.inf, 0.0)


def fma(a: Rows, b: float, c: Rows) -> Rows:
    """a * b + c rounded once, but for freak ties: in float64 for float32, by error-free
    transformations for float64.
    """
    wide_a, wide_c = a.double().numpy(), c.double().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        product = wide_a * b
        if a.dtype == torch.float32:
            return torch.from_numpy(product + wide_c).to(a.dtype)
        split = 134217729.0
        a_high = split * wide_a - (split * wide_a - wide_a)
        b_high = split * b - (split * b - b)
        a_low, b_low = wide_a - a_high, b - b_high
        error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
        total, rest = two_sum(product, wide_c)
        exact = total + (rest + np.where(np.isfinite(error), error, 0.0))
    return torch.from_numpy(exact)


def blocks(x: Rows, size: int) -> Iterator[Rows]:
    return iter(torch.split(x, size, dim=-1))


def flush(x: Rows) -> Rows:
    """What a device without subnormals makes of a result."""
    return torch.where(x.abs() < torch.finfo(x.dtype).tiny, torch.zeros_like(x), x)


def constant(x: Rows, value: float) -> float:
    """A constant as a kernel of x's dtype holds it: rounded to that dtype."""
    return float(torch.tensor(value, dtype=x.dtype))


def online(x: Rows, size: int, exp=torch.exp, threshold: float = 0.0) -> tuple[Rows, Rows]:
    """(m, d) by blocks; the maximum moves only when it grows by more than `threshold`."""
    m = torch.full_like(x[:, :1], -torch.inf)
    d = torch.zeros_like(m)
    for block in blocks(x, size):
        seen = torch.maximum(m, block.amax(-1, keepdim=True))
        m_new = torch.where(seen > m + threshold, seen, m)
        safe = m_new.masked_fill(m_new == -torch.inf, 0.0)
        d = d * exp(m - safe) + exp(block - safe).sum(-1, keepdim=True)
        m = m_new
    return m.masked_fill(m == -torch.inf, 0.0), d


def exp_by_exp2(x: Rows) -> Rows:
    return torch.exp2(x * constant(x, LOG2E))


def approximate_exp2(x: Rows) -> Rows:
    """exp2 with a relative error of up to 2^-22, as ex2.approx has it, flushing; alternating in
    sign; exp2(0) = 1.
    """
    exact = torch.exp2(x)
    if x.dtype == torch.float64:
        return exact
    sign = (x != 0) * (1 - 2 * (torch.arange(x.shape[-1]) % 2)).to(x.dtype)
    return flush(exact * (1 + sign * 2.0**-22.2))


def merge(left: tuple[Rows, Rows], right: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    m = torch.maximum(left[0], right[0])
    safe = m.masked_fill(m == -torch.inf, 0.0)
    return m, left[1] * torch.exp(left[0] - safe) + right[1] * torch.exp(right[0] - safe)


def tree(x: Rows) -> tuple[Rows, Rows]:
    """(m, d) by merging halves down to single entries."""
    if x.shape[-1] == 1:
        return x, torch.where(x == -torch.inf, 0.0, 1.0).to(x.dtype)
    half = x.shape[-1] // 2
    return merge(tree(x[:, :half]), tree(x[:, half:]))

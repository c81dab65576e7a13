"""log_softmax and its backward, rows of any length: two passes over a row each, block by block.

    y = (x - m) - log d,   d = sum exp(x - m);      dx = g - p sum g,   p = exp(x - m) / d

Forward: maximum and sum online (Milakov and Gimelshein, arXiv 1805.02867), then y. Kept for the
backward: x, m and d, since exp(y) would cost |y| roundings of a y in 16 bits. In float32, float64
for float64; triton_fused.py says what is known of exp.
"""
# Triton kernels have arguments without types, and constants in capitals.
# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
# ruff: noqa: N803

from __future__ import annotations

from typing import Any

import torch
import triton  # noqa: TID253  (this module is imported inside kernels only)
import triton.language as tl  # noqa: TID253
from torch.autograd.function import once_differentiable
from triton.language.standard import _elementwise_max as maximum  # noqa: TID253
from triton.language.standard import _sum_combine as add  # noqa: TID253

from suite.kernels.parts.triton_rows import as_rows, as_tensor, compute_dtype, launch, tiling


@triton.jit
def forward_kernel(
    x_ptr, y_ptr, m_ptr, d_ptr, rows, n, row_stride, column_stride,
    FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    m = tl.full([ROWS, 1], -float("inf"), FORMAT)
    m_finite = tl.full([ROWS, 1], 0.0, FORMAT)  # m, 0 where it is infinite: inf - inf would be NaN
    d = tl.full([ROWS, 1], 0.0, FORMAT)
    start = 0  # no range: see triton_online.py
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        x = tl.load(x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
            FORMAT
        )
        m_new = tl.maximum(m, tl.reduce(x, 1, maximum, keep_dims=True))
        m_finite = tl.where(tl.abs(m_new) == float("inf"), 0.0, m_new)
        d = d * tl.exp(m - m_finite) + tl.reduce(tl.exp(x - m_finite), 1, add, keep_dims=True)
        m = m_new
        start += BLOCK
    # +inf leaves no distribution, nor does nothing but -inf.
    d = tl.where(tl.abs(m) == float("inf"), float("nan"), d)
    tl.store(m_ptr + row, m_finite, mask=row < rows)
    tl.store(d_ptr + row, d, mask=row < rows)
    start = 0
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        x = tl.load(x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
            FORMAT
        )
        tl.store(y_ptr + row * n + column, x - m_finite - tl.log(d), mask=inside)
        start += BLOCK


@triton.jit
def backward_kernel(
    x_ptr, g_ptr, m_ptr, d_ptr, dx_ptr, rows, n, row_stride, column_stride, g_row_stride, g_column_stride,
    FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    total = tl.full([ROWS, 1], 0.0, FORMAT)
    start = 0
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        g = tl.load(g_ptr + row * g_row_stride + column * g_column_stride, mask=inside, other=0.0).to(FORMAT)
        total += tl.reduce(g, 1, add, keep_dims=True)
        start += BLOCK
    m = tl.load(m_ptr + row, mask=row < rows, other=0.0)
    d = tl.load(d_ptr + row, mask=row < rows, other=1.0)
    start = 0
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        x = tl.load(x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
            FORMAT
        )
        g = tl.load(g_ptr + row * g_row_stride + column * g_column_stride, mask=inside, other=0.0).to(FORMAT)
        tl.store(dx_ptr + row * n + column, g - tl.exp(x - m) / d * total, mask=inside)
        start += BLOCK


class LogSoftmax(torch.autograd.Function):
    """log_softmax of x along dim. Kept: x, and for each row m and d in the format of the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int) -> torch.Tensor:
        rows = as_rows(x, dim)
        y = torch.empty(rows.shape, dtype=rows.dtype, device=x.device)
        m = torch.empty(len(rows), dtype=compute_dtype(x), device=x.device)
        d = torch.empty_like(m)
        grid, constants = tiling(rows)
        launch(forward_kernel, grid, rows, y, m, d, *rows.shape, *rows.stride(), **constants)
        ctx.save_for_backward(x, m, d)
        ctx.dim = dim
        return as_tensor(y, x, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: torch.Tensor) -> Any:
        x, m, d = ctx.saved_tensors
        rows, g = as_rows(x, ctx.dim), as_rows(d_y, ctx.dim)
        dx = torch.empty(rows.shape, dtype=rows.dtype, device=x.device)
        grid, constants = tiling(rows)
        launch(
            backward_kernel, grid, rows, g, m, d, dx, *rows.shape, *rows.stride(), *g.stride(), **constants
        )
        return as_tensor(dx, x, ctx.dim), None


def log_softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """log_softmax of x along dim, differentiable once."""
    if x.numel() == 0:
        return x.clone()
    found: torch.Tensor = LogSoftmax.apply(x, dim)  # type: ignore[no-untyped-call]
    return found

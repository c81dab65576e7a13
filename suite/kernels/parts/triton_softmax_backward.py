"""The backward of triton_fused.py's softmax, from its result alone.

    dx = p (g - S),   S = sum p g

p is the stored result, in the tensors' own format; two passes over a row, block by block, in
float32, float64 for float64.
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
from triton.language.standard import _sum_combine as add  # noqa: TID253

from suite.kernels.parts.triton_fused import fused
from suite.kernels.parts.triton_rows import as_rows, as_tensor, launch, tiling


@triton.jit
def backward_kernel(
    p_ptr, g_ptr, dx_ptr, rows, n, row_stride, column_stride, g_row_stride, g_column_stride,
    FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    mean = tl.full([ROWS, 1], 0.0, FORMAT)
    start = 0  # no range: see triton_online.py
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        p = tl.load(p_ptr + row * row_stride + column * column_stride, mask=inside, other=0.0).to(FORMAT)
        g = tl.load(g_ptr + row * g_row_stride + column * g_column_stride, mask=inside, other=0.0).to(FORMAT)
        mean += tl.reduce(p * g, 1, add, keep_dims=True)
        start += BLOCK
    start = 0
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        p = tl.load(p_ptr + row * row_stride + column * column_stride, mask=inside, other=0.0).to(FORMAT)
        g = tl.load(g_ptr + row * g_row_stride + column * g_column_stride, mask=inside, other=0.0).to(FORMAT)
        tl.store(dx_ptr + row * n + column, p * (g - mean), mask=inside)
        start += BLOCK


class Softmax(torch.autograd.Function):
    """triton_fused.fused with this gradient. Kept: the result."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int) -> torch.Tensor:
        y = fused("softmax", x, dim)
        ctx.save_for_backward(y)
        ctx.dim = dim
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: torch.Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if y.numel() == 0:
            return torch.zeros_like(y), None
        p, g = as_rows(y, ctx.dim), as_rows(d_y, ctx.dim)
        dx = torch.empty(p.shape, dtype=p.dtype, device=y.device)
        grid, constants = tiling(p)
        launch(backward_kernel, grid, p, g, dx, *p.shape, *p.stride(), *g.stride(), **constants)
        return as_tensor(dx, y, ctx.dim), None


def softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """softmax of x along dim, differentiable once. Raises NotImplementedError for rows longer than
    LONGEST_ROW.
    """
    found: torch.Tensor = Softmax.apply(x, dim)  # type: ignore[no-untyped-call]
    return found

"""One pass over the row for the maximum and the sum, block by block, and a second one for the result.

Milakov and Gimelshein, arXiv 1805.02867, with a block in the place of their single entry. In
float32, float64 for float64; triton_fused.py says what is known of exp.
"""
# Triton kernels have arguments without types, and constants in capitals.
# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
# ruff: noqa: N803

from __future__ import annotations

import torch
import triton  # noqa: TID253  (this module is imported inside kernels only)
import triton.language as tl  # noqa: TID253
from triton.language.standard import _elementwise_max as maximum  # noqa: TID253
from triton.language.standard import _sum_combine as add  # noqa: TID253

from suite.kernels.parts.triton_configuration import configuration
from suite.kernels.parts.triton_rows import arithmetic, launch, over_rows, rows_per_program


@triton.jit
def online_kernel(
    x_ptr, y_ptr, rows, n, row_stride, column_stride,
    OP: tl.constexpr, FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    m = tl.full([ROWS, 1], -float("inf"), FORMAT)
    m_finite = tl.full([ROWS, 1], 0.0, FORMAT)  # m, 0 where it is infinite: inf - inf would be NaN
    d = tl.full([ROWS, 1], 0.0, FORMAT)
    start = 0  # no range(0, n, BLOCK): Triton 3.6 interprets none with numpy 2.4 (triton-lang/triton#9171)
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
    if OP == "logsumexp":
        tl.store(y_ptr + row, m_finite + tl.log(d), mask=row < rows)
    else:
        d = tl.where(m == float("inf"), float("nan"), d)  # +inf leaves no distribution
        start = 0
        while start < n:
            column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
            inside = (row < rows) & (column < n)
            x = tl.load(
                x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")
            ).to(FORMAT)
            z = x - m_finite
            if OP == "softmax":
                y = tl.exp(z) / d
            else:
                y = z - tl.log(d)
            tl.store(y_ptr + row * n + column, y, mask=inside)
            start += BLOCK


def online(op: str, x: torch.Tensor, dim: int) -> torch.Tensor:
    """softmax, log_softmax or logsumexp of x along dim."""
    return over_rows(_compute, op, x, dim)


def _compute(op: str, x: torch.Tensor, result: torch.Tensor) -> None:
    rows, n = x.shape
    chosen = configuration("online", x.device)
    block = min(chosen["block"], triton.next_power_of_2(n))
    ROWS = rows_per_program(block, chosen["entries"])
    launch(
        online_kernel, (triton.cdiv(rows, ROWS),), x, result, rows, n, *x.stride(),
        OP=op, FORMAT=arithmetic(x), ROWS=ROWS, BLOCK=block, num_warps=chosen["warps"],
    )  # fmt: skip

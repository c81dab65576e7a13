"""Few and very long rows: programs work on parts of a row side by side, then their maxima and sums
are merged.

    m = max m_k,    d = sum d_k exp(m_k - m)

as in flash-decoding, for a language model's vocabulary. In float32, float64 for float64;
triton_fused.py says what is known of exp.
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
def part_kernel(
    x_ptr, m_ptr, d_ptr, rows, n, parts, row_stride, column_stride,
    FORMAT: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Maximum and sum of one part of ROWS rows."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    part = tl.program_id(1).to(tl.int64)
    column = part * PART + tl.arange(0, PART)[None, :]
    inside = (row < rows) & (column < n)
    x = tl.load(x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
        FORMAT
    )
    m = tl.reduce(x, 1, maximum, keep_dims=True)
    m_finite = tl.where(tl.abs(m) == float("inf"), 0.0, m)  # inf - inf would be NaN
    d = tl.reduce(tl.exp(x - m_finite), 1, add, keep_dims=True)
    tl.store(m_ptr + row * parts + part, m, mask=row < rows)
    tl.store(d_ptr + row * parts + part, d, mask=row < rows)


@triton.jit
def merge_kernel(
    m_ptr, d_ptr, y_ptr, rows, parts,
    OP: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The parts of ROWS rows become one: m and d in the place of the first part, or the logsumexp."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    part = tl.arange(0, PARTS)[None, :]
    inside = (row < rows) & (part < parts)
    m_k = tl.load(m_ptr + row * parts + part, mask=inside, other=-float("inf"))
    d_k = tl.load(d_ptr + row * parts + part, mask=inside, other=0.0)
    m = tl.reduce(m_k, 1, maximum, keep_dims=True)
    m_finite = tl.where(tl.abs(m) == float("inf"), 0.0, m)
    d = tl.reduce(d_k * tl.exp(m_k - m_finite), 1, add, keep_dims=True)
    if OP == "logsumexp":
        tl.store(y_ptr + row, m_finite + tl.log(d), mask=row < rows)
    else:
        tl.store(m_ptr + row * parts, m_finite, mask=row < rows)
        # +inf: no distribution.
        tl.store(d_ptr + row * parts, tl.where(m == float("inf"), float("nan"), d), mask=row < rows)


@triton.jit
def normalise_kernel(
    x_ptr, m_ptr, d_ptr, y_ptr, rows, n, parts, row_stride, column_stride,
    OP: tl.constexpr, FORMAT: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """The result of one part of ROWS rows."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.program_id(1).to(tl.int64) * PART + tl.arange(0, PART)[None, :]
    inside = (row < rows) & (column < n)
    x = tl.load(x_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
        FORMAT
    )
    m = tl.load(m_ptr + row * parts, mask=row < rows, other=0.0)
    d = tl.load(d_ptr + row * parts, mask=row < rows, other=1.0)
    z = x - m
    if OP == "softmax":
        y = tl.exp(z) / d
    else:
        y = z - tl.log(d)
    tl.store(y_ptr + row * n + column, y, mask=inside)


def split(op: str, x: torch.Tensor, dim: int) -> torch.Tensor:
    """softmax, log_softmax or logsumexp of x along dim."""
    return over_rows(_compute, op, x, dim)


def _compute(op: str, x: torch.Tensor, result: torch.Tensor) -> None:
    rows, n = x.shape
    chosen = configuration("split", x.device)
    PART = max(chosen["shortest_part"], triton.next_power_of_2(triton.cdiv(n, chosen["most_parts"])))
    parts = triton.cdiv(n, PART)
    PARTS = triton.next_power_of_2(parts)
    FORMAT, ROWS, ROWS_MERGED = (
        arithmetic(x),
        *(rows_per_program(size, chosen["entries"]) for size in (PART, PARTS)),
    )
    warps = {"num_warps": chosen["warps"]}
    m = torch.empty(
        (rows, parts), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32, device=x.device
    )
    d = torch.empty_like(m)
    grid = (triton.cdiv(rows, ROWS), parts)
    shape = (rows, n, parts, *x.stride())
    launch(part_kernel, grid, x, m, d, *shape, FORMAT=FORMAT, ROWS=ROWS, PART=PART, **warps)
    merged = (triton.cdiv(rows, ROWS_MERGED),)
    launch(merge_kernel, merged, m, d, result, rows, parts, OP=op, ROWS=ROWS_MERGED, PARTS=PARTS, **warps)
    if op != "logsumexp":
        launch(
            normalise_kernel,
            grid,
            x,
            m,
            d,
            result,
            *shape,
            OP=op,
            FORMAT=FORMAT,
            ROWS=ROWS,
            PART=PART,
            **warps,
        )

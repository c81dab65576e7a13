"""cross_entropy of class indices and its backward, rows of any length, without a tensor of the
logits' size in the forward.

    loss = log d + (1 - e) (m - z_c) + e / n sum_j (m - z_j),   d = sum_j exp(z_j - m)
    dz_j = w (p_j - t_j),   p_j = exp(z_j - m) / d,   t_j = (1 - e) [j = c] + e / n

m and d online (Milakov and Gimelshein, arXiv 1805.02867), block by block; smoothed (e > 0), a
second pass sums the gaps below the final m. Gaps, never lse - z: an offset rounds no loss. Losses
are in float32 (float64 for float64) until they are reduced, by torch; m and d are kept for the
backward, which computes p again. triton_fused.py says what is known of exp.
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

REDUCTIONS = ("mean", "sum", "none")


@triton.jit
def forward_kernel(
    z_ptr, target_ptr, loss_ptr, m_ptr, d_ptr, rows, n, row_stride, column_stride, ignore_index,
    SMOOTHING: tl.constexpr, FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    m = tl.full([ROWS, 1], -float("inf"), FORMAT)
    m_finite = tl.full([ROWS, 1], 0.0, FORMAT)  # m, 0 where it is infinite: inf - inf would be NaN
    d = tl.full([ROWS, 1], 0.0, FORMAT)
    start = 0  # no range: see triton_online.py
    while start < n:
        column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
        inside = (row < rows) & (column < n)
        z = tl.load(z_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
            FORMAT
        )
        m_new = tl.maximum(m, tl.reduce(z, 1, maximum, keep_dims=True))
        m_finite = tl.where(tl.abs(m_new) == float("inf"), 0.0, m_new)
        d = d * tl.exp(m - m_finite) + tl.reduce(tl.exp(z - m_finite), 1, add, keep_dims=True)
        m = m_new
        start += BLOCK
    # +inf leaves no distribution, nor does nothing but -inf.
    d = tl.where(tl.abs(m) == float("inf"), float("nan"), d)
    tl.store(m_ptr + row, m_finite, mask=row < rows)
    tl.store(d_ptr + row, d, mask=row < rows)

    target = tl.load(target_ptr + row, mask=row < rows, other=0)
    # A class that there is not reads nothing and has a loss of NaN.
    valid = (row < rows) & (target >= 0) & (target < n)
    of_target = tl.load(z_ptr + row * row_stride + target * column_stride, mask=valid, other=float("nan")).to(
        FORMAT
    )
    loss = tl.log(d)
    if SMOOTHING < 1:  # without weight it adds nothing, even where it is infinite
        loss += (1 - tl.full([ROWS, 1], SMOOTHING, FORMAT)) * (m_finite - of_target)
    if SMOOTHING > 0:
        gaps = tl.full([ROWS, 1], 0.0, FORMAT)
        start = 0
        while start < n:
            column = start + tl.arange(0, BLOCK).to(tl.int64)[None, :]
            inside = (row < rows) & (column < n)
            z = tl.load(
                z_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")
            ).to(FORMAT)
            gaps += tl.reduce(tl.where(inside, m_finite - z, 0.0), 1, add, keep_dims=True)
            start += BLOCK
        loss += tl.full([ROWS, 1], SMOOTHING, FORMAT) * (gaps / n)
    tl.store(loss_ptr + row, tl.where(target == ignore_index, 0.0, loss), mask=row < rows)


@triton.jit
def backward_kernel(
    z_ptr, target_ptr, w_ptr, m_ptr, d_ptr, dz_ptr, rows, n, row_stride, column_stride, ignore_index,
    SMOOTHING: tl.constexpr, FORMAT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of ROWS rows: blocks have nothing to share."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < n)
    z = tl.load(z_ptr + row * row_stride + column * column_stride, mask=inside, other=-float("inf")).to(
        FORMAT
    )
    target = tl.load(target_ptr + row, mask=row < rows, other=0)
    w = tl.load(w_ptr + row, mask=row < rows, other=0.0)
    m = tl.load(m_ptr + row, mask=row < rows, other=0.0)
    d = tl.load(d_ptr + row, mask=row < rows, other=1.0)
    smoothing = tl.full([ROWS, 1], SMOOTHING, FORMAT)
    t = tl.where(column == target, 1 - smoothing, 0.0) + smoothing / n
    t = tl.where((target >= 0) & (target < n), t, float("nan"))
    dz = w * (tl.exp(z - m) / d - t)
    tl.store(dz_ptr + row * n + column, tl.where(target == ignore_index, 0.0, dz), mask=inside)


class CrossEntropy(torch.autograd.Function):
    """Losses of rows, float32 or float64. Kept: logits, target, and for each row m and d."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, target: torch.Tensor, ignore_index: int, smoothing: float
    ) -> torch.Tensor:
        z = as_rows(logits, classes_dim(logits))
        loss, m, d = (torch.empty(len(z), dtype=compute_dtype(logits), device=z.device) for _ in range(3))
        index = target.reshape(-1).contiguous()
        grid, constants = tiling(z)
        constants["SMOOTHING"] = smoothing
        launch(forward_kernel, grid, z, index, loss, m, d, *z.shape, *z.stride(), ignore_index, **constants)
        ctx.save_for_backward(logits, index, m, d)
        ctx.options = ignore_index, smoothing
        return loss.reshape(target.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: torch.Tensor) -> Any:
        logits, index, m, d = ctx.saved_tensors
        ignore_index, smoothing = ctx.options
        z, w = as_rows(logits, classes_dim(logits)), d_loss.reshape(-1).contiguous()
        dz = torch.empty(z.shape, dtype=z.dtype, device=z.device)
        grid, constants = tiling(z)
        grid = (*grid, triton.cdiv(z.shape[1], constants["BLOCK"]))
        constants["SMOOTHING"] = smoothing
        launch(backward_kernel, grid, z, index, w, m, d, dz, *z.shape, *z.stride(), ignore_index, **constants)
        return as_tensor(dz, logits, classes_dim(logits)), None, None, None


def classes_dim(logits: torch.Tensor) -> int:
    return 0 if logits.ndim == 1 else 1


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """As torch.nn.functional.cross_entropy of class indices, int64; differentiable once. A target
    that is no class and not ignored gives NaN, since nothing on a device can raise.

    Raises NotImplementedError for class probabilities, ValueError for another reduction.
    """
    if target.dtype != torch.int64:
        raise NotImplementedError(f"target of class indices, int64, not {target.dtype}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if logits.numel() == 0:
        loss = logits.sum(classes_dim(logits))
    else:
        loss = CrossEntropy.apply(logits, target, ignore_index, float(label_smoothing))  # type: ignore[no-untyped-call]
    if reduction == "mean":
        loss = loss.sum() / (target != ignore_index).sum()
    elif reduction == "sum":
        loss = loss.sum()
    return loss.to(logits.dtype)

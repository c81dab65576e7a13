"""FlashAttention's forward pass in Triton: a block of queries stays, blocks of keys pass by (arXiv
2307.08691, algorithm 1).

In float32: products by tl.dot with input_precision "ieee", so without tf32; P is rounded to v's
format before the second, as that takes two of a kind. Exponents are exp(s - m), which Triton
compiles to ex2.approx on CUDA (triton_fused.py).
"""

# Triton kernels have arguments without types, and constants in capitals.
# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
# ruff: noqa: N803

from __future__ import annotations

import math

import torch
import triton  # noqa: TID253  (this module is imported inside kernels only)
import triton.language as tl  # noqa: TID253
from triton.language.standard import _elementwise_max as maximum  # noqa: TID253
from triton.language.standard import _sum_combine as add  # noqa: TID253

from suite.kernels.parts.attention_check import check
from suite.kernels.parts.attention_visible import offset
from suite.kernels.parts.triton_configuration import configuration
from suite.kernels.parts.triton_rows import launch

SMALLEST = 16
"""tl.dot wants 16 of everything."""


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, heads, shared, length, keys, reach, head_size, value_size,
    q_batch, q_head, q_row, q_column, k_batch, k_head, k_row, k_column, v_batch, v_head, v_row, v_column,
    scale, softcap,
    CAUSAL: tl.constexpr, SOFTCAP: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SIZE: tl.constexpr, VALUE: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head. shared: heads of q to a head of k. reach: o, where a query
    i sees keys j <= i + o.
    """
    # The blocks of all heads are in one axis of the grid, as the others end at 65535.
    blocks = (length + QUERIES - 1) // QUERIES  # of a head
    block, of_all = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i = (block * QUERIES + tl.arange(0, QUERIES)).to(tl.int64)[:, None]
    batch, head = (of_all // heads).to(tl.int64), (of_all % heads).to(tl.int64)
    entry, column = tl.arange(0, SIZE)[None, :], tl.arange(0, VALUE)[None, :]
    q_at = q_ptr + batch * q_batch + head * q_head
    k_at = k_ptr + batch * k_batch + head // shared * k_head
    v_at = v_ptr + batch * v_batch + head // shared * v_head
    q = tl.load(q_at + i * q_row + entry * q_column, mask=(i < length) & (entry < head_size), other=0.0)
    m = tl.full([QUERIES, 1], -float("inf"), tl.float32)
    d = tl.full([QUERIES, 1], 0.0, tl.float32)
    o = tl.full([QUERIES, VALUE], 0.0, tl.float32)
    end = keys
    if CAUSAL:  # no block of keys that its last query does not see
        end = tl.minimum(keys, (block + 1) * QUERIES + reach)
    for start in range(0, end, KEYS):
        j = start + tl.arange(0, KEYS).to(tl.int64)
        k = tl.load(
            k_at + j[None, :] * k_row + tl.arange(0, SIZE)[:, None] * k_column,
            mask=(j[None, :] < keys) & (tl.arange(0, SIZE)[:, None] < head_size), other=0.0,
        )  # fmt: skip
        s = tl.dot(q, k, input_precision="ieee") * scale
        if SOFTCAP:  # c tanh(x): by its series up to 0.3, where 1 - 2 / (e^2x + 1) would cancel
            x = s / softcap
            small = x + x * x * x * (-1 / 3 + x * x * (2 / 15 + x * x * (-17 / 315 + x * x * 62 / 2835)))
            large = 1 - 2 / (tl.exp(2 * tl.minimum(tl.abs(x), 20.0)) + 1)
            s = softcap * tl.where(tl.abs(x) < 0.3, small, tl.where(x < 0, -large, large))
        seen = j[None, :] < keys
        if CAUSAL:
            seen = seen & (j[None, :] <= i + reach)
        s = tl.where(seen, s, -float("inf"))
        m_new = tl.maximum(m, tl.reduce(s, 1, maximum, keep_dims=True))
        m_finite = tl.where(m_new == -float("inf"), 0.0, m_new)  # -inf + inf would be NaN
        p, rescale = tl.exp(s - m_finite), tl.exp(m - m_finite)
        v = tl.load(
            v_at + j[:, None] * v_row + column * v_column,
            mask=(j[:, None] < keys) & (column < value_size),
            other=0.0,
        )
        d = d * rescale + tl.reduce(p, 1, add, keep_dims=True)
        o = o * rescale + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        m = m_new
    row = (batch * heads + head) * length + i
    tl.store(
        o_ptr + row * value_size + column,
        o / tl.where(d == 0, 1.0, d),
        mask=(i < length) & (column < value_size),
    )
    tl.store(lse_ptr + row, m + tl.log(d), mask=i < length)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: str | None,
    scale: float | None,
    softcap: float | None,
    enable_gqa: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(o [B, H, L, Ev], lse [B, H, L]) of tensors in float32, bfloat16 or float16. Raises
    ValueError as check() does.
    """
    check(q, k, v, causal=causal, scale=scale, softcap=softcap, enable_gqa=enable_gqa)
    (batches, heads, length, head_size), (groups, keys), value_size = q.shape, k.shape[1:3], v.shape[3]
    # The interpreter's bfloat16 is not the device's (triton_rows.py).
    inner = torch.float32 if q.dtype == torch.bfloat16 and q.device.type == "cpu" else q.dtype
    o = torch.empty((batches, heads, length, value_size), dtype=inner, device=q.device)
    lse = torch.empty((batches, heads, length), dtype=torch.float32, device=q.device)
    if lse.numel() == 0:
        return o.to(q.dtype), lse
    q_inner, k_inner, v_inner = q.to(inner), k.to(inner), v.to(inner)
    chosen = configuration(
        "attention_16_bit" if is_narrow(inner, head_size, value_size) else "attention", q.device
    )
    launch(
        attention_kernel, (triton.cdiv(length, chosen["queries"]) * batches * heads,),
        q_inner, k_inner, v_inner, o, lse, heads, heads // groups, length, keys, offset(causal, length, keys),
        head_size, value_size,
        *q_inner.stride(), *k_inner.stride(), *v_inner.stride(),
        scale=1 / math.sqrt(head_size) if scale is None else float(scale), softcap=float(softcap or 1.0),
        CAUSAL=causal is not None, SOFTCAP=softcap is not None, QUERIES=chosen["queries"],
        KEYS=chosen["keys"],
        SIZE=padded(head_size), VALUE=padded(value_size), num_warps=chosen["warps"],
        num_stages=chosen["stages"],
    )  # fmt: skip
    return o.to(q.dtype), lse


def is_narrow(format: torch.dtype, head_size: int, value_size: int) -> bool:
    """Whether tiles take so little memory that they may be large: in 16 bits, of heads of at most 128."""
    return format.itemsize == 2 and max(head_size, value_size) <= 128


def padded(size: int) -> int:
    """The smallest size of a tile that holds `size` entries."""
    return max(SMALLEST, int(triton.next_power_of_2(size)))

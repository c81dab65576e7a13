"""FlashAttention-2's backward pass in Triton: P again from the saved log-sum-exp (arXiv 2307.08691,
algorithm 2).

    P = exp(s - lse),   ds = P (do v^T - D),   D = rowsum(do o) - dlse,   dv = P^T do,   dk = scale
                        ds^T q,   dq = scale ds k

One kernel keeps a block of keys and lets queries pass by, for dk and dv; another keeps queries, for
dq. So nothing is added to by several programs, and each run has the same bits. In float32: products
by tl.dot with input_precision "ieee", so without tf32; P and ds are rounded to the tensors' format
before a product, as that takes two of a kind. D is float32, of the stored o.
"""

# Triton kernels have arguments without types, and constants in capitals.
# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
# ruff: noqa: N803

from __future__ import annotations

import math
from typing import Any

import torch
import triton  # noqa: TID253  (this module is imported inside kernels only)
import triton.language as tl  # noqa: TID253
from torch.autograd.function import once_differentiable

from suite.kernels.parts import triton_attention
from suite.kernels.parts.attention_visible import offset
from suite.kernels.parts.triton_attention import is_narrow, padded
from suite.kernels.parts.triton_configuration import configuration
from suite.kernels.parts.triton_rows import launch


@triton.jit
def keys_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, shared, length, keys, reach,
    head_size, value_size,
    scale, softcap,
    CAUSAL: tl.constexpr, SOFTCAP: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SIZE: tl.constexpr, VALUE: tl.constexpr,
):  # fmt: skip
    """dk, dv of one block of keys, for one head of q; tiles are [KEYS, QUERIES]. lse: finite.
    Others as in attention_kernel.
    """
    blocks = (keys + KEYS - 1) // KEYS  # of a head, as in attention_kernel
    block = tl.program_id(0) % blocks
    j = (block * KEYS + tl.arange(0, KEYS)).to(tl.int64)[:, None]
    head = (tl.program_id(0) // blocks).to(tl.int64)  # of all batches
    entry, column = tl.arange(0, SIZE)[None, :], tl.arange(0, VALUE)[None, :]
    of_key, of_value = (j < keys) & (entry < head_size), (j < keys) & (column < value_size)
    k = tl.load(k_ptr + (head // shared * keys + j) * head_size + entry, mask=of_key, other=0.0)
    v = tl.load(v_ptr + (head // shared * keys + j) * value_size + column, mask=of_value, other=0.0)
    dk, dv = tl.full([KEYS, SIZE], 0.0, tl.float32), tl.full([KEYS, VALUE], 0.0, tl.float32)
    first = 0
    if CAUSAL:  # no block of queries that does not see the first key
        first = tl.maximum(block * KEYS - reach, 0) // QUERIES * QUERIES
    for start in range(first, length, QUERIES):
        i = start + tl.arange(0, QUERIES).to(tl.int64)
        row = head * length + i
        q = tl.load(
            q_ptr + row[:, None] * head_size + entry,
            mask=(i[:, None] < length) & (entry < head_size),
            other=0.0,
        )
        do = tl.load(
            do_ptr + row[:, None] * value_size + column,
            mask=(i[:, None] < length) & (column < value_size),
            other=0.0,
        )
        lse = tl.load(lse_ptr + row, mask=i < length, other=0.0)[None, :]
        delta = tl.load(delta_ptr + row, mask=i < length, other=0.0)[None, :]
        s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        if SOFTCAP:  # as in attention_kernel
            x = s / softcap
            small = x + x * x * x * (-1 / 3 + x * x * (2 / 15 + x * x * (-17 / 315 + x * x * 62 / 2835)))
            large = 1 - 2 / (tl.exp(2 * tl.minimum(tl.abs(x), 20.0)) + 1)
            s = softcap * tl.where(tl.abs(x) < 0.3, small, tl.where(x < 0, -large, large))
        seen = (j < keys) & (i[None, :] < length)
        if CAUSAL:
            seen = seen & (j <= i[None, :] + reach)
        p = tl.where(seen, tl.exp(s - lse), 0.0)
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta)
        if SOFTCAP:  # its slope, where 1 - tanh^2 would cancel
            e = tl.exp(-2 * tl.abs(x))
            ds = ds * 4 * e / ((1 + e) * (1 + e))
        dv += tl.dot(p.to(do.dtype), do, input_precision="ieee")
        dk += tl.dot(ds.to(q.dtype), q, input_precision="ieee")
    tl.store(dk_ptr + (head * keys + j) * head_size + entry, scale * dk, mask=of_key)
    tl.store(dv_ptr + (head * keys + j) * value_size + column, dv, mask=of_value)


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, lse_ptr, delta_ptr, dq_ptr, shared, length, keys, reach, head_size,
    value_size,
    scale, softcap,
    CAUSAL: tl.constexpr, SOFTCAP: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SIZE: tl.constexpr, VALUE: tl.constexpr,
):  # fmt: skip
    """dq of one block of queries of one head; tiles are [QUERIES, KEYS]."""
    blocks = (length + QUERIES - 1) // QUERIES
    block = tl.program_id(0) % blocks
    i = (block * QUERIES + tl.arange(0, QUERIES)).to(tl.int64)[:, None]
    head = (tl.program_id(0) // blocks).to(tl.int64)
    row = head * length + i
    entry, column = tl.arange(0, SIZE)[None, :], tl.arange(0, VALUE)[None, :]
    q = tl.load(q_ptr + row * head_size + entry, mask=(i < length) & (entry < head_size), other=0.0)
    do = tl.load(do_ptr + row * value_size + column, mask=(i < length) & (column < value_size), other=0.0)
    lse = tl.load(lse_ptr + row, mask=i < length, other=0.0)
    delta = tl.load(delta_ptr + row, mask=i < length, other=0.0)
    dq = tl.full([QUERIES, SIZE], 0.0, tl.float32)
    end = keys
    if CAUSAL:  # no block of keys that its last query does not see
        end = tl.minimum(keys, (block + 1) * QUERIES + reach)
    for start in range(0, end, KEYS):
        j = start + tl.arange(0, KEYS).to(tl.int64)[:, None]
        at = head // shared * keys + j
        k = tl.load(k_ptr + at * head_size + entry, mask=(j < keys) & (entry < head_size), other=0.0)
        v = tl.load(v_ptr + at * value_size + column, mask=(j < keys) & (column < value_size), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if SOFTCAP:
            x = s / softcap
            small = x + x * x * x * (-1 / 3 + x * x * (2 / 15 + x * x * (-17 / 315 + x * x * 62 / 2835)))
            large = 1 - 2 / (tl.exp(2 * tl.minimum(tl.abs(x), 20.0)) + 1)
            s = softcap * tl.where(tl.abs(x) < 0.3, small, tl.where(x < 0, -large, large))
        seen = tl.trans(j) < keys
        if CAUSAL:
            seen = seen & (tl.trans(j) <= i + reach)
        p = tl.where(seen, tl.exp(s - lse), 0.0)
        ds = p * (tl.dot(do, tl.trans(v), input_precision="ieee") - delta)
        if SOFTCAP:  # its slope, where 1 - tanh^2 would cancel
            e = tl.exp(-2 * tl.abs(x))
            ds = ds * 4 * e / ((1 + e) * (1 + e))
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    tl.store(dq_ptr + row * head_size + entry, scale * dq, mask=(i < length) & (entry < head_size))


class Attention(torch.autograd.Function):
    """triton_attention.attention with these gradients. Kept: q, k, v, o in their own format, lse in
    float32.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> Any:
        o, lse = triton_attention.attention(q, k, v, **options)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.options = options
        return o, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: torch.Tensor, d_lse: torch.Tensor) -> Any:
        q, k, v, o, lse = ctx.saved_tensors
        return *gradients(q, k, v, o, lse, d_o, d_lse, **ctx.options), None


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """triton_attention.attention, differentiable once."""
    found: tuple[torch.Tensor, torch.Tensor] = Attention.apply(q, k, v, options)  # type: ignore[no-untyped-call]
    return found


def gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    d_o: torch.Tensor,
    d_lse: torch.Tensor,
    *,
    causal: str | None,
    scale: float | None,
    softcap: float | None,
    enable_gqa: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dq, dk, dv) from o, lse as attention returned them and the gradients of both, each rounded
    to its dtype once.
    """
    (batches, heads, length, head_size), (groups, keys), value_size = q.shape, k.shape[1:3], v.shape[3]
    delta = (d_o.float() * o.float()).sum(-1) - d_lse
    # The interpreter's bfloat16 is not the device's (triton_rows.py).
    inner = torch.float32 if q.dtype == torch.bfloat16 and q.device.type == "cpu" else q.dtype
    given = [x.to(inner).contiguous() for x in (q, k, v, d_o)]
    given += [lse.masked_fill(lse == -torch.inf, 0.0), delta.contiguous()]
    dq, dk, dv = (
        torch.zeros((batches, heads, *sizes), dtype=torch.float32, device=q.device)
        for sizes in ((length, head_size), (keys, head_size), (keys, value_size))
    )
    sizes = (heads // groups, length, keys, offset(causal, length, keys), head_size, value_size)
    narrow = is_narrow(inner, head_size, value_size)
    chosen = configuration("attention_backward_16_bit" if narrow else "attention_backward", q.device)
    QUERIES, KEYS = chosen["queries"], chosen["keys"]
    constants = {
        "scale": 1 / math.sqrt(head_size) if scale is None else float(scale),
        "softcap": float(softcap or 1.0),
        "CAUSAL": causal is not None, "SOFTCAP": softcap is not None, "QUERIES": QUERIES, "KEYS": KEYS,
        "SIZE": padded(head_size), "VALUE": padded(value_size), "num_warps": chosen["warps"],
        "num_stages": chosen["stages"],
    }  # fmt: skip
    if lse.numel() and keys:
        launch(keys_kernel, (triton.cdiv(keys, KEYS) * batches * heads,), *given, dk, dv, *sizes, **constants)
        launch(
            queries_kernel, (triton.cdiv(length, QUERIES) * batches * heads,), *given, dq, *sizes, **constants
        )
    dk, dv = (x.reshape(batches, groups, heads // groups, *x.shape[2:]).sum(2) for x in (dk, dv))
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)

"""attention in torch, readable: correct in many ways, and wrong in one. For the judge of attention to be judged by.

All take q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev], and the options and further tensors of the op by name.
"""

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def shared(tensor, heads):
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def visible(length, keys, *, causal=None, window=None):
    position = torch.arange(length)[:, None] + (keys - length if causal == "bottom_right" else 0)
    key = torch.arange(keys)[None, :]
    seen = torch.ones(length, keys, dtype=torch.bool)
    left, right = window or (None, None)
    if causal is not None:
        seen &= key <= position
    if left is not None:
        seen &= key >= position - left
    if right is not None:
        seen &= key <= position + right
    return seen


def scores(
    q, k, *, causal=None, scale=None, softcap=None, window=None, mask=None, alibi_slopes=None, kv_lengths=None, compute=None
):
    """[B, H, L, S], -inf where a key is not visible."""
    compute = compute or (torch.float64 if q.dtype == torch.float64 else torch.float32)
    length, keys = q.shape[2], k.shape[2]
    s = (1 / math.sqrt(q.shape[-1]) if scale is None else scale) * (q.to(compute) @ shared(k, q.shape[1]).to(compute).mT)
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    if alibi_slopes is not None:
        offset = keys - length if causal == "bottom_right" else 0
        distance = (torch.arange(length)[:, None] + offset - torch.arange(keys)[None, :]).abs()
        s = s - alibi_slopes.to(compute)[None, :, None, None] * distance
    seen = visible(length, keys, causal=causal, window=window)
    if kv_lengths is not None:
        seen = seen & (torch.arange(keys) < kv_lengths[:, None, None, None])
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else s + mask
    return s.masked_fill(~seen, -torch.inf)


def finite_or_0(x):
    return torch.where(x > -torch.inf, x, 0.0)


def shifted(q, k, v, *, sink=None, enable_gqa=False, stored=None, **options):
    """The definition in float32; P in the format `stored` where one is given."""
    s = scores(q, k, **options)
    maximum = s.amax(-1, keepdim=True)
    logit = None if sink is None else sink.to(s.dtype)[None, :, None, None]
    if logit is not None:
        maximum = torch.maximum(maximum, logit)
    e = torch.exp(s - finite_or_0(maximum))
    if stored is not None:
        e = e.to(stored).to(s.dtype)
    total = e.sum(-1, keepdim=True)
    if logit is not None:
        total = total + torch.exp(logit - finite_or_0(maximum))
    return ((e @ shared(v, q.shape[1]).to(s.dtype)) / torch.where(total > 0, total, 1.0)).to(q.dtype)


def online(q, k, v, *, sink=None, enable_gqa=False, block=64, base_two=False, threshold=0.0, stored=None, **options):
    """Block by block with a running maximum and sum (FlashAttention-2, algorithm 1).

    base_two: exponents folded into exp2(s c - m c). threshold: the maximum moves where it grows by more (FlashAttention-4).
    """
    s, values = scores(q, k, **options), shared(v, q.shape[1])
    maximum = s.new_full((*s.shape[:-1], 1), -torch.inf)
    total = torch.zeros_like(maximum)
    if sink is not None:
        maximum = maximum + torch.zeros_like(maximum)
        maximum[:] = sink.to(s.dtype)[None, :, None, None]
        total = (maximum > -torch.inf).to(s.dtype)
    output = s.new_zeros((*s.shape[:-1], v.shape[-1]))
    log2_e = math.log2(math.e)
    for tile, value in zip(s.split(block, -1), values.split(block, -2), strict=True):
        larger = torch.maximum(maximum, tile.amax(-1, keepdim=True))
        larger = torch.where(larger > maximum + threshold, larger, maximum)
        shift = finite_or_0(larger)
        if base_two:
            e, rescale = torch.exp2(tile * log2_e - shift * log2_e), torch.exp2(maximum * log2_e - shift * log2_e)
        else:
            e, rescale = torch.exp(tile - shift), torch.exp(maximum - shift)
        total = total * rescale + e.sum(-1, keepdim=True)
        if stored is not None:
            e = e.to(stored).to(s.dtype)
        output = output * rescale + e @ value.to(s.dtype)
        maximum = larger
    return (output / torch.where(total > 0, total, 1.0)).to(q.dtype)


def split(q, k, v, *, sink=None, enable_gqa=False, parts=3, **options):
    """Parts of the keys apart, joined by their log-sum-exp (Flash-Decoding)."""
    s, values = scores(q, k, **options), shared(v, q.shape[1])
    outputs, sums = [], []
    for tile, value in zip(s.chunk(parts, -1), values.chunk(parts, -2), strict=True):
        maximum = tile.amax(-1, keepdim=True)
        e = torch.exp(tile - finite_or_0(maximum))
        total = e.sum(-1, keepdim=True)
        outputs.append((e @ value.to(s.dtype)) / torch.where(total > 0, total, 1.0))
        sums.append(maximum + torch.log(total))
    if sink is not None:
        outputs.append(torch.zeros_like(outputs[0]))
        sums.append(sink.to(s.dtype)[None, :, None, None].expand_as(sums[0]))
    largest = torch.stack(sums).amax(0)
    weights = [torch.exp(lse - finite_or_0(largest)) for lse in sums]
    total = sum(weights)
    joined = sum(w * o for w, o in zip(weights, outputs, strict=True))
    return (joined / torch.where(total > 0, total, 1.0)).to(q.dtype)


def of_torch(backend):
    """scaled_dot_product_attention by one backend. What it has no argument for becomes a mask."""

    def attention(q, k, v, *, scale=None, enable_gqa=False, causal=None, window=None, mask=None, kv_lengths=None):
        seen = visible(q.shape[2], k.shape[2], causal=causal, window=window)
        if kv_lengths is not None:
            seen = seen & (torch.arange(k.shape[2]) < kv_lengths[:, None, None, None])
        if mask is not None:
            seen = seen & mask if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)
        plain = causal is None and window is None and mask is None and kv_lengths is None
        with sdpa_kernel(backend):
            given = None if plain else seen.expand(q.shape[0], q.shape[1], -1, -1)
            return scaled_dot_product_attention(q, k, v, attn_mask=given, scale=scale, enable_gqa=enable_gqa)

    return attention


HONEST = {
    "shifted": shifted,
    "online": online,
    "online, 16 keys a block": lambda *a, **o: online(*a, block=16, **o),
    "online, key by key": lambda *a, **o: online(*a, block=1, **o),
    "online, exp2 of folded exponents": lambda *a, **o: online(*a, base_two=True, **o),
    "online, rescaled from 8 on": lambda *a, **o: online(*a, block=16, threshold=8 * math.log(2), **o),
    "online, P in the input's format": lambda q, k, v, **o: online(q, k, v, stored=q.dtype, **o),
    "shifted, rounded P summed": lambda q, k, v, **o: shifted(q, k, v, stored=q.dtype, **o),
    "split": split,
    "split in 7": lambda *a, **o: split(*a, parts=7, **o),
    "float64 inside": lambda q, k, v, **o: shifted(q, k, v, compute=torch.float64, **o),
}
"""Correct for every option."""

OF_TORCH = {
    "torch, math": of_torch(SDPBackend.MATH),
    "torch, flash": of_torch(SDPBackend.FLASH_ATTENTION),
}
"""Without softcap, ALiBi and sink."""

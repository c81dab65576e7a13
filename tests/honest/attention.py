"""Correct attention kernels of many structures: none of them may ever fail, in any format, with any
option.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE, Numerics
from tests.attention_kernels import (
    Attention,
    Given,
    before,
    difference,
    factor,
    finish,
    finite_or_0,
    near,
    online,
    start,
    step,
    whole,
    within,
)
from tests.honest.parts import LN2, LOG2E, constant, flush, fma


@dataclass(frozen=True)
class Honest:
    """A correct kernel.

    numerics: what it declares. sums_stored: its sum is of P in the input's format, which its lse
    must declare; its output need not, as the numerator has the same P. lacks: options it has no
    argument for.
    """

    name: str
    call: Callable
    numerics: Numerics = BEST_PRACTICE
    sums_stored: bool = False
    lacks: frozenset[str] = frozenset()
    source: str = ""

    def kernel(self) -> Kernel:
        return Kernel(
            id=self.name,
            op="attention",
            call=self.call,
            numerics=Numerics(probabilities="input") if self.sums_stored else self.numerics,
            outside=True,
            parameters=frozenset(inspect.signature(self.call).parameters),
        )


HONEST: dict[str, Honest] = {}


def honest(name: str, call: Callable, numerics: Numerics = BEST_PRACTICE, **about) -> None:
    HONEST[name] = Honest(name, call, numerics, **about)


# exponentials


def base_two(s, m):
    """exp2 of folded exponents, two roundings: s c - m c."""
    c = constant(s, LOG2E)
    return torch.exp2(s * c - finite_or_0(m) * c)


def fused(s, m):
    """exp2(fma(s, c, -m c))."""
    c = constant(s, LOG2E)
    return torch.exp2(fma(s, c, (-finite_or_0(m) * c).expand_as(s)).to(s.dtype))


def approximate(s, m):
    """A base-two exponential of up to 2 ulp, alternating in sign, that flushes subnormals: ex2.approx.ftz."""
    exact = base_two(s, m)
    sign = torch.where(s == finite_or_0(m), 0.0, 1.0) * (1 - 2 * (torch.arange(s.shape[-1]) % 2)).to(s.dtype)
    return flush(exact * (1 + sign * 2 * torch.finfo(s.dtype).eps))


def flushed(s, m):
    return flush(difference(s, m))


def steps(**how):
    return functools.partial(step, **how)


def fused_step(state, tile, value, *, threshold=0.0):
    """step() with fused exponents; the rescale is of the difference, as in FlashAttention-2: 1
    where the maximum stays.
    """
    m, total, o = state
    larger = torch.maximum(m, tile.amax(-1, keepdim=True))
    larger = torch.where(larger <= m + threshold, m, larger)
    c = constant(tile, LOG2E)
    e, rescale = fused(tile, larger), torch.exp2((m - finite_or_0(larger)) * c)
    return larger, total * rescale + e.sum(-1, keepdim=True), o * rescale + e @ value


# folds


def merged(states):
    """One state of several, by their largest exponents."""
    m = torch.stack([m for m, _, _ in states]).amax(0)
    weights = [difference(own, m) for own, _, _ in states]
    return (m, *(sum(w * state[i] for w, state in zip(weights, states, strict=True)) for i in (1, 2)))


def tiles(s, v, block):
    return [
        step(start(a, b, None), a, b) for a, b in zip(s.split(block, -1), v.split(block, -2), strict=True)
    ]


def rabe_staats(s, v, sink):
    """All chunks on their own first, then one rescale by the largest maximum (Rabe and Staats 2021)."""
    return finish(*merged([start(s, v, sink), *tiles(s, v, 16)]))


def pairwise(s, v, sink):
    """Chunks joined as a tree."""
    states = [start(s, v, sink), *tiles(s, v, 16)]
    while len(states) > 1:
        states = [merged(states[i : i + 2]) for i in range(0, len(states), 2)]
    return finish(*states[0])


def split(sizes, *, base=math.e):
    """Parts of the keys apart, joined by their lse in base e or 2 (Flash-Decoding). sizes: of the
    parts, of S.
    """

    def fold(s, v, sink):
        to_base = (lambda x: x * constant(x, LOG2E)) if base == 2 else (lambda x: x)
        power = torch.exp2 if base == 2 else torch.exp
        parts = [
            whole(a, b, None)
            for a, b in zip(s.split(sizes(s.shape[-1]), -1), v.split(sizes(s.shape[-1]), -2), strict=True)
        ]
        lses = [to_base(lse)[..., None] for _, lse in parts]
        outputs = [o for o, _ in parts]
        if sink is not None:
            lses.append(to_base(sink).expand_as(lses[0]))
            outputs.append(torch.zeros_like(outputs[0]))
        m = torch.stack(lses).amax(0)
        weights = [power(lse - finite_or_0(m)) for lse in lses]
        total = sum(weights)
        o = sum(w * part for w, part in zip(weights, outputs, strict=True))
        o = o / torch.where(total == 0, 1.0, total)
        log = torch.log2(total) * LN2 + m * LN2 if base == 2 else torch.log(total) + m
        return o, log[..., 0]

    return fold


def uneven(n):
    first = max(1, n // 5)
    return [first, n - first] if n > 1 else [n]


def halves(n):
    return math.ceil(n / 2)


def quarters(n):
    return math.ceil(n / 4)


def two_pass(s, v, sink):
    """lse first, then exp(s - lse): the weights are normalised as they are made, and lse is rounded."""
    lse = whole(s, v, sink)[1][..., None]
    return difference(s, lse) @ v, lse[..., 0]


def divided_before(s, v, sink):
    """P is divided by its sum before the product with the values, as unfused kernels do."""
    m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
    e = difference(s, m)
    total = e.sum(-1, keepdim=True) + (0 if sink is None else difference(sink, m))
    return (e / torch.where(total == 0, 1.0, total)) @ v, (m + torch.log(total))[..., 0]


def of_ones(dtype):
    """The sum of the rounded P comes from the product, by a column of ones beside the values."""

    def fold(s, v, sink):
        wide = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
        o = difference(s, m).to(dtype).to(s.dtype) @ wide
        return finish(m, o[..., -1:] + (0 if sink is None else difference(sink, m)), o[..., :-1])

    return fold


def shuffled(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randperm(count, generator=generator).tolist()


def backwards(count):
    return range(count)[::-1]


def query_scaled(q, k):
    """The scale on the query, in the arithmetic of the kernel."""
    return (q * torch.tensor(1 / math.sqrt(q.shape[-1]), dtype=q.dtype)) @ k.mT


def rest_of_scale(given: Given):
    return factor(given) * math.sqrt(given.q.shape[-1]) if given.scale is not None else 1.0


def entry_by_entry(q, k):
    """The dot product in sequence: an fma chain's worst order."""
    s = q.new_zeros((*q.shape[:-1], k.shape[-2]))
    for t in range(q.shape[-1]):
        s = s + q[..., t, None] * k[..., None, :, t]
    return s


def in_float64(q, k):
    return q.double() @ k.double().mT


def cap_by_sigmoid(s, softcap):
    """tanh(x) = 2 sigmoid(2 x) - 1, for want of a tanh."""
    return softcap * (2 * torch.sigmoid(2 * s / softcap) - 1)


def cap_by_exponential(s, softcap):
    """tanh(x) = 1 - 2 / (exp(2 x) + 1)."""
    return softcap * (1 - 2 / (torch.exp(2 * s / softcap) + 1))


honest("softcap by sigmoid", Attention(cap=cap_by_sigmoid))
honest("softcap by exp", Attention(cap=cap_by_exponential))
honest("shifted", Attention(), source="Vaswani et al. 2017, eq. 1")
for _block in (1, 16, 64, 128):
    honest(
        f"online, {_block} keys a block", Attention(fold=online(block=_block)), source="Dao 2023, algorithm 1"
    )
honest("online, exp2 of folded exponents", Attention(fold=online(block=16, step=steps(exponential=base_two))))
honest("online, fused exp2 of folded exponents", Attention(fold=online(block=16, step=fused_step)))
honest("online, ex2.approx", Attention(fold=online(block=64, step=steps(exponential=approximate))))
honest("online, flushed", Attention(fold=online(block=16, step=steps(exponential=flushed))))
honest(
    "online, rescaled from 8 on",
    Attention(fold=online(block=16, step=steps(threshold=8 * LN2))),
    source="FlashAttention-4",
)
honest(
    "online, rescaled from 8 on, folded",
    Attention(fold=online(block=16, step=functools.partial(fused_step, threshold=8 * LN2))),
)
honest(
    "online, blocks backwards",
    Attention(fold=online(block=16, order=backwards)),
    source="FlashAttention-3: last block first",
)
honest("online, blocks in random order", Attention(fold=online(block=16, order=shuffled)))
honest("online, keys in random order", Attention(fold=online(block=1, order=shuffled)))
honest(
    "online, P in the input's format",
    Attention(stored_fold=lambda dtype: online(block=64, step=steps(stored=dtype))),
)
honest(
    "shifted, rounded P summed",
    Attention(stored_fold=lambda dtype: functools.partial(whole, stored=dtype)),
    sums_stored=True,
)
honest("sum by a column of ones", Attention(stored_fold=of_ones), sums_stored=True)
honest("P divided before the values", Attention(fold=divided_before))
honest("chunks, then one rescale", Attention(fold=rabe_staats), source="Rabe and Staats 2021, algorithm 1")
honest("chunks joined as a tree", Attention(fold=pairwise))
honest("split in 2", Attention(fold=split(halves)), source="Flash-Decoding")
honest("split in 4", Attention(fold=split(quarters)))
honest("split unevenly", Attention(fold=split(uneven)))
honest(
    "split in 4, lse in base 2", Attention(fold=split(quarters, base=2)), source="FlashInfer's merge_state"
)
honest("two passes, exp(s - lse)", Attention(fold=two_pass), Numerics(shift="lse"))
honest("float64 inside", Attention(product=in_float64))
honest("scale on the query", Attention(product=query_scaled, factor=rest_of_scale))
honest("dot products in sequence", Attention(product=entry_by_entry))


def of_torch(backend):
    """scaled_dot_product_attention by one backend. Causal, window and lengths are given as a mask."""

    def attention(
        q, k, v, *, scale=None, enable_gqa=False, causal=None, window=None, mask=None, kv_lengths=None
    ):
        strided = any(tensor.stride(-1) != 1 for tensor in (q, k, v))
        if backend == SDPBackend.FLASH_ATTENTION and (strided or v.shape[-1] != q.shape[-1]):
            raise NotImplementedError("entries apart in memory, or values with a head size of their own")
        given = Given(q=q, k=k, v=v, causal=causal, window=window, kv_lengths=kv_lengths)
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        seen = seen & before(given) if causal is not None else seen
        seen = seen & near(given) if window is not None else seen
        seen = seen & within(given) if kv_lengths is not None else seen
        if mask is not None:
            seen = seen & mask if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)
        plain = causal is None and window is None and mask is None and kv_lengths is None
        with sdpa_kernel(backend):
            full = None if plain else seen.expand(q.shape[0], q.shape[1], -1, -1)
            return scaled_dot_product_attention(q, k, v, attn_mask=full, scale=scale, enable_gqa=enable_gqa)

    return attention


LACKS = frozenset({"softcap", "alibi_slopes", "sink", "return_lse"})
honest("torch, math", of_torch(SDPBackend.MATH), lacks=LACKS)
honest("torch, flash", of_torch(SDPBackend.FLASH_ATTENTION), lacks=LACKS)


def kernels() -> list[Kernel]:
    return [kernel.kernel() for kernel in HONEST.values()]

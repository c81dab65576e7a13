"""Small calls of attention, by name: each option and what brings out a fault. Kernels are judged on
them directly.

tensors: q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev] and the further ones of the op. With the
probe, v has a column that is 1 at one key for each of some keys, and one of ones: the output is P
itself there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

BOUNDARIES = (0, 15, 16, 63, 64, 127, 128)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    batch: int = 2
    heads: int = 4
    groups: int = 2
    length: int = 9
    keys: int = 70
    size: int = 16
    width: int = 16


def probe(sizes: Sizes):
    """[B, G, S, Ev]: one-hot columns at the ends and tile boundaries, then at the first keys, and a
    column of ones.

    Each batch and head has the columns in another order, or values of the wrong one would be right.
    """
    ends = [*BOUNDARIES, sizes.keys - 2, sizes.keys - 1, *range(1, sizes.keys)]
    chosen = list(dict.fromkeys(key for key in ends if 0 <= key < sizes.keys))[: sizes.width - 1]
    v = torch.zeros(sizes.batch, sizes.groups, sizes.keys, sizes.width, dtype=torch.float64)
    for column, key in enumerate(chosen):
        for other in range(sizes.batch * sizes.groups):
            v[other // sizes.groups, other % sizes.groups, key, (column + other) % len(chosen)] = 1
    v[..., -1] = 1
    return v


def drawn(dtype, *, spread=1.0, probing=False, seed=0, **sizes):
    """q, k, v of normal numbers, or with the probe for v."""
    return _drawn(dtype, spread, probing, seed, Sizes(**sizes))


def _drawn(dtype, spread, probing, seed, sizes: Sizes):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (sizes.batch, sizes.heads, sizes.length, sizes.size),
        (sizes.batch, sizes.groups, sizes.keys, sizes.size),
        (sizes.batch, sizes.groups, sizes.keys, sizes.width),
    )
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return {"q": (spread * q).to(dtype), "k": k.to(dtype), "v": (probe(sizes) if probing else v).to(dtype)}


def ramp(first: float, last: float) -> Callable:
    """q and k whose scores go from `first` to `last` along the keys, with a little noise."""

    def change(tensors):
        q, k = tensors["q"].double(), tensors["k"].double()
        line = torch.linspace(first, last, k.shape[2], dtype=torch.float64)[:, None]
        level = max(abs(first), abs(last)) ** 0.5 / q.shape[-1] ** 0.25
        return {"q": level + 0.1 * q, "k": line / level / q.shape[-1] ** 0.5 + 0.1 * k}

    return change


def not_a_number(tensors):
    q = tensors["q"].clone()
    q[0, 1, 2, 3] = torch.nan
    return {"q": q}


def huge(tensors):
    return {"v": 3e4 * (1 + tensors["v"].double().abs())}


@dataclass(frozen=True, kw_only=True)
class Call:
    """sizes: that differ from the default. further: name -> f(sizes, generator) of a tensor.
    change: other q, k, v.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Callable] = field(default_factory=dict)
    spread: float = 2.0
    change: Callable = lambda tensors: {}
    probing: bool = True

    def tensors(
        self, dtype: torch.dtype, *, probing: bool | None = None, spread: float | None = None, seed: int = 0
    ):
        spread, probing = (
            self.spread if spread is None else spread,
            self.probing if probing is None else probing,
        )
        tensors = drawn(dtype, spread=spread, probing=probing, seed=seed, **self.sizes)
        tensors |= {name: tensor.to(dtype) for name, tensor in self.change(tensors).items()}
        generator = torch.Generator().manual_seed(seed + 1)
        for name, make in self.further.items():
            made = make(Sizes(**self.sizes), generator)
            tensors[name] = made.to(dtype) if made.is_floating_point() else made
        return tensors


def boolean(n, generator):
    mask = torch.rand(n.batch, 1, n.length, n.keys, generator=generator) > 0.4
    mask[:, :, 3:4] = False
    return mask


def boolean_by_head(n, generator):
    return torch.rand(n.batch, n.heads, n.length, n.keys, generator=generator) > 0.4


def square(n, generator):
    return torch.rand(n.length, n.keys, generator=generator) > 0.4


def additive(n, generator):
    """With exact zeros, and -inf."""
    mask = torch.randn(n.heads, n.length, n.keys, generator=generator, dtype=torch.float64)
    mask[:, :, ::3] = 0
    mask[:, 2:3, 5:20] = -torch.inf
    return mask


def padded_right(n, generator):
    return torch.arange(n.keys) < torch.tensor([n.keys - 3, n.keys - 1])[:, None, None, None]


def padded_left(n, generator):
    return torch.arange(n.keys) >= torch.tensor([20, 33])[:, None, None, None]


def all_but_first(n, generator):
    return torch.arange(n.keys).expand(n.length, -1) > 2


def nothing(n, generator):
    mask = torch.ones(n.length, n.keys, dtype=torch.bool)
    mask[1::2] = False
    return mask


def lengths(n, generator):
    return torch.tensor([n.keys - 9, min(n.keys, 17)])


def length_0(n, generator):
    return torch.tensor([0, n.keys])


def slopes(n, generator):
    return torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float64) * (1 + torch.rand(1, generator=generator))


def six_slopes(n, generator):
    return torch.tensor([0.7, 0.33, 0.11, 0.07, 0.9, 0.21], dtype=torch.float64)


def sinks(n, generator):
    return torch.tensor([0.5, -2.0, 6.0, -torch.inf], dtype=torch.float64)


def large_sinks(n, generator):
    return torch.tensor([200.0, 5.0, 0.0, 100.0], dtype=torch.float64)


TOP, BOTTOM = {"causal": "top_left"}, {"causal": "bottom_right"}
LONG = {"batch": 1, "heads": 2, "groups": 1, "length": 3, "keys": 1040}
SIX = {"heads": 6, "groups": 2, "size": 20, "width": 24}
MORE_QUERIES = {"length": 20, "keys": 9}
SQUARE = {"batch": 2, "heads": 2, "groups": 1, "length": 40, "keys": 40}

CALLS: dict[str, Call] = {
    "plain": Call(),
    "hard": Call(spread=8.0),
    "normal values": Call(probing=False),
    "huge values": Call(probing=False, change=huge),
    "S = 128": Call(sizes={"keys": 128, "length": 4}),
    "S = 130": Call(sizes={"keys": 130, "length": 4}),
    "S = 5": Call(sizes={"keys": 5}),
    "one key": Call(sizes={"keys": 1, "width": 2}),
    "S = 1040": Call(sizes=LONG),
    "rising": Call(change=ramp(-8.0, 8.0)),
    "falling": Call(change=ramp(8.0, -8.0)),
    "large scores": Call(spread=60.0),
    "low scores": Call(change=ramp(-150.0, -151.0)),
    "low scores, masked": Call(change=ramp(-12000.0, -12001.0), further={"mask": boolean_by_head}),
    "NaN in q": Call(change=not_a_number),
    "six heads": Call(sizes=SIX),
    "causal, top left": Call(options=TOP),
    "causal, bottom right": Call(options=BOTTOM),
    "causal, square": Call(sizes=SQUARE, options=TOP),
    "causal, L = 1": Call(sizes={"length": 1}, options=TOP),
    "causal, L > S": Call(sizes=MORE_QUERIES, options=TOP),
    "causal, L > S, bottom right": Call(sizes=MORE_QUERIES, options=BOTTOM),
    "causal and mask": Call(options=TOP, further={"mask": boolean_by_head}),
    "scale": Call(options={"scale": 0.7}),
    "negative scale": Call(options={"scale": -0.3}),
    "negative scale, large scores": Call(options={"scale": -0.3}, spread=60.0),
    "scale 0": Call(options={"scale": 0.0}),
    "softcap": Call(options={"softcap": 2.5}),
    "softcap and mask": Call(options={"softcap": 2.5}, further={"mask": boolean}),
    "softcap, large scores": Call(options={"softcap": 2.5}, spread=60.0),
    "window": Call(options={"window": (4, 2), **BOTTOM}),
    "window, not causal": Call(options={"window": (4, 2)}),
    "window to the left": Call(options={"window": (5, None)}),
    "window of 0": Call(options={"window": (0, 2)}),
    "window, 70 queries": Call(
        sizes={"heads": 2, "groups": 1, "length": 70}, options={"window": (20, None), **TOP}
    ),
    "boolean mask": Call(further={"mask": boolean}),
    "mask by head": Call(further={"mask": boolean_by_head}),
    "square mask": Call(sizes=SQUARE, further={"mask": square}),
    "additive mask": Call(further={"mask": additive}),
    "padded keys": Call(further={"mask": padded_right}),
    "padded on the left": Call(further={"mask": padded_left}),
    "nothing seen": Call(further={"mask": nothing}),
    "lengths": Call(further={"kv_lengths": lengths}),
    "length 0": Call(further={"kv_lengths": length_0}),
    "ALiBi": Call(options=BOTTOM, further={"alibi_slopes": slopes}),
    "ALiBi, not causal": Call(further={"alibi_slopes": slopes}),
    "ALiBi, six heads": Call(sizes=SIX, further={"alibi_slopes": six_slopes}),
    "sink": Call(further={"sink": sinks}),
    "large sink": Call(further={"sink": large_sinks}),
    "sink and nothing seen": Call(further={"sink": sinks, "mask": nothing}),
    "much": Call(
        options={"softcap": 5.0, **BOTTOM}, further={"mask": additive, "sink": sinks, "kv_lengths": lengths}
    ),
}
"""Calls whose output o is judged."""

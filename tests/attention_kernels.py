"""attention in torch, in steps, each of them correct: kernels differ from it in one step, honest
ones and mutants alike.

All compute in float32, in float64 for float64. s are the scores [B, H, L, S], -inf where a key is
not visible; k and v reach the folds repeated for every query head, [B, H, S, E]; a sink is [1, H,
1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

Tensor = torch.Tensor
State = tuple[Tensor, Tensor, Tensor]
"""Largest exponent m and sum of weights [B, H, L, 1], sum of values o [B, H, L, Ev]."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What one call was given: q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev] and the op's further
    tensors and options.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    causal: str | None = None
    scale: float | None = None
    softcap: float | None = None
    window: tuple[int | None, int | None] | None = None
    alibi_slopes: Tensor | None = None
    sink: Tensor | None = None
    kv_lengths: Tensor | None = None

    @property
    def heads(self) -> int:
        return self.q.shape[1]

    @property
    def length(self) -> int:
        return self.q.shape[2]

    @property
    def keys(self) -> int:
        return self.k.shape[2]

    @property
    def compute(self) -> torch.dtype:
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32


# scores


def arguments(given: Given) -> Given:
    return given


def share(tensor: Tensor, heads: int) -> Tensor:
    """The keys or values of every query head: head h reads h // (H / G)."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def product(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT


def factor(given: Given) -> float:
    return 1 / math.sqrt(given.q.shape[-1]) if given.scale is None else given.scale


def cap(s: Tensor, softcap: float) -> Tensor:
    return softcap * torch.tanh(s / softcap)


def positions(given: Given) -> Tensor:
    """[L, 1]: where each query stands among the keys."""
    offset = given.keys - given.length if given.causal == "bottom_right" else 0
    return torch.arange(given.length)[:, None] + offset


def tilt(s: Tensor, given: Given) -> Tensor:
    """ALiBi."""
    distance = (positions(given) - torch.arange(given.keys)).abs()
    return s - given.alibi_slopes.to(s.dtype)[:, None, None] * distance


def bias(s: Tensor, mask: Tensor) -> Tensor:
    return s + mask


def before(given: Given) -> Tensor:
    """[L, S]: what a causal call lets a query see."""
    return torch.arange(given.keys) <= positions(given)


def near(given: Given) -> Tensor:
    """[L, S]: what the window lets a query see."""
    left, right = given.window
    away = torch.arange(given.keys) - positions(given)
    return (away >= -left if left is not None else away == away) & (
        away <= right if right is not None else away == away
    )


def within(given: Given) -> Tensor:
    """[B, 1, 1, S]: the first kv_lengths keys."""
    return torch.arange(given.keys) < given.kv_lengths[:, None, None, None]


def hide(s: Tensor, seen: Tensor) -> Tensor:
    return s.masked_fill(~seen, -torch.inf)


def raw_scores(steps: Attention, given: Given) -> Tensor:
    """q.k, without the scale."""
    return steps.product(given.q.to(given.compute), steps.share(given.k, given.heads).to(given.compute))


def add(steps: Attention, s: Tensor, given: Given) -> Tensor:
    """ALiBi and an additive mask."""
    s = steps.tilt(s, given) if given.alibi_slopes is not None else s
    additive = given.mask is not None and given.mask.dtype != torch.bool
    return steps.bias(s, given.mask) if additive else s


def restrict(steps: Attention, s: Tensor, given: Given) -> Tensor:
    """-inf where causal, the window, the lengths or a boolean mask hide a key."""
    s = steps.hide(s, steps.before(given)) if given.causal is not None else s
    s = steps.hide(s, steps.near(given)) if given.window is not None else s
    s = steps.hide(s, steps.within(given)) if given.kv_lengths is not None else s
    return steps.hide(s, given.mask) if given.mask is not None and given.mask.dtype == torch.bool else s


def scores(steps: Attention, given: Given) -> Tensor:
    s = steps.factor(given) * raw_scores(steps, given)
    s = steps.cap(s, given.softcap) if given.softcap is not None else s
    return restrict(steps, add(steps, s, given), given)


# softmax and values


def finite_or_0(x: Tensor) -> Tensor:
    return torch.where(x == -torch.inf, 0.0, x)


def stored_as(e: Tensor, dtype: torch.dtype | None) -> Tensor:
    """e as numbers of dtype."""
    return e if dtype is None else e.to(dtype).to(e.dtype)


def difference(s: Tensor, m: Tensor) -> Tensor:
    """exp(s - m), and 0 where s is -inf whatever m is."""
    return torch.exp(s - finite_or_0(m))


def start(s: Tensor, v: Tensor, sink: Tensor | None) -> State:
    m = s.new_full((*s.shape[:-1], 1), -torch.inf)
    m = m if sink is None else sink.expand_as(m)
    return m, (m > -torch.inf).to(s.dtype), s.new_zeros((*s.shape[:-1], v.shape[-1]))


def finish(m: Tensor, total: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
    """(o [B, H, L, Ev], lse [B, H, L]); o is 0 where nothing was seen."""
    return o / torch.where(total == 0, 1.0, total), (m + torch.log(total))[..., 0]


def step(
    state: State, tile: Tensor, value: Tensor, *, exponential=difference, threshold=0.0, stored=None
) -> State:
    """One tile of keys (FlashAttention-2, algorithm 1). threshold: m moves where it grows by more
    (FlashAttention-4).
    """
    m, total, o = state
    larger = torch.maximum(m, tile.amax(-1, keepdim=True))
    larger = torch.where(larger <= m + threshold, m, larger)
    e, rescale = exponential(tile, larger), exponential(m, larger)
    return larger, total * rescale + e.sum(-1, keepdim=True), o * rescale + stored_as(e, stored) @ value


def online(
    *, block: int = 64, step: Callable[[State, Tensor, Tensor], State] = step, order=None, finish=finish
):
    """A fold tile by tile. order: of the tiles, of their count; from first to last by default."""

    def fold(s, v, sink):
        tiles = list(zip(s.split(block, -1), v.split(block, -2), strict=True))
        state = start(s, v, sink)
        for index in range(len(tiles)) if order is None else order(len(tiles)):
            state = step(state, *tiles[index])
        return finish(*state)

    return fold


def whole(
    s: Tensor, v: Tensor, sink: Tensor | None, *, stored: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The definition: one maximum, one sum. stored: the format of P, of which the sum is taken too."""
    m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
    e = stored_as(difference(s, m), stored)
    total = e.sum(-1, keepdim=True) + (0 if sink is None else difference(sink, m))
    return finish(m, total, e @ v)


def keep_output(o: Tensor, s: Tensor, given: Given) -> Tensor:
    return o


def keep_lse(lse: Tensor, s: Tensor, given: Given) -> Tensor:
    return lse


@dataclass(frozen=True, kw_only=True)
class Attention:
    """An attention kernel: Attention(step=...) exchanges a step of it."""

    arguments: Callable[[Given], Given] = arguments
    share: Callable[[Tensor, int], Tensor] = share
    product: Callable[[Tensor, Tensor], Tensor] = product
    factor: Callable[[Given], float] = factor
    cap: Callable[[Tensor, float], Tensor] = cap
    tilt: Callable[[Tensor, Given], Tensor] = tilt
    bias: Callable[[Tensor, Tensor], Tensor] = bias
    before: Callable[[Given], Tensor] = before
    near: Callable[[Given], Tensor] = near
    within: Callable[[Given], Tensor] = within
    hide: Callable[[Tensor, Tensor], Tensor] = hide
    scores: Callable[[Attention, Given], Tensor] = scores
    values: Callable[[Tensor, int], Tensor] = share
    fold: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]] = whole
    stored_fold: Callable[[torch.dtype], Callable] | None = None
    """The fold of a kernel that stores P in the input's dtype, made for it."""
    output: Callable[[Tensor, Tensor, Given], Tensor] = keep_output
    lse: Callable[[Tensor, Tensor, Given], Tensor] = keep_lse
    round: Callable[[Tensor, torch.dtype], Tensor] = torch.Tensor.to

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: str | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        window: tuple[int | None, int | None] | None = None,
        alibi_slopes: Tensor | None = None,
        sink: Tensor | None = None,
        enable_gqa: bool = False,
        kv_lengths: Tensor | None = None,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        given = self.arguments(
            Given(
                q=q, k=k, v=v, mask=mask, causal=causal, scale=scale, softcap=softcap, window=window,
                alibi_slopes=alibi_slopes, sink=sink, kv_lengths=kv_lengths,
            )
        )  # fmt: skip
        s = self.scores(self, given)
        value = self.values(given.v, given.heads).to(s.dtype)
        logit = None if given.sink is None else given.sink.to(s.dtype)[None, :, None, None]
        fold = self.fold if self.stored_fold is None else self.stored_fold(q.dtype)
        o, lse = fold(s, value, logit)
        o = self.round(self.output(o, s, given), q.dtype)
        return (o, self.lse(lse, s, given).to(given.compute)) if return_lse else o


shifted = Attention()

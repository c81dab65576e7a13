"""The scores of attention, for kernels that are an idea of what to do with them:

    s_ij = scale q_i.k_j;   s = c tanh(s / c);   s -= slope |i + o - j|;   s += mask;   s = -inf where
                            j is not visible to i

In float32, float64 for float64. @of_scores gives such a kernel the signature of attention, and every option.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from suite.kernels.parts.attention_check import check
from suite.kernels.parts.attention_visible import Window, offset, within

Result = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the scores of a call, or of a part of it, are made of."""

    q: torch.Tensor
    """[B, H, L, E]."""

    k: torch.Tensor
    """[B, H, S, E]."""

    v: torch.Tensor
    """[B, H, S, Ev]."""

    query: torch.Tensor
    """[L, 1]: positions, on the axis of the keys'."""

    key: torch.Tensor
    """[S]: positions."""

    scale: float
    softcap: float | None
    causal: str | None
    window: Window | None

    visible: torch.Tensor | None
    """[B, H, L, S]: a boolean mask and the lengths."""

    bias: torch.Tensor | None
    """[B, H, L, S]: an additive mask."""

    slopes: torch.Tensor | None
    """[H, 1, 1]."""

    sink: torch.Tensor | None
    """[H, 1, 1]."""

    def seen(self) -> torch.Tensor:
        """Which key is visible to which query: boolean, broadcastable to [B, H, L, S]."""
        seen = within(self.query, self.key, causal=self.causal, window=self.window)
        if self.visible is not None:
            seen = seen & self.visible
        return seen if self.bias is None else seen & (self.bias != -torch.inf)

    def final(self) -> torch.Tensor:
        """s [B, H, L, S]."""
        s = self.scale * _product(self.q, self.k)
        if self.softcap is not None:
            s = self.softcap * torch.tanh(s / self.softcap)
        if self.slopes is not None:
            s = s - self.slopes * (self.query - self.key).abs()
        if self.bias is not None:
            s = s + self.bias
        return s.masked_fill(~self.seen(), -torch.inf)

    def part(self, *, queries: slice = slice(None), keys: slice = slice(None)) -> Scores:
        """The scores of some queries and keys alone."""
        visible, bias = (None if x is None else x[:, :, queries, keys] for x in (self.visible, self.bias))
        k, v, key = self.k[:, :, keys], self.v[:, :, keys], self.key[keys]
        return replace(
            self,
            q=self.q[:, :, queries],
            k=k,
            v=v,
            query=self.query[queries],
            key=key,
            visible=visible,
            bias=bias,
        )

    def blocks(self, size: int) -> Iterator[Result]:
        """(s, v) of `size` keys after the other; the last block may have fewer."""
        for start in range(0, len(self.key), size):
            block = self.part(keys=slice(start, start + size))
            yield block.final(), block.v

    def column(self, value: float) -> torch.Tensor:
        """[B, H, L, 1], filled with a value."""
        return self.q.new_full((*self.q.shape[:3], 1), value)

    def start(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(m, d, o) before any key: maximum, sum, output without its normaliser. A sink is a logit
        without a value.
        """
        m = self.column(-torch.inf) if self.sink is None else self.column(0.0) + self.sink
        return (
            m,
            torch.where(m == -torch.inf, 0.0, 1.0).to(m.dtype),
            self.q.new_zeros((*m.shape[:3], self.v.shape[3])),
        )


def _product(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """q k^T, with no gradient where it is not finite: where nobody sees that, 0 times a k of NaN
    would be NaN in all of q's.
    """
    product = q @ k.mT
    if not product.requires_grad or product.isfinite().all():
        return product
    q, k = (torch.where(x.isfinite(), x, 0.0) for x in (q, k))
    return torch.where(product.isfinite(), q @ k.mT, product.detach())


def normalised(o: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """o / d, and 0 where nothing was seen, d = 0."""
    return o / torch.where(d == 0, 1.0, d)


def of_scores(formula: Callable[[Scores], Result]) -> Callable[..., Any]:
    """Makes formula(scores) -> (output [B, H, L, Ev], lse [B, H, L, 1]) a kernel attention(q, k, v,
    ...) with every option.

    A value that is not finite is 0 to the formula, whose 0 x inf would be NaN for rows that do not
    see it; it is put back into the rows that do.
    """

    def attention(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        causal: str | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        window: Window | None = None,
        alibi_slopes: torch.Tensor | None = None,
        sink: torch.Tensor | None = None,
        enable_gqa: bool = False,
        kv_lengths: torch.Tensor | None = None,
        return_lse: bool = False,
    ) -> torch.Tensor | Result:
        options: dict[str, Any] = {"causal": causal, "scale": scale, "softcap": softcap, "window": window}
        further: dict[str, Any] = {
            "mask": mask,
            "alibi_slopes": alibi_slopes,
            "sink": sink,
            "kv_lengths": kv_lengths,
        }
        check(q, k, v, **options, **further, enable_gqa=enable_gqa)
        scores = scores_of(q, k, v, **options, **further)
        finite = scores.v.isfinite()
        output, lse = formula(replace(scores, v=torch.where(finite, scores.v, 0.0)))
        if not finite.all():
            output = output + _not_finite(scores)
        return (output.to(q.dtype), lse.squeeze(-1)) if return_lse else output.to(q.dtype)

    signature = inspect.signature(attention)
    functools.update_wrapper(attention, formula)
    attention.__signature__ = signature  # type: ignore[attr-defined]  # of the kernel, not of the formula
    return attention


def _not_finite(scores: Scores) -> torch.Tensor:
    """[B, H, L, Ev]: NaN, inf or -inf where a query sees such a value, else 0."""
    seen = scores.seen().to(scores.v.dtype)
    total = torch.zeros((), dtype=scores.v.dtype, device=scores.v.device)
    for value, there in (
        (torch.nan, scores.v.isnan()), (torch.inf, scores.v == torch.inf), (-torch.inf,
            scores.v == -torch.inf),
    ):  # fmt: skip
        total = total + torch.where(seen @ there.to(seen.dtype) > 0, value, 0.0)
    return total


def scores_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: str | None,
    scale: float | None,
    softcap: float | None,
    window: Window | None,
    mask: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None,
    sink: torch.Tensor | None,
    kv_lengths: torch.Tensor | None,
) -> Scores:
    """The scores of a checked call, k and v repeated for every head of q."""
    (batches, heads, length, head_size), keys = q.shape, k.shape[2]
    compute = torch.float64 if q.dtype == torch.float64 else torch.float32
    key = torch.arange(keys, device=q.device)
    query = torch.arange(length, device=q.device) + offset(causal, length, keys)
    full = None if mask is None else mask.expand(batches, heads, length, keys)
    visible = full if full is not None and full.dtype == torch.bool else None
    if kv_lengths is not None:
        within = (key < kv_lengths.view(-1, 1, 1, 1)).expand(batches, heads, length, keys)
        visible = within if visible is None else visible & within
    slopes, logit = (None if x is None else x.to(compute).view(-1, 1, 1) for x in (alibi_slopes, sink))
    return Scores(
        q=q.to(compute),
        k=k.to(compute).repeat_interleave(heads // k.shape[1], dim=1),
        v=v.to(compute).repeat_interleave(heads // k.shape[1], dim=1),
        query=query[:, None],
        key=key,
        scale=1 / math.sqrt(head_size) if scale is None else scale,
        softcap=softcap,
        causal=causal,
        window=window,
        visible=visible,
        bias=full.to(compute) if full is not None and full.dtype != torch.bool else None,
        slopes=slopes,
        sink=(
            None if logit is None else logit.masked_fill(logit == -torch.inf, -torch.inf)
        ),  # which cuts its gradient: it is 0
    )

"""A backward pass for a formula of scores: what an attention kernel needs around its own formula
for the gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch.autograd.function import once_differentiable

from suite.kernels.parts.attention_scores import Result, Scores, of_scores, scores_of

FURTHER = ("mask", "alibi_slopes", "sink", "kv_lengths")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Of what `Scores` holds, in its shapes; None where that is None."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor | None
    slopes: torch.Tensor | None
    sink: torch.Tensor | None

    @classmethod
    def zeros(cls, scores: Scores) -> Self:
        held: dict[str, Any] = {field.name: getattr(scores, field.name) for field in fields(cls)}
        zeros: dict[str, Any] = {
            name: None if tensor is None else torch.zeros_like(tensor) for name, tensor in held.items()
        }
        return cls(**zeros)

    def add(self, scores: Scores, d_s: torch.Tensor, keys: slice) -> None:
        """Adds the gradients of what the scores of these keys are made of: the steps of
        Scores.final, backwards.
        """
        if self.bias is not None:
            self.bias[:, :, :, keys] += d_s
        if self.slopes is not None:
            self.slopes.sub_((d_s * (scores.query - scores.key).abs()).sum((0, 2, 3))[:, None, None])
        q, k = finite_entries(scores.q), finite_entries(scores.k)
        if scores.softcap is not None:  # tanh' = 1 / cosh^2; 1 - tanh^2 would cancel where the cap is reached
            steepness = torch.cosh(scores.scale * (q @ k.mT) / scores.softcap)
            d_s = torch.where(d_s == 0, 0.0, d_s / steepness / steepness)
        self.q.add_(scores.scale * (d_s @ k))
        self.k[:, :, keys] += scores.scale * (d_s.mT @ q)


def finite_entries(x: torch.Tensor) -> torch.Tensor:
    """x with 0 for what is not finite: a key that nobody sees may hold it, and 0 times it would be NaN."""
    return torch.where(x.isfinite(), x, 0.0)


Backward = Callable[[Scores, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], Gradients]


def with_backward(backward: Backward) -> Callable[[Callable[[Scores], Result]], Callable[..., Any]]:
    """Makes formula(scores) a kernel as @of_scores does, whose gradients are backward(scores, o,
    lse, d_o, d_lse).

    That has all in float32, float64 for float64, o as it was rounded to the tensors' format, lse
    [B, H, L, 1]. Its results are summed over the heads that share a key and over what a mask was
    broadcast along, then rounded to each tensor's dtype once. A gradient of these gradients is
    refused with torch's RuntimeError.
    """

    def decorate(formula: Callable[[Scores], Result]) -> Callable[..., Any]:
        attention = of_scores(formula)

        class Attention(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, options: dict[str, Any], *tensors: torch.Tensor | None) -> Any:
                o, lse = attention(
                    *tensors[:3], **dict(zip(FURTHER, tensors[3:], strict=True)), **options, return_lse=True
                )
                ctx.save_for_backward(*tensors, o, lse)
                ctx.options = options
                return o, lse

            @staticmethod
            @once_differentiable
            def backward(ctx: Any, d_o: torch.Tensor, d_lse: torch.Tensor) -> Any:
                *tensors, o, lse = ctx.saved_tensors
                q, k, v, mask, alibi_slopes, sink, _ = tensors
                options = {name: value for name, value in ctx.options.items() if name != "enable_gqa"}
                scores = scores_of(q, k, v, **dict(zip(FURTHER, tensors[3:], strict=True)), **options)
                compute = scores.q.dtype
                found = backward(
                    scores, o.to(compute), lse[..., None], d_o.to(compute), d_lse.to(compute)[..., None]
                )
                shared = (q.shape[0], k.shape[1], q.shape[1] // k.shape[1])
                d_k, d_v = (x.reshape(*shared, *x.shape[2:]).sum(2) for x in (found.k, found.v))
                d_mask = None if found.bias is None else found.bias.sum_to_size(mask.shape)
                further = (
                    None if x is None or d_x is None else d_x.reshape(x.shape).to(x.dtype)
                    for x, d_x in ((mask, d_mask), (alibi_slopes, found.slopes), (sink, found.sink))
                )  # fmt: skip
                return (None, found.q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), *further, None)

        @functools.wraps(attention)
        def differentiable(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, return_lse: bool = False, **given: Any
        ) -> torch.Tensor | Result:
            further = [given.pop(name, None) for name in FURTHER]
            defaults = {"causal": None, "scale": None, "softcap": None, "window": None, "enable_gqa": False}
            o, lse = Attention.apply(defaults | given, q, k, v, *further)  # type: ignore[no-untyped-call]
            return (o, lse) if return_lse else o

        return differentiable

    return decorate

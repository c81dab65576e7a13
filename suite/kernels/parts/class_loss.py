"""From surprisals to a loss: what every cross_entropy does after the logarithm, whatever it does before."""

from __future__ import annotations

from typing import Any

import torch


def classes_last(logits: torch.Tensor) -> torch.Tensor:
    """logits with classes in the last dim, float16 and bfloat16 as float32."""
    moved = logits if logits.ndim == 1 else logits.movedim(1, -1)
    return moved.float() if logits.dtype in (torch.float16, torch.bfloat16) else moved


def kept_rows(
    logits: torch.Tensor, target: torch.Tensor, *, ignore_index: int = -100, **_: Any
) -> torch.Tensor:
    """classes_last(logits) with zeros for ignored rows, whatever they hold: 0 times their NaN would
    be a gradient of NaN.
    """
    z = classes_last(logits)
    return z if target.is_floating_point() else z.masked_fill((target == ignore_index).unsqueeze(-1), 0.0)


def class_loss(
    surprisal: torch.Tensor,
    target: torch.Tensor,
    *,
    dtype: torch.dtype,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """The loss from surprisal = log sum exp(z) - z [..., n]: weighted by the target, smoothed,
    reduced, rounded once to dtype.

    target: class indices [...], or probabilities in the layout of the logits. A class without
    weight adds nothing, even where its surprisal is infinite; an ignored row is 0 and does not
    count in the mean.
    """
    if target.is_floating_point():
        weights = classes_last(target).to(surprisal.dtype)
        loss = torch.where(weights > 0, weights * surprisal, 0.0).sum(-1)
        kept = torch.ones_like(loss, dtype=torch.bool)
    else:
        kept = target != ignore_index
        loss = surprisal.gather(-1, torch.where(kept, target, 0).unsqueeze(-1)).squeeze(-1)
    if label_smoothing > 0:
        loss = (1 - label_smoothing) * loss + label_smoothing / surprisal.shape[-1] * surprisal.sum(-1)
    loss = torch.where(kept, loss, 0.0)
    if reduction == "mean":
        loss = loss.sum() / kept.sum()
    elif reduction == "sum":
        loss = loss.sum()
    elif reduction != "none":
        raise ValueError(f"reduction={reduction!r} is not one of mean, sum, none")
    return loss.to(dtype)

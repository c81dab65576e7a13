"""Correct kernels of cross_entropy, of many structures: each differs from tests/losses.py in one
step or several.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from suite.numerics import BEST_PRACTICE, Numerics
from tests.honest.parts import LN2, LOG2E, approximate_exp2, constant, flush, merge, online, top, tree
from tests.losses import Loss

LOSSES: dict[str, tuple[Loss, Numerics]] = {"shifted_gap": (Loss(), BEST_PRACTICE)}


def honest_step(step: str, numerics: Numerics = BEST_PRACTICE):
    """Registers the loss with this step in place of tests/losses.py's."""

    def register(function):
        LOSSES[function.__name__] = (replace(Loss(), **{step: function}), numerics)
        return function

    return register


# the surprisal of every class


@honest_step("surprisal")
def torch_log_softmax_and_gather(z):
    return -torch.log_softmax(z, -1)


@honest_step("surprisal")
def online_surprisal(z):
    m, d = online(z, 16)
    return torch.log(d) + (m - z)


@honest_step("surprisal")
def classes_in_chunks(z):
    """(m, d) of each chunk of 32 classes, merged one after another."""
    state = torch.full_like(z[:, :1], -torch.inf), torch.zeros_like(z[:, :1])
    for chunk in torch.split(z, 32, -1):
        m = chunk.amax(-1, keepdim=True)
        state = merge(state, (m, torch.exp(chunk - top(chunk)).sum(-1, keepdim=True)))
    m, d = state
    return torch.log(d) - (z - m.masked_fill(m == -torch.inf, 0.0))


@honest_step("surprisal")
def tree_of_classes(z):
    m, d = tree(z)
    return torch.log(d) + (m.masked_fill(m == -torch.inf, 0.0) - z)


@honest_step("surprisal")
def base_2_surprisal(z):
    t = (z - top(z)) * constant(z, LOG2E)
    return (torch.log2(torch.exp2(t).sum(-1, keepdim=True)) - t) * constant(z, LN2)


@honest_step("surprisal")
def base_2_logarithm_only(z):
    """exp by the hardware's exp2, which flushes; the gap itself is not multiplied."""
    gap = top(z) - z
    return (
        torch.log2(flush(approximate_exp2(-gap * constant(z, LOG2E))).sum(-1, keepdim=True))
        * constant(z, LN2)
        + gap
    )


@honest_step("surprisal")
def log1p_surprisal(z):
    m, place = top(z), z.argmax(-1, keepdim=True)
    others = torch.exp(z - m).scatter(-1, place, 0.0).sum(-1, keepdim=True)
    return torch.where(z.amax(-1, keepdim=True) > -torch.inf, torch.log1p(others) + (m - z), torch.nan)


@honest_step("surprisal")
def float64_inside(z):
    return -torch.log_softmax(z.double(), -1)


@honest_step("surprisal", Numerics(shift="lse"))
def rounded_lse_minus_logit(z):
    return torch.logsumexp(z, -1, keepdim=True) - z


# smoothing


@honest_step("smooth")
def smoothing_times_mean(loss, surprisal, smoothing):
    return (1 - smoothing) * loss + smoothing * surprisal.mean(-1)


@honest_step("smooth")
def smoothing_first_over_the_classes(loss, surprisal, smoothing):
    """Every class's share of the smoothing is multiplied by itself, in the order of the classes."""
    share = constant(surprisal, smoothing / surprisal.shape[-1])
    return (surprisal * share).cumsum(-1)[..., -1] + loss * constant(surprisal, 1 - smoothing)


@honest_step("smooth")
def smoothing_as_a_difference(loss, surprisal, smoothing):
    """loss + e (mean - loss), as a linear interpolation is often written."""
    mean = surprisal.mean(-1)
    moved = loss + smoothing * (mean - loss)
    return torch.where(loss == mean, loss, moved)


# reductions


@honest_step("mean")
def each_row_divided_by_the_count(loss, kept):
    return (loss / kept.sum()).sum() if kept.any() else loss.sum() / 0


@honest_step("mean")
def mean_in_float64(loss, kept):
    return loss.double().sum() / kept.sum()


@honest_step("mean")
def kept_rows_only(loss, kept):
    return loss[kept].mean()


@honest_step("mean")
def row_after_row(loss, kept):
    flat = loss.reshape(-1)
    return (flat.cumsum(-1)[-1] if len(flat) else flat.sum()) / kept.sum()


# several steps


def gaps_and_one_logarithm(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """A fused loss: log s once a row, and sums of gaps, never a surprisal of every class."""
    z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    gap = top(z) - z
    log_sum = torch.log(torch.exp(-gap).sum(-1))
    kept = torch.ones_like(log_sum, dtype=torch.bool)
    if target.is_floating_point():
        weights = target.to(z.dtype)
        loss = log_sum * weights.sum(-1) + torch.where(weights > 0, weights * gap, 0.0).sum(-1)
    else:
        kept = target != ignore_index
        loss = log_sum + gap.gather(-1, torch.where(kept, target, 0)[:, None])[:, 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * (log_sum + gap.mean(-1))
    loss = torch.where(kept, loss, 0.0)
    loss = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / kept.sum()}[reduction]
    return loss.to(logits.dtype)


LOSSES["gaps_and_one_logarithm"] = (gaps_and_one_logarithm, BEST_PRACTICE)

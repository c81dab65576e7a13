"""merge_states in steps, and correct kernels of other steps. tests/mutants/states.py has wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from suite.kernels import Kernel
from suite.kernels.parts.partial import finite
from suite.numerics import BEST_PRACTICE, Numerics
from tests.honest.parts import LN2, LOG2E

OP = "merge_states"
Tensor = torch.Tensor
State = tuple[Tensor, Tensor]
"""An output o [B, H, L, E] and its log-sum-exp [B, H, L, 1], in float32, or float64."""


def states(a: State, b: State) -> tuple[State, State]:
    return a, b


def powers(lse_a: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(m, exp(lse_a - m), exp(lse_b - m)) of the larger log-sum-exp m."""
    m = torch.maximum(lse_a, lse_b)
    return m, torch.exp(lse_a - finite(m)), torch.exp(lse_b - finite(m))


def average(w_a: Tensor, o_a: Tensor, w_b: Tensor, o_b: Tensor) -> Tensor:
    """0 where both weights are."""
    total = w_a + w_b
    return (w_a * o_a + w_b * o_b) / torch.where(total == 0, 1.0, total)


def log_sum(m: Tensor, w_a: Tensor, w_b: Tensor) -> Tensor:
    return m + torch.log(w_a + w_b)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """A kernel of merge_states: Merge(powers=...) exchanges a step of it."""

    states: Callable[[State, State], tuple[State, State]] = states
    powers: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = powers
    average: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = average
    log_sum: Callable[[Tensor, Tensor, Tensor], Tensor] = log_sum

    def __call__(self, o_a: Tensor, lse_a: Tensor, o_b: Tensor, lse_b: Tensor) -> State:
        wide = lse_a.dtype
        (a, log_a), (b, log_b) = self.states(
            (o_a.to(wide), lse_a[..., None]), (o_b.to(wide), lse_b[..., None])
        )
        m, w_a, w_b = self.powers(log_a, log_b)
        return self.average(w_a, a, w_b, b).to(o_a.dtype), self.log_sum(m, w_a, w_b)[..., 0]


# correct


def base_two(lse_a, lse_b):
    m, c = torch.maximum(lse_a, lse_b), torch.tensor(LOG2E, dtype=lse_a.dtype)
    return m, torch.exp2((lse_a - finite(m)) * c), torch.exp2((lse_b - finite(m)) * c)


def log_in_base_two(m, w_a, w_b):
    return m + torch.log2(w_a + w_b) * LN2


def normalised(lse_a, lse_b):
    """exp(lse_a - lse): the weights add up to about 1, and their sum divides nothing."""
    lse = torch.logaddexp(lse_a, lse_b)
    return lse, torch.exp(lse_a - finite(lse)), torch.exp(lse_b - finite(lse))


def weighted(w_a, o_a, w_b, o_b):
    return w_a * o_a + w_b * o_b


def given(lse, w_a, w_b):
    return lse


def divided_first(w_a, o_a, w_b, o_b):
    total = torch.where(w_a + w_b == 0, 1.0, w_a + w_b)
    return (w_a / total) * o_a + (w_b / total) * o_b


def by_sigmoid(o_a, lse_a, o_b, lse_b):
    """w = 1 / (1 + exp(lse_b - lse_a)), lse = m + log1p(exp(-|lse_a - lse_b|))."""
    m, empty = torch.maximum(lse_a, lse_b), (lse_a == -torch.inf) & (lse_b == -torch.inf)
    gap = torch.where(empty, 0.0, lse_b - lse_a)
    w_a, w_b = torch.sigmoid(-gap)[..., None], torch.sigmoid(gap)[..., None]
    o = (w_a * o_a + w_b * o_b).masked_fill(empty[..., None], 0.0)
    return o.to(o_a.dtype), torch.where(empty, m, m + torch.log1p(torch.exp(-gap.abs())))


def in_float64(o_a, lse_a, o_b, lse_b):
    o, lse = Merge()(o_a.double(), lse_a.double(), o_b.double(), lse_b.double())
    return o.to(o_a.dtype), lse.to(lse_a.dtype)


HONEST: dict[str, tuple[Callable, Numerics]] = {
    "shifted": (Merge(), BEST_PRACTICE),
    "base two": (
        Merge(powers=base_two, log_sum=log_in_base_two),
        BEST_PRACTICE,
    ),  # FlashInfer (arXiv 2501.01005)
    "exp(lse_a - lse)": (
        Merge(powers=normalised, average=weighted, log_sum=given),
        Numerics(shift="lse"),
    ),  # Flash-Decoding
    "divided before the outputs": (Merge(average=divided_first), BEST_PRACTICE),
    "sigmoid of the difference": (by_sigmoid, BEST_PRACTICE),
    "float64 inside": (in_float64, BEST_PRACTICE),
}
"""Correct kernels, with what they declare."""


def kernels() -> list[Kernel]:
    return [
        Kernel(id=name, op=OP, call=call, numerics=numerics, outside=True)
        for name, (call, numerics) in HONEST.items()
    ]

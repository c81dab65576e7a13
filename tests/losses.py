"""cross_entropy in steps, each of them correct: kernels differ from it in one step, honest ones and
mutants alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.honest.parts import top

Tensor = torch.Tensor


def upcast(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def classes_last(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 1 else tensor.movedim(1, -1)


def surprisal(z: Tensor) -> Tensor:
    """-log_softmax of each class [..., n], from differences of logits."""
    z = z - top(z)
    return torch.log(torch.exp(z).sum(-1, keepdim=True)) - z


def kept(target: Tensor, ignore_index: int) -> Tensor:
    return target != ignore_index


def pick(surprisal: Tensor, target: Tensor, kept: Tensor) -> Tensor:
    """The target's surprisal [...]; any number where the row is ignored."""
    return surprisal.gather(-1, torch.where(kept, target, 0)[..., None])[..., 0]


def weigh(surprisal: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over the classes [...]; a class of weight 0 takes no part, though its
    surprisal be infinite.
    """
    return torch.where(weights > 0, weights * surprisal, 0.0).sum(-1)


def smooth(loss: Tensor, surprisal: Tensor, smoothing: float) -> Tensor:
    """The share `smoothing` of the target, spread evenly over the classes."""
    return (1 - smoothing) * loss + smoothing / surprisal.shape[-1] * surprisal.sum(-1)


def ignore(smoothed: Tensor, targeted: Tensor, kept: Tensor) -> Tensor:
    """The loss of each row, 0 where it is ignored; `targeted` is the loss before smoothing."""
    return torch.where(kept, smoothed, 0.0)


def total(loss: Tensor) -> Tensor:
    return loss.sum()


def mean(loss: Tensor, kept: Tensor) -> Tensor:
    return loss.sum() / kept.sum()


@dataclass(frozen=True)
class Loss:
    """A cross_entropy of logits [n], [N, n] or [N, n, ...]: dataclasses.replace() exchanges a step of it."""

    classes_last: Callable[[Tensor], Tensor] = classes_last
    surprisal: Callable[[Tensor], Tensor] = surprisal
    kept: Callable[[Tensor, int], Tensor] = kept
    pick: Callable[[Tensor, Tensor, Tensor], Tensor] = pick
    weigh: Callable[[Tensor, Tensor], Tensor] = weigh
    smooth: Callable[[Tensor, Tensor, float], Tensor] = smooth
    ignore: Callable[[Tensor, Tensor, Tensor], Tensor] = ignore
    total: Callable[[Tensor], Tensor] = total
    mean: Callable[[Tensor, Tensor], Tensor] = mean

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        z = self.surprisal(upcast(self.classes_last(logits)))
        if target.is_floating_point():
            targeted = self.weigh(z, upcast(self.classes_last(target)))
            kept = torch.ones_like(targeted, dtype=torch.bool)
        else:
            kept = self.kept(target, ignore_index)
            targeted = self.pick(z, target, kept)
        loss = self.smooth(targeted, z, label_smoothing) if label_smoothing else targeted
        loss = self.ignore(loss, targeted, kept)
        if reduction == "mean":
            loss = self.mean(loss, kept)
        elif reduction == "sum":
            loss = self.total(loss)
        return loss.to(logits.dtype)

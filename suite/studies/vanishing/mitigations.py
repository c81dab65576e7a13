"""What a model can do about vanishing gradients, around the same kernel and on the same logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from suite.formats import compute_format
from suite.inputs.draws import Draw
from suite.ops import Result
from suite.studies.vanishing.question import Question, counts, unit_logits
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    from suite.studies.vanishing import VanishingProbe

MITIGATED_SCALE = 16.0
SOFTCAP = 50.0
TEMPERATURE = 4.0
LOSS_SCALE = 2.0**10

Counted = dict[str, float | None]
"""COUNTS and FLOORS of the gradient of the logits; of the normalised logits with QK-norm; of the
loss -log p where the mitigation is a loss.
"""


def mitigated(probe: VanishingProbe) -> dict[str, Counted]:
    """The counts by mitigation; the losses of softmax only, whose result they are made of."""
    plain = probe.question(MITIGATED_SCALE * unit_logits()[0], "upstream")
    ways = MITIGATIONS | (LOSSES if probe.op.result is Result.PROBABILITY else {})
    return {name: way(probe, plain) for name, way in ways.items()}


def nothing(probe: VanishingProbe, plain: Question) -> Counted:
    return probe.point(plain)


def computed_wider(probe: VanishingProbe, plain: Question) -> Counted:
    wide, _ = probe.gradient(plain, compute_format(probe.format))
    return probe.compared(plain, probe.format.round(wide))


def softcapped(probe: VanishingProbe, plain: Question) -> Counted:
    """c tanh(x / c) before the kernel, in the format, by torch's own tanh and its gradient."""
    import torch

    x = to_torch(plain.logits, probe.format).requires_grad_()
    capped = SOFTCAP * torch.tanh(x / SOFTCAP)
    question = Question(to_float64(capped), plain.upstream, plain.target)
    inner = to_torch(probe.format.round(probe.gradient(question)[0]), probe.format)
    [got] = torch.autograd.grad(capped, x, inner)
    exactly = Question(SOFTCAP * np.tanh(plain.logits / SOFTCAP), plain.upstream, plain.target)
    slope = 1.0 / np.cosh(plain.logits / SOFTCAP) ** 2
    exact = exactly.exact(probe.op.result) * slope
    return counts(to_float64(got), exact, plain, probe.format, total=exact.sum(1))


def cooled(probe: VanishingProbe, plain: Question) -> Counted:
    question = probe.question(plain.logits / TEMPERATURE, "upstream")
    got = probe.format.round(probe.gradient(question)[0] / TEMPERATURE)
    exact = question.exact(probe.op.result) / TEMPERATURE
    return counts(got, exact, question, probe.format, total=probe.total(question) / TEMPERATURE)


def normalised(probe: VanishingProbe, _: Question) -> Counted:
    return probe.point(probe.question(unit_logits()[1], "upstream"))


def scaled(probe: VanishingProbe, plain: Question) -> Counted:
    return probe.point(Question(plain.logits, LOSS_SCALE * plain.upstream, plain.target))


def through_softmax(probe: VanishingProbe, plain: Question) -> Counted:
    """The loss -log p of a drawn target through the kernel, whose upstream gradient is -1/p."""
    loss = _loss(plain)
    p = to_float64(probe.format.round(loss.parts[0]))
    with np.errstate(divide="ignore"):
        wanted = probe.format.round(-1.0 / np.take_along_axis(p, loss.target[:, None], 1))
    upstream = np.zeros_like(plain.logits)
    np.put_along_axis(upstream, loss.target[:, None], wanted, 1)
    got, _ = probe.gradient(Question(plain.logits, upstream, loss.target))
    return counts(got, loss.exact(Result.LOSS), loss, probe.format)


def in_log_domain(probe: VanishingProbe, plain: Question) -> Counted:
    """The same loss by torch's cross_entropy."""
    import torch

    loss = _loss(plain)
    x = to_torch(plain.logits, probe.format).requires_grad_()
    total = torch.nn.functional.cross_entropy(x, torch.from_numpy(loss.target), reduction="none")
    got = to_float64(torch.autograd.grad(total, x, torch.ones_like(total))[0])
    return counts(got, loss.exact(Result.LOSS), loss, probe.format)


def _loss(plain: Question) -> Question:
    rows, n = plain.logits.shape
    return Question(plain.logits, np.ones((rows, 1)), Draw("vanishing/target").integers(n, rows))


Way = Callable[["VanishingProbe", Question], Counted]

MITIGATIONS: dict[str, Way] = {
    "none": nothing,
    "float32 inside": computed_wider,
    "softcap 50": softcapped,
    "temperature 4": cooled,
    "QK-norm": normalised,
    "loss scaled by 1024": scaled,
}
LOSSES: dict[str, Way] = {"loss -log(p)": through_softmax, "loss from logits": in_log_domain}

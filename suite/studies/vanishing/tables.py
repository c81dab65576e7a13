"""The tables of docs/vanishing.md: closed thresholds beside two models of arithmetic and torch.softmax."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.formats import DTYPES, FORMATS, get_format
from suite.inputs.draws import Draw
from suite.kernels import Kernel
from suite.ops import Result
from suite.studies.vanishing import VanishingProbe, measure
from suite.studies.vanishing.question import HEAD_SIZE, SCALE_LENGTH, Question
from suite.studies.vanishing.theory import losses, saturations, theory_of_scale
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    import torch


def stepwise(*, wide: bool) -> Kernel:
    """A softmax that rounds as a model says, forward and backward. wide: p is rounded once, from 1
    - p without cancellation. Else every operation is rounded to the tensor's format, sums being
    taken one after another.
    """
    import torch

    class Stepwise(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            if wide:
                question = Question(to_float64(x), np.zeros(0), np.zeros(0, dtype=np.int64))
                values, rest = question.parts
                np.put_along_axis(values, question.top, 1.0 - np.take_along_axis(rest, question.top, 1), 1)
                format = get_format(str(x.dtype).removeprefix("torch."))
                p: torch.Tensor = to_torch(format.round(values), format)
            else:
                e = torch.exp(x - x.amax(1, keepdim=True))
                p = e / _in_order(e)
            context.save_for_backward(p)
            return p

        @staticmethod
        def backward(context: Any, *upstream: torch.Tensor) -> torch.Tensor:
            p: torch.Tensor = context.saved_tensors[0]
            return p * (upstream[0] - _in_order(p * upstream[0]))

    def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        output: torch.Tensor = Stepwise.apply(x)  # type: ignore[no-untyped-call]
        return output

    return Kernel(id="rounded once" if wide else "step by step", op="softmax", call=softmax)


def _in_order(terms: torch.Tensor) -> torch.Tensor:
    """The sums [rows, 1] of terms [rows, n], one after another, each rounded to their format."""
    total = terms[:, :1]
    for column in range(1, terms.shape[1]):
        total = total + terms[:, column : column + 1]
    return total


def measured_threshold(kernel: Kernel, dtype: str, n: int, *, entry: int = 0) -> dict[str, Any]:
    """The gap at which the gradient of the first entry (entry=0) or of the others (entry=-1) of a
    row of n is exactly 0.
    """
    probe = VanishingProbe(kernel, get_format(dtype))
    return probe.threshold(
        n, entry, saturations if entry == 0 else functools.partial(losses, probe.op.result)
    )


def attention_zeros(dtype: str) -> tuple[list[float], list[float]]:
    """(share of entries that are 0, share of rows with nothing else) of dS in attention, n = 256, d
    = 64, all of q, k, v and the upstream gradient standard normal, q times 1, 4, 16, 64; by torch,
    step by step in the format.
    """
    import torch

    draw, format = Draw("vanishing/theory"), get_format(dtype)
    q, k, v, upstream = (
        to_torch(format.round(draw.normal(SCALE_LENGTH, HEAD_SIZE)), format) for _ in range(4)
    )
    zeros, dead = [], []
    for scale in (1, 4, 16, 64):
        scores = ((scale * q) @ k.T / math.sqrt(HEAD_SIZE)).requires_grad_()
        [gradient] = torch.autograd.grad(torch.softmax(scores, -1) @ v, scores, upstream)
        zeros.append(float((gradient == 0).double().mean()))
        dead.append(float((gradient == 0).all(1).double().mean()))
    return zeros, dead


def tables() -> str:
    """The tables of docs/vanishing.md, as Markdown."""
    return "\n\n".join((threshold_table(), zeros_table(), mitigation_table()))


def threshold_table() -> str:
    """The closed thresholds of every format and what is measured of the two models and of torch.softmax."""
    import torch

    lines = _heading("gradient of softmax is 0", "n", *DTYPES)
    formats = [FORMATS[name] for name in DTYPES]

    def line(label: str, n: int, values: Sequence[float | None]) -> None:
        shown = ("never" if value is None else f"{value:.7g}" for value in values)
        lines.append(f"| {label} | {n:,} | " + " | ".join(shown) + " |")

    def measured(kernel: Kernel, n: int, entry: int = 0) -> list[float | None]:
        return [measured_threshold(kernel, name, n, entry=entry)["measured"] for name in DTYPES]

    own = Kernel(id="torch", op="softmax", call=torch.softmax)
    for n in (2, 33):
        line("first entry, absorbed: p ln 2", n, [f.saturation_in_format for f in formats])
        line("measured: step by step in the format", n, measured(stepwise(wide=False), n))
    for n in (2, 33, 4096):
        line(
            "first entry, rounded: ln(2^(p+1) − 1) + ln(n − 1)", n, [f.saturation_rounded(n) for f in formats]
        )
        if n < 4096:
            line("measured: p exact, rounded once", n, measured(stepwise(wide=True), n))
        line("measured: torch.softmax", n, measured(own, n))
    for n in (2, 4096):
        line(
            "the others, zero: e^−g / (1 + (n − 1) e^−g)² = η/2",
            n,
            [losses(Result.PROBABILITY, f, n)[f"zero {f.name}"] or 0.0 for f in formats],
        )
        line("measured: torch.softmax", n, measured(own, n, -1))
    return "\n".join(lines)


def zeros_table() -> str:
    """attention_zeros() of every format, and the closed logit scale at which half of the entries are gone."""
    lines = _heading(
        "entries of dS that are 0; dead rows", "q × 1", "q × 4", "q × 16", "q × 64", "theory: half of them at"
    )
    for dtype in DTYPES:
        zeros, dead = attention_zeros(dtype)
        cells = (f"{zero:.3f}; {row:.3f}" for zero, row in zip(zeros, dead, strict=True))
        lines.append(
            f"| {dtype} | "
            + " | ".join(cells)
            + f" | {theory_of_scale(get_format(dtype))['underflow']:.3g} |"
        )
    return "\n".join(lines)


def mitigation_table() -> str:
    """The mitigations around torch.softmax, in every format."""
    import torch

    names = ("zero", "underflow", "false_zero", "flushed", "top_lost", "dead", "gain", "defect", "not_finite")
    lines = _heading(
        "torch.softmax, logit scale 16", "mitigation", *(name.replace("_", " ") for name in names)
    )
    for dtype in DTYPES:
        for one in measure(Kernel(id="torch", op="softmax", call=torch.softmax), dtype).data["mitigations"]:
            cells = ("–" if one[name] is None else f"{one[name]:.2g}" for name in names)
            lines.append(f"| {dtype} | {one['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _heading(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]

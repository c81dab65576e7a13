"""Mutants of backward passes: the forward is right, and one step of the way back is wrong.

Each is a torch.autograd.Function around a right forward. Its backward is written in steps, all of
them correct: RIGHT for rows, GradientOfLoss, GradientOfAttention and GradientOfStates. A fault
exchanges one. source: a public bug, where there is one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from suite.case import Case
from tests import attention_kernels, losses
from tests.attention_kernels import Attention, Given, finite_or_0, positions, share
from tests.honest.parts import top
from tests.honest.states import Merge, powers
from tests.mutants.mutant import BOTH, FLOAT32, LN2, MUTANTS, NARROW, Mutant, round_to, sequential

Tensor = torch.Tensor
FORMATS = (*BOTH, "float16")
WRONG = ("inaccurate", "nonfinite", "law_broken")
E4M3 = torch.float8_e4m3fn


@dataclass(frozen=True)
class BackwardMutant(Mutant):
    """needs: options and further tensors of a case that bring it out."""

    needs: frozenset[str] = frozenset()
    source: str = ""
    direction: ClassVar[str] = "backward"

    def missing(self, case: Case) -> int:
        return len(self.needs - {*case.options, *case.tensors})


def mutant(op, name, breaks, make, *statuses, dtypes=BOTH, needs=(), source=""):
    name = f"{op}: backward {name}"
    assert name not in MUTANTS, name
    MUTANTS[name] = BackwardMutant(
        name, op, breaks, statuses or WRONG, dtypes, make, frozenset(needs), source
    )


def upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


# softmax, log_softmax, logsumexp


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the way back through rows is given, in float32 or float64: logits x [..., n], upstream g
    [..., n] or [..., 1].

    raw: the upstream as it came, in the tensors' format and layout, which is `dtype`.
    """

    x: Tensor
    g: Tensor
    raw: Tensor
    dtype: torch.dtype
    dim: int
    temperature: float = 1.0
    off_by_one: bool = False

    @property
    def hidden(self) -> Tensor | float:
        return torch.exp(-self.shift / self.temperature) if self.off_by_one else 0.0

    @property
    def shift(self) -> Tensor:
        return top(self.x).clamp(min=0) if self.off_by_one else top(self.x)

    @property
    def p(self) -> Tensor:
        e = torch.exp((self.x - self.shift) / self.temperature)
        total = e.sum(-1, keepdim=True) + self.hidden
        return e / torch.where(total == 0, 1.0, total)


def of_softmax(line: Line) -> Tensor:
    p = line.p
    return p * (line.g - (p * line.g).sum(-1, keepdim=True)) / line.temperature


def of_log_softmax(line: Line) -> Tensor:
    return line.g - line.p * line.g.sum(-1, keepdim=True)


def of_log_sum_exp(line: Line) -> Tensor:
    return line.g * line.p


RIGHT = {"softmax": of_softmax, "log_softmax": of_log_softmax, "logsumexp": of_log_sum_exp}


class _OfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, back, op, x, dim, options):
        ctx.save_for_backward(x)
        ctx.back, ctx.op, ctx.dim, ctx.options = back, op, dim, options
        rows = upcast(x)
        if op == "softmax":
            line = Line(x=rows.movedim(dim, -1), g=rows, raw=x, dtype=x.dtype, dim=dim, **options)
            return (
                torch.where(line.x.isnan().any(-1, keepdim=True), torch.nan, line.p)
                .movedim(-1, dim)
                .to(x.dtype)
            )
        return {"log_softmax": torch.log_softmax, "logsumexp": torch.logsumexp}[op](rows, dim).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        upstream = upcast(g)
        upstream = upstream.movedim(ctx.dim, -1) if ctx.op != "logsumexp" else upstream[..., None]
        line = Line(
            x=upcast(x).movedim(ctx.dim, -1), g=upstream, raw=g, dtype=x.dtype, dim=ctx.dim, **ctx.options
        )
        return None, None, ctx.back(line).to(x.dtype).movedim(-1, ctx.dim), None, None


def of_rows(op: str, back: Callable[[Line], Tensor]) -> Callable[..., Tensor]:
    """A kernel of the op whose gradient is back(line)."""
    if op == "softmax":

        def softmax(x, dim=-1, temperature=1.0, off_by_one=False):
            return _OfRows.apply(back, op, x, dim, {"temperature": temperature, "off_by_one": off_by_one})

        return softmax

    def kernel(x, dim=-1):
        return _OfRows.apply(back, op, x, dim, {})

    return kernel


def rows(*ops: str, breaks: str, statuses=(), dtypes=BOTH, needs=(), source="", stateful=False):
    """Registers f(line), or with two arguments f(line, the right way back), as the way back of each
    of these ops.
    """

    def register(function):
        for op in ops:

            def make(op=op):
                back = function() if stateful else function
                two = back.__code__.co_argcount == 2
                return of_rows(op, functools.partial(back, right=RIGHT[op]) if two else back)

            mutant(op, function.__name__, breaks, make, *statuses, dtypes=dtypes, needs=needs, source=source)
        return function

    return register


THREE = ("softmax", "log_softmax", "logsumexp")
TWO = THREE[:2]


@rows("softmax", breaks="the sum over the row is missing")
def sum_missing(line):
    return line.p * line.g / line.temperature


@rows("softmax", breaks="only the diagonal of the Jacobian: p (1 - p) g")
def diagonal_only(line):
    return line.p * (1 - line.p) * line.g / line.temperature


@rows("softmax", breaks="the sum is over the columns, not the row")
def sum_over_the_wrong_dim(line):
    return line.p * (line.g - (line.p * line.g).sum(0, keepdim=True)) / line.temperature


@rows(*THREE, breaks="the upstream gradient is taken for ones", source="linkedin/Liger-Kernel#968")
def upstream_ignored(line, right):
    return right(replace(line, g=torch.ones_like(line.g)))


@rows(*THREE, breaks="the upstream gradient of the first call is used in all", stateful=True)
def first_upstream_replayed():
    kept = {}

    def back(line, right):
        return right(replace(line, g=kept.setdefault(line.g.shape, line.g.clone())))

    return back


@rows(*TWO, breaks="the upstream is read as if it were contiguous", source="pytorch/pytorch#139740")
def upstream_read_as_contiguous(line, right):
    shape = line.raw.shape
    strides = tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
    last = line.raw.storage_offset() + line.raw.numel()
    if last > line.raw.untyped_storage().nbytes() // line.raw.element_size():
        return torch.full_like(line.x, torch.nan)  # it reads behind the tensor
    read = upcast(torch.as_strided(line.raw, shape, strides)).movedim(line.dim, -1)
    return right(replace(line, g=read))


@rows(*THREE, breaks="the upstream is multiplied in place", statuses=("law_broken", "raised"))
def upstream_changed(line, right):
    found = right(line)
    line.raw.mul_(2)
    return found


@rows("softmax", breaks="the temperature does not divide the gradient", needs=("temperature",))
def temperature_forgotten(line):
    return of_softmax(line) * line.temperature


@rows("softmax", breaks="the temperature divides the gradient twice", needs=("temperature",))
def temperature_twice(line):
    return of_softmax(line) / line.temperature


@rows("softmax", breaks="P is computed again without the temperature", needs=("temperature",))
def temperature_missing_in_p(line):
    return of_softmax(replace(line, temperature=1.0)) / line.temperature


@rows("softmax", breaks="P is computed again without the hidden logit", needs=("off_by_one",))
def hidden_logit_forgotten(line):
    return of_softmax(replace(line, off_by_one=False))


def with_sum(line, total):
    """Of softmax, with total(terms) in place of their sum."""
    return line.p * (line.g - total(line.p * line.g)) / line.temperature


@rows("softmax", breaks="the sum is accumulated in bfloat16", dtypes=FORMATS)
def sum_accumulated_in_bfloat16(line):
    return with_sum(line, lambda terms: sequential(terms, torch.bfloat16))


@rows("softmax", breaks="the sum is stored in bfloat16", dtypes=("float32", "float16"))
def sum_in_bfloat16(line):
    return with_sum(line, lambda terms: round_to(terms.sum(-1, keepdim=True), torch.bfloat16))


@rows("softmax", breaks="the sum is stored in float16", source="jax-ml/jax#40474")
def sum_in_float16(line):
    return with_sum(line, lambda terms: round_to(terms.sum(-1, keepdim=True), torch.float16))


@rows("softmax", breaks="the last entry is left out of the sum")
def last_term_dropped(line):
    return with_sum(line, lambda terms: terms[..., :-1].sum(-1, keepdim=True))


@rows(
    "softmax",
    breaks="the last incomplete tile of 32 is left out of the sum",
    source="flagos-ai/FlagGems#3716",
)
def last_tile_of_terms_dropped(line):
    return with_sum(line, lambda terms: terms[..., : terms.shape[-1] // 32 * 32].sum(-1, keepdim=True))


@rows("softmax", breaks="P is saved in e4m3", dtypes=FORMATS)
def p_in_e4m3(line):
    p = round_to(line.p, E4M3)
    return p * (line.g - (p * line.g).sum(-1, keepdim=True)) / line.temperature


@rows("softmax", breaks="P is saved in bfloat16, whatever the tensors' format", dtypes=("float32", "float16"))
def p_in_bfloat16(line):
    p = round_to(line.p, torch.bfloat16)
    return p * (line.g - (p * line.g).sum(-1, keepdim=True)) / line.temperature


@rows(
    "softmax",
    breaks="weights that round to 1 in bfloat16 have a gradient of 0",
    source="tensorflow/tensorflow#126634",
)
def saturated_weights_get_nothing(line):
    return torch.where(round_to(line.p, torch.bfloat16) == 1, 0.0, of_softmax(line))


@rows("softmax", breaks="weights below 2^-12 have no gradient", source="apple/ml-cross-entropy#14")
def small_weights_filtered(line):
    return torch.where(line.p < 2.0**-12, 0.0, of_softmax(line))


@rows(*TWO, breaks="the last incomplete tile of 32 is not written", source="flagos-ai/FlagGems#3716")
def tail_not_written(line, right):
    found = right(line).clone()
    found[..., line.x.shape[-1] // 32 * 32 :] = 0
    return found


@rows(
    *THREE,
    breaks="a logit of -inf gets NaN: 0 times infinity",
    statuses=("nonfinite",),
    source="pyro-ppl/numpyro#1874",
)
def masked_logits_get_nan(line, right):
    return torch.where(line.x == -torch.inf, torch.nan, right(line))


@rows(
    *THREE,
    breaks="the gradient passes through float16: flushed below 2^-25, infinite above 65,504",
    dtypes=BOTH,
)
def gradient_through_float16(line, right):
    return round_to(right(line), torch.float16)


@rows(*THREE, breaks="gradients below the normal numbers of float16 are flushed", dtypes=("float16",))
def float16_gradient_flushed(line, right):
    found = right(line)
    return torch.where(found.abs() < 2.0**-14, 0.0, found)


@rows(
    "log_softmax",
    "logsumexp",
    breaks="the gradient is truncated to bfloat16 instead of rounded",
    dtypes=("bfloat16",),
)
def gradient_truncated(line, right):
    found = right(line)
    return torch.where(found.isfinite(), (found.view(torch.int32) & ~0xFFFF).view(torch.float32), found)


@rows(*TWO, breaks="the gradient passes through bfloat16", dtypes=("float32", "float16"))
def gradient_through_bfloat16(line, right):
    return round_to(right(line), torch.bfloat16)


@rows(*THREE, breaks="upstream gradients beyond 1,000 are clipped: a loss scale is lost")
def upstream_clipped(line, right):
    return right(replace(line, g=line.g.clamp(-1000, 1000)))


@rows(*THREE, breaks="upstream gradients below 2^-9 are taken for 0")
def small_upstream_flushed(line, right):
    return right(replace(line, g=torch.where(line.g.abs() < 2.0**-9, 0.0, line.g)))


@rows(*TWO, breaks="the gradient is the transposed one", statuses=("raised",))
def gradient_transposed(line, right):
    return right(line).transpose(0, -1)


@rows(*THREE, breaks="the gradients of the first two rows are exchanged")
def rows_exchanged(line, right):
    found = right(line)
    return torch.cat([found[1:2], found[:1], found[2:]]) if len(found) > 1 else found


@rows(*TWO, breaks="the sign is the other one", source="markroxor/fromscratchtoml#65")
def sign(line, right):
    return -right(line)


@rows(*THREE, breaks="the gradient is 1 % too large", source="markroxor/fromscratchtoml#65")
def one_percent(line, right):
    return 1.01 * right(line)


@rows(
    *THREE,
    breaks="atomic additions lose some: noise of 0.1 %",
    dtypes=FLOAT32,
    source="Dao-AILab/flash-attention#414",
)
def noise(line, right):
    found = right(line)
    return found * (
        1 + 1e-3 * torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    )


@rows(
    "softmax",
    breaks="the maximum is detached in the numerator only: the largest logit gets the sum over again",
)
def gradient_through_the_maximum(line):
    p, place = line.p, line.x.argmax(-1, keepdim=True)
    total = (p * line.g).sum(-1, keepdim=True)
    return of_softmax(line) + torch.zeros_like(p).scatter(-1, place, total / line.temperature)


@rows(
    "logsumexp", breaks="the maximum's own gradient is counted: the largest logit gets the upstream once more"
)
def gradient_of_the_maximum(line):
    return of_log_sum_exp(line) + torch.zeros_like(line.x).scatter(
        -1, line.x.argmax(-1, keepdim=True), line.g
    )


@rows(*THREE, breaks="where the row length is odd, P is that of the row before")
def wrong_row_at_odd_lengths(line, right):
    return right(replace(line, x=line.x.roll(1, 0))) if line.x.shape[-1] % 2 else right(line)


@rows("log_softmax", breaks="the sum of the upstream is taken for 1")
def upstream_sum_taken_for_1(line):
    return line.g - line.p


@rows("log_softmax", breaks="the formula of softmax")
def formula_of_softmax(line):
    return of_softmax(line)


@rows(
    "log_softmax",
    breaks="the softmax of dy / p: 0 / 0 where a weight underflows",
    source="FluxML/NNlib.jl#68",
)
def by_way_of_softmax(line):
    p = line.p
    return p * (line.g / p - (p * (line.g / p)).sum(-1, keepdim=True))


@rows(
    "log_softmax",
    breaks="the saved result is in bfloat16: |y| roundings in P",
    dtypes=FORMATS,
    source="jax-ml/jax#3381",
)
def result_saved_in_bfloat16(line):
    p = torch.exp(round_to(torch.log_softmax(line.x, -1), torch.bfloat16))
    return line.g - p * line.g.sum(-1, keepdim=True)


@rows(
    "log_softmax",
    breaks="the saved result is in float16: |y| roundings in P",
    dtypes=FORMATS,
    source="jax-ml/jax#3381",
)
def result_saved_in_float16(line):
    p = torch.exp(round_to(torch.log_softmax(line.x, -1), torch.float16))
    return line.g - p * line.g.sum(-1, keepdim=True)


@rows(
    "log_softmax",
    breaks="P is computed again in bfloat16",
    dtypes=("float32", "float16"),
    source="jax-ml/jax#3381",
)
def weights_again_in_bfloat16(line):
    return line.g - round_to(line.p, torch.bfloat16) * line.g.sum(-1, keepdim=True)


@rows("log_softmax", breaks="the sum of the upstream is stored in bfloat16", dtypes=("float32", "float16"))
def upstream_sum_in_bfloat16(line):
    return line.g - line.p * round_to(line.g.sum(-1, keepdim=True), torch.bfloat16)


@rows(
    "log_softmax",
    breaks="the sum of the upstream is accumulated in float16",
    dtypes=FORMATS,
    source="jax-ml/jax#40474",
)
def upstream_sum_in_float16(line):
    return line.g - line.p * sequential(line.g, torch.float16)


@rows("log_softmax", breaks="the last upstream entry is left out of the sum")
def last_upstream_dropped(line):
    return line.g - line.p * line.g[..., :-1].sum(-1, keepdim=True)


@rows(
    "logsumexp",
    breaks="lse is saved in bfloat16: |lse| roundings in P",
    dtypes=FORMATS,
    source="pytorch/pytorch#113708",
)
def lse_saved_in_bfloat16(line):
    return line.g * torch.exp(
        line.x - finite_or_0(round_to(torch.logsumexp(line.x, -1, keepdim=True), torch.bfloat16))
    )


@rows(
    "logsumexp",
    breaks="lse is saved in float16: |lse| roundings in P",
    dtypes=FORMATS,
    source="pytorch/pytorch#113708",
)
def lse_saved_in_float16(line):
    return line.g * torch.exp(
        line.x - finite_or_0(round_to(torch.logsumexp(line.x, -1, keepdim=True), torch.float16))
    )


@rows(
    "logsumexp",
    breaks="exp(x - lse) of a row of -inf: NaN",
    statuses=("nonfinite",),
    source="pytorch/pytorch#31829",
)
def empty_row_nan(line):
    return line.g * torch.exp(line.x - torch.logsumexp(line.x, -1, keepdim=True))


@rows(
    "logsumexp", breaks="the exponentials are not shifted in the backward", source="pymc-devs/pymc-extras#720"
)
def weights_not_shifted(line):
    e = torch.exp(line.x)
    return line.g * torch.where(line.x == -torch.inf, 0.0, e / e.sum(-1, keepdim=True))


@rows("logsumexp", breaks="only the largest logit has a gradient")
def maximum_only(line):
    return torch.zeros_like(line.x).scatter(-1, line.x.argmax(-1, keepdim=True), line.g)


@rows("logsumexp", breaks="the upstream of the first row is used for all", source="linkedin/Liger-Kernel#968")
def upstream_of_the_first_row(line):
    return line.g[:1] * line.p


# cross_entropy


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the way back through a loss is given: logits z and target weights t [..., n] before
    smoothing, the upstream gradient of each row [..., 1] before the mean, and which rows count
    [...]; index: the target, or None where it is probabilities.
    """

    z: Tensor
    t: Tensor
    g: Tensor
    kept: Tensor
    index: Tensor | None
    smoothing: float
    reduction: str
    dtype: torch.dtype


def probability(labels: Labels) -> Tensor:
    e = torch.exp(labels.z - top(labels.z))
    return e / e.sum(-1, keepdim=True)


def smoothed(labels: Labels) -> Tensor:
    return (1 - labels.smoothing) * labels.t + labels.smoothing / labels.z.shape[-1]


def weight(labels: Labels) -> Tensor:
    return labels.g / labels.kept.sum() if labels.reduction == "mean" else labels.g


def combined(p: Tensor, t: Tensor, w: Tensor, labels: Labels) -> Tensor:
    return w * (p * t.sum(-1, keepdim=True) - t)


def ignored(dz: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept[..., None], dz, 0.0)


@dataclass(frozen=True, kw_only=True)
class GradientOfLoss:
    """The way back through cross_entropy: GradientOfLoss(weight=...) exchanges a step of it."""

    kept: Callable[[Tensor, int], Tensor] = losses.kept
    probability: Callable[[Labels], Tensor] = probability
    smoothed: Callable[[Labels], Tensor] = smoothed
    weight: Callable[[Labels], Tensor] = weight
    combined: Callable[[Tensor, Tensor, Tensor, Labels], Tensor] = combined
    ignored: Callable[[Tensor, Tensor], Tensor] = ignored

    def __call__(self, logits: Tensor, target: Tensor, g: Tensor, options) -> Tensor:
        z = upcast(losses.classes_last(logits))
        if target.is_floating_point():
            index, t = None, upcast(losses.classes_last(target))
            kept = torch.ones(z.shape[:-1], dtype=torch.bool)
        else:
            kept = self.kept(target, options["ignore_index"])
            index = torch.where(target == options["ignore_index"], 0, target)
            t = torch.zeros_like(z).scatter(-1, index[..., None], 1.0)
        labels = Labels(
            z=z, t=t, g=upcast(g).expand(z.shape[:-1])[..., None], kept=kept, index=index,
            smoothing=options["label_smoothing"], reduction=options["reduction"], dtype=logits.dtype,
        )  # fmt: skip
        dz = self.combined(self.probability(labels), self.smoothed(labels), self.weight(labels), labels)
        dz = self.ignored(dz, kept).to(logits.dtype)
        return dz if logits.ndim == 1 else dz.movedim(-1, 1)


class _OfLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, back, logits, target, options):
        ctx.save_for_backward(logits, target)
        ctx.back, ctx.options = back, options
        return losses.Loss()(logits, target, **options)

    @staticmethod
    def backward(ctx, g):
        return None, ctx.back(*ctx.saved_tensors, g, ctx.options), None, None


def of_loss(back: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel of cross_entropy whose gradient is back(logits, target, upstream, options)."""

    def kernel(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
        options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": reduction}
        return _OfLoss.apply(back, logits, target, options)

    return kernel


def loss(step: str, breaks: str, *statuses: str, dtypes=BOTH, needs=(), source=""):
    """Registers the way back with this function in place of a step."""

    def register(function):
        back = GradientOfLoss(**{step: function})
        make = functools.partial(of_loss, back)
        mutant(
            "cross_entropy",
            function.__name__,
            breaks,
            make,
            *statuses,
            dtypes=dtypes,
            needs=needs,
            source=source,
        )
        return function

    return register


@loss("combined", "the gradient is that of the logits alone: p, without the target")
def target_forgotten(p, t, w, labels):
    return w * p


@loss(
    "combined",
    "p is rounded to bfloat16 before 1 is subtracted",
    dtypes=FLOAT32,
    source="tensorflow/tensorflow#126634",
)
def p_minus_1_in_bfloat16(p, t, w, labels):
    return combined(round_to(p, torch.bfloat16), t, w, labels)


@loss(
    "combined",
    "p is rounded to the logits' format before 1 is subtracted",
    dtypes=NARROW,
    source="tensorflow/tensorflow#126634",
)
def p_minus_1_in_the_format(p, t, w, labels):
    return combined(round_to(p, labels.dtype), t, w, labels)


@loss("combined", "entries below 2^-12 are dropped (gradient filtering)", source="apple/ml-cross-entropy#14")
def small_entries_filtered(p, t, w, labels):
    return torch.where((p < 2.0**-12) & (t == 0), 0.0, combined(p, t, w, labels))


@loss(
    "combined",
    "a confident row, whose target's p rounds to 1 in bfloat16, has no gradient",
    source="deeplearning4j/deeplearning4j#6539",
)
def confident_rows_get_nothing(p, t, w, labels):
    done = ((round_to(p, torch.bfloat16) == 1) & (t > 0)).any(-1, keepdim=True)
    return torch.where(done, 0.0, combined(p, t, w, labels))


@loss(
    "combined", "a class at -inf gets NaN: 0 times infinity", "nonfinite", source="google-deepmind/optax#1762"
)
def masked_class_nan(p, t, w, labels):
    return torch.where(labels.z == -torch.inf, torch.nan, combined(p, t, w, labels))


@loss("combined", "the gradient passes through float16: flushed below 2^-25")
def loss_gradient_through_float16(p, t, w, labels):
    return round_to(combined(p, t, w, labels), torch.float16)


@loss("combined", "the gradient of the last class is not written")
def last_class_not_written(p, t, w, labels):
    found = combined(p, t, w, labels).clone()
    found[..., -1] = 0
    return found


@loss(
    "combined",
    "the gradients of the last incomplete tile of 64 classes are not written",
    source="flagos-ai/FlagGems#3716",
)
def tail_of_classes_not_written(p, t, w, labels):
    found = combined(p, t, w, labels).clone()
    found[..., p.shape[-1] // 64 * 64 :] = 0
    return found


@loss("combined", "the target's entry is subtracted from the class after it")
def target_one_off(p, t, w, labels):
    return combined(p, t.roll(1, -1), w, labels)


@loss("combined", "the gradient is that of the loss in base 2")
def loss_in_base_2(p, t, w, labels):
    return combined(p, t, w, labels) / LN2


@loss("combined", "the gradient is 1 % too large")
def loss_one_percent(p, t, w, labels):
    return 1.01 * combined(p, t, w, labels)


@loss("combined", "the sign of the target's entry is the other one")
def target_added(p, t, w, labels):
    return w * (p * t.sum(-1, keepdim=True) + t)


@loss("combined", "rows whose target is class 0 are taken for padding")
def class_0_is_padding(p, t, w, labels):
    found = combined(p, t, w, labels)
    return found if labels.index is None else torch.where((labels.index == 0)[..., None], 0.0, found)


@loss("combined", "the last row is not written")
def last_row_not_written(p, t, w, labels):
    found = combined(p, t, w, labels).clone()
    if found.ndim > 1:
        found[-1] = 0
    return found


@loss("combined", "rows from 65,535 on are not computed (a grid dimension of 16 bits)", dtypes=NARROW)
def rows_beyond_the_grid(p, t, w, labels):
    found = combined(p, t, w, labels).clone()
    found[65535:] = 0
    return found


@loss("probability", "padding classes up to the next multiple of 64 have the logit 0 and count")
def padding_classes(labels):
    wider = torch.nn.functional.pad(labels.z, (0, -labels.z.shape[-1] % 64))
    return torch.softmax(wider, -1)[..., : labels.z.shape[-1]]


@loss(
    "probability",
    "lse is saved in the logits' format: |lse| roundings in p",
    dtypes=NARROW,
    source="pytorch/pytorch#113708",
)
def loss_lse_in_the_format(labels):
    return torch.exp(labels.z - round_to(torch.logsumexp(labels.z, -1, keepdim=True), labels.dtype))


@loss("probability", "each chunk of 32 classes is normalised by the sum so far")
def sum_so_far(labels):
    e = torch.exp(labels.z - top(labels.z))
    sums = e.split(32, -1)
    so_far = list(itertools.accumulate(chunk.sum(-1, keepdim=True) for chunk in sums))
    return torch.cat([chunk / total for chunk, total in zip(sums, so_far, strict=True)], -1)


@loss("probability", "the exponentials are not shifted in the backward", source="pymc-devs/pymc-extras#720")
def classes_not_shifted(labels):
    e = torch.exp(labels.z)
    return e / e.sum(-1, keepdim=True)


@loss("weight", "the mean divides by all rows, not by those that count", source="pytorch/pytorch#73205")
def mean_over_all_rows(labels):
    return labels.g / labels.kept.numel() if labels.reduction == "mean" else labels.g


@loss("weight", "the mean does not divide")
def mean_not_divided(labels):
    return labels.g


@loss("weight", "the sum is divided as a mean", needs=("reduction",))
def sum_divided(labels):
    return labels.g / labels.kept.sum()


@loss("weight", "the row count is held in float16", dtypes=NARROW)
def count_in_float16(labels):
    return labels.g / labels.kept.half().sum().float() if labels.reduction == "mean" else labels.g


@loss("weight", "the upstream is taken for 1", source="linkedin/Liger-Kernel#968")
def loss_upstream_ignored(labels):
    return weight(replace(labels, g=torch.ones_like(labels.g)))


@loss(
    "weight",
    "the upstream of the first row is used for all",
    needs=("reduction",),
    source="linkedin/Liger-Kernel#968",
)
def loss_upstream_of_the_first_row(labels):
    first = labels.g.reshape(-1)[:1].expand(labels.g.shape) if labels.g.numel() else labels.g
    return weight(replace(labels, g=first))


@loss("weight", "the upstream is clipped at 1,000: a loss scale is lost")
def loss_scale_clipped(labels):
    return weight(replace(labels, g=labels.g.clamp(-1000, 1000)))


@loss(
    "ignored",
    "ignored rows get the gradient of class 0",
    source="pytorch/pytorch#73205; tinygrad/tinygrad#3570",
)
def ignored_rows_get_p(dz, kept):
    return dz


@loss(
    "ignored",
    "an ignored row is multiplied by 0, and a NaN in it stays",
    "nonfinite",
    source="pytorch/pytorch#11551",
)
def ignored_by_a_product(dz, kept):
    return dz * kept[..., None]


@loss("ignored", "where all rows are ignored, 0 / 0 is NaN", "nonfinite", source="pytorch/pytorch#75181")
def all_ignored_nan(dz, kept):
    return ignored(dz, kept) if kept.any() or kept.ndim == 0 else dz * 0


@loss("kept", "ignore_index is always -100 in the backward", needs=("ignore_index",))
def ignore_index_fixed(target, ignore_index):
    return target != -100


@loss("smoothed", "label smoothing is forgotten in the backward", needs=("label_smoothing",))
def smoothing_forgotten(labels):
    return labels.t


@loss("smoothed", "smoothing spreads over the n - 1 other classes", needs=("label_smoothing",))
def smoothing_over_the_others(labels):
    others = labels.smoothing / (labels.z.shape[-1] - 1)
    return (1 - labels.smoothing) * labels.t + others * (labels.t.sum(-1, keepdim=True) - labels.t)


@loss("smoothed", "the target keeps its whole weight under smoothing", needs=("label_smoothing",))
def target_not_reduced(labels):
    return labels.t + labels.smoothing / labels.z.shape[-1]


@loss("smoothed", "of class probabilities, the most likely class is taken for the target")
def probabilities_as_one_hot(labels):
    return smoothed(
        replace(labels, t=torch.zeros_like(labels.t).scatter(-1, labels.t.argmax(-1, keepdim=True), 1.0))
    )


# attention


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the way back through attention is given. q, k, v [B, H, ., .] in float32 or float64, k
    and v of every query head; o, d_o [B, H, L, Ev], lse and d_lse [B, H, L, 1]; given: the call
    itself. o is as it was rounded to `dtype`, the tensors'.
    """

    given: Given
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    lse: Tensor
    d_o: Tensor
    d_lse: Tensor
    scale: float

    @property
    def dtype(self) -> torch.dtype:
        return self.given.q.dtype


def again(s: Tensor, lse: Tensor) -> Tensor:
    """P, computed again."""
    return torch.exp(s - finite_or_0(lse))


def same(x: Tensor) -> Tensor:
    return x


def d_weights(kept: Kept) -> Tensor:
    return kept.d_o @ kept.v.mT


def delta(p: Tensor, d_p: Tensor, kept: Kept) -> Tensor:
    """D, by rows."""
    return (kept.d_o * kept.o).sum(-1, keepdim=True)


def d_scores(p: Tensor, d_p: Tensor, d: Tensor, kept: Kept) -> Tensor:
    return p * (d_p - d + kept.d_lse)


def slope(kept: Kept) -> Tensor:
    """What a softcap bends the gradient by: tanh' = 1 / cosh^2."""
    return 1 / torch.cosh(kept.scale * (kept.q @ kept.k.mT) / kept.given.softcap) ** 2


def d_queries(d_s: Tensor, kept: Kept) -> Tensor:
    return kept.scale * (d_s @ kept.k)


def d_keys(d_s: Tensor, kept: Kept) -> Tensor:
    return kept.scale * (d_s.mT @ kept.q)


def d_values(p: Tensor, kept: Kept) -> Tensor:
    return p.mT @ kept.d_o


def together(d: Tensor, groups: int) -> Tensor:
    """[B, H, S, E] summed over the query heads that share a key head."""
    return d.unflatten(1, (groups, -1)).sum(2)


def d_bias(d_s: Tensor, mask: Tensor) -> Tensor:
    return d_s.sum_to_size(mask.shape)


def d_sinks(p_sink: Tensor, d: Tensor, kept: Kept) -> Tensor:
    return (p_sink * (kept.d_lse - d)).sum((0, 2, 3))


@dataclass(frozen=True, kw_only=True)
class GradientOfAttention:
    """FlashAttention-2's way back (arXiv 2307.08691, algorithm 2): GradientOfAttention(delta=...)
    exchanges a step of it.

    forward: whose scores are computed again.
    """

    forward: Attention = attention_kernels.shifted
    lse: Callable[[Tensor], Tensor] = same
    again: Callable[[Tensor, Tensor], Tensor] = again
    share: Callable[[Tensor, int], Tensor] = share
    d_weights: Callable[[Kept], Tensor] = d_weights
    delta: Callable[[Tensor, Tensor, Kept], Tensor] = delta
    d_scores: Callable[[Tensor, Tensor, Tensor, Kept], Tensor] = d_scores
    slope: Callable[[Kept], Tensor] = slope
    d_queries: Callable[[Tensor, Kept], Tensor] = d_queries
    d_keys: Callable[[Tensor, Kept], Tensor] = d_keys
    d_values: Callable[[Tensor, Kept], Tensor] = d_values
    together: Callable[[Tensor, int], Tensor] = together
    d_bias: Callable[[Tensor, Tensor], Tensor] = d_bias
    d_sinks: Callable[[Tensor, Tensor, Kept], Tensor] = d_sinks

    def __call__(self, given: Given, o: Tensor, lse: Tensor, d_o: Tensor, d_lse: Tensor) -> dict[str, Tensor]:
        compute, groups = given.compute, given.k.shape[1]
        kept = Kept(
            given=given, q=given.q.to(compute), k=self.share(given.k, given.heads).to(compute),
            v=self.share(given.v, given.heads).to(compute), o=o.to(compute), lse=self.lse(lse[..., None]),
            d_o=d_o.to(compute), d_lse=d_lse[..., None], scale=attention_kernels.factor(given),
        )  # fmt: skip
        changed = self.forward.arguments(given)
        p = self.again(self.forward.scores(self.forward, changed), kept.lse)
        d_p = self.d_weights(kept)
        d = self.delta(p, d_p, kept)
        d_s = self.d_scores(p, d_p, d, kept)
        found = {"v": self.together(self.d_values(p, kept), groups)}
        if given.mask is not None and given.mask.is_floating_point():
            found["mask"] = self.d_bias(d_s, given.mask)
        if given.sink is not None:
            found["sink"] = self.d_sinks(
                again(given.sink.to(compute)[None, :, None, None], kept.lse), d, kept
            )
        d_x = d_s if given.softcap is None else d_s * self.slope(kept)
        return found | {"q": self.d_queries(d_x, kept), "k": self.together(self.d_keys(d_x, kept), groups)}


FURTHER = ("mask", "alibi_slopes", "sink", "kv_lengths")


class _OfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, back, options, *tensors):
        further = dict(zip(FURTHER, tensors[3:], strict=True))
        o, lse = Attention()(*tensors[:3], **further, **options, return_lse=True)
        ctx.save_for_backward(*tensors, o, lse)
        ctx.back, ctx.options = back, options
        return o, lse

    @staticmethod
    def backward(ctx, d_o, d_lse):
        *tensors, o, lse = ctx.saved_tensors
        by_name = dict(zip(("q", "k", "v", *FURTHER), tensors, strict=True))
        found = ctx.back(Given(**by_name, **ctx.options), o, lse, d_o, d_lse)
        return (
            None,
            None,
            *(found[name].to(x.dtype) if name in found else None for name, x in by_name.items()),
        )


def of_attention(back: Callable[..., dict[str, Tensor]]) -> Callable:
    """A kernel of attention whose gradients are back(given, o, lse, d_o, d_lse), by name."""

    def kernel(
        q, k, v, *, mask=None, causal=None, scale=None, softcap=None, window=None, alibi_slopes=None,
        sink=None,
        enable_gqa=False, kv_lengths=None, return_lse=False,
    ):  # fmt: skip
        options = {"causal": causal, "scale": scale, "softcap": softcap, "window": window}
        o, lse = _OfAttention.apply(back, options, q, k, v, mask, alibi_slopes, sink, kv_lengths)
        return (o, lse) if return_lse else o

    return kernel


def attention(name: str, breaks: str, *statuses: str, dtypes=BOTH, needs=(), source="", **steps):
    """Registers the way back with other steps."""
    make = functools.partial(of_attention, GradientOfAttention(**steps))
    mutant("attention", name, breaks, make, *statuses, dtypes=dtypes, needs=needs, source=source)


def step(name: str, breaks: str, *statuses: str, dtypes=BOTH, needs=(), source=""):
    """Registers the way back with this function in place of the step of this name."""

    def register(function):
        given = {name: function}
        attention(function.__name__, breaks, *statuses, dtypes=dtypes, needs=needs, source=source, **given)
        return function

    return register


def scores_again(breaks: str, *statuses: str, dtypes=BOTH, needs=(), source=""):
    """Registers a mutant of what is computed again: f(given) gives the arguments that differ."""

    def register(function):
        forward = Attention(arguments=lambda given: replace(given, **function(given)))
        attention(
            function.__name__, breaks, *statuses, dtypes=dtypes, needs=needs, source=source, forward=forward
        )
        return function

    return register


@step("delta", "D is missing")
def delta_missing(p, d_p, kept):
    return torch.zeros_like(kept.lse)


@step("delta", "D is that of the next head")
def delta_of_the_next_head(p, d_p, kept):
    return delta(p, d_p, kept).roll(1, 1)


@step("delta", "D is that of the next query")
def delta_of_the_next_query(p, d_p, kept):
    return delta(p, d_p, kept).roll(1, 2)


@step("delta", "D is stored in bfloat16", dtypes=("float32", "float16"))
def delta_in_bfloat16(p, d_p, kept):
    return round_to(delta(p, d_p, kept), torch.bfloat16)


@step("delta", "D is accumulated in bfloat16", dtypes=FORMATS)
def delta_accumulated_in_bfloat16(p, d_p, kept):
    return sequential(kept.d_o * kept.o, torch.bfloat16)


@step("delta", "D is of the keys of the last tile of 16 only")
def delta_of_the_last_tile(p, d_p, kept):
    return (p * d_p)[..., -16:].sum(-1, keepdim=True)


@step("delta", "D is the mean of dP, and not weighted by P")
def delta_unweighted(p, d_p, kept):
    return d_p.mean(-1, keepdim=True)


@step(
    "lse", "lse is saved in bfloat16: |lse| roundings in P", dtypes=FORMATS, source="pytorch/pytorch#113708"
)
def attention_lse_in_bfloat16(lse):
    return round_to(lse, torch.bfloat16)


@step("lse", "lse is saved in float16: |lse| roundings in P", dtypes=FORMATS, source="pytorch/pytorch#113708")
def attention_lse_in_float16(lse):
    return round_to(lse, torch.float16)


@step("lse", "lse is taken in base 2")
def attention_lse_in_base_2(lse):
    return lse / LN2


@step("lse", "lse is that of the next query")
def lse_of_the_next_query(lse):
    return lse.roll(1, 2)


@step("again", "P is not normalised: exp(s - max)")
def weights_not_normalised(s, lse):
    return torch.exp(s - finite_or_0(s.amax(-1, keepdim=True)))


@step("again", "exponents below -8 are taken for -8", dtypes=FORMATS)
def exponents_clamped(s, lse):
    return torch.where(s == -torch.inf, 0.0, torch.exp((s - finite_or_0(lse)).clamp(min=-8)))


@step(
    "again",
    "queries that see nothing get NaN: exp(-inf - -inf)",
    "nonfinite",
    needs=("mask",),
    source="Dao-AILab/flash-attention#443",
)
def empty_rows_nan(s, lse):
    return torch.exp(s - lse)


@step("again", "P is rounded to e4m3", dtypes=FORMATS)
def weights_in_e4m3(s, lse):
    return round_to(again(s, lse), E4M3)


@step("again", "P is rounded to bfloat16, whatever the tensors' format", dtypes=("float32", "float16"))
def weights_in_bfloat16(s, lse):
    return round_to(again(s, lse), torch.bfloat16)


@step(
    "again",
    "hidden keys have a score of -10,000: a query that sees nothing spreads its gradient",
    needs=("mask",),
)
def hidden_keys_get_10000(s, lse):
    return torch.softmax(torch.where(s == -torch.inf, -1e4, s), -1)


for _key in (16, 32, 64, 128):

    def lost(s, lse, key=_key):
        p = again(s, lse).clone()
        p[..., key - 1 : key] = 0
        return p

    attention(f"key_{_key - 1}_lost", f"the last key of the first tile of {_key} has no weight", again=lost)

    def next_lost(s, lse, key=_key):
        p = again(s, lse).clone()
        p[..., key : key + 1] = 0
        return p

    attention(
        f"key_{_key}_lost", f"the first key of the second tile of {_key} has no weight", again=next_lost
    )


@step(
    "again",
    "the last incomplete tile of 16 keys is left out",
    source="pytorch/pytorch#153799; NVIDIA/cudnn-frontend#160",
)
def last_tile_of_keys_lost(s, lse):
    p = again(s, lse).clone()
    p[..., s.shape[-1] // 16 * 16 :] = 0
    return p


@step("d_scores", "the gradient of lse is ignored", needs=("return_lse",), source="pytorch/pytorch#136232")
def d_lse_ignored(p, d_p, d, kept):
    return p * (d_p - d)


@step("d_scores", "the gradient of lse has the other sign", needs=("return_lse",))
def d_lse_sign(p, d_p, d, kept):
    return p * (d_p - d - kept.d_lse)


@step("d_scores", "dS is rounded to e4m3", dtypes=FORMATS)
def d_s_in_e4m3(p, d_p, d, kept):
    return round_to(d_scores(p, d_p, d, kept), E4M3)


@step("d_scores", "dS is rounded to bfloat16, whatever the tensors' format", dtypes=("float32", "float16"))
def d_s_in_bfloat16(p, d_p, d, kept):
    return round_to(d_scores(p, d_p, d, kept), torch.bfloat16)


@step("d_scores", "dP is rounded to bfloat16 before D is subtracted", dtypes=("float32", "float16"))
def d_p_in_bfloat16(p, d_p, d, kept):
    return d_scores(p, round_to(d_p, torch.bfloat16), d, kept)


@step("d_scores", "dP and D are added")
def delta_added(p, d_p, d, kept):
    return p * (d_p + d + kept.d_lse)


@step("d_queries", "the scale is missing in dQ")
def scale_missing_in_d_q(d_s, kept):
    return d_s @ kept.k


@step("d_keys", "the scale is missing in dK")
def scale_missing_in_d_k(d_s, kept):
    return d_s.mT @ kept.q


@step("d_queries", "the scale is in dQ twice")
def scale_twice_in_d_q(d_s, kept):
    return kept.scale * d_queries(d_s, kept)


@step("d_keys", "dK has the default scale, whatever is given", needs=("scale",))
def default_scale_in_d_k(d_s, kept):
    return d_s.mT @ kept.q / math.sqrt(kept.q.shape[-1])


@step(
    "d_queries",
    "dQ is that of the last tile of 16 keys: overwritten, not added to",
    source="Dao-AILab/flash-attention#414",
)
def d_q_overwritten(d_s, kept):
    start = (d_s.shape[-1] - 1) // 16 * 16
    return kept.scale * (d_s[..., start:] @ kept.k[..., start:, :])


@step("d_queries", "the first tile of 16 keys is overwritten in dQ")
def d_q_without_the_first_tile(d_s, kept):
    return kept.scale * (d_s[..., 16:] @ kept.k[..., 16:, :]) if d_s.shape[-1] > 16 else d_queries(d_s, kept)


@step(
    "d_queries", "dQ is added up in bfloat16, key by key", dtypes=FORMATS, source="apple/ml-cross-entropy#14"
)
def d_q_accumulated_in_bfloat16(d_s, kept):
    total = torch.zeros_like(kept.q)
    for one, key in zip(d_s.split(1, -1), kept.k.split(1, -2), strict=True):
        total = round_to(total + kept.scale * (one @ key), torch.bfloat16)
    return total


@step(
    "d_keys", "dK is added up in bfloat16, query by query", dtypes=FORMATS, source="apple/ml-cross-entropy#14"
)
def d_k_accumulated_in_bfloat16(d_s, kept):
    total = torch.zeros_like(kept.k)
    for one, query in zip(d_s.split(1, -2), kept.q.split(1, -2), strict=True):
        total = round_to(total + kept.scale * (one.mT @ query), torch.bfloat16)
    return total


@step("d_keys", "the last query is left out of dK")
def last_query_lost_in_d_k(d_s, kept):
    return kept.scale * (d_s[..., :-1, :].mT @ kept.q[..., :-1, :])


@step("d_values", "the last query is left out of dV")
def last_query_lost_in_d_v(p, kept):
    return p[..., :-1, :].mT @ kept.d_o[..., :-1, :]


@step(
    "d_keys",
    "the last incomplete tile of 16 queries is left out of dK",
    source="Dao-AILab/flash-attention#334",
)
def last_tile_of_queries_lost(d_s, kept):
    whole = d_s.shape[-2] // 16 * 16
    return kept.scale * (d_s[..., :whole, :].mT @ kept.q[..., :whole, :])


@step("d_values", "queries from 64 on are left out of dV")
def second_tile_of_queries_lost(p, kept):
    return p[..., :64, :].mT @ kept.d_o[..., :64, :]


@step("d_values", "dV is of P in the layout of another matrix: transposed where it is square")
def weights_transposed(p, kept):
    return (p if p.shape[-1] == p.shape[-2] else p.mT) @ kept.d_o


@step("d_keys", "dK is 1 % too large")
def d_k_one_percent(d_s, kept):
    return 1.01 * d_keys(d_s, kept)


@step("d_values", "dV is 1 % too large")
def d_v_one_percent(p, kept):
    return 1.01 * d_values(p, kept)


@step(
    "d_queries",
    "atomic additions lose some: noise of 0.1 % in dQ",
    dtypes=FLOAT32,
    source="Dao-AILab/flash-attention#414",
)
def d_q_noise(d_s, kept):
    found = d_queries(d_s, kept)
    return found * (
        1 + 1e-3 * torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    )


@step("slope", "the slope of the softcap is missing", needs=("softcap",), source="openxla/tokamax#1121")
def slope_missing(kept):
    return torch.ones(())


@step("slope", "the slope of the softcap is 1 - tanh, not 1 - tanh^2", needs=("softcap",))
def slope_not_squared(kept):
    return 1 - torch.tanh(kept.scale * (kept.q @ kept.k.mT) / kept.given.softcap).abs()


@step(
    "slope",
    "the slope of the softcap is taken before the scale",
    needs=("softcap",),
    source="huggingface/trl#5691",
)
def slope_before_the_scale(kept):
    return 1 / torch.cosh(kept.q @ kept.k.mT / kept.given.softcap) ** 2


@step("together", "query heads that share a key head are averaged", needs=("key_heads",))
def heads_averaged(d, groups):
    return d.unflatten(1, (groups, -1)).mean(2)


@step("together", "of the query heads that share a key head the last one is kept", needs=("key_heads",))
def last_head_kept(d, groups):
    return d.unflatten(1, (groups, -1))[:, :, -1]


@step("together", "query heads are summed as if they were tiled over the key heads", needs=("key_heads",))
def heads_summed_as_tiled(d, groups):
    return d.unflatten(1, (-1, groups)).sum(1)


@step("share", "the keys and values of another key head are read in the backward", needs=("key_heads",))
def keys_tiled(tensor, heads):
    return tensor.repeat(1, heads // tensor.shape[1], 1, 1)


@step("d_bias", "the gradient of a mask is that of the first batch entry", needs=("mask",))
def mask_of_the_first_batch(d_s, mask):
    return (d_s[:1] if mask.ndim < 4 or mask.shape[0] < d_s.shape[0] else d_s).sum_to_size(mask.shape)


@step("d_bias", "the gradient of a mask is scaled as if it were a score", needs=("mask",))
def mask_scaled(d_s, mask):
    return d_bias(d_s, mask) / 4


@step("d_bias", "the gradient of a mask entry of -inf is NaN", "nonfinite", needs=("mask",))
def infinite_mask_nan(d_s, mask):
    return torch.where(mask == -torch.inf, torch.nan, d_bias(d_s, mask))


@step("d_sinks", "the gradient of a sink is 0", needs=("sink",))
def d_sink_missing(p_sink, d, kept):
    return torch.zeros_like(d_sinks(p_sink, d, kept))


@step("d_sinks", "the gradient of a sink has the other sign", needs=("sink",))
def d_sink_sign(p_sink, d, kept):
    return -d_sinks(p_sink, d, kept)


@step("d_sinks", "the gradient of a sink lacks that of lse", needs=("sink", "return_lse"))
def d_sink_without_d_lse(p_sink, d, kept):
    return -(p_sink * d).sum((0, 2, 3))


@step("d_sinks", "the gradient of a sink is that of the first batch entry", needs=("sink",))
def d_sink_of_the_first_batch(p_sink, d, kept):
    return (p_sink * (kept.d_lse - d))[:1].sum((0, 2, 3))


@scores_again("the mask is ignored in the backward", needs=("mask",))
def mask_ignored(given):
    return {"mask": None}


@scores_again("the backward assumes a causal call", source="triton-lang/triton#4174")
def causal_assumed(given):
    return {"causal": "top_left"} if given.causal is None else {}


@scores_again("causal is ignored in the backward", needs=("causal",))
def causal_ignored(given):
    return {"causal": None}


@scores_again(
    "the other corner is used in the backward",
    needs=("causal", "keys"),
    source="Dao-AILab/flash-attention#443",
)
def other_corner(given):
    return (
        {}
        if given.causal is None
        else {"causal": "top_left" if given.causal == "bottom_right" else "bottom_right"}
    )


@scores_again("the window is ignored in the backward", needs=("window",))
def window_ignored(given):
    return {"window": None}


@scores_again("the softcap is ignored where the scores are computed again", needs=("softcap",))
def softcap_ignored(given):
    return {"softcap": None}


@scores_again("ALiBi is ignored in the backward", needs=("alibi_slopes",))
def alibi_ignored(given):
    return {"alibi_slopes": None}


@scores_again(
    "keys behind kv_lengths get a gradient", needs=("kv_lengths",), source="Dao-AILab/flash-attention#752"
)
def lengths_ignored(given):
    return {"kv_lengths": None}


@scores_again("the key behind kv_lengths gets a gradient", needs=("kv_lengths",))
def lengths_one_longer(given):
    return {} if given.kv_lengths is None else {"kv_lengths": given.kv_lengths + 1}


attention(
    "causal_strict", "a query's own key has no gradient", needs=("causal",),
    forward=Attention(before=lambda given: torch.arange(given.keys) < positions(given)),
)  # fmt: skip
attention(
    "causal_one_ahead", "a key of the future gets a gradient", needs=("causal",),
    forward=Attention(before=lambda given: torch.arange(given.keys) <= positions(given) + 1),
)  # fmt: skip
attention(
    "causal_by_tiles", "all keys of the tile of 16 on the diagonal get a gradient", needs=("causal",),
    forward=Attention(before=lambda given: torch.arange(given.keys) // 16 <= positions(given) // 16),
)  # fmt: skip
attention(
    "scores_in_bfloat16", "scores are rounded to bfloat16 where they are computed again", dtypes=FORMATS,
    forward=Attention(scores=lambda steps, given: round_to(attention_kernels.scores(steps, given),
        torch.bfloat16)),
)  # fmt: skip


def upstream_as_contiguous(given, o, lse, d_o, d_lse):
    strides = tuple(math.prod(d_o.shape[dim + 1 :]) for dim in range(4))
    if d_o.storage_offset() + d_o.numel() > d_o.untyped_storage().nbytes() // d_o.element_size():
        # It reads behind the tensor.
        return {name: torch.full_like(getattr(given, name), torch.nan) for name in "qkv"}
    return GradientOfAttention()(given, o, lse, torch.as_strided(d_o, d_o.shape, strides), d_lse)


def upstream_overwritten(given, o, lse, d_o, d_lse):
    found = GradientOfAttention()(given, o, lse, d_o, d_lse)
    d_o.mul_(2)
    return found


mutant(
    "attention", "upstream_as_contiguous", "the upstream is read as if it were contiguous",
    functools.partial(of_attention, upstream_as_contiguous), source="pytorch/pytorch#139740",
)  # fmt: skip
mutant(
    "attention", "upstream_overwritten", "the upstream is multiplied in place",
    functools.partial(of_attention, upstream_overwritten), "law_broken", "raised",
)  # fmt: skip


# merge_states


def shares(lse_a: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of both states, 0 where both are empty."""
    _, w_a, w_b = powers(lse_a, lse_b)
    total = torch.where(w_a + w_b == 0, 1.0, w_a + w_b)
    return w_a / total, w_b / total


def d_output(p: Tensor, other: Tensor, d_o: Tensor) -> Tensor:
    return p * d_o


def d_log_sum(p: Tensor, o: Tensor, mean: Tensor, d_o: Tensor, d_lse: Tensor) -> Tensor:
    return torch.where(p == 0, 0.0, p * ((d_o * (o - mean)).sum(-1, keepdim=True) + d_lse))


@dataclass(frozen=True, kw_only=True)
class GradientOfStates:
    """The way back through merge_states: GradientOfStates(shares=...) exchanges a step of it."""

    shares: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = shares
    d_output: Callable[[Tensor, Tensor, Tensor], Tensor] = d_output
    d_log_sum: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = d_log_sum

    def __call__(
        self, o_a: Tensor, lse_a: Tensor, o_b: Tensor, lse_b: Tensor, d_o: Tensor, d_lse: Tensor
    ) -> tuple[Tensor, ...]:
        compute = lse_a.dtype
        a, b, d_o, d_lse = o_a.to(compute), o_b.to(compute), d_o.to(compute), d_lse[..., None]
        p_a, p_b = self.shares(lse_a[..., None], lse_b[..., None])
        mean = p_a * a + p_b * b
        return (
            self.d_output(p_a, p_b, d_o).to(o_a.dtype),
            self.d_log_sum(p_a, a, mean, d_o, d_lse)[..., 0],
            self.d_output(p_b, p_a, d_o).to(o_b.dtype),
            self.d_log_sum(p_b, b, mean, d_o, d_lse)[..., 0],
        )


class _OfStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx, back, *tensors):
        ctx.save_for_backward(*tensors)
        ctx.back = back
        return Merge()(*tensors)

    @staticmethod
    def backward(ctx, d_o, d_lse):
        return None, *ctx.back(*ctx.saved_tensors, d_o, d_lse)


def of_states(back: Callable[..., tuple[Tensor, ...]]) -> Callable:
    """A kernel of merge_states whose gradients are back(o_a, lse_a, o_b, lse_b, d_o, d_lse)."""

    def kernel(o_a, lse_a, o_b, lse_b):
        return _OfStates.apply(back, o_a, lse_a, o_b, lse_b)

    return kernel


def merging(step: str, breaks: str, *statuses: str, dtypes=FORMATS, source=""):
    """Registers the way back with this function in place of a step."""

    def register(function):
        make = functools.partial(of_states, GradientOfStates(**{step: function}))
        mutant("merge_states", function.__name__, breaks, make, *statuses, dtypes=dtypes, source=source)
        return function

    return register


@merging("shares", "the weights are exchanged")
def shares_exchanged(lse_a, lse_b):
    return shares(lse_b, lse_a)


@merging("shares", "the weights are not normalised")
def shares_not_normalised(lse_a, lse_b):
    return powers(lse_a, lse_b)[1:]


@merging("shares", "the weights are rounded to bfloat16")
def shares_in_bfloat16(lse_a, lse_b):
    return tuple(round_to(p, torch.bfloat16) for p in shares(lse_a, lse_b))


@merging("shares", "two empty states get NaN: -inf - -inf", "nonfinite")
def empty_states_nan(lse_a, lse_b):
    m = torch.maximum(lse_a, lse_b)
    total = torch.exp(lse_a - m) + torch.exp(lse_b - m)
    return torch.exp(lse_a - m) / total, torch.exp(lse_b - m) / total


@merging("shares", "exp2 of natural log-sum-exps")
def shares_in_base_2(lse_a, lse_b):
    return shares(lse_a * LN2, lse_b * LN2)


@merging("shares", "the log-sum-exps are rounded to float16", dtypes=FORMATS)
def log_sum_exps_in_float16(lse_a, lse_b):
    return shares(round_to(lse_a, torch.float16), round_to(lse_b, torch.float16))


@merging("d_output", "each output gets all of the gradient")
def whole_gradient(p, other, d_o):
    return d_o


@merging("d_output", "only the output of the larger weight has a gradient")
def larger_only(p, other, d_o):
    return torch.where(p >= other, d_o, 0.0)


@merging("d_log_sum", "the gradient of the merged log-sum-exp is ignored", source="pytorch/pytorch#136232")
def merged_d_lse_ignored(p, o, mean, d_o, d_lse):
    return d_log_sum(p, o, mean, d_o, torch.zeros_like(d_lse))


@merging("d_log_sum", "the gradient of the outputs does not reach the log-sum-exps")
def d_o_ignored(p, o, mean, d_o, d_lse):
    return p * d_lse


@merging("d_log_sum", "the merged output is not subtracted")
def mean_not_subtracted(p, o, mean, d_o, d_lse):
    return d_log_sum(p, o, torch.zeros_like(mean), d_o, d_lse)


@merging("d_log_sum", "the merged output is saved in bfloat16, whatever the log-sum-exps' format")
def mean_in_bfloat16(p, o, mean, d_o, d_lse):
    return d_log_sum(p, o, round_to(mean, torch.bfloat16), d_o, d_lse)


@merging("d_log_sum", "dO o is rounded to bfloat16")
def products_in_bfloat16(p, o, mean, d_o, d_lse):
    return p * (round_to((d_o * (o - mean)).sum(-1, keepdim=True), torch.bfloat16) + d_lse)


def by_sigmoid(o_a, lse_a, o_b, lse_b):
    empty = (lse_a == -torch.inf) & (lse_b == -torch.inf)
    gap = torch.where(empty, 0.0, lse_a) - torch.where(empty, 0.0, lse_b)
    share = torch.sigmoid(gap)[..., None]
    o = torch.where(empty[..., None], 0.0, share * o_a.to(gap.dtype) + (1 - share) * o_b.to(gap.dtype))
    low = torch.where(empty, 0.0, torch.maximum(lse_a, lse_b)).detach()
    total = torch.where(empty, 1.0, torch.exp(lse_a - low) + torch.exp(lse_b - low))
    return o.to(o_a.dtype), torch.where(empty, -torch.inf, low + torch.log(total))


def by_logaddexp(o_a, lse_a, o_b, lse_b):
    """As by the weights, but lse by torch.logaddexp, whose gradient at two of -inf is NaN."""
    o, _ = of_states(GradientOfStates())(o_a, lse_a, o_b, lse_b)
    return o, torch.logaddexp(lse_a, lse_b)


mutant(
    "merge_states", "sigmoid_saturates", "autograd through a sigmoid: s (1 - s) is 0 where s rounds to 1",
    lambda: by_sigmoid, dtypes=FORMATS, source="pytorch/pytorch#195680",
)  # fmt: skip
mutant(
    "merge_states", "logaddexp_of_empty_states", "autograd through logaddexp(-inf, -inf): NaN",
    lambda: by_logaddexp, "nonfinite", dtypes=FORMATS, source="pytorch/pytorch#31829",
)  # fmt: skip

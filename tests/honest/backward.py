"""Correct backward passes of many structures: none of them may ever fail. python -m
tests.honest --direction backward

Autograd through a forward of any structure, and ways back that are written out; each is the way of
some published kernel, in float32 for tensors of 16 bits.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.attention import SDPBackend

from suite.kernels import Kernel
from suite.kernels.parts.partial import finite
from suite.numerics import BEST_PRACTICE, Numerics
from tests.attention_kernels import Attention, Given, Tensor, difference, finite_or_0, online, start
from tests.honest.attention import of_torch
from tests.honest.parts import LOG2E, constant, merge
from tests.losses import upcast
from tests.mutants import backward as mutants
from tests.mutants.backward import (
    GradientOfAttention,
    GradientOfLoss,
    GradientOfStates,
    Kept,
    Line,
    of_attention,
    of_log_softmax,
    of_log_sum_exp,
    of_loss,
    of_rows,
    of_softmax,
    of_states,
)


@dataclass(frozen=True)
class Honest:
    """A kernel with a correct backward, and what it declares."""

    name: str
    op: str
    call: Callable
    numerics: Numerics = BEST_PRACTICE

    def kernel(self) -> Kernel:
        parameters = frozenset(inspect.signature(self.call).parameters)
        return Kernel(
            id=self.name,
            op=self.op,
            call=self.call,
            numerics=self.numerics,
            outside=True,
            backward=True,
            parameters=parameters,
        )


HONEST: list[Honest] = []


def honest(op: str, name: str, call: Callable, numerics: Numerics = BEST_PRACTICE) -> None:
    HONEST.append(Honest(name, op, call, numerics))


def kernels(op: str) -> list[Kernel]:
    return [kernel.kernel() for kernel in HONEST if kernel.op == op]


# rows: autograd through a forward


def last(x: Tensor, dim: int) -> Tensor:
    return upcast(x).movedim(dim, -1)


def highest(x: Tensor, detached: bool) -> Tensor:
    """The row maximum, 0 for a row of -inf. Not detached, its gradient is a sum that is 0 but for
    rounding.
    """
    m = x.amax(-1, keepdim=True)
    m = torch.where(m == -torch.inf, 0.0, m)
    return m.detach() if detached else m


def blockwise(x: Tensor, size: int, detached: bool) -> tuple[Tensor, Tensor]:
    """(m, d) by blocks of `size` (Milakov and Gimelshein 2018)."""
    m, d = x.new_full((*x.shape[:-1], 1), -torch.inf), x.new_zeros((*x.shape[:-1], 1))
    for block in x.split(size, -1):
        larger = torch.maximum(m, block.amax(-1, keepdim=True))
        larger = larger.detach() if detached else larger
        safe = torch.where(larger == -torch.inf, 0.0, larger)
        d = d * torch.exp(m - safe) + torch.exp(block - safe).sum(-1, keepdim=True)
        m = larger
    return torch.where(m == -torch.inf, 0.0, m), d


def halves(x: Tensor, detached: bool) -> tuple[Tensor, Tensor]:
    """(m, d) by merging halves down to 16 entries."""

    def merged(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1] > 16:
            half = x.shape[-1] // 2
            return merge(merged(x[..., :half]), merged(x[..., half:]))
        m = x.amax(-1, keepdim=True)
        m = m.detach() if detached else m
        return m, torch.exp(x - finite_or_0(m)).sum(-1, keepdim=True)

    m, d = merged(x)
    return finite_or_0(m), d


def once(x: Tensor, detached: bool) -> tuple[Tensor, Tensor]:
    m = highest(x, detached)
    return m, torch.exp(x - m).sum(-1, keepdim=True)


SUMS = {
    "one maximum": once,
    "blocks of 16": functools.partial(blockwise, size=16),
    "blocks of 64": functools.partial(blockwise, size=64),
    "tree": halves,
}


def softmax_of(sums, detached):
    def kernel(x, dim=-1):
        z = last(x, dim)
        m, d = sums(z, detached=detached)
        return (torch.exp(z - m) / d).movedim(-1, dim).to(x.dtype)

    return kernel


def log_softmax_of(sums, detached):
    def kernel(x, dim=-1):
        z = last(x, dim)
        m, d = sums(z, detached=detached)
        return ((z - m) - torch.log(d)).movedim(-1, dim).to(x.dtype)

    return kernel


def log_sum_exp_of(sums, detached):
    def kernel(x, dim=-1):
        m, d = sums(last(x, dim), detached=detached)
        empty = d == 0
        # The log of 1 in place of that of 0, whose gradient is infinite.
        return torch.where(empty, -torch.inf, m + torch.log(torch.where(empty, 1.0, d)))[..., 0].to(x.dtype)

    return kernel


for _name, _sums in SUMS.items():
    for _detached in (True, False):
        _title = f"autograd, {_name}, {'detached' if _detached else 'through the maximum'}"
        honest("softmax", _title, softmax_of(_sums, _detached))
        honest("log_softmax", _title, log_softmax_of(_sums, _detached))
        if not _detached:  # where the maximum is a term of the result, its gradient is needed
            honest("logsumexp", _title, log_sum_exp_of(_sums, _detached))


def base_2(x, dim=-1, temperature=1.0):
    z = last(x, dim)
    e = torch.exp2((z - highest(z, detached=False)) * constant(z, LOG2E / temperature))
    return (e * (1 / e.sum(-1, keepdim=True))).movedim(-1, dim).to(x.dtype)


def log_subtracted(x, dim=-1, temperature=1.0):
    z = last(x, dim)
    z = (z - highest(z, detached=False)) / temperature
    return torch.exp(z - torch.log(torch.exp(z).sum(-1, keepdim=True))).movedim(-1, dim).to(x.dtype)


def zero_logit_appended(x, dim=-1, temperature=1.0, off_by_one=False):
    z = last(x, dim)
    z = torch.nn.functional.pad(z, (0, 1)) if off_by_one else z
    e = torch.exp((z - highest(z, detached=False)) / temperature)
    return (e / e.sum(-1, keepdim=True))[..., : x.shape[dim]].movedim(-1, dim).to(x.dtype)


def torch_softmax(x, dim=-1):
    return torch.softmax(upcast(x), dim).to(x.dtype)


def torch_log_softmax(x, dim=-1):
    return torch.log_softmax(upcast(x), dim).to(x.dtype)


honest("softmax", "autograd, base 2", base_2)
honest("softmax", "autograd, log subtracted", log_subtracted)
honest("softmax", "autograd, a logit of 0 appended", zero_logit_appended)
honest("softmax", "torch in float32", torch_softmax)
honest("log_softmax", "torch in float32", torch_log_softmax)


# rows: the way back written out


def saved_weights(line: Line) -> Tensor:
    """P is saved in the tensors' format, as it was returned."""
    p = line.p.to(line.dtype).to(line.x.dtype)
    return p * (line.g - (p * line.g).sum(-1, keepdim=True)) / line.temperature


def products_first(line: Line) -> Tensor:
    """p g - p sum(p g), by blocks of 32 and in sequence, as a kernel of one pass over the row has it."""
    terms = saved_terms = line.p * line.g
    total = torch.stack([block.sum(-1, keepdim=True) for block in terms.split(32, -1)]).cumsum(0)[-1]
    return (saved_terms - line.p * total) / line.temperature


def in_float64(line: Line) -> Tensor:
    return of_softmax(replace(line, x=line.x.double(), g=line.g.double())).to(line.x.dtype)


def of_saved_result(line: Line) -> Tensor:
    """P is the exponential of the saved result, which is in float32."""
    return line.g - torch.exp(torch.log_softmax(line.x, -1)) * line.g.sum(-1, keepdim=True)


def of_log_sum(line: Line) -> Tensor:
    """P = exp(x - lse), lse in float32, as one number."""
    return line.g - torch.exp(line.x - torch.logsumexp(line.x, -1, keepdim=True)) * line.g.sum(
        -1, keepdim=True
    )


def of_saved_lse(line: Line) -> Tensor:
    """exp(x - lse), lse in float32; a row of -inf has no weights."""
    return line.g * torch.exp(line.x - finite(torch.logsumexp(line.x, -1, keepdim=True)))


def base_2_again(line: Line) -> Tensor:
    c = constant(line.x, LOG2E)
    return line.g * torch.exp2((line.x - finite(torch.logsumexp(line.x, -1, keepdim=True))) * c)


honest("softmax", "written out, P again", of_rows("softmax", of_softmax))
honest("softmax", "written out, P saved in the format", of_rows("softmax", saved_weights))
honest("softmax", "written out, by blocks", of_rows("softmax", products_first))
honest("softmax", "written out, in float64", of_rows("softmax", in_float64))
honest("log_softmax", "written out, P again", of_rows("log_softmax", of_log_softmax))
honest("log_softmax", "written out, exp of the result in float32", of_rows("log_softmax", of_saved_result))
honest("logsumexp", "written out, P again", of_rows("logsumexp", of_log_sum_exp))
honest("logsumexp", "written out, exp(x - lse)", of_rows("logsumexp", of_saved_lse))
honest("logsumexp", "written out, exp2((x - lse) log2 e)", of_rows("logsumexp", base_2_again))
honest("log_softmax", "written out, exp(x - lse)", of_rows("log_softmax", of_log_sum), Numerics(shift="lse"))


# cross_entropy


def chunked(p: Tensor, t: Tensor, w: Tensor, labels) -> Tensor:
    """In chunks of 32 classes, each scaled as it is made (Liger, Cut Cross-Entropy)."""
    total = t.sum(-1, keepdim=True)
    parts = zip(p.split(32, -1), t.split(32, -1), strict=True)
    return torch.cat([w * (a * total) - w * b for a, b in parts], -1)


def of_lse(labels) -> Tensor:
    return torch.exp(labels.z - torch.logsumexp(labels.z, -1, keepdim=True))


def of_result(labels) -> Tensor:
    return torch.exp(torch.log_softmax(labels.z, -1))


def reciprocal_of_the_count(labels) -> Tensor:
    return labels.g * (1 / labels.kept.sum().to(labels.g.dtype)) if labels.reduction == "mean" else labels.g


def one_gap(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Autograd through log-probabilities; a class at -inf and an ignored row are left out before
    the logarithm, not after.
    """
    z = upcast(logits if logits.ndim == 1 else logits.movedim(1, -1))
    kept = (
        torch.ones(z.shape[:-1], dtype=torch.bool) if target.is_floating_point() else target != ignore_index
    )
    z = torch.where(kept[..., None], z, 0.0)
    if target.is_floating_point():
        t = upcast(target if target.ndim == 1 else target.movedim(1, -1))
    else:
        t = torch.zeros_like(z).scatter(-1, torch.where(kept, target, 0)[..., None], 1.0)
    t = (1 - label_smoothing) * t + label_smoothing / z.shape[-1]
    y = torch.log_softmax(z, -1)
    loss = -torch.where(t > 0, t * y, 0.0).sum(-1)
    loss = torch.where(kept, loss, 0.0)
    if reduction == "mean":
        return (loss.sum() / kept.sum() if kept.any() else (loss.sum() * torch.nan).detach() + loss.sum()).to(
            logits.dtype
        )
    return (loss.sum() if reduction == "sum" else loss).to(logits.dtype)


honest("cross_entropy", "fused: (p - t) w in one pass", of_loss(GradientOfLoss()))
honest("cross_entropy", "in chunks of classes", of_loss(GradientOfLoss(combined=chunked)))
honest("cross_entropy", "p = exp(z - lse)", of_loss(GradientOfLoss(probability=of_lse)))
honest("cross_entropy", "p = exp of the result in float32", of_loss(GradientOfLoss(probability=of_result)))
honest(
    "cross_entropy",
    "times the reciprocal of the count",
    of_loss(GradientOfLoss(weight=reciprocal_of_the_count)),
)
honest("cross_entropy", "autograd through log-probabilities", one_gap)


# attention


def safe_finish(m: Tensor, total: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
    """finish() whose lse has a gradient: that of the log of 0 is infinite."""
    seen = torch.where(total == 0, 1.0, total)
    return o / seen, torch.where(total == 0, -torch.inf, finite_or_0(m) + torch.log(seen))[..., 0]


def composed(
    s: Tensor, v: Tensor, sink: Tensor | None, *, detached: bool = False, stored=None
) -> tuple[Tensor, Tensor]:
    """The definition, with one maximum. stored: the format that P is rounded to, but not its gradient."""
    m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
    m = m.detach() if detached else m
    e = difference(s, m)
    total = e.sum(-1, keepdim=True) + (0 if sink is None else difference(sink, m))
    p = e / torch.where(total == 0, 1.0, total)
    o, lse = safe_finish(m, total, e @ v)
    return (o if stored is None else (p + (p.to(stored).to(s.dtype) - p).detach()) @ v), lse


def of_products(p: Tensor, d_p: Tensor, kept: Kept) -> Tensor:
    return (p * d_p).sum(-1, keepdim=True)


def rounded(tensor: Tensor, kept: Kept) -> Tensor:
    return tensor.to(kept.dtype).to(tensor.dtype)


def cast_d_queries(d_s: Tensor, kept: Kept) -> Tensor:
    return mutants.d_queries(rounded(d_s, kept), kept)


def cast_d_keys(d_s: Tensor, kept: Kept) -> Tensor:
    return mutants.d_keys(rounded(d_s, kept), kept)


def cast_d_values(p: Tensor, kept: Kept) -> Tensor:
    return mutants.d_values(rounded(p, kept), kept)


CAST = {"d_queries": cast_d_queries, "d_keys": cast_d_keys, "d_values": cast_d_values}


def shuffled(count: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(count)).tolist()


def d_queries_in_random_order(d_s: Tensor, kept: Kept) -> Tensor:
    """Blocks of 16 keys add to dQ as they come: atomic additions."""
    parts = [one @ key for one, key in zip(d_s.split(16, -1), kept.k.split(16, -2), strict=True)]
    total = torch.zeros_like(kept.q)
    for place in shuffled(len(parts)):
        total = total + kept.scale * parts[place]
    return total


def over_queries(left: Tensor, right: Tensor) -> Tensor:
    """left^T right, block of 16 queries after block."""
    total = left.new_zeros((*left.shape[:2], left.shape[-1], right.shape[-1]))
    for a, b in zip(left.split(16, -2), right.split(16, -2), strict=True):
        total = total + a.mT @ b
    return total


def d_keys_over_queries(d_s: Tensor, kept: Kept) -> Tensor:
    return over_queries(d_s, kept.q) * kept.scale


def d_values_over_queries(p: Tensor, kept: Kept) -> Tensor:
    return over_queries(p, kept.d_o)


def base_2_weights(s: Tensor, lse: Tensor) -> Tensor:
    """exp2 of scores and lse in base 2."""
    c = constant(s, LOG2E)
    return torch.exp2(s * c - finite_or_0(lse) * c)


def normalised_weights(s: Tensor, lse: Tensor) -> Tensor:
    """exp(s - m) / sum, of both saved apart. Not where there is a sink, which lse alone knows of."""
    m = s.amax(-1, keepdim=True)
    total = torch.exp(lse - m)
    return difference(s, m) / torch.where(total.isfinite() & (total > 0), total, 1.0)


def slope_by_tanh(kept: Kept) -> Tensor:
    return 1 - torch.tanh(kept.scale * (kept.q @ kept.k.mT) / kept.given.softcap) ** 2


def heads_one_by_one(d: Tensor, groups: int) -> Tensor:
    return d.unflatten(1, (groups, -1)).cumsum(2)[:, :, -1]


def wide_call(given: Given, o: Tensor, lse: Tensor, d_o: Tensor, d_lse: Tensor) -> dict[str, Tensor]:
    """All in float64, but for the O and lse that were saved."""
    names = ("q", "k", "v", "mask", "sink", "alibi_slopes")
    tensors = {name: getattr(given, name) for name in names}
    wider = {name: x.double() for name, x in tensors.items() if x is not None and x.is_floating_point()}
    return GradientOfAttention()(
        replace(given, **wider), o.double(), lse.double(), d_o.double(), d_lse.double()
    )


def flash(q, k, v, *, scale=None, enable_gqa=False, causal=None, window=None, mask=None, kv_lengths=None):
    """torch's fused kernel, which has no gradient of a mask."""
    if mask is not None and mask.requires_grad:
        raise NotImplementedError("a mask that has a gradient")
    call = of_torch(SDPBackend.FLASH_ATTENTION)
    return call(
        q,
        k,
        v,
        scale=scale,
        enable_gqa=enable_gqa,
        causal=causal,
        window=window,
        mask=mask,
        kv_lengths=kv_lengths,
    )


def recomputing(**steps) -> Callable:
    return of_attention(GradientOfAttention(**steps))


honest("attention", "autograd of a composition", Attention(fold=composed))
honest("attention", "autograd, maximum detached", Attention(fold=functools.partial(composed, detached=True)))
honest(
    "attention",
    "autograd, P in the format",
    Attention(stored_fold=lambda dtype: functools.partial(composed, stored=dtype)),
)
for _block in (16, 64):
    honest(
        "attention",
        f"autograd, online, {_block} keys a block",
        Attention(fold=online(block=_block, finish=safe_finish)),
    )
honest("attention", "FlashAttention-2: D from O", recomputing())
honest("attention", "FlashAttention-2: D from P dP", recomputing(delta=of_products))
honest("attention", "FlashAttention-2: P and dS in the format", recomputing(**CAST))
honest(
    "attention",
    "FlashAttention-2: P and dS in the format, D from P dP",
    recomputing(delta=of_products, **CAST),
)
honest(
    "attention", "split over queries", recomputing(d_keys=d_keys_over_queries, d_values=d_values_over_queries)
)
honest("attention", "split over keys, in random order", recomputing(d_queries=d_queries_in_random_order))
honest("attention", "exp2 of folded exponents", recomputing(again=base_2_weights))
honest("attention", "exp(s - max) / sum", recomputing(again=normalised_weights))
honest("attention", "1 - tanh^2", recomputing(slope=slope_by_tanh))
honest("attention", "heads one by one", recomputing(together=heads_one_by_one))
honest("attention", "float64 inside", of_attention(wide_call))
honest("attention", "torch, math", of_torch(SDPBackend.MATH))
honest("attention", "torch, flash", flash)


# merge_states


def normalised_shares(lse_a: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    lse = torch.logaddexp(lse_a, lse_b)
    return torch.exp(lse_a - finite_or_0(lse)), torch.exp(lse_b - finite_or_0(lse))


def apart(p: Tensor, o: Tensor, mean: Tensor, d_o: Tensor, d_lse: Tensor) -> Tensor:
    """Both products on their own."""
    return p * ((d_o * o).sum(-1, keepdim=True) - (d_o * mean).sum(-1, keepdim=True) + d_lse)


def merged(o_a, lse_a, o_b, lse_b):
    """Autograd, with nothing infinite on its way: an empty state's log-sum-exp counts as one far below."""
    empty = (lse_a == -torch.inf) & (lse_b == -torch.inf)
    low = torch.where(empty, 0.0, torch.maximum(lse_a, lse_b)).detach()
    w_a, w_b = torch.exp(lse_a - low), torch.exp(lse_b - low)
    total = torch.where(empty, 1.0, w_a + w_b)
    o = (w_a[..., None] * o_a.to(low.dtype) + w_b[..., None] * o_b.to(low.dtype)) / total[..., None]
    return o.to(o_a.dtype), torch.where(empty, -torch.inf, low + torch.log(total))


def weighted_by_total(o_a, lse_a, o_b, lse_b):
    """Autograd through exp(lse_a - lse)."""
    empty = (lse_a == -torch.inf) & (lse_b == -torch.inf)
    low = torch.where(empty, 0.0, torch.maximum(lse_a, lse_b)).detach()
    total = torch.where(empty, 1.0, torch.exp(lse_a - low) + torch.exp(lse_b - low))
    lse = low + torch.log(total)
    o = torch.exp(lse_a - lse)[..., None] * o_a.to(low.dtype) + torch.exp(lse_b - lse)[..., None] * o_b.to(
        low.dtype
    )
    return o.to(o_a.dtype), torch.where(empty, -torch.inf, lse)


honest("merge_states", "written out", of_states(GradientOfStates()))
honest("merge_states", "written out, exp(lse_a - lse)", of_states(GradientOfStates(shares=normalised_shares)))
honest("merge_states", "written out, products apart", of_states(GradientOfStates(d_log_sum=apart)))
honest("merge_states", "autograd, shifted", merged)
honest("merge_states", "autograd, exp(lse_a - lse)", weighted_by_total, Numerics(shift="lse"))

"""Correct kernels of softmax, log_softmax, logsumexp and cross_entropy, of many structures.

Each computes float16 and bfloat16 rows in float32 and rounds once, as best practice has it.
docs/verdict.md, section 2, has the structures. Those of cross_entropy are in tests/honest/losses.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from suite.formats import Format, compute_format
from suite.kernels import Domain
from suite.kernels.parts.domains import cancelling_domain
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops.rows import RowFacts
from tests.honest.losses import LOSSES
from tests.honest.parts import (
    LN2,
    LOG2E,
    approximate_exp2,
    blocks,
    constant,
    exp_by_exp2,
    flush,
    fma,
    online,
    top,
    tree,
)

PLAIN: Mapping[str, Any] = {}
TEMPERATURES = tuple({"temperature": value} for value in (0.7, 0.001, 3.0, 100.0))
OFF_BY_ONE = ({"off_by_one": True}, {"off_by_one": True, "temperature": 0.7})
LOSS_SETTINGS = (
    {"reduction": "none"},
    {"reduction": "none", "label_smoothing": 0.1},
    {"reduction": "none", "target": "probabilities"},
    {"reduction": "mean", "ignore_index": 3},
    {"reduction": "mean", "label_smoothing": 0.1, "target": "probabilities"},
    {"reduction": "sum", "label_smoothing": 0.5},
)
DomainOf = Callable[[RowFacts, Format], Domain]


@dataclass(frozen=True)
class Honest:
    """A correct kernel f(*tensors, **options) of an op.

    settings: the options, and what "target" holds, with which it is judged. domain: of the rows it
    is meant for; None = all.
    """

    name: str
    op: str
    call: Callable[..., torch.Tensor]
    numerics: Numerics = BEST_PRACTICE
    domain: DomainOf | None = None
    settings: tuple[Mapping[str, Any], ...] = (PLAIN,)


KERNELS: list[Honest] = [
    Honest(name, "cross_entropy", loss, numerics, settings=LOSS_SETTINGS)
    for name, (loss, numerics) in LOSSES.items()
]
HONEST: dict[str, dict[str, tuple[Callable[..., torch.Tensor], Numerics]]] = {
    op: {} for op in ("softmax", "log_softmax", "logsumexp")
}
"""Those of the row-wise ops without options: f(x)."""


def honest(
    op: str,
    numerics: Numerics = BEST_PRACTICE,
    *,
    domain: DomainOf | None = None,
    settings: tuple[Mapping[str, Any], ...] = (PLAIN,),
):
    """Registers a correct kernel f(x [rows, n]); 16-bit rows reach it as float32."""

    def register(function):
        def upcasted(x, off_by_one=False, **options):
            assert off_by_one == ("off_by_one" in settings[0])  # what such a kernel is written for
            inner = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return function(inner, **options).to(x.dtype)

        KERNELS.append(Honest(function.__name__, op, upcasted, numerics, domain, settings))
        if settings == (PLAIN,):
            HONEST[op][function.__name__] = (upcasted, numerics)
        return function

    return register


def exponents_are_exact(facts: RowFacts, format: Format) -> Domain:
    """round(x log2 e), and its product with the high part of ln 2, are exact for |x| below 1e7 in float32."""
    works = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0).max(axis=1) < 1e7
    return Domain(works, np.zeros_like(works), "round(x log2 e) is rounded itself")


def every_product_cancels(facts: RowFacts, format: Format) -> Domain:
    """Each logit may be the maximum for a while, and the rounding error of its product with log2 e
    must not overflow exp2.
    """
    largest = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0).max(axis=1)
    works = largest < 100 / (LOG2E * compute_format(format).unit_roundoff)
    return Domain(works, np.zeros_like(works), "the rounding error of x * log2(e) alone overflows exp2")


def quotients_fit(facts: RowFacts, format: Format) -> Domain:
    """x / T must not overflow."""
    largest = np.where(facts.x > -np.inf, np.abs(facts.x), 0.0).max(axis=1)
    works = largest < compute_format(format).largest / 2 * min(facts.temperature, 1.0)
    return Domain(works, np.zeros_like(works), "x / T overflows")


# softmax


@honest("softmax")
def torch_softmax(x):
    return torch.softmax(x, -1)


@honest("softmax")
def shifted_division(x):
    e = torch.exp(x - top(x))
    return e / e.sum(-1, keepdim=True)


@honest("softmax")
def shifted_reciprocal(x):
    e = torch.exp(x - top(x))
    return e * (1 / e.sum(-1, keepdim=True))


@honest("softmax")
def sequential_sum(x):
    e = torch.exp(x - top(x))
    return e / e.cumsum(-1)[:, -1:]


@honest("softmax")
def sequential_sum_reversed(x):
    e = torch.exp(x - top(x))
    return e / e.flip(-1).cumsum(-1)[:, -1:]


@honest("softmax")
def sorted_sum(x):
    e = torch.exp(x - top(x))
    return e / e.sort(-1).values.cumsum(-1)[:, -1:]


@honest("softmax")
def base_2(x):
    e = torch.exp2((x - top(x)) * constant(x, LOG2E))
    return e / e.sum(-1, keepdim=True)


@honest("softmax", domain=cancelling_domain)
def base_2_folded_with_one_maximum(x):
    c = constant(x, LOG2E)
    e = torch.exp2(fma(x, c, (-top(x) * c).expand_as(x)))
    return e / e.sum(-1, keepdim=True)


@honest("softmax")
def log_subtracted(x):
    z = x - top(x)
    return torch.exp(z - torch.log(torch.exp(z).sum(-1, keepdim=True)))


@honest("softmax")
def log_subtracted_in_base_2(x):
    t = (x - top(x)) * constant(x, LOG2E)
    return torch.exp2(t - torch.log2(torch.exp2(t).sum(-1, keepdim=True)))


@honest("softmax")
def log_subtracted_before_base_2(x):
    d = x - top(x)
    return torch.exp2((d - torch.log(torch.exp(d).sum(-1, keepdim=True))) * constant(x, LOG2E))


@honest("softmax")
def online_by_element(x):
    m, d = online(x, 1)
    return torch.exp(x - m) / d


@honest("softmax")
def online_by_16(x):
    m, d = online(x, 16)
    return torch.exp(x - m) / d


@honest("softmax")
def online_by_64(x):
    m, d = online(x, 64)
    return torch.exp(x - m) / d


@honest("softmax")
def online_by_128(x):
    m, d = online(x, 128)
    return torch.exp(x - m) / d


@honest("softmax")
def online_base_2(x):
    m, d = online(x, 32, exp_by_exp2)
    return exp_by_exp2(x - m) / d


@honest("softmax")
def online_with_rescale_threshold(x):
    m, d = online(x, 16, threshold=8 * LN2)
    return torch.exp(x - m) / d


@honest("softmax")
def online_with_approximate_exp2(x):
    def exp(z):
        return approximate_exp2(z * constant(z, LOG2E))

    m, d = online(x, 64, exp)
    return flush(exp(x - m) / d) if x.dtype != torch.float64 else exp(x - m) / d


@honest("softmax")
def tree_merge(x):
    m, d = tree(x)
    return torch.exp(x - m.masked_fill(m == -torch.inf, 0.0)) / d


@honest("softmax")
def online_reversed(x):
    m, d = online(x.flip(-1), 16)
    return torch.exp(x - m) / d


@honest("softmax")
def numerators_of_each_block_rescaled(x):
    """Each block keeps exp(x - its own maximum) and is scaled at the end: two roundings of the exponent."""
    m, d = online(x, 32)
    parts = []
    for block in blocks(x, 32):
        own = block.amax(-1, keepdim=True)
        own = torch.where(own == -torch.inf, m, own)
        parts.append(torch.exp(block - own) * torch.exp(own - m))
    return torch.cat(parts, -1) / d


@honest("softmax")
def float64_inside(x):
    return torch.softmax(x.double(), -1).to(x.dtype)


@honest("softmax")
def flushing(x):
    e = flush(torch.exp(x - top(x)))
    return flush(e / e.sum(-1, keepdim=True))


@honest("softmax")
def shifted_by_rounded_up_maximum(x):
    e = torch.exp(x - torch.ceil(top(x)))
    return e / e.sum(-1, keepdim=True)


@honest("softmax", domain=exponents_are_exact)
def two_pass_with_fma(x):
    """exp(x) = f 2^k without a maximum pass (Dukhan and Ablavatski, arXiv 2001.04438): the argument
    is reduced by FMA.
    """
    visible = x > -torch.inf
    finite = torch.where(visible, x, torch.zeros_like(x))
    k = torch.round(finite * constant(x, LOG2E))
    high = constant(x.float(), LN2) if x.dtype == torch.float32 else LN2
    low = float(np.longdouble("0.693147180559945309417232121458") - np.longdouble(high))
    reduced = fma(k, -low, fma(k, -high, finite))
    f = torch.exp(reduced) * visible
    largest = torch.where(visible, k, torch.full_like(k, -torch.inf)).amax(-1, keepdim=True)
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    e = torch.ldexp(f, (k - largest).clamp(min=-2000).to(torch.int32))
    return e / e.sum(-1, keepdim=True)


@honest("softmax", Numerics(shift="lse"))
def lse_subtracted(x):
    return torch.exp(x - torch.logsumexp(x, -1, keepdim=True))


@honest("softmax", Numerics(shift="folded"), domain=every_product_cancels)
def online_folded(x):
    """The FlashAttention form: exp2(fma(x, c, -fl(m c))) with a maximum that moves."""
    c = constant(x, LOG2E)
    m = torch.full_like(x[:, :1], -torch.inf)
    d = torch.zeros_like(m)
    for block in blocks(x, 16):
        m_new = torch.maximum(m, block.amax(-1, keepdim=True))
        safe = m_new.masked_fill(m_new == -torch.inf, 0.0)
        folded = (-safe * c).expand_as(block)
        d = d * torch.exp2((m - safe) * c) + torch.exp2(fma(block, c, folded)).sum(-1, keepdim=True)
        m = m_new
    safe = m.masked_fill(m == -torch.inf, 0.0)
    return torch.exp2(fma(x, c, (-safe * c).expand_as(x))) / d


# softmax with a temperature, and off by one


@honest("softmax", settings=TEMPERATURES)
def gap_over_temperature(x, temperature):
    e = torch.exp((x - top(x)) / temperature)
    return e / e.sum(-1, keepdim=True)


@honest("softmax", settings=TEMPERATURES)
def gap_times_reciprocal_temperature(x, temperature):
    e = torch.exp((x - top(x)) * constant(x, 1 / temperature))
    return e / e.sum(-1, keepdim=True)


@honest("softmax", settings=TEMPERATURES)
def temperature_in_the_base_2_factor(x, temperature):
    e = torch.exp2((x - top(x)) * constant(x, LOG2E / temperature))
    return e * (1 / e.sum(-1, keepdim=True))


@honest("softmax", settings=TEMPERATURES)
def online_with_temperature(x, temperature):
    """Exponents divided where they are taken, block by block."""

    def exp(z):
        return torch.exp(z / constant(z, temperature))

    m, d = online(x, 16, exp)
    return exp(x - m) / d


@honest("softmax", settings=TEMPERATURES)
def log_subtracted_with_temperature(x, temperature):
    z = (x - top(x)) / temperature
    return torch.exp(z - torch.log(torch.exp(z).sum(-1, keepdim=True)))


@honest("softmax", Numerics(shift="folded"), domain=quotients_fit, settings=TEMPERATURES)
def divided_beforehand(x, temperature):
    """x / T is rounded where it lies, so its error grows with |x| / T, and not with the gap."""
    return torch.softmax(x / temperature, -1)


@honest("softmax", settings=OFF_BY_ONE)
def zero_logit_appended(x, temperature=1.0):
    wider = torch.nn.functional.pad(x, (0, 1))
    e = torch.exp((wider - top(wider)) / temperature)
    return (e / e.sum(-1, keepdim=True))[:, :-1]


@honest("softmax", settings=OFF_BY_ONE)
def shifted_one_added(x, temperature=1.0):
    m = top(x).clamp(min=0)
    e = torch.exp((x - m) / temperature)
    return e / (e.sum(-1, keepdim=True) + torch.exp(-m / temperature))


@honest("softmax", settings=OFF_BY_ONE)
def one_merged_at_the_end(x, temperature=1.0):
    """An online softmax, into whose (m, d) the pair (0, 1) is merged behind the last block."""

    def exp(z):
        return torch.exp2(z * constant(z, LOG2E / temperature))

    m, d = online(x, 32, exp)
    highest = torch.where(d > 0, m, 0.0).clamp(min=0)
    d = torch.where(d > 0, d * exp(m - highest), 0.0) + exp(-highest)
    return exp(x - highest) / d


@honest("softmax", settings=OFF_BY_ONE)
def log_of_the_larger_sum(x, temperature=1.0):
    m = top(x).clamp(min=0)
    z = (x - m) / temperature
    total = torch.exp(z).sum(-1, keepdim=True) + torch.exp(-m / temperature)
    return torch.exp(z - torch.log(total))


# log_softmax


@honest("log_softmax")
def torch_log_softmax(x):
    return torch.log_softmax(x, -1)


@honest("log_softmax")
def shifted_log(x):
    z = x - top(x)
    return z - torch.log(torch.exp(z).sum(-1, keepdim=True))


@honest("log_softmax")
def base_2_log(x):
    z = (x - top(x)) * constant(x, LOG2E)
    return (z - torch.log2(torch.exp2(z).sum(-1, keepdim=True))) * constant(x, LN2)


@honest("log_softmax")
def online_log(x):
    m, d = online(x, 16)
    return (x - m) - torch.log(d)


@honest("log_softmax")
def tree_log(x):
    m, d = tree(x)
    return (x - m.masked_fill(m == -torch.inf, 0.0)) - torch.log(d)


@honest("log_softmax")
def log1p_of_the_others(x):
    """The largest entry is left out of the sum, which log1p puts back (scipy's form)."""
    m, place = x.amax(-1, keepdim=True), x.argmax(-1, keepdim=True)
    z = x - m
    others = torch.exp(z).scatter(-1, place, 0.0).sum(-1, keepdim=True)
    return z - torch.log1p(others)


@honest("log_softmax")
def flushing_log(x):
    z = x - top(x)
    return flush(z - flush(torch.log(flush(torch.exp(z)).sum(-1, keepdim=True))))


@honest("log_softmax", Numerics(shift="lse"))
def lse_subtracted_log(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


# logsumexp


@honest("logsumexp")
def torch_logsumexp(x):
    return torch.logsumexp(x, -1)


@honest("logsumexp")
def shifted_lse(x):
    m = top(x)
    return (m + torch.log(torch.exp(x - m).sum(-1, keepdim=True)))[:, 0]


@honest("logsumexp")
def base_2_lse(x):
    m, c = top(x), constant(x, LOG2E)
    total = torch.log2(torch.exp2((x - m) * c).sum(-1, keepdim=True))
    return ((m * c + total) * constant(x, LN2))[:, 0]


@honest("logsumexp", domain=cancelling_domain)
def base_2_fma_lse(x):
    m, c = top(x), constant(x, LOG2E)
    total = torch.log2(torch.exp2(fma(x, c, (-m * c).expand_as(x))).sum(-1, keepdim=True))
    return (fma(m, c, total) * constant(x, LN2))[:, 0]


@honest("logsumexp")
def online_lse(x):
    m, d = online(x, 16)
    return (m + torch.log(d))[:, 0]


@honest("logsumexp")
def tree_lse(x):
    m, d = tree(x)
    return (m.masked_fill(m == -torch.inf, 0.0) + torch.log(d))[:, 0]


@honest("logsumexp")
def log1p_lse(x):
    m, place = top(x), x.argmax(-1, keepdim=True)
    others = torch.exp(x - m).scatter(-1, place, 0.0).sum(-1, keepdim=True)
    visible = (x > -torch.inf).any(-1, keepdim=True)
    return torch.where(visible, m + torch.log1p(others), -torch.inf)[:, 0]

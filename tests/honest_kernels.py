"""Correct kernels of many structures: none of them may ever fail. `python -m tests.honest_kernels`
prints how near they come.

Each computes float16 and bfloat16 rows in float32 and rounds once, as best practice has it. Rows
are free of NaN and +inf, because special values are the judge's own tests, and inside the domain
that a kernel declares. docs/verdict.md, section 2, has the structures; those of cross_entropy are
in tests/honest_losses.py.

20 seeds, some minutes an op: python -m tests.honest_kernels --seeds 20 --op softmax
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from suite import inputs
from suite.case import DIRECTIONS, Case, fixed_shape
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.formats import DTYPES, FORMATS, Array, Format, compute_format
from suite.kernels import Domain, Kernel
from suite.kernels.parts.domains import cancelling_domain
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import NAMES, get_op, row_ops
from suite.ops.rows import RowFacts
from suite.oracle import Oracle
from suite.records.record import PASSING, Record
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import judge_values
from tests import honest_attention, honest_backward, planted_states
from tests.honest_losses import LOSSES
from tests.honest_parts import (
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
from tests.planted_faults import cases_of

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


FAMILIES = list(inputs.all_families())


def rows_without_nan(case: Case, format: Format, most_rows: int | None) -> dict[str, Array]:
    """The case's inputs, without the rows that hold NaN or +inf; of more than most_rows, so many
    that lie evenly among them.

    Where losses are added up or a temperature divides, without those whose sum or quotient float64
    cannot hold either.
    """
    given = case.inputs(format)
    logits = next(iter(given.values()))
    options = case.resolved_options()
    limit = (
        1e300
        if options.get("reduction") in ("mean", "sum") or options.get("temperature", 1.0) < 1
        else np.inf
    )
    unfit = np.isnan(logits) | (logits == np.inf) | (np.isfinite(logits) & (np.abs(logits) > limit))
    chosen = np.flatnonzero(~unfit.any(axis=1))
    if most_rows is not None and len(chosen) > most_rows:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most_rows).astype(int)]
    return {name: values[chosen] for name, values in given.items()}


def ratios(
    op: str,
    family: str,
    dtype: str,
    *,
    seeds: int,
    shapes: list[tuple[int, int]],
    most_rows: int | None = None,
) -> Iterator[tuple[str, str, float]]:
    """(kernel, what failed or "", largest error in times of bound) of every honest kernel on every
    input and setting.
    """
    definition, format, oracle = get_op(op), FORMATS[dtype], Oracle()
    fixed = inputs.get_family(family).fixed_shape
    kernels = [kernel for kernel in KERNELS if kernel.op == op]
    settings = {str(setting): setting for kernel in kernels for setting in kernel.settings}.values()
    for seed in range(1 if fixed else seeds):
        for shape in [fixed] if fixed else shapes:
            for setting in settings:
                options = {name: value for name, value in setting.items() if name != "target"}
                target = setting.get("target", "indices")
                case = Case(op=op, family=family, shape=shape, options=options, seed=seed, target=target)
                resolved = case.resolved_options()
                given = rows_without_nan(case, format, most_rows)
                facts = oracle.reference(definition, given, resolved, format).facts
                for kernel in kernels:
                    if setting not in kernel.settings:
                        continue
                    own = given
                    if kernel.domain is not None:
                        meant = kernel.domain(facts, format).works
                        own = {name: values[meant] for name, values in given.items()}
                    output = kernel.call(*(to_torch(values, format) for values in own.values()), **options)
                    judgement = judge_values(
                        definition,
                        oracle.reference(definition, own, resolved, format),
                        to_float64(output),
                        {name: values.shape for name, values in own.items()},
                        resolved,
                        format,
                        kernel.numerics,
                        statistics=False,
                    )
                    nothing_proved = judgement.status == "unjudged" and kernel.numerics != BEST_PRACTICE
                    failed = "" if judgement.passed or nothing_proved else f"{case.id}: {judgement.message}"
                    yield kernel.name, failed, judgement.ratio


def kernels_of(op: str, direction: str = "forward") -> list[Kernel]:
    """The correct kernels of an op that is judged by its cases."""
    if direction == "backward":
        return honest_backward.kernels(op)
    return {"attention": honest_attention.kernels, "merge_states": planted_states.honest_states}[op]()


def records(
    op: str, dtype: str, *, seeds: int, every: int = 1, direction: str = "forward"
) -> Iterator[Record]:
    """What every correct kernel of attention or merge_states, or of any op's backward, gets on the
    op's smoke and quick cases, laws included.

    every: of the cases, one in so many for each kernel, so that each case meets some kernel.
    """
    cases, oracle, host = cases_of(op, dtype, "quick", direction), Oracle(remembered=10), InProcess()
    for place, (_, case) in enumerate(cases):
        for seed in range(1 if fixed_shape(op, case.family) else seeds):
            for index, kernel in enumerate(kernels_of(op, direction)):
                if (place + index + seed * every // seeds) % every == 0:
                    yield evaluate(replace(case, seed=seed), kernel, dtype=dtype, oracle=oracle, host=host)


def found(
    op: str, dtype: str, seeds: int, shapes: list[tuple[int, int]], every: int, direction: str
) -> Iterator[tuple[str, str, float]]:
    """(kernel, what failed or "", largest error in times of bound) of the op's correct kernels; on
    rows, of these shapes.
    """
    if op in row_ops() and direction == "forward":
        for family in FAMILIES:
            yield from ratios(op, family, dtype, seeds=seeds, shapes=shapes)
        return
    for record in records(op, dtype, seeds=seeds, every=every, direction=direction):
        if record.status != "unsupported":
            failed = "" if record.status in PASSING else f"{record.case}: {record.message}"
            yield record.kernel, failed, record.ratio or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Judges every honest kernel on every family; prints the largest ratios."
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--every", type=int, default=1, help="of attention's cases, one in so many for each kernel and seed"
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 17, 33, 130, 257])
    parser.add_argument("--op", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--direction", choices=DIRECTIONS, default="forward")
    arguments = parser.parse_args()
    shapes, direction = [(16, n) for n in arguments.lengths], arguments.direction
    failures = judged = count = 0
    for op in arguments.op:
        largest: dict[str, dict[str, float]] = {}
        for dtype in DTYPES:
            for name, failed, ratio in found(op, dtype, arguments.seeds, shapes, arguments.every, direction):
                judged += 1
                failures += bool(failed)
                if failed:
                    print(f"FALSE ALARM {op} {name} {dtype}: {failed}", flush=True)
                row = largest.setdefault(name, {})
                row[dtype] = max(row.get(dtype, 0.0), ratio)
            print(
                f"{op} {dtype}: {judged} judgements so far, {failures} false alarms",
                file=sys.stderr,
                flush=True,
            )
        print(
            f"\n{op:<36}" + "".join(f"{dtype:>10}" for dtype in DTYPES) + "   largest error, times of bound"
        )
        for name, row in largest.items():
            shown = "".join(f"{row[dtype]:>10.2f}" if dtype in row else f"{'-':>10}" for dtype in DTYPES)
            print(f"{name:<36}{shown}", flush=True)
        of_rows = op in row_ops() and direction == "forward"
        count += sum(kernel.op == op for kernel in KERNELS) if of_rows else len(kernels_of(op, direction))
    print(
        f"\n{count} honest kernels, {judged} judgements with {arguments.seeds} seeds, {failures} false alarms"
    )
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()

"""Correct kernels of many structures: none of them may ever fail. `python -m tests.honest_kernels` prints how near they come.

Each computes float16 and bfloat16 rows in float32 and rounds once, as best practice has it; x is [rows, n] without NaN
or +inf, because special values are the judge's own tests. Structures: docs/verdict.md, section 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch

from suite import inputs
from suite.formats import FORMATS, two_sum
from suite.judge import judge_values
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import get_op
from suite.oracle import Oracle
from suite.tensors import to_float64, to_torch

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
Rows = torch.Tensor
HONEST: dict[str, dict[str, tuple[Callable[[Rows], Rows], Numerics]]] = {"softmax": {}, "log_softmax": {}, "logsumexp": {}}


def honest(op: str, numerics: Numerics = BEST_PRACTICE):
    """Registers a correct kernel f(x [rows, n]); 16-bit rows reach it as float32."""

    def register(function):
        def widened(x):
            inner = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return function(inner).to(x.dtype)

        HONEST[op][function.__name__] = (widened, numerics)
        return function

    return register


def top(x: Rows) -> Rows:
    """The row maximum, 0 for a row of -inf, so that -inf - max stays -inf."""
    m = x.amax(-1, keepdim=True)
    return m.masked_fill(m == -torch.inf, 0.0)


def fma(a: Rows, b: float, c: Rows) -> Rows:
    """a * b + c rounded once, but for freak ties: in float64 for float32, by error-free transformations for float64."""
    wide_a, wide_c = a.double().numpy(), c.double().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        product = wide_a * b
        if a.dtype == torch.float32:
            return torch.from_numpy(product + wide_c).to(a.dtype)
        split = 134217729.0
        a_high = split * wide_a - (split * wide_a - wide_a)
        b_high = split * b - (split * b - b)
        a_low, b_low = wide_a - a_high, b - b_high
        error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
        total, rest = two_sum(product, wide_c)
        exact = total + (rest + np.where(np.isfinite(error), error, 0.0))
    return torch.from_numpy(exact)


def blocks(x: Rows, size: int) -> Iterator[Rows]:
    return iter(torch.split(x, size, dim=-1))


def flush(x: Rows) -> Rows:
    """What a device without subnormals makes of a result."""
    return torch.where(x.abs() < torch.finfo(x.dtype).tiny, torch.zeros_like(x), x)


def constant(x: Rows, value: float) -> float:
    """A constant as a kernel of x's dtype holds it: rounded to that dtype."""
    return float(torch.tensor(value, dtype=x.dtype))


def online(x: Rows, size: int, exp=torch.exp, threshold: float = 0.0) -> tuple[Rows, Rows]:
    """(m, d) by blocks; the maximum moves only when it grows by more than `threshold`."""
    m = torch.full_like(x[:, :1], -torch.inf)
    d = torch.zeros_like(m)
    for block in blocks(x, size):
        seen = torch.maximum(m, block.amax(-1, keepdim=True))
        m_new = torch.where(seen > m + threshold, seen, m)
        safe = m_new.masked_fill(m_new == -torch.inf, 0.0)
        d = d * exp(m - safe) + exp(block - safe).sum(-1, keepdim=True)
        m = m_new
    return m.masked_fill(m == -torch.inf, 0.0), d


def exp_by_exp2(x: Rows) -> Rows:
    return torch.exp2(x * constant(x, LOG2E))


def approximate_exp2(x: Rows) -> Rows:
    """exp2 with a relative error of up to 2^-22, as ex2.approx has it, flushing; alternating in sign; exp2(0) = 1."""
    exact = torch.exp2(x)
    if x.dtype == torch.float64:
        return exact
    sign = (x != 0) * (1 - 2 * (torch.arange(x.shape[-1]) % 2)).to(x.dtype)
    return flush(exact * (1 + sign * 2.0**-22.2))


def merge(left: tuple[Rows, Rows], right: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    m = torch.maximum(left[0], right[0])
    safe = m.masked_fill(m == -torch.inf, 0.0)
    return m, left[1] * torch.exp(left[0] - safe) + right[1] * torch.exp(right[0] - safe)


def tree(x: Rows) -> tuple[Rows, Rows]:
    """(m, d) by merging halves down to single entries."""
    if x.shape[-1] == 1:
        return x, torch.where(x == -torch.inf, 0.0, 1.0).to(x.dtype)
    half = x.shape[-1] // 2
    return merge(tree(x[:, :half]), tree(x[:, half:]))


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


@honest("softmax")
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
        own = top(block)
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


@honest("softmax")
def two_pass_with_fma(x):
    """exp(x) = f 2^k without a maximum pass (Dukhan and Ablavatski, arXiv 2001.04438): the argument is reduced by FMA."""
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


@honest("softmax", Numerics(shift="folded"))
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


@honest("logsumexp")
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


FAMILIES = [name for name in inputs.all_families() if name != "nan_and_infinity"]
OUT_OF_REACH = {("two_pass_with_fma", "sentinels")}
"""The two-pass argument reduction is exact for |x| below 1e7 only, and integers for its exponents end at 2^31."""


def ratios(op: str, family: str, dtype: str, *, seeds: int, shapes: list[tuple[int, int]]) -> Iterator[tuple[str, str, float]]:
    """(kernel, what failed or "", largest error in times of bound) of every honest kernel on every input."""
    definition, format, oracle = get_op(op), FORMATS[dtype], Oracle()
    fixed = inputs.get_family(family).fixed_shape
    for seed in range(1 if fixed else seeds):
        for rows, n in [fixed] if fixed else shapes:
            x = inputs.build(family, rows, n, format, seed)
            reference = oracle.reference(definition, {"x": x}, {"dim": -1}, format)
            tensor = to_torch(x, format)
            for name, (kernel, numerics) in HONEST[op].items():
                if (name, family) in OUT_OF_REACH:
                    continue
                output = to_float64(kernel(tensor))
                judgement = judge_values(
                    definition, reference, output, {"x": x.shape}, {"dim": -1}, format, numerics, statistics=False
                )
                failed = "" if judgement.status == "passed" else f"{family} {rows}x{n} seed {seed}: {judgement.message}"
                yield name, failed, judgement.ratio


def main() -> None:
    parser = argparse.ArgumentParser(description="Judges every honest kernel on every family; prints the largest ratios.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 17, 33, 130, 257])
    arguments = parser.parse_args()
    failures = judged = 0
    for op in HONEST:
        largest: dict[str, dict[str, float]] = {}
        for dtype in ("float64", "float32", "bfloat16", "float16"):
            for family in FAMILIES:
                shapes = [(16, n) for n in arguments.lengths]
                for name, failed, ratio in ratios(op, family, dtype, seeds=arguments.seeds, shapes=shapes):
                    judged += 1
                    failures += bool(failed)
                    if failed:
                        print(f"FALSE ALARM {op} {name} {dtype}: {failed}")
                    row = largest.setdefault(name, {})
                    row[dtype] = max(row.get(dtype, 0.0), ratio)
        print(f"\n{op:<36}{'float64':>10}{'float32':>10}{'bfloat16':>10}{'float16':>10}   largest error, times of bound")
        for name, row in largest.items():
            print(f"{name:<36}" + "".join(f"{row[d]:>10.2f}" for d in ("float64", "float32", "bfloat16", "float16")))
    print(f"\n{sum(map(len, HONEST.values()))} honest kernels, {judged} judgements, {failures} false alarms")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()

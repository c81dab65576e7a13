"""Backward of attention: the definition against finite differences, kernels' gradients within the
bound, mutants.
"""

import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.formats import get_format
from suite.kernels import own_kernels
from suite.kernels.attention.naive import naive
from suite.kernels.attention.online import online, online_block_16
from suite.kernels.attention.online_base_two import online_base_two
from suite.kernels.attention.online_threshold import online_threshold
from suite.kernels.attention.recompute import recompute
from suite.kernels.attention.shifted import shifted
from suite.kernels.attention.split_kv import split_kv
from suite.numerics import BEST_PRACTICE
from suite.ops.arithmetic import Arb, Float64, Mpmath
from suite.ops.attention import LOG_SUM_EXP
from suite.ops.attention import OP as ATTENTION
from suite.ops.attention.backward import backward
from suite.ops.special import Special
from suite.oracle import Oracle
from suite.tensors import to_float64, to_numpy
from suite.verdict.judge import judge_values
from tests.attention_calls import CALLS, LONG, SQUARE, TOP, Call, ramp
from tests.attention_kernels import Attention, Given, finite_or_0, raw_scores, scores, share

ORACLE = Oracle(remembered=400)
WITH_GRADIENT = ("q", "k", "v", "mask", "sink")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INF = math.inf
BOTH = {"return_lse": True}


def wanted(tensors):
    return tuple(name for name in WITH_GRADIENT if name in tensors and tensors[name].is_floating_point())


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def upstreams(tensors, options, kind="normal", seed=5):
    """The gradients of the outputs, of one kind."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*tensors["q"].shape[:3], tensors["v"].shape[3])
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    one_hot = torch.zeros(shape, dtype=torch.float64)
    one_hot[..., 0] = 1
    made = {
        "normal": normal,
        "ones": torch.ones_like(normal),
        "one_hot": one_hot,
        "huge": normal * 2.0**9,
        "tiny": normal * 2.0**-16,
        "constant": normal[..., :1].expand(shape).contiguous(),
    }
    found = {"upstream": made[kind].to(tensors["q"].dtype)}
    if options.get("return_lse"):
        normal = torch.randn(shape[:3], generator=generator, dtype=torch.float64)
        found["upstream_lse"] = normal.to(wide(tensors["q"].dtype))
    return found


def resolved(tensors, options):
    op = backward(wanted(tensors))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return op, op.resolve_options({**options, "enable_gqa": True}, shapes), shapes


def references(tensors, options, oracle=ORACLE):
    op, every, _ = resolved(tensors, options)
    format = get_format(str(tensors["q"].dtype).removeprefix("torch."))
    return oracle.references(op, {name: to_numpy(tensor) for name, tensor in tensors.items()}, every, format)


def judged(tensors, options, gradients):
    """Name -> judgement of its gradient."""
    op, every, shapes = resolved(tensors, options)
    format = get_format(str(tensors["q"].dtype).removeprefix("torch."))
    parts = zip(op.outputs(every), references(tensors, options), gradients, strict=True)
    return {
        part.wrt: judge_values(
            part, reference, to_float64(gradient), shapes, every, format, BEST_PRACTICE, statistics=False
        )
        for part, reference, gradient in parts
    }


def by_autograd(kernel, tensors, options):
    """The gradients of a forward kernel, as the host asks autograd for them."""
    leaves = {name: tensors[name].detach().requires_grad_() for name in wanted(tensors)}
    further = {
        n: leaves.get(n, t)
        for n, t in tensors.items()
        if n not in ("q", "k", "v") and not n.startswith("upstream")
    }
    output = kernel(leaves["q"], leaves["k"], leaves["v"], **further, **options, enable_gqa=True)
    outputs = output if isinstance(output, tuple) else (output,)
    given = [tensors[name] for name in ("upstream", "upstream_lse") if name in tensors]
    return torch.autograd.grad(outputs, tuple(leaves.values()), given)


def passes(judgements):
    return all(found.passed for found in judgements.values())


# the definition

TINY = {"batch": 1, "heads": 2, "groups": 1, "length": 2, "keys": 3, "size": 2, "width": 2}


def tiny_mask(*shape, hidden=()):
    def make(n, generator):
        mask = torch.randn(shape, generator=generator, dtype=torch.float64)
        for index in hidden:
            mask[index] = -INF
        return mask

    return make


def fixed(*values):
    return lambda n, generator: torch.tensor(values, dtype=torch.float64)


def seen_by_first(n, generator):
    return torch.tensor([[True, False, True], [False, False, False]])


TINY_CALLS = {
    "plain": Call(sizes=TINY),
    "two key heads": Call(sizes={**TINY, "groups": 2}),
    "two batches": Call(sizes={**TINY, "batch": 2, "length": 1}),
    "scale": Call(sizes=TINY, options={"scale": 0.7}),
    "negative scale": Call(sizes=TINY, options={"scale": -0.3}),
    "scale 0": Call(sizes=TINY, options={"scale": 0.0}),
    "softcap": Call(sizes=TINY, options={"softcap": 1.5}),
    "causal": Call(sizes=TINY, options=TOP),
    "causal, bottom right": Call(sizes=TINY, options={"causal": "bottom_right"}),
    "nothing seen": Call(sizes={**TINY, "length": 3, "keys": 2}, options={"causal": "bottom_right"}),
    "window": Call(sizes=TINY, options={"window": (0, 1)}),
    "boolean mask": Call(sizes=TINY, further={"mask": seen_by_first}),
    "additive mask": Call(sizes=TINY, further={"mask": tiny_mask(1, 2, 2, 3, hidden=((0, 1, 0, 2),))}),
    "mask of all heads": Call(sizes=TINY, further={"mask": tiny_mask(2, 3)}),
    "mask of all queries": Call(sizes=TINY, further={"mask": tiny_mask(2, 1, 3)}),
    "mask of all keys": Call(sizes=TINY, further={"mask": tiny_mask(2, 1)}),
    "row hidden by a mask": Call(sizes=TINY, further={"mask": tiny_mask(1, 1, 2, 3, hidden=((0, 0, 1),))}),
    "ALiBi": Call(sizes=TINY, further={"alibi_slopes": fixed(0.5, 0.25)}),
    "sink": Call(sizes=TINY, further={"sink": fixed(0.5, -1.25)}),
    "sink of -inf": Call(sizes=TINY, further={"sink": fixed(0.5, -INF)}),
    "sink alone": Call(sizes=TINY,
        further={"sink": fixed(0.5, 1.5), "mask": tiny_mask(2, 3, hidden=((1,),))}),
    "lengths": Call(sizes=TINY, further={"kv_lengths": lambda n, generator: torch.tensor([2])}),
    "much": Call(sizes=TINY, options={"softcap": 2.0, **TOP}, further={
        "mask": tiny_mask(2, 1, 3), "sink": fixed(0.5, 2.0), "alibi_slopes": fixed(0.5, 0.25)}),
}  # fmt: skip


def tiny_inputs(name):
    """Arrays of numbers on a grid of 2^-10, with both upstream gradients, and options."""
    call = TINY_CALLS[name]
    tensors = call.tensors(torch.float64, probing=False, spread=1.0)
    options = {**call.options, **BOTH}
    tensors |= upstreams(tensors, options)
    grid = {n: t if not t.is_floating_point() else torch.round(t * 1024) / 1024 for n, t in tensors.items()}
    return grid, options


def scalar(inputs, options):
    """sum dO O + sum dlse lse by the forward's definition, in mpmath at the working precision."""
    problem = ATTENTION.problem(inputs, options)
    rows = np.flatnonzero(problem.ordinary)
    total, chosen = mpmath.mpf(0), problem.take(rows)
    d_o = inputs["upstream"].reshape(-1, inputs["upstream"].shape[-1])[rows]
    for value, upstream in (
        (ATTENTION.define(Mpmath(), chosen), d_o),
        (LOG_SUM_EXP.define(Mpmath(), chosen), inputs["upstream_lse"].reshape(-1, 1)[rows]),
    ):
        total += mpmath.fsum((Mpmath().lift(upstream) * value).reshape(-1).tolist())
    return total


STEP = 2.0**-30
"""Small enough for 10 digits by central differences, and exact beside numbers on a grid of 2^-10."""


@pytest.mark.parametrize("name", TINY_CALLS)
def test_the_definition_is_the_derivative_of_the_forward(name):
    tensors, options = tiny_inputs(name)
    op, every, _ = resolved(tensors, options)
    inputs = {n: to_numpy(t) for n, t in tensors.items()}
    with mpmath.workprec(240):
        for part in op.outputs(every):
            found = part.define(Mpmath(), part.problem(inputs, every)).reshape(inputs[part.wrt].shape)
            for index in np.ndindex(*inputs[part.wrt].shape):
                if inputs[part.wrt][index] == -INF:
                    assert found[index] == 0
                    continue
                ends = []
                for step in (STEP, -STEP):
                    moved = inputs[part.wrt].copy()
                    moved[index] += step
                    ends.append(scalar({**inputs, part.wrt: moved}, every))
                assert abs((ends[0] - ends[1]) / (2 * mpmath.mpf(STEP)) - found[index]) < 1e-13, (
                    part.wrt,
                    index,
                )


@pytest.mark.parametrize("name", TINY_CALLS)
def test_the_three_arithmetics_agree(name):
    tensors, options = tiny_inputs(name)
    op, every, _ = resolved(tensors, options)
    inputs = {n: to_numpy(t) for n, t in tensors.items()}
    for part in op.outputs(every):
        problem = part.problem(inputs, every)
        double = part.define(Float64(), problem)
        with Mpmath.precision(150), Arb.precision(150):
            high, balls = part.define(Mpmath(), problem), part.define(Arb(), problem)
            bound = part.bound(part.facts(problem), BEST_PRACTICE, get_format("float64")).absolute
            for index in np.ndindex(*double.shape):
                middle = mpmath.mpf(balls[index].mid().str(60, radius=False))
                assert abs(middle - high[index]) < 1e-40
                assert abs(double[index] - high[index]) <= bound[index]


def test_what_nobody_sees_has_a_gradient_of_exactly_0():
    """Keys behind the lengths, keys that a mask hides from all, queries that see nothing, mask
    entries and sinks of -inf.
    """
    call = Call(sizes={"length": 6, "keys": 8, "width": 4}, further={
        "mask": tiny_mask(6, 8, hidden=((2,), (slice(None), 1))), "kv_lengths": lambda n,
        g: torch.tensor([5, 0]), "sink": fixed(0.5, -INF, 1.0, 0.0)})  # fmt: skip
    tensors = call.tensors(torch.float32, probing=False)
    tensors |= upstreams(tensors, BOTH)
    q, k, v, mask, sink = references(tensors, BOTH)
    for reference in (q, k, v, mask, sink):
        assert (reference.special == Special.FINITE).all()
    by_key = k.hi.reshape(2, 2, 8, -1), v.hi.reshape(2, 2, 8, -1)
    for gradient in by_key:
        assert not gradient[1].any()
        assert not gradient[0, :, 5:].any()
        assert not gradient[0, :, 1].any()
        assert gradient[0, :, 0].all()
    by_query = q.hi.reshape(2, 4, 6, -1)
    assert not by_query[1].any()
    assert not by_query[0, :, 2].any()
    assert not mask.hi[2].any()
    assert not mask.hi[:, 1].any()
    assert sink.hi[1, 0] == 0
    assert sink.hi[0, 0] != 0
    op, every, _ = resolved(tensors, BOTH)
    for part, reference in zip(op.outputs(every), (q, k, v, mask, sink), strict=True):
        nothing = part.bound(reference.facts, BEST_PRACTICE, get_format("float32")).absolute == 0
        assert (reference.hi[nothing] == 0).all()
        if part.wrt in ("k", "v"):
            assert nothing.reshape(2, 2, 8, -1)[1].all()


def test_what_a_query_that_is_not_finite_reaches_is_not_judged():
    tensors = Call(sizes={"length": 4, "keys": 5, "width": 4}).tensors(torch.float32, probing=False)
    tensors["q"][0, 1, 2, 3] = torch.nan
    tensors |= upstreams(tensors, {})
    q, k, v = (reference.special for reference in references(tensors, {}))
    assert np.flatnonzero((q == Special.ANYTHING).all(axis=1)).tolist() == [1 * 4 + 2]
    for special in (k, v):  # heads 0 and 1 read the first key head
        assert np.flatnonzero((special == Special.ANYTHING).all(axis=1)).tolist() == list(range(5))


# honest kernels

KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        naive, shifted, online, online_block_16, online_base_two, online_threshold, split_kv, recompute,
    )
} | {name: own_kernels("attention")[name].call for name in ("sdpa_math", "sdpa_flash")}  # fmt: skip

HONEST_CALLS = (
    "plain", "hard", "normal values", "one key", "large scores", "low scores", "low scores, masked",
    "causal, L > S, bottom right", "softcap, large scores", "additive mask", "nothing seen", "length 0",
    "ALiBi", "large sink", "much",
)  # fmt: skip


def out_of_domain(name, call):
    """exp(s) alone overflows, or vanishes, where scores are large."""
    return name == "naive" and ("large" in call or "low" in call)


def autograd_passes(kernel, tensors, options):
    try:
        gradients = by_autograd(kernel, tensors, options)
    except (NotImplementedError, TypeError):  # torch's function has no such option
        return
    for name, found in judged(tensors, options, gradients).items():
        assert found.passed, (kernel, name, found.message)


@pytest.mark.share(of=4)
@pytest.mark.parametrize("name", HONEST_CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_honest_kernels_pass(name, dtype):
    call = CALLS[name]
    tensors = call.tensors(dtype)
    tensors |= upstreams(tensors, call.options)
    for own, kernel in KERNELS.items():
        if not out_of_domain(own, name):
            autograd_passes(kernel, tensors, call.options)
    found = judged(tensors, call.options, flash(tensors, call.options, Backward()))
    assert passes(found), [judgement.message for judgement in found.values()]
    assert all(judgement.judged == 1.0 for judgement in found.values())


@pytest.mark.parametrize("kind", ["ones", "one_hot", "huge", "tiny", "constant"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_pass_with_every_upstream(kind, dtype):
    for name in ("normal values", "additive mask"):
        call = CALLS[name]
        options = {**call.options, **BOTH}
        tensors = call.tensors(dtype)
        tensors |= upstreams(tensors, options, kind)
        for kernel in (shifted, online, split_kv, recompute):
            autograd_passes(kernel, tensors, options)
        assert passes(judged(tensors, options, flash(tensors, options, Backward())))


@pytest.mark.parametrize("name", TINY_CALLS)
def test_autograd_in_float64_is_within_the_bound(name):
    if name in ("sink of -inf", "nothing seen", "row hidden by a mask", "boolean mask"):
        options = {}  # autograd of log(0) gives NaN to a lse of -inf
        tensors = {n: t for n, t in tiny_inputs(name)[0].items() if n != "upstream_lse"}
        options = dict(TINY_CALLS[name].options)
    else:
        tensors, options = tiny_inputs(name)
    for kernel in (shifted, online, recompute):
        autograd_passes(kernel, tensors, options)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 6),
    st.sampled_from([0.1, 1.0, 4.0, 30.0]),
    st.sampled_from(DTYPES),
    st.sampled_from(["normal", "ones", "constant"]),
)
def test_gradients_pass_at_all_sizes(seed, keys, length, spread, dtype, kind):
    call = Call(sizes={"batch": 1, "keys": keys, "length": length, "width": 4, "size": 8}, spread=spread)
    tensors = call.tensors(dtype, probing=False, seed=seed)
    tensors |= upstreams(tensors, BOTH, kind, seed)
    for kernel in (shifted, online_block_16, split_kv, recompute):
        autograd_passes(kernel, tensors, BOTH)
    assert passes(judged(tensors, BOTH, flash(tensors, BOTH, Backward())))


# a FlashAttention-2 backward in steps, and faults in each of them


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What the backward has: s, P, dP [B, H, L, S], o, dO [B, H, L, Ev], lse, dlse [B, H, L, 1],
    all in the arithmetic.
    """

    s: torch.Tensor
    p: torch.Tensor
    d_p: torch.Tensor
    o: torch.Tensor
    d_o: torch.Tensor
    lse: torch.Tensor
    d_lse: torch.Tensor


def keep_weights(p, d_s, given):
    return p, d_s


@dataclass(frozen=True, kw_only=True)
class Backward:
    """The steps of the backward; a fault exchanges one."""

    upstream: object = staticmethod(lambda d_o: d_o)
    lse: object = staticmethod(lambda lse, dtype: lse)
    weights: object = staticmethod(lambda s, lse: torch.exp(s - finite_or_0(lse)))
    delta: object = staticmethod(lambda saved: (saved.d_o * saved.o).sum(-1, keepdim=True))
    seen_by_k: object = staticmethod(keep_weights)
    d_s: object = staticmethod(lambda d_s: d_s)
    scale_q: object = staticmethod(lambda scale: scale)
    scale_k: object = staticmethod(lambda scale: scale)
    steepness: object = staticmethod(lambda t: 1 - t * t)
    over_heads: object = staticmethod(lambda x: x.sum(2))
    sink: object = staticmethod(lambda p, delta, d_lse: p * (d_lse - delta))


def flash(tensors, options, steps):
    """The gradients by FlashAttention-2's algorithm: o in the tensors' dtype, lse in float32, P and
    dS cast before products.
    """
    dtype, compute = tensors["q"].dtype, wide(tensors["q"].dtype)
    further = {n: t for n, t in tensors.items() if not n.startswith("upstream")}
    given = Given(**further, **{n: v for n, v in options.items() if n != "return_lse"})
    plain = Attention()
    s = scores(plain, given)
    v = share(given.v, given.heads).to(compute)
    sink = None if given.sink is None else given.sink.to(compute)[:, None, None].expand(*s.shape[:-1], 1)
    every = s if sink is None else torch.cat([s, sink], -1)
    lse = torch.logsumexp(every, -1, keepdim=True)
    o = (torch.exp(s - finite_or_0(lse)) @ v).to(dtype).to(compute)
    lse = steps.lse(lse, dtype)
    d_o = steps.upstream(tensors["upstream"].to(compute))
    d_lse = tensors["upstream_lse"][..., None] if "upstream_lse" in tensors else torch.zeros_like(lse)
    d_lse = torch.where(lse == -INF, 0.0, d_lse)
    p = torch.where(s == -INF, 0.0, steps.weights(s, lse))
    d_p = d_o @ v.mT
    delta = steps.delta(Saved(s=s, p=p, d_p=d_p, o=o, d_o=d_o, lse=lse, d_lse=d_lse))
    d_s = steps.d_s(p * (d_p - delta + d_lse)).to(dtype).to(compute)
    d_product = d_s
    scale = 1 / math.sqrt(given.q.shape[-1]) if given.scale is None else given.scale
    if given.softcap is not None:
        t = torch.tanh(scale * raw_scores(plain, given) / given.softcap)
        d_product = d_s * steps.steepness(t)
    p_k, d_k = steps.seen_by_k(p, d_product, given)
    q, k = given.q.to(compute), share(given.k, given.heads).to(compute)
    shared = (given.q.shape[0], given.k.shape[1], given.heads // given.k.shape[1])
    found = {
        "q": steps.scale_q(scale) * (d_product @ k),
        "k": steps.over_heads((steps.scale_k(scale) * (d_k.mT @ q)).unflatten(1, shared[1:])),
        "v": steps.over_heads((p_k.to(dtype).to(compute).mT @ d_o).unflatten(1, shared[1:])),
    }
    if given.mask is not None and given.mask.is_floating_point():
        found["mask"] = d_s.sum_to_size(given.mask.shape)
    if sink is not None:
        found["sink"] = steps.sink(torch.exp(sink - finite_or_0(lse)), delta, d_lse).sum((0, 2, 3))
    return [found[name].to(dtype) for name in wanted(tensors)]


def bf16_sum(saved):
    """D by one bfloat16 accumulator, column after column."""
    total = torch.zeros_like(saved.lse)
    for product in (saved.d_o * saved.o).split(1, -1):
        total = (total + product).bfloat16().to(total.dtype)
    return total


def without_tile(p, d_s, given):
    keep = (torch.arange(given.keys) < 16) | (torch.arange(given.keys) >= 32)
    return p * keep, d_s * keep


def one_later(p, d_s, given):
    """The tile of dK and dV begins one query late: the diagonal is missing."""
    seen = (
        torch.arange(given.keys) < torch.arange(given.length)[:, None]
        if given.causal
        else torch.ones(1, dtype=torch.bool)
    )
    return p, d_s * seen


FAULTS = {
    "lse saved in bfloat16": Backward(lse=lambda lse, dtype: lse.bfloat16().to(lse.dtype)),
    "D missing": Backward(delta=lambda saved: torch.zeros_like(saved.lse)),
    "D in bfloat16": Backward(delta=bf16_sum),
    "D of another query": Backward(
        delta=lambda saved: (saved.d_o * saved.o).sum(-1, keepdim=True).roll(1, 2)
    ),
    "dlse ignored": Backward(delta=lambda saved: (saved.d_o * saved.o).sum(-1, keepdim=True) + saved.d_lse),
    "dlse with the wrong sign": Backward(
        delta=lambda saved: (saved.d_o * saved.o).sum(-1, keepdim=True) + 2 * saved.d_lse
    ),
    "scale forgotten in dQ": Backward(scale_q=lambda scale: 1.0),
    "scale forgotten in dK": Backward(scale_k=lambda scale: 1.0),
    "scale wrong by 1 % in dQ": Backward(scale_q=lambda scale: 1.01 * scale),
    "scale wrong by 1 % in dK": Backward(scale_k=lambda scale: 1.01 * scale),
    "softcap's slope missing": Backward(steepness=torch.ones_like),
    "softcap's slope 1 - tanh": Backward(steepness=lambda t: 1 - t.abs()),
    "heads not summed": Backward(over_heads=lambda x: x[:, :, 0]),
    "heads averaged": Backward(over_heads=lambda x: x.mean(2)),
    "tile dropped in dK and dV": Backward(seen_by_k=without_tile),
    "causal off by one in dK": Backward(seen_by_k=one_later),
    "dS in e4m3": Backward(d_s=lambda d_s: d_s.to(torch.float8_e4m3fn).to(d_s.dtype)),
    "upstream ignored": Backward(upstream=torch.ones_like),
    "P not normalised": Backward(weights=lambda s, lse: torch.exp(s - finite_or_0(s.amax(-1, keepdim=True)))),
    "P in e4m3": Backward(
        weights=lambda s, lse: torch.exp(s - finite_or_0(lse)).to(torch.float8_e4m3fn).to(s.dtype)
    ),
    "sink's gradient without D": Backward(sink=lambda p, delta, d_lse: p * d_lse),
    "sink's gradient with the wrong sign": Backward(sink=lambda p, delta, d_lse: p * (delta - d_lse)),
    "sink's gradient without dlse": Backward(sink=lambda p, delta, d_lse: p * -delta),
}


def positive(tensors):
    return {"v": 1 + tensors["v"].double().abs()}


POWER_CALLS = {
    "plain": (CALLS["plain"], "normal"),
    "normal values": (CALLS["normal values"], "normal"),
    "few keys": (Call(sizes={"keys": 40, "length": 2}, probing=False), "normal"),
    "low scores": (Call(change=ramp(-150.0, -151.0), probing=False), "normal"),
    "one query": (Call(sizes={"heads": 2, "groups": 2, "length": 1}), "one_hot"),
    "all positive": (
        Call(sizes={"keys": 8, "length": 2, "width": 128}, probing=False, change=positive),
        "ones",
    ),
    "causal, square": (CALLS["causal, square"], "normal"),
    "softcap": (CALLS["softcap"], "normal"),
    "sink": (CALLS["sink"], "normal"),
}


def refused(fault, dtype):
    for call, kind in POWER_CALLS.values():
        options = {**call.options, **BOTH}
        tensors = call.tensors(dtype)
        tensors |= upstreams(tensors, options, kind)
        if not passes(judged(tensors, options, flash(tensors, options, fault))):
            return True
    return False


@pytest.mark.share(of=3)
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_faults_are_refused(name, dtype):
    assert refused(FAULTS[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_steps_without_a_fault_are_not(dtype):
    assert not refused(Backward(), dtype)


# what is judged


def test_a_long_attention_is_judged_on_a_sample_of_queries_and_keys():
    tensors = Call(sizes={**LONG, "length": 1100, "keys": 4000, "size": 4, "width": 4}).tensors(
        torch.float32, probing=False
    )
    tensors |= upstreams(tensors, {})
    inputs = {n: to_numpy(t) for n, t in tensors.items()}
    op, every, _ = resolved(tensors, {})
    q, k, v = (part.problem(inputs, every) for part in op.outputs(every))
    assert len(q.rows) < 2 * 1100
    assert len(q.queries) == len(q.rows)
    for problem in (k, v):
        assert {0, 15, 16, 4000 - 1} <= set(problem.rows.tolist())
        assert len(problem.rows) < 100
        assert len(problem.queries) == 2 * 1100


EDGES = {
    "no key": Call(sizes={"keys": 0}, further={"sink": fixed(0.5, 1.0, 0.0, 2.0)}),
    "no query": Call(sizes={"length": 0}),
    "no batch": Call(sizes={"batch": 0}),
    "mask of one number": Call(further={"mask": lambda n, generator: torch.tensor(0.5)}),
    "mask of the keys": Call(further={"mask": tiny_mask(70)}),
    "mask of the queries": Call(further={"mask": tiny_mask(9, 1)}),
    "mask of the batches": Call(further={"mask": tiny_mask(2, 1, 1, 70)}),
}


@pytest.mark.parametrize("name", EDGES)
def test_gradients_of_all_shapes_are_judged(name):
    call = EDGES[name]
    tensors = call.tensors(torch.float32, probing=False)
    tensors |= upstreams(tensors, BOTH)
    for kernel in (shifted, recompute):
        gradients = by_autograd(kernel, tensors, BOTH)
        found = judged(tensors, BOTH, gradients)
        assert passes(found), [judgement.message for judgement in found.values()]
        worse = [gradient + 1 for gradient in gradients]
        for part, judgement in judged(tensors, BOTH, worse).items():
            assert judgement.passed == (tensors[part].numel() == 0)


def test_a_row_masked_by_the_smallest_number_says_nothing_and_neither_does_what_it_reaches():
    """Exact arithmetic has the softmax of its scores there, every kernel the mean of the values."""
    call = Call(sizes={"length": 3, "keys": 20, "heads": 2, "groups": 2})
    tensors = call.tensors(torch.float32, probing=False)
    tensors["mask"] = torch.zeros(3, 20)
    tensors["mask"][1] = torch.finfo(torch.float32).min
    tensors |= upstreams(tensors, {})
    found = judged(tensors, {}, by_autograd(shifted, tensors, {}))
    assert found["q"].judged == found["mask"].judged == pytest.approx(2 / 3)
    assert found["k"].status == found["v"].status == "unjudged"


def test_options_and_shapes_of_the_upstream_are_checked():
    tensors = Call(sizes=SQUARE).tensors(torch.float32)
    tensors |= upstreams(tensors, BOTH)
    with pytest.raises(ValueError, match="return_lse is False"):
        resolved(tensors, {})
    with pytest.raises(ValueError, match="upstream has shape"):
        resolved({**tensors, "upstream": tensors["upstream"][..., :1]}, BOTH)
    with pytest.raises(ValueError, match="must name some of q, k, v, mask, sink"):
        backward(("q", "scale"))


def test_references_of_larger_precision_agree_with_the_first():
    """A row by itself, and after all others, in ball arithmetic: the float64 tier's radius holds."""
    tensors, _ = tiny_inputs("much")
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    op, every, _ = resolved(tensors, BOTH)
    for part, reference in zip(op.outputs(every), references(tensors, BOTH, Oracle()), strict=True):
        with Arb.precision(200):
            for row in range(len(reference.hi)):
                exact = part.define(Arb(), reference.problem.take(np.array([row])))
                for column in range(exact.shape[1]):
                    off = abs(
                        float(exact[0, column].mid()) - reference.hi[row, column] - reference.lo[row, column]
                    )
                    assert off <= reference.radius[row, column]


def test_a_kernel_s_gradients_are_named_by_their_part():
    assert [part.name for part in backward(("q", "k", "v", "sink")).outputs({})] == [
        f"attention backward {name}" for name in ("q", "k", "v", "sink")
    ]
    assert backward(("q", "k")) is backward(("q", "k"))

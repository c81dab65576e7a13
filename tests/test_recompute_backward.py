"""The recomputing backward pass: right in float64 for every option, what it keeps and refuses, and
faults written into it.
"""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from suite.kernels import own_kernels
from suite.kernels.attention import recompute
from suite.kernels.parts import attention_backward
from tests import attention_gradients
from tests.attention_calls import CALLS
from tests.extras import needs

KERNELS = {name: own_kernels("attention")[name].call for name in ("recompute", "recompute_block_16")}
FINITE = sorted(set(CALLS) - {"NaN in q"})


def off(function, call, *, unit=2.0**-53, stored=0.0, dtype=torch.float64):
    """The largest error of each gradient, as a share of what is allowed."""
    tensors = call.tensors(dtype, probing=False)
    given = attention_gradients.leaves(tensors)
    outputs = function(**given, **call.options, enable_gqa=True, return_lse=True)
    d_outputs = attention_gradients.upstream(*outputs)
    got = attention_gradients.gradients(outputs, given, d_outputs)
    exact = attention_gradients.exact(tensors, call.options, *d_outputs)
    allowed = attention_gradients.allowed(tensors, call.options, *d_outputs, unit=unit, stored=stored)
    assert set(got) == set(exact) == set(allowed)
    shares = {}
    for name, right in exact.items():
        assert (got[name].shape, got[name].dtype) == (tensors[name].shape, dtype)
        error = (got[name].double() - right).abs()
        share = torch.where(error == 0, 0.0, error / allowed[name])
        shares[name] = float(share.nan_to_num(nan=math.inf).max())
    return shares


@pytest.mark.parametrize("call", FINITE)
def test_the_gradients_are_those_of_the_composition(call):
    for name in ("recompute", "recompute_block_16"):
        shares = off(KERNELS[name], CALLS[call])
        assert max(shares.values()) <= 1, shares


def test_every_option_and_every_tensor_is_among_the_calls():
    used = {name for call in CALLS.values() for name in (*call.options, *call.further)}
    assert used == {"causal", "scale", "softcap", "window", "mask", "alibi_slopes", "sink", "kv_lengths"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", ["plain", "much", "boolean mask", "causal, L > S, bottom right"])
def test_only_what_is_kept_and_returned_is_rounded_to_a_narrow_format(call, dtype):
    """Twice: the stored o, and the gradient itself."""
    stored = 2 * 2.0**-8 if dtype == torch.bfloat16 else 0.0
    shares = off(KERNELS["recompute"], CALLS[call], unit=2.0**-24, stored=stored, dtype=dtype)
    assert max(shares.values()) <= 1, shares


def test_what_is_kept_is_the_tensors_the_output_in_their_format_and_the_lse_in_float32():
    given = attention_gradients.leaves(CALLS["much"].tensors(torch.bfloat16))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        o = KERNELS["recompute"](**given, enable_gqa=True)
    described = {(tuple(x.shape), x.dtype) for x in kept}

    assert described == {
        *((tuple(x.shape), x.dtype) for x in (*given.values(), o)),
        (tuple(o.shape[:3]), torch.float32),
    }


def test_the_forward_pass_has_the_bits_of_online():
    for name, like in (("recompute", "online"), ("recompute_block_16", "online_block_16")):
        for call in ("much", "NaN in q", "nothing seen"):
            tensors = CALLS[call].tensors(torch.bfloat16)
            options = {**CALLS[call].options, "enable_gqa": True, "return_lse": True}
            expected = own_kernels("attention")[like].call(**tensors, **options)
            for got, right in zip(KERNELS[name](**tensors, **options), expected, strict=True):
                assert torch.equal(got.nan_to_num(7.0), right.nan_to_num(7.0))


@pytest.mark.parametrize("bits", [math.nan, math.inf, 3e38])
def test_hidden_keys_have_no_gradient_and_no_influence_whatever_bits_they_hold(bits):
    hidden_bits_have_no_influence(KERNELS["recompute"], bits)


def hidden_bits_have_no_influence(function, bits):
    tensors = CALLS["much"].tensors(torch.float32)
    found = []
    for hidden in (0.0, bits):
        changed = {name: tensor.clone() for name, tensor in tensors.items()}
        for name in "kv":
            changed[name][0, :, 61:] = hidden  # kv_lengths is 61 there
        given = attention_gradients.leaves(changed)
        o = function(**given, enable_gqa=True, softcap=5.0, causal="bottom_right")
        found.append(attention_gradients.gradients(o, given, torch.ones_like(o)))

    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert bool((found[1]["k"][0, :, 61:] == 0).all())
    assert bool((found[1]["v"][0, :, 61:] == 0).all())


def test_a_query_that_sees_nothing_has_a_gradient_of_exactly_0():
    tensors = CALLS["nothing seen"].tensors(torch.float32)
    given = attention_gradients.leaves(tensors)
    o, lse = KERNELS["recompute"](**given, enable_gqa=True, return_lse=True)
    found = attention_gradients.gradients((o, lse), given, attention_gradients.upstream(o, lse))

    assert bool((found["q"][:, :, 1::2] == 0).all())
    assert bool((found["q"][:, :, ::2] != 0).any(-1).all())


@pytest.mark.parametrize("changed", ["length", "keys"])
def test_without_queries_or_keys_every_gradient_is_0(changed):
    tensors = CALLS["plain"].tensors(torch.float32)
    tensors |= {name: tensors[name][:, :, :0] for name in ("q" if changed == "length" else "kv")}
    given = attention_gradients.leaves(tensors)
    o = KERNELS["recompute"](**given, enable_gqa=True)
    found = attention_gradients.gradients(o, given, torch.ones_like(o))

    assert all(bool((found[name] == 0).all()) and found[name].shape == tensors[name].shape for name in "qkv")


def test_the_strides_of_the_upstream_gradient_change_nothing():
    found = []
    for expand in (True, False):
        given = attention_gradients.leaves(CALLS["plain"].tensors(torch.float32))
        o = KERNELS["recompute"](**given, enable_gqa=True)
        ones = torch.ones(()).expand(o.shape)
        found.append(attention_gradients.gradients(o, given, ones if expand else ones.contiguous()))

    assert all(torch.equal(found[0][name], found[1][name]) for name in "qkv")


def test_a_gradient_of_the_gradient_is_refused():
    given = attention_gradients.leaves(CALLS["plain"].tensors(torch.float32))
    o = KERNELS["recompute"](**given, enable_gqa=True)
    [d_q] = torch.autograd.grad(o, given["q"], o.detach().requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        d_q.sum().backward()


@pytest.mark.parametrize("name", ["recompute", "triton_flash_interpreter"])
def test_the_slope_of_a_softcap_that_is_reached_keeps_its_relative_accuracy(name):
    if name.startswith("triton"):
        needs("triton")
    the_slope_keeps_its_relative_accuracy(own_kernels("attention")[name].call)


def the_slope_keeps_its_relative_accuracy(function):
    """1 / cosh^2(x) at x = 6 and 9, where 1 - tanh^2 of float32 is off by 1 part in 400, and by all of it.

    float32 has an error of 3 u in x, so of 6 x u in the slope, below 1e-5; 10 times that is for the
    other factors.
    """
    q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[6.0, 1.0], [9.0, 2.0]]]], requires_grad=True)
    v = torch.tensor([[[[1.0], [-2.0]]]])
    o = function(q, k, v, scale=1.0, softcap=1.0)
    [d_k] = torch.autograd.grad(o.sum(), k)
    x = torch.tensor([6.0, 9.0], dtype=torch.float64)
    p = torch.softmax(torch.tanh(x), -1)
    expected = p * (v[0, 0, :, 0] - (p * v[0, 0, :, 0]).sum()) / torch.cosh(x) ** 2

    torch.testing.assert_close(d_k[0, 0, :, 0].double(), expected, rtol=1e-4, atol=0.0)


# Faults

OPTIONS = "strict=True)), **options"

FAULTS = {
    # in the formula
    "D is left out": (recompute, "d_o @ finite_entries(part.v).mT - delta",
        "d_o @ finite_entries(part.v).mT"),
    "the gradient of lse is lost": (recompute, ".sum(-1, keepdim=True) - d_lse", ".sum(-1, keepdim=True)"),
    "the gradient of lse has the other sign": (recompute, ".sum(-1, keepdim=True) - d_lse",
        ".sum(-1, keepdim=True) + d_lse"),
    "D of one column less": (recompute, "(d_o * o).sum", "(d_o * o)[..., 1:].sum"),
    "D is added": (recompute, ".mT - delta)", ".mT + delta)"),
    "P is used where ds belongs": (recompute, "torch.where(p == 0, 0.0, p * (",
        "torch.where(p == 0, 0.0, 1.0 * ("),
    "P has no lse": (recompute, "p = torch.exp(part.final() - finite(lse))", "p = torch.exp(part.final())"),
    "the lse of bfloat16": (recompute, "part.final() - finite(lse)", "part.final() - finite(lse).bfloat16()"),
    "the lse of float32": (recompute, "part.final() - finite(lse)", "part.final() - finite(lse).float()"),
    "an lse of -inf is not guarded": (recompute, "part.final() - finite(lse)", "part.final() - lse"),
    "dv of the first queries": (recompute, "p.mT @ d_o", "p[:, :, 1:].mT @ d_o[:, :, 1:]"),
    "dv of ds": (recompute, "p.mT @ d_o", "d_s.mT @ d_o"),
    "the last keys are left out": (recompute, "range(0, len(scores.key), block)",
        "range(0, len(scores.key) - block, block)"),
    "a block of keys twice": (recompute, "part = scores.part(keys=keys)",
        "part = scores.part(keys=slice(block))"),
    "the sink has no gradient": (recompute, "(torch.exp(scores.sink - finite(lse)) * delta)", "(0 * delta)"),
    "the sink's gradient has the other sign": (recompute, "found.sink.sub_(", "found.sink.add_("),
    "the sink's gradient is of one batch": (recompute, "* delta).sum((0, 2, 3))", "* delta)[0].sum((1, 2))"),
    "the sink's weight is 1": (recompute, "torch.exp(scores.sink - finite(lse))",
        "torch.exp(0 * finite(lse))"),
    # in the gradients of the exponents
    "dq has no scale": (attention_backward, "scores.scale * (d_s @ k)", "(d_s @ k)"),
    "dk has no scale": (attention_backward, "scores.scale * (d_s.mT @ q)", "(d_s.mT @ q)"),
    "the softcap has no slope": (attention_backward, "d_s / steepness / steepness)", "d_s)"),
    "the softcap's slope once": (attention_backward, "d_s / steepness / steepness)", "d_s / steepness)"),
    "the softcap's slope cancels": (
        attention_backward, "d_s / steepness / steepness)",
        "d_s * (1 - torch.tanh(torch.acosh(steepness)) ** 2))",
    ),
    "the softcap's slope before the scale": (attention_backward, "torch.cosh(scores.scale * (q",
        "torch.cosh((q"),
    "the mask has no gradient": (attention_backward, "self.bias[:, :, :, keys] += d_s", "pass"),
    "the mask's gradient is scaled": (attention_backward, "keys] += d_s", "keys] += d_s * scores.scale"),
    "ALiBi without a distance": (attention_backward, "(scores.query - scores.key).abs()", "1.0"),
    "ALiBi with a sign": (attention_backward, "(scores.query - scores.key).abs()",
        "(scores.query - scores.key)"),
    "the keys of the next block": (attention_backward, "self.k[:, :, keys] +=", "self.k[:, :, keys] -="),
    "what nobody sees is not guarded": (attention_backward, "torch.where(x.isfinite(), x, 0.0)", "x"),
    # around both
    "one head of those that share a key": (attention_backward, ".sum(2) for x", "[:, :, 0] for x"),
    "heads share keys in turn": (
        attention_backward, "x.reshape(*shared, *x.shape[2:]).sum(2)",
        "x.unflatten(1, (-1, k.shape[1])).sum(1)",
    ),
    "a mask's gradient of one batch": (attention_backward, "bias.sum_to_size(mask.shape)",
        "bias[0].expand(mask.shape)"),
    "the window is forgotten": (attention_backward, f"{OPTIONS})\n", f"{OPTIONS} | {{'window': None}})\n"),
    "causal is forgotten": (attention_backward, f"{OPTIONS})\n", f"{OPTIONS} | {{'causal': None}})\n"),
    "the scale is forgotten": (attention_backward, f"{OPTIONS})\n", f"{OPTIONS} | {{'scale': None}})\n"),
    "dk and dv change places": (attention_backward, "for x in (found.k, found.v)",
        "for x in (found.v, found.k)"),
    "gradients are None": (attention_backward, "return (None, found.q.to(q.dtype),", "return (None, None,"),
}  # fmt: skip
SEEN_BY = (
    "S = 5", "S = 130", "much", "sink and nothing seen", "six heads", "window", "ALiBi, not causal",
    "additive mask", "negative scale",
)  # fmt: skip


SEEN_OTHERWISE = {
    "what nobody sees is not guarded": lambda function: hidden_bits_have_no_influence(function, math.nan),
    "the softcap's slope cancels": the_slope_keeps_its_relative_accuracy,
}


def faulty(fault, tmp_path, monkeypatch):
    """The kernel `recompute` with a fault in its formula, or in the module around it."""
    module, right, wrong = FAULTS[fault]
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert text.count(right) >= 1
    for other in (attention_backward, recompute):
        name = other.__name__
        source = (
            text.replace(right, wrong)
            if other is module
            else Path(other.__file__).read_text(encoding="utf-8")
        )
        path = tmp_path / f"{name.rpartition('.')[2]}.py"
        path.write_text(source, encoding="utf-8")
        specification = importlib.util.spec_from_file_location(name, path)
        loaded = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, loaded)
        specification.loader.exec_module(loaded)
    return loaded.recompute


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_written_into_the_backward_pass_is_seen(fault, tmp_path, monkeypatch):
    function = faulty(fault, tmp_path, monkeypatch)
    if fault in SEEN_OTHERWISE:
        with pytest.raises(AssertionError):
            SEEN_OTHERWISE[fault](function)
        return
    for call in SEEN_BY:
        try:
            shares = off(function, CALLS[call])
        except RuntimeError:  # of shapes that do not fit, or of a gradient that is None
            return
        if max(shares.values()) > 1:
            return
    pytest.fail("no call has seen it")

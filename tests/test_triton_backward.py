"""Triton's backward pass: right through the interpreter, faults written into it, compiled for a GPU
that need not be here.
"""

import math

import pytest
import torch

from suite.kernels import own_kernels
from tests import attention_gradients
from tests.attention_calls import BOTTOM, TOP, Call, ramp
from tests.extras import needs
from tests.sources import compiled, mutated

needs("triton")


from suite.kernels.parts import triton_attention_backward  # noqa: E402

SMALL = {"batch": 1, "heads": 2, "groups": 1, "length": 9}
CALLS = {
    "several blocks of both": Call(sizes={**SMALL, "length": 40, "keys": 70}),
    "causal, top left": Call(sizes={**SMALL, "length": 40, "keys": 37}, options=TOP),
    "causal, bottom right": Call(sizes={**SMALL, "length": 37, "keys": 70}, options=BOTTOM),
    "queries before the first key": Call(sizes={**SMALL, "length": 40, "keys": 36}, options=BOTTOM),
    "softcap": Call(sizes=SMALL, options={"softcap": 2.5}),
    "softcap far above the scores": Call(sizes=SMALL, options={"softcap": 500.0}),
    "negative scale, six heads": Call(sizes={"heads": 6, "groups": 2, "length": 3, "keys": 33},
        options={"scale": -0.3}),
    "odd sizes, one key": Call(sizes={**SMALL, "keys": 1, "size": 5, "width": 20}),
    "low scores": Call(sizes=SMALL, change=ramp(-150.0, -151.0)),
}  # fmt: skip
IN_16_BITS = ("causal, bottom right", "softcap", "negative scale, six heads")
INTERPRETED = own_kernels("attention")["triton_flash_interpreter"].call


def off(function, call, dtype=torch.float32):
    """The largest error of each gradient, as a share of what is allowed: of every term, three more
    roundings to the tensors' format, of o, of P or ds, and of the gradient. None of these calls has
    a ds below what float16 holds.
    """
    unit = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    tensors = call.tensors(dtype, probing=False)
    given = attention_gradients.leaves(tensors)
    outputs = function(**given, **call.options, enable_gqa=True, return_lse=True)
    d_outputs = attention_gradients.upstream(*outputs)
    got = attention_gradients.gradients(outputs, given, d_outputs)
    exact = attention_gradients.exact(tensors, call.options, *d_outputs)
    allowed = attention_gradients.allowed(tensors, call.options, *d_outputs, unit=2.0**-24, stored=3 * unit)
    shares = {}
    for name, right in exact.items():
        assert (got[name].shape, got[name].dtype) == (tensors[name].shape, dtype)
        error = (got[name].double() - right).abs()
        share = torch.where(error == 0, 0.0, error / allowed[name])
        shares[name] = float(share.nan_to_num(nan=math.inf).max())
    return shares


@pytest.mark.parametrize("call", CALLS)
def test_the_gradients_are_those_of_the_composition(call):
    for dtype in (torch.float32, torch.bfloat16, torch.float16) if call in IN_16_BITS else (torch.float32,):
        shares = off(INTERPRETED, CALLS[call], dtype)
        assert max(shares.values()) <= 1, shares


def test_queries_that_see_nothing_and_keys_that_nobody_sees_have_gradients_of_exactly_0():
    tensors = CALLS["causal, top left"].tensors(torch.float32)
    tensors["q"] = tensors["q"][:, :, :9]
    given = attention_gradients.leaves(tensors)
    o, lse = INTERPRETED(**given, causal="top_left", enable_gqa=True, return_lse=True)
    found = attention_gradients.gradients((o, lse), given, attention_gradients.upstream(o, lse))
    assert bool((found["k"][:, :, 9:] == 0).all())
    assert bool((found["v"][:, :, 9:] == 0).all())

    given = attention_gradients.leaves(CALLS["queries before the first key"].tensors(torch.float32))
    o, lse = INTERPRETED(**given, causal="bottom_right", enable_gqa=True, return_lse=True)
    found = attention_gradients.gradients((o, lse), given, attention_gradients.upstream(o, lse))
    assert bool((found["q"][:, :, :4] == 0).all())
    assert bool((found["q"][:, :, 5:] != 0).any(-1).all())  # with one key ds is 0


@pytest.mark.parametrize("changed", ["length", "keys"])
def test_without_queries_or_keys_every_gradient_is_0(changed):
    tensors = CALLS["softcap"].tensors(torch.float32)
    tensors |= {name: tensors[name][:, :, :0] for name in ("q" if changed == "length" else "kv")}
    given = attention_gradients.leaves(tensors)
    o = INTERPRETED(**given, enable_gqa=True)
    found = attention_gradients.gradients(o, given, torch.ones_like(o))

    assert all(bool((found[name] == 0).all()) and found[name].shape == tensors[name].shape for name in "qkv")


def test_strides_change_nothing_nor_does_a_second_run():
    plain = CALLS["causal, bottom right"].tensors(torch.float32)
    moved = {name: tensor.transpose(1, 2).contiguous().transpose(1, 2) for name, tensor in plain.items()}
    found = []
    for tensors in (plain, moved, moved):
        given = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        o = INTERPRETED(**given, **BOTTOM, enable_gqa=True)
        found.append(attention_gradients.gradients(o, given, torch.ones(()).expand(o.shape)))

    for others in found[1:]:
        assert all(torch.equal(found[0][name], others[name]) for name in "qkv")


FAULTS = {
    "D is left out": ("- delta)", "- 0 * delta)", ("softcap",)),
    "the gradient of lse is lost": (".sum(-1) - d_lse", ".sum(-1)", ("softcap",)),
    "D of o in the other sign": ("(d_o.float() * o.float())", "-(d_o.float() * o.float())", ("softcap",)),
    "P has no lse": ("tl.exp(s - lse)", "tl.exp(s)", ("softcap",)),
    "an lse of -inf is not guarded": ("lse.masked_fill(lse == -torch.inf, 0.0)", "-lse",
        ("queries before the first key",)),
    "padding counts as a key": ("tl.trans(j) < keys", "tl.trans(j) < keys + KEYS", ("low scores",)),
    "dk sees one key of the future": ("j <= i[None, :] + reach", "j <= i[None, :] + reach + 1",
        ("causal, top left",)),
    "dq sees one key of the future": ("tl.trans(j) <= i + reach", "tl.trans(j) <= i + reach + 1",
        ("causal, top left",)),
    "a block of queries too late": ("// QUERIES * QUERIES", "// QUERIES * QUERIES + QUERIES",
        ("causal, top left",)),
    "the last block of queries": ("range(first, length,", "range(first, length - QUERIES,",
        ("several blocks of both",)),
    "the last block of keys": ("range(0, end,", "range(0, end - KEYS,", ("several blocks of both",)),
    "dk of the last block alone": ("dk += tl.dot", "dk = tl.dot", ("several blocks of both",)),
    "dv of the last block alone": ("dv += tl.dot", "dv = tl.dot", ("several blocks of both",)),
    "dq of the last block alone": ("dq += tl.dot", "dq = tl.dot", ("several blocks of both",)),
    "dk has no scale": ("scale * dk", "dk", ("softcap",)),
    "dq has no scale": ("scale * dq", "dq", ("softcap",)),
    "the softcap has no slope": ("ds = ds * 4 * e / ((1 + e) * (1 + e))", "ds = ds", ("softcap",)),
    "dv of ds": ("p.to(do.dtype)", "ds.to(do.dtype)", ("softcap",)),
    "heads share keys in turn": ("head // shared", "head % 2", ("negative scale, six heads",)),
    "one head of those that share a key": (".sum(2) for x", "[:, :, 0] for x",
        ("negative scale, six heads",)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_written_into_the_backward_pass_is_seen(fault, tmp_path):
    right, wrong, calls = FAULTS[fault]
    faulty = mutated(triton_attention_backward, right, wrong, tmp_path)

    def function(q, k, v, *, causal=None, scale=None, softcap=None, enable_gqa, return_lse):
        return faulty.attention(q, k, v, causal=causal, scale=scale, softcap=softcap, enable_gqa=enable_gqa)

    assert any(max(off(function, CALLS[call]).values()) > 1 for call in calls)


@pytest.mark.parametrize("element", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "kernel", [triton_attention_backward.keys_kernel, triton_attention_backward.queries_kernel]
)
def test_the_kernels_compile_for_cuda_and_multiply_float32_without_tf32(
    kernel, element, monkeypatch, tmp_path
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"CAUSAL": True, "SOFTCAP": True, "QUERIES": 32, "KEYS": 32, "SIZE": 16, "VALUE": 16}
    kinds = dict.fromkeys(("scale", "softcap"), "fp32")
    kinds |= dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "do_ptr"), f"*{element}")
    kinds |= dict.fromkeys(("lse_ptr", "delta_ptr", "dq_ptr", "dk_ptr", "dv_ptr"), "*fp32")
    made = compiled(kernel, kinds, constants)

    assert made.asm["cubin"]
    assert "tf32" not in made.asm["ptx"]
    assert ("mma" in made.asm["ptx"]) == (element == "bf16")

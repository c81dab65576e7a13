"""torch.autograd through this suite's own kernels of attention and merge_states: right in float64,
and never NaN.
"""

import math

import pytest
import torch

from suite.kernels import own_kernels
from tests import attention_gradients
from tests.attention_calls import CALLS

KERNELS = own_kernels("attention")
READABLE = (
    "naive",
    "shifted",
    "chunked",
    "online",
    "online_block_16",
    "online_base_two",
    "online_threshold",
    "split_kv",
)
OF_TORCH = ("sdpa_math", "sdpa_flash", "multihead_attention")
CHOSEN = (
    "S = 130",
    "much",
    "sink and nothing seen",
    "additive mask",
    "boolean mask",
    "window",
    "ALiBi",
    "softcap",
    "length 0",
)
PLAIN = ("S = 130", "boolean mask", "lengths", "window", "nothing seen")
"""Calls that torch's own functions take."""


def shares(name, call, **options):
    """The largest error of each gradient, as a share of what float64 may be off."""
    tensors = call.tensors(torch.float64, probing=False)
    if name in OF_TORCH:  # without heads that share keys
        tensors |= {n: tensors[n].repeat_interleave(2, dim=1) for n in "kv"}
    given = attention_gradients.leaves(tensors)
    outputs = KERNELS[name].call(**given, **call.options, **options)
    o, lse = (
        outputs
        if isinstance(outputs, tuple)
        else (outputs, torch.zeros(outputs.shape[:3], dtype=torch.float64))
    )
    d_o, d_lse = attention_gradients.upstream(o, lse)
    d_lse = d_lse if lse.requires_grad else torch.zeros_like(lse)
    got = attention_gradients.gradients(outputs, given, (d_o, d_lse) if isinstance(outputs, tuple) else d_o)
    exact = attention_gradients.exact(tensors, call.options, d_o, d_lse)
    allowed = attention_gradients.allowed(tensors, call.options, d_o, d_lse)
    errors = {n: (got[n] - exact[n]).abs() for n in exact}
    return {
        n: float(torch.where(e == 0, 0.0, e / allowed[n]).nan_to_num(nan=math.inf).max())
        for n, e in errors.items()
    }


@pytest.mark.parametrize("call", CHOSEN)
@pytest.mark.parametrize("name", READABLE)
def test_autograd_through_a_readable_kernel_is_right(name, call):
    found = shares(name, CALLS[call], enable_gqa=True, return_lse=True)
    assert max(found.values()) <= 1, found


@pytest.mark.parametrize("call", PLAIN)
@pytest.mark.parametrize("name", OF_TORCH)
def test_autograd_through_torchs_functions_is_right(name, call):
    found = shares(name, CALLS[call])
    assert max(found.values()) <= 1, found


def test_decoding_with_a_cache_has_no_gradient():
    given = attention_gradients.leaves(CALLS["plain"].tensors(torch.float32))
    assert not KERNELS["cached_decoding"].call(**given, enable_gqa=True).requires_grad


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("bits", [math.nan, math.inf])
def test_what_keys_hold_that_nobody_sees_is_in_no_gradient(name, bits):
    tensors = CALLS["lengths"].tensors(torch.float32)
    found = []
    for hidden in (0.0, bits):
        changed = {n: tensor.clone() for n, tensor in tensors.items()}
        for n in "kv":
            changed[n][0, :, 61:] = hidden  # kv_lengths is 61 there
        given = attention_gradients.leaves(changed)
        o = KERNELS[name].call(**given, enable_gqa=True, softcap=5.0)
        found.append(attention_gradients.gradients(o, given, torch.ones_like(o)))

    assert all(torch.equal(found[0][n], found[1][n]) for n in "qkv")
    assert bool((found[1]["k"][0, :, 61:] == 0).all())


@pytest.mark.parametrize("name", ["merge", "merge_base_two"])
def test_autograd_through_merged_states_is_right_and_0_where_a_state_saw_nothing(name):
    generator = torch.Generator().manual_seed(3)
    o_a, o_b, d_o = (torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    lse_a, lse_b, d_lse = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(3))
    lse_a[0] = lse_b[1] = lse_a[2] = lse_b[2] = -math.inf
    o_a[0] = math.nan
    given = [x.requires_grad_() for x in (o_a, lse_a, o_b, lse_b)]
    got = torch.autograd.grad(own_kernels("merge_states")[name].call(*given), given, (d_o, d_lse))
    with torch.no_grad():
        share_a, share_b = (torch.softmax(torch.stack([lse_a, lse_b]), 0).nan_to_num(0.0))[..., None]
        apart = share_a * share_b * ((o_a.nan_to_num(0.0) - o_b) * d_o).sum(-1, keepdim=True)
        expected = (
            share_a * d_o,
            apart + share_a * d_lse[:, None],
            share_b * d_o,
            share_b * d_lse[:, None] - apart,
        )

    for right, d in zip(expected, got, strict=True):
        # 16 roundings of terms of at most 8 products of normal numbers, their sum below 32
        torch.testing.assert_close(d, right.reshape(d.shape), rtol=0.0, atol=16 * 32 * 2.0**-53)
        assert bool((d[2] == 0).all())

"""The kernel profile: every finding is right for kernels whose numerics are known, and none is
made up for honest ones.
"""

import functools
import json

import numpy as np
import pytest
import torch

from suite.formats import bfloat16, float16, float32, float64
from suite.kernels import Kernel, own_kernels
from suite.studies.exponential import NAMES, measure
from suite.studies.exponential.errors import BUCKETS
from suite.studies.exponential.rows import Rows
from tests.extras import needs

LOG2E = 1.4426950408889634


def name(value):
    return getattr(value, "__name__", str(value))


def shifted(x):
    return x - x.amax(-1, keepdim=True)


def divided(e):
    return e / e.sum(-1, keepdim=True)


def exact_exp(x, dim=-1):
    return divided(torch.exp(shifted(x).double()).to(x.dtype))


def rounded_once(x, dim=-1):
    return torch.softmax(x.double(), dim).to(x.dtype)


def base_2(x, dim=-1):
    return divided(torch.exp2((shifted(x) * LOG2E).double()).to(x.dtype))


def two_ulps(x, dim=-1):
    """A correctly rounded exp moved by -2 to 2 ulps, exp(0) = 1 and underflows kept."""
    e = torch.exp(shifted(x).double()).to(x.dtype)
    steps = (torch.arange(x.numel()).reshape(x.shape) * 40503 % 5 - 2).to(x.dtype)
    moved = e + steps * (torch.nextafter(e, torch.full_like(e, 2)) - e)
    return divided(torch.where((e < 1) & (e > 1e-37), moved, e))


def degree_3(x, dim=-1):
    """exp2 by a polynomial of degree 3, relative error 8.8e-5 = 1476 u in float32."""
    z = shifted(x) * LOG2E
    k = torch.floor(z)
    f = z - k
    return divided((1 + f * (0.69514614 + f * (0.22764469 + f * 0.07711909))) * torch.exp2(k))


def flushing(x, dim=-1):
    y = torch.softmax(x, dim)
    return torch.where(y < torch.finfo(x.dtype).tiny, 0.0, y)


def argument_in(format):
    def kernel(x, dim=-1):
        return divided(torch.exp(shifted(x.float()).to(format).float())).to(x.dtype)

    kernel.__name__ = f"argument_in_{format}"
    return kernel


def argument_in_steps(x, dim=-1):
    return divided(torch.exp(torch.round(shifted(x) * 64) / 64))


def without_shift(x, dim=-1):
    return divided(torch.exp(x))


def lse_subtracted(x, dim=-1):
    return torch.exp(x - torch.logsumexp(x, -1, keepdim=True))


def sum_in(format):
    def kernel(x, dim=-1):
        e = torch.exp(shifted(x.float()))
        total = torch.zeros_like(e[..., :1]).to(format)
        for term in torch.split(e, 1, -1):
            total = (total.float() + term.float()).to(format)
        return (e / total.float()).to(x.dtype)

    kernel.__name__ = f"sum_in_{format}"
    return kernel


def sum_stored_in_bfloat16(x, dim=-1):
    e = torch.exp(shifted(x))
    return e / e.sum(-1, keepdim=True).bfloat16().float()


def with_inversions(x, dim=-1):
    """A right exp but for every fifth number between 0.7 and 0.725, which is 2 ulps too large."""
    e = torch.exp(shifted(x).double()).to(x.dtype)
    odd = (e.view(torch.int32) % 5 == 0) & (e > 0.7) & (e < 0.725)
    return divided(torch.where(odd, e * (1 + 2**-22), e))


def clamped(x, dim=-1):
    return divided(torch.exp(shifted(x).clamp(min=-30)))


def in_float32(x, dim=-1):
    return torch.softmax(x.float(), dim).to(x.dtype)


def truncated(x, dim=-1):
    return (torch.softmax(x.float(), dim).view(torch.int32) & ~0xFFFF).view(torch.float32).to(x.dtype)


@functools.cache
def findings(call, dtype, op="softmax"):
    kernel = own_kernels(op)[call] if isinstance(call, str) else Kernel(id=call.__name__, op=op, call=call)
    data = measure(kernel, dtype).data
    assert "reason" not in data, data
    return data["findings"]


bfloat16_argument, float16_argument = argument_in(torch.bfloat16), argument_in(torch.float16)
bfloat16_sum, float16_sum = sum_in(torch.bfloat16), sum_in(torch.float16)


@pytest.mark.parametrize(
    ("call", "dtype", "low", "high"),
    [
        (exact_exp, "float32", 0.49, 0.5),
        (rounded_once, "float32", 0.49, 0.5),
        ("shifted", "float32", 0.5, 1.0),
        ("shifted", "float64", 0.5, 1.0),
        (two_ulps, "float32", 2.4, 2.5),
        (degree_3, "float32", 1476 / 2, 2 * 1476),
    ],
    ids=name,
)
def test_the_error_of_the_exponential_is_seen(call, dtype, low, high):
    assert low <= findings(call, dtype)["exp_ulp"]["value"] <= high


@pytest.mark.parametrize(
    ("call", "dtype", "base", "grows"),
    [
        (exact_exp, "float32", "e", False),
        ("fused", "float32", "e", False),
        ("fused", "float64", "e", False),
        (two_ulps, "float32", "e", False),
        (base_2, "float32", "2", True),
        (base_2, "float64", "2", True),
        (lse_subtracted, "float32", "e", True),
        (bfloat16_argument, "float32", "unknown", True),
        (degree_3, "float32", "unknown", None),
        (clamped, "float32", "unknown", None),
    ],
    ids=name,
)
def test_base_and_growth_are_told_from_the_errors(call, dtype, base, grows):
    found = findings(call, dtype)

    assert found["base"]["value"] == base
    assert found["grows_with_gap"]["value"] is grows


@pytest.mark.parametrize(
    ("call", "dtype", "expected"),
    [
        ("fused", "float32", "exact"),
        ("fused", "float64", "exact"),
        ("fused", "bfloat16", "exact"),
        ("fused", "float16", "exact"),
        (base_2, "float32", "exact"),
        (bfloat16_argument, "float32", "bfloat16"),
        (bfloat16_argument, "bfloat16", "bfloat16"),
        (bfloat16_argument, "float16", "bfloat16"),
        (float16_argument, "float16", "float16"),
        (float16_argument, "float32", "float16"),
        (in_float32, "float64", "float32"),
        (argument_in_steps, "float32", "coarse"),
    ],
    ids=name,
)
def test_a_rounded_argument_is_found(call, dtype, expected):
    assert findings(call, dtype)["argument_format"]["value"] == expected


@pytest.mark.parametrize(
    ("call", "dtype", "kind", "gap"),
    [
        ("fused", "float32", "gradual", float32.exp_underflow),
        ("fused", "float64", "gradual", float64.exp_underflow),
        ("fused", "bfloat16", "gradual", bfloat16.exp_underflow),
        ("fused", "float16", "gradual", float16.exp_underflow),
        (flushing, "float32", "flushed", float32.exp_subnormal),
        (flushing, "float64", "flushed", float64.exp_subnormal),
        (flushing, "float16", "flushed", float16.exp_subnormal),
        (in_float32, "float64", "early", float32.exp_underflow),
    ],
    ids=name,
)
def test_where_results_become_0_is_found(call, dtype, kind, gap):
    value = findings(call, dtype)["flushes"]["value"]

    assert value["kind"] == kind
    # The next number of the format, or of the grid of rows where the gap is no threshold of the
    # format itself.
    assert value["zero_at"] == pytest.approx(gap, rel=2.0**-7 if dtype == "bfloat16" else 1e-3)


@pytest.mark.parametrize(
    ("call", "dtype", "kind", "format", "gap"),
    [
        ("fused", "float32", "in_format", "float32", float32.saturation_in_format),
        (rounded_once, "float32", "rounded", "float32", float32.saturation_rounded()),
        ("fused", "bfloat16", "rounded", "bfloat16", bfloat16.saturation_rounded()),
        ("fused", "float16", "rounded", "float16", float16.saturation_rounded()),
        (bfloat16_sum, "float32", "in_format", "bfloat16", bfloat16.saturation_in_format),
        (float16_sum, "float32", "in_format", "float16", float16.saturation_in_format),
    ],
    ids=name,
)
def test_where_the_largest_entry_becomes_1_is_found(call, dtype, kind, format, gap):
    value = findings(call, dtype)["saturates"]["value"]

    assert (value["kind"], value["format"]) == (kind, format)
    assert value["at"] == pytest.approx(gap, rel=2.0**-7 if dtype == "bfloat16" else 1e-3)


def test_inversions_are_counted_and_none_is_made_up():
    assert findings(with_inversions, "float32")["monotone"]["value"] > 0
    for call in (exact_exp, rounded_once, "fused", lse_subtracted):
        assert findings(call, "float32")["monotone"]["value"] == 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_common_offset_is_no_matter_to_an_honest_kernel(dtype):
    assert findings("fused", dtype)["shift_invariant"]["value"] is True
    assert findings("shifted", dtype)["shift_invariant"]["value"] is True


@pytest.mark.parametrize("call", [without_shift, lse_subtracted])
def test_a_common_offset_shows_what_is_not_shifted(call):
    found = findings(call, "float32")

    assert found["shift_invariant"]["value"] is False
    assert found["fits"]["value"] in ("shift=none", "shift=lse", "shift=folded")


@pytest.mark.parametrize(
    ("call", "dtype", "expected", "how"),
    [
        ("fused", "float32", "no stagnation", "4096 ones"),
        ("fused", "bfloat16", "no stagnation", "4096 ones"),
        ("shifted", "float16", "no stagnation", "4096 ones"),
        (bfloat16_sum, "float32", "bfloat16", "stops growing"),
        (bfloat16_sum, "bfloat16", "bfloat16", "stops growing"),
        (float16_sum, "float32", "float16", "stops growing"),
        (sum_stored_in_bfloat16, "float32", "bfloat16", "is rounded"),
    ],
    ids=name,
)
def test_a_narrow_sum_is_found(call, dtype, expected, how):
    found = findings(call, dtype)["accumulate"]

    assert found["value"] == expected
    assert how in found["text"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_kernels_that_round_once_are_told_from_those_that_do_not(dtype):
    for call in ("fused", "shifted"):
        assert findings(call, dtype)["output"]["value"]["half_ulp"] is True
    for call in (truncated, bfloat16_argument, bfloat16_sum):
        assert findings(call, dtype)["output"]["value"]["half_ulp"] is False
    assert findings("fused", dtype)["exp_ulp"] == {
        "value": None,
        "text": f"not measured: the output's rounding to {dtype} hides it",
    }


@pytest.mark.parametrize("call", ["online", "scipy", exact_exp, two_ulps], ids=name)
def test_nothing_is_made_up_of_an_honest_kernel(call):
    if call == "scipy":
        needs("scipy")
    found = findings(call, "float32")

    values = {
        key: found[key]["value"]
        for key in ("grows_with_gap", "argument_format", "shift_invariant", "accumulate", "fits")
    }
    assert values == {
        "grows_with_gap": False,
        "argument_format": "exact",
        "shift_invariant": True,
        "accumulate": "no stagnation",
        "fits": "exp_ulp=1.0, log_ulp=1.0",
    }
    # Docs/verdict.md, section 2: the vector libraries are good to 3 ulps.
    assert found["exp_ulp"]["value"] <= 3.0
    assert found["flushes"]["value"]["kind"] == "gradual"
    assert found["saturates"]["value"]["kind"] == "in_format"


@pytest.mark.parametrize("op", ["log_softmax", "logsumexp"])
def test_the_log_domain_shows_its_sum_and_says_what_it_hides(op):
    found = findings("fused", "float32", op)

    assert found["saturates"]["value"]["at"] == pytest.approx(float32.saturation_in_format, rel=1e-3)
    assert found["accumulate"]["value"] == "no stagnation"
    assert found["fits"]["value"] == "exp_ulp=1.0, log_ulp=1.0"
    for hidden in ("exp_ulp", "base", "flushes"):
        assert found[hidden]["value"] is None
        assert found[hidden]["text"].startswith("not measured: ")


def raising(x, dim=-1):
    raise RuntimeError("no device")


def test_a_kernel_that_fails_is_a_reason_and_no_crash():
    reasons = {
        call: measure(Kernel(id="f", op="softmax", call=call, dtypes=dtypes), "float32").data
        for call, dtypes in (
            (raising, None),
            (lambda x, dim=-1: x[..., :1], None),
            (lambda x, dim=-1: x * torch.nan, None),
            (lambda x, dim=-1: torch.zeros_like(x), None),
            (torch.softmax, ("float16",)),
        )
    }

    assert all(list(data) == ["reason"] for data in reasons.values())
    words = (
        "no device",
        "wrong_shape",
        "NaN",
        "no probability above 0",
        "unsupported: declares dtypes float16",
    )
    assert all(word in data["reason"] for word, data in zip(words, reasons.values(), strict=True))


def test_an_unknown_format_is_misuse():
    with pytest.raises(ValueError, match="unknown format 'float33'"):
        measure(own_kernels("softmax")["fused"], "float33")


def test_a_measurement_has_every_finding_is_json_and_repeats():
    kernel = own_kernels("softmax")["fused"]
    first, second = measure(kernel, "float32"), measure(kernel, "float32")

    assert first.to_json() == second.to_json()
    data = json.loads(first.to_json())["data"]
    assert tuple(data["findings"]) == NAMES
    assert all(finding["text"] for finding in data["findings"].values())
    assert len(data["curve"]["gap"]) == len(data["curve"]["exp_ulp"]) == BUCKETS


def test_a_slow_kernel_gets_few_rows_and_the_same_findings():
    slow = Kernel(id="slow", op="softmax", call=base_2, slow=True)

    data = measure(slow, "float32").data

    assert data["rows"] < 2**12
    found = data["findings"]
    assert found["grows_with_gap"]["value"] is True
    assert found["flushes"]["value"]["kind"] == "gradual"
    assert found["saturates"]["value"]["kind"] == "in_format"


def test_the_paired_rows_sum_to_two():
    for format in (float32, float64):
        rows = Rows(format, slow=False).paired(format.round(np.array([0.5, 1.0, 5.0, 12.0])))

        total = np.exp(rows.astype(np.longdouble)).sum(axis=1)

        # u/2 above 2, give or take what half an ulp of g and h, both below 16, moves e^-g and e^-h
        # by: at most u each; and where long double is no wider than double, a rounding or two of
        # the sum's.
        assert np.all(np.abs(total - 2) <= 4 * format.unit_roundoff)

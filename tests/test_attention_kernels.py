"""This suite's own kernels of attention and merge_states: against the judge on hard inputs, and
what they refuse.

flex_compiled compiles for seconds a call; it has the cases' word (`pytest cases`), and here what it
shares with flex.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from suite.formats import get_format
from suite.kernels import own_kernels
from suite.ops import get_op
from suite.oracle import Oracle
from suite.verdict.judge import judge
from tests.extras import missing, needs
from tests.sources import compiled, mutated

ORACLE = Oracle(remembered=200)
"""Kernels that are judged on the same tensors share their reference."""

KERNELS = own_kernels("attention")
MERGES = own_kernels("merge_states")
READABLE = (
    "naive", "shifted", "chunked", "online", "online_block_16", "online_base_two", "online_threshold",
    "split_kv", "cached_decoding", "recompute", "recompute_block_16",
)  # fmt: skip
EAGER = (*READABLE, "sdpa_math", "sdpa_flash", "flex", "multihead_attention", "multihead_attention_weights")
TRITON = "triton_flash_interpreter"
DTYPES = (torch.float32, torch.bfloat16)
INF = math.inf


@pytest.fixture(autouse=True)
def no_gradients():
    """As hosts call kernels."""
    with torch.no_grad():
        yield


def drawn(dtype, *, length=5, keys=70, groups=4, size=16, width=16, spread=4.0, seed=0):
    """q, k, v of 2 batches and 4 heads; v has one-hot columns at some keys and a column of ones,
    where the output is P.
    """
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(shape, generator=generator)
        for shape in ((2, 4, length, size), (2, groups, keys, size), (2, groups, keys, width))
    )
    v[..., -5:] = 0
    for column, key in ((-5, 0), (-4, 15), (-3, 64), (-2, keys - 1)):
        v[:, :, min(key, keys - 1), column] = 1
    v[..., -1] = 1
    return {"q": (spread * q).to(dtype), "k": k.to(dtype), "v": v.to(dtype)}


def boolean_mask(length, keys):
    """A row that sees nothing, in every head."""
    mask = torch.rand(2, 1, length, keys, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, :, length // 2] = False
    return mask


def additive_mask(length, keys, dtype):
    mask = torch.randn(2, 4, length, keys, generator=torch.Generator().manual_seed(2)).to(dtype)
    mask[:, :, 1, 3:] = -INF
    mask[:, 2, 0] = -INF
    return mask


SLOPES = torch.tensor([0.5, 0.25, 0.0, 1.0])
SINK = torch.tensor([0.5, -2.0, 6.0, -INF])
LENGTHS = torch.tensor([70, 33])

CASES = {
    "several blocks and a bit": (lambda d: drawn(d, keys=133), {}),
    "causal, bottom right": (lambda d: drawn(d, length=36), {"causal": "bottom_right"}),
    "causal, top left": (lambda d: drawn(d, length=36), {"causal": "top_left"}),
    "more queries than keys": (lambda d: drawn(d, length=9, keys=4), {"causal": "top_left"}),
    "queries before the first key": (lambda d: drawn(d, length=9, keys=4), {"causal": "bottom_right"}),
    "one query": (lambda d: drawn(d, length=1), {"causal": "bottom_right"}),
    "one key": (lambda d: drawn(d, keys=1, spread=1.0), {}),
    "shared heads": (lambda d: drawn(d, groups=2), {"enable_gqa": True}),
    "one head of keys": (lambda d: drawn(d, groups=1), {"enable_gqa": True}),
    "odd head size": (lambda d: drawn(d, size=5, width=5), {}),
    "values of another size": (lambda d: drawn(d, width=7), {}),
    "negative scale": (lambda d: drawn(d), {"scale": -0.3}),
    "scale 0": (lambda d: drawn(d), {"scale": 0.0}),
    "softcap": (lambda d: drawn(d), {"softcap": 3.0}),
    "softcap far above the scores": (lambda d: drawn(d, spread=0.1), {"softcap": 50.0}),
    "window": (lambda d: drawn(d, length=40, keys=40), {"window": (4, 2)}),
    "window to the left, aligned right": (
        lambda d: drawn(d, length=9),
        {"window": (30, None), "causal": "bottom_right"},
    ),
    "window before the first key": (lambda d: drawn(d, length=9, keys=4), {"window": (1, 0)}),
    "boolean mask": (lambda d: drawn(d) | {"mask": boolean_mask(5, 70)}, {"causal": "bottom_right"}),
    "additive mask": (lambda d: drawn(d) | {"mask": additive_mask(5, 70, d)}, {}),
    "additive mask and window": (
        lambda d: drawn(d) | {"mask": additive_mask(5, 70, d)},
        {"window": (None, 40)},
    ),
    "one mask for every query": (lambda d: drawn(d) | {"mask": boolean_mask(5, 70)[:1, :, :1]}, {}),
    "lengths": (lambda d: drawn(d) | {"kv_lengths": LENGTHS}, {}),
    "a length of 0": (lambda d: drawn(d) | {"kv_lengths": torch.tensor([0, 1])}, {"causal": "bottom_right"}),
    "ALiBi": (lambda d: drawn(d) | {"alibi_slopes": SLOPES.to(d)}, {"causal": "bottom_right"}),
    "sink": (lambda d: drawn(d) | {"sink": SINK.to(d)}, {}),
    "sink and a row that sees nothing": (
        lambda d: drawn(d) | {"sink": SINK.to(d), "mask": boolean_mask(5, 70)},
        {},
    ),
    "much": (
        lambda d: (
            drawn(d, groups=2)
            | {
                "mask": additive_mask(5, 70, d),
                "sink": SINK.to(d),
                "kv_lengths": LENGTHS,
                "alibi_slopes": SLOPES.to(d),
            }
        ),
        {"softcap": 5.0, "causal": "bottom_right", "window": (60, 3), "enable_gqa": True, "scale": 0.5},
    ),
}
"""Name -> (dtype -> tensors, options)."""

IN_16_BITS = (
    "several blocks and a bit",
    "queries before the first key",
    "shared heads",
    "additive mask",
    "window",
    "much",
)
"""Cases that are judged in bfloat16 besides: one of each kind of tensor and option that a kernel
may round.
"""

NOTHING_SEEN = (
    "queries before the first key", "window before the first key", "boolean mask", "additive mask",
    "additive mask and window", "a length of 0",
)  # fmt: skip


def refused(name, case, dtype):
    """What the kernels decline by NotImplementedError, with their reasons below."""
    return (
        (name == "flex" and "sink" in CASES[case][0](dtype) and dtype != torch.float32)
        or (name in ("sdpa_flash", "multihead_attention",
            "multihead_attention_weights") and case == "values of another size")
    )  # fmt: skip


def supported(name, case, dtype):
    """Whether the kernel takes the case, where its packages are installed."""
    tensors, options = CASES[case][0](dtype), CASES[case][1]
    further = [n for n in tensors if n not in "qkv"]
    reason = replace(KERNELS[name], requires=()).supports(
        options, get_format(str(dtype).removeprefix("torch.")), "cpu", further=further
    )
    return reason is None and not refused(name, case, dtype)


def judged(name, case, dtype):
    """The judgement of output, and of lse where the kernel returns one."""
    kernel, (make, options) = KERNELS[name], CASES[case]
    if "return_lse" in kernel.parameters:
        options = {**options, "return_lse": True}
    tensors = make(dtype)
    output = kernel(tensors, options=options)
    return (
        judge("attention", tensors, output, options=options, numerics=kernel.numerics, oracle=ORACLE),
        output,
    )


OUTSIDE = {("naive", "much")}
"""A row with a largest score of -55, and a weight that underflows without a shift: outside the
kernel's domain.
"""

BROKEN = {("multihead_attention_weights", case) for case in NOTHING_SEEN}
"""NaN where a query sees nothing: https://github.com/pytorch/pytorch/issues/41508."""


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize(
    ("name", "case"),
    [
        (n, c)
        for n in EAGER
        for c in CASES
        if supported(n, c, torch.float32) and (n, c) not in BROKEN | OUTSIDE
    ],
)
def test_a_kernel_is_judged_right(name, case):
    for dtype in DTYPES if case in IN_16_BITS else DTYPES[:1]:
        if supported(name, case, dtype):
            found, _ = judged(name, case, dtype)
            assert found.status == "passed", found.message


def test_every_readable_kernel_takes_every_option():
    op = get_op("attention")
    assert set(KERNELS) == {*EAGER, TRITON, "triton_flash", "flex_compiled", "sdpa_efficient", "sdpa_cudnn"}
    for name in (*READABLE, "flex", "flex_compiled"):
        assert KERNELS[name].parameters == {*op.arguments, *op.optional, *op.options}


@pytest.mark.parametrize("case", sorted(case for _, case in BROKEN))
def test_multihead_attention_with_weights_is_nan_exactly_where_a_query_sees_nothing(case):
    """In one head is enough: the projection behind it mixes heads. Where this fails, torch has
    repaired it.
    """
    found, output = judged("multihead_attention_weights", case, torch.float32)
    right, _ = judged("multihead_attention", case, torch.float32)
    zero = KERNELS["shifted"](CASES[case][0](torch.float32), options=CASES[case][1]) == 0

    assert found.status == "nonfinite"
    assert right.passed
    assert torch.equal(output.isnan().all(-1), zero.all(-1).any(1, keepdim=True).expand(-1, 4, -1))


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_other_formats_are_judged_right(name, dtype):
    for case in (
        ("queries before the first key", "much")
        if dtype == torch.float64
        else ("several blocks and a bit", "much")
    ):
        found, (output, lse) = judged(name, case, dtype)
        assert found.status == "passed", found.message
        assert output.dtype == dtype
        assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("name", READABLE)
def test_hidden_keys_have_no_influence_whatever_bits_they_hold(name):
    tensors = drawn(torch.float32) | {"kv_lengths": LENGTHS, "mask": boolean_mask(5, 70)}
    tensors["mask"][..., 7] = False
    expected = KERNELS[name](tensors, options={"causal": "bottom_right"})
    for bits in (math.nan, INF, 3e38):
        hidden = {n: t.clone() for n, t in tensors.items()}
        for n in "kv":
            hidden[n][:, :, 7] = bits
            hidden[n][1, :, 33:] = bits
        assert torch.equal(KERNELS[name](hidden, options={"causal": "bottom_right"}), expected)


@pytest.mark.parametrize("name", READABLE)
def test_special_values_stand_where_the_definition_has_them(name):
    tensors = drawn(torch.float32, length=36)
    for argument, index, value in (
        ("q", (0, 1, 2, 3), math.nan), ("q", (0, 1, 3, 3), INF), ("k", (1, 1, 58, 3), math.nan),
        ("v", (0, 0, 57, 2), INF), ("v", (0, 2, 57, 3), -INF), ("v", (1, 3, 69, 0), math.nan),
    ):  # fmt: skip
        tensors[argument][index] = value
    output = KERNELS[name](tensors, options={"causal": "bottom_right"})
    found = judge(
        "attention", tensors, output, options={"causal": "bottom_right"}, numerics=KERNELS[name].numerics
    )

    assert found.passed, found.message
    assert 0 < int((~output.isfinite()).sum()) < output.numel() / 2


@pytest.mark.parametrize("name", READABLE)
def test_without_queries_or_keys_there_is_nothing_or_0(name):
    output, lse = KERNELS[name](drawn(torch.float32, length=0), options={"return_lse": True})
    assert (output.shape, lse.shape) == ((2, 4, 0, 16), (2, 4, 0))

    tensors = drawn(torch.float32)
    tensors |= {n: tensors[n][:, :, :0] for n in "kv"}
    output, lse = KERNELS[name](tensors, options={"return_lse": True})
    assert bool((output == 0).all())
    assert bool((lse == -INF).all())


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_layouts_change_nothing_and_inputs_and_the_generator_stay_as_they_were(name):
    plain = drawn(torch.float32)
    layouts = {n: t.transpose(1, 2).contiguous().transpose(1, 2) for n, t in plain.items()}
    layouts["v"] = plain["v"][:1].expand(2, -1, -1, -1)
    before, state = {n: t.clone() for n, t in layouts.items()}, torch.get_rng_state()

    output = KERNELS[name](layouts, options={})

    assert judge("attention", layouts, output, numerics=KERNELS[name].numerics).passed
    assert all(torch.equal(layouts[n], before[n]) for n in before)
    assert torch.equal(torch.get_rng_state(), state)


# Where kernels declare that they work


def rows_of(name, tensors):
    """(judged right, in the domain) of each row, and the output."""
    op, kernel, format = get_op("attention"), KERNELS[name], get_format("float32")
    options = op.resolve_options({}, {n: tuple(t.shape) for n, t in tensors.items()})
    reference = Oracle().reference(op, {n: t.double().numpy() for n, t in tensors.items()}, options, format)
    found = judge("attention", tensors, kernel(tensors, options={}), numerics=kernel.numerics)
    right = np.array([status in ("", "passed") for status in found.row_status])
    return right, kernel.domain(op.scores(reference.facts), format).works


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [("naive", (5.0, 10.0), (40.0, 200.0)), ("online_base_two", (10.0, 300.0), (1e10,))],
)
def test_a_kernel_works_in_its_domain_and_the_domain_is_not_all(name, inside, outside):
    for spread in inside:
        right, works = rows_of(name, drawn(torch.float32, spread=spread))
        assert works.all()
        assert right.all()
    for spread in outside:
        right, works = rows_of(name, drawn(torch.float32, spread=spread))
        assert not right.all()
        assert not (works & ~right).any()


# What kernels refuse

BAD = {
    "q has shape": ({"q": torch.zeros(2, 4, 5)}, {}),
    "do not match": ({"k": torch.zeros(2, 4, 70, 15)}, {}),
    "4 heads, which 3": ({"k": torch.zeros(2, 3, 70, 16), "v": torch.zeros(2, 3, 70, 16)}, {}),
    "enable_gqa": ({"k": torch.zeros(2, 2, 70, 16), "v": torch.zeros(2, 2, 70, 16)}, {}),
    "mask has shape \\[5, 69\\]": ({"mask": torch.zeros(5, 69, dtype=torch.bool)}, {}),
    "mask has dtype torch.int64": ({"mask": torch.zeros(5, 70, dtype=torch.int64)}, {}),
    "mask has dtype torch.uint8": ({"mask": torch.zeros(5, 70, dtype=torch.uint8)}, {}),
    "v has dtype torch.float64": ({"v": torch.zeros(2, 4, 70, 16, dtype=torch.float64)}, {}),
    "q has dtype torch.int32": ({n: torch.zeros(2, 4, 5, 16, dtype=torch.int32) for n in "qkv"}, {}),
    "k is on meta": ({"k": torch.zeros(2, 4, 70, 16, device="meta")}, {}),
    "sink has shape \\[3\\]": ({"sink": torch.zeros(3)}, {}),
    "alibi_slopes has dtype torch.int64": ({"alibi_slopes": torch.zeros(4, dtype=torch.int64)}, {}),
    "kv_lengths has dtype torch.float32": ({"kv_lengths": torch.zeros(2)}, {}),
    "kv_lengths=\\[70, 71\\]": ({"kv_lengths": torch.tensor([70, 71])}, {}),
    "kv_lengths=\\[-1, 3\\]": ({"kv_lengths": torch.tensor([-1, 3])}, {}),
    "scale=nan": ({}, {"scale": math.nan}),
    "softcap=0.0": ({}, {"softcap": 0.0}),
    "window=\\(-1, 0\\)": ({}, {"window": (-1, 0)}),
    "causal='yes'": ({}, {"causal": "yes"}),
}


@pytest.mark.parametrize("message", BAD)
def test_misuse_is_a_value_error_that_names_the_argument_and_its_value(message):
    change, options = BAD[message]
    tensors = drawn(torch.float32) | change
    here = (*EAGER, "flex_compiled") if missing("triton") else (*EAGER, "flex_compiled", TRITON)
    taking = [n for n in here if {*change, *options} <= KERNELS[n].parameters]

    assert len(taking) >= len(READABLE)
    for name in taking:
        with pytest.raises(ValueError, match=message):
            KERNELS[name](tensors, options=options)


def test_what_a_backend_refuses_is_unsupported_in_its_own_words_and_no_other_backend_runs():
    with pytest.raises(NotImplementedError, match="requires q,k,v to have the same last dimension"):
        KERNELS["sdpa_flash"](drawn(torch.float32, width=7), options={})
    with pytest.raises(NotImplementedError, match="Please use the following attn mask shapes"):
        KERNELS["sdpa_flash"](
            drawn(torch.float32) | {"mask": additive_mask(5, 70, torch.float32)[0]}, options={}
        )
    for name in ("sdpa_efficient", "sdpa_cudnn"):
        assert KERNELS[name].supports({}, get_format("float32"), "cpu") == "declares devices cuda"
        with pytest.raises(NotImplementedError, match="No viable backend"):
            KERNELS[name](drawn(torch.float32), options={})


def test_heads_of_another_size_and_a_sink_rounded_twice_are_declined():
    with pytest.raises(NotImplementedError, match="head size of the queries, 16, not 7"):
        KERNELS["multihead_attention"](drawn(torch.float32, width=7), options={})
    with pytest.raises(NotImplementedError, match="already rounded"):
        KERNELS["flex"](drawn(torch.bfloat16) | {"sink": SINK}, options={})
    with pytest.raises(NotImplementedError, match="at most 4096 queries, not 4097"):
        KERNELS["cached_decoding"](drawn(torch.float32, length=4097, keys=1), options={})


# Triton

TRITON_CASES = [case for case in CASES if supported(TRITON, case, torch.float32)]


@pytest.mark.parametrize("case", TRITON_CASES)
def test_the_triton_kernel_is_judged_right_through_the_interpreter(case):
    needs("triton")
    found, _ = judged(TRITON, case, torch.bfloat16 if case == "causal, bottom right" else torch.float32)
    assert found.status == "passed", found.message


FAULTS = {
    "the output is not rescaled": ("o = o * rescale +", "o = o +"),
    "padding counts as a key": ("seen = j[None, :] < keys", "seen = j[None, :] < keys + KEYS"),
    "one key of the future": ("(j[None, :] <= i + reach)", "(j[None, :] <= i + reach + 1)"),
    "the last block is left out": ("range(0, end, KEYS)", "range(0, end - KEYS, KEYS)"),
    "a row that sees nothing is not guarded": ("tl.where(d == 0, 1.0, d)", "d"),
    "heads of keys in turn": ("head // shared * k_head", "head % (heads // shared) * k_head"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_written_into_the_triton_kernel_is_seen(fault, tmp_path):
    needs("triton")
    from suite.kernels.parts import triton_attention

    right, wrong = FAULTS[fault]
    faulty = mutated(triton_attention, right, wrong, tmp_path)
    tensors, passed = {n: t[:1] for n, t in drawn(torch.float32, length=44, keys=40, groups=2).items()}, []

    for causal in (None, "bottom_right"):
        options = {"causal": causal, "enable_gqa": True}
        output, _ = faulty.attention(*(tensors[n] for n in "qkv"), scale=None, softcap=None, **options)
        passed.append(judge("attention", tensors, output, options=options, oracle=ORACLE).passed)

    assert not all(passed)


@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_the_triton_kernel_compiles_for_cuda_and_multiplies_float32_without_tf32(
    element, monkeypatch, tmp_path
):
    needs("triton")
    from suite.kernels.parts.triton_attention import attention_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"CAUSAL": True, "SOFTCAP": True, "QUERIES": 32, "KEYS": 32, "SIZE": 64, "VALUE": 64}
    kinds = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "o_ptr"), f"*{element}") | {"lse_ptr": "*fp32"}
    made = compiled(attention_kernel, kinds | dict.fromkeys(("scale", "softcap"), "fp32"), constants)

    assert made.asm["cubin"]
    assert "tf32" not in made.asm["ptx"]
    assert "ex2.approx.f32" in made.asm["ptx"]
    assert ("mma" in made.asm["ptx"]) == (element == "bf16")


# merge_states


def states(dtype, scale):
    """Two states of every kind: both seen, one not, neither, equal, and NaN or an infinity in an
    output that weighs nothing.
    """
    generator = torch.Generator().manual_seed(5)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    o_a, o_b = (torch.randn(2, 3, 6, 8, generator=generator).to(dtype) for _ in "ab")
    lse_a, lse_b = (scale * torch.randn(2, 3, 6, generator=generator, dtype=wide) for _ in "ab")
    lse_a[:, :, 0] = lse_b[:, :, 0] = lse_a[:, :, 1] = lse_b[:, :, 2] = -INF
    o_a[:, :, :2], o_b[:, 0, 0], o_b[:, :, 2] = math.nan, INF, -INF
    lse_a[:, :, 3] = lse_b[:, :, 3]
    return {"o_a": o_a, "lse_a": lse_a, "o_b": o_b, "lse_b": lse_b}


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_states_are_merged_right(name, dtype):
    for scale in (0.1, 5.0, 3e4):
        tensors = states(dtype, scale)
        o, lse = MERGES[name](tensors, options={})

        judge("merge_states", tensors, (o, lse)).raise_if_failed()
        assert bool((o[:, :, 0] == 0).all())
        assert bool((lse[:, :, 0] == -INF).all())
        assert torch.equal(o[:, :, 1], tensors["o_b"][:, :, 1])
        assert torch.equal(lse[:, :, 2], tensors["lse_a"][:, :, 2])


@pytest.mark.parametrize("name", MERGES)
def test_states_that_do_not_match_are_a_value_error(name):
    tensors = states(torch.float32, 1.0)
    for change, message in (
        ({"o_b": tensors["o_b"][:1]}, "o_b has shape \\[1, 3, 6, 8\\]"),
        ({"lse_a": tensors["o_a"]}, "lse_a has shape \\[2, 3, 6, 8\\]"),
        ({"lse_b": torch.zeros(2, 3, 6, dtype=torch.int64)}, "lse_b has dtype torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            MERGES[name](tensors | change, options={})

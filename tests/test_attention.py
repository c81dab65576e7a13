"""judge("attention", ...): the definition against sums written out, honest kernels, mutants,
special values, misuse.
"""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch

from suite import Numerics, judge
from suite.ops import get_op
from suite.oracle import Oracle
from tests.attention_calls import CALLS, drawn
from tests.attention_kernels import Attention, Given, online, scores, shifted
from tests.honest.attention import HONEST
from tests.mutants.attention import ATTENTION, BLIND

ORACLE = Oracle(remembered=200)
"""Kernels that are judged on the same tensors share their reference."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def small(dtype, **how):
    """A call of 2 batches and 4 heads, values of 8 entries."""
    return drawn(dtype, width=8, **how)


def called(kernel, tensors, options):
    further = {name: tensor for name, tensor in tensors.items() if name not in "qkv"}
    return kernel(*(tensors[name] for name in "qkv"), **further, **options, enable_gqa=True)


def judged(kernel, tensors, options, **how):
    output = called(kernel, tensors, options)
    return judge("attention", tensors, output, options={**options, "enable_gqa": True}, oracle=ORACLE, **how)


def written_out(tensors, options, batch, head, row):
    """One row of the output, by sums in mpmath over Python numbers."""
    q, k, v = (tensors[name].double() for name in "qkv")
    keys, length = k.shape[2], q.shape[2]
    group = head // (q.shape[1] // k.shape[1])
    o = keys - length if options.get("causal") == "bottom_right" else 0
    scale = options.get("scale")
    with mpmath.workprec(200):
        factor = mpmath.mpf(scale) if scale is not None else mpmath.mpf(1 / math.sqrt(q.shape[-1]))
        scores = {}
        for j in range(keys):
            s = factor * sum(
                mpmath.mpf(a) * mpmath.mpf(b)
                for a, b in zip(q[batch, head, row].tolist(), k[batch, group, j].tolist(), strict=True)
            )
            if options.get("softcap"):
                s = options["softcap"] * mpmath.tanh(s / options["softcap"])
            if "alibi_slopes" in tensors:
                s -= mpmath.mpf(float(tensors["alibi_slopes"][head])) * abs(row + o - j)
            left, right = options.get("window") or (None, None)
            seen = options.get("causal") is None or j <= row + o
            seen &= (left is None or j >= row + o - left) and (right is None or j <= row + o + right)
            seen &= "kv_lengths" not in tensors or j < int(tensors["kv_lengths"][batch])
            if "mask" in tensors:
                full = torch.broadcast_to(tensors["mask"], (q.shape[0], q.shape[1], length, keys))[
                    batch, head, row, j
                ]
                seen &= bool(full) if full.dtype == torch.bool else float(full) > -math.inf
                s = s if full.dtype == torch.bool or not seen else s + mpmath.mpf(float(full))
            if seen:
                scores[j] = s
        total = sum((mpmath.exp(s) for s in scores.values()), mpmath.mpf(0))
        if "sink" in tensors:
            total += mpmath.exp(mpmath.mpf(float(tensors["sink"][head])))
        columns = range(v.shape[-1])
        if not scores:
            return [mpmath.mpf(0) for _ in columns]
        weighted = ((mpmath.exp(s), v[batch, group, j].tolist()) for j, s in scores.items())
        sums = [mpmath.mpf(0) for _ in columns]
        for weight, values in weighted:
            sums = [total_ + weight * mpmath.mpf(value) for total_, value in zip(sums, values, strict=True)]
        return [value / total for value in sums]


BY_OPTION = [name for name, call in CALLS.items() if not call.sizes and call.probing and name != "NaN in q"]


@pytest.mark.parametrize("name", BY_OPTION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_reference_is_the_definition_written_out(name, dtype):
    call = replace(CALLS[name], sizes={"length": 5, "keys": 9, "size": 3, "width": 2}, probing=False)
    every, options = call.tensors(dtype), call.options
    op = get_op("attention")
    resolved = op.resolve_options(
        {**options, "enable_gqa": True}, {n: tuple(t.shape) for n, t in every.items()}
    )
    arrays = {n: t.numpy() if t.dtype == torch.bool else t.double().numpy() for n, t in every.items()}
    from suite.formats import get_format

    reference = Oracle().reference(op, arrays, resolved, get_format(str(dtype).removeprefix("torch.")))

    for batch, head, row in ((0, 0, 0), (1, 3, 4), (0, 2, 3), (1, 1, 2)):
        exact = written_out(every, options, batch, head, row)
        index = (batch * 4 + head) * 5 + row
        for column, value in enumerate(exact):
            with mpmath.workprec(200):
                off = abs(
                    mpmath.mpf(float(reference.hi[index, column]))
                    + float(reference.lo[index, column])
                    - value
                )
            assert off <= reference.radius[index, column]


@pytest.mark.share(of=4)
@pytest.mark.parametrize("name", CALLS)
def test_honest_kernels_pass(name):
    call = CALLS[name]
    for dtype in DTYPES:
        tensors = call.tensors(dtype)
        for kernel in HONEST.values():
            if not refused(kernel, call, dtype):
                found = judged(kernel.call, tensors, call.options, numerics=kernel.numerics)
                assert found.passed, (kernel.name, dtype, found.message)
                assert found.judged == 1.0


def refused(kernel, call, dtype):
    """Whether the kernel has no argument for what the call needs."""
    own_size = call.sizes.get("width", 16) != call.sizes.get("size", 16)
    return kernel.lacks & {*call.options, *call.further} or (kernel.name == "torch, flash" and own_size)


WITH_LSE = ("plain", "hard", "rising", "sink", "nothing seen", "sink and nothing seen", "large sink", "much")


@pytest.mark.share(of=4)
@pytest.mark.parametrize("name", WITH_LSE)
def test_the_lse_of_honest_kernels_passes(name):
    call = CALLS[name]
    for dtype in DTYPES:
        tensors, options = call.tensors(dtype), {**call.options, "return_lse": True}
        for kernel in HONEST.values():
            if "return_lse" not in kernel.lacks and not refused(kernel, call, dtype):
                numerics = Numerics(probabilities="input") if kernel.sums_stored else kernel.numerics
                found = judged(kernel.call, tensors, options, numerics=numerics)
                assert found.passed, (kernel.name, dtype, found.message)


def test_torch_flash_passes_where_weights_underflow():
    call = CALLS["large scores"]
    judged(HONEST["torch, flash"].call, call.tensors(torch.float32), call.options).raise_if_failed()


def test_a_declared_lse_in_the_exponent_passes():
    kernel, call = HONEST["two passes, exp(s - lse)"], CALLS["hard"]
    judged(kernel.call, call.tensors(torch.float32), call.options, numerics=kernel.numerics).raise_if_failed()


def status_of(mutant, call, dtype):
    """The status that a call of a fresh kernel gets: after another call, and repeated, its inputs
    compared.
    """
    kernel = mutant.make()
    options = {**call.options, "return_lse": True} if mutant.wrong == "lse" else call.options
    tensors = call.tensors(dtype)
    called(kernel, call.tensors(dtype, seed=1), options)
    given = {name: tensor.clone() for name, tensor in tensors.items()}
    output = called(kernel, given, options)
    found = judge("attention", tensors, output, options={**options, "enable_gqa": True}, oracle=ORACLE)
    again = called(kernel, {name: tensor.clone() for name, tensor in tensors.items()}, options)
    kept = all(same_bits(given[name], tensors[name]) for name in tensors)
    repeated = all(same_bits(a, b) for a, b in zip(parts(output), parts(again), strict=True))
    return found.status if (kept and repeated) or not found.passed else "law_broken"


def parts(output):
    return output if isinstance(output, tuple) else (output,)


def same_bits(a, b):
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.mark.share(of=4)
@pytest.mark.parametrize("name", ATTENTION)
def test_a_fault_is_caught_by_every_call_that_needs_it(name):
    mutant = ATTENTION[name]
    for dtype in mutant.dtypes:
        for need in mutant.needs:
            status = status_of(mutant, CALLS[need], getattr(torch, dtype))
            assert status in mutant.statuses, (dtype, need, mutant.breaks)


ELSEWHERE = [
    name
    for name, mutant in ATTENTION.items()
    if all(CALLS[need].options or CALLS[need].further for need in mutant.needs)
]


@pytest.mark.parametrize(
    "name", [*ELSEWHERE, *(name for name, mutant in ATTENTION.items() if mutant.wrong == "lse")]
)
def test_a_fault_of_an_option_is_right_without_it(name):
    """So that what catches it is the option. An lse that is wrong goes with a right output."""
    found = judged(ATTENTION[name].make(), CALLS["plain"].tensors(torch.float32), {})

    assert found.passed, found.message


def test_there_are_enough_faults_and_honest_structures():
    assert len(ATTENTION) >= 200
    assert len(HONEST) >= 25


@pytest.mark.parametrize("name", BLIND)
def test_a_fault_that_the_bound_allows_passes(name):
    """Where one fails, the judge sees more than it did: it belongs to the mutants."""
    kernel, _ = BLIND[name]
    for call in (CALLS[name] for name in ("plain", "hard", "S = 1040", "normal values", "one key")):
        assert judged(kernel, call.tensors(torch.bfloat16), call.options).passed


@pytest.mark.parametrize(
    "name", ["last_key_dropped", "last_key_doubled", "scale_one_percent", "P_in_float8_e4m3fn"]
)
def test_a_small_fault_is_caught_in_bfloat16_at_4096_keys(name):
    tensors = drawn(torch.bfloat16, batch=1, heads=1, groups=1, length=4, keys=4096, size=64, probing=True)

    assert judged(ATTENTION[name].make(), tensors, {}).status == "inaccurate"
    assert judged(HONEST["online, P in the input's format"].call, tensors, {}).passed


def test_what_must_be_declared_fails_undeclared_and_passes_declared():
    kernel, tensors = ATTENTION["scores_in_bfloat16"].make(), CALLS["hard"].tensors(torch.bfloat16)

    assert judged(kernel, tensors, {}).status == "inaccurate"
    assert judged(kernel, tensors, {}, numerics=Numerics(scores="input")).passed


@pytest.mark.parametrize("hidden", [math.nan, math.inf, 3e38])
def test_a_key_that_is_not_seen_has_no_influence(hidden):
    tensors = small(torch.float32)
    right = called(shifted, tensors, {"causal": "top_left"})
    for name in "kv":
        tensors[name] = tensors[name].clone()
        tensors[name][:, :, -1] = hidden

    assert judge("attention", tensors, right, options={"causal": "top_left", "enable_gqa": True}).passed


def test_special_values_are_judged_by_position():
    tensors = small(torch.float32)
    q, v = tensors["q"].clone(), tensors["v"].clone()
    q[0, 1, 2, 3] = math.nan
    v[1, 0, 5, 4] = math.inf
    tensors |= {"q": q, "v": v}
    right = called(shifted, tensors, {})

    assert right[0, 1, 2].isnan().all()
    assert judge("attention", tensors, right, options={"enable_gqa": True}).passed
    for wrong in (right.nan_to_num(posinf=1.0), torch.where(right == math.inf, 1.0, right)):
        assert judge("attention", tensors, wrong, options={"enable_gqa": True}).status == "law_broken"


def test_a_query_that_sees_nothing_gives_exactly_0():
    tensors = small(torch.float32) | {"mask": torch.zeros(9, 70, dtype=torch.bool)}
    zeros = torch.zeros(2, 4, 9, 8)

    assert judge("attention", tensors, zeros, options={"enable_gqa": True}).passed
    assert judge("attention", tensors, zeros + 1e-30, options={"enable_gqa": True}).status == "inaccurate"
    assert judge("attention", tensors, zeros * math.nan, options={"enable_gqa": True}).status == "nonfinite"


def test_a_row_masked_by_the_smallest_number_is_not_judged():
    """finfo.min is no -inf: exact arithmetic gives softmax(s) there, and every kernel the mean of
    the values.
    """
    mask = torch.full((9, 70), torch.finfo(torch.float32).min)
    found = judged(shifted, small(torch.float32) | {"mask": mask}, {})

    assert found.status == "unjudged"


@pytest.mark.parametrize(
    ("change", "options", "fragment"),
    [
        ({"q": torch.zeros(2, 4, 9)}, {}, "four dims"),
        ({"k": torch.zeros(2, 2, 70, 15)}, {}, "do not match"),
        ({"k": torch.zeros(2, 3, 70, 16), "v": torch.zeros(2, 3, 70, 8)}, {}, "cannot share"),
        ({}, {"enable_gqa": False}, "enable_gqa"),
        ({"mask": torch.zeros(5, 70, dtype=torch.bool)}, {}, "broadcast"),
        ({"sink": torch.zeros(3)}, {}, "sink"),
        ({}, {"causal": "yes"}, "causal='yes'"),
        ({}, {"scale": math.nan}, "scale=nan"),
        ({}, {"softcap": 0.0}, "softcap"),
        ({}, {"window": (-1, 0)}, "window"),
        ({"bias": torch.zeros(1)}, {}, "mask, kv_lengths, alibi_slopes, sink"),
    ],
)
def test_misuse_is_a_value_error_that_names_what_is_wrong(change, options, fragment):
    tensors = small(torch.float32) | change
    with pytest.raises(ValueError, match=fragment.replace("(", "\\(")):
        judge("attention", tensors, torch.zeros(2, 4, 9, 8), options={"enable_gqa": True, **options})


def test_the_output_has_the_values_own_head_size_and_the_queries_dtype():
    tensors = small(torch.bfloat16)

    assert (
        judge("attention", tensors, torch.zeros(2, 4, 9, 16), options={"enable_gqa": True}).status
        == "wrong_shape"
    )
    assert (
        judge("attention", tensors, torch.zeros(2, 4, 9, 8), options={"enable_gqa": True}).status
        == "wrong_dtype"
    )


def test_block_sizes_make_no_difference_to_the_verdict():
    tensors = drawn(torch.float32, length=3, keys=257, spread=20.0)
    for block in (1, 7, 16, 64, 128, 300):
        assert judged(Attention(fold=online(block=block)), tensors, {}).passed


def test_with_the_probe_the_output_is_the_probabilities():
    """Every product and sum but those of the last column is exact: a weight times 1, and zeros."""
    tensors = CALLS["plain"].tensors(torch.float64)
    output = called(shifted, tensors, {})
    batch, head, column = 1, 3, 5
    key = int(tensors["v"][batch, head // 2, :, column].argmax())
    s = scores(shifted, Given(q=tensors["q"], k=tensors["k"], v=tensors["v"]))[batch, head]
    e = torch.exp(s - s.amax(-1, keepdim=True))

    assert torch.equal(output[batch, head, :, column], e[:, key] / e.sum(-1))
    # The column of ones: two sums of the same 70 positive terms in any order, each off by at most
    # 69 u, and a division.
    assert (output[..., -1] - 1).abs().max() <= (2 * 69 + 1) * 1.01 * 2.0**-53


def test_saved_tensors_are_judged_by_the_command(tmp_path):
    from click.testing import CliRunner

    from suite.commands.main import cli

    tensors = small(torch.float32) | {"mask": CALLS["boolean mask"].tensors(torch.float32)["mask"]}
    options = {"softcap": 3.0, "window": (40, None)}
    saved = {name: tensor.numpy() for name, tensor in tensors.items()}
    words = [
        "judge",
        "--op=attention",
        "--option=softcap=3",
        "--option=window=40,None",
        "--option=enable_gqa=True",
    ]
    exits = []
    for name, factor in (("right", 1.0), ("wrong", 1.001)):
        np.savez(tmp_path / f"{name}.npz", y=factor * called(shifted, tensors, options).numpy(), **saved)
        exits.append(CliRunner().invoke(cli, [*words, "--tensors", str(tmp_path / f"{name}.npz")]).exit_code)

    assert exits == [0, 1]


@pytest.mark.parametrize(
    "further", [{}, {"sink": torch.ones(2)}, {"mask": torch.ones(3, 0, dtype=torch.bool)}]
)
def test_no_keys_are_keys_that_nobody_sees(further):
    tensors = {
        "q": torch.randn(1, 2, 3, 4),
        "k": torch.randn(1, 2, 0, 4),
        "v": torch.randn(1, 2, 0, 5),
        **further,
    }
    o, lse = torch.zeros(1, 2, 3, 5), torch.full((1, 2, 3), 1.0 if "sink" in further else -torch.inf)

    assert judge("attention", tensors, (o, lse), options={"return_lse": True}).passed
    assert judge("attention", tensors, (o + 1e-6, lse), options={"return_lse": True}).status == "inaccurate"

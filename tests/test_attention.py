"""judge("attention", ...): the definition against sums written out, honest kernels, planted faults, special values, misuse."""

import math

import mpmath
import numpy as np
import pytest
import torch

from suite import Numerics, judge
from suite.ops import get_op
from suite.oracle import Oracle
from tests.attention_kernels import HONEST, OF_TORCH, finite_or_0, online, scores, shared, shifted

ORACLE = Oracle(remembered=200)
"""Kernels that are judged on the same tensors share their reference."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(dtype, *, batch=2, heads=4, groups=2, length=9, keys=70, size=16, width=8, spread=1.0, probe=False, seed=0):
    """q, k, v; with a probe, v has a column for each of some keys, and one of ones: the output is P itself there."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((batch, heads, length, size), (batch, groups, keys, size), (batch, groups, keys, width))
    )
    if probe:
        v = torch.zeros_like(v)
        for column, key in enumerate((0, 15, 16, 63, 64, keys - 2, keys - 1)):
            v[:, :, key, column] = 1
        v[..., -1] = 1
    return {"q": (spread * q).to(dtype), "k": k.to(dtype), "v": v.to(dtype)}


def options_of(dtype, *, batch=2, heads=4, length=9, keys=70):
    """Name -> (further tensors, options): each option of the op, and some together."""
    generator = torch.Generator().manual_seed(1)
    boolean = torch.rand(batch, 1, length, keys, generator=generator) > 0.4
    boolean[:, :, 3] = False
    additive = torch.randn(heads, length, keys, generator=generator).to(dtype)
    additive[:, 2, 5:20] = -torch.inf
    lengths = torch.tensor([keys, 17])
    slopes = torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=dtype)
    sink = torch.tensor([0.5, -2.0, 6.0, -torch.inf], dtype=dtype)
    return {
        "plain": ({}, {}),
        "causal, top left": ({}, {"causal": "top_left"}),
        "causal, bottom right": ({}, {"causal": "bottom_right"}),
        "scale": ({}, {"scale": 0.7}),
        "negative scale": ({}, {"scale": -0.3}),
        "scale 0": ({}, {"scale": 0.0}),
        "softcap": ({}, {"softcap": 2.5}),
        "window": ({}, {"window": (4, 2), "causal": "bottom_right"}),
        "window to the left": ({}, {"window": (5, None)}),
        "boolean mask": ({"mask": boolean}, {}),
        "additive mask": ({"mask": additive}, {}),
        "lengths": ({"kv_lengths": lengths}, {}),
        "ALiBi": ({"alibi_slopes": slopes}, {"causal": "bottom_right"}),
        "sink": ({"sink": sink}, {}),
        "sink and nothing seen": ({"sink": sink, "mask": boolean}, {}),
        "much": ({"mask": additive, "sink": sink, "kv_lengths": lengths}, {"softcap": 5.0, "causal": "bottom_right"}),
    }


NAMES = tuple(options_of(torch.float32))


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
        exponents = {}
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
                full = torch.broadcast_to(tensors["mask"], (q.shape[0], q.shape[1], length, keys))[batch, head, row, j]
                seen &= bool(full) if full.dtype == torch.bool else float(full) > -math.inf
                s = s if full.dtype == torch.bool or not seen else s + mpmath.mpf(float(full))
            if seen:
                exponents[j] = s
        total = sum((mpmath.exp(s) for s in exponents.values()), mpmath.mpf(0))
        if "sink" in tensors:
            total += mpmath.exp(mpmath.mpf(float(tensors["sink"][head])))
        columns = range(v.shape[-1])
        if not exponents:
            return [mpmath.mpf(0) for _ in columns]
        weighted = ((mpmath.exp(s), v[batch, group, j].tolist()) for j, s in exponents.items())
        sums = [mpmath.mpf(0) for _ in columns]
        for weight, values in weighted:
            sums = [total_ + weight * mpmath.mpf(value) for total_, value in zip(sums, values, strict=True)]
        return [value / total for value in sums]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_reference_is_the_definition_written_out(name, dtype):
    size = {"batch": 2, "heads": 4, "length": 5, "keys": 9}
    tensors = drawn(dtype, size=3, width=2, **size)
    further, options = options_of(dtype, **size)[name]
    op, every = get_op("attention"), {**tensors, **further}
    resolved = op.resolve_options({**options, "enable_gqa": True}, {n: tuple(t.shape) for n, t in every.items()})
    arrays = {n: t.numpy() if t.dtype == torch.bool else t.double().numpy() for n, t in every.items()}
    from suite.formats import get_format

    reference = Oracle().reference(op, arrays, resolved, get_format(str(dtype).removeprefix("torch.")))

    for batch, head, row in ((0, 0, 0), (1, 3, 4), (0, 2, 3), (1, 1, 2)):
        exact = written_out(every, options, batch, head, row)
        index = (batch * 4 + head) * 5 + row
        for column, value in enumerate(exact):
            with mpmath.workprec(200):
                off = abs(mpmath.mpf(float(reference.hi[index, column])) + float(reference.lo[index, column]) - value)
            assert off <= reference.radius[index, column] + 1e-300


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernel", HONEST)
def test_an_honest_kernel_passes(kernel, name):
    for dtype in DTYPES:
        for spread, probe in ((8.0, False), (2.0, True)):
            further, options = options_of(dtype)[name]
            found = judged(HONEST[kernel], {**drawn(dtype, spread=spread, probe=probe), **further}, options)
            assert found.status in ("passed", "unjudged"), found.message
            assert found.judged > 0.95


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("softcap", "ALiBi", "sink", "sink and nothing seen", "much")]
)
@pytest.mark.parametrize("kernel", OF_TORCH)
def test_torch_passes(kernel, name):
    for dtype in DTYPES:
        further, options = options_of(dtype)[name]
        found = judged(OF_TORCH[kernel], {**drawn(dtype, spread=2.0, width=16), **further}, options)
        assert found.passed, found.message


def altered(change):
    """The definition with its exponents changed."""

    def kernel(q, k, v, *, enable_gqa=False, sink=None, **options):
        s = change(scores(q, k, **options))
        e = torch.exp(s - finite_or_0(s.amax(-1, keepdim=True)))
        total = e.sum(-1, keepdim=True)
        return ((e @ shared(v, q.shape[1]).to(s.dtype)) / torch.where(total > 0, total, 1.0)).to(q.dtype)

    return kernel


def without(key):
    def change(s):
        s = s.clone()
        s[..., key] = -torch.inf
        return s

    return altered(change)


def twice(key):
    def change(s):
        s = s.clone()
        s[..., key] += math.log(2)
        return s

    return altered(change)


def stored_as(dtype):
    return lambda *a, **o: shifted(*a, stored=dtype, **o)


def other_groups(q, k, v, **options):
    """Head h reads key head h mod G."""
    heads = torch.arange(q.shape[1]) % k.shape[1]
    return shifted(q, k[:, heads], v[:, heads], **options)


def wrong_alignment(q, k, v, **options):
    swapped = {"top_left": "bottom_right", "bottom_right": "top_left"}
    return shifted(q, k, v, **{**options, "causal": swapped[options["causal"]]})


def never_rescaled(q, k, v, *, enable_gqa=False, block=16, **options):
    """The sum is rescaled where the maximum grows, the output is not."""
    s, values = scores(q, k, **options), shared(v, q.shape[1])
    maximum, total, output = s.new_full((*s.shape[:-1], 1), -1e30), 0.0, 0.0
    for tile, value in zip(s.split(block, -1), values.split(block, -2), strict=True):
        larger = torch.maximum(maximum, tile.amax(-1, keepdim=True))
        e = torch.exp(tile - larger)
        total = total * torch.exp(maximum - larger) + e.sum(-1, keepdim=True)
        output, maximum = output + e @ value.to(s.dtype), larger
    return (output / total).to(q.dtype)


FAULTS = {
    "the last key left out": (without(-1), "plain"),
    "the last key of the first tile left out": (without(63), "plain"),
    "the first key left out": (without(0), "plain"),
    "the last key twice": (twice(-1), "plain"),
    "scale 1 % wrong": (altered(lambda s: 1.01 * s), "plain"),
    "no scale": (lambda *a, **o: shifted(*a, **{**o, "scale": 1.0}), "plain"),
    "P in e4m3": (stored_as(torch.float8_e4m3fn), "plain"),
    "P in e5m2": (stored_as(torch.float8_e5m2), "plain"),
    "other heads of keys": (other_groups, "plain"),
    "the output never rescaled": (never_rescaled, "plain"),
    "causal in the other corner": (wrong_alignment, "causal, bottom right"),
    "one key into the future": (altered(lambda s: s), "causal, top left"),
    "no softcap": (lambda *a, softcap, **o: shifted(*a, **o), "softcap"),
    "half the softcap": (lambda *a, softcap, **o: shifted(*a, softcap=softcap / 2, **o), "softcap"),
    "window one wider": (lambda *a, window, **o: shifted(*a, window=(window[0] + 1, window[1]), **o), "window"),
    "window one narrower": (lambda *a, window, **o: shifted(*a, window=(window[0] - 1, window[1]), **o), "window"),
    "no slopes": (lambda *a, alibi_slopes, **o: shifted(*a, **o), "ALiBi"),
    "slopes of the next head": (lambda *a, alibi_slopes, **o: shifted(*a, alibi_slopes=alibi_slopes.roll(1), **o), "ALiBi"),
    "slopes added": (lambda *a, alibi_slopes, **o: shifted(*a, alibi_slopes=-alibi_slopes, **o), "ALiBi"),
    "no sink": (lambda *a, sink, **o: shifted(*a, **o), "sink"),
    "the sink halved": (lambda *a, sink, **o: shifted(*a, sink=sink / 2, **o), "sink"),
    "mask the other way round": (lambda *a, mask, **o: shifted(*a, mask=~mask, **o), "boolean mask"),
    "mask ignored": (lambda *a, mask, **o: shifted(*a, **o), "boolean mask"),
    "additive mask halved": (lambda *a, mask, **o: shifted(*a, mask=mask / 2, **o), "additive mask"),
    "lengths one longer": (lambda *a, kv_lengths, **o: shifted(*a, kv_lengths=kv_lengths + 1, **o), "lengths"),
    "lengths of the other batch": (lambda *a, kv_lengths, **o: shifted(*a, kv_lengths=kv_lengths.flip(0), **o), "lengths"),
    "keys ignored": (lambda q, k, v, **o: shifted(q, 0 * k, v, **o), "plain"),
    "all zeros": (lambda q, k, v, **o: 0 * shifted(q, k, v, **o), "plain"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "one key into the future"])
def test_a_fault_is_caught_with_the_probe(fault, dtype):
    kernel, name = FAULTS[fault]
    further, options = options_of(dtype)[name]
    found = judged(kernel, {**drawn(dtype, spread=2.0, probe=True), **further}, options)

    assert not found.passed
    assert found.status in ("inaccurate", "nonfinite"), found.message


@pytest.mark.parametrize("fault", ["the last key left out", "the last key twice", "scale 1 % wrong", "P in e4m3"])
def test_a_small_fault_is_caught_in_bfloat16_at_4096_keys(fault):
    kernel, _ = FAULTS[fault]
    tensors = drawn(torch.bfloat16, batch=1, heads=1, groups=1, length=4, keys=4096, size=64, probe=True)

    assert judged(kernel, tensors, {}).status == "inaccurate"
    assert judged(HONEST["online, P in the input's format"], tensors, {}).passed


def test_what_must_be_declared_fails_undeclared_and_passes_declared():
    tensors = drawn(torch.bfloat16, spread=6.0)

    def low_scores(q, k, v, *, enable_gqa=False):
        s = scores(q, k).bfloat16().float()
        return (torch.softmax(s, -1) @ shared(v, q.shape[1]).float()).to(q.dtype)

    probed = {**tensors, "v": drawn(torch.bfloat16, probe=True)["v"]}
    assert judged(low_scores, probed, {}).status == "inaccurate"
    assert judged(low_scores, probed, {}, numerics=Numerics(scores="input")).passed


@pytest.mark.parametrize("hidden", [math.nan, math.inf, 3e38])
def test_a_key_that_is_not_seen_has_no_influence(hidden):
    tensors = drawn(torch.float32)
    right = called(shifted, tensors, {"causal": "top_left"})
    for name in "kv":
        tensors[name] = tensors[name].clone()
        tensors[name][:, :, -1] = hidden

    assert judge("attention", tensors, right, options={"causal": "top_left", "enable_gqa": True}).passed


def test_special_values_are_judged_by_position():
    tensors = drawn(torch.float32)
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
    tensors = drawn(torch.float32) | {"mask": torch.zeros(9, 70, dtype=torch.bool)}
    zeros = torch.zeros(2, 4, 9, 8)

    assert judge("attention", tensors, zeros, options={"enable_gqa": True}).passed
    assert judge("attention", tensors, zeros + 1e-30, options={"enable_gqa": True}).status == "inaccurate"
    assert judge("attention", tensors, zeros * math.nan, options={"enable_gqa": True}).status == "nonfinite"


def test_a_row_masked_by_the_smallest_number_is_not_judged():
    """finfo.min is no -inf: exact arithmetic gives softmax(s) there, and every kernel the mean of the values."""
    mask = torch.full((9, 70), torch.finfo(torch.float32).min)
    found = judged(shifted, drawn(torch.float32) | {"mask": mask}, {})

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
        ({"bias": torch.zeros(1)}, {}, "mask, alibi_slopes, sink, kv_lengths"),
    ],
)
def test_misuse_is_a_value_error_that_names_what_is_wrong(change, options, fragment):
    tensors = drawn(torch.float32) | change
    with pytest.raises(ValueError, match=fragment.replace("(", "\\(")):
        judge("attention", tensors, torch.zeros(2, 4, 9, 8), options={"enable_gqa": True, **options})


def test_the_output_has_the_values_own_head_size_and_the_queries_dtype():
    tensors = drawn(torch.bfloat16)

    assert judge("attention", tensors, torch.zeros(2, 4, 9, 16), options={"enable_gqa": True}).status == "wrong_shape"
    assert judge("attention", tensors, torch.zeros(2, 4, 9, 8), options={"enable_gqa": True}).status == "wrong_dtype"


def test_block_sizes_make_no_difference_to_the_verdict():
    tensors = drawn(torch.float32, length=3, keys=257, spread=20.0)
    for block in (1, 7, 16, 64, 128, 300):
        assert judged(lambda *a, block=block, **o: online(*a, block=block, **o), tensors, {}).passed


def test_masses_of_the_probe_are_probabilities():
    tensors = drawn(torch.float64, probe=True)
    output = called(shifted, tensors, {})

    assert np.allclose(output[..., -1].numpy(), 1.0, rtol=1e-12)


def test_saved_tensors_are_judged_by_the_command(tmp_path):
    from click.testing import CliRunner

    from suite.cli import cli

    tensors = drawn(torch.float32) | {"mask": options_of(torch.float32)["boolean mask"][0]["mask"]}
    options = {"softcap": 3.0, "window": (40, None)}
    saved = {name: tensor.numpy() for name, tensor in tensors.items()}
    words = ["judge", "--op=attention", "--option=softcap=3", "--option=window=40,None", "--option=enable_gqa=True"]
    exits = []
    for name, factor in (("right", 1.0), ("wrong", 1.001)):
        np.savez(tmp_path / f"{name}.npz", y=factor * called(shifted, tensors, options).numpy(), **saved)
        exits.append(CliRunner().invoke(cli, [*words, "--tensors", str(tmp_path / f"{name}.npz")]).exit_code)

    assert exits == [0, 1]

"""attention's second output: against sums written out, honest kernels, what is wrong with it,
special values.
"""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch

from suite import Numerics, judge
from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import get_format
from suite.kernels import Kernel
from suite.ops import get_op
from suite.ops.special import Special
from suite.oracle import Oracle
from tests.attention_calls import CALLS
from tests.attention_kernels import Attention, online, shifted, whole
from tests.honest.attention import HONEST

ORACLE = Oracle(remembered=400)


def called(kernel, tensors, options):
    further = {name: tensor for name, tensor in tensors.items() if name not in "qkv"}
    return kernel(*(tensors[name] for name in "qkv"), **further, **options, enable_gqa=True, return_lse=True)


def judged(tensors, output, options, **how):
    return judge(
        "attention",
        tensors,
        output,
        options={**options, "enable_gqa": True, "return_lse": True},
        oracle=ORACLE,
        **how,
    )


def scores(tensors, options, batch, head, row):
    """The scores of what one query sees, a sink's among them, by sums in mpmath over Python numbers."""
    q, k = (tensors[name].double() for name in "qk")
    length, keys = q.shape[2], k.shape[2]
    position = row + (keys - length if options.get("causal") == "bottom_right" else 0)
    scale = options["scale"] if "scale" in options else 1 / math.sqrt(q.shape[-1])
    left, right = options.get("window") or (None, None)
    found = []
    for j in range(keys):
        seen = options.get("causal") is None or j <= position
        seen &= (left is None or j >= position - left) and (right is None or j <= position + right)
        seen &= "kv_lengths" not in tensors or j < int(tensors["kv_lengths"][batch])
        entries = zip(
            q[batch, head, row].tolist(),
            k[batch, head // (q.shape[1] // k.shape[1]), j].tolist(),
            strict=True,
        )
        s = mpmath.mpf(scale) * sum(mpmath.mpf(a) * mpmath.mpf(b) for a, b in entries)
        s = options["softcap"] * mpmath.tanh(s / options["softcap"]) if "softcap" in options else s
        if "alibi_slopes" in tensors:
            s -= mpmath.mpf(float(tensors["alibi_slopes"][head])) * abs(position - j)
        if "mask" in tensors:
            given = torch.broadcast_to(tensors["mask"], (q.shape[0], q.shape[1], length, keys))[
                batch, head, row, j
            ]
            seen &= bool(given) if given.dtype == torch.bool else float(given) > -math.inf
            s += 0 if given.dtype == torch.bool or not seen else mpmath.mpf(float(given))
        found += [s] if seen else []
    sink = float(tensors["sink"][head]) if "sink" in tensors else -math.inf
    return found + ([mpmath.mpf(sink)] if sink > -math.inf else [])


BY_OPTION = [name for name, call in CALLS.items() if not call.sizes and call.probing and name != "NaN in q"]
PLACES = ((0, 0, 0), (1, 3, 4), (0, 2, 3), (1, 1, 2))


@pytest.mark.parametrize("name", BY_OPTION)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_reference_is_the_definition_written_out(name, dtype):
    call = replace(CALLS[name], sizes={"length": 5, "keys": 9, "size": 3, "width": 2}, probing=False)
    tensors, op = call.tensors(dtype), get_op("attention")
    shapes = {n: tuple(t.shape) for n, t in tensors.items()}
    resolved = op.resolve_options({**call.options, "enable_gqa": True, "return_lse": True}, shapes)
    arrays = {n: t.numpy() if t.dtype == torch.bool else t.double().numpy() for n, t in tensors.items()}
    _, reference = Oracle().references(op, arrays, resolved, get_format(str(dtype).removeprefix("torch.")))

    assert reference.hi.shape == (2 * 4 * 5, 1)
    for batch, head, row in PLACES:
        with mpmath.workprec(200):
            seen = scores(tensors, call.options, batch, head, row)
            index = (batch * 4 + head) * 5 + row
            if not seen:
                assert reference.special[index, 0] == Special.NEGATIVE_INFINITY
                continue
            exact = mpmath.log(sum(mpmath.exp(s) for s in seen))
            got = mpmath.mpf(float(reference.hi[index, 0])) + mpmath.mpf(float(reference.lo[index, 0]))
            # The default scale is the double nearest to 1 / sqrt(E) here and there; no other number
            # was rounded.
            assert abs(got - exact) <= reference.radius[index, 0]


@pytest.mark.share(of=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "name", ["plain", "hard", "additive mask", "sink", "softcap", "ALiBi", "rising", "low scores", "S = 130"]
)
def test_honest_kernels_pass(name, dtype):
    tensors, options = CALLS[name].tensors(dtype), CALLS[name].options
    for honest in HONEST.values():
        if "return_lse" not in honest.lacks:
            numerics = Numerics(probabilities="input") if honest.sums_stored else honest.numerics
            found = judged(tensors, called(honest.call, tensors, options), options, numerics=numerics)
            assert found.passed, (honest.name, found.message)


def by_lse(change):
    """A kernel whose output is right and whose log-sum-exp is change(lse, s, given)."""
    return Attention(lse=change)


def sink_forgotten(lse, s, given):
    return lse if given.sink is None else torch.logsumexp(s, -1)


def of_all_keys(lse, s, given):
    return shifted(given.q, given.k, given.v, return_lse=True)[1]


FAULTS = {
    "in base two": (by_lse(lambda lse, s, given: lse / math.log(2)), "plain"),
    "the wrong sign": (by_lse(lambda lse, s, given: -lse), "plain"),
    "the sum, without its logarithm": (by_lse(lambda lse, s, given: torch.exp(lse)), "plain"),
    "the maximum alone": (by_lse(lambda lse, s, given: s.amax(-1)), "plain"),
    "the logarithm alone, without the maximum": (by_lse(lambda lse, s, given: lse - s.amax(-1)), "plain"),
    "the maximum in base two": (by_lse(lambda lse, s, given: lse + 0.4427 * s.amax(-1)), "plain"),
    "the logarithm in base two": (by_lse(lambda lse, s, given: lse + 0.4427 * (lse - s.amax(-1))), "plain"),
    "of scores without their scale": (by_lse(lambda lse, s, given: torch.logsumexp(s * 4, -1)), "plain"),
    "of all keys, seen or not": (by_lse(of_all_keys), "boolean mask"),
    "without the sink": (by_lse(sink_forgotten), "sink"),
    "the sink twice": (by_lse(lambda lse, s, given: torch.logaddexp(lse, given.sink[None, :,
        None].float())), "sink"),
    "those of the next head": (by_lse(lambda lse, s, given: lse.roll(1, 1)), "plain"),
    "those of the next query": (by_lse(lambda lse, s, given: lse.roll(1, 2)), "plain"),
    "rounded to bfloat16": (by_lse(lambda lse, s, given: lse.bfloat16().float()), "plain"),
    "the mean's": (by_lse(lambda lse, s, given: lse - math.log(s.shape[-1])), "plain"),
    "without the last key": (by_lse(lambda lse, s, given: torch.logsumexp(s[..., :-1], -1)), "plain"),
    "off by 1e-5 of itself": (by_lse(lambda lse, s, given: lse * (1 + 1e-5)), "plain"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_wrong_log_sum_exp_is_caught_beside_a_right_output(name, dtype):
    kernel, call = FAULTS[name]
    tensors, options = CALLS[call].tensors(dtype), CALLS[call].options
    output = called(kernel, tensors, options)
    found = judged(tensors, output, options)

    assert found.status in ("inaccurate", "nonfinite", "law_broken"), found.message
    assert found.message.startswith("attention_lse float32 ")
    assert judge(
        "attention", tensors, output[0], options={**options, "enable_gqa": True}, oracle=ORACLE
    ).passed


def test_both_outputs_are_heard_of_where_both_are_wrong():
    tensors = CALLS["plain"].tensors(torch.float32)
    o, lse = called(shifted, tensors, {})
    found = judged(tensors, (1.5 * o, -lse), {})

    assert [line.split(":")[0] for line in found.message.splitlines() if not line.startswith(" ")] == [
        "attention float32 [2, 4, 9, 16]",
        "attention_lse float32 [2, 4, 9, 16]",
    ]
    assert found.failed > 72


def test_what_is_counted_of_the_second_output_counts():
    tensors = CALLS["plain"].tensors(torch.float32)
    o, lse = called(shifted, tensors, {})
    lse[0, 0] = math.nan
    found = judged(tensors, (o, lse), {})

    assert found.failed == 9
    assert found.overflow == 9
    assert found.failed_rows == 9


def test_the_message_of_a_log_sum_exp_names_no_column_of_values():
    tensors = CALLS["plain"].tensors(torch.float32)
    o, lse = called(shifted, tensors, {})
    assert "column None" not in judged(tensors, (o, -lse), {}).message


def near_0(*, keys=2):
    """One query whose scores are -log(keys) each, so that the sum of their weights is nearly 1."""
    q, k, v = torch.ones(1, 1, 1, 1), torch.full((1, 1, keys, 1), -math.log(keys)), torch.ones(1, 1, keys, 1)
    return {"q": q, "k": k, "v": v}


@pytest.mark.parametrize("keys", [2, 64])
def test_near_0_an_absolute_error_is_judged(keys):
    """float32 rounds log(keys) by up to 2^-23 or so: no kernel gives the few 1e-8 that are left to
    any relative accuracy.
    """
    tensors = near_0(keys=keys)
    o, lse = called(shifted, tensors, {})
    u = 2.0**-24

    assert lse.abs().max() < 1e-6
    for error, passes in (
        (0.0, True),
        (2 * u * math.log(keys), True),
        (-2 * u * math.log(keys), True),
        (1e-4, False),
        (-1e-4, False),
    ):
        assert judged(tensors, (o, lse + error), {}).passed is passes, error


def test_a_kernel_whose_maximum_lags_behind_passes_near_0():
    """m = -5.3, a sink's, and log(total) = 5.3 cancel, though the largest exponent and lse are
    nearly 0: 5.3 units of error.
    """
    kernel = HONEST["online, rescaled from 8 on"].call
    for sink in torch.linspace(-5.5, -4.0, 40):
        tensors = {
            "q": torch.ones(1, 1, 1, 1),
            "k": torch.full((1, 1, 1, 1), -0.01),
            "v": torch.ones(1, 1, 1, 1),
        }
        tensors["sink"] = sink[None]
        found = judged(tensors, called(kernel, tensors, {}), {})
        assert found.passed, found.message


@pytest.mark.parametrize("level", [-3e4, -200.0, -110.0, 90.0, 3e4])
def test_scores_far_from_0(level):
    """A sum without the maximum is 0 or infinite there; one in base two is right to 3.25 units."""
    q, k, v = (
        torch.ones(1, 1, 3, 1),
        torch.full((1, 1, 20, 1), level) + torch.linspace(0, 3, 20)[:, None],
        torch.ones(1, 1, 20, 1),
    )
    tensors = {"q": q, "k": k, "v": v}
    o, lse = called(shifted, tensors, {})
    unshifted = torch.log(torch.exp(q @ k.mT).sum(-1))

    assert judged(tensors, (o, lse), {}).passed
    assert judged(tensors, called(HONEST["split in 4, lse in base 2"].call, tensors, {}), {}).passed
    assert judged(tensors, (o, unshifted), {}).status == "nonfinite"
    assert judged(tensors, (o, lse + abs(level) * 2.0**-19), {}).status == "inaccurate"


@pytest.mark.parametrize(
    "family", ["very_negative", "near_overflow", "growing_maxima", "sinks", "nearly_uniform"]
)
def test_hard_families_pass_with_an_honest_kernel_and_fail_without_the_maximum(family):
    def unshifted(s, v, sink):
        e = torch.exp(s)
        return whole(s, v, sink)[0], torch.log(e.sum(-1))

    case = Case(
        op="attention", family=family, shape=(1, 2, 7, 8), tensors={"keys": 70}, options={"return_lse": True}
    )
    kernels = (shifted, Attention(fold=online(block=16)), Attention(fold=unshifted))
    statuses = [
        evaluate(case, Kernel(id="k", op="attention", call=kernel), dtype="float32", oracle=ORACLE).status
        for kernel in kernels
    ]
    hard = family in ("very_negative", "near_overflow")
    assert statuses[:2] == ["passed", "passed"]
    assert (statuses[2] == "nonfinite") is hard


# special values


def special(**change):
    tensors = CALLS["plain"].tensors(torch.float32, probing=False) | change
    return tensors, called(shifted, tensors, {})


def test_a_query_that_sees_nothing_has_minus_infinity_or_its_sink():
    nothing = {"mask": torch.zeros(9, 70, dtype=torch.bool)}
    tensors, (o, lse) = special(**nothing)
    assert bool((lse == -math.inf).all())
    assert judged(tensors, (o, lse), {}).passed
    for wrong in (0.0, math.inf, math.nan, -1e30):
        assert judged(tensors, (o, torch.full_like(lse, wrong)), {}).status == "law_broken", wrong

    sink = torch.tensor([0.5, -2.0, 6.0, -math.inf])
    tensors, (o, lse) = special(**nothing, sink=sink)
    assert torch.equal(lse, sink[None, :, None].expand(2, 4, 9))
    assert judged(tensors, (o, lse), {}).passed
    assert judged(tensors, (o, torch.full_like(lse, -math.inf)), {}).status == "nonfinite"


def test_nan_in_a_query_or_a_visible_key_is_nan_and_nothing_else_is():
    tensors, _ = special()
    q, k = tensors["q"].clone(), tensors["k"].clone()
    q[0, 1, 2, 3] = math.nan
    k[1, 1, 69, 5] = math.nan
    tensors, (o, lse) = special(q=q, k=k)
    expected = torch.zeros(2, 4, 9, dtype=torch.bool)
    expected[0, 1, 2] = expected[1, 2:] = True

    assert torch.equal(lse.isnan(), expected)
    assert judged(tensors, (o, lse), {}).passed
    hidden = {**tensors, "kv_lengths": torch.tensor([70, 69])}
    assert judged(hidden, called(shifted, {**hidden, "k": k.nan_to_num()}, {}), {}).passed
    assert judged(tensors, (o, lse.nan_to_num()), {}).status == "law_broken"
    lse[1, 0, 0] = math.nan
    assert judged(tensors, (o, lse), {}).status == "nonfinite"


def test_values_that_are_not_finite_leave_the_log_sum_exp_alone():
    v = CALLS["plain"].tensors(torch.float32)["v"].clone()
    v[0, 0, 5] = math.inf
    tensors, (o, lse) = special(v=v)

    assert judged(tensors, (o, lse), {}).passed
    lse[0, 0, 0] = math.nan
    assert judged(tensors, (o, lse), {}).status == "nonfinite"


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_its_dtype_is_that_of_the_arithmetic(dtype, wide):
    tensors = CALLS["plain"].tensors(dtype)
    o, lse = called(shifted, tensors, {})

    assert lse.dtype == wide
    assert judged(tensors, (o, lse), {}).passed
    assert judged(tensors, (o, lse.to(torch.bfloat16)), {}).status == "wrong_dtype"


def test_a_maximum_of_rows_with_a_sink_may_be_the_sinks():
    """The sink outweighs all keys: their sum underflows beside it, and lse is the sink to the last bit."""
    tensors, (o, lse) = special(sink=torch.tensor([500.0, 400.0, 300.0, 200.0]))
    assert torch.equal(lse[0, :, 0], tensors["sink"])
    assert judged(tensors, (o, lse), {}).passed


def test_numbers_of_numpy_are_judged_as_those_of_torch():
    tensors = CALLS["plain"].tensors(torch.float32)
    o, lse = called(shifted, tensors, {})
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

    assert judged(arrays, (o.numpy(), lse.numpy()), {}).passed
    assert judged(arrays, (o.numpy(), np.negative(lse.numpy())), {}).status == "inaccurate"

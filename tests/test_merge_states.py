"""merge_states: the definition against mpmath, how much of the bound is used, parts of attention,
faults, special values.
"""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import judge
from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import get_format
from suite.inputs.states import FAMILIES, build
from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op
from suite.ops.logsumexp.definition import define as define_log_sum_exp
from suite.ops.merge_states import LOG_SUM_EXP
from suite.ops.special import Special
from suite.oracle import Oracle
from tests.attention_calls import CALLS
from tests.attention_kernels import shifted

ORACLE = Oracle(remembered=200)
MERGE = get_op("merge_states")
DTYPES = ("float64", "float32", "bfloat16", "float16")
SHAPE = (2, 3, 5, 8)
INF = math.inf


def wide(dtype):
    return "float64" if dtype == "float64" else "float32"


def merge(o_a, lse_a, o_b, lse_b, *, exponential=torch.exp):
    """In the arithmetic of lse, rounded once to the outputs' dtype."""
    m = torch.maximum(lse_a, lse_b)
    shift = torch.where(m == -INF, 0.0, m)
    w_a, w_b = exponential(lse_a - shift), exponential(lse_b - shift)
    total = w_a + w_b
    share_a, share_b = (torch.where(total == 0, 0.0, w / total)[..., None] for w in (w_a, w_b))
    o = torch.where(share_a > 0, share_a * o_a, 0.0) + torch.where(share_b > 0, share_b * o_b, 0.0)
    return o.to(o_a.dtype), m + torch.log(total)


def base_two(o_a, lse_a, o_b, lse_b):
    """As FlashInfer's merge_state: exp2 of lse log2(e), and its sum in base two."""
    c = 1.4426950408889634
    a, b = lse_a * c, lse_b * c
    m = torch.maximum(a, b)
    shift = torch.where(m == -INF, 0.0, m)
    w_a, w_b = torch.exp2(a - shift), torch.exp2(b - shift)
    total = w_a + w_b
    o = (w_a[..., None] * o_a + w_b[..., None] * o_b) / torch.where(total == 0, 1.0, total)[..., None]
    return o.to(o_a.dtype), (m + torch.log2(total)) / c


def by_sigmoid(o_a, lse_a, o_b, lse_b):
    """o_b + sigmoid(lse_a - lse_b) (o_a - o_b), as vLLM's and Ring Attention's update has it."""
    both_empty = torch.maximum(lse_a, lse_b) == -INF
    share = torch.sigmoid(torch.where(both_empty, 0.0, lse_a - lse_b))[..., None]
    o = o_b.to(share.dtype) + share * (o_a.to(share.dtype) - o_b.to(share.dtype))
    return torch.where(both_empty[..., None], 0.0, o).to(o_a.dtype), torch.logaddexp(lse_a, lse_b)


def tensors_of(family, dtype, *, seed=0, shape=SHAPE):
    arrays = build(family, shape, get_format(dtype), seed)
    kinds = {name: getattr(torch, wide(dtype) if name.startswith("lse") else dtype) for name in arrays}
    return {name: torch.from_numpy(array).to(kinds[name]) for name, array in arrays.items()}


def judged(tensors, kernel):
    return judge("merge_states", tensors, kernel(*tensors.values()), oracle=ORACLE)


# the definition


finite = st.floats(-1e3, 1e3, width=32)
logits = st.one_of(st.floats(-1e4, 1e4, width=32), st.floats(-1, 1, width=32), st.just(-INF))


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(logits, logits),
    st.lists(st.tuples(finite, finite), min_size=1, max_size=3),
    st.sampled_from(["float32", "float64"]),
)
def test_the_reference_is_the_definition_written_out(lses, values, dtype):
    inputs = {
        "o_a": np.array([[a for a, _ in values]]),
        "lse_a": np.array([lses[0]]),
        "o_b": np.array([[b for _, b in values]]),
        "lse_b": np.array([lses[1]]),
    }
    o, lse = Oracle().references(MERGE, inputs, {}, get_format(dtype))
    if max(lses) == -INF:
        assert not o.hi.any()
        assert not o.radius.any()
        assert lse.special[0, 0] == Special.NEGATIVE_INFINITY
        return
    with mpmath.workprec(400):
        w_a, w_b = (mpmath.exp(mpmath.mpf(x)) if x > -INF else mpmath.mpf(0) for x in lses)
        total = w_a + w_b
        own = mpmath.mpf(2) ** -380  # mpmath's own roundings, of numbers below 2^15
        assert distance(lse, 0, mpmath.log(total)) <= lse.radius[0, 0] + own
        for column, (a, b) in enumerate(values):
            assert (
                distance(o, column, (w_a * mpmath.mpf(a) + w_b * mpmath.mpf(b)) / total)
                <= o.radius[0, column] + own
            )


def distance(reference, column, exact):
    return abs(
        mpmath.mpf(float(reference.hi[0, column])) + mpmath.mpf(float(reference.lo[0, column])) - exact
    )


def test_the_order_of_the_states_makes_no_difference_to_the_reference():
    for family in FAMILIES:
        arrays = build(family, SHAPE, get_format("float32"), 0)
        swapped = {name: arrays[f"{name[:-1]}{'b' if name[-1] == 'a' else 'a'}"] for name in arrays}
        here, there = (Oracle().references(MERGE, x, {}, get_format("float64")) for x in (arrays, swapped))
        for a, b in zip(here, there, strict=True):
            assert np.array_equal(a.special, b.special)
            assert np.array_equal(a.hi, b.hi)


# honest kernels and the bound

OTHERS = {
    "alike": (base_two, by_sigmoid),
    "equal": (base_two, by_sigmoid),
    "large": (base_two, by_sigmoid),
    "opposite": (base_two, by_sigmoid),
    "far_apart": (base_two,),
}
"""Family -> forms that need both states to be there, and o_a + o_b to be a number."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_kernels_pass(family, dtype):
    for seed in range(3):
        tensors = tensors_of(family, dtype, seed=seed)
        for kernel in (merge, *OTHERS.get(family, ())):
            found = judged(tensors, kernel)
            assert found.passed, (kernel.__name__, found.message)


def test_a_difference_of_outputs_leaves_a_trace_of_a_state_that_weighs_nothing():
    """o_b + (o_a - o_b) is off by a unit of o_b, however little that weighs: the bound does not
    allow it where o_a is small.
    """
    assert judged(tensors_of("far_apart", "float32"), by_sigmoid).status == "inaccurate"


def adversary(factor):
    """Every step off by `factor` of what the bound counts, all of them against o_a: shares, their
    products, the sum.
    """

    def kernel(o_a, lse_a, o_b, lse_b):
        u = factor * 2.0**-24
        o_a, lse_a, o_b, lse_b = (tensor.double() for tensor in (o_a, lse_a, o_b, lse_b))
        gap, level = lse_a - lse_b, torch.maximum(lse_a, lse_b)
        w_b = torch.exp(-gap) * (1 + u * (2.25 * gap + 6 + 2 * level.abs()))
        share_a, share_b = (1 - 2 * u) / (1 + w_b), w_b * (1 + 2 * u) / (1 + w_b)
        o = share_a[..., None] * o_a * (1 - u) + share_b[..., None] * o_b * (1 + u)
        return ((1 - u) * o).float(), torch.logaddexp(lse_a, lse_b).float()

    return kernel


@pytest.mark.parametrize("level", [0.0, 90.0])
@pytest.mark.parametrize("gap", [0.25, 1.0, 4.0, 8.0])
def test_an_adversarial_kernel_uses_most_of_the_bound_and_cannot_pass_with_twice_its_errors(gap, level):
    """Opposite outputs, where errors of weights count most: a bound that is far too wide would show
    as a small ratio.
    """
    o, lse = torch.ones(1, 1, 64, 8), level + torch.linspace(0, 0.1, 64)[None, None]
    tensors = {"o_a": o, "lse_a": lse, "o_b": -o, "lse_b": lse - gap}

    assert judged(tensors, merge).ratio < 0.5
    found = judged(tensors, adversary(1))
    assert found.passed, found.message
    assert found.ratio > 0.5
    assert judged(tensors, adversary(2.5)).status == "inaccurate"


def test_the_bound_grows_with_the_gap_and_the_level_and_not_with_the_common_value():
    def allowed(gap, *, level=0.0, a=1.0, b=-1.0):
        x, value = np.array([[level, level - gap]]), np.array([[[a], [b]]])
        arrays = {"o_a": value[:, 0], "lse_a": x[:, 0], "o_b": value[:, 1], "lse_b": x[:, 1]}
        facts = MERGE.facts(MERGE.problem(arrays, {}))
        return float(MERGE.bound(facts, BEST_PRACTICE, get_format("float32")).absolute[0, 0])

    assert allowed(1.0) < allowed(1.0, level=100.0) < allowed(1.0, level=1000.0)
    assert allowed(1.0, a=1.0, b=1.0) < allowed(1.0)
    assert allowed(1.0, level=1000.0, a=1.0, b=1.0) == pytest.approx(allowed(1.0, a=1.0, b=1.0), rel=1e-3)
    assert allowed(200.0) < 20 * 2.0**-24, "a state that weighs nothing adds no error"
    assert math.isinf(allowed(1.0, level=3e7)), (
        "nothing is known of weights whose exponents are off by more than 1/2"
    )


# parts of one attention


@pytest.mark.parametrize(
    "name", ["plain", "hard", "additive mask", "boolean mask", "rising", "low scores", "S = 130"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_parts_of_an_attention_merge_to_the_whole(name, dtype):
    """The error of a part's o and lse stays inside attention's bound, as its own kernels of split
    keys have it.
    """
    call = CALLS[name]
    tensors = call.tensors(dtype, probing=False)
    cut = tensors["k"].shape[2] // 3
    states = []
    for some in (slice(cut), slice(cut, None)):
        part = {n: t[:, :, some] if n in "kv" else t for n, t in tensors.items()}
        if "mask" in part:
            part["mask"] = part["mask"][..., some]
        further = {n: t for n, t in part.items() if n not in "qkv"}
        options = {**call.options, "enable_gqa": True, "return_lse": True}
        states.extend(shifted(part["q"], part["k"], part["v"], **further, **options))
        assert judge("attention", part, tuple(states[-2:]), options=options, oracle=ORACLE).passed
    merged = merge(*states)

    options = {**call.options, "enable_gqa": True, "return_lse": True}
    found = judge("attention", tensors, merged, options=options, oracle=ORACLE)
    assert found.passed, found.message
    whole = shifted(
        *(tensors[n] for n in "qkv"), **{n: t for n, t in tensors.items() if n not in "qkv"}, **options
    )
    assert torch.allclose(
        merged[0], whole[0], rtol=0, atol=100 * torch.finfo(dtype).eps * float(tensors["v"].abs().max())
    )
    assert not judge("attention", tensors, (merged[0], states[1]), options=options, oracle=ORACLE).passed


# faults


def faulty(change_o=None, change_lse=None, **how):
    """A right merge with one thing changed: (states, right) -> wrong."""

    def kernel(o_a, lse_a, o_b, lse_b):
        states = (o_a, lse_a, o_b, lse_b)
        o, lse = merge(*states)
        o = change_o(*states) if change_o else o
        return o.to(o_a.dtype), change_lse(*states) if change_lse else lse

    return kernel


def shares(lse_a, lse_b):
    share = torch.sigmoid(lse_a - lse_b)[..., None]
    return share, 1 - share


FAULTS = {
    "the mean of both": ("alike", faulty(lambda o_a, lse_a, o_b, lse_b: (o_a + o_b) / 2)),
    "the sum of both": ("alike", faulty(lambda o_a, lse_a, o_b, lse_b: o_a + o_b)),
    "the states swapped": ("alike", faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_b, lse_a, o_a, lse_b)[0])),
    "weights in base two": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_a, lse_a, o_b, lse_b, exponential=torch.exp2)[0]),
    ),
    "lse taken for base two": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_a, lse_a * math.log(2), o_b, lse_b * math.log(2))[0]),
    ),
    "weights that are lse itself": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_a, lse_a.log(), o_b, lse_b.log())[0]),
    ),
    "not divided": (
        "alike",
        faulty(
            lambda o_a, lse_a, o_b, lse_b: (
                merge(o_a, lse_a, o_b, lse_b)[0]
                * torch.exp(torch.logaddexp(lse_a, lse_b) - torch.maximum(lse_a, lse_b))[..., None]
            )
        ),
    ),
    "the heavier alone": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: torch.where((lse_a > lse_b)[..., None], o_a, o_b)),
    ),
    "the weights of the next row": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_a, lse_a.roll(1, 2), o_b, lse_b)[0]),
    ),
    "the weights of the first head": (
        "alike",
        faulty(lambda o_a, lse_a, o_b, lse_b: merge(o_a, lse_a[:, :1].expand_as(lse_a), o_b, lse_b)[0]),
    ),
    "weights of 16 bits": (
        "alike",
        faulty(
            lambda o_a, lse_a, o_b, lse_b: sum(
                share.bfloat16().to(o.dtype) * o
                for share, o in zip(shares(lse_a, lse_b), (o_a, o_b), strict=True)
            )
        ),
    ),
    "without the maximum": (
        "large",
        faulty(
            lambda o_a, lse_a, o_b, lse_b: (
                (lse_a.exp()[..., None] * o_a + lse_b.exp()[..., None] * o_b)
                / (lse_a.exp() + lse_b.exp())[..., None]
            )
        ),
    ),
    "shifted by the first": (
        "far_apart",
        faulty(
            lambda o_a, lse_a, o_b, lse_b: (
                (o_a + torch.exp(lse_b - lse_a)[..., None] * o_b) / (1 + torch.exp(lse_b - lse_a))[..., None]
            )
        ),
    ),
    "lse: of the first": ("alike", faulty(None, lambda o_a, lse_a, o_b, lse_b: lse_a)),
    "lse: the larger": ("alike", faulty(None, lambda o_a, lse_a, o_b, lse_b: torch.maximum(lse_a, lse_b))),
    "lse: the sum": ("alike", faulty(None, lambda o_a, lse_a, o_b, lse_b: lse_a + lse_b)),
    "lse: in base two": (
        "alike",
        faulty(None, lambda o_a, lse_a, o_b, lse_b: torch.logaddexp2(lse_a, lse_b)),
    ),
    "lse: without the maximum": (
        "large",
        faulty(None, lambda o_a, lse_a, o_b, lse_b: torch.log(lse_a.exp() + lse_b.exp())),
    ),
    "lse: of a mean": (
        "equal",
        faulty(None, lambda o_a, lse_a, o_b, lse_b: torch.logaddexp(lse_a, lse_b) - math.log(2)),
    ),
    "lse: in 16 bits": (
        "alike",
        faulty(None, lambda o_a, lse_a, o_b, lse_b: torch.logaddexp(lse_a, lse_b).bfloat16().float()),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name):
    family, kernel = FAULTS[name]
    found = judged(tensors_of(family, "float32"), kernel)

    assert found.status in ("inaccurate", "nonfinite"), found.message
    assert found.message.startswith("merge_states_lse " if name.startswith("lse:") else "merge_states ")
    assert "lse_a = " in found.message


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_outputs_of_16_bits_are_merged_in_float32(dtype):
    """Outputs that cancel: in their own format the products are rounded before they are added."""
    tensors = tensors_of("opposite", dtype)
    narrow = faulty(
        lambda o_a, lse_a, o_b, lse_b: sum(
            (share.to(o.dtype) * o) for share, o in zip(shares(lse_a, lse_b), (o_a, o_b), strict=True)
        )
    )
    assert judged(tensors, merge).passed
    assert judged(tensors, narrow).status == "inaccurate"


# special values


def states(o_a, lse_a, o_b, lse_b):
    o_a, o_b = (torch.tensor([[o, 1.0]]) for o in (o_a, o_b))
    return {"o_a": o_a, "lse_a": torch.tensor([lse_a]), "o_b": o_b, "lse_b": torch.tensor([lse_b])}


NAN = math.nan
SPECIAL = {
    "an empty state": (states(5.0, 0.5, 7.0, -INF), 5.0, 0.5),
    "an empty state that holds a huge number": (states(3e38, -INF, 7.0, 0.5), 7.0, 0.5),
    "an empty state that holds NaN": (states(5.0, 0.5, NAN, -INF), 5.0, 0.5),
    "an empty state that holds an infinity": (states(INF, -INF, 7.0, 0.5), 7.0, 0.5),
    "both empty": (states(5.0, -INF, 7.0, -INF), 0.0, -INF),
    "both empty, of NaN": (states(NAN, -INF, NAN, -INF), 0.0, -INF),
    "NaN in a log-sum-exp": (states(5.0, NAN, 7.0, 0.5), NAN, NAN),
    "NaN in a log-sum-exp beside an empty state": (
        states(5.0, NAN, 7.0, -INF),
        NAN,
        NAN,
    ),
    "an infinite log-sum-exp": (states(5.0, INF, 7.0, 0.5), NAN, INF),
    "NaN in an output": (states(NAN, 0.5, 7.0, 0.5), NAN, 0.5 + math.log(2)),
    "an infinity in an output": (states(-INF, 0.5, 7.0, 0.5), -INF, 0.5 + math.log(2)),
    "opposite infinities": (states(-INF, 0.5, INF, 0.5), NAN, 0.5 + math.log(2)),
}
"""Two states whose second entries are 1, and what is right: the first entry of o, and lse."""


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_are_judged_by_position(name):
    tensors, o, lse = SPECIAL[name]
    one = 0.0 if lse == -INF else NAN if lse != lse or lse == INF else 1.0
    right = torch.tensor([[o, one]]), torch.tensor([lse])

    assert judge("merge_states", tensors, right).passed
    for wrong in {5.0, 7.0, 0.0, NAN, INF, -INF} - {o}:
        if not (math.isnan(wrong) and math.isnan(o)) and not (o == -INF and math.isnan(wrong)):
            assert not judge("merge_states", tensors, (torch.tensor([[wrong, one]]), right[1])).passed, wrong
    for wrong in {5.0, NAN, INF, -INF} - {lse}:
        if not (math.isnan(wrong) and (math.isnan(lse) or lse == INF)):
            assert not judge("merge_states", tensors, (right[0], torch.tensor([wrong]))).passed, wrong


def test_a_naive_merge_of_empty_states_gives_nan_and_is_caught():
    def naive(o_a, lse_a, o_b, lse_b):
        m = torch.maximum(lse_a, lse_b)
        w_a, w_b = torch.exp(lse_a - m)[..., None], torch.exp(lse_b - m)[..., None]
        return (w_a * o_a + w_b * o_b) / (w_a + w_b), m + torch.log(
            torch.exp(lse_a - m) + torch.exp(lse_b - m)
        )

    assert judged(tensors_of("alike", "float32"), naive).passed
    assert judged(tensors_of("one_empty", "float32"), naive).passed
    assert judged(tensors_of("both_empty", "float32"), naive).status == "nonfinite"


def test_outputs_near_the_largest_number_are_weighed_before_they_are_added():
    def summed_first(o_a, lse_a, o_b, lse_b):
        return (
            (lse_a.exp()[..., None] * o_a + lse_b.exp()[..., None] * o_b)
            / (lse_a.exp() + lse_b.exp())[..., None]
        ), torch.logaddexp(lse_a, lse_b)

    assert judged(tensors_of("huge", "float32"), summed_first).status == "nonfinite"


# the op


@pytest.mark.parametrize(
    ("name", "shape"), [("lse_a", (2, 3)), ("lse_b", (2, 3, 5, 8)), ("o_b", (2, 3, 5, 7)), ("o_b", (3, 5, 8))]
)
def test_shapes_that_do_not_match_are_refused_by_name(name, shape):
    tensors = tensors_of("alike", "float32") | {name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf"^{name} has shape \[{', '.join(map(str, shape))}\]; expected \["):
        judge("merge_states", tensors, merge(*tensors_of("alike", "float32").values()))


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda o, lse: o, "wrong_type", "expected a tuple of 2 tensors: merge_states, merge_states_lse"),
        (lambda o, lse: (o, lse, lse), "wrong_type", "expected a tuple of 2 tensors"),
        (
            lambda o, lse: (o, lse[..., None]),
            "wrong_shape",
            "merge_states_lse: returned shape [2, 3, 5, 1]; expected [2, 3, 5]",
        ),
        (lambda o, lse: (o.float(), lse), "wrong_dtype", "merge_states: returned float32; expected bfloat16"),
        (
            lambda o, lse: (o, lse.bfloat16()),
            "wrong_dtype",
            "merge_states_lse: returned bfloat16; expected float32",
        ),
        (
            lambda o, lse: (lse, o),
            "wrong_shape",
            "merge_states: returned shape [2, 3, 5]; expected [2, 3, 5, 8]",
        ),
        (
            lambda o, lse: (o, None),
            "wrong_type",
            "merge_states_lse: returned a NoneType (None); expected one tensor",
        ),
    ],
)
def test_an_output_of_another_kind_says_which(change, status, words):
    def kernel(o_a, lse_a, o_b, lse_b):
        return change(*merge(o_a, lse_a, o_b, lse_b))

    record = evaluate(
        case_of("alike"), Kernel(id="k", op="merge_states", call=kernel), dtype="bfloat16", oracle=ORACLE
    )
    assert record.status == status
    assert words in record.message


def case_of(family, **settings):
    return Case(op="merge_states", family=family, shape=SHAPE, **settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cases_are_judged_like_their_tensors(family, dtype):
    """evaluate() gives the kernel the same tensors, lse in the format that kernels keep it in."""
    given_to_kernel = []

    def kernel(*tensors):
        given_to_kernel.extend(tensor.clone() for tensor in tensors)
        return merge(*tensors)

    record = evaluate(
        case_of(family), Kernel(id="k", op="merge_states", call=kernel), dtype=dtype, oracle=ORACLE
    )
    assert record.status == "passed", record.message
    for got, expected in zip(given_to_kernel, tensors_of(family, dtype).values(), strict=False):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize("family", ["alike", "both_empty"])
def test_the_laws_of_every_op_hold(family):
    laws = ("repeat", "written", "canaries")
    record = evaluate(
        case_of(family, laws=laws), Kernel(id="k", op="merge_states", call=merge), oracle=ORACLE
    )
    assert record.status == "passed", record.message
    assert set(record.bitwise) == set(laws)


def test_an_index_is_that_of_the_tensor():
    tensors = tensors_of("alike", "float32")
    o, lse = merge(*tensors.values())
    o[1, 2, 3, 4] += 1
    assert judge("merge_states", tensors, (o, lse)).worst.index == (1, 2, 3, 4)
    o[1, 2, 3, 4] -= 1
    lse[1, 0, 4] += 1
    assert judge("merge_states", tensors, (o, lse)).worst.index == (1, 0, 4)


def test_the_second_output_is_the_log_sum_exp_of_two_logits():
    from suite.ops.arithmetic import Float64
    from suite.ops.rows import Rows

    arrays = build("far_apart", SHAPE, get_format("float64"), 3)
    problem = LOG_SUM_EXP.problem(arrays, {})
    assert np.array_equal(
        LOG_SUM_EXP.define(Float64(), problem), define_log_sum_exp(Float64(), Rows(problem.x))
    )
    expected = np.logaddexp(arrays["lse_a"], arrays["lse_b"]).reshape(-1, 1)
    # Two forms of one sum in float64: each is off by a few units of its largest term.
    assert np.allclose(LOG_SUM_EXP.define(Float64(), problem), expected, rtol=1e-14, atol=1e-14)

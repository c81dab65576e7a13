"""Each law of attention alone: a kernel that breaks it and no other, and correct kernels that keep
all of them.
"""

import math

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.formats import get_format
from suite.kernels import Kernel
from suite.laws import ATTENTION, Trial, get_law
from suite.oracle import Oracle
from tests.attention_kernels import Attention, online, shifted
from tests.honest.attention import HONEST

ORACLE = Oracle(remembered=400)
SHAPE = (2, 4, 12, 8)


def case_of(*laws, options=None, tensors=None, shape=SHAPE, family="normal", seed=0):
    return Case(
        op="attention",
        family=family,
        shape=shape,
        options=options or {},
        tensors=tensors or {},
        laws=laws,
        seed=seed,
    )


def run(function, *laws, dtype="float32", **settings):
    kernel = function if isinstance(function, Kernel) else Kernel(id="k", op="attention", call=function)
    return evaluate(case_of(*laws, **settings), kernel, dtype=dtype, oracle=ORACLE)


def tampered(when, change):
    """A correct kernel whose output is changed for some calls: when(q, k, given) and change(output)."""

    def kernel(q, k, v, **given):
        output = shifted(q, k, v, **given)
        return change(output) if when(q, k, given) else output

    return kernel


def many_keys_and_lse(k, given):
    return given.get("return_lse") and k.shape[2] > 8


def half_more(output):
    return 1.5 * output


def base_two(output):
    return output[0], output[1] / math.log(2)


def right_with_lse(kernel):
    """The kernel, and a correct one where return_lse is asked for."""
    return lambda q, k, v, **given: (shifted if given.get("return_lse") else kernel)(q, k, v, **given)


def hash_of(*tensors):
    return b"|".join(tensor.numpy().tobytes() for tensor in tensors)


def leaks_behind_kv_lengths(q, k, v, **given):
    """A hidden score is -10, not -inf, where lengths hide it."""
    if "kv_lengths" not in given:
        return shifted(q, k, v, **given)
    lengths = given.pop("kv_lengths")
    hidden = torch.arange(k.shape[2]) >= lengths[:, None, None, None]
    return shifted(q, torch.where(hidden.mT, 0.0, k), v, mask=torch.where(hidden, -10.0, 0.0), **given)


@right_with_lse
def spreads_nan(q, k, v, **given):
    return shifted(q, k, v, **given) + 0 * q.sum()


def square_mask_transposed(q, k, v, **given):
    mask = given.get("mask")
    if mask is not None and mask.ndim == 4 and mask.shape[2] == mask.shape[3]:
        given["mask"] = mask.mT
    return shifted(q, k, v, **given)


def changed_argument(name, change):
    def kernel(q, k, v, **given):
        if given.get(name) is not None:
            given[name] = change(given[name])
        return shifted(q, k, v, **given)

    return kernel


def replays_what_it_did_for_the_opposite_queries():
    seen = {}

    def kernel(q, k, v, **given):
        key = (hash_of(q.abs(), k, v), k.shape, sorted(given))
        return seen.setdefault(str(key), shifted(q, k, v, **given)).clone()

    return right_with_lse(kernel)


def keeps_the_first_keys():
    """A cache of keys that is not refreshed while queries and shapes stay."""
    seen = {}

    def kernel(q, k, v, **given):
        return shifted(q, seen.setdefault((hash_of(q), k.shape, str(sorted(given))), k.clone()), v, **given)

    return right_with_lse(kernel)


def replays_for_the_same_sum_of_queries():
    seen = {}

    def kernel(q, k, v, **given):
        key = (round(float(q.double().sum()), 6), hash_of(k, v), k.shape, q.shape, str(given))
        return seen.setdefault(key, shifted(q, k, v, **given)).clone()

    return right_with_lse(kernel)


def exponentials_end_at_1024(q, k, v, **given):
    """No maximum is subtracted, and a narrow format saturates."""
    if set(given) - {"mask"} or (given.get("mask") is not None and given["mask"].dtype == torch.bool):
        return shifted(q, k, v, **given)
    e = torch.exp(q @ k.mT / math.sqrt(q.shape[-1]) + given.get("mask", 0.0)).clamp(max=1024)
    return e @ v / e.sum(-1, keepdim=True)


@right_with_lse
def values_divided_by_their_spread(q, k, v, **given):
    """Exact elsewhere; 0 / 0 where the values of a column are equal."""
    low = v.double().amin(-2, keepdim=True)
    spread = v.double().amax(-2, keepdim=True) - low
    if k.shape[1] != q.shape[1] or set(given) - {"enable_gqa"}:
        return shifted(q, k, v, **given)
    return (shifted(q.double(), k.double(), (v - low) / spread) * spread + low).to(v.dtype)


CAUSAL = {"options": {"causal": "top_left"}}
SHARED = {"tensors": {"key_heads": 2}}

FAULTS = {
    "alone": ("a batch of one", lambda: tampered(lambda q, k, _: len(q) == 1, half_more), {}),
    "causal_prefix": ("9 keys", lambda: tampered(lambda q, k, _: k.shape[2] == q.shape[2] == 9, half_more),
        CAUSAL),
    "equal_values": ("values of no spread", lambda: values_divided_by_their_spread, {}),
    "hidden_keys": ("keys behind kv_lengths leak", lambda: leaks_behind_kv_lengths, {}),
    "hostile_neighbours": ("NaN spreads", lambda: spreads_nan, {}),
    "masked": ("a square mask is transposed", lambda: square_mask_transposed, CAUSAL),
    "neutral": ("a sink at -inf is 0",
        lambda: changed_argument("sink", lambda sink: sink.nan_to_num(neginf=0.0)), {}),
    "other_inputs": ("replayed for -q", replays_what_it_did_for_the_opposite_queries, {}),
    "parts": ("lse of few keys",
        lambda: tampered(lambda q, k, g: g.get("return_lse") and k.shape[2] < 8, base_two), {}),
    "prefix": ("9 queries", lambda: tampered(lambda q, k, _: q.shape[2] % 4 > 0, half_more), {}),
    "repeated_heads": ("no shared heads", lambda: tampered(lambda q, k, _: q.shape[1] == k.shape[1],
        half_more), SHARED),
    "reversed_keys": ("the first keys are kept", keeps_the_first_keys, {}),
    "reversed_queries": ("replayed for the same sum", replays_for_the_same_sum_of_queries, {}),
    "shifted_scores": ("no maximum is subtracted", lambda: exponentials_end_at_1024, {}),
    "wide_softcap": ("softcap of 100",
        lambda: changed_argument("softcap", lambda softcap: min(softcap, 100.0)), {}),
    "with_log_sum_exp": ("lse of many keys", lambda: tampered(lambda q, k, g: many_keys_and_lse(k, g),
        base_two), {}),
}  # fmt: skip
"""Law -> what is wrong, the kernel made anew, and the case that shows it."""


def test_every_law_has_a_fault():
    assert set(FAULTS) == set(ATTENTION)


@pytest.mark.parametrize("law", ATTENTION)
def test_a_law_catches_its_fault_and_no_other_law_does(law):
    _, make, settings = FAULTS[law]

    assert run(make(), **settings).status == "passed"
    broken = run(make(), law, **settings)
    assert broken.status == "law_broken", broken.message
    assert f"law       {law}:" in broken.message
    kept = run(make(), *(other for other in ATTENTION if other != law), **settings)
    assert kept.status == "passed", kept.message


NEUTRAL = {
    "the default scale given": changed_argument("scale", lambda scale: 1.01 * scale),
    "a window over everything": changed_argument("window", lambda window: (window[0] % 10, window[1])),
    "a mask that shows everything": tampered(
        lambda q, k, g: g.get("mask") is not None and g["mask"].ndim == 2, half_more
    ),
    "a mask that adds nothing": changed_argument(
        "mask", lambda mask: mask if mask.dtype == torch.bool else mask == 0.5
    ),
    "slopes of 0": changed_argument("alibi_slopes", lambda slopes: slopes + 0.1),
    "a sink at -inf": changed_argument("sink", lambda sink: sink.nan_to_num(neginf=0.0)),
    "all keys counted": changed_argument("kv_lengths", lambda lengths: lengths - 1),
}


@pytest.mark.parametrize("what", NEUTRAL)
def test_neutral_tries_every_option_at_its_limit(what):
    broken = run(NEUTRAL[what], "neutral")

    assert broken.status == "law_broken", broken.message
    assert f"law       neutral: {what}: " in broken.message


@pytest.mark.parametrize(
    ("what", "kernel"),
    [
        (
            "one boolean mask instead",
            changed_argument("mask", lambda mask: ~mask if mask.dtype == torch.bool else mask),
        ),
        (
            "one additive mask of -inf instead",
            changed_argument("mask", lambda mask: mask if mask.dtype == torch.bool else mask.clamp(min=-3)),
        ),
    ],
)
def test_masked_tries_a_mask_of_either_kind(what, kernel):
    assert f"law       masked: {what}: " in run(kernel, "masked", **CAUSAL).message


@pytest.mark.parametrize("when", ["the first half of the keys", "the second half"])
def test_parts_tries_both_halves(when):
    second = when == "the second half"
    halves = []

    def kernel(q, k, v, **given):
        output = shifted(q, k, v, **given)
        if given.get("return_lse"):
            halves.append(k)
            return base_two(output) if (len(halves) == 2) == second else output
        return output

    assert f"law       parts: {when}: " in run(kernel, "parts").message


@pytest.mark.parametrize("entry", [0, 1])
def test_alone_tries_the_first_and_the_last_entry(entry):
    first = get_first_query(entry)
    kernel = tampered(lambda q, k, _: len(q) == 1 and float(q[0, 0, 0, 0]) == first, half_more)

    assert f"law       alone: batch entry {entry} alone: " in run(kernel, "alone").message


def get_first_query(batch):
    return float(case_of().inputs(get_format("float32"))["q"][batch, 0, 0, 0])


SETTINGS = {
    "plain": {},
    "one of everything": {"shape": (1, 1, 1, 1)},
    "lse": {"options": {"return_lse": True}},
    "causal": {"options": {"causal": "top_left"}},
    "bottom right": {"options": {"causal": "bottom_right"}, "tensors": {"keys": 21}},
    "window, lse": {"options": {"window": (3, 1), "return_lse": True}},
    "shared heads, another value size": {"tensors": {"key_heads": 1, "value_size": 5}},
    "softcap, scale": {"options": {"softcap": 2.0, "scale": -0.7}},
    "boolean mask, lse": {
        "tensors": {"mask": "random_with_empty_rows", "keys": 19},
        "options": {"return_lse": True},
    },
    "padding": {"tensors": {"mask": "padding"}},
    "additive mask": {"tensors": {"mask": "additive_infinite"}},
    "all masked": {"tensors": {"mask": "all_masked"}, "options": {"return_lse": True}},
    "ALiBi": {"tensors": {"alibi_slopes": "geometric"}},
    "ALiBi, causal": {"tensors": {"alibi_slopes": "zero_and_steep"}, "options": {"causal": "bottom_right"}},
    "sink, lse": {"tensors": {"sink": "mixed"}, "options": {"return_lse": True}},
    "kv_lengths": {"tensors": {"kv_lengths": "ragged"}, "options": {"causal": "top_left"}},
    "values that are huge": {"family": "value_huge"},
    "scores near overflow": {"family": "near_overflow"},
    "lse far from 0": {"family": "very_negative", "options": {"return_lse": True}},
    "all": {
        "tensors": {
            "mask": "random",
            "alibi_slopes": "geometric",
            "sink": "normal",
            "kv_lengths": "ragged",
            "key_heads": 2,
        },
        "options": {
            "causal": "top_left",
            "window": (6, None),
            "softcap": 3.0,
            "scale": 0.5,
            "return_lse": True,
        },
    },
}


@pytest.mark.share(of=4)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_correct_kernels_keep_every_law(settings, dtype):
    for kernel in (shifted, Attention(fold=online(block=8))):
        record = run(kernel, *ATTENTION, "repeat", "written", "canaries", dtype=dtype, **settings)
        assert record.status == "passed", record.message


@pytest.mark.parametrize("family", ["nan_key", "nan_queries"])
def test_a_hidden_score_of_nan_is_not_asked_to_vanish_under_an_additive_mask(family):
    settings = {
        "family": family,
        "shape": (2, 4, 2, 3),
        "tensors": {"keys": 1},
        "options": {"causal": "bottom_right"},
    }
    assert run(shifted, **settings).status == "passed"
    record = run(shifted, "masked", **settings)
    assert record.status == "passed", record.message


def test_halves_that_see_only_the_lowest_number_are_not_judged():
    settings = {"family": "ends", "shape": (3, 4, 5, 8), "tensors": {"keys": 7, "mask": "lowest"}, "seed": 9}
    kernel = HONEST["online, rescaled from 8 on, folded"].call
    assert run(kernel, dtype="bfloat16", **settings).status == "passed"
    record = run(kernel, "parts", dtype="bfloat16", **settings)
    assert record.status == "passed", record.message


def bare_trial(**settings):
    """A trial that no kernel answers: for what a law says before its first call."""
    case = case_of(**settings)
    inputs, options = case.inputs(get_format("float32")), case.resolved_options()
    return Trial(
        inputs=inputs,
        options=options,
        output=np.zeros(case.shape),
        dim=2,
        keeps_length=False,
        targeted=False,
        format=get_format("float32"),
        judge_output=lambda inputs, options, output: pytest.fail("nothing is to be judged"),
        unsupported=lambda inputs, options: None,
    )


@pytest.mark.parametrize(
    ("law", "settings"),
    [
        *(
            ("reversed_keys", {"options": options})
            for options in ({"causal": "top_left"}, {"window": (2, 2)})
        ),
        *(
            ("reversed_keys", {"tensors": tensors})
            for tensors in ({"alibi_slopes": "geometric"}, {"kv_lengths": "ragged"})
        ),
        ("reversed_queries", {"options": {"causal": "bottom_right"}}),
        ("reversed_queries", {"tensors": {"alibi_slopes": "geometric"}}),
        ("prefix", {"options": {"causal": "bottom_right"}}),
        ("prefix", {"shape": (2, 4, 1, 8)}),
        ("causal_prefix", {}),
        ("causal_prefix", {"options": {"causal": "bottom_right"}}),
        ("causal_prefix", {"options": {"causal": "top_left"}, "tensors": {"mask": "random"}}),
        ("causal_prefix", {"options": {"causal": "top_left"}, "tensors": {"keys": 9}}),
        ("masked", {"tensors": {"mask": "additive"}}),
        ("repeated_heads", {}),
        ("hidden_keys", {"options": {"causal": "bottom_right"}}),
        ("shifted_scores", {"tensors": {"sink": "normal"}}),
        ("shifted_scores", {"tensors": {"mask": "additive"}}),
        ("parts", {"tensors": {"keys": 1}}),
        ("parts", {"tensors": {"sink": "normal"}}),
        ("parts", {"options": {"causal": "top_left"}}),
        ("alone", {"shape": (1, 4, 12, 8)}),
    ],
)
def test_a_law_asks_nothing_where_it_means_nothing(law, settings):
    with pytest.raises(StopIteration) as end:
        next(get_law(law)(bare_trial(**settings)))

    assert end.value.value.held
    assert end.value.value.note
    assert end.value.value.bitwise is None


@pytest.mark.parametrize(
    "law", ["masked", "neutral", "repeated_heads", "shifted_scores", "wide_softcap", "with_log_sum_exp"]
)
def test_a_law_asks_for_no_call_that_the_kernel_cannot_take(law):
    """A kernel of q, k and v alone; shared heads are its only option."""
    calls = []

    def kernel(q, k, v, *, enable_gqa=False):
        calls.append(k.shape)
        return shifted(q, k, v)

    plain = Kernel(id="k", op="attention", call=kernel, parameters=frozenset({"q", "k", "v", "enable_gqa"}))
    assert run(plain, law, **SHARED).status == "passed"
    assert len(calls) == (2 if law == "repeated_heads" else 1)


DECLINED = {
    "alone": lambda q, k, g: len(q) == 1,
    "causal_prefix": lambda q, k, g: q.shape[2] == 9,
    "hidden_keys": lambda q, k, g: k.shape[2] > 12,
    "masked": lambda q, k, g: g.get("mask") is not None,
    "neutral": lambda q, k, g: set(g) - {"causal", "enable_gqa"},
    "parts": lambda q, k, g: k.shape[2] == 6,
    "prefix": lambda q, k, g: q.shape[2] == 9,
    "repeated_heads": lambda q, k, g: k.shape[1] == 4,
    "shifted_scores": lambda q, k, g: g.get("mask") is not None,
    "wide_softcap": lambda q, k, g: g.get("softcap"),
    "with_log_sum_exp": lambda q, k, g: g.get("return_lse"),
}
"""Law -> calls of other options, tensors or shapes, which a kernel may decline."""


def declining(when):
    def kernel(q, k, v, **given):
        if when(q, k, given):
            raise NotImplementedError("not this call")
        return shifted(q, k, v, **given)

    return kernel


@pytest.mark.parametrize("law", DECLINED)
def test_a_kernel_may_decline_a_call_of_another_kind(law):
    declined = []

    def when(q, k, given):
        wanted = DECLINED[law](q, k, given)
        declined.extend([1] if wanted else [])
        return wanted

    settings = CAUSAL if law in ("causal_prefix", "masked") else SHARED if law == "repeated_heads" else {}
    record = run(declining(when), law, **settings)
    assert record.status == "passed", record.message
    assert declined


def test_a_kernel_that_declines_some_calls_of_a_law_is_judged_by_the_others():
    def kernel(q, k, v, **given):
        if "kv_lengths" in given:
            raise NotImplementedError("no lengths")
        return (
            changed_argument("sink", lambda sink: sink + 100)(q, k, v, **given)
            if "sink" in given
            else shifted(q, k, v, **given)
        )

    assert run(kernel, "hidden_keys").status == "passed"
    assert run(kernel, "neutral").status == "passed"  # -inf + 100 is -inf
    wrong = declining(lambda q, k, g: g.get("window") is not None)
    faulty = tampered(lambda q, k, g: g.get("scale") is not None, half_more)
    both = run(lambda q, k, v, **g: wrong(q, k, v, **g) * 0 + faulty(q, k, v, **g), "neutral")
    assert "law       neutral: the default scale given: " in both.message


@pytest.mark.parametrize(
    ("law", "when"),
    [
        ("hostile_neighbours", lambda q, k, g: bool(q.isnan().any())),
        ("other_inputs", lambda q, k, g: float(q[0, 0, 0, 0]) == -get_first_query(0)),
        ("reversed_queries", lambda q, k, g: float(q[0, 0, -1, 0]) == get_first_query(0)),
    ],
)
def test_a_kernel_may_not_decline_the_same_kind_of_call_for_its_numbers(law, when):
    record = run(declining(when), law)

    assert record.status == "law_broken"
    assert f"law       {law}: unsupported: NotImplementedError: not this call" in record.message


def test_a_kernel_that_declines_one_entry_alone_is_not_failed_for_it():
    first = get_first_query(0)
    record = run(declining(lambda q, k, _: len(q) == 1 and float(q[0, 0, 0, 0]) == first), "alone")
    assert record.status == "passed", record.message


def test_a_kernel_of_softmax_that_declines_a_single_row_keeps_the_law_of_the_batch():
    def softmax(x, dim=-1):
        if len(x) == 1:
            raise NotImplementedError("one row")
        return torch.softmax(x, dim)

    case = Case(op="softmax", family="normal", shape=(6, 20), laws=("batch",))
    assert evaluate(case, Kernel(id="k", op="softmax", call=softmax), oracle=ORACLE).status == "passed"


def test_a_law_is_heard_of_at_its_first_break_with_the_judges_own_words():
    message = run(FAULTS["prefix"][1](), "prefix").message

    assert "prefix: the first 9 queries alone: attention float32 [2, 4, 12, 8]: inaccurate" in message
    assert "expected" in message


def test_a_kernel_that_writes_into_any_of_its_tensors_is_caught():
    def writes_into(name):
        def kernel(q, k, v, **given):
            tensors = {"q": q, "k": k, "v": v} | given
            output = shifted(q, k, v, **given)
            tensors[name].view(-1)[0] = 0
            return output

        return kernel

    for name in ("k", "v", "mask", "sink"):
        record = run(writes_into(name), tensors={"mask": "random", "sink": "normal"})
        assert record.status == "law_broken", name
        assert "input untouched" in record.message


def test_a_kernel_that_raises_in_a_law_breaks_it_in_its_own_words():
    def kernel(q, k, v, **given):
        if q.isnan().any():
            raise RuntimeError("no NaN, please")
        return shifted(q, k, v, **given)

    record = evaluate(
        case_of("hostile_neighbours"),
        Kernel(id="k", op="attention", call=kernel),
        host=InProcess(),
        oracle=ORACLE,
    )
    assert record.status == "law_broken"
    assert "no NaN, please" in record.message

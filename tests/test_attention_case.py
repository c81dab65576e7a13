"""Cases of attention and merge_states: an id has every size, kind and option in it, and names
nothing that there is not.
"""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.case import Case, case, fixed_shape
from suite.formats import get_format
from suite.inputs import attention, states
from suite.inputs.attention_tensors import TENSORS
from suite.ops import get_op
from suite.ops.attention.settings import SIZES
from suite.selection import case_specifications

FREE = sorted(name for name, family in attention.FAMILIES.items() if family.fixed is None)
SHAPE = (2, 4, 6, 8)
FLOAT32 = get_format("float32")


def of(family="normal", shape=SHAPE, **settings):
    return Case(op="attention", family=family, shape=shape, **settings)


SIDES = st.one_of(st.none(), st.integers(0, 10**4))
OPTIONS = {
    "causal": st.sampled_from((None, "top_left", "bottom_right")),
    "scale": st.one_of(st.none(), st.floats(-1e3, 1e3), st.integers(-5, 5), st.floats(1e-300, 1e-5)),
    "softcap": st.one_of(st.none(), st.floats(1e-3, 1e30), st.integers(1, 100)),
    "window": st.one_of(st.none(), st.tuples(SIDES, SIDES)),
    "return_lse": st.booleans(),
}


@st.composite
def cases(draw):
    key_heads, shared = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = (
        draw(st.integers(1, 5)),
        key_heads * shared,
        draw(st.integers(1, 3000)),
        draw(st.integers(1, 300)),
    )
    sizes = {
        "keys": st.integers(1, 10**5),
        "key_heads": st.just(key_heads),
        "value_size": st.integers(1, 300),
    }
    kinds = {name: st.sampled_from(sorted(TENSORS[name])) for name in TENSORS}
    required = {"key_heads": sizes.pop("key_heads")} if shared > 1 else {}
    tensors = draw(st.fixed_dictionaries(required, optional=sizes | kinds))
    names = draw(st.permutations(sorted(tensors)))
    return of(
        draw(st.sampled_from(FREE)),
        shape,
        options=draw(st.fixed_dictionaries({}, optional=OPTIONS)),
        tensors={name: tensors[name] for name in names},
        seed=draw(st.integers(0, 10**6)),
        layout=draw(st.sampled_from(("contiguous", "transposed", "strided"))),
    )


@settings(deadline=None, max_examples=80)
@given(cases())
def test_a_case_is_rebuilt_from_its_id(case):
    again = Case.from_id(case.id)

    assert again == case
    assert again.id == case.id
    assert again.resolved_options() == case.resolved_options()
    assert again.shapes() == case.shapes()
    kinds = [(type(v), v) for v in again.options.values()]
    assert kinds == [(type(v), v) for v in case.options.values()], "1 is no 1.0 in an id"


def test_ids_are_the_same_in_every_version():
    """Ids stand in reports, known-failures files and commands that people keep."""
    assert of().id == "attention/normal/2x4x6x8/s0"
    assert (
        of(
            "ends",
            options={"causal": "top_left", "window": (4, None)},
            tensors={"keys": 70, "mask": "random"},
            seed=3,
        ).id
        == "attention/ends/2x4x6x8/causal=top_left/window=4,None/keys=70/mask=random/s3"
    )
    assert (
        of(options={"scale": -0.25}, layout="transposed", tensors={"key_heads": 2}).id
        == "attention/normal/2x4x6x8/scale=-0.25/layout=transposed/key_heads=2/s0"
    )
    assert (
        Case(op="merge_states", family="alike", shape=(2, 3, 4, 8), seed=1).id
        == "merge_states/alike/2x3x4x8/s1"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            "heads=2",
            "attention has no setting 'heads'; valid settings: causal, mask, window, kv_lengths, "
            "alibi_slopes, "
            "sink, softcap, scale, enable_gqa, return_lse, key_heads, value_size, keys, layout, upstream",
        ),
        ("mask=nothing", "unknown kind 'nothing' of mask; expected one of random, random_with_empty_rows, "),
        ("sink=random", "unknown kind 'random' of sink; expected one of normal, dominant, none, mixed"),
        (
            "alibi_slopes=0.5",
            "unknown kind '0.5' of alibi_slopes; expected one of geometric, zero, zero_and_steep",
        ),
        ("kv_lengths=7", "unknown kind '7' of kv_lengths; expected one of full, ragged, single, empty"),
        ("keys=0", "keys=0 must be an integer of at least 1"),
        ("keys=-3", "keys='-3' must be a whole number"),
        ("keys=2.5", "keys='2.5' must be a whole number"),
        ("keys=07", "keys='07' must be a whole number"),
        ("keys=many", "keys='many' must be a whole number"),
        ("key_heads=3", "heads=4 cannot share key_heads=3 evenly"),
        ("key_heads=8", "heads=4 cannot share key_heads=8 evenly"),
        ("value_size=0", "value_size=0 must be an integer of at least 1"),
        ("causal=yes", "causal='yes' is not one of None, 'top_left', 'bottom_right'"),
        ("causal=True", "causal='True' is not one of None, 'top_left', 'bottom_right'"),
        ("scale=nan", "scale=nan must be a finite number"),
        ("scale=inf", "scale=inf must be a finite number"),
        ("scale=0.50", "scale=0.50 must be written 0.5 in a case id"),
        ("softcap=0", "softcap=0 must be a number above 0"),
        ("softcap=-1.5", "softcap=-1.5 must be a number above 0"),
        ("window=4", "window=4 must be (left, right), each None or an integer from 0 to 2^31 - 1"),
        ("window=4,-1", "window=(4, -1) must be (left, right)"),
        ("window=4,2,1", "window=(4, 2, 1) must be (left, right)"),
        ("window=4,1.5", "window=(4, 1.5) must be (left, right)"),
        ("window=04,1", "window=04,1 must be written 4,1 in a case id"),
        ("enable_gqa=1", "enable_gqa='1' must be True or False"),
        ("return_lse=yes", "return_lse='yes' must be True or False"),
        ("layout=diagonal", "layout='diagonal' is not one of contiguous, transposed"),
    ],
)  # fmt: skip
def test_a_setting_that_means_nothing_is_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Case.from_id(f"attention/normal/2x4x6x8/{settings}/s0")


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("attention/nrmal/2x4x6x8/s0", "unknown input family 'nrmal' of attention; expected one of "),
        (
            "attention/normal/6x8/s0",
            "attention has q of four dims, batch, heads, length, head size; got [6, 8]",
        ),
        ("attention/normal/2x4x0x8/s0", "length=0 must be an integer of at least 1"),
        ("attention/minilm/2x4x6x8/s0", "minilm has the shape 3x2x331x32, not 2x4x6x8"),
        ("attention/normal/2x4x6x8/enable_gqa=False/key_heads=2/s0", "that needs enable_gqa=True"),
        (
            "merge_states/nrmal/2x8/s0",
            "unknown input family of merge_states 'nrmal'; expected one of alike, far_apart, ",
        ),
        ("merge_states/alike/2x8/keys=3/s0", "merge_states has no setting 'keys'; valid settings: layout"),
        (
            "merge_states/alike/2x8/mask=random/s0",
            "merge_states has no setting 'mask'; valid settings: layout",
        ),
        ("softmax/normal/2x8/keys=3/s0", "softmax has no setting 'keys'; valid settings: dim, "),
        ("softmax/normal/2x8/mask=random/s0", "softmax has no setting 'mask'; valid settings: dim, "),
    ],
)
def test_an_id_that_names_no_case_is_refused_by_name(id, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Case.from_id(id)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tensors": {"bias": "random"}}, "'bias'"),
        ({"tensors": {"mask": "nothing"}}, "unknown kind 'nothing' of mask; expected one of random, "),
        ({"tensors": {"keys": 2.0}}, "keys=2.0 must be an integer of at least 1"),
        ({"tensors": {"keys": True}}, "keys=True must be an integer of at least 1"),
        ({"tensors": {"keys": "70"}}, "keys='70' must be an integer of at least 1"),
        ({"tensors": {"key_heads": 3}}, "heads=4 cannot share key_heads=3 evenly"),
        ({"shape": (4, 8)}, "attention has q of four dims"),
    ],
)
def test_a_case_is_checked_when_it_is_made(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        of(**settings)


def test_only_attention_has_further_tensors():
    for op, shape in (("softmax", (4, 8)), ("merge_states", SHAPE)):
        with pytest.raises(ValueError, match=f"{op} has no setting 'mask'; valid settings: "):
            Case(op=op, family="normal", shape=shape, tensors={"mask": "random"})


def test_a_window_may_be_a_list():
    assert Case.from_id(of(options={"window": [4, 2]}).id).resolved_options()["window"] == (4, 2)


def test_sizes_that_captured_data_does_not_have_are_refused_by_the_id():
    with pytest.raises(ValueError, match="minilm"):
        Case.from_id("attention/minilm/3x2x331x32/keys=7/s0")


@pytest.mark.parametrize("settings", ["target=probabilities", "causal=top_left/causal=bottom_right"])
def test_a_setting_that_the_op_does_not_have_or_has_twice_is_refused(settings):
    with pytest.raises(ValueError, match=settings.split("=")[0]):
        Case.from_id(f"attention/normal/2x4x6x8/{settings}/s0")


def test_two_mappings_of_the_same_tensors_are_one_case():
    forwards, backwards = {"keys": 70, "mask": "random"}, {"mask": "random", "keys": 70}
    assert of(tensors=forwards) == of(tensors=backwards)


def test_shared_heads_need_no_option():
    assert of(tensors={"key_heads": 2}).resolved_options()["enable_gqa"] is True
    assert of(tensors={"key_heads": 4}).resolved_options()["enable_gqa"] is False
    assert of(options={"enable_gqa": True}).resolved_options()["enable_gqa"] is True


FURTHER = {"mask": "random", "alibi_slopes": "geometric", "sink": "mixed", "kv_lengths": "ragged"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_inputs_have_the_shapes_that_the_case_tells(dtype):
    case = of(tensors={"keys": 70, "key_heads": 2, "value_size": 5, **FURTHER})
    inputs = case.inputs(get_format(dtype))

    assert list(inputs) == list(case.shapes()) == ["q", "k", "v", *FURTHER]
    assert inputs["q"].shape == SHAPE
    assert inputs["k"].shape == (2, 2, 70, 8)
    assert inputs["v"].shape == (2, 2, 70, 5)
    assert inputs["mask"].dtype == np.bool_
    assert inputs["kv_lengths"].dtype == np.int64
    for name, x in inputs.items():
        assert np.broadcast_shapes(x.shape, case.shapes()[name]) == case.shapes()[name]
        if x.dtype == np.float64 and np.isfinite(x).all() and name in "qkv":
            assert np.array_equal(get_format(dtype).round(x), x)


def same_bits(a, b):
    return {name: (x.dtype, x.shape, x.tobytes()) for name, x in a.items()} == {
        name: (x.dtype, x.shape, x.tobytes()) for name, x in b.items()
    }


def test_the_same_id_has_the_same_bits_and_another_has_others():
    case = of(tensors={"keys": 33, **FURTHER}, options={"causal": "top_left"})
    inputs = case.inputs(FLOAT32)

    assert same_bits(inputs, Case.from_id(case.id).inputs(FLOAT32))
    other_seed = Case.from_id(case.id.replace("/s0", "/s1")).inputs(FLOAT32)
    for name in ("q", "k", "v", "mask", "sink"):
        assert inputs[name].tobytes() != other_seed[name].tobytes()
    states_of = Case(op="merge_states", family="one_empty", shape=SHAPE)
    assert same_bits(states_of.inputs(FLOAT32), Case.from_id(states_of.id).inputs(FLOAT32))
    assert not same_bits(
        states_of.inputs(FLOAT32), Case.from_id(states_of.id.replace("/s0", "/s1")).inputs(FLOAT32)
    )


def test_options_and_further_tensors_leave_q_k_and_v_alone():
    """So that two cases that differ in one of them show what it does."""
    plain = of(tensors={"keys": 33}).inputs(FLOAT32)
    for other in ({"options": {"causal": "top_left", "return_lse": True}}, {}, {"layout": "transposed"}):
        more = of(tensors={"keys": 33, **FURTHER}, **other).inputs(FLOAT32)
        assert same_bits(plain, {name: more[name] for name in "qkv"})


def test_the_bits_are_these():
    """What other machines and versions must give."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for x in of(tensors={"keys": 33, "key_heads": 2, **FURTHER}).inputs(get_format("bfloat16")).values():
        digest.update(np.ascontiguousarray(x).astype("<f8").tobytes())
    for x in Case(op="merge_states", family="far_apart", shape=SHAPE).inputs(get_format("bfloat16")).values():
        digest.update(np.ascontiguousarray(x).astype("<f8").tobytes())
    assert digest.hexdigest() == "656d1724e1e94da4"


@pytest.mark.parametrize("family", states.FAMILIES)
def test_states_are_numbers_of_their_formats(family):
    case = Case(op="merge_states", family=family, shape=SHAPE)
    inputs = case.inputs(get_format("bfloat16"))

    assert {name: x.shape for name, x in inputs.items()} == case.shapes()
    for name, x in inputs.items():
        format = get_op("merge_states").input_format(name, get_format("bfloat16"))
        some = x[np.isfinite(x)]
        assert format.name == ("float32" if name.startswith("lse") else "bfloat16")
        assert np.array_equal(format.round(some), some)


def test_a_family_of_captured_data_has_one_shape():
    assert fixed_shape("attention", "minilm") == (3, 2, 331, 32)
    assert fixed_shape("attention", "normal") is None
    assert fixed_shape("merge_states", "alike") is None
    inputs = of("minilm", (3, 2, 331, 32)).inputs(FLOAT32)
    assert {x.shape for x in inputs.values()} == {(3, 2, 331, 32)}


def test_what_no_kernel_can_be_judged_on_says_so():
    assert "lowest number" in of(tensors={"mask": "lowest"}).unjudged
    assert of(tensors={"mask": "random"}).unjudged == ""
    assert Case(op="softmax", family="normal", shape=(2, 3)).unjudged == ""


def test_a_specification_makes_a_case_of_every_shape_option_and_tensor():
    @case(
        "attention", family="normal", source="here", shapes={"smoke": [SHAPE], "quick": [(1, 1, 3, 4)]},
        options=[{}, {"causal": "top_left"}], tensors=[{}, {"keys": 9, "sink": "normal"}], laws=("alone",),
    )  # fmt: skip
    def function():
        """A law."""

    found = [one.id for one in function.__softmax_suite_case__.cases("quick")]
    assert found == [
        f"attention/normal/{shape}{causal}{tensors}/s0"
        for shape in ("2x4x6x8", "1x1x3x4")
        for causal in ("", "/causal=top_left")
        for tensors in ("", "/keys=9/sink=normal")
    ]
    assert {one.laws for one in function.__softmax_suite_case__.cases("smoke")} == {("alone",)}


def test_sizes_are_the_ones_that_queries_do_not_tell():
    assert {size.name for size in SIZES} == {
        field
        for field in attention.Sizes.__dataclass_fields__
        if field not in ("batch", "heads", "length", "head_size")
    }


def test_cases_that_are_not_about_queries_that_see_nothing_have_few_of_them():
    """A case of nothing but zeros passes every kernel."""
    op, found = get_op("attention"), {}
    for specification in case_specifications():
        for one in specification.cases("quick"):
            if one.op == "attention" and "all_masked" not in one.id and "empty" not in one.id:
                problem = op.problem(one.inputs(get_format("float32")), one.resolved_options())
                found[one.id] = 1 - problem.visible.any(axis=1).mean()
    assert len(found) > 100
    assert {id: share for id, share in found.items() if share > 0.75} == {}

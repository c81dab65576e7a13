"""case.py: a case is its id; its inputs follow from it; its docstring is its law."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import inputs
from suite.case import (
    CASE_ATTRIBUTE,
    EVERY_LENGTH,
    LADDER,
    PROFILES,
    SEEDS,
    VOCABULARY,
    Case,
    CaseError,
    case,
)
from suite.formats import FORMATS, get_format
from suite.inputs.layouts import LAYOUTS
from suite.inputs.targets import TARGETS
from suite.inputs.upstream import UPSTREAMS
from suite.laws import RELATIONS
from suite.ops import row_ops
from suite.selection import case_specifications

FREE = sorted(name for name, family in inputs.all_families().items() if family.fixed_shape is None)


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 5000), min_size=1, max_size=4)))
    family, op, seed = (
        draw(st.sampled_from(FREE)),
        draw(st.sampled_from(row_ops())),
        draw(st.integers(0, 10**6)),
    )
    if op == "cross_entropy":
        choices = {
            "ignore_index": st.integers(-100, 100),
            "label_smoothing": st.floats(0, 1),
            "reduction": st.sampled_from(("mean", "sum", "none")),
        }
    else:
        choices = {"dim": st.integers(-len(shape), len(shape) - 1)}
    if op == "softmax":
        choices |= {"temperature": st.floats(1e-3, 1e3), "off_by_one": st.booleans()}
    options = draw(st.fixed_dictionaries({}, optional=choices))
    target = draw(st.sampled_from(TARGETS)) if op == "cross_entropy" else "indices"
    return Case(
        op=op,
        family=family,
        shape=shape,
        options=options,
        layout=draw(st.sampled_from(LAYOUTS)),
        target=target,
        upstream=draw(st.sampled_from(("", *UPSTREAMS))),
        seed=seed,
    )


@settings(deadline=None, max_examples=60)
@given(cases())
def test_a_case_is_rebuilt_from_its_id(case):
    assert Case.from_id(case.id) == case
    assert Case.from_id(case.id).id == case.id


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("softmax/normal/4x4/dim=+1/s0", "dim=+1 must be written 1"),
        ("softmax/normal/4x4/temperature=2/s0", "temperature=2 must be written 2.0"),
        ("softmax/normal/4x4/temperature=hot/s0", "temperature='hot' must be a float"),
        ("softmax/normal/4x4/off_by_one=1/s0", "off_by_one='1' must be True or False"),
        ("softmax/normal/4x4/layout=diagonal/s0", "layout='diagonal' is not one of contiguous, transposed"),
        ("cross_entropy/normal/4x4/target=words/s0", "target='words' is not one of indices, probabilities"),
        ("cross_entropy/normal/4x4/reduction=max/s0", "reduction='max' is not one of mean, sum, none"),
        (
            "softmax/normal/4x4/upstream=gaussian/s0",
            "upstream='gaussian' is not one of ",
        ),
        ("softmax/normal/4x4/upstream=Normal/s0", "upstream='Normal' is not one of"),
        ("softmax/normal/4x4/upstream=normal,normal/s0", "upstream='normal,normal' is not one of"),
        ("softmax/normal/4x4/upstream=normal/upstream=normal/s0", "has a setting twice"),
        ("softmax/normal/4x4/upstreams=normal/s0", "softmax has no setting 'upstreams'; valid settings: dim"),
        (
            "logsumexp/normal/4x4/temperature=2.0/s0",
            "logsumexp has no setting 'temperature'; valid settings: dim, layout, upstream",
        ),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(id, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Case.from_id(id)


def test_laws_are_given_beside_the_id():
    assert Case.from_id("softmax/normal/4x4/s0", laws=("batch",)).laws == ("batch",)


def test_ids_are_the_same_in_every_version():
    """Ids stand in reports, known-failures files and commands that people keep."""
    assert Case(op="softmax", family="normal", shape=(16, 33)).id == "softmax/normal/16x33/s0"
    assert (
        Case(op="logsumexp", family="ties", shape=(2, 3, 4), options={"dim": 1}, seed=7).id
        == "logsumexp/ties/2x3x4/dim=1/s7"
    )
    assert Case(op="softmax", family="ties", shape=(5,), options={"dim": -1}).id == "softmax/ties/5/dim=-1/s0"


@pytest.mark.parametrize(
    "id",
    ["", "softmax", "softmax/normal/4x4", "softmax/normal/4x/s0", "softmax/normal/x4/s0",
        "softmax/normal/4x4/s",
     "/normal/4/s0", "softmax/normal/4x4/dim=/s0", "softmax/normal/4x4/s0/dim=1", "softmax/normal/4x4/s-1",
     "softmax/normal/-4x4/s0", "softmax/normal/4x4/s0 ", "softmax/normal/4x4/upstream=/s0",
     "softmax/normal/4x4/upstream/s0", "softmax/normal/4x4/s0\n", "softmax/normal//s0"],
)  # fmt: skip
def test_a_malformed_id_is_shown_with_the_form_of_an_id(id):
    with pytest.raises(ValueError, match=r"is not op/family/ROWSxN\[/OPTION=VALUE...\]/sSEED") as caught:
        Case.from_id(id)
    assert repr(id) in str(caught.value)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("hardmax/normal/4x4/s0", "unknown op 'hardmax'; expected one of softmax"),
        ("softmax/gaussian/4x4/s0", "unknown input family 'gaussian'; expected one of .*normal"),
        ("softmax/normal/4x4/dim=2/s0", "dim=2 must be an integer from -2 to 1"),
        ("softmax/normal/4x4/dim=-3/s0", "dim=-3 must be an integer from -2 to 1"),
    ],
)
def test_an_id_of_something_unknown_is_answered_with_what_there_is(id, message):
    with pytest.raises(ValueError, match=message):
        Case.from_id(id)


def test_an_id_with_a_shape_that_captured_data_does_not_have_is_refused():
    """At from_id, where the user reads it, and not later in numpy."""
    rows, n = inputs.get_family("minilm_padded").fixed_shape

    assert Case.from_id(f"softmax/minilm_padded/{rows}x{n}/s0").inputs(get_format("float32"))["x"].shape == (
        rows,
        n,
    )
    with pytest.raises(ValueError, match=f"{rows}x{n}"):
        Case.from_id("softmax/minilm_padded/4x4/s0")


@pytest.mark.parametrize(("dim", "axis"), [(0, 0), (1, 1), (2, 2), (-1, 2), (-2, 1), (-3, 0), (None, 2)])
def test_the_rows_of_the_family_lie_along_dim(dim, axis):
    shape = (3, 4, 5)
    options = {} if dim is None else {"dim": dim}
    x = Case(op="softmax", family="normal", shape=shape, options=options, seed=3).inputs(
        get_format("float32")
    )["x"]
    n = shape[axis]
    rows = inputs.build("normal", 60 // n, n, get_format("float32"), 3)

    assert x.shape == shape
    assert x.flags.c_contiguous
    assert np.array_equal(np.moveaxis(x, axis, -1).reshape(-1, n), rows)


def test_a_single_row_may_have_one_dim():
    x = Case(op="softmax", family="normal", shape=(7,)).inputs(get_format("float64"))["x"]

    assert np.array_equal(x, inputs.build("normal", 1, 7, get_format("float64"), 0)[0])


@pytest.mark.parametrize("name", FORMATS)
def test_every_finite_input_is_a_number_of_the_format(name):
    format = get_format(name)
    x = Case(op="softmax", family="sparse", shape=(8, 65)).inputs(format)["x"]

    assert format.contains(x[np.isfinite(x)]).all()


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_case_with_an_upstream_is_one_of_the_backward_and_says_so_in_its_id(upstream):
    case = Case(
        op="softmax",
        family="normal",
        shape=(4, 4),
        options={"dim": 0},
        upstream=upstream,
        layout="strided",
        seed=2,
    )

    assert case.id == f"softmax/normal/4x4/dim=0/layout=strided/upstream={upstream}/s2"
    assert case.direction == "backward"
    assert list(case.inputs(get_format("float32"))) == ["x", "upstream"]
    assert Case.from_id(case.id) == case


def test_a_case_without_an_upstream_is_one_of_the_forward():
    case = Case(op="softmax", family="normal", shape=(4, 4))

    assert (case.direction, "upstream" in case.id) == ("forward", False)
    assert list(case.inputs(get_format("float32"))) == ["x"]


def test_an_upstream_is_no_option_of_the_op():
    case = Case.from_id("softmax/normal/4x4/dim=0/upstream=ones/s0")

    assert case.options == {"dim": 0}
    assert "upstream" not in case.resolved_options()


def test_an_unknown_upstream_is_answered_with_the_kinds():
    with pytest.raises(ValueError, match=", ".join(UPSTREAMS)):
        Case(op="softmax", family="normal", shape=(4, 4), upstream="gaussian")


def test_an_upstream_stands_last_in_the_id_of_attention_too():
    case = Case(
        op="attention",
        family="normal",
        shape=(1, 2, 3, 4),
        tensors={"mask": "padding", "keys": 5},
        upstream="normal",
    )

    assert case.id.endswith("/mask=padding/keys=5/upstream=normal/s0")
    assert Case.from_id(case.id) == case


def test_an_id_gives_the_same_inputs_every_time():
    first, second = (
        Case.from_id("softmax/ties/8x33/s2").inputs(get_format("float16"))["x"] for _ in range(2)
    )

    assert first.tobytes() == second.tobytes()


def declared(*ops, family="normal", **given):
    @case(*(ops or ("softmax",)), family=family, source="here", **given)
    def test_it(evaluate):
        """A law
        in two lines."""

    return getattr(test_it, CASE_ATTRIBUTE)


def test_the_docstring_is_the_law_on_one_line():
    one, *_ = declared().cases("smoke")

    assert (one.why, one.source) == ("A law in two lines.", "here")


def test_a_case_without_docstring_is_refused():
    with pytest.raises(
        ValueError, match=r"case lawless of .*: it needs a docstring: its law in one sentence"
    ):

        @case("softmax", family="normal", source="here")
        def lawless(evaluate):
            evaluate()


@pytest.mark.parametrize("doc", ["", "   \n  "])
def test_a_case_whose_docstring_says_nothing_is_refused(doc):
    def silent(evaluate):
        evaluate()

    silent.__doc__ = doc
    with pytest.raises(ValueError, match=r"case silent of .*: it needs a docstring"):
        case("softmax", family="normal", source="here")(silent)


MISSPELT = {
    "op": ("hardmax", {}, "unknown op 'hardmax'"),
    "family": (
        "softmax",
        {"family": "gaussian"},
        "unknown input family 'gaussian'; expected one of .*normal",
    ),
    "law": ("softmax", {"laws": ("gravity",)}, "unknown law 'gravity'; expected one of batch"),
    "profile": ("softmax", {"shapes": {"huge": [(2, 2)]}}, "shapes has 'huge'; expected some of smoke"),
    "dtype": ("softmax", {"dtypes": ("flaot16",)}, "dtypes has 'flaot16'; expected some of float64"),
    "option": ("softmax", {"options": {"dmi": 0}}, "softmax has no setting 'dmi'; valid settings: dim"),
    "a text for names": ("softmax", {"laws": "repeat"}, "laws='repeat' must be a tuple of names"),
    "one upstream": ("softmax", {"upstream": "normal"}, "upstream='normal' must be a tuple of names"),
    "no dtype": ("softmax", {"dtypes": ()}, "dtypes is empty; expected some of float64"),
    "no shape": ("softmax", {"shapes": {"smoke": []}}, "has no shape"),
    "one shape for several": ("softmax", {"shapes": {"smoke": (8, 8)}}, "shapes of smoke has 8"),
    "names for options": ("softmax", {"options": ["dim"]}, "'dim' is no mapping of settings"),
    "one of several options": ("softmax", {"options": [{}, {"dim": 0}, {"dmi": 0}]}, "has no setting 'dmi'"),
    "level of an option": (
        "attention",
        {"options": {"causal": "topleft"}, "shapes": {"smoke": [(1, 2, 3, 4)]}},
        "causal='topleft' .*top_left",
    ),
    "layout": ("softmax", {"layout": "strded"}, "layout='strded' is not one of contiguous"),
    "target": ("cross_entropy", {"target": "index"}, "target='index' is not one of indices"),
    "upstream": ("softmax", {"upstream": ("nromal",)}, "upstream='nromal' is not one of .*normal"),
    "kind of a tensor": (
        "attention",
        {"tensors": {"mask": "paddng"}, "shapes": {"smoke": [(1, 2, 3, 4)]}},
        "'paddng'.*padding",
    ),
}


@pytest.mark.parametrize(("op", "given", "message"), MISSPELT.values(), ids=MISSPELT)
def test_what_is_misspelt_in_a_case_is_named_with_the_case_and_the_valid_choices(op, given, message):
    def mine(evaluate):
        """Law."""

    with pytest.raises(CaseError, match=f"case mine of test_case.py: .*{message}"):
        case(op, **{"family": "normal", "source": "here", **given})(mine)


def test_a_case_of_no_op_is_refused():
    def mine(evaluate):
        """Law."""

    with pytest.raises(CaseError, match="ops is empty; expected some of softmax"):
        case(family="normal", source="here")(mine)


def test_the_decorated_function_is_returned_itself():
    def plain(evaluate):
        """Law."""

    assert case("softmax", family="normal", source="here")(plain) is plain


def test_profiles_are_cumulative():
    """Each profile runs every case of the smaller ones, and something more."""
    specification = declared(*row_ops(), laws=RELATIONS)
    ids = [[c.id for c in specification.cases(profile)] for profile in PROFILES]

    assert [len(set(some)) for some in ids] == [len(some) for some in ids]
    assert all(set(small) < set(large) for small, large in itertools.pairwise(ids))


def test_each_profile_runs_its_number_of_seeds():
    specification = declared()

    assert list(SEEDS) == list(PROFILES)
    for profile, seeds in SEEDS.items():
        shapes = sum(len(LADDER.get(p, ())) for p in PROFILES[: PROFILES.index(profile) + 1])
        assert len(specification.cases(profile)) == seeds * shapes
        assert {c.seed for c in specification.cases(profile)} == set(range(seeds))


def test_a_case_knows_the_smallest_profile_that_runs_it():
    smallest = {}
    for profile in reversed(PROFILES):
        smallest |= {(c.id, c.seed): profile for c in declared().cases(profile)}

    assert {c.profile for c in declared().cases("full") if c.shape in LADDER["smoke"]} == {"smoke"}
    assert all(c.profile == smallest[c.id, c.seed] for c in declared().cases("full") if c.seed == 0)


def test_captured_data_is_run_once_in_its_own_shape():
    for profile in PROFILES:
        (one,) = declared(family="minilm_scores").cases(profile)
        assert (one.shape, one.seed, one.profile) == (
            inputs.get_family("minilm_scores").fixed_shape,
            0,
            "smoke",
        )


def test_options_and_laws_reach_every_case():
    found = declared("softmax", options={"dim": 0}, laws=("repeat",)).cases("quick")

    assert {(c.id.split("/")[3], c.laws) for c in found} == {("dim=0", ("repeat",))}


def test_each_upstream_makes_a_case():
    found = declared("softmax", upstream=("normal", "", "ones")).cases("smoke")

    assert {(c.upstream, c.direction) for c in found} == {
        ("normal", "backward"),
        ("", "forward"),
        ("ones", "backward"),
    }
    assert len({c.id for c in found}) == 3


@pytest.mark.parametrize("tile", [32, 128, 1024])
def test_the_families_at_tiles_meet_both_sides_of_every_tile_size_and_the_length_of_a_vocabulary(tile):
    lengths = {shape[-1] for shapes in EVERY_LENGTH.values() for shape in shapes}

    assert any(tile // 2 < n < tile for n in lengths)
    assert any(tile < n < 2 * tile for n in lengths)
    assert 151936 in lengths


@pytest.mark.parametrize("ladder", [LADDER, EVERY_LENGTH, VOCABULARY])
def test_every_ladder_is_of_rows_with_entries_in_known_profiles(ladder):
    assert set(ladder) <= set(PROFILES)
    assert all(len(shape) == 2 and min(shape) > 0 for shapes in ladder.values() for shape in shapes)


def test_the_ladder_has_lengths_below_between_and_beyond_the_tiles():
    lengths = {shape[-1] for shapes in LADDER.values() for shape in shapes}

    assert min(lengths) == 2
    assert max(lengths) >= 4096
    assert {n % 2 for n in lengths} == {0, 1}
    assert {7, 33, 257} <= lengths


def test_no_two_cases_have_one_id():
    """A second one would be recorded as the first, with the first one's laws."""
    ids = [case.id for specification in case_specifications() for case in specification.cases("standard")]

    assert len(ids) > 1000
    assert [id for id, count in Counter(ids).items() if count > 1] == []

"""schema.py: the short cuts of the reader take exactly what the check takes, and make the same of it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from suite.records import schema
from suite.records.flat import flat
from suite.records.record import _RECORD, Measurement, Record

BIG = 10**400
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.sampled_from(
        ["", "ä", "\ud800", "inf", "-inf", "nan", "passed", "known_failure", BIG, -0.0, 1.0, 5e-324]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "ä", "\ud800"]), inner, max_size=2)
    ),
    max_leaves=4,
)
names = st.sampled_from([*_RECORD["properties"], "unknown"])
VALID = {
    "schema": 2, "suite_version": "1", "kernel": "k", "op": "softmax", "case": "c", "family": "f",
    "shape": [4, 4], "dtype": "float32", "status": "inaccurate", "message": "wrong", "ratio": 1.5,
    "bitwise": {"repeat": True},
}  # fmt: skip


def outcome(data):
    """What reading made of the data: the fields with their types, or the kind of refusal."""
    try:
        record = schema.read(Record, data, noun="record", schema=_RECORD)
    except ValueError as error:
        return type(error), str(error)
    return [(name, repr(value)) for name, value in flat(record).items()]


@settings(deadline=None, max_examples=400)
@given(st.dictionaries(names, values, max_size=3), st.sampled_from([None, *VALID]))
@example({"options": {"dim": -1}}, None)
@example({"ratio": 1, "entries": 2.0}, None)
@example({"kernel": "\ud800"}, None)
@example({"bitwise": {"\ud800": True}}, None)
@example({"tiles": {"ä": "b"}}, None)
@example({"entries": True}, None)
@example({"ratio": float("inf")}, None)
@example({"status": "ä"}, None)
def test_a_short_cut_takes_what_the_check_takes_and_makes_the_same_of_it(changes, missing):
    data = {name: value for name, value in {**VALID, **changes}.items() if name != missing}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            schema, "_TAKERS", {id(_RECORD): (_RECORD, dict.fromkeys(_RECORD["properties"], schema._never))}
        )
        checked = outcome(data)

    short_cut = outcome(data)

    if isinstance(checked, tuple):  # of several faults, either may be named
        assert isinstance(short_cut, tuple)
    assert short_cut == checked or (isinstance(checked, tuple) and len(changes) > 1)


def test_the_short_cut_is_taken_by_an_ordinary_record():
    takers = schema._takers(_RECORD)

    assert [name for name, value in VALID.items() if takers[name](value) is schema.UNUSUAL] == []


def test_lists_of_the_data_are_not_shared_with_the_record():
    data = {**VALID, "bitwise": {"repeat": True}, "laws": ["a"]}

    record = schema.read(Record, data, noun="record", schema=_RECORD)
    data["bitwise"]["repeat"] = False
    data["laws"].append("b")

    assert (record.bitwise, record.laws) == ({"repeat": True}, ("a",))


def test_a_key_that_no_file_can_hold_is_refused_at_any_depth_that_is_read():
    given = {"schema": 2, "kind": "k", "kernel": "k", "op": "softmax", "dtype": "float32"}

    assert Measurement.from_dict({**given, "data": {"ä": [1]}}).data == {"ä": [1]}
    with pytest.raises(UnicodeEncodeError):
        Measurement.from_dict({**given, "data": {"\ud800": [1]}})


@pytest.mark.parametrize("name", ["ratio", "max_ulp", "worst_ulp", "bias_error_ulp", "torch_ratio", "judged"])
def test_what_is_no_size_is_refused(name):
    """An error and a share are at least 0; NaN and infinity are errors that records have."""
    for text in ("nan", "inf", 0, 0.0, 3.5):
        assert Record.from_dict({**VALID, name: text})
    for wrong in (-1, -1.0, -5e-324, "-inf"):
        with pytest.raises(ValueError, match=rf"{name}=.* must be a number of at least 0 or one of inf, nan"):
            Record.from_dict({**VALID, name: wrong})
    assert Record.from_dict({**VALID, "bias_ulp": -1.5}).judgement.bias_ulp == -1.5

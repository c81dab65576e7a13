"""records.py: a record survives JSON, refuses what it cannot hold, and names what was run."""

import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.records.flat import changed, columns, flat, nested
from suite.records.record import PASSING, SCHEMA, STATUSES, Record, by_precedence, published, summary_class
from tests.records import make_record


def make(**changes):
    given = {
        "suite_version": "1", "kernel": "naive", "op": "softmax", "case": "softmax/normal/4x4/s0",
        "family": "normal", "shape": (4, 4), "dtype": "float32", "status": "inaccurate", "message": "wrong",
    }  # fmt: skip
    return make_record(**{**given, **changes})


SIZES, OTHERS = (
    ("judged", "ratio", "worst_ulp", "max_ulp", "bias_error_ulp", "torch_ratio"),
    ("bias_ulp", "seconds"),
)
any_float, any_size = st.floats(), st.floats().map(abs)
text = st.text(max_size=6)
counts = st.integers(0, 2**63 - 1)
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def records(draw):
    optional = {
        name: draw(st.none() | (any_size if name in SIZES else any_float)) for name in (*SIZES[1:], *OTHERS)
    }
    return make(
        **optional,
        judged=draw(any_size),
        kernel=draw(text),
        message=draw(text.filter(bool)),
        shape=tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
        index=draw(st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple)),
        laws=tuple(draw(st.lists(text, max_size=2))),
        warnings=tuple(draw(st.lists(text, max_size=2))),
        status=draw(st.sampled_from((*STATUSES, "known_failure"))),
        broken=by_precedence(set(draw(st.lists(st.sampled_from(STATUSES), max_size=3)))),
        failed=draw(counts),
        entries=draw(counts),
        inversions=draw(st.none() | counts),
        options={"dim": draw(st.integers(-3, 3))},
        bitwise=draw(st.dictionaries(text, st.booleans(), max_size=2)),
        tiles=draw(st.dictionaries(text, text, max_size=2)),
        outside=draw(st.booleans()),
        output=draw(text),
    )


def comparable(record):
    """Field values in which NaN equals NaN."""
    return {name: repr(value) for name, value in flat(record).items()}


@settings(deadline=None, max_examples=15)
@given(records())
def test_a_record_survives_json_whatever_its_numbers_and_text(record):
    again = Record.from_dict(json.loads(record.to_json()))

    assert comparable(again) == comparable(record)
    assert again.id == record.id


@settings(deadline=None, max_examples=10)
@given(records())
def test_json_is_strict_and_one_line(record):
    """No NaN or Infinity literal, which other languages refuse, and no line break of any kind
    inside a line.
    """

    def refuse(literal):
        raise AssertionError(literal)

    line = record.to_json()

    assert json.loads(line, parse_constant=refuse)["id"] == record.id
    assert line.splitlines() == [line]


@pytest.mark.parametrize(("value", "text"), [(math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan")])
def test_infinities_and_nan_are_written_as_words_at_any_depth(value, text):
    plain = make(ratio=value, options={"dim": -1, "deep": [value, {"deeper": value}]}).to_dict()

    assert plain["ratio"] == text
    assert plain["options"] == {"dim": -1, "deep": [text, {"deeper": text}]}


def test_the_id_comes_first_and_unknown_fields_are_left_out():
    """A reader of an older version meets fields of a newer one."""
    plain = make().to_dict()

    assert next(iter(plain)) == "id"
    assert Record.from_dict({**plain, "of_a_later_version": [1]}) == make()


def test_missing_fields_take_their_defaults():
    plain = make().to_dict()
    needed = (
        "schema",
        "suite_version",
        "kernel",
        "op",
        "case",
        "family",
        "shape",
        "dtype",
        "status",
        "message",
    )

    assert Record.from_dict({name: plain[name] for name in needed}) == make()


@pytest.mark.parametrize(
    "name", ["suite_version", "kernel", "op", "case", "family", "shape", "dtype", "status"]
)
def test_a_missing_field_without_default_is_named(name):
    plain = make().to_dict()
    del plain[name]

    with pytest.raises(ValueError, match=rf"incomplete record: .*{name}"):
        Record.from_dict(plain)


@pytest.mark.parametrize("schema", [0, -1, SCHEMA + 1, None, "1", 1.5, True, 10**30])
def test_a_schema_that_is_not_read_is_named(schema):
    with pytest.raises(
        ValueError, match=rf"schema={schema!r} is not one that this version reads \(1 to {SCHEMA}\)"
    ):
        Record.from_dict({**make().to_dict(), "schema": schema})


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
def test_only_an_object_is_a_record(value):
    with pytest.raises(ValueError, match="a record must be a JSON object, not a"):
        Record.from_dict(value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ratio", "much", "ratio='much' must be a number"),
        ("seconds", True, "seconds=True must be a number"),
        ("max_ulp", [], r"max_ulp=\[\] must be a number"),
        ("shape", "4x4", "shape='4x4' must be a list"),
        ("warnings", {}, r"warnings=\{\} must be a list"),
        ("kernel", 3, "kernel=3 must be text"),
        ("status", ["passed"], r"status=\['passed'\] must be text"),
        ("options", [], r"options must be an object, not \[\]"),
        ("failed", 1.5, "failed=1.5 must be an integer"),
        ("status", "fine", "status='fine' is not one of not_run, .*, passed, known_failure"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        Record.from_dict({**make().to_dict(), name: value})


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(sorted(columns(Record))), some_json)
def test_a_field_of_a_foreign_record_is_refused_or_usable(name, value):
    """ValueError is the only refusal, and what is accepted has an id and can be written again."""
    try:
        record = Record.from_dict({**make().to_dict(), name: value})
    except ValueError:
        return
    assert re.fullmatch("r[0-9a-f]{12}", record.id)
    assert json.loads(record.to_json())["id"] == record.id


@pytest.mark.parametrize(
    "status", [s for s in (*STATUSES, "known_failure") if s not in ("passed", "unsupported")]
)
def test_a_status_that_is_no_pass_needs_a_message(status):
    with pytest.raises(ValueError, match=f"a record with status {status} needs a message"):
        make(status=status, message="")


@pytest.mark.parametrize("status", ["passed", "unsupported"])
def test_a_pass_needs_no_message(status):
    assert make(status=status, message="").status == status


@pytest.mark.parametrize("name", ["kernel", "op", "case", "dtype", "device", "direction"])
def test_the_id_depends_on_each_of_what_was_run(name):
    assert replace(make(), **{name: "other"}).id != make().id


def test_the_id_does_not_depend_on_what_was_found():
    found = changed(
        make(), status="passed", ratio=0.5, seconds=1.0, env_id="x", started="now", strict=True, digest="ff"
    )

    assert found.id == make().id


def test_the_id_is_the_same_in_every_version():
    """Ids stand in reports and in commands that people keep."""
    assert make().id == "r5ac7ca975746"


def test_statuses_are_ordered_by_precedence():
    assert by_precedence(set(STATUSES)) == STATUSES
    assert by_precedence({"unjudged", "crashed", "inaccurate"}) == ("crashed", "inaccurate", "unjudged")
    assert by_precedence(set()) == ()


def test_every_status_has_one_summary_class():
    classes = {status: summary_class(status) for status in (*STATUSES, "known_failure")}
    named = {"passed", "known_failure", "unsupported", "unjudged"}

    assert {s for s, c in classes.items() if s == c} == named
    assert {c for s, c in classes.items() if s not in named} == {"failed"}
    assert "unjudged" not in PASSING


def test_a_flat_row_holds_the_fields_of_the_judgement_and_the_outcome():
    record = make(ratio=2.0, index=(1, 2), seconds=0.5)

    assert (record.judgement.ratio, record.judgement.index, record.outcome.seconds) == (2.0, (1, 2), 0.5)
    row = flat(record)
    assert list(row) == list(columns(Record))
    assert (row["ratio"], row["index"], row["seconds"]) == (2.0, (1, 2), 0.5)
    assert {"judgement", "outcome"}.isdisjoint(row)
    assert nested(Record, row) == record


def test_a_name_that_is_no_column_is_refused():
    with pytest.raises(TypeError, match="ration"):
        changed(make(), ration=1.0)


@pytest.mark.parametrize("name", ["record", "measurement"])
def test_the_schema_describes_every_field(name):
    properties = published()["$defs"][name]["properties"]

    assert [field for field, one in properties.items() if field != "id" and not one.get("description")] == []

"""report/attention: which kernel is safe for what, of made-up records. Nothing is evaluated here."""

import dataclasses
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from suite.case import Case
from suite.formats import DTYPES, float32
from suite.inputs.attention import FAMILIES
from suite.inputs.attention_tensors import BOOLEAN_MASKS, MASKS
from suite.ops import get_op
from suite.ops.attention.settings import SETTINGS
from suite.report import attention_columns
from suite.report.attention import (
    FAILED,
    KNOWN,
    OPEN,
    PARTLY,
    PASSED,
    UNSUPPORTED,
    answer,
    matrix,
    safe,
    unsafe,
    where,
)
from suite.report.attention_columns import COLUMNS, ORDINARY, SPECIAL, asked, sees_nothing
from suite.report.attention_terminal import print_attention
from suite.report.chapters import Found, chapters
from tests.test_report import HOSTILE, Page, make, page

EXPECTED = {
    "attention/normal/2x2x17x16/s0": ("plain",),
    "attention/minilm/3x2x331x32/s0": ("plain",),
    "attention/probe/1x2x33x16/causal=top_left/s0": ("top_left",),
    "attention/probe/1x2x17x16/causal=bottom_right/keys=40/s0": ("bottom_right",),
    "attention/probe/2x2x33x16/keys=140/mask=checkerboard/s0": ("boolean",),
    "attention/probe/2x4x33x16/return_lse=True/keys=9/mask=random_with_empty_rows/s0": ("empty",),
    "attention/probe/2x2x33x16/keys=140/mask=sentinels/s0": ("additive",),
    "attention/probe/2x2x17x16/keys=70/mask=additive_infinite/s0": ("empty",),
    "attention/probe/2x2x33x16/keys=140/mask=all_masked/s0": ("empty",),
    "attention/probe/1x2x17x16/causal=bottom_right/keys=5/s0": ("empty",),
    "attention/probe/2x4x33x16/keys=70/kv_lengths=empty/s0": ("empty",),
    "attention/probe/2x4x33x16/window=8,8/keys=70/s0": ("window",),
    "attention/probe/2x4x33x16/keys=70/kv_lengths=full/s0": ("kv_lengths",),
    "attention/probe/1x4x17x16/keys=33/alibi_slopes=geometric/s0": ("alibi_slopes",),
    "attention/probe/1x4x17x16/causal=top_left/keys=33/alibi_slopes=geometric/s0": (
        "top_left",
        "alibi_slopes",
    ),
    "attention/probe/2x4x33x16/keys=70/sink=mixed/s0": ("sink",),
    "attention/probe_sharp/2x4x33x16/softcap=2.0/keys=70/s0": ("softcap",),
    "attention/probe/2x4x33x16/scale=0.0/keys=70/s0": ("scale",),
    "attention/probe/2x4x33x16/return_lse=True/keys=70/s0": ("return_lse",),
    "attention/probe/2x4x33x16/return_lse=False/keys=70/s0": ("more_keys",),
    "attention/probe/2x4x33x16/causal=top_left/softcap=2.0/window=9,0/keys=70/s0": ("together",),
    "attention/probe/2x12x9x16/keys=33/key_heads=2/s0": ("key_heads",),
    "attention/probe/2x4x33x16/enable_gqa=True/keys=70/s0": ("more_keys",),
    "attention/probe/2x2x17x16/value_size=40/s0": ("value_size",),
    "attention/probe/2x2x17x16/keys=66/value_size=40/s0": ("value_size", "more_keys"),
    "attention/normal/2x4x17x16/layout=strided/keys=33/s0": ("layout",),
    "attention/probe/2x2x1x16/keys=70/s0": ("one_query",),
    "attention/probe/2x2x17x16/keys=18/s0": ("more_keys",),
    "attention/normal/2x2x40x16/keys=7/s0": ("fewer_keys",),
    "attention/normal/1x2x4096x64/causal=top_left/s0": ("top_left", "long"),
    "attention/probe/1x1x1024x64/s0": ("long",),
    "attention/probe/1x1x1023x64/s0": ("plain",),
    "attention/near_overflow/1x2x16x16/s0": ("hard",),
    "attention/near_overflow/1x2x16x16/softcap=30.0/s0": ("softcap", "hard"),
    "attention/nan_key/2x2x17x16/keys=70/s0": ("special",),
    "attention/normal/1x2x33x16/keys=70/mask=lowest/s0": (),
}
"""Case id -> the columns that it stands in, read off the id by hand."""
EXPECTED |= {
    f"attention/probe/1x2x17x16/{setting.name}={setting.text(level)}/s0": (wording.name,)
    for setting in SETTINGS
    for level in setting.levels
    if (wording := setting.wording(level)) and wording.name not in {*itertools.chain(*EXPECTED.values())}
}
"""A setting that has no example above is one of its own columns, and of no other."""

PLAIN, CAUSAL, SINK, EMPTY = (
    "attention/normal/2x2x17x16/s0",
    "attention/probe/1x2x33x16/causal=top_left/s0",
    "attention/probe/2x4x33x16/keys=70/sink=mixed/s0",
    "attention/probe/2x2x33x16/keys=140/mask=all_masked/s0",
)
CAUSAL_SINK = "attention/probe/2x4x33x16/causal=top_left/keys=70/sink=mixed/s0"


def one(case=PLAIN, kernel="mine", status="passed", **changes):
    return make(op="attention", case=case, kernel=kernel, status=status, **changes)


def answers(*records):
    """The answer of every cell, by kernel, column and format."""
    return {
        (kernel, name, dtype): answer(found)
        for kernel, row in matrix(records).cells.items()
        for name, formats in row.items()
        for dtype, found in formats.items()
    }


def wrong(columns_of):
    """The ids that such a function puts into other columns than a reader does."""
    return [id for id, expected in EXPECTED.items() if set(columns_of(id)[0]) != set(expected)]


def test_every_case_stands_in_the_columns_of_what_it_asks_for():
    assert wrong(asked) == []
    assert {name for names in EXPECTED.values() for name in names} == set(COLUMNS), (
        "a column without an example"
    )


@pytest.mark.parametrize(("name", "other"), list(itertools.pairwise([*COLUMNS, "plain"])))
def test_a_column_that_is_taken_for_another_is_noticed(name, other):
    """A mutant: what belongs to one column is put into its neighbour's."""
    assert wrong(lambda id: (tuple(other if n == name else n for n in asked(id)[0]), True))


def test_a_case_that_asks_for_two_things_says_so():
    assert asked(SINK)[1]
    assert not asked(CAUSAL_SINK)[1]
    assert not asked("attention/probe/2x2x17x16/keys=66/value_size=40/s0")[1]
    assert not asked("attention/probe/2x4x33x16/causal=bottom_right/keys=70/kv_lengths=empty/s0")[1]


def test_what_masks_families_and_options_there_are_is_known_here():
    """A mask, a family or an option that is added elsewhere needs a column here."""
    case = "attention/probe/2x2x17x16/keys=70/mask={}/s0"
    kinds = {name: Case.from_id(case.format(name)).inputs(float32)["mask"].dtype.kind for name in MASKS}

    assert {name for name, kind in kinds.items() if kind == "b"} == set(BOOLEAN_MASKS)
    assert {*ORDINARY, *SPECIAL} < set(FAMILIES)
    op = get_op("attention")
    columns = {*COLUMNS, "top_left", "bottom_right"}
    assert {*op.options, *op.optional} - columns == {"causal", "mask", "enable_gqa"}


@pytest.mark.parametrize(
    "settings_text",
    [
        "",
        "/causal=bottom_right/keys=5",
        "/causal=bottom_right/keys=16",
        "/window=0,0/keys=16",
        "/window=0,0/keys=17",
        "/window=3,None/keys=10",
        "/causal=top_left/window=2,0/keys=30",
        "/keys=30/kv_lengths=ragged",
        "/keys=30/kv_lengths=full",
        "/window=4,4/keys=30/kv_lengths=single",
        *(f"/keys=30/mask={name}" for name in MASKS),
        *(f"/causal=bottom_right/keys=30/mask={name}" for name in MASKS),
        *(f"/window=2,2/keys=30/kv_lengths=full/mask={name}" for name in MASKS),
    ],
)
def test_a_query_that_sees_nothing_is_the_one_of_the_definition(settings_text):
    check_blindness(Case.from_id(f"attention/normal/2x2x17x16{settings_text}/s0"))


def test_a_window_ends_where_it_says():
    """The only visible key is the second one, just outside of a window of none to the right."""
    assert check_blindness(Case.from_id("attention/normal/1x1x1x16/window=0,0/keys=2/mask=one_visible/s0"))
    assert not check_blindness(
        Case.from_id("attention/normal/1x1x1x16/window=0,1/keys=2/mask=one_visible/s0")
    )


def check_blindness(case):
    problem = get_op("attention").problem(case.inputs(float32), case.resolved_options())

    assert sees_nothing(case) == (not problem.visible.any(axis=1).all())
    return sees_nothing(case)


HUGE = "9" * 40


@pytest.mark.parametrize(
    "id",
    [
        "", "attention", HOSTILE, "softmax/normal/4x4/s0", "attention/nosuch/2x2x17x16/s0",
        "attention/normal/2x2x17/s0", "attention/normal/0x2x17x16/s0",
        "attention/normal/2x2x17x16/mask=nosuch/s0", "attention/normal/2x2x17x16/s" + "1" * 5000,
        f"attention/normal/{HUGE}x2x17x16/s0", f"attention/normal/2x2x{HUGE}x16/s0",
        f"attention/normal/2x2x17x16/keys={HUGE}/s0",
        "attention/normal/9x9x99999x16/keys=99999/mask=random/s0",
        "attention/normal/2x3x17x16/key_heads=2/s0", "attention/normal/2x2x17x16/scale=nan/s0",
        "attention/normal/2x2x17x16/window=-1,0/s0",
    ],
)  # fmt: skip
def test_an_id_that_does_not_parse_stands_in_no_column(id):
    assert asked(id)[0] == ()
    records = [one(id), one()]
    assert matrix(records).astray == 1
    assert "1 evaluations of attention stand in no column" in Page(page(*records)).text


def test_settings_of_any_size_are_no_error():
    assert asked(f"attention/normal/2x2x17x16/window={2**31 - 1},{2**31 - 1}/s0")[0] == ("window",)
    assert asked(f"attention/normal/2x{HUGE}x17x16/s0")[0] == ("plain",)


def test_masks_are_drawn_up_to_a_limit_alone(monkeypatch):
    monkeypatch.setattr("suite.report.attention.MOST_DRAWN", 2 * 2 * 33 * 140)
    masks = [f"attention/probe/2x2x33x16/keys=140/mask=random/s{seed}" for seed in range(3)]

    assert matrix([one(PLAIN), *map(one, masks)]).astray == 2


PIECES = st.sampled_from([
    "attention", "normal", "probe", "2x2x17x16", "s0", "keys=7", "causal=top_left", "window=3,None", "a=b",
    "mask=random", "scale=1e400", "softcap=-1", "kv_lengths=ragged", "key_heads=0", "=", "/", "x", "\0",
])  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=7).map("/".join)))
def test_no_id_is_an_error(id):
    assert set(asked(id).columns) <= set(COLUMNS)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed"], PASSED),
        (["unsupported"], UNSUPPORTED),
        (["passed", "unsupported"], PARTLY),
        (["passed", "unjudged"], OPEN),
        (["passed", "not_run"], OPEN),
        (["passed", "unjudged", "known_failure"], KNOWN),
        (["nonfinite", "known_failure", "passed"], FAILED), (["inaccurate", "not_run"], FAILED),
        (["law_broken", "passed"], FAILED), (["crashed", "unsupported"], FAILED),
        (["raised", "unjudged"], FAILED),
    ],
)  # fmt: skip
def test_the_worst_record_of_a_cell_is_its_answer(statuses, expected):
    found = answers(*(one(status=status) for status in statuses))

    assert found == {("mine", "plain", "float32"): expected}


def test_formats_and_kernels_and_devices_are_kept_apart():
    found = answers(one(dtype="bfloat16", status="inaccurate"), one(), one(kernel="other"))
    assert found[("mine", "plain", "bfloat16")] is FAILED
    assert found[("mine", "plain", "float32")] is found[("other", "plain", "float32")] is PASSED

    devices = answers(one(), one(device="cuda", status="raised"))
    assert devices == {
        ("mine (cpu)", "plain", "float32"): PASSED,
        ("mine (cuda)", "plain", "float32"): FAILED,
    }


def test_two_things_at_once_that_are_unsupported_say_nothing_of_either():
    found = answers(one(SINK), one(CAUSAL), one(CAUSAL_SINK, status="unsupported"))
    assert set(found.values()) == {PASSED}

    long, wide = (
        "attention/probe/1x1x4x64/keys=4096/value_size=32/s0",
        "attention/probe/2x2x17x16/keys=66/value_size=40/s0",
    )
    narrow = "attention/probe/2x2x17x16/keys=66/s0"
    lacks = answers(*(one(id, status="unsupported") for id in (long, wide)), one(narrow))
    assert lacks == {("mine", "more_keys", "float32"): PASSED, ("mine", "value_size", "float32"): UNSUPPORTED}
    other_format = answers(
        one(long, status="unsupported"), one(wide, status="unsupported", dtype="float16"), one(narrow)
    )
    assert set(other_format) == {("mine", "more_keys", "float32")} | {
        ("mine", "value_size", d) for d in ("float32", "float16")
    }

    alone = answers(one(SINK), one(SINK, status="unsupported"))
    assert set(alone.values()) == {PARTLY}


def test_a_failure_of_two_things_is_that_of_the_one_which_fails_alone():
    both = [one(CAUSAL), one(CAUSAL_SINK, status="inaccurate")]
    assert answers(*both, one(SINK, status="inaccurate"))[("mine", "top_left", "float32")] is PASSED
    assert answers(*both, one(SINK))[("mine", "top_left", "float32")] is FAILED, (
        "neither fails alone: it may be either"
    )
    assert answers(*both, one(SINK))[("mine", "sink", "float32")] is FAILED
    assert set(answers(both[1], one(SINK, status="inaccurate"))) == {("mine", "sink", "float32")}, (
        "nothing is known of causal"
    )
    other_format = answers(*both, one(SINK, status="inaccurate", dtype="float16"))
    assert other_format[("mine", "top_left", "float32")] is FAILED


def test_the_sentences_say_who_is_safe_and_who_is_not_and_where():
    records = [
        *(one(case, kernel="good") for case in (PLAIN, CAUSAL, EMPTY)),
        one(kernel="small"), one(CAUSAL, kernel="small", status="unsupported"),
        one(EMPTY, kernel="small", status="unsupported"),
        one(kernel="bad"), one(CAUSAL, kernel="bad"),
        one(EMPTY, kernel="bad", status="nonfinite", overflow=4, entries=9, got="nan"),
        one(EMPTY, kernel="bad", dtype="float16"),
        *(one(case, kernel="aside", status="not_run") for case in (PLAIN, CAUSAL, EMPTY)),
    ]  # fmt: skip
    found = matrix(records)

    assert safe(found) == (["good"], [("small", 1)])
    assert unsafe(found)[1] == (FAILED, "bad", ["where a query sees nothing in float32 (NaN)"])
    assert [(a, kernel) for a, kernel, _ in unsafe(found)] == [(OPEN, "aside"), (FAILED, "bad")]
    text = Page(page(*records)).text
    assert "✓ safe for everything: good." in text
    assert "✗ not safe bad where a query sees nothing in float32 (NaN)." in text
    assert "? not known aside" in text


def test_safe_for_everything_is_who_was_asked_everything():
    found = matrix([one(kernel="good"), one(SINK, kernel="good"), one(kernel="short")])

    assert safe(found) == (["good"], [("short", 1)])


def test_what_fails_is_placed_in_the_column_that_fails_most():
    """Causal passes nearly everywhere, so that a failure with causal and a sink is the sink's."""
    found = matrix(
        [*(one(CAUSAL.replace("s0", f"s{seed}")) for seed in range(3)), one(CAUSAL_SINK, status="raised")]
    )

    assert unsafe(found) == [(FAILED, "mine", ["with a sink (raised)"])]


def test_a_known_failure_is_not_safe():
    found = matrix([one(), one(SINK, status="known_failure", known="why", ratio=7.0, broken=("inaccurate",))])

    assert safe(found) == ([], [])
    assert unsafe(found) == [(KNOWN, "mine", ["with a sink (7 × bound, known)"])]


def test_the_page_has_a_chapter_only_where_attention_was_run():
    assert "which kernel is safe" not in page(make())
    assert chapters()["attention"].context(Found(of_kernels=[make()])) is None
    assert matrix([make(), one()]).astray == 0
    assert "which kernel is safe" in page(make(), one())


def test_a_cell_of_the_page_says_formats_answer_and_count():
    records = [
        one(),
        one(dtype="bfloat16"),
        one(dtype="float16", status="inaccurate", ratio=3.0, broken=("inaccurate",)),
    ]
    parsed = Page(page(*records, one(SINK)))
    chips = [given for tag, given in parsed.tags if tag == "span" and "title" in given]

    assert parsed.broken == []
    assert [(c["class"], c["title"]) for c in chips] == [
        ("chip passed", "float32: 1 passed\nbfloat16: 1 passed"),
        ("chip failed", "float16: 1 inaccurate; the worst is 3 × bound: " + PLAIN),
        ("chip passed", "float32: 1 passed"),
    ]
    assert "✓ f32 bf16" in parsed.text
    assert "✗ f16" in parsed.text


def test_what_kernels_call_themselves_is_escaped():
    hostile, harmless = (
        Page(
            page(
                one(kernel=name, status="unsupported", message=name),
                one(SINK, kernel=name, status="raised", message=name),
            )
        )
        for name in (HOSTILE, "plain")
    )

    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert hostile.broken == []


def printed(records, width=200):
    stream = io.StringIO()
    print_attention(Console(file=stream, width=width, highlight=False), records)
    return stream.getvalue()


def test_the_terminal_shows_one_sign_for_all_formats_or_one_for_each():
    records = [
        one(),
        one(dtype="float16", status="raised"),
        one(SINK),
        one(SINK, dtype="float16"),
        one(CAUSAL, dtype="float16"),
    ]
    head, row = [
        line.split() for line in printed(records).splitlines() if line.startswith(("attention", "mine"))
    ]

    assert head == ["attention", "plain", "c-tl", "sink"]
    assert row == ["mine", "+X", "+", "+"]
    assert "one for each of float32 float16" in printed(records)
    *_, row = [
        line.split()
        for line in printed([*records, one(SINK, dtype="bfloat16")]).splitlines()
        if line.startswith("mine")
    ]
    assert row == ["mine", "+.X", "+", "+"]


def test_the_terminal_table_is_at_most_120_wide():
    """Even where every cell has a sign for each format, and kernels have long names."""
    records = [
        one(id, kernel=f"kernel_of_a_long_name_{'x' * 90}", dtype=dtype, status=status)
        for id in EXPECTED
        for dtype, status in zip(DTYPES, ("passed", "raised", "passed", "unsupported"), strict=True)
    ]
    tables = [line for line in printed(records).splitlines() if line.startswith(("attention", "kernel_of"))]

    assert len(tables) == 4
    assert all(len(line.rstrip()) <= 120 for line in tables)
    for column in COLUMNS.values():
        assert column.code in " ".join(tables)
    assert "…" in tables[1]


def test_the_terminal_says_nothing_of_a_single_column_or_another_op():
    assert printed([make()]) == ""
    assert printed([one()]) == ""


def test_columns_are_told_apart_by_their_codes():
    for field in dataclasses.fields(attention_columns.Wording):
        assert len({getattr(column, field.name) for column in COLUMNS.values()}) == len(COLUMNS), field.name


def test_the_page_shows_which_keys_heads_and_queries_are_wrong():
    tiles = {
        "head": "in 2 of 8 heads",
        "query": "errors begin at query 64",
        "key": "errors begin at key 128",
        "16": "column = 0",
    }
    record = one(status="inaccurate", ratio=2.0, index=(0, 0, 0, 0), got="1", expected="2", tiles=tiles)

    assert where(record) == [
        ("which keys", "errors begin at key 128"),
        ("which heads", "in 2 of 8 heads"),
        ("which queries", "errors begin at query 64"),
        ("in the tile", "column = 0"),
    ]
    text = Page(page(record)).text
    for label, words in where(record):
        assert f"{label}{words}" in text
    assert where(one()) == []

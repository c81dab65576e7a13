"""known_failures.py: a list of failures with reasons that cannot rot."""

import pytest

from suite.records.known_failures import KnownFailure, apply, read, stale
from suite.records.record import PASSING, STATUSES
from suite.selection import cases_folder
from tests.records import make_record

CASE = "softmax/normal/4x4/s0"


def make(**changes):
    given = {
        "suite_version": "1", "kernel": "fused", "op": "softmax", "case": CASE, "family": "normal",
        "shape": (4, 4), "dtype": "float16", "status": "inaccurate", "message": "wrong",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def entry(kernel="fused", dtype="float16", device="cpu", case="softmax/*"):
    return KnownFailure(
        kernel, dtype, device, "inaccurate", case, "rounds twice", "https://example.org/1", "known.txt:3"
    )


def written(tmp_path, text):
    path = tmp_path / "known.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_entry_is_read_with_its_place(tmp_path):
    path = written(
        tmp_path,
        "# kernel dtype device status case\n\n   \nfused  float16\tcpu inaccurate softmax/*  a  reason | "
        " link \n",
    )

    assert read(path) == [
        KnownFailure("fused", "float16", "cpu", "inaccurate", "softmax/*", "a  reason", "link", "known.txt:4")
    ]


def test_a_file_of_comments_has_no_entries(tmp_path):
    assert read(written(tmp_path, "# nothing\n   # indented\n\n")) == []


@pytest.mark.parametrize(
    "line",
    [
        "fused",
        "fused float16 cpu softmax/*",
        "fused float16 cpu softmax/* reason without link",
        "fused float16 cpu softmax/* reason |",
        "fused float16 cpu inaccurate softmax/* reason |   ",
        "fused float16 cpu inaccurate softmax/* | link",
        "fused float16 cpu | link",
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path, line):
    path = written(tmp_path, f"# comment\n{line}\n")

    with pytest.raises(
        ValueError, match=r"expected 'kernel dtype device status case reason \| link', got"
    ) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize("make_it", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, make_it):
    path = tmp_path / "known.txt"
    make_it(path)

    with pytest.raises(ValueError, match=r"known-failures file '.*known.txt' cannot be read: \S"):
        read(path)


def test_this_suites_own_list_can_be_read_and_every_entry_has_a_link_or_says_that_none_exists():
    entries = read(cases_folder() / "known_failures.txt")

    assert entries
    assert [e.where for e in entries if not e.link.startswith(("https://", "no public issue"))] == []


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        (entry(), True),
        (entry(dtype="*"), True),
        (entry(dtype="float??"), True),
        (entry(dtype="bfloat16"), False),
        (entry(device="*"), True),
        (entry(device="cuda"), False),
        (entry(case=CASE), True),
        (entry(case="softmax"), False),
        (entry(case="SOFTMAX/*"), False),
        (entry(case="*/4x4/*"), True),
        (entry(kernel="naive"), False),
    ],
)
def test_an_entry_matches_by_patterns_in_dtype_device_and_case(given, matches):
    assert given.matches(make()) is matches


BACKWARD = "softmax/normal/4x4/upstream=normal/s0"


@pytest.mark.parametrize(
    ("pattern", "forward", "backward"),
    [
        ("*", True, False),
        ("softmax/*", True, False),
        ("softmax/normal/4x4/*", True, False),
        (CASE, True, False),
        (BACKWARD, False, True),
        ("softmax/*/upstream=*", False, True),
        ("softmax/*/upstream=normal/s?", False, True),
        ("*/upstream=n*", False, True),
        ("*/upstream=ones/*", False, False),
        ("*upstream=normal*", False, False),
    ],
)
def test_an_entry_means_cases_of_the_backward_only_where_it_says_so(pattern, forward, backward):
    """An entry of before there were gradients covers none of them, and one about gradients no
    forward case.
    """
    assert entry(case=pattern).names(CASE) is forward
    assert entry(case=pattern).names(BACKWARD) is backward
    assert entry(case=pattern).matches(make(case=BACKWARD)) is backward
    assert (apply(make(case=BACKWARD), [entry(case=pattern)]).status == "known_failure") is backward


def test_an_entry_about_gradients_is_read_applied_and_goes_stale_like_any_other(tmp_path):
    line = "fused  float16  cpu  inaccurate  softmax/*/upstream=*  saved in 16 bits | https://example.org/2"
    [known] = read(written(tmp_path, line))
    failed, passed = make(case=BACKWARD), make(case=BACKWARD, status="passed")

    assert known.case == "softmax/*/upstream=*"
    assert apply(failed, [known]).known == "saved in 16 bits (https://example.org/2; known.txt:1)"
    assert stale([known], [apply(failed, [known])], [CASE, BACKWARD], narrowed=False) == []
    assert stale([known], [passed], [CASE, BACKWARD], narrowed=False) == [
        "known.txt:1: fused passes softmax/*/upstream=* in float16: remove the entry"
    ]
    assert stale([known], [make(status="passed")], [CASE, BACKWARD], narrowed=False) == [], (
        "no case of the backward ran"
    )
    assert stale([known], [], [CASE], narrowed=False) == [
        "known.txt:1: 'softmax/*/upstream=*' matches no existing case"
    ]


def test_a_device_number_does_not_matter():
    assert entry(device="cuda").matches(make(device="cuda:1"))


@pytest.mark.parametrize("status", [s for s in STATUSES if s not in PASSING])
def test_a_failure_that_an_entry_explains_is_a_known_failure_with_reason_link_and_place(status):
    applied = apply(make(status=status), [entry(kernel="naive"), entry()])

    assert applied.status == "known_failure"
    assert applied.known == "rounds twice (https://example.org/1; known.txt:3)"
    assert (applied.id, applied.message) == (make().id, "wrong")


@pytest.mark.parametrize("status", PASSING)
def test_what_is_no_failure_stays_as_it_is(status):
    record = make(status=status)

    assert apply(record, [entry()]) is record


def test_a_failure_that_no_entry_explains_stays_a_failure():
    record = make(dtype="bfloat16")

    assert apply(record, [entry()]) is record
    assert apply(record, []) is record


def test_an_entry_that_matches_no_existing_case_is_stale_even_where_nothing_ran():
    assert stale([entry(case="sofmax/*")], [], [CASE], narrowed=False) == [
        "known.txt:3: 'sofmax/*' matches no existing case"
    ]
    assert len(stale([entry(case="sofmax/*")], [make()], [CASE], narrowed=True)) == 1


def test_an_entry_whose_cases_all_pass_is_stale():
    problems = stale([entry()], [make(status="passed")], [CASE], narrowed=False)

    assert problems == ["known.txt:3: fused passes softmax/* in float16: remove the entry"]


def test_an_entry_with_one_known_failure_among_its_cases_is_fresh():
    ran = [make(status="passed"), make(status="known_failure")]

    assert stale([entry()], ran, [CASE], narrowed=False) == []


def test_an_entry_whose_kernel_did_not_run_is_fresh():
    assert stale([entry()], [], [CASE], narrowed=False) == []
    assert stale([entry()], [make(kernel="naive", status="passed")], [CASE], narrowed=False) == []


def test_an_entry_whose_kernel_is_unsupported_is_fresh():
    """Where scipy is not installed nothing passed, so nothing is known of the entry."""
    assert stale([entry()], [make(status="unsupported")], [CASE], narrowed=False) == []


def test_a_narrowed_run_proves_nothing_about_an_entry_with_a_wildcard():
    assert stale([entry()], [make(status="passed")], [CASE], narrowed=True) == []


def test_a_narrowed_run_proves_something_about_an_exact_entry():
    assert stale([entry(case=CASE)], [make(status="passed")], [CASE], narrowed=True) == [
        f"known.txt:3: fused passes {CASE} in float16: remove the entry"
    ]


def test_every_stale_entry_is_named():
    entries = [entry(case="a"), entry(case="b"), entry()]

    assert len(stale(entries, [make(status="passed")], [CASE], narrowed=False)) == 3


def test_a_new_defect_does_not_hide_under_an_entry():
    """An entry for `inaccurate` does not cover a record that is nonfinite too."""
    known = entry()

    assert apply(make(broken=("inaccurate",)), [known]).status == "known_failure"
    for broken in (("nonfinite", "inaccurate"), ("inaccurate", "law_broken"), ("raised",)):
        record = make(status=broken[0], broken=broken)
        assert apply(record, [known]) is record


def test_an_unknown_status_is_answered_with_the_valid_ones(tmp_path):
    path = tmp_path / "known.txt"
    path.write_text("fused float16 cpu wrong softmax/* reason | link\n")

    with pytest.raises(ValueError, match=r"known\.txt:1: status 'wrong' is not one of not_run, .*inaccurate"):
        read(path)

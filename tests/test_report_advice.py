"""report/advice.py: which kernel is recommended, and what speaks against the others."""

from dataclasses import replace

import pytest

from suite.records.record import Measurement
from suite.report.advice import Standing, Subject, advise, grouped, ranked, standings, times_as_fast
from tests.records import make_record


def timed(kernel, milliseconds, *, op="softmax", direction="forward", device="cpu"):
    samples = [milliseconds / 1e3 * (0.99 + 0.002 * i) for i in range(11)]
    data = {"status": "passed", "direction": direction, "samples_seconds": samples}
    data |= {"median_seconds": samples[5], "low_seconds": samples[1], "high_seconds": samples[9]}
    return Measurement(kind="throughput", kernel=kernel, op=op, dtype="float32", device=device, data=data)


def judged(kernel, *statuses, op="softmax", family="normal", case="c", **changes):
    """Records of a kernel, one for each status; passed, where none is given."""
    about = {
        "suite_version": "1",
        "kernel": kernel,
        "op": op,
        "case": case,
        "family": family,
        "shape": (4, 8),
        "dtype": "float32",
    }
    return [
        make_record(**about, status=status, message="why", **changes) for status in statuses or ("passed",)
    ]


def used(records, *measurements):
    found = advise(measurements, standings(records))
    return found.use and found.use.kernel, [(m.kernel, reason) for m, reason in found.unsafe]


def test_the_fastest_is_used_where_nothing_speaks_against_it():
    assert used([*judged("a"), *judged("b")], timed("a", 1), timed("b", 2)) == ("a", [])


def test_one_evaluation_of_another_input_that_fails_is_enough():
    records = [*judged("a", "passed", "passed"), *judged("a", "nonfinite", family="huge"), *judged("b")]

    assert used(records, timed("a", 1), timed("b", 2)) == ("b", [("a", "passes 2 of 3")])


@pytest.mark.parametrize("status", ["known_failure", "unjudged", "not_run"])
def test_what_is_known_or_not_judged_is_no_pass(status):
    assert used([*judged("a", "passed", status), *judged("b")], timed("a", 1), timed("b", 2))[0] == "b"


def test_what_is_unsupported_speaks_against_nothing():
    assert used(judged("a", "passed", "unsupported"), timed("a", 1)) == ("a", [])


@pytest.mark.parametrize(
    ("numerics", "reason"),
    [
        ("probabilities=input, shift=none, domain", "declares probabilities=input, shift=none, a domain"),
        ("shift=none", "declares shift=none"),
        ("best practice, domain", "declares a domain"),
    ],
)
def test_a_kernel_that_says_where_it_fails_is_never_used(numerics, reason):
    """It passes wherever it was judged: bench alone times inputs that no kernel finds hard."""
    records = [*judged("naive", numerics=numerics), *judged("b")]

    assert used(records, timed("naive", 1), timed("b", 2)) == ("b", [("naive", reason)])


def test_a_declared_wider_bound_is_no_reason_and_is_told():
    records = judged("a", numerics="shift=lse")

    assert used(records, timed("a", 1)) == ("a", [])
    assert standings(records)[Subject("softmax", "a", "float32", "forward", "cpu")].declares == "shift=lse"


def test_a_kernel_without_verdicts_is_not_used():
    assert used(judged("b"), timed("a", 1), timed("b", 2)) == ("b", [("a", "no verdict on this page")])


def test_a_kernel_that_was_judged_in_two_versions_is_not_used():
    """Which of them was timed nothing says. An unsupported record has no verdict, but a version."""
    one, other = judged("a", kernel_version="11aa"), judged("a", direction="backward", kernel_version="22bb")
    beside = [
        *judged("b", kernel_version="33cc"),
        *judged("b", op="log_softmax", kernel_version="44dd"),
        *judged("b"),
    ]

    found = used([*one, *other, *beside], timed("a", 1), timed("b", 2))

    assert found == ("b", [("a", "judged in 2 versions")])


def test_another_op_direction_or_device_says_nothing():
    others = [
        *judged("a", op="log_softmax"),
        *judged("a", direction="backward"),
        *judged("a", device="cuda:0"),
    ]

    assert used(others, timed("a", 1))[0] is None
    assert used(others, timed("a", 1, device="cuda:1"))[0] == "a"


def test_a_failing_forward_speaks_against_the_backward():
    records = [*judged("a", "inaccurate"), *judged("a", direction="backward")]

    assert used(records, timed("a", 1, direction="backward")) == (None, [("a", "passes 1 of 2")])


def test_families_are_counted_over_all_evaluations():
    assert standings([*judged("a"), *judged("a", family="huge")])[
        Subject("softmax", "a", "float32", "forward", "cpu")
    ] == Standing(evaluations=2, passed=2, families=frozenset({"normal", "huge"}))


def test_only_what_may_be_used_is_named_as_fast():
    records = [*judged("a"), *judged("b"), *judged("naive", numerics="shift=none"), *judged("slow")]

    found = advise(
        [timed("a", 1), timed("naive", 1.001), timed("b", 1.002), timed("slow", 2)], standings(records)
    )

    assert [m.kernel for m in found.as_fast] == ["b"]


def test_others_are_measured_by_the_fastest_of_torch():
    records = judged("online", op="attention")
    ranked = [
        timed(kernel, n, op="attention")
        for n, kernel in enumerate(("online", "sdpa_math", "sdpa_flash"), start=1)
    ]

    assert advise(ranked, standings(records)).torch.kernel == "sdpa_math"
    assert advise(ranked[:1], standings(records)).torch is None


def test_how_many_times_as_fast_has_an_interval():
    times, low, high = times_as_fast(timed("a", 1), timed("b", 2))

    assert times == pytest.approx(2.0)
    assert 1.95 < low < 2 < high < 2.05


def test_what_failed_while_it_was_timed_has_not_passed():
    """Its record says that it passed, on the input of the record."""
    broken = timed("a", 1)
    broken = replace(broken, case="d", data=broken.data | {"status": "raised", "samples_seconds": []})
    records = [*judged("a", case="c"), *judged("a", case="d"), *judged("b")]
    ranking = [timed("a", 1), timed("b", 2)]

    found = advise(ranking, standings(records, [broken, *ranking]))

    assert found.use.kernel == "b"
    assert [(m.kernel, reason) for m, reason in found.unsafe] == [("a", "passes 1 of 2")]


def test_what_has_no_times_is_not_ranked():
    slow, fast, untimed = timed("a", 2), timed("b", 1), timed("c", 1)
    untimed = replace(untimed, data=untimed.data | {"status": "inaccurate"})

    assert ranked([slow, fast, untimed]) == [fast, slow]


def test_inputs_are_apart_by_op_direction_format_device_and_case():
    one, other = timed("a", 1), timed("b", 1)
    elsewhere = replace(timed("a", 1), device="cuda")

    assert list(grouped([one, other, elsewhere]).values()) == [[one, other], [elsewhere]]

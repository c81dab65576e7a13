"""report/compare.py and baseline.py: regressions are found, noise is not called slower."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.inputs.draws import Draw
from suite.records.record import STATUSES, Measurement, Record
from suite.records.store import Run, Store
from suite.report import FullDiskError
from suite.report.baseline import broken_by, covers, read_baseline, tightened, write_baseline
from suite.report.compare import Pair, compare, worsened
from suite.report.compare_files import COLUMNS, rows, to_csv, to_json
from suite.report.compare_runs import read, read_runs
from suite.report.gates import gate, parse_gates, parse_share
from suite.report.speed import SPEEDS, judge_speed, ratio_interval, resampled_median, verdict_of
from tests.records import make_record

INF, NAN = math.inf, math.nan
ENVIRONMENT = {"env_id": "e1", "threads": 1, "cpu_capability": "AVX2", "device": "cpu"}


def record(**changes):
    given = {
        "suite_version": "1", "kernel": "online", "op": "softmax", "case": "softmax/normal/4x64/s0",
        "family": "normal", "shape": (4, 64), "dtype": "float32", "status": "passed", "message": "made up",
        "ratio": 0.25, "max_ulp": 1.0, "digest": "d1", "env_id": "e1", "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def timed(
    samples,
    *,
    kernel="online",
    case="softmax/normal/4x64/s0",
    device="cpu",
    op="softmax",
    dtype="float32",
    **data,
):
    """A throughput measurement as `bench` writes it."""
    given = {
        "status": "passed", "ratio": 0.25, "max_ulp": 1.0, "digest": "d", "direction": "forward",
        "shape": [4, 64], "bytes": 2048, "operations": 1280, "clock": "perf_counter", "cache": "warm",
        "threads": 1, "calls_per_sample": 10, "samples_seconds": list(samples), "median_seconds": None,
        "low_seconds": None, "high_seconds": None, "peak_bytes": 0, "compile_seconds": None,
        "copy_bytes_per_second": 1e10, "matmul_operations_per_second": 1e11, "note": "",
    }  # fmt: skip
    return Measurement(
        kind="throughput", kernel=kernel, op=op, dtype=dtype, device=device, case=case, data={**given, **data}
    )


def run(*held, environment=ENVIRONMENT, name="run"):
    records = tuple(one for one in held if isinstance(one, Record))
    return Run(
        Path(name), environment, records, (), tuple(one for one in held if isinstance(one, Measurement))
    )


def noisy(key, count=60, *, scale=1e-3, spread=0.05):
    """Times with a spread, seeded by the key."""
    return (scale * np.exp(spread * Draw(key).normal(count))).tolist()


def stored(folder, *held, environment=ENVIRONMENT):
    """A real run folder of these."""
    store = Store(folder)
    store.write_environment(environment)
    for one in held:
        store.append(one) if isinstance(one, Record) else store.append_measurement(one)
    store.close()
    return folder


def compared(base, new, **options):
    """The only pair of two records."""
    [pair] = compare(run(base), run(new), **options).pairs
    return pair


# what is joined


def test_runs_are_joined_by_op_kernel_case_dtype_and_direction():
    kept = record()
    others = [
        record(kernel="fused"), record(op="log_softmax"), record(case="softmax/normal/4x65/s0"),
        record(dtype="float64"), record(direction="backward"),
    ]  # fmt: skip

    found = compare(run(kept, *others), run(kept))

    assert [(p.base, p.new) for p in found.pairs] == [(kept, kept), *((other, None) for other in others)]


def test_machines_stand_side_by_side_where_each_has_one_device_of_its_own():
    cpu, cuda, second = record(), record(device="cuda"), record(device="cuda:1")

    across = compare(run(cpu), run(cuda)).pairs
    both = compare(run(cpu, cuda), run(cpu, second)).pairs
    more = compare(run(cpu), run(cpu, cuda)).pairs

    assert [(p.base, p.new) for p in across] == [(cpu, cuda)]
    assert [(p.base, p.new) for p in both] == [(cpu, cpu), (cuda, second)]
    assert [(p.base, p.new) for p in more] == [(cpu, cpu), (None, cuda)]


def test_nothing_in_common_says_what_each_side_has():
    with pytest.raises(
        ValueError,
        match=r"'A' has 1 evaluations and 0 .* softmax online in float32; 'B' has .* softmax fused",
    ):
        compare(run(record(), name="A"), run(record(kernel="fused"), name="B"))


@pytest.mark.parametrize(
    ("one", "other", "hint"),
    [
        (
            record(kernel="v1/my.py:f"),
            record(kernel="v2/my.py:f"),
            r"; a kernel is named as --kernel named it, so v1/my.py:f and v2/my.py:f are two kernels; to"
            r" compare versions, run "
            r"them under one path, or name both in one run and see its report$",
        ),
        (record(kernel="v1/my.py:f"), record(kernel="v2/my.py:g"), r"softmax v2/my.py:g in float32$"),
        (
            record(),
            record(case="softmax/normal/4x128/s0"),
            r"; the cases differ, such as softmax/normal/4x64/s0 and softmax/normal/4x128/s0$",
        ),
        (
            timed([1e-3]),
            timed([1e-3], case="softmax/normal/4x128/s0"),
            r"; the cases differ, such as softmax/normal/4x64/s0 and softmax/normal/4x128/s0$",
        ),
        (record(), record(dtype="float16"), r"softmax online in float16$"),
        (record(), record(direction="backward"), r"; the directions differ: forward and backward$"),
    ],
)
def test_nothing_in_common_says_what_keeps_equal_things_apart(one, other, hint):
    with pytest.raises(ValueError, match=hint):
        compare(run(one, name="A"), run(other, name="B"))


# verdicts


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ("passed", "inaccurate", "new failure"),
        ("known_failure", "inaccurate", "new failure"),
        ("unsupported", "raised", "new failure"),
        ("passed", "unjudged", "new failure"),
        ("passed", "not_run", "new failure"),
        ("inaccurate", "crashed", "new failure"),
        (None, "inaccurate", "new failure"),
        ("crashed", "inaccurate", "other verdict"),
        ("passed", "known_failure", "other verdict"),
        ("passed", "unsupported", "no verdict now"),
        ("inaccurate", "passed", "mended"),
        ("inaccurate", "inaccurate", ""),
        (None, "passed", "new"),
        ("passed", None, "gone"),
    ],
)
def test_a_change_of_verdict_has_a_name(before, now, change):
    always = record(kernel="always")
    sides = [run(always, *([record(status=status)] if status else [])) for status in (before, now)]

    pairs = [pair for pair in compare(*sides).pairs if pair.record.kernel == "online"]

    assert [pair.change for pair in pairs] == [change]


def test_the_gate_of_statuses_names_each_new_failure_and_nothing_else():
    base = run(record(), record(kernel="fused"), record(kernel="bad", status="inaccurate"))
    new = run(record(status="nonfinite"), record(kernel="fused"), record(kernel="bad", status="inaccurate"))

    reasons = gate(compare(base, new), {"status": None})

    assert list(map(str, reasons)) == [
        "status: online float32 cpu softmax/normal/4x64/s0: passed before, nonfinite now"
    ]
    assert gate(compare(base, base), {"status": None, "accuracy": None, "speed": None}) == []


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ("passed", "unsupported")])
def test_a_kernel_that_fails_while_it_is_timed_is_a_new_failure(status):
    """Its evaluation passed: only the measurement says that it was caught."""
    base, new = run(record(), timed(noisy("a"))), run(record(), timed([], status=status))
    words = (
        f"status: online float32 cpu softmax/normal/4x64/s0: passed before, {status} now, while it was timed"
    )

    assert list(map(str, gate(compare(base, new), {"status": None}))) == [words]
    assert [speed.change for speed in compare(base, new).changes()["new failure"]] == ["new failure"]
    assert gate(compare(new, new), {"status": None}) == []
    assert gate(compare(new, base), {"status": None}) == []
    assert [speed.change for speed in compare(new, base).changes()["mended"]] == ["mended"]


def test_a_failure_that_an_evaluation_tells_is_told_once():
    base = run(record(), timed(noisy("a")))
    new = run(record(status="inaccurate"), timed([], status="inaccurate"))

    assert len(gate(compare(base, new), {"status": None})) == 1
    assert [type(one) for one in compare(base, new).changes()["new failure"]] == [Pair]


def test_the_first_measurement_of_a_kernel_can_be_a_new_failure_too():
    [reason] = gate(compare(run(record()), run(record(), timed([], status="raised"))), {"status": None})

    assert "absent before, raised now, while it was timed" in str(reason)


def test_times_that_only_one_run_has_are_counted():
    there, alone = timed(noisy("a")), timed(noisy("b"), kernel="fused")

    assert compare(run(there, alone), run(there)).count()["timed"] == {"gone": 1}
    assert compare(run(there), run(there, alone)).count()["timed"] == {"new": 1}


def test_a_failing_kernel_gets_no_speed_whatever_its_samples_say():
    """bench leaves no samples of one; a measurement that has them all the same proves nothing."""
    speed = judge_speed(timed(noisy("a")), timed(noisy("b", scale=1e-6), status="inaccurate"))

    assert (speed.verdict, speed.note) == ("not comparable", "new has no times: inaccurate")
    assert (
        judge_speed(timed(noisy("a"), status="raised"), timed(noisy("b"))).note == "base has no times: raised"
    )


# accuracy


@pytest.mark.parametrize(
    ("before", "after", "change", "meaningful"),
    [
        ((0.25, 1.0), (0.25, 1.0), "equal", False),
        ((0.25, 1.0), (0.25, 1.0 + 2**-50), "worse", False),
        ((0.25, 1.0), (0.25 - 2**-50, 2.0), "better", False),
        ((0.25, 1.0), (0.5, 2.0), "worse", False),
        ((0.25, 1.0), (0.51, 2.0), "worse", True),
        ((0.51, 2.0), (0.25, 1.0), "better", True),
        ((0.0, 0.5), (0.06, 0.6), "worse", False),
        ((0.0, 0.5), (0.07, 0.6), "worse", True),
        ((0.9, 3.0), (1.1, 3.5), "worse", True),
        ((0.25, 1.0), (INF, None), "worse", True),
        ((0.25, 1.0), (NAN, NAN), "worse", True),
        ((NAN, NAN), (INF, None), "equal", False),
        ((None, None), (0.5, 1.0), "", False),
    ],
)
def test_accuracy_is_compared_exactly_and_meaningful_by_the_written_rule(before, after, change, meaningful):
    base, new = (record(ratio=ratio, max_ulp=ulp) for ratio, ulp in (before, after))

    pair = compared(base, new)

    assert pair.accuracy == (change, meaningful)
    assert bool(gate(compare(run(base), run(new)), {"accuracy": None})) == (change == "worse" and meaningful)


def test_no_change_of_a_declared_failure_is_meaningful():
    pair = compared(record(status="known_failure", ratio=10.0), record(status="known_failure", ratio=1e6))

    assert pair.accuracy == ("worse", False)


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_error_is_meaningfully_worse_in_both_directions(one, other):
    assert not (worsened(one, other) and worsened(other, one))
    assert not worsened(one, one)


# bits


@pytest.mark.parametrize(
    ("changes", "environment", "bits"),
    [
        ({}, {}, "same"),
        ({"digest": "d2"}, {}, "other"),
        ({"digest": ""}, {}, ""),
        ({"env_id": "e2"}, {"env_id": "e2"}, "not comparable"),
        ({"env_id": "e2"}, {}, "not comparable"),
        ({}, {"threads": 2}, "not comparable"),
        ({}, {"cpu_capability": "AVX512"}, "not comparable"),
        ({"device": "cuda"}, {}, "not comparable"),
    ],
)
def test_bits_are_compared_within_one_environment_only(changes, environment, bits):
    found = compare(run(record()), run(record(**changes), environment={**ENVIRONMENT, **environment}))

    assert [pair.bits for pair in found.pairs] == [bits]


# speed


def test_resampled_medians_are_as_likely_as_drawn_ones():
    """The closed form beside 20,000 seeded resamples: within five standard errors of a share."""
    draw, count = Draw("resampled"), 20_000
    for n in (6, 7, 20):
        ordered = np.sort(draw.integers(n, count, n), axis=1)
        middle = np.concatenate([ordered[:, (n - 1) // 2], ordered[:, n // 2]])
        shares = np.bincount(middle, minlength=n) / len(middle)
        expected = resampled_median(n)

        assert expected.sum() == pytest.approx(1, abs=1e-12)
        assert np.all(np.abs(shares - expected) < 5 * np.sqrt(expected / count) + 1e-4)


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("count", [6, 20, 100])
def test_noise_is_seldom_called_faster_or_slower_and_the_interval_holds(count, spread):
    """Both sides of one distribution. At most 5 % may be FASTER or SLOWER; the interval has a level
    of 95 %, of which 200 comparisons show at least 90 % with probability above 0.998.
    """
    draws = np.exp(spread * Draw(f"null {count} {spread}").normal(200, 2, count))
    intervals = [ratio_interval(base, new) for base, new in draws.tolist()]
    verdicts = [verdict_of(low, high, 0.05) for low, high in intervals]

    assert sum(verdict in ("FASTER", "SLOWER") for verdict in verdicts) <= 0.05 * 200
    assert sum(low <= 0 <= high for low, high in intervals) >= 0.9 * 200


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.2, "SLOWER"), (0.8, "FASTER"), (1.01, "SAME"), (1.05, "AMBIGUOUS")]
)
def test_a_change_of_speed_is_found(factor, verdict):
    base, new = timed(noisy("base")), timed(noisy("new", scale=1e-3 * factor))

    speed = judge_speed(base, new)

    assert speed.verdict == verdict
    assert speed.low < factor < speed.high


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.051, 1.2, "SLOWER"),
        (1.049, 1.2, "AMBIGUOUS"),
        (0.8, 0.952, "FASTER"),
        (0.8, 0.953, "AMBIGUOUS"),
        (0.953, 1.049, "SAME"),
        (0.953, 1.051, "AMBIGUOUS"),
        (0.951, 1.049, "AMBIGUOUS"),
    ],
)
def test_the_verdict_is_of_the_whole_interval(low, high, verdict):
    """Of a threshold of 5 % the limits are 1.05 and 1 / 1.05 = 0.95238."""
    assert verdict_of(math.log(low), math.log(high), 0.05) == verdict


times = st.lists(st.floats(1e-9, 10), min_size=6, max_size=30)


@settings(deadline=None, max_examples=150)
@given(times, times)
def test_swapping_the_runs_swaps_faster_and_slower(base, new):
    there, back = judge_speed(timed(base), timed(new)), judge_speed(timed(new), timed(base))
    swapped = {"FASTER": "SLOWER", "SLOWER": "FASTER"}

    assert back.verdict == swapped.get(there.verdict, there.verdict)
    assert ratio_interval(base, new) == tuple(-end for end in reversed(ratio_interval(new, base)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STATUSES, "known_failure"]), st.none() | st.floats(0), st.text(max_size=3)
        ),
        max_size=4,
    ),
    st.lists(times, min_size=1, max_size=2),
)
def test_a_run_beside_itself_changes_nothing(outcomes, samples):
    records = [record(kernel=f"k{i}", status=s, ratio=r, digest=d) for i, (s, r, d) in enumerate(outcomes)]
    same = run(*records, *(timed(some, kernel=f"k{i}") for i, some in enumerate(samples)))

    found = compare(same, same)

    assert [p.change for p in found.pairs] == [""] * len(records)
    assert {p.accuracy.change for p in found.pairs} <= {"equal", ""}
    assert {p.bits for p in found.pairs} <= {"same", ""}
    assert {s.verdict for s in found.speeds} <= {"SAME", "AMBIGUOUS"}
    assert gate(found, {"status": None, "accuracy": None, "speed": None}) == []


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.floats(0) | st.just(NAN), st.floats(0) | st.none(), st.floats(0)), min_size=1, max_size=3
    )
)
def test_swapping_the_runs_swaps_better_and_worse(errors):
    there = [record(kernel=f"k{i}", ratio=before, max_ulp=ulp) for i, (before, ulp, _) in enumerate(errors)]
    back = [record(kernel=f"k{i}", ratio=after, max_ulp=ulp) for i, (_, ulp, after) in enumerate(errors)]
    mirrored = {"better": "worse", "worse": "better", "equal": "equal"}

    found, swapped = (compare(run(*one), run(*other)).pairs for one, other in ((there, back), (back, there)))

    assert [(mirrored[p.accuracy.change], p.accuracy.meaningful) for p in found] == [
        p.accuracy for p in swapped
    ]


def test_what_was_not_measured_alike_is_not_compared():
    base = timed(noisy("a"))

    assert judge_speed(base, timed(noisy("b"), cache="flushed")).verdict == "not comparable"
    assert judge_speed(base, timed(noisy("b"), clock="cuda_event")).verdict == "not comparable"
    assert judge_speed(base, timed(noisy("b"), device="cuda", clock="cuda_event")).verdict == "SAME"
    assert judge_speed(base, timed([], status="inaccurate")).note == "new has no times: inaccurate"
    assert judge_speed(base, timed([1.0] * 5)).verdict == "AMBIGUOUS"
    assert judge_speed(timed([]), timed([])).verdict == ""
    assert set(SPEEDS) == {"FASTER", "SLOWER", "SAME", "AMBIGUOUS", "not comparable"}


def test_the_gate_of_speed_asks_for_an_interval_beyond_its_own_limit():
    base, slow = run(timed(noisy("a", spread=0.01))), run(timed(noisy("b", scale=1.08e-3, spread=0.01)))
    found = compare(base, slow)

    assert [s.verdict for s in found.speeds] == ["SLOWER"]
    assert len(gate(found, parse_gates("speed"))) == 1
    assert gate(found, parse_gates("speed:10%")) == []
    assert gate(found, parse_gates("status,accuracy")) == []
    [wide] = compare(
        run(timed(noisy("a", 8, spread=0.5))), run(timed(noisy("b", 8, scale=1.5e-3, spread=0.5)))
    ).speeds
    assert wide.low < 1.1 < wide.ratio
    assert gate(compare(run(wide.base), run(wide.new)), parse_gates("speed:10%")) == []


@pytest.mark.parametrize("text", ["speed:10%,speed:5%", "status,status", "speed,accuracy, speed:5%"])
def test_a_gate_is_named_once(text):
    with pytest.raises(
        ValueError, match=r"names (speed|status) twice; expected none, or some of status, accuracy, speed, "
    ):
        parse_gates(text)


def test_gates_and_shares_are_read_or_refused():
    assert parse_gates("status, accuracy,speed:10%") == {"status": None, "accuracy": None, "speed": 0.1}
    assert parse_gates("none") == {}
    for text in (
        "",
        "fast",
        "status:3%",
        "speed:",
        "speed:ten",
        "speed:10",
        "speed:-1%",
        "speed:nan%",
        "status;speed",
    ):
        with pytest.raises(ValueError, match=r"expected"):
            parse_gates(text)
    with pytest.raises(ValueError, match=r"'5' names no percentage"):
        parse_share("5")


# reading


def test_a_real_run_is_read_with_its_times(tmp_path):
    folder = stored(
        tmp_path / "a", record(), timed(noisy("a")), timed(noisy("b"), case="softmax/normal/4x65/s0")
    )

    found = read(folder)

    assert (len(found.records), len(found.measurements), found.notices) == (1, 2, ())


def test_a_run_of_times_alone_can_be_compared(tmp_path):
    base, new = (stored(tmp_path / name, timed(noisy(name))) for name in "ab")

    assert [s.verdict for s in compare(*read_runs([base, new])).speeds] == ["SAME"]


def test_a_torn_last_line_is_skipped_with_a_notice(tmp_path):
    folder = stored(tmp_path / "a", record(), record(kernel="fused"))
    [path] = folder.glob("records-*.jsonl")
    path.write_bytes(path.read_bytes()[:-40])

    found = read(folder)

    assert [r.kernel for r in found.records] == ["online"]
    assert [":2 skipped" in notice for notice in found.notices] == [True]


def spoil_schema(folder):
    [path] = folder.glob("records-*.jsonl")
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 99'))


def spoil_schema_without_an_end(folder):
    """The only line, whole but for its line break: not torn, but of another version."""
    [path] = folder.glob("records-*.jsonl")
    path.write_text(path.read_text().splitlines()[0].replace('"schema": 2', '"schema": 99'))


def spoil_line(folder):
    [path] = folder.glob("records-*.jsonl")
    path.write_text(path.read_text().replace('"ratio": 0.25', '"ratio": "small"'))


def spoil_kernel(folder):
    """The verdict of one kernel under the name of another."""
    [path] = folder.glob("records-*.jsonl")
    path.write_text(path.read_text().replace('"kernel": "fused"', '"kernel": "mine"'))


def spoil_torn_middle(folder):
    [path] = folder.glob("records-*.jsonl")
    path.write_text(path.read_text()[100:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_schema, r"records-.*:1 cannot be read: schema=99 is not one that this version reads"),
        (spoil_schema_without_an_end, r"records-.*:1 cannot be read: schema=99 is not one"),
        (spoil_line, r"records-.*:1 cannot be read: ratio='small' must be"),
        (
            spoil_kernel,
            (
                r"records-.*:2 cannot be read: id='r[0-9a-f]{12}' is that of another evaluation; the line was"
                r" changed"
            ),
        ),
        (spoil_torn_middle, r"records-.*:1 cannot be read"),
        (lambda folder: (folder / "env.json").unlink(), r"env.json cannot be read: .*does not exist"),
        (lambda folder: (folder / "env.json").write_text("[]"), r"env.json is not a JSON object"),
        (lambda folder: (folder / "run.json").write_text('{"schema": 1}'), r"run.json cannot be read"),
    ],
)
def test_a_run_that_was_changed_is_refused_and_named(tmp_path, spoil, message):
    folder = stored(tmp_path / "spoilt", record(), record(kernel="fused"))
    spoil(folder)

    with pytest.raises(ValueError, match=message) as refusal:
        read(folder)
    assert "spoilt" in str(refusal.value)


def test_what_is_no_run_is_refused(tmp_path):
    folder = stored(tmp_path / "a", record())
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder)

    for path, message in ((tmp_path / "none", "is not a folder"), (tmp_path / "empty", "is no run folder")):
        with pytest.raises(ValueError, match=message):
            read_runs([folder, path])
    with pytest.raises(ValueError, match=r"is named twice"):
        read_runs([folder, tmp_path / "link"])


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({"samples_seconds": [0.0]}, r"samples_seconds\[0\]=0.0 is not between"),
        ({"samples_seconds": ["fast"]}, r"samples_seconds\[0\]='fast' must be a number"),
        ({"samples_seconds": [1.0] * 1001}, r"1,001 samples; expected at most 1,000"),
        ({"status": "great"}, r"status='great' is not one of"),
        ({"shape": 4}, r"shape=4 must be a list"),
        ({"ratio": -1.0}, r"ratio=-1.0 must be a number of at least 0"),
        ({"max_ulp": -1.0}, r"max_ulp=-1.0 must be a number of at least 0"),
    ],
)
def test_a_measurement_of_no_known_shape_is_refused_and_named(tmp_path, data, wrong):
    folder = stored(tmp_path / "a", record(), timed(**{"samples": [1.0], **data}))

    with pytest.raises(ValueError, match=r"'.*/a': measurements-.*\.jsonl:1 cannot be read") as refusal:
        read(folder)
    assert "throughput of softmax online float32 on softmax/normal/4x64/s0: data" in str(refusal.value)
    assert re.search(wrong, str(refusal.value))


# files


def test_the_files_have_a_row_for_each_evaluation_and_each_time():
    base = run(record(kernel="=cmd()"), timed(noisy("a")), name="A")
    new = run(record(kernel="=cmd()", ratio=INF, status="nonfinite"), timed(noisy("b")), name="B")
    comparisons = [compare(base, new)]

    found = list(rows(comparisons))
    text = to_csv(comparisons)
    data = json.loads(json.dumps(to_json(comparisons), allow_nan=False))

    assert [(row["what"], row["new_run"], row["change"], row["speed"]) for row in found] == [
        ("evaluation", "B", "new failure", None),
        ("throughput", "B", "", "SAME"),
    ]
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert ",'=cmd()," in text
    assert data["rows"][0]["new_ratio"] == "inf"
    assert data["comparisons"][0]["counts"]["change"] == {"new failure": 1}


def test_the_files_have_what_was_caught_while_it_was_timed():
    base, new = (
        run(record(), timed(noisy("a")), name="A"),
        run(record(), timed([], status="raised", note="KeyError"), name="B"),
    )
    comparison = compare(base, new)
    comparison = replace(comparison, reasons=tuple(gate(comparison, {"status": None})))

    _, row = csv.DictReader(io.StringIO(to_csv([comparison])))
    data = json.loads(json.dumps(to_json([comparison]), allow_nan=False))

    assert (row["what"], row["change"], row["base_status"], row["new_status"]) == (
        "throughput",
        "new failure",
        "passed",
        "raised",
    )
    assert data["rows"][1]["change"] == "new failure"
    assert data["comparisons"][0]["counts"]["timed"] == {"new failure": 1}
    assert data["reasons"] == data["comparisons"][0]["reasons"] == list(map(str, comparison.reasons))


def test_no_character_of_the_csv_acts():
    hostile = "a\x1b[31m\r\nb\u202e\x00"
    comparison = compare(
        run(timed([1.0] * 9, kernel=hostile)), run(timed([], kernel=hostile, status="raised", note=hostile))
    )

    text = to_csv([comparison])

    assert "a\\x1b[31m\\r\\nb\\u202e\\x00" in text
    assert re.sub(r"[\r\n]", "", text).isprintable()
    assert len(text.splitlines()) == 2
    assert "x" * 5000 in to_csv([compare(run(record(kernel="x" * 5000)), run(record(kernel="x" * 5000)))])


# baseline


KEY = ("softmax", "online", "softmax/normal/4x64/s0", "float32")


def test_a_baseline_only_tightens():
    better, worse, added = record(ratio=0.1), record(ratio=0.4), record(kernel="fused", ratio=0.3)

    assert tightened({KEY: 0.25}, [better]) == {KEY: 0.1}
    assert tightened({KEY: 0.25}, [worse]) == {KEY: 0.25}
    assert tightened({KEY: 0.25}, [record(ratio=0.0, status="inaccurate")]) == {KEY: 0.25}
    assert tightened({KEY: 0.25}, [better, record(ratio=0.2, device="cuda")]) == {KEY: 0.2}
    assert tightened({KEY: 0.25}, [added]) == {KEY: 0.25, ("softmax", "fused", KEY[2], "float32"): 0.3}


def test_a_pattern_covers_several_cases_and_is_a_persons_to_change():
    pattern = (*KEY[:2], "softmax/normal/*", KEY[3])

    assert tightened({pattern: 0.25}, [record(ratio=0.1)]) == {pattern: 0.25}
    assert broken_by({pattern: 0.25}, run(record(ratio=0.3))) == []
    assert len(broken_by({pattern: 0.25}, run(record(ratio=0.6), record(ratio=0.6, kernel="fused")))) == 1
    assert len(broken_by({pattern: 0.25, KEY: 0.1}, run(record(ratio=0.3)))) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["passed", "inaccurate", "raised"]), st.floats(0, 5)
        )
    )
)
def test_no_entry_is_ever_loosened_or_lost(outcomes):
    baseline = {("softmax", kernel, KEY[2], "float32"): 0.5 for kernel in "ab"}
    records = [record(kernel=kernel, status=status, ratio=ratio) for kernel, status, ratio in outcomes]

    found = tightened(baseline, records)

    assert all(found[key] <= ratio for key, ratio in baseline.items())
    for kernel in {r.kernel for r in records if r.status == "passed"}:
        worst = max(r.judgement.ratio for r in records if r.kernel == kernel and r.status == "passed")
        assert found["softmax", kernel, KEY[2], "float32"] == min(
            worst, baseline.get(("softmax", kernel, *KEY[2:]), INF)
        )


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"ratio": 0.5}, False),
        ({"ratio": 0.51}, True),
        ({"ratio": NAN, "status": "nonfinite"}, True),
        ({"ratio": None, "status": "crashed"}, True),
        ({"ratio": 0.2, "status": "law_broken"}, True),
        ({"ratio": 5.0, "status": "known_failure"}, False),
        ({"ratio": None, "status": "unsupported"}, False),
    ],
)
def test_what_is_worse_than_the_baseline_fails(changes, broken):
    assert bool(broken_by({KEY: 0.25}, run(record(**changes)))) == broken
    assert covers({KEY: 0.25}, [record()])
    assert not covers({KEY: 0.25}, [record(kernel="fused")])


def test_a_kernel_that_fails_while_it_is_timed_breaks_its_baseline():
    caught = run(record(), timed([], status="raised"))

    assert list(map(str, broken_by({KEY: 0.25}, caught))) == [
        "baseline: online float32 softmax/normal/4x64/s0: raised now, while it was timed"
    ]
    assert (
        broken_by({KEY: 0.25}, run(record(), timed([], status="raised", case="softmax/normal/4x65/s0"))) == []
    )
    assert len(broken_by({KEY: 0.25}, run(record(status="raised"), timed([], status="raised")))) == 1


def test_a_baseline_survives_its_file(tmp_path):
    path, baseline = tmp_path / "baseline.json", {KEY: 0.1, (*KEY[:2], "softmax/*", "float64"): 1 / 3}

    write_baseline(path, baseline)

    assert read_baseline(path) == baseline
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]


def test_a_write_that_fails_leaves_the_old_baseline(tmp_path, monkeypatch):
    path = tmp_path / "baseline.json"
    write_baseline(path, {KEY: 0.1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FullDiskError, match=r"cannot be written: No space left"):
        write_baseline(path, {KEY: 0.05})

    assert read_baseline(path) == {KEY: 0.1}
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]


def test_a_missing_baseline_says_how_to_make_one(tmp_path):
    with pytest.raises(
        ValueError, match=r"base.json' does not exist; --update-baseline makes it of the new runs$"
    ):
        read_baseline(tmp_path / "base.json")
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_baseline(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "must be a JSON object"),
        ('{"schema": 2, "entries": []}', "schema=2 is not one"),
        ('{"schema": 1}', "entries=None must be"),
        ('{"schema": 1, "entries": [{"op": "a"}]}', "has no 'kernel'"),
        (
            '{"schema": 1, "entries": [{"op":"a","kernel":"b","case":"c","dtype":"d","ratio":-1}]}',
            "not between",
        ),
        (
            '{"schema": 1, "entries": [%s, %s]}'
            % (('{"op":"a","kernel":"b","case":"c","dtype":"d","ratio":1}',) * 2),
            "two entries",
        ),
    ],
)
def test_an_unreadable_baseline_is_refused_and_named(tmp_path, text, message):
    path = tmp_path / "base.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=rf"base.json.*cannot be read.*{message}"):
        read_baseline(path)

"""The page, the terminal and the command of `compare`: what they answer, how they end, and that
they trust nobody.
"""

import errno
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from suite.commands.main import cli
from suite.records.flat import changed
from suite.records.record import Measurement, Record
from suite.records.store import Run, Store
from suite.report.compare import Reason, compare
from suite.report.compare_best import rate
from suite.report.compare_page import render
from suite.report.compare_terminal import print_comparison
from suite.report.compare_words import answer, environments, run_names
from suite.report.words import seconds
from tests.records import make_record
from tests.test_report import Page, check_that_it_runs_nothing_and_asks_nobody

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    "env_id": "e1",
    "threads": 1,
    "cpu_capability": "AVX2",
    "cpu": "EPYC",
    "packages": {"torch": "2.13.0"},
}
HOSTILE = "<b>&\"'<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}{% x %}[red]\x1b[31m\u202e"
FAST, SLOW = [1e-3 + 1e-6 * i for i in range(20)], [2e-3 + 1e-6 * i for i in range(20)]


def record(**changes):
    given = {
        "suite_version": "1", "kernel": "online", "op": "softmax", "case": "softmax/normal/4x64/s0",
        "family": "normal", "shape": (4, 64), "dtype": "float32", "status": "passed", "message": "made up",
        "ratio": 0.25, "max_ulp": 1.0, "digest": "d1", "env_id": "e1", "kernel_version": "v1",
        "reproduce": "softmax-suite check",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def timed(samples, *, kernel="online", case="softmax/normal/4x64/s0", device="cpu", **data):
    given = {
        "status": "passed", "ratio": 0.25, "max_ulp": 1.0, "direction": "forward", "shape": [4, 64],
        "bytes": 2_000_000, "operations": 1280, "clock": "perf_counter", "cache": "warm", "threads": 1,
        "samples_seconds": samples, "copy_bytes_per_second": 1e10, "matmul_operations_per_second": 1e11,
        "note": "",
    }  # fmt: skip
    return Measurement(
        kind="throughput",
        kernel=kernel,
        op="softmax",
        dtype="float32",
        device=device,
        case=case,
        data={**given, **data},
    )


def run(*held, name="A", environment=ENVIRONMENT, notices=()):
    records = tuple(one for one in held if isinstance(one, Record))
    return Run(
        Path(name), environment, records, notices, tuple(one for one in held if isinstance(one, Measurement))
    )


def stored(folder, *held, environment=ENVIRONMENT):
    store = Store(folder)
    store.write_environment(environment)
    for one in held:
        store.append(one) if isinstance(one, Record) else store.append_measurement(one)
    store.close()
    return folder


def everything(text="x", *, name="B"):
    """Two comparisons with every kind of row, and `text` wherever a stranger's text can stand."""
    words = {"kernel": text, "message": text, "reproduce": text, "kernel_version": text}
    base = run(
        record(**words), record(kernel="gone"), record(kernel="mended", status="inaccurate"),
        record(kernel="better", ratio=0.9), record(kernel="lost"), timed(FAST, kernel=text),
        timed(FAST, kernel="same"), timed(FAST, kernel="dead"), environment={**ENVIRONMENT, "cpu": text},
    )  # fmt: skip
    new = run(
        record(**{**words, "status": "inaccurate", "ratio": 9.0}), record(kernel="new"),
        record(kernel="mended"), record(kernel="better", ratio=0.1),
        record(kernel="lost", status="unsupported", ratio=None), timed(SLOW, kernel=text),
        timed(FAST, kernel="same"), timed([], kernel="dead", status="inaccurate", note=text),
        record(kernel="quick", status="known_failure", numerics="shift=none"),
        timed(FAST[:6], kernel="quick"), timed(FAST, kernel="mended", case=f"softmax/{text}/4x64/s0"),
        name=name, environment={**ENVIRONMENT, "threads": 2, text: {text: [text]}}, notices=(text,),
    )  # fmt: skip
    other = run(record(device="cuda", **words), timed(FAST, kernel=text, device="cuda"), name="C")
    return [compare(base, new), compare(base, other)]


def refused(comparisons, text):
    """The same, the first of them refused by a gate."""
    first, *others = comparisons
    return [replace(first, reasons=(Reason("status", text),)), *others]


def test_the_page_runs_nothing_and_asks_nobody():
    text = render(refused(everything(HOSTILE), HOSTILE), gates="--fail-on status")

    check_that_it_runs_nothing_and_asks_nobody(text)


def test_text_of_strangers_makes_no_tag_and_stays_visible():
    hostile, harmless = (
        Page(render(refused(everything(text), text), gates="status")) for text in (HOSTILE, "# plain")
    )

    assert Counter(tag for tag, _ in hostile.tags) == Counter(tag for tag, _ in harmless.tags)
    assert "\x1b" not in hostile.text
    assert "\u202e" not in hostile.text
    assert "<script>alert(1)</script>" in hostile.text
    assert "{{ 7*7 }}" in hostile.text


def test_home_folders_stand_in_the_page_only_where_asked():
    comparisons = everything("/home/somebody/kernels.py:mine")

    assert "somebody" not in render(comparisons)
    assert "~/kernels.py:mine" in render(comparisons)
    assert "/home/somebody/kernels.py:mine" in render(comparisons, show_paths=True)


def test_the_page_answers_first_and_shows_what_differs_before_the_rest():
    text = Page(render(everything("mine"))).text
    places = [
        text.index(words)
        for words in (
            (
                "Worse: 1 new failure, 1 new failure while timed, 1 meaningfully larger error and 1"
                " measurement SLOWER"
            ),
            "Environments",
            "Verdicts",
            "Speed",
            "Accuracy",
        )
    ]

    assert places == sorted(places)
    assert "Not worse" in text
    for words in (
        "Mended",
        "Unsupported now",
        "Only in B",
        "Gone: only in A",
        "SLOWER",
        "faster, but: quick (declares shift=none",
    ):
        assert words in text, words


def test_the_answer_counts_what_was_compared_and_what_was_not():
    worse, fine = (answer(one) for one in everything())

    assert (
        worse[0] == "Worse: 1 new failure, 1 new failure while timed, 1 meaningfully larger error "
        "and 1 measurement SLOWER (1.99 times the time), which no gate refuses."
    )
    assert worse[1].startswith(
        "4 evaluations in both runs, 2 only in the new one, 1 gone, 1 unsupported now. Times:"
    )
    assert worse[1].endswith("Times: 1 SLOWER, 1 SAME, 1 not comparable, 2 only in the new one.")
    assert fine[0] == "Not worse: no new failure, no meaningfully larger error."


def test_the_sentence_follows_the_reasons():
    """Also where what fails is the gate of speed or the baseline, and where no gate asks for what
    is worse.
    """
    worse, fine = everything()
    slow, below = Reason("speed", "x"), Reason("baseline", "x")

    assert answer(worse)[0].startswith(
        "Worse: 1 new failure, 1 new failure while timed, 1 meaningfully larger error and 1 measurement"
        " SLOWER"
    )
    both = (Reason("status", "x"), Reason("accuracy", "x"))
    assert answer(replace(worse, reasons=both))[0].startswith(
        "Worse: 1 new failure, 1 new failure while timed and 1 meaningfully larger error; "
    )
    assert answer(replace(fine, reasons=(slow, slow)))[0] == "Worse: 2 times above the gate of speed."
    assert (
        answer(replace(fine, reasons=(slow, below)))[0]
        == "Worse: 1 time above the gate of speed and 1 evaluation against the baseline."
    )


def test_what_is_slower_is_said_also_where_no_gate_refuses_it():
    slower = compare(run(timed(FAST)), run(timed(SLOW), name="B"))

    assert answer(slower)[0] == "Worse: 1 measurement SLOWER (1.99 times the time), which no gate refuses."
    assert (
        answer(replace(slower, reasons=(Reason("speed", "x"),)))[0]
        == "Worse: 1 time above the gate of speed."
    )


def test_what_a_gate_refuses_stands_before_what_none_does():
    names = ("a", "b", "c")
    base = run(record(), *(timed(FAST, kernel=name) for name in names))
    times = [
        timed([second * factor for second in FAST], kernel=name)
        for name, factor in zip(names, (1.5, 3, 9), strict=True)
    ]
    new = compare(base, run(record(status="inaccurate", ratio=9.0), *times, name="B"))

    assert (
        answer(replace(new, reasons=(Reason("status", "x"),)))[0]
        == "Worse: 1 new failure; 1 meaningfully larger error and 3 measurements SLOWER (up to 9 times the"
        " time), which no gate refuses."
    )
    assert (
        answer(replace(new, reasons=(Reason("speed", "x"), Reason("status", "x"), Reason("accuracy", "x"))))[
            0
        ]
        == "Worse: 1 new failure, 1 meaningfully larger error and 1 time above the gate of speed; "
        "2 measurements SLOWER (up to 3 times the time), which no gate refuses."
    )


def caught(note="KeyError: 3", *, name="B"):
    """A kernel whose evaluation passes on both sides, and which is caught while it is timed in the
    new run.
    """
    base = run(record(), timed(FAST), timed(FAST, kernel="other"))
    new = run(record(), timed([], status="raised", note=note), timed(FAST, kernel="lost"), name=name)
    return compare(base, new)


def test_a_kernel_caught_while_it_was_timed_stands_on_the_page_and_in_the_terminal(capsys):
    text = " ".join(re.sub(r"<[^>]+>", " ", render([caught()])).split())
    print_comparison([caught()])
    out = capsys.readouterr().out

    assert answer(caught())[0] == "Worse: 1 new failure while timed, which no gate refuses."
    assert "passed raised while timed KeyError: 3" in text
    assert "raised while timed" in " ".join(out.split())
    assert "new has no times: raised" in out
    for words in (text, out):
        assert "Worse: 1 new failure while timed" in words
        assert "Times: 1 not comparable, 1 only in the new one, 1 gone." in words
    assert "Only in B op kernel evaluations times softmax lost 1" in text


def faster_and_broken():
    """One kernel that is faster and newly fails, with an error that is no number; another that is
    only faster.
    """
    both = [record(kernel=kernel, case=f"softmax/{family}/4x64/s0", ratio=ratio)
            for kernel in ("broken", "fine") for family,
            ratio in (("normal", 0.25), ("huge", 0.5))]  # fmt: skip
    after = [
        changed(r, status="nonfinite", ratio=None) if r.kernel == "broken" and "huge" in r.case else r
        for r in both
    ]
    base = run(*both, timed(SLOW, kernel="broken"), timed(SLOW, kernel="fine"))
    return compare(base, run(*after, timed(FAST, kernel="broken"), timed(FAST, kernel="fine"), name="B"))


def test_a_kernel_that_is_faster_and_newly_fails_is_not_shown_as_better(capsys):
    page = " ".join(render([faster_and_broken()]).split())
    print_comparison([faster_and_broken()])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FASTER")]

    assert re.findall(
        r'<span class="chip faster">FASTER</span></td><td class="tight">softmax</td><td class="words">(\w+)',
        page,
    ) == ["fine"]
    # Beside its speed, and beside the worst error of what passes.
    assert page.count("<small>but 1 new failure</small>") == 2
    assert re.search(r'<tr class="worse"><td>softmax</td><td class="words">broken</td>', page)
    assert [("broken" in line, "but 1 new failure" in line) for line in lines].count((True, True)) == 1
    assert sum("but 1 new failure" in line for line in lines) == 1


def test_the_answer_gives_no_ulps():
    """Of an output near 0 they are large and mean nothing; the bound says what they mean."""
    tiny = run(record(), timed(FAST, max_ulp=499_043.0, ratio=0.001))

    text = render([compare(tiny, tiny)])

    assert "&lt;0.01 × bound</small>" in text
    assert "499,043" not in text


def test_facts_that_differ_stand_apart_from_those_that_do_not():
    found = environments(
        [
            run(timed(FAST)),
            run(timed(FAST), environment={**ENVIRONMENT, "threads": 2, "packages": {"torch": "2.14"}}),
        ]
    )

    assert found["unlike"] == [
        ("threads", ["1", "2"]),
        ("packages torch", ["2.13.0", "2.14"]),
    ]
    assert {fact for fact, _ in found["alike"]} >= {"cpu", "env id", "copies, measured"}


def test_what_only_run_measures_is_no_difference_of_environments():
    """bench does not measure the library of elementary functions."""
    libm = {"libm": {"exp_ulp": 0.66, "points": 100_000}}

    one, other = (
        run(environment=ENVIRONMENT | libm),
        run(environment={**ENVIRONMENT, "libm": {"exp_ulp": 0.7, "points": 100_000}}),
    )

    assert [fact for fact, _ in environments([one, run()])["unlike"]] == []
    assert [fact for fact, _ in environments([one, other])["unlike"]] == ["libm exp ulp"]


def test_inputs_that_no_new_run_has_timed_are_counted_and_left_out(capsys):
    """Beside a published run of thousands of inputs, most rows would be dashes."""
    base = run(
        record(),
        timed(FAST),
        timed(FAST, case="softmax/normal/4x128/s0"),
        timed(FAST, case="softmax/normal/4x256/s0"),
    )
    comparison = compare(
        base, run(record(), timed(FAST), timed(FAST, case="softmax/normal/4x512/s0"), name="B")
    )

    page = " ".join(render([comparison]).split())
    print_comparison([comparison])
    out = capsys.readouterr().out

    best = page[page.index("Which kernel to use") :]
    assert re.findall(r'<td class="words input"><code>([^<]+)', best[: best.index("<h2>")]) == [
        "normal/4x512",
        "normal/4x64",
    ]
    assert "2 inputs that A alone has timed are left out." in page
    assert "2 inputs that A alone has timed are left out" in out
    assert "4x256" not in out


def test_runs_have_short_names_that_differ():
    names = run_names([run(name=path) for path in ("/r/cpu/new", "/r/cuda/new", "/r/cuda/old")])

    assert names == ["cpu/new", "cuda/new", "cuda/old"]
    assert run_names([run(name="/r/a"), run(name="/s/b")]) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5, "2.5 s"),
        (1.5e-3, "1.5 ms"),
        (9.996e-4, "1,000 µs"),
        (3e-7, "300 ns"),
        (4e-12, "0.004 ns"),
        (1e4, "10,000 s"),
    ],
)
def test_a_time_stands_in_its_unit(value, text):
    assert seconds(value) == text


def test_a_rate_is_of_what_limits_the_kernel():
    assert rate(timed([1e-3])) == "2 GB/s, 20%"
    assert rate(timed([1e-3], operations=9e7)) == "0.09 TFLOP/s, 90%"
    assert rate(timed([1e-3], copy_bytes_per_second=None, matmul_operations_per_second=None)) == "2 GB/s"
    assert rate(timed([1e-3], bytes=None, operations=None)) == ""


def test_the_terminal_says_the_same(capsys):
    print_comparison(refused(everything(HOSTILE), f"because{HOSTILE}"))

    out = capsys.readouterr().out

    assert "\x1b" not in out
    assert "\u202e" not in out
    for words in (
        "Worse: 1 new failure",
        "Not worse",
        "SLOWER",
        "what differs",
        "which kernel to use",
        "status: because",
    ):
        assert words in out
    assert "[red]" in out


# the command


def invoke(*arguments):
    result = CliRunner().invoke(cli, ["compare", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folders(tmp_path):
    base = stored(tmp_path / "A", record(), record(kernel="fused"), timed(FAST))
    worse = stored(tmp_path / "B", record(ratio=0.9), record(kernel="fused"), timed(SLOW))
    return base, worse


@pytest.mark.parametrize(
    ("gates", "code"),
    [("status", 0), ("accuracy", 1), ("none", 0), ("speed:10%", 1), ("speed:150%", 0), ("status,speed", 1)],
)
def test_gates_decide_the_exit_code(folders, gates, code):
    assert invoke(*folders, "--fail-on", gates).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["--fail-on", "none"],
            0,
            (
                "Worse: 1 meaningfully larger error and 1 measurement SLOWER (1.99 times the time), which no"
                " gate refuses."
            ),
        ),
        (
            ["--fail-on", "accuracy"],
            1,
            (
                "Worse: 1 meaningfully larger error; 1 measurement SLOWER (1.99 times the time), which no"
                " gate refuses."
            ),
        ),
        (
            ["--fail-on", "speed:10%"],
            1,
            "Worse: 1 time above the gate of speed; 1 meaningfully larger error, which no gate refuses.",
        ),
    ],
)
def test_the_last_line_and_the_page_say_what_the_exit_code_says(folders, tmp_path, arguments, code, sentence):
    result = invoke(*folders, *arguments)
    with_page = invoke(*folders, *arguments, "--out", tmp_path / "c.html")

    assert (result.exit_code, result.output.splitlines()[-1]) == (code, sentence)
    assert (with_page.exit_code, sentence in (tmp_path / "c.html").read_text()) == (code, True)


def test_of_several_runs_the_last_line_names_those_that_fail(folders, tmp_path):
    copy = stored(tmp_path / "copy", record(), record(kernel="fused"), timed(FAST))

    failing, fine = invoke(*folders, copy), invoke(*folders, copy, "--fail-on", "none")

    assert (failing.exit_code, failing.output.splitlines()[-1]) == (1, "Gates refuse B.")
    assert "B: accuracy: online" in failing.output
    assert (fine.exit_code, fine.output.splitlines()[-1]) == (0, "Gates refuse none.")


def test_accuracy_blocks_and_speed_informs_by_default(folders, tmp_path):
    slower = stored(tmp_path / "slower", record(), timed(SLOW))

    assert invoke(*folders).exit_code == 1
    assert invoke(folders[0], slower).exit_code == 0
    assert "SLOWER" in invoke(folders[0], slower).output


def test_a_run_is_no_worse_than_its_own_copy(folders, tmp_path):
    copy = stored(tmp_path / "copy", record(), record(kernel="fused"), timed(FAST))

    result = invoke(folders[0], copy, "--fail-on", "status,accuracy,speed:1%")

    assert result.exit_code == 0
    assert "Not worse" in result.output
    assert "1 SAME" in result.output


def test_the_command_writes_its_files(folders, tmp_path):
    page, table, data = (tmp_path / name for name in ("c.html", "c.csv", "c.json"))

    result = invoke(*folders, "--out", page, "--csv", table, "--json", data)

    assert f"page: {page}" in result.output
    assert Page(page.read_text()).broken == []
    assert len(table.read_text().splitlines()) == 4
    assert '"reasons": ["accuracy: online' in data.read_text()


def test_a_baseline_is_made_then_kept_then_tightened(folders, tmp_path):
    base, worse = folders
    better = stored(tmp_path / "better", record(ratio=0.1))
    baseline = tmp_path / "baseline.json"
    fail = ("--fail-on", "none", "--baseline", baseline)

    assert invoke(worse, base, *fail, "--update-baseline").exit_code == 0
    made = baseline.read_text()
    assert invoke(base, worse, *fail, "--update-baseline").exit_code == 1
    assert baseline.read_text() == made
    assert invoke(base, better, *fail, "--update-baseline").exit_code == 0
    assert '"ratio": 0.1' in baseline.read_text()
    assert invoke(better, base, *fail).exit_code == 1


def test_what_a_baseline_refuses_is_worse_by_the_last_line_too(folders, tmp_path):
    base, _ = folders
    baseline = tmp_path / "baseline.json"
    best = stored(tmp_path / "best", record(ratio=0.1))
    invoke(base, best, "--baseline", baseline, "--update-baseline")

    result = invoke(best, base, "--fail-on", "none", "--baseline", baseline)

    assert (result.exit_code, result.output.splitlines()[-1]) == (
        1,
        "Worse: 1 evaluation against the baseline; 1 meaningfully larger error, which no gate refuses.",
    )


@pytest.mark.parametrize("option", ["--out", "--csv", "--json"])
def test_a_place_that_takes_no_file_is_said_after_the_comparison(folders, tmp_path, option):
    """Exit code 2, and 4 for a full disk; never a traceback."""
    for place, code, words in (
        (tmp_path / "no" / "file", 2, "No such file"),
        (Path("/dev/full"), 4, "No space left"),
    ):
        result = invoke(*folders, option, place)

        assert result.exit_code == code, result.output
        assert "Worse: 1 meaningfully larger error; 1 measurement SLOWER" in result.output
        assert words in result.output.split("Worse:")[1]


def test_a_full_disk_keeps_the_old_baseline(folders, tmp_path, monkeypatch):
    baseline = tmp_path / "baseline.json"
    update = ("--fail-on", "none", "--baseline", baseline, "--update-baseline")
    invoke(*folders, *update)
    made = baseline.read_text()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = invoke(*reversed(folders), *update)

    assert (result.exit_code, baseline.read_text()) == (4, made)
    assert "cannot be written: No space left on device" in result.output.split("Not worse")[1]


def test_a_baseline_is_written_through_a_link(folders, tmp_path):
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "real.json", tmp_path / "link.json"
    link.symlink_to(target)

    result = invoke(*folders, "--fail-on", "none", "--baseline", link, "--update-baseline")

    assert result.exit_code == 0, result.output
    assert link.is_symlink()
    assert '"ratio": 0.9' in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["real.json"]


def contents(*folders):
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}


@pytest.mark.parametrize("option", ["--out", "--csv", "--json", "--baseline"])
def test_no_file_of_a_compared_run_is_overwritten(folders, tmp_path, option):
    """By its name, through a link, or by a second name of the file."""
    base, worse = folders
    (base / "run.json").unlink(missing_ok=True)
    [records] = worse.glob("records-*.jsonl")
    [measurements] = base.glob("measurements-*.jsonl")
    (tmp_path / "symbolic").symlink_to(base / "env.json")
    (tmp_path / "hard").hardlink_to(records)
    before = contents(*folders)
    for target in (
        base / "env.json", base / "run.json", base / ".lock", records, measurements,
        worse / "records-new.jsonl", tmp_path / "symbolic", tmp_path / "hard",
        tmp_path / "A" / ".." / "A" / "env.json",
    ):  # fmt: skip
        result = invoke(*folders, option, target, *(["--update-baseline"] if option == "--baseline" else []))

        assert result.exit_code == 2, (target, result.output)
        assert "belongs to a run that is compared" in " ".join(result.output.split()), result.output
    assert contents(*folders) == before


def test_no_file_is_written_twice_and_no_baseline_overwritten(folders, tmp_path):
    baseline, one = tmp_path / "baseline.json", tmp_path / "one"
    invoke(*folders, "--baseline", baseline, "--update-baseline")
    made = baseline.read_text()

    for arguments in (
        ("--baseline", baseline, "--json", baseline),
        ("--csv", one, "--out", tmp_path / "A" / ".." / "one"),
    ):
        result = invoke(*folders, *arguments)

        assert result.exit_code == 2
        assert "are one file; name two" in " ".join(result.output.split())
    assert baseline.read_text() == made
    assert not one.exists()


def test_reports_and_pages_may_stand_in_the_folder_of_a_run(folders):
    for _ in range(2):
        result = invoke(*folders, "--out", folders[1] / "compare.html", "--csv", folders[1] / "compare.csv")

        assert result.exit_code == 1, result.output


def test_messages_of_misuse_show_names_of_strangers_visibly(folders, tmp_path):
    foreign = stored(tmp_path / "foreign", record(kernel="k\x1b[31m\u202e"))

    result = invoke(folders[0], foreign)

    assert result.exit_code == 2
    assert "k\\x1b[31m\\u202e" in result.output
    assert result.output.replace("\n", "").isprintable()


def test_misuse_ends_with_2_and_says_why(folders, tmp_path):
    base, worse = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{")
    foreign = stored(tmp_path / "foreign", record(op="log_softmax"))
    bare = stored(tmp_path / "bare", record())
    (bare / "env.json").unlink()
    for arguments, words in (
        ((base, base), "named twice"),
        ((base, tmp_path / "none"), "is not a folder"),
        ((base, tmp_path / "empty"), "is no run folder"),
        ((base, bare), "env.json cannot be read"),
        ((base, foreign), "nothing in common"),
        ((base,), "Missing argument"),
        ((base, worse, "--fail-on", "speedy"), "is no gate"),
        ((base, worse, "--threshold", "5"), "names no percentage"),
        ((base, worse, "--baseline", tmp_path / "bad.json"), "cannot be read"),
        ((base, worse, "--baseline", tmp_path / "missing.json"), "does not exist"),
        ((base, worse, "--update-baseline"), "--baseline names"),
        ((base, worse, "--out", tmp_path), "is a directory"),
        ((base, worse, "--csv", tmp_path), "cannot be written: Is a directory"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in " ".join(result.output.split()), arguments
        assert "Traceback" not in result.output


WITHOUT_TORCH = """
import sys
from click.testing import CliRunner
from suite.commands.main import cli
result = CliRunner().invoke(cli, ["compare", *sys.argv[1:]])
assert result.exit_code == 0, (result.output, result.exception)
print(*[name for name in ("torch", "matplotlib", "pandas") if name in sys.modules], "asleep")
"""


def test_comparing_wakes_no_heavy_library(folders, tmp_path):
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        *map(str, folders),
        f"--out={tmp_path / 'c.html'}",
        "--fail-on=none",
    ]

    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert (finished.stdout, finished.stderr) == ("asleep\n", "")

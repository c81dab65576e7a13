"""The whole GPU run, on the CPU: what fails is recorded and the rest goes on, inside the budget;
the table says what is so.
"""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from suite.commands import stages
from suite.commands.gpu_run import judged, table
from suite.commands.main import main
from suite.commands.stages import Outcome, Stage, run_stages
from suite.oracle.cache import default_folder
from suite.records.configuration import Configuration
from suite.records.store import Store
from tests.extras import needs
from tests.records import make_record


def python(*codes):
    return tuple((sys.executable, "-c", code) for code in codes)


def run(tmp_path, *planned, budget_seconds=60.0):
    return run_stages(planned, tmp_path, budget_seconds=budget_seconds, say=lambda _: None)


def test_a_stage_that_fails_is_recorded_and_the_next_one_runs(tmp_path):
    fault = Stage(
        name="fault", commands=python("print('an illegal memory access', flush=True); import os; os.abort()")
    )
    after = Stage(name="after", commands=python("print('done')"))

    first, second = run(tmp_path, fault, after)

    assert (first.stage, first.status, first.note) == (
        "fault",
        "failed",
        "exit code -6: an illegal memory access",
    )
    assert (second.stage, second.status, second.note) == ("after", "done", "")
    assert (tmp_path / "after-1.log").read_text() == "done\n"


def test_commands_run_side_by_side_and_all_of_them_count(tmp_path):
    meeting = (
        "import pathlib, time\npathlib.Path({own!r}).touch()\nwhile not pathlib.Path({other!r}).exists():"
        " time.sleep(0.01)"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    codes = meeting.format(own=a, other=b), meeting.format(own=b, other=a) + "\nraise SystemExit(3)"

    [bad] = run(tmp_path, Stage(name="pair", commands=python(*codes)))
    [good] = run(tmp_path, Stage(name="pair", commands=python(*codes), good=(0, 3)))

    assert (bad.status, bad.note) == ("failed", "exit code 3: it said nothing")
    assert good.status == "done"


def test_a_stage_is_interrupted_when_its_time_is_over(tmp_path, ignored):
    kept = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept what there was')"
    begin = time.monotonic()

    [outcome] = run(tmp_path, Stage(name="long", commands=python(kept), share=0.02))

    assert (outcome.status, outcome.note) == ("interrupted", "its 1 s were over")
    assert time.monotonic() - begin < 8
    assert (tmp_path / "long-1.log").read_text() == "kept what there was\n"


@pytest.fixture(params=[False, True], ids=["in front", "in the background"])
def ignored(request):
    """Where a shell starts this in the background, interruptions are ignored."""
    before = signal.getsignal(signal.SIGINT)
    if request.param:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def alive(process):
    """Whether a process is there and no corpse that nobody has buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("leader", ["ignores the interruption", "leaves its child behind"])
def test_a_stage_that_is_killed_leaves_no_process_behind(leader, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.5)
    stubborn = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nchild = os.fork()\n"
        f"if child: print(child, flush=True); {leader.startswith('leaves')} and sys.exit(0)\ntime.sleep(60)"
    )

    [outcome] = run(tmp_path, Stage(name="stubborn", commands=python(stubborn), share=0.02))

    child = int((tmp_path / "stubborn-1.log").read_text())
    assert outcome.status == ("interrupted" if leader.startswith("ignores") else "done")
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def test_no_stage_begins_when_the_budget_is_spent(tmp_path):
    kept = []
    slow = Stage(name="slow", commands=python("import time; time.sleep(1)"))
    late = Stage(name="late", commands=python("raise SystemExit(1)"))

    outcomes = run_stages(
        [slow, late],
        tmp_path,
        budget_seconds=stages.LEAST_SECONDS + 0.5,
        say=lambda _: None,
        keep=lambda o: kept.append(len(o)),
    )

    assert [one.status for one in outcomes] == ["done", "skipped"]
    assert outcomes[1].note == "the budget is spent"
    assert not (tmp_path / "late-1.log").exists()
    assert kept == [1, 2]


def test_what_has_a_reserve_runs_when_the_budget_is_spent_with_the_runs_that_there_are(tmp_path):
    for name in ("first", "third"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records-1.jsonl").touch()
    begun = tuple(tmp_path / name for name in ("first", "second", "third"))
    slow = Stage(name="slow", commands=python("import time; time.sleep(60)"))
    join = Stage(name="join", commands=python("import sys; print(*sys.argv[1:])"), runs=begun, reserved=True)
    nothing = Stage(
        name="nothing", commands=python("raise SystemExit(1)"), runs=(tmp_path / "none",), reserved=True
    )

    outcomes = run_stages(
        [slow, join, nothing],
        tmp_path,
        budget_seconds=stages.LEAST_SECONDS + 0.5,
        reserved_seconds=20.0,
        say=lambda _: None,
    )

    assert [one.status for one in outcomes] == ["interrupted", "done", "skipped"]
    assert (tmp_path / "join-1.log").read_text().split() == [str(begun[0]), str(begun[2])]
    assert outcomes[2].note == "there is no run to take"


# The table.


def record(kernel, status, case="softmax/normal/1x3/s0"):
    return make_record(
        suite_version="0", started="2026-11-21T10:00:00+00:00", kernel=kernel, kernel_version="0",
        outside=False, op="softmax", case=case, family="normal", shape=(1, 3), options={}, laws=(),
        profile="smoke", seed=0, dtype="float32", device="cpu", direction="forward", strict=False,
        status=status, message=status, reproduce="",
    )  # fmt: skip


def configuration(planned, shard):
    return Configuration(asked={}, kernels={}, code={}, env_id="e", shard=shard, planned=planned).to_dict()


def test_failed_evaluations_are_counted_and_their_kernels_named(tmp_path):
    with_failures, without, part, shard = (
        Store(tmp_path / name) for name in ("with", "without", "part", "shard")
    )
    for kernel, status in (
        ("good", "passed"),
        ("bad", "inaccurate"),
        ("bad", "crashed"),
        ("odd", "known_failure"),
    ):
        with_failures.append(record(kernel, status, case=f"softmax/normal/{len(status)}x3/s0"))
    for store, planned, of in (
        (with_failures, 4, "1/1"),
        (without, 1, "1/1"),
        (part, 3, "1/1"),
        (shard, 1, "2/8"),
    ):
        if store is not with_failures:
            store.append(record("good", "passed"))
        store.write_json("run.json", configuration(planned, of))
        store.close()
    (tmp_path / "empty").mkdir()

    rows = judged(tmp_path / "with")

    assert [(row["what"], row["measured"], row["met"]) for row in rows] == [
        ("evaluations that failed", 2, False),
        ("failed: softmax bad", 2, False),
    ]
    assert rows[0]["note"] == "2 failed, 1 known_failure, 1 passed"
    assert [row["met"] for row in judged(tmp_path / "without")] == [True]
    for name, note in (
        ("part", "INCOMPLETE: 1 of 3 are judged; 1 passed"),
        ("shard", "INCOMPLETE: only shards 2/8; 1 passed"),
        ("empty", "nothing was judged"),
        ("none", "nothing was judged"),
    ):
        [row] = judged(tmp_path / name)
        assert (row["met"], row["note"]) == (False, note)


def test_the_table_shows_each_goal_beside_what_was_measured():
    rows = [
        {
            "what": "softmax: of copy",
            "measured": 0.87,
            "unit": "",
            "goal": 0.9,
            "met": False,
            "note": "triton_fused 31 us",
        },
        {"what": "attention", "measured": None, "unit": "", "goal": 0.6, "met": False, "note": "wrong"},
        {"what": "copy", "measured": 4123.4, "unit": "GB/s", "goal": None, "met": None, "note": ""},
    ]
    lines = table(
        rows, [Outcome(stage="bench", status="failed", seconds=3.25, note="exit code 4")]
    ).splitlines()

    assert lines[1].split() == [
        "softmax:",
        "of",
        "copy",
        "0.87",
        "0.9",
        "NOT",
        "MET",
        "triton_fused",
        "31",
        "us",
    ]
    assert lines[2].split() == ["attention", "-", "0.6", "NOT", "MET", "wrong"]
    assert lines[3].split() == ["copy", "4123", "GB/s"]
    assert lines[-1].split() == ["bench", "3.2", "failed", "exit", "code", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "is not empty; name a new folder"),
        (("--budget-seconds", "nan"), "'--budget-seconds': 'nan' is not a number above 0"),
        (("--jobs", "0"), "'--jobs': 0 is not in the range 1<=x<="),
        (("--op", "sofmax"), "'sofmax' is not one of 'softmax'"),
    ],
)
def test_misuse_is_told_before_anything_runs(arguments, message, tmp_path, capsys):
    if not arguments:
        (tmp_path / "file").touch()

    with pytest.raises(SystemExit) as ended:
        main(["gpu-run", "--out", str(tmp_path), "--device", "cpu", *arguments])

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cuda"), "--device cuda: torch finds no CUDA device here"),
        (("--device", "gpu"), "--device gpu is not one of cuda, cuda:N, cpu"),
        (("--device", "cpu", "--out", "FILE"), "FILE' is a file"),
        (("--device", "cpu", "--out", "FILE/below"), "FILE/below' cannot be made: Not a directory"),
        (("--device", "cpu", "--references", "missing.npz"), "--references 'missing.npz' is no file"),
    ],
)
def test_what_cannot_run_is_told_before_anything_runs(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (tmp_path / "FILE").touch()

    with pytest.raises(SystemExit) as ended:
        main(
            [
                "gpu-run",
                "--out",
                str(tmp_path / "out"),
                *(word.replace("FILE", str(tmp_path / "FILE")) for word in arguments),
            ]
        )

    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.share(of=4, group="whole runs")
def test_the_whole_run_on_the_cpu(tmp_path, monkeypatch, capfd):
    """As on a GPU, with every stage small and Triton's kernels interpreted; some 30 seconds."""
    needs("triton")
    own = tmp_path / "cache"  # nobody else's bench is in it
    own.mkdir()
    for measured in default_folder().glob("libm-*.json"):
        shutil.copy(measured, own)
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(own))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # its times do not count here
    out = tmp_path / "out"
    arguments = ["--device", "cpu", "--profile", "smoke", "--op", "merge_states", "--jobs", "2"]

    with pytest.raises(SystemExit) as ended:
        main(["gpu-run", "--out", str(out), *arguments])

    printed = capfd.readouterr().out
    written = json.loads((out / "gpu_run.json").read_text())
    assert [(one["stage"], one["status"]) for one in written["stages"]] == [
        (name, "done") for name in ("facts", "correctness", "merge", "timers", "goals", "bench", "report")
    ], printed
    assert ended.value.code == 0
    assert {row["what"]: row["met"] for row in written["rows"]}["evaluations that failed"] is True
    assert sum("of copy" in row["what"] for row in written["rows"]) == 3
    assert all(row["measured"] > 0 for row in written["rows"] if row["goal"])
    for name in ("correctness/env.json", "correctness/records.csv", "bench/env.json", "report.html"):
        assert (out / name).stat().st_size
    assert list((out / "bench").glob("measurements-*.jsonl"))
    assert "\nstage" in printed

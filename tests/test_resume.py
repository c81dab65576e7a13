"""No loss, as a user meets it: a full disk, a folder in use, --resume, --shard and merge, a run
shared by workers.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import suite.execution.evaluation
import suite.studies
from suite.commands.main import cli
from suite.records.configuration import read_configuration
from suite.records.record import Measurement
from suite.records.store import read_run

ROOT = Path(__file__).parent.parent
SELECTION = ("--op=softmax", "--dtype=float32", "--kernel=shifted")
KNOWN = "shifted float32 cpu inaccurate softmax/sparse/16x33/s0 it does not | https://example.org/1\n"


def invoke(*arguments):
    """The result of a command in this process; an exception that left it is raised here."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def facts(folder):
    """The records of a run folder as they are written, times apart."""
    return {r.id: {**r.to_dict(), "started": "", "seconds": 0} for r in read_run(folder).records}


def lines(folder):
    return [line for path in sorted(folder.glob("records-*.jsonl")) for line in path.read_text().splitlines()]


def passed(folder):
    return sum(record["status"] == "passed" for record in facts(folder).values())


def start(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    given = {
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        **options,
    }
    return subprocess.Popen([sys.executable, *(str(a) for a in arguments)], **given)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    assert invoke("run", *SELECTION, "--out", folder).exit_code == 0
    return folder


@pytest.fixture
def half(whole, tmp_path):
    """A run that was killed while it wrote its fourth record."""
    folder = shutil.copytree(whole, tmp_path / "half")
    [file] = folder.glob("records-*.jsonl")
    file.write_text("".join(line + "\n" for line in lines(whole)[:3]) + lines(whole)[3][:200])
    for name in ("report.html", "records.csv"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def evaluated(monkeypatch):
    """The case ids that are evaluated, not resumed."""
    found, original = [], suite.execution.evaluation.evaluate

    def counting(case, *rest, **given):
        found.append(case.id)
        return original(case, *rest, **given)

    monkeypatch.setattr(suite.execution.evaluation, "evaluate", counting)
    return found


# --resume


def test_a_run_says_what_it_is_before_its_first_record(whole):
    configuration = read_configuration(whole)

    assert configuration.planned == len(lines(whole)) > 6
    assert configuration.asked["op"] == ["softmax"]
    assert list(configuration.kernels) == ["softmax shifted"]
    assert {"suite/verdict/judge.py", "cases/softmax/test_accuracy.py"} <= configuration.code.keys()
    assert configuration.env_id == read_run(whole).environment["env_id"]


def test_a_resumed_run_is_the_undisturbed_one_and_evaluates_only_what_is_missing(half, whole, evaluated):
    result = invoke("run", *SELECTION, "--out", half, "--resume")

    assert result.exit_code == 0
    assert len(evaluated) == len(lines(whole)) - 3
    assert facts(half) == facts(whole)
    assert f"1 kernel passed all of {passed(whole)} evaluations." in result.stdout
    assert (half / "report.html").is_file()
    assert [notice.partition(" skipped")[0][-2:] for notice in read_run(half).notices] == [":4"]


def test_a_finished_run_is_resumed_without_an_evaluation_and_with_its_exit_code(whole, tmp_path, evaluated):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "report.html").unlink()
    before = lines(folder)

    result = invoke("run", *SELECTION, "--out", folder, "--resume")

    assert (result.exit_code, evaluated, lines(folder)) == (0, [], before)
    assert (folder / "report.html").is_file()


def test_the_exit_code_and_stale_known_failures_are_of_all_records(tmp_path, evaluated):
    """The record that makes the entry stale is an old one."""
    (tmp_path / "known.txt").write_text(KNOWN)
    words = (*SELECTION, "--known-failures", tmp_path / "known.txt", "--out", tmp_path / "run")
    first = invoke("check", *words)
    count = len(evaluated)

    again = invoke("check", *words, "--resume")

    assert (first.exit_code, again.exit_code) == (1, 1)
    assert len(evaluated) == count
    assert "known failure that passed: known.txt:1" in again.stderr


def test_without_resume_a_folder_with_records_is_refused_and_resume_named(half):
    before = lines(half)
    result = invoke("run", *SELECTION, "--out", half)

    assert result.exit_code == 2
    assert (
        "holds the records of another run; name a new folder, or go on with that run by --resume"
        in result.stderr
    )
    assert lines(half) == before


REFUSALS = {
    "another profile": (["--profile=quick"], [], '--profile: "smoke" then, "quick" now'),
    "another kernel too": (["--kernel=naive"], [], "kernel softmax naive: absent then"),
    "another pattern": (["--case=softmax/normal/*"], [], '--case: [] then, ["softmax/normal/*"] now'),
    "strict": (["--strict"], [], "--strict: false then, true now"),
    "another shard": (["--shard=1/2"], [], "--shard: 1/1 then, 1/2 now"),
    "other threads": (["--threads=2"], [], "environment, threads: 1 then, 2 now"),
    "other code": ([], ["code", "suite/verdict/judge.py"], "code suite/verdict/judge.py differs"),
    "another source of the kernel": (
        [],
        ["kernels", "softmax shifted"],
        'kernel softmax shifted: "other" then, ',
    ),
}


@pytest.mark.share(of=4)
@pytest.mark.parametrize(("words", "changed", "line"), REFUSALS.values(), ids=REFUSALS)
def test_another_run_is_not_resumed_and_the_difference_is_named(words, changed, line, half):
    if changed:
        field, name = changed
        configuration = read_configuration(half)
        getattr(configuration, field)[name] = "other"
        (half / "run.json").write_text(json.dumps(configuration.to_dict()))
    before = lines(half)

    result = invoke("run", *SELECTION, *words, "--out", half, "--resume")

    assert result.exit_code == 2
    assert f"--resume: the run in {str(half)!r} is another one than this:\n  " in result.stderr
    assert line in result.stderr
    assert lines(half) == before


def test_several_differences_are_all_named(half):
    result = invoke("run", *SELECTION, "--profile=quick", "--strict", "--out", half, "--resume")

    assert '--profile: "smoke" then' in result.stderr
    assert "--strict: false then" in result.stderr


def test_a_folder_without_run_json_is_not_resumed(half):
    (half / "run.json").unlink()

    result = invoke("check", *SELECTION, "--out", half, "--resume")

    assert result.exit_code == 2
    assert "has no run.json: no run was begun there" in result.stderr


def test_a_folder_that_is_not_there_is_not_resumed_and_not_made(tmp_path):
    assert invoke("run", *SELECTION, "--out", tmp_path / "new", "--resume").exit_code == 2


@pytest.mark.parametrize("command", ["run", "check"])
def test_resume_without_out_is_misuse(command):
    result = invoke(command, *SELECTION, "--resume")

    assert result.exit_code == 2
    assert "--resume goes on with the run in a folder: name it with --out" in result.stderr


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    measured = []

    def measuring(kernel, dtype, **given):
        for kind in suite.studies.CHAPTERS:
            measured.append(kind)
            yield Measurement(kind=kind, kernel=kernel.id, op=kernel.op, dtype=dtype, data={})

    monkeypatch.setattr(suite.studies, "measure_kernel", measuring)
    # No chapter of the report is made of these: what counts is what is measured.
    monkeypatch.setattr("suite.commands.run.write_report", lambda folder: None)
    words = ("run", *SELECTION, "--measure", "--out", tmp_path)
    invoke(*words)
    first, _ = list(measured), measured.clear()
    [file] = tmp_path.glob("measurements-*.jsonl")

    invoke(*words, "--resume")
    none = list(measured)
    file.write_text(file.read_text().splitlines()[0] + "\n")
    invoke(*words, "--resume")

    assert first == list(suite.studies.CHAPTERS)
    assert none == []
    assert file.read_text().count("\n") == len(first)


def test_plain_pytest_resumes_with_the_outcome_of_all_items(half, whole, evaluated, capsys, tmp_path):
    """It may go on with what the command began: the options are the same."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    plain = (
        "-p",
        "suite.plugin",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}/cases",
        f"--confcutdir={ROOT}/cases",
    )
    words = [
        *plain,
        "-c",
        f"{tmp_path}/pytest.ini",
        *SELECTION,
        f"--out={half}",
        "--resume",
        f"{ROOT}/cases",
    ]

    code = pytest.main(words)

    assert code == 0
    assert len(evaluated) == len(lines(whole)) - 3
    assert re.search(rf"{passed(whole)} passed", capsys.readouterr().out)


# Shards and merge


def test_shards_share_the_cases_and_merge_to_the_whole_run(whole, tmp_path):
    parts = [tmp_path / str(i) for i in (1, 2)]
    for i, part in enumerate(parts, start=1):
        assert invoke("run", *SELECTION, f"--shard={i}/2", "--out", part).exit_code == 0

    result = invoke("merge", *parts, "--out", tmp_path / "all")

    assert [len(lines(part)) > 0 for part in parts] == [True, True]
    assert sum(len(lines(part)) for part in parts) == len(lines(whole))
    assert result.exit_code == 0, result.output
    assert facts(tmp_path / "all") == facts(whole)
    assert result.stderr == ""
    assert (tmp_path / "all" / "report.html").is_file()
    assert invoke("merge", parts[0], "--out", tmp_path / "some").exit_code == 1
    assert invoke("merge", *parts, "--out", tmp_path / "all").exit_code == 2


def test_a_merged_whole_run_can_be_resumed(whole, tmp_path, evaluated):
    invoke("merge", whole, "--out", tmp_path / "all")

    assert invoke("run", *SELECTION, "--out", tmp_path / "all", "--resume").exit_code == 0
    assert evaluated == []


def test_a_shard_without_cases_is_no_failure(tmp_path):
    one = ("--op=softmax", "--kernel=shifted", "--dtype=float32", "--case=softmax/normal/8x257/s0")
    results = [invoke("run", *one, f"--shard={i}/2", "--out", tmp_path / str(i)) for i in (1, 2)]

    assert [result.exit_code for result in results] == [0, 0]
    assert ["nothing to judge in this shard" in result.stderr for result in results] == [True, False]
    assert invoke("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "all").exit_code == 0


@pytest.mark.share(of=4)
@pytest.mark.parametrize("shard", ["0/2", "3/2", "x", "1"])
def test_a_shard_that_is_none_is_misuse(shard, tmp_path):
    result = invoke("run", *SELECTION, f"--shard={shard}", "--out", tmp_path / "run")

    assert result.exit_code == 2
    assert f"shard {shard!r} must be i/n with 1 <= i <= n, such as 2/3" in result.stderr


def test_merge_refuses_what_is_no_run_and_what_is_another(whole, half, tmp_path):
    configuration = read_configuration(half)
    configuration.code["suite/verdict/judge.py"] = "other"
    (half / "run.json").write_text(json.dumps(configuration.to_dict()))
    (tmp_path / "empty").mkdir()

    other, empty = (
        invoke("merge", whole, part, "--out", tmp_path / "all") for part in (half, tmp_path / "empty")
    )

    assert (other.exit_code, empty.exit_code) == (2, 2)
    assert "these are not parts of one run:\n  code suite/verdict/judge.py differs" in other.stderr
    assert "has no run.json" in empty.stderr
    assert not list((tmp_path / "all").glob("*.json*"))


# The folder's lock


def test_a_folder_in_use_is_refused_with_folder_and_process_and_a_killed_process_leaves_it_free(half, whole):
    code = (
        "import sys, time; from pathlib import Path; from suite.records.store import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = start("-c", code, half)
    assert holder.stdout.readline() == "held\n"

    refused = [
        invoke("run", *SELECTION, "--out", half, "--resume"),
        invoke("run", *SELECTION, "--out", half),
        invoke("check", *SELECTION, "--out", half, "--resume"),
        invoke("merge", whole, "--out", half),
    ]
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    after = invoke("run", *SELECTION, "--out", half, "--resume")

    assert [result.exit_code for result in refused] == [2, 2, 2, 2]
    for result in refused:
        assert (
            f"run folder {str(half)!r} is in use by process {holder.pid}; wait for its end" in result.stderr
        )
    assert after.exit_code == 0


def test_plain_pytest_refuses_a_folder_in_use(half, capsys):
    with (half / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = pytest.main(
            [
                "-p",
                "no:cacheprovider",
                *SELECTION,
                f"--out={half}",
                "--resume",
                str(ROOT / "cases" / "softmax"),
            ]
        )

    assert code == pytest.ExitCode.USAGE_ERROR
    assert "is in use by process" in capsys.readouterr().err


# A disk that is full, and workers: real processes


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # as on a full disk
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.mark.share(of=4, group="whole runs")
def test_a_full_disk_ends_the_run_at_once_with_its_reason_and_the_run_can_be_resumed(tmp_path, whole):
    size = sum(len(line) + 1 for line in lines(whole))
    limit = size // 2
    run = start("-c", LIMITED, limit, "-m", "suite", "run", *SELECTION, "--out", tmp_path / "run")
    plain = (
        "-m",
        "pytest",
        "-n2",
        "-p",
        "xdist",
        "-p",
        "no:cacheprovider",
        "--dtype=bfloat16",
        "--dtype=float16",
    )
    words = (*plain, *SELECTION, f"--out={tmp_path / 'workers'}", ROOT / "cases" / "softmax")
    workers = start("-c", LIMITED, limit, *words, cwd=ROOT)
    printed, shared = run.communicate(timeout=300)[0], workers.communicate(timeout=300)[0]

    for text, process, folder in ((printed, run, tmp_path / "run"), (shared, workers, tmp_path / "workers")):
        assert process.returncode == 4, text
        assert "cannot be written: File too large. What was recorded before is whole; make room" in text
        assert "Traceback" not in text
        assert "INTERNALERROR" not in text
        assert 0 < len(facts(folder)) == len(lines(folder))
        assert read_run(folder).notices == ()
    after = invoke("run", *SELECTION, "--out", tmp_path / "run", "--resume")
    assert after.exit_code == 0
    assert facts(tmp_path / "run") == facts(whole)


@pytest.mark.share(of=4, group="whole runs")
def test_workers_record_what_one_process_records_whatever_the_hash_seed_and_order(tmp_path, whole):
    words = ["-m", "pytest", "-q", "-p", "xdist", "-p", "no:cacheprovider", "-n2", "--dist=worksteal"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    environment.pop("OMP_NUM_THREADS", None)
    shared = start(
        *words, *SELECTION, f"--out={tmp_path}", ROOT / "cases" / "softmax", cwd=ROOT, env=environment
    )
    text, _ = shared.communicate(timeout=300)

    assert shared.returncode == 0, text
    assert facts(tmp_path) == facts(whole)
    assert read_configuration(tmp_path) == read_configuration(whole)


@pytest.mark.share(of=4, group="whole runs")
def test_killing_everything_at_random_moments_loses_nothing():
    """Ten of the 200 kills of `python -m tests.soak.kills`."""
    soak = start("-m", "tests.soak.kills", "--kills=10", "--cold=2", cwd=ROOT)
    printed, _ = soak.communicate(timeout=1500)

    assert soak.returncode == 0, printed
    assert re.match(
        r"10 kills \(2 cold, .*: 0 lost, 0 changed, 0 evaluated twice, \d+ torn lines, 0 processes left",
        printed,
    )

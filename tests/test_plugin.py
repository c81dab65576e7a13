"""The pytest plugin: what a record becomes as a test outcome, in pytest sessions of their own
inside this process.
"""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import suite.kernels
from suite.kernels import Kernel
from suite.records.store import read_run

ROOT = Path(__file__).parent.parent
CASE = "softmax/sparse/16x33/s0"
ON_TWO_WORKERS = ("--op=softmax", "--ignore-declarations")

CASES = '''
from suite.case import case

@case("softmax", "logsumexp", family="sparse", shapes={"smoke": [(16, 33)], "quick": [(8, 64)]},
      source="these tests")
def test_sparse(evaluate):
    """An entry counts exactly once."""
    evaluate()

@case("softmax", family="normal", shapes={"smoke": [(4, 5), (4, 6)]}, laws=("batch",), source="these tests")
def test_normal(evaluate):
    """An ordinary row is accurate."""
    evaluate()

@case("log_softmax", family="normal", shapes={"smoke": [(3, 4)]}, dtypes=("float16",), source="these tests")
def test_narrow(evaluate):
    """A row that says something in float16 only."""
    evaluate()

def test_of_somebody_else():
    assert True
'''

KERNELS = """
import torch

def good(x, dim=-1):
    return torch.softmax(x, dim)

def two_percent(x, dim=-1):
    return torch.softmax(x, dim) * 1.02

def declines(x, dim=-1):
    raise NotImplementedError("no such hardware")
"""

SLOW = """
import torch
from suite import kernel

@kernel("softmax", slow=True)
def patient(x, dim=-1):
    return torch.softmax(x, dim)
"""


class Outcomes:
    """A plugin that keeps the reports of a session."""

    def __init__(self):
        self.calls = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.calls.append(report)

    @property
    def by_kind(self):
        return [(report.outcome, hasattr(report, "wasxfail")) for report in self.calls]


@pytest.fixture(autouse=True, scope="module")
def _garbage_stays():
    """Keeps the collections of garbage at the end of each inner session off what is there already."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one small case file, one kernel file and a list of known failures."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "test_cases_of_the_plugin.py").write_text(CASES)
    (folder / "kernels.py").write_text(KERNELS)
    (folder / "slow.py").write_text(SLOW)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    known = (
        f"{folder}/kernels.py:two_percent float32 cpu inaccurate softmax/sparse/* too large |"
        " https://example.org/1\n"
    )
    (folder / "known.txt").write_text(known)
    return folder


@pytest.fixture(scope="module", autouse=True)
def two_workers(folder):
    """(process, its run folder) of a session shared by two workers, started before the first test."""
    pytest.importorskip("xdist")
    out = folder / "two"
    words = [
        f"--rootdir={folder}",
        "--dtype=bfloat16",
        *ON_TWO_WORKERS,
        f"--out={out}",
        "-n",
        "2",
        str(folder),
    ]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "suite.plugin",
            "-p",
            "xdist",
            "-p",
            "no:cacheprovider",
            *words,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process, out
    process.kill()
    process.communicate()


@pytest.fixture
def session(folder, capsys):
    """Runs pytest on the folder: session("--dtype=float32") -> (exit code, outcomes, what it printed)."""

    def run(*arguments, dtype="float32"):
        outcomes = Outcomes()
        words = ["-p", "suite.plugin", f"--rootdir={folder}", f"--dtype={dtype}", "-p", "no:cacheprovider"]
        capsys.readouterr()
        code = pytest.main([*words, *(str(a) for a in arguments), str(folder)], plugins=[outcomes])
        printed = capsys.readouterr()
        return code, outcomes, printed.out + printed.err

    return run


def test_a_right_kernel_passes_every_item(session, folder):
    code, outcomes, _ = session(f"--kernel={folder}/kernels.py:good", "--op=softmax")

    assert code == 0
    assert outcomes.by_kind == [("passed", False)] * 4
    assert [("status", "passed") in report.user_properties for report in outcomes.calls] == [True] * 3 + [
        False
    ]


def test_a_failure_says_where_what_and_how_to_run_it_again_without_a_traceback(session, folder):
    code, outcomes, printed = session(
        f"--kernel={folder}/kernels.py:two_percent", "--op=softmax", f"--case={CASE}"
    )

    assert code == pytest.ExitCode.TESTS_FAILED
    [text] = [report.longreprtext for report in outcomes.calls if report.failed]
    for word in ("where", "got", "expected", "how bad", "how many", "reproduce"):
        assert re.search(rf"^  {word} +\S", text, re.MULTILINE), word
    assert f"--kernel {folder}/kernels.py:two_percent --dtype float32 --case {CASE}" in text
    assert "Traceback" not in printed
    assert "plugin.py" not in text


def test_an_unsupported_evaluation_is_a_skip_with_its_reason(session, folder):
    code, outcomes, _ = session(f"--kernel={folder}/kernels.py:declines", "--op=softmax", f"--case={CASE}")

    [report] = [report for report in outcomes.calls if report.skipped]
    assert code == 0
    assert "unsupported: NotImplementedError: no such hardware" in report.longrepr[2]


def test_a_known_failure_is_an_expected_one_with_its_reason_and_link(session, folder):
    words = (f"--kernel={folder}/kernels.py:two_percent", "--op=softmax", f"--case={CASE}")

    code, outcomes, _ = session(*words, f"--known-failures={folder}/known.txt")

    [report] = [report for report in outcomes.calls if hasattr(report, "wasxfail")]
    assert code == 0
    assert report.skipped
    assert "too large (https://example.org/1; known.txt:1)" in report.wasxfail


def test_ignoring_declarations_makes_a_known_failure_fail(session, folder):
    words = (f"--kernel={folder}/kernels.py:two_percent", "--op=softmax", f"--case={CASE}")

    code, _, _ = session(*words, f"--known-failures={folder}/known.txt", "--ignore-declarations")

    assert code == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel=nosuch"], "unknown kernel 'nosuch' of softmax; expected one of "),
        (["--kernel=nosuch.py:f"], "kernel file 'nosuch.py' does not exist"),
        (["--kernel=shifted", "--case=nosuch"], "--case 'nosuch' matches no case"),
        (
            ["--kernel=shifted", "--known-failures=nosuch.txt"],
            "known-failures file 'nosuch.txt' cannot be read",
        ),
        (["--known-failures=nosuch.txt"], "known-failures file 'nosuch.txt' cannot be read"),
        (["--device=nosuch"], "nosuch"),
        (["--op=sotfmax"], "invalid choice: 'sotfmax'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_misuse_is_a_usage_error_and_no_traceback(arguments, message, session):
    code, outcomes, printed = session(*arguments)

    assert code == pytest.ExitCode.USAGE_ERROR
    assert outcomes.calls == []
    assert printed.count(message) == 1
    assert "Traceback" not in printed
    assert "INTERNALERROR" not in printed


def test_items_are_every_case_dtype_and_kernel_of_the_profile(session, tmp_path):
    smoke, quick = tmp_path / "smoke", tmp_path / "quick"

    session("--kernel=shifted", "--kernel=fused", "--dtype=float64", f"--out={smoke}")
    session("--kernel=shifted", "--op=logsumexp", "--profile=quick", f"--out={quick}")

    expected = {
        (case, kernel, dtype)
        for case in (CASE, "logsumexp/sparse/16x33/s0", "softmax/normal/4x5/s0", "softmax/normal/4x6/s0")
        for kernel in ("shifted", "fused")
        for dtype in ("float32", "float64")
    }
    assert {(r.case, r.kernel, r.dtype) for r in read_run(smoke).records} == expected
    assert {r.case for r in read_run(quick).records} == {
        "logsumexp/sparse/16x33/s0",
        "logsumexp/sparse/8x64/s0",
    }


def test_a_pattern_selects_the_cases_that_match_it(session, tmp_path):
    session("--kernel=shifted", "--case=softmax/normal/4x*", f"--out={tmp_path}")

    assert {r.case for r in read_run(tmp_path).records} == {"softmax/normal/4x5/s0", "softmax/normal/4x6/s0"}


def test_a_case_runs_in_its_own_dtypes_and_in_others_where_its_id_is_named(session, tmp_path):
    for number, (words, expected) in enumerate(
        [
            (["--dtype=float16"], {"float16"}),
            (["--dtype=float16", "--case=log_softmax/*"], {"float16"}),
            (["--dtype=float16", "--case=log_softmax/normal/3x4/s0"], {"float16", "float32"}),
        ]
    ):
        out = tmp_path / str(number)
        session("--kernel=shifted", "--op=log_softmax", *words, f"--out={out}")
        assert {r.dtype for r in read_run(out).records} == expected


def test_a_slow_kernel_that_is_named_runs_the_smoke_cases_and_those_whose_ids_are_named(
    session, folder, tmp_path
):
    slow = f"--kernel={folder}/slow.py:patient"
    smoke = {CASE, "softmax/normal/4x5/s0", "softmax/normal/4x6/s0"}
    larger = "softmax/sparse/8x64/s0"
    for number, (words, expected) in enumerate(
        [
            (["--profile=smoke"], smoke),
            (["--profile=quick"], smoke),
            ([f"--case={larger}"], {larger}),
            (["--profile=quick", "--case=softmax/sparse/*"], {CASE}),
        ]
    ):
        out = tmp_path / str(number)
        session(slow, "--op=softmax", *words, f"--out={out}")
        assert {r.case for r in read_run(out).records} == expected


@pytest.mark.parametrize(
    ("profile", "chosen"),
    [
        ("smoke", {"plain", "processor"}),
        ("quick", {"plain", "processor"}),
        ("standard", {"plain", "processor", "slow"}),
    ],
)
def test_slow_kernels_and_those_of_other_devices_are_not_chosen_by_default(
    profile, chosen, session, tmp_path, monkeypatch
):
    def made(name, **given):
        return Kernel(id=name, op="logsumexp", call=torch.logsumexp, **given)

    own = [
        made("plain"),
        made("slow", slow=True),
        made("accelerator", devices=("cuda",)),
        made("processor", devices=("cpu", "cuda")),
    ]
    for module in (suite.kernels, suite.kernels.loading):
        monkeypatch.setattr(module, "own_kernels", lambda op: {kernel.id: kernel for kernel in own})

    session("--op=logsumexp", f"--profile={profile}", f"--out={tmp_path / 'default'}")
    session(
        "--op=logsumexp",
        "--kernel=accelerator",
        "--case=logsumexp/sparse/16x33/s0",
        f"--out={tmp_path / 'named'}",
    )

    records = read_run(tmp_path / "default").records
    assert {r.kernel for r in records} == chosen
    assert {r.case for r in records if r.kernel == "slow"} <= {"logsumexp/sparse/16x33/s0"}
    assert [(r.kernel, r.status) for r in read_run(tmp_path / "named").records] == [
        ("accelerator", "unsupported")
    ]


def test_two_workers_record_what_one_process_records(session, two_workers, tmp_path):
    process, two = two_workers
    one = tmp_path / "one"

    code, _, _ = session(*ON_TWO_WORKERS, f"--out={one}", dtype="bfloat16")
    printed, _ = process.communicate(timeout=120)

    alone, shared = (
        {(r.id, r.status, r.judgement.digest) for r in read_run(out).records} for out in (one, two)
    )
    assert process.returncode == code == pytest.ExitCode.TESTS_FAILED, printed
    assert {status for _, status, _ in alone} == {"passed", "inaccurate", "unsupported"}
    assert shared == alone
    assert len(list(two.glob("records-*.jsonl"))) == 2
    assert read_run(two).notices == ()


MISSPELT = '''
from suite.case import case

@case("softmax", family="normal", layout="strded", source="these tests")
def test_of_mine(evaluate):
    """A row is accurate."""
    evaluate()
'''


def test_a_misspelt_case_is_a_collection_error_of_one_line(session, tmp_path, capsys):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "test_misspelt.py").write_text(MISSPELT)

    code = pytest.main(
        ["-p", "suite.plugin", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    )

    printed = capsys.readouterr().out
    assert code == pytest.ExitCode.INTERRUPTED
    assert "case test_of_mine of test_misspelt.py: layout='strded' is not one of contiguous" in printed
    assert "Traceback" not in printed
    assert "case.py" not in printed.replace("test_misspelt.py", "")

"""The command line, as a user meets it: exit codes, messages, files. In process, with a few real
processes beside.
"""

import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import suite.commands.doctor
import suite.commands.progress
import suite.execution.evaluation
import suite.selection
from suite.commands.main import cli, main
from suite.records.record import SCHEMA
from suite.records.store import Store, read_run
from tests.records import make_record

ROOT = Path(__file__).parent.parent
CASE = "softmax/normal/16x33/s0"
NARROW = ("--op", "softmax", "--dtype", "float32", "--case", CASE)

KERNELS = """
import sys, time, torch

def good(x, dim=-1):
    return torch.softmax(x, dim)

def two_percent(x, dim=-1):
    return torch.softmax(x, dim) * 1.02

def raises(x, dim=-1):
    raise ValueError("rows are too long")

def returns_a_list(x, dim=-1):
    return [torch.softmax(x, dim)]

def all_nan(x, dim=-1):
    return torch.full_like(x, torch.nan)

def works_in_place(x, dim=-1):
    return x.copy_(torch.softmax(x, dim))

def changes_the_state(x, dim=-1):
    torch.set_default_dtype(torch.float64)
    return torch.softmax(x, dim)

def exits(x, dim=-1):
    sys.exit(0)

def prints_a_lot(x, dim=-1):
    print("spam" * 100_000)
    return torch.softmax(x, dim) * 1.02

def prints_half_a_character(x, dim=-1):
    print("\\ud800")
    raise ValueError("\\ud800")

def declines(x, dim=-1):
    raise NotImplementedError("no such hardware")

CALLS = []

def endless(x, dim=-1):
    CALLS.append(dim)
    time.sleep(0.01 if len(CALLS) < 60 else 600)
    return torch.softmax(x, dim)

def wrong_signature():
    pass

class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        p = torch.softmax(x, -1)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * g

def without_its_sum(x, dim=-1):
    return _Gradient.apply(x)

def detached(x, dim=-1):
    return torch.softmax(x, dim).detach()
"""

IN_A_BAD_RUN = {
    "raises": "raised",
    "returns_a_list": "wrong_type",
    "all_nan": "nonfinite",
    "works_in_place": "law_broken",
    "changes_the_state": "law_broken",
    "exits": "raised",
    "prints_a_lot": "inaccurate",
    "declines": "unsupported",
    "good": "passed",
}

WITHOUT_TORCH = """
import sys
import suite
assert "torch" not in sys.modules, "import suite"
from click.testing import CliRunner
from suite.commands.main import cli
for line in sys.argv[1:]:
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, (line, result.output, result.exception)
    assert result.output.strip() or line == "list machines", line
    assert "torch" not in sys.modules, line
print("asleep")
"""

INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent of these tests made of it
from suite.commands.main import main
main(sys.argv[1:])
"""


def invoke(*arguments):
    """The result of a command in this process; an exception that left it is raised here."""
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def assert_misuse(result, *fragments):
    """Exit code 2 and one message on stderr, which holds all the fragments; nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\nError: ") == 1
    message = result.stderr.partition("\nError: ")[2]
    assert [fragment for fragment in fragments if fragment not in message] == [], message
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert len(message.strip().splitlines()) == 1


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def kernels(folder):
    path = folder / "kernels.py"
    path.write_text(KERNELS)
    return path


@pytest.fixture(scope="session")
def recorded(folder):
    """A run folder with one record, made without running anything."""
    store = Store(folder / "recorded")
    record = make_record(
        suite_version="0", kernel="shifted", op="softmax", case=CASE, family="normal", shape=(16, 33),
        dtype="float32", status="inaccurate", message="far off", reproduce="again", ratio=3.0,
    )  # fmt: skip
    store.append(record)
    store.write_environment({"cpu": "a test"})
    store.close()
    return store.folder


@pytest.fixture(scope="session")
def processes(folder, kernels, recorded):
    """Real processes, all started at once: {name: Popen}."""
    bad = [f"--kernel={kernels}:{name}" for name in IN_A_BAD_RUN]
    commands = {
        "interrupted": [
            "-c",
            INTERRUPTIBLE,
            "run",
            "--op=softmax",
            f"--kernel={kernels}:endless",
            f"--out={folder}/interrupted",
        ],
        "bad run": ["-m", "suite", "run", *NARROW, *bad, f"--out={folder}/bad"],
        "misuse": ["-m", "suite", "check", *NARROW, "--kernel", "shifted", "--dtype", "fp32"],
        "asleep": [
            "-c",
            WITHOUT_TORCH,
            "--help",
            "list ops",
            "list inputs",
            "list machines",
            f"report {recorded}",
        ],
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    (folder / "cwd").mkdir()
    started = {
        name: subprocess.Popen(
            [sys.executable, *command],
            cwd=folder / "cwd",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=name == "interrupted",
        )
        for name, command in commands.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def finished(processes):
    """(exit code, stdout, stderr) of a process of `processes`."""
    results = {}

    def wait(name):
        if name not in results:
            stdout, stderr = processes[name].communicate(timeout=120)
            results[name] = (processes[name].returncode, stdout, stderr)
        return results[name]

    return wait


@pytest.fixture(autouse=True, scope="module")
def _in_the_background(processes):
    """Starts the processes before the first test, and keeps pytest's collections of garbage off
    what is there already.
    """
    gc.freeze()
    yield
    gc.unfreeze()


# list


@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("ops", "softmax"),
        ("kernels", "softmax       compiled, "),
        ("cases", "smoke     attention/"),
        ("inputs", "families of logits"),
        ("laws", "batch "),
    ],
)
def test_list_shows_each_thing_on_a_line_with_a_word_about_it(what, first):
    result = invoke("list", what)

    assert result.exit_code == 0
    assert result.stdout.startswith(first)
    assert all(len(line.split()) >= 2 for line in result.stdout.splitlines())


def test_list_machines_shows_the_published_runs():
    published = list((ROOT / "reports").glob("*/*/env.json"))

    result = invoke("list", "machines")

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == max(len(published), 1)


def test_the_listed_cases_are_the_ones_that_run():
    cases = [line.split()[1] for line in invoke("list", "cases").stdout.splitlines()]

    assert CASE in cases
    assert len(cases) == len(set(cases))


# Exit code 0


def test_a_kernel_that_passes_exits_with_0(monkeypatch):
    monkeypatch.setattr(suite.commands.progress, "LINE_SECONDS", 3600.0)  # a busy machine shows its progress
    result = invoke("check", *NARROW, "--kernel", "shifted")

    assert result.exit_code == 0
    assert "1 kernel passed all of 1 evaluation." in result.stdout
    assert result.stderr == ""


def test_an_exact_case_id_selects_that_case_and_no_other(tmp_path):
    result = invoke(
        "check",
        "--kernel=fused",
        "--dtype=float32",
        "--case=softmax/normal/16x33/s1",
        "--json",
        tmp_path / "j",
    )

    assert result.exit_code == 0
    cases = [record["case"] for record in json.loads((tmp_path / "j").read_text())["records"]]
    assert cases == ["softmax/normal/16x33/s1"]


def test_a_kernel_is_shown_by_the_name_that_it_was_called_by(tmp_path, kernels):
    place = tmp_path / "a[v2]"
    place.mkdir()
    shutil.copy(kernels, place)

    result = invoke("check", *NARROW, "--kernel", f"{place}/kernels.py:good")

    assert result.exit_code == 0
    assert "a[v2]/kernels.py:good" in "".join(result.stdout.split())


def test_a_declared_weakness_passes_and_strict_makes_it_fail():
    words = (
        "check",
        "--op=softmax",
        "--kernel=lse_subtract",
        "--dtype=float32",
        "--case=softmax/offset/16x33/s0",
    )

    declared, strict = invoke(*words), invoke(*words, "--strict")

    assert (declared.exit_code, strict.exit_code) == (0, 1)
    assert "inaccurate" in strict.stdout
    assert "--strict" in re.search("reproduce (.*)", strict.stdout)[1]


# Directions

GRADIENT = "softmax/normal/8x65/upstream=normal/s0"


def checked(tmp_path, *arguments):
    """The result of check on softmax in float32, and its records."""
    file = tmp_path / "records.json"
    result = invoke("check", "--op=softmax", "--dtype=float32", *arguments, "--json", file)
    return result, json.loads(file.read_text())["records"]


@pytest.mark.parametrize(
    ("direction", "found"),
    [("backward", {"backward"}), ("both", {"forward", "backward"}), (None, {"forward"})],
)
def test_a_direction_selects_its_cases_and_forward_is_the_default(direction, found, tmp_path):
    arguments = [
        "--kernel=shifted",
        "--case=softmax/normal/*",
        *([f"--direction={direction}"] if direction else []),
    ]
    result, records = checked(tmp_path, *arguments)

    assert result.exit_code == 0, result.output
    assert {record["direction"] for record in records} == found
    assert all(("/upstream=" in record["case"]) == (record["direction"] == "backward") for record in records)


def test_an_exact_id_of_a_gradient_needs_no_direction(tmp_path):
    result, [record] = checked(tmp_path, "--kernel=shifted", f"--case={GRADIENT}")

    assert result.exit_code == 0
    assert (record["case"], record["direction"], record["status"]) == (GRADIENT, "backward", "passed")


def test_a_users_wrong_gradient_exits_with_1_and_the_same_kernel_forward_with_0(kernels, tmp_path):
    given = (f"--kernel={kernels}:without_its_sum",)
    result, [record] = checked(tmp_path, *given, f"--case={GRADIENT}", "--direction=backward")

    assert result.exit_code == 1
    assert "softmax backward float32 [8, 65]: inaccurate" in result.stdout
    assert record["reproduce"].endswith(f"without_its_sum --dtype float32 --case {GRADIENT}")
    assert invoke("check", *NARROW, *given).exit_code == 0


def test_a_kernel_without_a_backward_is_unsupported_there(kernels, tmp_path):
    result, [record] = checked(tmp_path, f"--kernel={kernels}:detached", f"--case={GRADIENT}")

    assert result.exit_code == 3
    assert (record["status"], record["broken"]) == ("unsupported", [])
    assert "its output has no gradient (upstream)" in record["message"]


def test_the_listed_cases_include_those_of_the_backward():
    assert GRADIENT in [line.split()[1] for line in invoke("list", "cases").stdout.splitlines()]


def test_json_has_the_specified_shape(tmp_path, kernels):
    file = tmp_path / "records.json"

    invoke(
        "check",
        *NARROW,
        "--kernel=shifted",
        f"--kernel={kernels}:two_percent",
        f"--kernel={kernels}:declines",
        "--json",
        file,
    )

    data = json.loads(file.read_text())
    assert list(data) == ["schema", "suite_version", "environment", "summary", "records"]
    assert data["schema"] == SCHEMA
    assert data["suite_version"] == suite.__version__
    assert data["environment"]["env_id"] == data["records"][0]["env_id"]
    none = {"passed": 0, "failed": 0, "unsupported": 0, "unjudged": 0, "known_failure": 0}
    assert data["summary"] == {
        "shifted": {**none, "passed": 1},
        f"{kernels}:two_percent": {**none, "failed": 1},
        f"{kernels}:declines": {**none, "unsupported": 1},
    }
    wanted = {
        "kernel",
        "op",
        "case",
        "dtype",
        "device",
        "direction",
        "status",
        "broken",
        "judged",
        "message",
        "reproduce",
    }
    assert all(wanted <= set(record) for record in data["records"])
    assert [record["status"] for record in data["records"]] == ["passed", "inaccurate", "unsupported"]
    assert [record["broken"] for record in data["records"]] == [[], ["inaccurate"], []]
    assert all(record["case"] == CASE for record in data["records"])


# Exit code 1


def test_a_failure_exits_with_1_and_says_where_what_and_how_to_run_it_again(kernels):
    result = invoke("check", *NARROW, "--kernel", f"{kernels}:two_percent")

    assert result.exit_code == 1
    for word in ("where", "got", "expected", "allowed", "how bad", "how many", "in tile", "reproduce"):
        assert re.search(rf"^  {word} +\S", result.stdout, re.MULTILINE), word
    assert (
        f"reproduce softmax-suite check --op softmax --kernel {kernels}:two_percent --dtype float32 --case"
        f" {CASE}" in (result.stdout)
    )


def test_text_that_no_encoding_holds_is_reported_all_the_same(kernels, tmp_path):
    result = invoke(
        "run", *NARROW, "--kernel", f"{kernels}:prints_half_a_character", "--out", tmp_path / "run"
    )

    assert result.exit_code == 1
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_known_failure_exits_with_0(tmp_path, kernels):
    known = tmp_path / "known.txt"
    known.write_text(
        f"{kernels}:two_percent float32 cpu inaccurate softmax/normal/* two percent too large |"
        " https://example.org/1\n"
    )

    result = invoke("check", *NARROW, "--kernel", f"{kernels}:two_percent", "--known-failures", known)

    assert result.exit_code == 0
    assert "No unexpected failure: 1 kernel, 1 evaluation; 1 failure known" in result.stdout


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            f"shifted float32 cpu inaccurate {CASE} it fails | no link",
            f"shifted passes {CASE} in float32: remove the entry",
        ),
        (
            "shifted float32 cpu inaccurate softmax/nosuch/* it fails | no link",
            "'softmax/nosuch/*' matches no existing case",
        ),
    ],
)
def test_a_stale_known_failure_exits_with_1_and_names_its_line(entry, complaint, tmp_path):
    known = tmp_path / "known.txt"
    known.write_text(f"# kernel dtype device status case reason | link\n\n{entry}\n")

    result = invoke("check", *NARROW, "--kernel=shifted", "--known-failures", known)

    assert result.exit_code == 1
    assert result.stderr == f"known failure that passed: known.txt:3: {complaint}\n"


def test_a_known_failure_of_a_kernel_that_did_not_run_is_not_stale(tmp_path):
    known = tmp_path / "known.txt"
    known.write_text(f"fused float32 cpu inaccurate {CASE} it fails | no link\n")

    assert invoke("check", *NARROW, "--kernel=shifted", "--known-failures", known).exit_code == 0


# Exit code 2


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--kernel=nosuch"], ["'nosuch'", "fused", "shifted", "FILE.py:FUNC", "pkg.mod:FUNC"]),
        (["--kernel=nosuch.py:f"], ["'nosuch.py'", "does not exist"]),
        (["--kernel=nosuch_package.mod:f"], ["'nosuch_package.mod'", "No module named"]),
        (["--kernel={kernels}:nosuch"], ["'nosuch'", "good", "two_percent"]),
        (["--kernel={kernels}:wrong_signature"], ["wrong_signature()", "f(x, dim=-1"]),
        (["--kernel=shifted", "--op=sotfmax"], ["--op", "'sotfmax'", "'softmax'", "'log_softmax'"]),
        (["--kernel=shifted", "--dtype=fp32"], ["--dtype", "'fp32'", "'float32'", "'bfloat16'"]),
        (["--kernel=shifted", "--profile=tiny"], ["--profile", "'tiny'", "'smoke'", "'full'"]),
        (["--kernel=shifted", "--direction=sideways"], ["--direction", "'sideways'", "'forward'"]),
        (["--kernel=shifted", "--case=nosuch"], ["--case", "'nosuch'", "list cases", "softmax/"]),
        (["--kernel=shifted", "--device=nosuch"], ["--device", "nosuch", "cpu", "cuda"]),
        (["--kernel=shifted", "--device=cuda:99"], ["--device", "cuda"]),
        (["--kernel=shifted", "--device=meta"], ["--device", "meta"]),
        (["--kernel=shifted", "--known-failures=nosuch.txt"], ["'nosuch.txt'", "cannot be read"]),
        (
            ["--kernel=shifted", "--known-failures={kernels}"],
            ["kernels.py:2", "expected 'kernel dtype device status case reason | link'"],
        ),
        (["--kernel=shifted", "--input=nosuch.npz"], ["--input", "--case"]),
        (["--kernel=shifted", "--out={kernels}"], ["--out", "kernels.py", "is a file"]),
        (["--kernel=shifted", "--out={kernels}/below"], ["--out", "kernels.py/below"]),
        (["--kernel=shifted", "--nosuch=1"], ["--nosuch"]),
        ([], ["--kernel"]),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, list) and (not value or value[0].startswith("--k")) else ""
    ),
)
def test_misuse_of_check_is_one_message_with_name_value_and_choices(arguments, fragments, kernels):
    assert_misuse(invoke("check", *NARROW, *(a.format(kernels=kernels) for a in arguments)), *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--device=nosuch"], ["nosuch", "cpu", "cuda"]),
        (["--known-failures=nosuch.txt"], ["'nosuch.txt'", "cannot be read"]),
        (["--case=nosuch"], ["--case", "'nosuch'", "list cases"]),
    ],
    ids=lambda value: value[0],
)
def test_misuse_of_run_is_found_where_no_kernel_is_named(arguments, fragments, tmp_path):
    assert_misuse(
        invoke("run", "--op=softmax", "--dtype=float32", *arguments, "--out", tmp_path / "run"), *fragments
    )


def test_json_that_cannot_be_written_is_misuse(tmp_path):
    result = invoke("check", *NARROW, "--kernel=shifted", "--json", tmp_path / "nosuch" / "file.json")

    assert result.exit_code == 2
    assert "nosuch/file.json' cannot be written: No such file or directory" in result.stderr


def test_an_unknown_command_is_answered_once():
    assert_misuse(invoke("chekc"), "'chekc'")


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_folder_with_records_is_not_written_to_again(command, recorded):
    before = sorted((path.name, path.stat().st_size) for path in recorded.glob("records-*"))

    assert_misuse(
        invoke(command, *NARROW, "--kernel=shifted", "--out", recorded),
        "--out",
        str(recorded),
        "name a new folder",
    )
    assert sorted((path.name, path.stat().st_size) for path in recorded.glob("records-*")) == before


# Exit codes 3 and 4


def test_a_run_in_which_nothing_was_judged_exits_with_3(kernels):
    result = invoke("check", *NARROW, "--kernel", f"{kernels}:declines")

    assert result.exit_code == 3
    assert "nothing was judged" in result.stderr


def test_a_selection_without_a_case_exits_with_3():
    result = invoke("check", "--op=softmax", "--kernel=shifted", "--case=logsumexp/normal/16x33/s0")

    assert result.exit_code == 3
    assert "nothing was judged" in result.stderr


def test_an_error_of_the_engine_itself_exits_with_4_and_no_traceback(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("the engine is broken")

    monkeypatch.setattr(suite.execution.evaluation, "evaluate", broken)

    result = invoke("check", *NARROW, "--kernel=shifted")

    assert result.exit_code == 4
    assert "internal error: " in result.stderr
    assert "the engine is broken" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["run"], ["check", "--kernel=shifted"]], ids=lambda a: a[0])
def test_a_case_file_that_cannot_be_imported_exits_with_4(arguments, monkeypatch, tmp_path):
    (tmp_path / f"test_broken_{arguments[0]}.py").write_text("raise RuntimeError('a broken case file')\n")
    monkeypatch.setattr(suite.selection, "cases_folder", lambda: tmp_path)

    result = invoke(*arguments, "--op=softmax", "--out", tmp_path / "run")

    assert result.exit_code == 4
    assert "a broken case file" in result.stderr
    assert "Traceback" not in result.output


MISSPELT_CASE = '''
from suite.case import case

@case("softmax", family="nromal", source="these tests")
def test_of_mine(evaluate):
    """A row is accurate."""
'''


@pytest.mark.parametrize(
    "arguments", [["run"], ["check", "--kernel=shifted"], ["list", "cases"]], ids=lambda a: a[0]
)
def test_a_misspelt_case_is_misuse_that_names_it(arguments, monkeypatch, tmp_path):
    (tmp_path / "test_misspelt.py").write_text(MISSPELT_CASE)
    monkeypatch.setattr(suite.selection, "cases_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)

    result = invoke(*arguments, *([] if arguments[0] == "list" else ["--op=softmax"]))

    assert_misuse(
        result,
        "case test_of_mine of test_misspelt.py: unknown input family 'nromal'; expected one of ",
        "normal",
    )


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("out of order"), 4, "internal error: RuntimeError: out of order\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["error", "interrupt"],
)
def test_a_command_that_breaks_ends_in_one_line(error, code, words, monkeypatch, capsys):
    def broken():
        raise error

    monkeypatch.setattr(suite.commands.doctor, "examine", broken)

    with pytest.raises(SystemExit) as exit:
        main(["doctor"])
    assert exit.value.code == code
    assert capsys.readouterr().err.lstrip("\n") == words


def test_doctor_finds_this_machine_healthy():
    result = invoke("doctor")

    assert result.exit_code == 0
    assert result.stdout.count("self-test") == 4
    assert "DO NOT TRUST" not in result.stdout


# check --input


def test_input_judges_a_kernel_on_the_tensor_of_a_file(tmp_path, kernels):
    x = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)
    np.savez(tmp_path / "logits.npz", x=x)

    result = invoke(
        "check", "--op=softmax", "--kernel=shifted", f"--kernel={kernels}:two_percent",
        "--input", tmp_path / "logits.npz", "--json", tmp_path / "records.json",
    )  # fmt: skip

    records = json.loads((tmp_path / "records.json").read_text())["records"]
    assert result.exit_code == 1
    assert [(r["status"], r["shape"], r["dtype"]) for r in records] == [
        ("passed", [5, 40], "float32"),
        ("inaccurate", [5, 40], "float32"),
    ]
    assert all(f"--input {tmp_path}/logits.npz" in r["reproduce"] for r in records)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--op=softmax", "--input=nosuch.npz"], ["'nosuch.npz'", "does not exist"]),
        (["--op=softmax", "--input={folder}/x.txt"], ["'.txt'", ".npz", ".safetensors"]),
        (["--input={folder}/x.npz"], ["--op"]),
        (["--op=softmax", "--input={folder}/x.npz", "--dtype=float16"], ["float16 cannot hold"]),
        (["--op=softmax", "--input={folder}/z.npz"], ["'x'", "'input'", "it has: z"]),
        (["--op=softmax", "--input={folder}/integers.npz"], ["int64", "float32"]),
        (["--op=softmax", "--input={folder}/scalar.npz"], ["dim"]),
    ],
    ids=lambda value: value[-1],
)
def test_misuse_of_input_is_one_message(arguments, fragments, tmp_path):
    (tmp_path / "x.txt").write_text("1 2 3")
    np.savez(tmp_path / "x.npz", x=np.full((2, 3), 1e30, dtype=np.float32))
    np.savez(tmp_path / "z.npz", z=np.zeros((2, 3), dtype=np.float32))
    np.savez(tmp_path / "integers.npz", x=np.zeros((2, 3), dtype=np.int64))
    np.savez(tmp_path / "scalar.npz", x=np.float32(1))

    assert_misuse(
        invoke("check", "--kernel=shifted", *(a.format(folder=tmp_path) for a in arguments)), *fragments
    )


def test_input_with_out_writes_the_run_folder_too(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), dtype=np.float32))

    result = invoke(
        "check", "--op=softmax", "--kernel=shifted", "--input", tmp_path / "x.npz", "--out", tmp_path / "run"
    )

    assert result.exit_code == 0
    assert [record.status for record in read_run(tmp_path / "run").records] == ["passed"]


# judge


@pytest.fixture
def dump(tmp_path):
    """Saves tensors of one softmax as an .npz and returns its path: dump(x, y) or dump(x=..., z=...)."""

    def save(**arrays):
        np.savez(tmp_path / "dump.npz", **arrays)
        return tmp_path / "dump.npz"

    return save


LOGITS = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 50)))


@pytest.mark.parametrize(("factor", "code", "status"), [(1.0, 0, "passed"), (1.02, 1, "inaccurate")])
def test_judge_tells_right_tensors_from_wrong_ones(factor, code, status, dump, tmp_path):
    x = LOGITS.float()
    path = dump(x=x.numpy(), y=(torch.softmax(x, -1) * factor).numpy())

    result = invoke("judge", "--op=softmax", "--tensors", path, "--json", tmp_path / "judgement.json")

    assert result.exit_code == code
    assert result.stdout.startswith(f"softmax float32 [6, 50]: {status}")
    assert json.loads((tmp_path / "judgement.json").read_text())["status"] == status


@pytest.mark.parametrize(("right", "code"), [(True, 0), (False, 1)])
def test_judge_reads_bfloat16_from_its_bit_patterns(right, code, dump):
    x = LOGITS.bfloat16()
    y = torch.softmax(x, -1) if right else torch.softmax(x, -1) * 1.02
    path = dump(input=x.view(torch.uint16).numpy(), output=y.view(torch.uint16).numpy())

    result = invoke("judge", "--op=softmax", "--tensors", path, "--dtype=bfloat16")

    assert result.exit_code == code
    assert result.stdout.startswith("softmax bfloat16 [6, 50]: ")


def test_judge_reduces_over_the_dim_that_it_is_told(dump):
    x = LOGITS.float()
    path = dump(x=x.numpy(), y=torch.softmax(x, 0).numpy())

    assert invoke("judge", "--op=softmax", "--tensors", path, "--dim=0").exit_code == 0
    assert invoke("judge", "--op=softmax", "--tensors", path).exit_code == 1


def test_judge_takes_a_row_and_its_scalar_as_they_are(dump):
    x = LOGITS[0].float()
    path = dump(x=x.numpy(), y=torch.logsumexp(x, -1).numpy())

    result = invoke("judge", "--op=logsumexp", "--tensors", path)

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("logsumexp float32 [50]: passed")


@pytest.mark.parametrize(
    ("names", "options", "fragments"),
    [
        (("x", "z"), [], ["'y'", "'output'", "it has: x, z"]),
        (("z", "y"), [], ["'x'", "'input'", "it has: z, y"]),
        (("x", "y"), ["--dim=2"], ["dim=2", "-2 to 1"]),
        (("x", "y"), ["--dtype=fp32"], ["--dtype", "'fp32'", "'bfloat16'"]),
    ],
)
def test_misuse_of_judge_is_one_message(names, options, fragments, dump):
    path = dump(**dict.fromkeys(names, LOGITS.float().numpy()))

    assert_misuse(invoke("judge", "--op=softmax", "--tensors", path, *options), *fragments)


def test_raw_patterns_without_a_dtype_are_misuse(dump):
    patterns = LOGITS.bfloat16().view(torch.uint16).numpy()

    assert_misuse(
        invoke("judge", "--op=softmax", "--tensors", dump(x=patterns, y=patterns)), "uint16", "--dtype"
    )


def npz_of(member):
    """An .npz whose member x.npy has these bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", member)
    return buffer.getvalue()


def npy_of(shape):
    """An .npy that claims this shape and holds 8 bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


def compressed_npz_with_a_bad_block():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(5000.0))
    content = bytearray(buffer.getvalue())
    start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    content[start] = 0xFF  # a block of the reserved type
    return bytes(content)


def safetensors_of(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.npz", b""),
        ("text.npz", b"PK\x03\x04 but not really"),
        ("torn.npz", npz_of(npy_of("(2,)"))[:-10]),
        ("short.npz", npz_of(npy_of("(5,)"))),
        ("huge.npz", npz_of(npy_of("(1125899906842624,)"))),
        ("overflowing.npz", npz_of(npy_of("(4611686018427387904, 4611686018427387904)"))),
        ("header.npz", npz_of(b"\x93NUMPY\x01\x00\x08\x00{{{{{{{{")),
        ("no_array.npz", npz_of(b"x")),
        ("block.npz", compressed_npz_with_a_bad_block()),
        ("empty.safetensors", b""),
        ("long_header.safetensors", (2**62).to_bytes(8, "little")),
        ("list.safetensors", safetensors_of([1, 2])),
        ("deep.safetensors", safetensors_of(b"[" * 100_000)),
        ("encoding.safetensors", safetensors_of(b"\xff\xfe")),
        ("dtype.safetensors", safetensors_of({"x": {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]}})),
        (
            "offsets.safetensors",
            safetensors_of({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
        ),
        (
            "wrapping.safetensors",
            safetensors_of({"x": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}),
        ),
        ("entry.safetensors", safetensors_of({"x": 3})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_corrupted_file_is_answered_with_its_name(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)

    assert_misuse(invoke("judge", "--op=softmax", "--tensors", path), name)


# run, report, reproduce


@pytest.fixture(scope="session")
def run_folder(folder, kernels):
    """A real run of a kernel that passes and one that fails."""
    out = folder / "runs" / "first"
    result = invoke("run", *NARROW, "--kernel=shifted", f"--kernel={kernels}:two_percent", "--out", out)
    assert result.exit_code == 1, result.output
    return out


def test_a_run_leaves_records_environment_csv_and_page(run_folder):
    assert {path.name for path in run_folder.iterdir() if not path.name.startswith("records-")} == {
        ".lock",
        "env.json",
        "records.csv",
        "report.html",
        "run.json",
    }
    assert [record.status for record in read_run(run_folder).records] == ["passed", "inaccurate"]
    assert "two_percent" in (run_folder / "report.html").read_text()
    assert len((run_folder / "records.csv").read_text().splitlines()) >= 3


def test_report_writes_the_page_of_a_folder_where_it_is_told(recorded, tmp_path):
    result = invoke("report", recorded, "--out", tmp_path / "page.html")

    assert result.exit_code == 0
    assert result.stdout == f"report: {tmp_path}/page.html\n"
    assert "a test" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("name", "fragments"),
    [("empty", ["empty", "no records-*.jsonl"]), ("nosuch", ["nosuch", "not a folder"])],
    ids=["empty", "missing"],
)
def test_report_of_a_folder_without_records_is_misuse(name, fragments, tmp_path):
    (tmp_path / "empty").mkdir()

    assert_misuse(invoke("report", tmp_path / name), *fragments)


def test_a_torn_last_line_costs_that_record_only(recorded, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(recorded, torn)
    [file] = torn.glob("records-*.jsonl")
    file.write_text(file.read_text() + '{"schema": 1, "kern')

    result = invoke("report", torn)

    assert result.exit_code == 0
    assert f"{file.name}:2 skipped" in (torn / "report.html").read_text()


def test_reproduce_finds_a_record_by_its_id(run_folder):
    passed, failed = read_run(run_folder).records

    again = {r.status: invoke("reproduce", r.id, "--runs", run_folder.parent) for r in (passed, failed)}

    assert {status: result.exit_code for status, result in again.items()} == {"passed": 0, "inaccurate": 1}
    assert "recorded passed, now passed; the same output bits" in again["passed"].stdout
    assert "recorded inaccurate, now inaccurate; the same output bits" in again["inaccurate"].stdout


def test_reproduce_finds_a_record_by_file_and_line(run_folder):
    [file] = run_folder.glob("records-*.jsonl")

    result = invoke("reproduce", f"{file}:2")

    assert result.exit_code == 1
    assert "recorded inaccurate, now inaccurate; the same output bits" in result.stdout


def test_reproducing_a_known_failure_is_no_failure(tmp_path):
    words = ("--op=log_softmax", "--kernel=fused", "--dtype=bfloat16", "--case=log_softmax/normal/16x33/s0")
    first = invoke("check", *words, "--out", tmp_path / "run")
    [record] = read_run(tmp_path / "run").records

    again = invoke("reproduce", record.id, "--runs", tmp_path)

    assert (record.status, first.exit_code) == ("known_failure", 0)
    assert again.exit_code == 0
    assert "recorded known_failure, now known_failure" in again.stdout


@pytest.mark.parametrize(
    ("reference", "fragments"),
    [
        ("0123456789ab", ["'0123456789ab'", "FILE:LINE"]),
        ("nosuch.jsonl:1", ["'nosuch.jsonl'", "does not exist"]),
        ("{file}:9", ["1 line", "no line 9"]),
        ("{kernels}:2", ["kernels.py:2", "not a record"]),
    ],
    ids=["id", "file", "line", "no record"],
)
def test_reproduce_of_what_is_not_there_is_misuse(reference, fragments, recorded, kernels, tmp_path):
    [file] = recorded.glob("records-*.jsonl")

    result = invoke("reproduce", reference.format(file=file, kernels=kernels), "--runs", tmp_path)

    assert_misuse(result, *fragments)


# Real processes, started before the first test


def test_an_interrupted_run_exits_with_130_and_leaves_a_report_of_whole_records(processes, finished, folder):
    process, out = processes["interrupted"], folder / "interrupted"
    deadline = time.monotonic() + 60
    while not any(path.read_text().count("\n") > 2 for path in out.glob("records-*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)

    code, stdout, stderr = finished("interrupted")

    assert code == 130, stderr
    [file] = out.glob("records-*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(records) > 2
    assert file.read_text().endswith("\n")
    assert all({"id", "kernel", "status", "message", "digest"} <= set(record) for record in records)
    assert "endless" in (out / "report.html").read_text()
    assert "Interrupted. This covers what had run:" in stdout
    assert "Traceback" not in stdout + stderr


def test_the_run_goes_on_whatever_its_kernels_do(finished, folder):
    code, stdout, stderr = finished("bad run")

    assert code == 1, stderr
    records = read_run(folder / "bad").records
    assert {record.kernel.partition(":")[2]: record.status for record in records} == IN_A_BAD_RUN
    assert "Traceback" not in stdout + stderr
    assert "spam" * 100 not in stdout + stderr
    assert len(stdout) < 20_000


def test_misuse_in_a_process_of_its_own_is_one_message_on_stderr(finished):
    code, stdout, stderr = finished("misuse")

    assert code == 2
    assert stdout == ""
    assert stderr.count("Invalid value for '--dtype': 'fp32' is not one of 'float64', 'float32'") == 1
    assert "Traceback" not in stderr


def test_help_lists_and_reports_do_not_wake_torch(finished):
    code, stdout, stderr = finished("asleep")

    assert (code, stdout) == (0, "asleep\n"), stderr


def test_an_undeclared_kernel_without_op_is_misuse(tmp_path):
    """f(x, dim) could be a kernel of any op: judging it as all of them would report failures that
    are none.
    """
    (tmp_path / "mine.py").write_text("import torch\n\ndef f(x, dim=-1):\n    return torch.softmax(x, dim)\n")

    result = invoke("check", "--kernel", f"{tmp_path}/mine.py:f")

    assert result.exit_code == 2
    assert "name one with --op (softmax, log_softmax, logsumexp" in result.stderr

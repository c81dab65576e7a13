"""Bad input of every kind ends with a contracted exit code and a message: a small part of
tests/soak/fuzz.py, and its judge.
"""

import os
import sys
import time
import traceback
from pathlib import Path

import pytest

from suite.commands.main import main
from suite.formats import float32
from suite.kernels import load_kernels
from tests.soak import fuzz
from tests.soak.generators import RUNS, Try, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "template"
    folder.mkdir()
    run = fuzz.in_this_process(main)

    def made(arguments):
        finished = run(arguments, folder)
        assert finished.code == 0, finished.output

    make_template(folder, made, measure=False)
    return folder


@pytest.mark.share(of=3)
@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("command lines", range(0, 30)),
        ("command lines", range(30, 60)),
        ("record files", range(10)),
        ("tensors", range(16)),
        ("known failures", range(2)),
        ("kernel files", range(2)),
    ],
)
def test_bad_input_is_answered_as_contracted(kind, numbers, template, tmp_path):
    run = fuzz.in_this_process(main)

    answers = [fuzz.judge_try(kind, number, 0, tmp_path, template, run) for number in numbers]

    assert [(attempt.arguments, found) for attempt, _, found in answers if found] == []


def test_a_try_is_the_same_for_the_same_seed_and_another_for_another(template, tmp_path):
    made = [
        fuzz.attempt_of("tensors", 3, seed, tmp_path / str(n), template) for n, seed in enumerate((0, 0, 1))
    ]
    files = [fuzz.contents(tmp_path / str(n)).files for n in range(3)]

    assert (made[0], files[0]) == (made[1], files[1])
    assert (made[0], files[0]) != (made[2], files[2])


# The judge of the tries, with mutants.


def with_a_traceback(arguments):
    try:
        raise KeyError("mutant")
    except KeyError:
        traceback.print_exc()
    sys.exit(1)


def without_a_catch(arguments):
    raise KeyError("mutant")


def with_exit_code_7(arguments):
    print("seven")
    sys.exit(7)


def that_loses_a_record(arguments):
    for path in Path("run").glob("records-*"):
        os.truncate(path, 40)
    print("done")


def that_leaves_a_file(arguments):
    Path("litter").mkdir()
    Path("litter/file").write_text("x")


def that_changes_its_input(arguments):
    Path("known.txt").write_text("x")


def that_says_nothing_useful(arguments):
    print("Error: wrong", file=sys.stderr)
    sys.exit(2)


def that_says_what_is_wrong(arguments):
    print("Error: there is no 'nosuch'", file=sys.stderr)
    sys.exit(2)


def that_fails_in_silence(arguments):
    sys.exit(1)


def that_prints_what_no_terminal_shows(arguments):
    print("\ud800")


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (with_a_traceback, ["traceback"]),
        (without_a_catch, ["traceback"]),
        (with_exit_code_7, ["exit code"]),
        (that_loses_a_record, ["lost record"]),
        (that_leaves_a_file, ["stray file"]),
        (that_changes_its_input, ["stray file"]),
        (that_says_nothing_useful, ["silent"]),
        (that_says_what_is_wrong, []),
        (that_fails_in_silence, ["silent"]),
        (that_prints_what_no_terminal_shows, ["traceback"]),
    ],
)
def test_each_mutant_is_found(command, fault, template, tmp_path):
    folder = tmp_path / "folder"
    fuzz.attempt_of("tensors", 0, 0, folder, template)
    attempt = Try(arguments=("check", "--op", "nosuch", "run"), shown=("nosuch",))
    before = fuzz.contents(folder)

    finished = fuzz.in_this_process(command)(attempt.arguments, folder)

    assert [name for name, _ in fuzz.faults(attempt, finished, before, fuzz.contents(folder))] == fault


def test_a_record_that_moved_to_another_file_of_its_run_is_not_lost(template, tmp_path):
    folder = tmp_path / "folder"
    fuzz.attempt_of("tensors", 0, 0, folder, template)
    before = fuzz.contents(folder)
    [path] = (folder / "run").glob("records-*.jsonl")

    path.rename(path.with_name("records-other.jsonl"))

    assert any(before.records.values())
    attempt = Try(arguments=("run",), shown=())
    assert (
        fuzz.faults(attempt, fuzz.Finished(code=0, output="", seconds=0.0), before, fuzz.contents(folder))
        == []
    )


def stuck_dead_and_well(arguments):
    """A command that hangs in the first folder, ends its process in the second and is well in the others."""
    if Path.cwd().name.endswith("-0"):
        time.sleep(600)
    if Path.cwd().name.endswith("-1"):
        os.abort()


def test_a_hang_and_a_crash_are_found_and_the_other_tries_go_on(template, tmp_path):
    tries = [("tensors", number) for number in range(3)]

    answers = fuzz.run_all(
        tries,
        place=tmp_path,
        template=template,
        seed=0,
        command="tests.test_fuzz:stuck_dead_and_well",
        workers=1,
        seconds=0.5,
    )
    found = {number: [fault for fault, _, _ in answer["faults"]] for _, number, answer in answers}

    assert found == {0: ["hang"], 1: ["crash"], 2: []}


def test_the_last_line_counts_each_fault_and_the_list_names_each_place_once():
    tally = fuzz.Tally()
    answer = {"code": 4, "seconds": 0.1, "processes": 0, "arguments": ["x"]}
    for number in range(3):
        tally.add(
            "tensors",
            number,
            {**answer, "faults": [("exit code", f"4: row {number}", fuzz.site(f"4: row {number}"))]},
        )

    assert len(list(filter(None, tally.lines()))) == 3
    assert "3 tries (3 tensors" in tally.summary(1.0)
    assert "0 tracebacks, 3 uncontracted exit codes, 0 lost records" in tally.summary(1.0)


def test_the_template_has_the_run_folders_whose_records_are_watched(template):
    watched = fuzz.contents(template).records

    assert {name.split("/")[0] for name, lines in watched.items() if lines} == set(RUNS)


# What the tries have found.


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["check", "--op", "softmax", "--kernel", "shifted", "--known-failures", "fifo"], "'fifo'"),
        (["tolerance", "--op", "softmax", "--dtype", "float32", "--shape", "8", "--json", "fifo"], "'fifo'"),
        *(
            (
                ["tolerance", "--op", "softmax", "--dtype", "float32", "--shape", "8", "--json", name],
                "would lose them",
            )
            for name in ("records-1.jsonl", "measurements-1.jsonl.gz")
        ),
        (["tolerance", "--op", "softmax", "--dtype", "float32", "--shape", "9" * 5000], "--shape"),
        (["tolerance", "--op", "softmax", "--dtype", "float32", "--shape", "9" * 19], "2^63"),
        (["judge", "--op", "softmax", "--tensors", "a\0b.npz"], "NUL"),
    ],
)
def test_what_hung_or_ended_as_an_internal_error_is_misuse(arguments, shown, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    finished = fuzz.in_this_process(main)(arguments, tmp_path)

    assert finished.code == 2
    assert shown in finished.output


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("def f(x, dim=-1): return x\nf.__wrapped__ = f", None),
        ("def f(x, dim=-1): return x\nf.__softmax_suite_kernels__ = {'softmax': 5}", "@kernel did not make"),
        ("def __getattr__(name): raise RuntimeError('no ' + name)", "RuntimeError: no "),
        (
            "class Silent(Exception):\n    def __str__(self): raise RuntimeError\nraise Silent",
            "its message cannot be shown",
        ),
        (
            "from suite import kernel\n@kernel('softmax', requires=(5,))\ndef f(x, dim=-1): return x",
            "requires=(5,)",
        ),
        (
            "from suite import kernel\n@kernel('softmax', numerics=5)\ndef f(x, dim=-1): return x",
            "numerics=5",
        ),
        ("from suite import kernel\n@kernel('softmax', domain=5)\ndef f(x, dim=-1): return x", "domain=5"),
    ],
)
def test_a_kernel_file_is_loaded_or_said_to_be_wrong(source, shown, tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(source)

    try:
        loaded, message = load_kernels(f"{path}:f", "softmax"), None
    except ValueError as error:
        loaded, message = [], str(error)

    assert bool(loaded) == (shown is None)
    assert shown is None or shown in message


def test_a_package_inside_one_that_is_missing_is_not_installed(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from suite import kernel\n@kernel('softmax', requires=('no_such.package',))\ndef f(x, dim=-1):"
        " return x"
    )

    [kernel] = load_kernels(f"{path}:f", "softmax")

    assert "no_such.package is not installed" in kernel.supports({"dim": -1}, float32, "cpu")

"""configuration.py: run.json says what a run was, two of them say in words what differs, and a
shard is a matter of ids.
"""

import json
from dataclasses import replace

import pytest

from suite.records.configuration import (
    Configuration,
    code_digests,
    differences,
    in_shard,
    read_configuration,
    shards,
    unlike_facts,
)

FIRST = Configuration(
    asked={"profile": "smoke", "op": ["softmax"], "case": []},
    kernels={"softmax shifted": "aa", "softmax naive": "bb"},
    code={"suite/verdict/judge.py": "1", "suite/case.py": "2"},
    env_id="e",
    planned=10,
)


def write(folder, data):
    (folder / "run.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def test_a_configuration_is_read_as_it_was_written(tmp_path):
    assert read_configuration(write(tmp_path, FIRST.to_dict())) == FIRST


CHANGES = {
    "an option": ({"asked": {**FIRST.asked, "profile": "quick"}}, ['--profile: "smoke" then, "quick" now']),
    "a new option": ({"asked": {**FIRST.asked, "isolate": "never"}}, ['--isolate: absent then, "never" now']),
    "a kernel's source": (
        {"kernels": {**FIRST.kernels, "softmax naive": "cc"}},
        ['kernel softmax naive: "bb" then, "cc" now'],
    ),
    "another kernel": (
        {"kernels": {"softmax shifted": "aa", "softmax mine": "dd"}},
        ['kernel softmax naive: "bb" then, absent now', 'kernel softmax mine: absent then, "dd" now'],
    ),
    "code": (
        {"code": {**FIRST.code, "suite/verdict/judge.py": "9"}},
        ["code suite/verdict/judge.py differs"],
    ),
    "a file more": ({"code": {**FIRST.code, "suite/x.py": "9"}}, ["code suite/x.py is there now only"]),
    "a file less": ({"code": {"suite/verdict/judge.py": "1"}}, ["code suite/case.py is there then only"]),
}


@pytest.mark.parametrize(("change", "lines"), CHANGES.values(), ids=CHANGES)
def test_every_difference_is_a_line_and_another_hash(change, lines):
    other = replace(FIRST, **change)

    assert differences(FIRST, other) == lines
    assert other.hash != FIRST.hash


def test_several_differences_are_all_listed():
    other = replace(FIRST, asked={**FIRST.asked, "op": ["logsumexp"]}, code={})

    assert len(differences(FIRST, other, names=("in A", "in B"))) == 2
    assert (
        differences(FIRST, other, names=("in A", "in B"))[0] == '--op: ["softmax"] in A, ["logsumexp"] in B'
    )


def test_many_changed_files_are_counted():
    code = {f"suite/{number}.py": "1" for number in range(9)}
    [line] = differences(replace(FIRST, code=code), replace(FIRST, code=dict.fromkeys(code, "2")))

    assert line.endswith("suite/4.py and 4 more differs")


def test_shards_of_one_run_have_one_hash_and_no_difference():
    other = replace(FIRST, shard="2/3", planned=4)

    assert other.hash == FIRST.hash
    assert differences(FIRST, other) == []


BAD = {
    "no JSON": "{",
    "no object": [],
    "another schema": {**FIRST.to_dict(), "schema": 99},
    "a field missing": {k: v for k, v in FIRST.to_dict().items() if k != "code"},
    "a field of another kind": {**FIRST.to_dict(), "kernels": ["shifted"]},
    "a count that is no number": {**FIRST.to_dict(), "planned": True},
    "a shard that is none": {**FIRST.to_dict(), "shard": "3/2"},
    "changed by hand": {**FIRST.to_dict(), "env_id": "f"},
    "nested without end": "[" * 200_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_run_json_is_one_message_that_names_the_file(data, tmp_path):
    with pytest.raises(ValueError, match=r"run\.json cannot be read: ") as caught:
        read_configuration(write(tmp_path, data))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_run_json_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"has no run\.json: no run was begun there"):
        read_configuration(tmp_path)


def test_the_facts_that_differ_are_named_and_those_that_change_no_result_are_not():
    then = {
        "cpu": "A",
        "cpu_count": 2,
        "packages": {"torch": "2.6", "numpy": "2"},
        "libm": {"exp_ulp": 0.6},
        "env_id": "e",
    }
    now = {
        "cpu": "A",
        "cpu_count": 9,
        "packages": {"torch": "2.7", "numpy": "2"},
        "libm": {"exp_ulp": 0.7},
        "env_id": "f",
    }

    assert unlike_facts(then, now) == ['environment, packages.torch: "2.6" then, "2.7" now']


def test_code_is_every_file_but_what_python_wrote(tmp_path):
    for name in ("a.py", "data/b.npz", "__pycache__/a.pyc", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = code_digests({"suite": tmp_path})
    (tmp_path / "data" / "b.npz").write_text("other")
    after = code_digests({"suite": tmp_path})

    assert list(before) == ["suite/a.py", "suite/data/b.npz"]
    assert [file for file in before if before[file] != after[file]] == ["suite/data/b.npz"]


# Shards


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "1,3/2", "²/3", "1/" + "9" * 9]
)
def test_a_shard_that_is_none_is_refused_with_what_is_valid(text):
    with pytest.raises(ValueError, match=r"must be i/n with 1 <= i <= n, such as 2/3"):
        shards(text)


def test_several_shards_are_named_by_commas():
    assert shards("1,3/4") == ({1, 3}, 4)


def test_every_case_is_in_exactly_one_shard_of_about_equal_size():
    """300 ids on 3 shards: binomial with a standard deviation of 8.2, so 5 of them are 41."""
    ids = [f"softmax/normal/8x{n}/s0" for n in range(300)]
    of = [[id for id in ids if in_shard(id, f"{i}/3")] for i in (1, 2, 3)]

    assert sorted(id for part in of for id in part) == sorted(ids)
    assert all(abs(len(part) - 100) < 41 for part in of)


def test_a_case_stays_in_its_shard_for_ever():
    """The ids alone decide, on every machine and in every version: shards of one run may be made anywhere."""
    ids = ("softmax/normal/8x257/s0", "softmax/sparse/16x33/s0", "cross_entropy/normal/8x7/reduction=none/s0")

    assert [[i for i in (1, 2, 3, 4) if in_shard(id, f"{i}/4")] for id in ids] == [[2], [2], [2]]

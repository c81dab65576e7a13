"""store.py: a run folder survives kills and strangers; readers merge what the processes of a run wrote."""

import gzip
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from suite.records.flat import changed, flat
from suite.records.record import Measurement
from suite.records.store import Store, StoreError, find_record, has_records, held, read_run, refuse_records
from tests.records import make_record


def make(**changes):
    given = {
        "suite_version": "1", "kernel": "naive", "op": "softmax", "case": "softmax/normal/4x4/s0",
        "family": "normal", "shape": (4, 4), "dtype": "float32", "status": "passed",
    }  # fmt: skip
    return make_record(**{**given, **changes})


RECORDS = tuple(
    make(kernel=name, ratio=ratio) for name, ratio in (("a", 0.5), ("b", float("inf")), ("c", None))
)
LINES = [record.to_json() + "\n" for record in RECORDS]
MEASUREMENT = Measurement(kind="thresholds", kernel="a", op="softmax", dtype="float32", data={"ratio": 0.5})


def write(folder, content, name="records-x-1.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One folder for many examples."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "env.json").write_text("{}")
    return folder


def test_what_was_appended_is_read_back_in_order(tmp_path):
    store = Store(tmp_path / "new" / "run")
    store.write_environment({"cpu": "x", "env_id": "1"})
    for record in RECORDS:
        store.append(record)
    store.close()
    run = read_run(store.folder)

    assert run.records == RECORDS
    assert run.environment == {"cpu": "x", "env_id": "1"}
    assert run.notices == ()


@pytest.mark.parametrize("field", ["message", "known", "output", "reproduce", "warnings"])
def test_a_record_that_no_reader_would_take_is_shortened_with_a_word(field, tmp_path):
    store, text = Store(tmp_path), "\N{MUSICAL SYMBOL G CLEF}" * 1_500_000
    store.append(changed(RECORDS[0], **{field: (text,) * 3 if field == "warnings" else text}))
    store.close()

    [found] = read_run(tmp_path).records
    assert found.id == RECORDS[0].id
    assert "characters left out" in str(flat(found)[field])


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "k" * 2**24},
        {"shape": (-1,)},
        {"options": {"a": {"b": 1}}},
        {"failed": 2**70},
    ],
    ids=["too long", "a negative size", "a nested option", "a count too large"],
)
def test_a_record_that_cannot_be_read_back_is_refused_and_leaves_the_file_whole(changes, tmp_path):
    store = Store(tmp_path)
    store.append(RECORDS[0])
    with pytest.raises(ValueError, match="could not be read back"):
        store.append(changed(RECORDS[1], **changes))
    store.append(RECORDS[2])
    store.close()

    assert read_run(tmp_path).records == (RECORDS[0], RECORDS[2])


def test_a_measurement_and_a_file_that_cannot_be_read_back_are_refused(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="could not be read back"):
        store.append_measurement(
            Measurement(kind="k", kernel="a", op="softmax", dtype="float32", data={"a": "x" * 2**24})
        )
    with pytest.raises(ValueError, match="could not be read back"):
        store.write_json("run.json", {"a": "x" * 2**24})
    store.close()

    assert list(tmp_path.iterdir()) == []


def test_a_record_is_on_disk_when_append_returns(tmp_path):
    """Without close(): a process that is killed loses nothing that it appended."""
    store = Store(tmp_path)
    try:
        for count, record in enumerate(RECORDS, start=1):
            store.append(record)
            assert read_run(tmp_path).records == RECORDS[:count]
    finally:
        store.close()


def test_a_store_that_evaluated_nothing_leaves_no_record_file(tmp_path):
    Store(tmp_path).close()

    assert list(tmp_path.iterdir()) == []


def test_closing_twice_and_appending_after_closing_are_allowed(tmp_path):
    store = Store(tmp_path)
    for record in RECORDS:
        store.append(record)
        store.close()
        store.close()

    assert read_run(tmp_path).records == RECORDS


def test_the_file_name_does_not_tell_the_host(tmp_path):
    store = Store(tmp_path)
    store.append(RECORDS[0])
    store.close()
    (path,) = tmp_path.iterdir()

    assert path.name.endswith(f"-{os.getpid()}.jsonl")
    assert not platform.node() or platform.node() not in path.name


def test_a_file_torn_at_any_byte_keeps_every_complete_line_and_notes_the_torn_one(scratch):
    """Every cut of a file of two lines, not a sample. A line that lacks only its line break is complete."""
    first, content = len(LINES[0]), "".join(LINES[:2])
    ends = (first, len(content))
    for cut in range(len(content) + 1):
        run = read_run(write(scratch, content[:cut]))
        complete = sum(cut >= end - 1 for end in ends)
        torn = all(cut not in (end - 1, end) for end in ends) and cut > 0
        expected = [f"records-x-1.jsonl:{complete + 1}"] if torn else []
        assert run.records == RECORDS[:complete], cut
        assert [notice.split(" skipped: ")[0] for notice in run.notices] == expected, cut


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, len("".join(LINES)) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes_cost_at_most_the_lines_they_are_in(scratch, changes):
    content = bytearray("".join(LINES).encode())
    for place, byte in changes:
        content[place] = byte
    run = read_run(write(scratch, bytes(content)))
    untouched = [
        r for r, line in zip(RECORDS, LINES, strict=True) if b"\n" + line.encode() in b"\n" + bytes(content)
    ]

    assert [r for r in untouched if r not in run.records] == []
    assert len(run.records) + len(run.notices) >= 1


FOREIGN = {
    "no JSON": "once upon a time",
    "no object": "[1, 2]",
    "null": "null",
    "no UTF-8": b"\xff\xfe\x00",
    "another schema": '{"schema": 999}',
    "incomplete": '{"schema": 1}',
    "unknown status": LINES[0].strip().replace('"passed"', '"splendid"'),
    "a number beyond float64": LINES[0].strip().replace('"ratio": 0.5', f'"ratio": 1{"0" * 400}'),
    "a device that is no text": LINES[0].strip().replace('"device": "cpu"', '"device": 5'),
    "a lone surrogate in the kernel's name": LINES[0].strip().replace('"kernel": "a"', '"kernel": "\\ud800"'),
    "nested without end": "[" * 200_000,
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_line_is_skipped_with_a_notice(tmp_path, line):
    line = line.encode() if isinstance(line, str) else line
    run = read_run(write(tmp_path, LINES[1].encode() + line + b"\n" + LINES[2].encode()))

    assert run.records == RECORDS[1:]
    assert sum("records-x-1.jsonl:2 skipped: " in notice for notice in run.notices) == 1


@pytest.mark.parametrize("field", ["kernel", "op", "case", "dtype", "device", "direction"])
def test_a_line_that_says_of_what_it_is_another_thing_than_its_id_is_skipped(field, tmp_path):
    data = make().to_dict()
    other = json.dumps({**data, field: f"{data[field]}2"})

    run = read_run(write(tmp_path, f"{other}\n{LINES[0]}"))

    assert run.records == RECORDS[:1]
    assert (
        run.notices[0]
        == f"records-x-1.jsonl:1 skipped: id='{data['id']}' is that of another evaluation; the line was"
        " changed"
    )


def test_a_line_without_an_id_is_read(tmp_path):
    data = make().to_dict()
    data.pop("id")

    assert read_run(write(tmp_path, json.dumps(data))).records == (make(),)


def test_blank_lines_are_no_notice(tmp_path):
    run = read_run(write(tmp_path, "\n \n".join(LINES)))

    assert run.records == RECORDS
    assert not [notice for notice in run.notices if "skipped" in notice]


def test_a_store_that_continues_a_torn_file_loses_none_of_its_own_records(tmp_path):
    """In a container the process id is often the same again, so the next process appends to the
    file of the killed one.
    """
    for number in range(2):
        store = Store(tmp_path)
        store.append(RECORDS[number])
        store.close()
        if number == 0:
            (path,) = tmp_path.iterdir()
            path.write_bytes(path.read_bytes() + LINES[2][:100].encode())

    assert read_run(tmp_path).records == RECORDS[:2]


def test_the_files_of_several_processes_are_merged(tmp_path):
    for number, line in enumerate(LINES):
        write(tmp_path, line, f"records-x-{number}.jsonl")

    assert sorted(r.kernel for r in read_run(tmp_path).records) == ["a", "b", "c"]


def test_the_latest_line_of_an_id_counts(tmp_path):
    first, second = make(digest="1"), make(digest="2")

    assert read_run(write(tmp_path, f"{first.to_json()}\n{second.to_json()}\n")).records == (second,)


@pytest.mark.parametrize(("early", "late"), [(1, 2), (2, 1), (999, 1000)])
def test_the_latest_record_of_an_id_counts_whatever_its_process(tmp_path, early, late):
    """By the time it started: process ids say nothing, and as text 1000 sorts before 999."""
    first = make(digest="1", started="2026-01-01T00:00:00+00:00")
    second = make(digest="2", started="2026-01-01T00:00:09+00:00")
    write(tmp_path, first.to_json(), f"records-x-{early}.jsonl")
    write(tmp_path, second.to_json(), f"records-x-{late}.jsonl")

    assert read_run(tmp_path).records == (second,)


@pytest.mark.parametrize(
    ("content", "notice"),
    [
        (None, "env.json cannot be read: "),
        (b"{", "env.json cannot be read: "),
        (b"\xff", "env.json cannot be read: "),
        (b"[]", "env.json is not a JSON object"),
        (b"[" * 200_000, "env.json cannot be read: "),
    ],
    ids=["missing", "torn", "no UTF-8", "no object", "nested without end"],
)
def test_an_unreadable_environment_is_empty_with_a_notice(tmp_path, content, notice):
    write(tmp_path, LINES[0])
    if content is not None:
        (tmp_path / "env.json").write_bytes(content)
    run = read_run(tmp_path)

    assert run.environment == {}
    assert [n.startswith(notice) for n in run.notices] == [True]
    assert run.records == RECORDS[:1]


def test_a_folder_without_records_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"holds no records \(no records-\*.jsonl\)"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match=r"absent is not a folder"):
        read_run(tmp_path / "absent")


def test_a_record_is_found_by_file_and_line(tmp_path):
    path = write(tmp_path, "".join(LINES)) / "records-x-1.jsonl"

    assert [find_record(f"{path}:{number}", tmp_path) for number in (1, 2, 3)] == list(RECORDS)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{folder}/absent.jsonl:1", "record file .*absent.jsonl' does not exist"),
        ("{folder}/records-x-1.jsonl:0", "has 2 lines; there is no line 0"),
        ("{folder}/records-x-1.jsonl:3", "has 2 lines; there is no line 3"),
        ("{folder}/records-x-1.jsonl:2", "records-x-1.jsonl:2 is not a record: "),
        ("feedfeedfeed", "no record 'feedfeedfeed' in .*; give a record id or FILE:LINE"),
        ("", "no record '' in "),
    ],
)
def test_a_reference_to_no_record_says_what_was_looked_for(tmp_path, reference, message):
    write(tmp_path, LINES[0] + "torn\n")

    with pytest.raises(ValueError, match=message):
        find_record(reference.format(folder=tmp_path), tmp_path)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12) | st.tuples(st.just("records-x-1.jsonl"), st.text(max_size=4)).map(":".join))
@example("records-x-1.jsonl:²")
@example("x:" + "9" * 5000)
def test_any_other_reference_is_a_value_error(scratch, reference):
    write(scratch, LINES[0])
    missing = reference != RECORDS[0].id

    with pytest.raises(ValueError, match=r"\S"):
        find_record(reference if missing else "", scratch)


def test_an_id_is_found_in_the_newest_run_folder_that_has_it(tmp_path):
    for age, name in ((300, "old"), (200, "new"), (100, "other")):
        record = RECORDS[1] if name == "other" else make(kernel="a", digest=name)
        folder = write(tmp_path / name, record.to_json())
        os.utime(folder, (1_700_000_000 - age, 1_700_000_000 - age))

    assert find_record(RECORDS[0].id, tmp_path).judgement.digest == "new"
    assert find_record(RECORDS[1].id, tmp_path) == RECORDS[1]


def test_an_id_is_found_in_the_run_folder_itself(tmp_path):
    assert find_record(RECORDS[2].id, write(tmp_path, "".join(LINES))) == RECORDS[2]


def test_the_environment_is_written_in_one_order(tmp_path):
    """Two runs on one machine give the same file."""
    store = Store(tmp_path)
    store.write_environment({"b": 1, "a": {"d": 2, "c": 3}})

    assert json.loads((tmp_path / "env.json").read_text()) == {"a": {"c": 3, "d": 2}, "b": 1}
    assert (tmp_path / "env.json").read_text().index('"a"') < (tmp_path / "env.json").read_text().index('"b"')


# Compressed lines, as published runs have them


def packed(lines):
    return gzip.compress("".join(lines).encode(), mtime=0)


def test_compressed_lines_are_read_beside_plain_ones(tmp_path):
    write(tmp_path, LINES[0])
    write(tmp_path, packed(LINES[1:]), "records-y-1.jsonl.gz")
    write(tmp_path, packed([MEASUREMENT.to_json()]), "measurements-y-1.jsonl.gz")
    write(tmp_path, "{}", "env.json")
    run = read_run(tmp_path)

    assert run.records == RECORDS
    assert run.measurements == (MEASUREMENT,)
    assert run.notices == ()


@pytest.mark.parametrize("name", ["records-y-1.jsonl.gz", "measurements-y-1.jsonl.gz"])
def test_a_folder_with_compressed_lines_alone_has_records(tmp_path, name):
    assert has_records(write(tmp_path, packed([]), name))


def test_a_record_is_found_in_compressed_lines(tmp_path):
    folder = write(tmp_path, packed(LINES), "records-y-1.jsonl.gz")

    assert find_record(f"{folder}/records-y-1.jsonl.gz:3", tmp_path) == RECORDS[2]
    assert find_record(RECORDS[1].id, tmp_path) == RECORDS[1]


def changed_byte(content):
    """In the middle of what was deflated without compression, so that it unpacks and only its
    checksum tells.
    """
    return gzip.compress(gzip.decompress(content), 0, mtime=0).replace(b'"ratio": 0.5', b'"ratio": 0.4')


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[: len(content) // 2], "it is torn: its end is missing"),
        (lambda content: content[:-4], "it is torn: its end is missing"),
        (lambda content: b"", "it is torn: its end is missing"),
        (changed_byte, "it was changed after it was written: CRC check failed"),
        (lambda content: content + b"more", "it was changed after it was written: Not a gzipped file"),
        (lambda content: content[:40] + bytes(20) + content[60:], "it was changed after it was written: "),
        (lambda content: gzip.decompress(content), "it was changed after it was written: Not a gzipped file"),
    ],
    ids=[
        "half",
        "four bytes short",
        "empty",
        "a changed number",
        "more behind it",
        "zeros within",
        "not compressed",
    ],
)
@pytest.mark.parametrize("name", ["records-y-1.jsonl.gz", "measurements-y-1.jsonl.gz"])
def test_nothing_of_a_damaged_compressed_file_is_taken(tmp_path, spoil, reason, name):
    """A line of it may be another than was written, and no notice would say which."""
    write(tmp_path, LINES[0])
    write(tmp_path, spoil(packed(LINES if name.startswith("records") else [MEASUREMENT.to_json()])), name)

    with pytest.raises(ValueError, match=rf"{name}' cannot be read: {reason}"):
        read_run(tmp_path)


def test_compressed_lines_that_unpack_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("suite.records.strict_json.UNPACKED_BYTES", 1000)
    write(tmp_path, packed([" " * 1500]), "records-y-1.jsonl.gz")

    with pytest.raises(
        ValueError, match=r"y-1.jsonl.gz' cannot be read: it unpacks to more than 1,000 bytes"
    ):
        read_run(tmp_path)


# A disk that takes no more


FULL = """
import resource, sys
from pathlib import Path
from tests.test_store import RECORDS
from suite.records.store import Store, StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
store = Store(Path(sys.argv[1]))
try:
    for _ in range(99):
        store.append(RECORDS[0])
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("spare", [0, 1, 200, len(LINES[0]) - 1])
def test_a_record_that_does_not_fit_is_cut_off_and_the_reason_and_the_way_on_are_said(spare, tmp_path):
    """A limit on the length of files is met as a full disk is: the write that reaches it is short,
    the next one fails.
    """
    limit = 2 * len(LINES[0]) + spare
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path), str(limit)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    [file] = tmp_path.glob("records-*.jsonl")

    assert (
        finished.stdout
        == f"run folder {str(tmp_path)!r} cannot be written: File too large. What was recorded before is"
        " whole; "
        "make room, then go on with the same command and --resume\n"
    )
    assert file.read_text() == 2 * LINES[0]


def test_a_full_device_is_a_store_error_with_its_reason(tmp_path):
    store = Store(tmp_path)
    store.append(RECORDS[0])
    [file] = tmp_path.glob("records-*.jsonl")
    store.close()
    file.unlink()
    file.symlink_to("/dev/full")

    with pytest.raises(StoreError, match="No space left on device"):
        store.append(RECORDS[1])
    store.close()


def test_a_folder_that_was_taken_away_is_a_store_error(tmp_path):
    store = Store(tmp_path / "run")
    (tmp_path / "run").rmdir()

    with pytest.raises(StoreError, match="No such file or directory"):
        store.append(RECORDS[0])
    with pytest.raises(StoreError, match="No such file or directory"):
        store.write_environment({})


def test_a_file_of_the_folder_is_written_whole_or_not_at_all(tmp_path):
    store = Store(tmp_path)
    store.write_json("run.json", {"a": 1})
    (tmp_path / ".run.json.part").symlink_to("/dev/full")

    with pytest.raises(StoreError, match="No space left on device"):
        store.write_json("run.json", {"a": "x" * 100_000})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}


# Who may write


def test_a_folder_is_held_against_other_processes_and_once_in_this_one(tmp_path):
    code = (
        "import sys; from pathlib import Path; from suite.records.store import held\nwith"
        " held(Path(sys.argv[1])): print('free')"
    )

    def other():
        words = [sys.executable, "-c", code, str(tmp_path)]
        root = Path(__file__).parent.parent
        finished = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=300, check=False)
        return finished.stdout + finished.stderr

    with held(tmp_path), held(tmp_path):
        refused = other()
    after = other()

    assert f"run folder {str(tmp_path)!r} is in use by process {os.getpid()}; wait for its end" in refused
    assert after == "free\n"


def test_a_folder_with_records_is_refused_and_one_without_is_not(tmp_path):
    refuse_records(tmp_path / "absent")
    write(tmp_path, "", "env.json")
    assert not has_records(tmp_path)
    write(tmp_path, LINES[0])

    with pytest.raises(
        ValueError, match=r"holds the records of another run; .* or go on with that run by --resume"
    ):
        refuse_records(tmp_path)

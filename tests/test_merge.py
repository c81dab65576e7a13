"""merge.py: shards come together whole, and what overlaps, is missing or does not belong is said."""

from dataclasses import replace

import pytest

from suite.records.configuration import Configuration, in_shard, read_configuration
from suite.records.merge import join
from suite.records.record import Measurement
from suite.records.store import Store, read_run
from tests.records import make_record

CONFIGURATION = Configuration(
    asked={"profile": "smoke"}, kernels={"softmax a": "1"}, code={"suite/x.py": "1"}, env_id="e"
)
FACTS = {"cpu": "A", "env_id": "e"}


def record(number, **changes):
    given = {
        "suite_version": "1", "kernel": "a", "op": "softmax", "case": f"softmax/normal/4x{number}/s0",
        "family": "normal", "shape": (4, number), "dtype": "float32", "status": "passed",
        "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def of_shard(shard, count):
    """So many records whose cases are of the shard."""
    return [r for r in (record(number) for number in range(1, 200)) if in_shard(r.case, shard)][:count]


def part(folder, shard, records, *, planned=None, configuration=CONFIGURATION, facts=FACTS):
    """A run folder of one shard."""
    store = Store(folder)
    store.write_environment(facts)
    count = len(records) if planned is None else planned
    store.write_json("run.json", replace(configuration, shard=shard, planned=count).to_dict())
    for one in records:
        store.append(one)
    store.close()
    return folder


def merge(folders, out, **options):
    """join() and write; (what it found, the merged run)."""
    merged = join(folders, **options)
    store = Store(out)
    merged.write(store)
    store.close()
    return merged, read_run(out)


def test_whole_shards_make_a_whole_run(tmp_path):
    folders = [
        part(tmp_path / "1", "1/2", of_shard("1/2", 2)),
        part(tmp_path / "2", "2/2", of_shard("2/2", 1)),
    ]

    merged, run = merge(folders, tmp_path / "out")

    assert merged.whole
    assert merged.findings == ()
    assert run.records == merged.records == (*of_shard("1/2", 2), *of_shard("2/2", 1))
    assert run.environment == FACTS
    assert read_configuration(tmp_path / "out") == replace(CONFIGURATION, shard="1/1", planned=3)


def test_an_empty_shard_is_no_gap(tmp_path):
    folders = [part(tmp_path / "1", "1/2", of_shard("1/2", 1)), part(tmp_path / "2", "2/2", [])]

    assert join(folders).whole


def test_measurements_come_along(tmp_path):
    folders = [part(tmp_path / str(i), f"{i}/2", of_shard(f"{i}/2", 1)) for i in (1, 2)]
    measured = Measurement(kind="thresholds", kernel="a", op="softmax", dtype="float32", data={"n": 1})
    store = Store(folders[1])
    store.append_measurement(measured)
    store.close()

    assert merge(folders, tmp_path / "out")[1].measurements == (measured,)


def test_a_missing_shard_and_a_shard_that_did_not_finish_are_gaps(tmp_path):
    folders = [
        part(tmp_path / "a", "1/4", of_shard("1/4", 1), planned=3),
        part(tmp_path / "b", "3/4", of_shard("3/4", 1)),
    ]

    merged, run = merge(folders, tmp_path / "out")

    assert not merged.whole
    assert merged.findings == (
        f"gap: shard 1/4 has 1 of 3 records ({tmp_path}/a); go on with it by --resume",
        "gap: of 4 shards, 2/4, 4/4 missing",
    )
    assert len(run.records) == 2
    assert read_configuration(tmp_path / "out").shard == "1,3/4"


def test_a_merge_of_some_shards_can_be_merged_with_the_others(tmp_path):
    folders = [part(tmp_path / str(i), f"{i}/3", of_shard(f"{i}/3", 1)) for i in (1, 2, 3)]
    merge(folders[:2], tmp_path / "some")

    merged, run = merge([tmp_path / "some", folders[2]], tmp_path / "out")

    assert merged.whole
    assert len(run.records) == 3


def test_records_of_a_shard_that_was_merged_before_are_planned_once(tmp_path):
    """1/3 and half of 2/3 were merged; the whole of 2/3 came later, and 3/3 is missing."""
    one, two, three = (of_shard(f"{i}/3", 4) for i in (1, 2, 3))
    half = part(tmp_path / "half", "2/3", two[:2], planned=4)
    merge([part(tmp_path / "1", "1/3", one), half], tmp_path / "some")
    again = [tmp_path / "some", part(tmp_path / "2", "2/3", two)]

    merged, _ = merge(again, tmp_path / "more")
    last, _ = merge([tmp_path / "more", part(tmp_path / "3", "3/3", three)], tmp_path / "all")

    assert read_configuration(tmp_path / "some").planned == 8
    assert [line for line in merged.findings if line.startswith("gap")] == ["gap: of 3 shards, 3/3 missing"]
    assert (merged.configuration.shard, merged.configuration.planned) == ("1,2/3", 8)
    assert last.whole
    assert read_configuration(tmp_path / "all").planned == 12


def test_merges_that_share_a_shard_plan_it_once(tmp_path):
    one, two, three, four = (of_shard(f"{i}/4", 3) for i in (1, 2, 3, 4))
    first = part(tmp_path / "12", "1,2/4", one + two, planned=6)
    second = part(tmp_path / "23", "2,3/4", two[1:] + three, planned=6)

    merged = join([first, second, part(tmp_path / "4", "4/4", four, planned=4)])

    assert merged.configuration.planned == 13
    assert [line for line in merged.findings if line.startswith("gap")] == [
        f"gap: shard 4/4 has 3 of 4 records ({tmp_path}/4); go on with it by --resume"
    ]


def test_one_shard_that_was_run_in_two_halves_is_whole(tmp_path):
    folders = [
        part(tmp_path / "a", "1/1", [record(1)], planned=2),
        part(tmp_path / "b", "1/1", [record(2)], planned=2),
    ]

    assert join(folders).whole


def test_an_overlap_of_equal_verdicts_is_noted(tmp_path):
    folders = [
        part(tmp_path / "a", "1/1", [record(1), record(2)]),
        part(tmp_path / "b", "1/1", [record(2), record(1)]),
    ]

    merged, run = merge(folders, tmp_path / "out")

    assert merged.whole
    assert merged.contradictions == ()
    assert merged.findings == (
        f"overlap: 2 records are in {tmp_path}/a and in {tmp_path}/b, with the same verdicts",
    )
    assert len(run.records) == 2


def test_an_overlap_of_other_verdicts_is_a_contradiction_and_keeps_both_lines(tmp_path):
    other = record(1, status="inaccurate", broken=("inaccurate",), message="far off")
    folders = [part(tmp_path / "a", "1/1", [record(1)]), part(tmp_path / "b", "1/1", [other])]

    merged, _ = merge(folders, tmp_path / "out")

    line = (
        f"contradiction: softmax/normal/4x1/s0 float32 a is passed in {tmp_path}/a and inaccurate in"
        f" {tmp_path}/b"
    )
    assert merged.contradictions == merged.findings == (line,)
    [file] = (tmp_path / "out").glob("records-*.jsonl")
    assert file.read_text().count("\n") == 2


def test_what_cannot_be_read_is_a_finding_and_a_gap(tmp_path):
    folder = part(tmp_path / "a", "1/1", [record(1), record(2)])
    [file] = folder.glob("records-*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])

    merged = join([folder])

    assert [line.startswith(f"{folder}: {file.name}:2 skipped: ") for line in merged.findings] == [
        True,
        False,
    ]
    assert not merged.whole


UNLIKE = {
    "an option": ({"asked": {"profile": "quick"}}, '--profile: "smoke" in {a}, "quick" in {b}'),
    "a kernel": ({"kernels": {"softmax a": "2"}}, 'kernel softmax a: "1" in {a}, "2" in {b}'),
    "code": ({"code": {"suite/x.py": "2"}}, "code suite/x.py differs"),
}


@pytest.mark.parametrize(("change", "line"), UNLIKE.values(), ids=UNLIKE)
def test_parts_of_unlike_configuration_are_refused_with_what_differs(change, line, tmp_path):
    a = part(tmp_path / "a", "1/2", [record(1)])
    b = part(tmp_path / "b", "2/2", [record(2)], configuration=replace(CONFIGURATION, **change))

    with pytest.raises(ValueError, match="these are not parts of one run:") as caught:
        join([a, b])
    assert str(caught.value).splitlines()[1:] == ["  " + line.format(a=a, b=b)]


def test_shards_of_unlike_numbers_are_refused(tmp_path):
    a, b = part(tmp_path / "a", "1/2", [record(1)]), part(tmp_path / "b", "2/3", [record(2)])

    with pytest.raises(ValueError, match=rf"--shard: of 2 in {a}, of 3 in {b}"):
        join([a, b])


def test_unlike_environments_are_refused_with_the_facts_and_joined_where_asked(tmp_path):
    a = part(tmp_path / "a", "1/2", of_shard("1/2", 1))
    facts = {"cpu": "B", "env_id": "f"}
    b = part(
        tmp_path / "b",
        "2/2",
        of_shard("2/2", 1),
        configuration=replace(CONFIGURATION, env_id="f"),
        facts=facts,
    )

    with pytest.raises(ValueError, match="--unlike-environments") as caught:
        join([a, b])
    assert str(caught.value).splitlines()[1:] == [f'  environment, cpu: "A" in {a}, "B" in {b}']
    merged, run = merge([a, b], tmp_path / "out", unlike_environments=True)
    assert merged.whole
    assert run.environment == {**FACTS, "merged": {"b": facts}}


def test_a_folder_named_twice_or_without_run_json_is_refused(tmp_path):
    a = part(tmp_path / "a", "1/1", [record(1)])

    with pytest.raises(ValueError, match="is named twice"):
        join([a, tmp_path / "a" / ".." / "a"])
    (a / "run.json").unlink()
    with pytest.raises(ValueError, match=r"has no run\.json"):
        join([a])

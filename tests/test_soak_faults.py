"""The soak of faults in small, each kind once, and its own eyes: what it must see where a run goes wrong."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.crashing_kernels import KINDS
from tests.records import make_record
from tests.soak.faults import Found, _by_kernel, _compare, plan, soak

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is promised of processes is promised for Linux"
)


@pytest.mark.share(of=4, group="whole runs")
@pytest.mark.skipif(shutil.which("cc") is None, reason="one of the faults is a library that cc compiles")
def test_every_kind_once_in_a_run_has_its_status_and_changes_nothing_else(tmp_path):
    found = soak(
        tmp_path,
        faults=len(KINDS),
        timeout=2.0,
        arguments=["--op=softmax", "--op=logsumexp", "--dtype=float32", "--kernel=shifted"],
        outside=["planned_softmax", "planned_naive_softmax", "planned_logsumexp"],
    )

    assert not found.missed, found
    assert (set(found.kinds), found.right) == (set(KINDS), len(KINDS))
    assert found.evaluations > 150


def record(case, kernel="k", status="passed", **fields):
    return make_record(
        suite_version="0", kernel=kernel, outside=True, op="softmax", case=f"softmax/normal/{case}x3/s0",
        family="normal", shape=(case, 3), dtype="float32", status=status, message="why", **fields,
    )  # fmt: skip


RECORDS = [record(rows, kernel) for rows in range(1, 60) for kernel in "ab"]


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_has_every_kind_and_never_three_in_a_row(seed):
    planned = plan(RECORDS, 50, random.Random(seed))

    assert len(planned) == 50
    assert {kind for kind, _ in planned.values()} == set(KINDS)
    for group in _by_kernel(RECORDS).values():
        hit = [r.id in planned for r in group]
        assert not any(all(hit[i : i + 3]) for i in range(len(hit) - 2))
    assert planned == plan(RECORDS, 50, random.Random(seed))
    assert planned != plan(RECORDS, 50, random.Random(seed + 1))


def test_faults_that_find_no_place_are_an_error():
    with pytest.raises(ValueError, match="119 faults do not fit into 118"):
        plan(RECORDS, 119, random.Random(0))


@pytest.mark.parametrize(
    ("after", "fault", "sign"),
    [
        (None, None, "lost"),
        (record(3, status="inaccurate"), None, "changed"),
        (record(3, digest="other"), None, "changed"),
        (record(3), ("aborts", 1), "wrong"),
        (record(3, status="timed_out"), ("aborts", 1), "wrong"),
        (replace(record(3, status="crashed"), message="SIGSEGV"), ("aborts", 1), "wrong"),
        (replace(record(3, status="crashed"), message="SIGABRT"), ("aborts", 2), "wrong"),
        (record(3), ("floods_its_output", 1), "wrong"),
        (replace(record(3, status="crashed"), message="SIGABRT"), ("aborts", 1), "right"),
        (replace(record(3, status="crashed"), message="\n  law  repeat: SIGABRT"), ("aborts", 2), "right"),
        (record(3, seconds=2.0, started="2026-01-01"), None, "right"),
    ],
)
def test_what_the_soak_sees(after, fault, sign):
    found = Found()
    _compare(record(3), after, fault, found)

    assert (found.lost, found.changed) == (sign == "lost", sign == "changed")
    assert found.right == (sign == "right" and fault is not None)
    assert found.missed == (sign != "right")


def test_the_programs_say_what_they_do():
    for name in ("faults", "isolation"):
        result = subprocess.run(
            [sys.executable, "-m", f"tests.soak.{name}", "--help"], capture_output=True, text=True, check=True
        )
        assert "default: " in result.stdout

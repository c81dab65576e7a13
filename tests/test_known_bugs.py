"""Mutants with the bugs of public reports: the family that docs/known-bugs.md names finds each, and passes
the op without the bug.
"""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from suite import inputs, judge
from suite.formats import FORMATS, get_format
from suite.inputs.known_bugs import LOWEST, TRIGGERS, Trigger
from suite.oracle import Oracle
from suite.tensors import to_float64, to_torch
from tests.known_bug_kernels import KNOWN_BUGS, good

ORACLE = Oracle(remembered=64)
DOCUMENT = (Path(__file__).parents[1] / "docs" / "known-bugs.md").read_text(encoding="utf-8")
CAUGHT = [(bug.name, dtype) for bug in KNOWN_BUGS.values() for dtype in bug.dtypes]


@functools.cache
def tensor(family, shape, dtype):
    return to_torch(inputs.build(family, *shape, get_format(dtype), 0), get_format(dtype))


@functools.cache
def judgement_of_good(op, family, shape, dtype):
    x = tensor(family, shape, dtype)
    return judge(op, x, good(op, x), oracle=ORACLE)


def test_there_are_enough_bugs():
    assert len(KNOWN_BUGS) >= 55
    assert {bug.op for bug in KNOWN_BUGS.values()} == {"softmax", "log_softmax", "logsumexp"}


@pytest.mark.parametrize(("name", "dtype"), CAUGHT)
def test_family_finds_the_bug_and_passes_the_op_without_it(name, dtype):
    bug = KNOWN_BUGS[name]
    x = tensor(bug.family, bug.shape, dtype)

    assert judgement_of_good(bug.op, bug.family, bug.shape, dtype).passed
    found = judge(bug.op, x, bug.kernel(x.clone()), oracle=ORACLE)
    assert set(found.broken) & {"inaccurate", "nonfinite", "law_broken"}, f"{name} passes on {bug.family}"


def numbers_of(sources):
    return set(re.findall(r"#\d+", " ".join(sources)))


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, d) for n, d in CAUGHT if KNOWN_BUGS[n].family == "known_bugs"]
)
def test_the_reported_row_itself_shows_the_bug(name, dtype):
    """Not only some other row of the family."""
    bug, format = KNOWN_BUGS[name], get_format(dtype)
    x = tensor("known_bugs", bug.shape, dtype)
    status = judge(bug.op, x, bug.kernel(x.clone()), oracle=ORACLE).row_status
    values = to_float64(x)
    reported = []
    for trigger in TRIGGERS:
        row = trigger.row(bug.shape[1])
        lowest = np.isfinite(row) & (row <= LOWEST / 2)
        row[lowest] = row[lowest] / -LOWEST * format.largest
        row = np.where(np.isfinite(row), format.round(np.clip(row, -format.largest, format.largest)), row)
        if numbers_of([trigger.source]) & numbers_of(bug.sources):
            reported += [
                status[i] for i in range(len(values)) if np.array_equal(values[i], row, equal_nan=True)
            ]

    assert reported
    assert set(reported) != {"passed"}


def test_document_names_only_families_that_exist():
    named = set(
        re.findall(r"`(\w+)`", "\n".join(line for line in DOCUMENT.splitlines() if line.startswith("| [")))
    )

    assert len(named) >= 20
    assert named <= set(inputs.all_families()) | {"dim"} | {b.name for b in KNOWN_BUGS.values()}


@pytest.mark.parametrize("name", sorted(KNOWN_BUGS))
def test_document_has_every_bug_of_the_mutants_with_its_reports(name):
    bug = KNOWN_BUGS[name]
    lines = [line for line in DOCUMENT.splitlines() if f"`{name}`" in line]

    assert all(
        any(f"[{source}]" in line and f"`{bug.family}`" in line for line in lines) for source in bug.sources
    )


def test_sixty_four_rows_hold_every_trigger():
    for seed in range(3):
        rows = {row.tobytes() for row in inputs.build("known_bugs", 64, 33, get_format("float64"), seed)}
        for trigger in TRIGGERS:
            if not {abs(v) for v in trigger.logits} & {-LOWEST, -LOWEST / 2}:
                assert trigger.row(33).tobytes() in rows, trigger.source


def test_a_trigger_keeps_its_last_logits_in_a_row_that_is_too_short_and_continues_in_a_longer_one():
    assert Trigger("", (1.0, 2.0, 3.0)).row(2).tolist() == [2.0, 3.0]
    assert Trigger("", (1.0, 2.0)).row(4).tolist() == [1.0, 2.0, -np.inf, -np.inf]
    assert Trigger("", (1.0, 2.0), "last").row(4).tolist() == [1.0, 2.0, 2.0, 2.0]
    assert Trigger("", (1.0, 2.0), "repeated").row(5).tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert Trigger("", (1.0, 2.0)).row(0).tolist() == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_lowest_number_of_the_format_stands_in_the_triggers_that_ask_for_it(dtype):
    """And no row is all lowest finite: its product with log2(e) may overflow, which is no fault."""
    values = inputs.build("known_bugs", 64, 33, FORMATS[dtype], 0)

    assert (values == -FORMATS[dtype].largest).any()
    assert not (values == -FORMATS[dtype].largest).all(axis=1).any()


def test_every_trigger_names_its_report():
    assert [t for t in TRIGGERS if not re.match(r"[\w.-]+/[\w.-]+#\d+", t.source)] == []

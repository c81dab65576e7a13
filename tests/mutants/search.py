"""Which cases catch a mutant."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from suite.case import PROFILES, Case
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.oracle import Oracle
from suite.records.record import PASSING, Record
from suite.selection import case_specifications
from tests.mutants.mutant import Mutant

ORACLE = Oracle(remembered=400)
REMEMBERED = Path(__file__).with_name("caught.json")
"""Mutant -> format -> the smallest case that caught it: [id, *laws]. `python -m tests.mutants
--remember` writes it.
"""


@functools.cache
def cases_of(op: str, dtype: str, profile: str, direction: str = "forward") -> tuple[tuple[str, Case], ...]:
    """(smallest profile that runs it, case) of the op's cases in a profile: smaller profiles first,
    then smaller cases.
    """
    found: dict[tuple[str, tuple[str, ...]], tuple[str, Case]] = {}
    for name in PROFILES[: PROFILES.index(profile) + 1]:
        for specification in case_specifications():
            if op in specification.ops and dtype in specification.dtypes:
                for case in specification.cases(name):
                    if case.op == op and case.direction == direction:
                        found.setdefault((case.id, case.laws), (name, case))
    return tuple(sorted(found.values(), key=lambda entry: (PROFILES.index(entry[0]), size(entry[1]))))


def size(case: Case) -> int:
    """How many numbers its inputs hold."""
    return sum(map(math.prod, case.shapes().values()))


@functools.cache
def remembered() -> Mapping[str, Mapping[str, list[str]]]:
    return json.loads(REMEMBERED.read_text(encoding="utf-8"))


def findings(
    mutant: Mutant, dtype: str, *, profile: str, likeliest: bool = False
) -> Iterator[tuple[str, Record]]:
    """(smallest profile that runs it, record) of every case of the profile that the mutant does not pass.

    Cases of smaller profiles come first, or the likeliest to show it: the one that did last time, and then
    those that lack the fewest settings.
    """
    last = remembered().get(mutant.name, {}).get(dtype) if likeliest else None

    def place(entry: tuple[str, Case]) -> tuple[bool, int, int]:
        name, case = entry
        known = [case.id, *case.laws] == last
        profile, missing = PROFILES.index(name), mutant.missing(case)
        return (not known, missing, profile) if likeliest else (not known, profile, missing)

    kernel, host = mutant.kernel(), InProcess()
    for name, case in sorted(cases_of(mutant.op, dtype, profile, mutant.direction), key=place):
        record = evaluate(case, kernel, dtype=dtype, oracle=ORACLE, host=host)
        if record.status not in PASSING:
            yield name, record


def right(mutant: Mutant, record: Record) -> bool:
    """Whether a mutant was caught for its own reason."""
    return bool(set(record.broken) & set(mutant.statuses))


def caught_by(mutant: Mutant, dtype: str, *, profile: str) -> tuple[str, Record] | None:
    """(smallest profile, first record) that catches the mutant for its own reason; None where no
    case of the profile does.
    """
    return next(
        (found for found in findings(mutant, dtype, profile=profile) if right(mutant, found[1])), None
    )


def catches(mutant: Mutant, dtype: str, *, profile: str = "smoke", all_cases: bool = False) -> list[Record]:
    """The records that catch the mutant in this dtype; the first for its own reason ends the list,
    unless all_cases.
    """
    found = []
    for _, record in findings(mutant, dtype, profile=profile, likeliest=True):
        found.append(record)
        if not all_cases and right(mutant, record):
            break
    return found

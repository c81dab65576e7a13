"""What every report says about a set of records: the verdict, the worst of each cell, the counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from suite.records.record import PASSING, STATUSES, Record
from suite.report.tables import Cell, by
from suite.report.words import count, first_line, spaced, times, with_direction

ALL_STATUSES = (*reversed(STATUSES), "known_failure")
ENDED = {"crashed": "crashed", "timed_out": "ran out of time", "out_of_memory": "ran out of memory"}
"""The statuses of kernels that ended their process, or had to be ended with it, and how a sentence
says so.
"""
LEVELS = {"unsupported": -1, "passed": 0, "known_failure": 1, "not_run": 2, "unjudged": 3}
"""How bad a status is; a failure is 4."""


def labelled(records: Sequence[Record]) -> list[Record]:
    """The records with "backward" in the op of a backward pass, so that tables keep both apart."""
    return [
        replace(r, op=with_direction(r.op, r.direction)) if r.direction == "backward" else r for r in records
    ]


def severity(record: Record) -> tuple[int, float, bool]:
    """Orders records, worst last: a kernel that ended its process above every result, failures
    above what was not run, that above known failures, those above passes; overflow above all other
    results; then the error over its bound, NaN last.
    """
    level = 200 if record.status in ENDED else LEVELS.get(record.status, 4)
    if level < 0:
        return -1, 0.0, False
    ratio = record.judgement.ratio or 0.0
    overflow = 100 if record.judgement.overflow and level > 0 else 0
    return level + overflow, math.inf if math.isnan(ratio) else ratio, math.isnan(ratio)


def worst(records: Iterable[Record]) -> Record:
    return max(records, key=severity)


def cell(records: Sequence[Record]) -> Cell:
    """The cell of a matrix: the worst of these records, which share kernel, family and format."""
    if not records:
        return Cell("–", kind="absent", title="no record")
    record = worst(records)
    title = f"{record.case} {record.dtype} {record.kernel}: {record.status}"
    if record.status == "passed":
        return Cell(times(record.judgement.ratio), kind="passed", title=title)
    if record.status == "unsupported":
        return Cell("n/a", kind="absent", title=f"{title}: {record.message}")
    if record.status in (*ENDED, "not_run"):
        kind = "failed ended" if record.status in ENDED else "set-aside"
        return Cell(spaced(record.status), kind=kind, title=f"{title}: {first_line(record.message)}")
    kind = "known" if record.status == "known_failure" else "failed"
    if record.judgement.overflow:
        share = record.judgement.overflow / max(record.judgement.entries, 1)
        text = f"overflow {share:.0%}" if share >= 0.005 else "overflow"
        return Cell(text, kind=f"{kind} overflow", title=title)
    if record.status == "unjudged":
        return Cell("unjudged", kind="unjudged", title=title)
    return Cell(how_bad(record), kind=kind, title=title)


def how_bad(record: Record) -> str:
    """The failure of a record in one word or number: overflow, the error over its bound, or its status."""
    if record.judgement.overflow:
        return "overflow"
    broken = record.broken[0] if record.broken else record.status
    return times(record.judgement.ratio) if broken == "inaccurate" else spaced(broken)


def counts(records: Iterable[Record]) -> dict[str, int]:
    """How many records have each status, every status named."""
    found = Counter(record.status for record in records)
    return {status: found[status] for status in ALL_STATUSES}


def verdict(records: Sequence[Record]) -> tuple[str, Record | None]:
    """The verdict in a few sentences, and the worst record if any failed or was not run."""
    text, record = _verdict_of_the_judged(records)
    found = counts(records)
    ended = [f"{found[status]:,} {words}" for status, words in ENDED.items() if found[status]]
    if ended:
        text += f" Of these {', '.join(ended)}."
    aside = [r for r in records if r.status == "not_run"]
    if not aside:
        return text, record
    who = sorted({f"{r.op} {r.kernel}" for r in aside})
    named = who[0] if len(who) == 1 else f"{who[0]} and {count(len(who) - 1, 'other kernel')}"
    why = first_line(aside[0].message).partition(":")[0]
    text += f" Not run: {count(len(aside), 'evaluation')} of {named} ({why})."
    return text, worst([*aside, *([record] if record is not None else [])])


def _verdict_of_the_judged(records: Sequence[Record]) -> tuple[str, Record | None]:
    judged = [r for r in records if r.status not in ("unsupported", "not_run")]
    failed = [r for r in judged if r.status not in PASSING]
    known = [r for r in judged if r.status == "known_failure"]
    kernels = count(len({(r.op, r.kernel) for r in judged}), "kernel")
    evaluations = count(len(judged), "evaluation")
    if not judged:
        return "Nothing was judged.", None
    if failed:
        bad = len({(r.op, r.kernel) for r in failed})
        return f"{bad} of {kernels} failed, on {len(failed):,} of {evaluations}.", worst(failed)
    if not known:
        return f"{kernels} passed all of {evaluations}.", None
    text = f"No unexpected failure: {kernels}, {evaluations}; "
    return text + f"{count(len(known), 'failure')} known or declared, each with its reason.", worst(known)


def worst_cases(records: Sequence[Record], *, limit: int = 24) -> list[Record]:
    """The worst record of each op, kernel, format and status among those that did not pass, worst first."""
    groups = by(
        (r for r in records if r.status not in ("passed", "unsupported")),
        lambda r: (r.op, r.kernel, r.dtype, r.status),
    )
    return sorted(map(worst, groups.values()), key=severity, reverse=True)[:limit]

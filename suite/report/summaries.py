"""What every report says about a set of records: the verdict, the worst of each cell, the counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suite.formats import DTYPES
from suite.records.record import PASSING, STATUSES, Record

ALL_STATUSES = (*reversed(STATUSES), "known_failure")
ENDED = {"crashed": "crashed", "timed_out": "ran out of time", "out_of_memory": "ran out of memory"}
"""The statuses of kernels that took their process with them, or had to be ended with it; how a
sentence says it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the matrix: the worst record of a kernel on a family in a format. kind is its CSS class."""

    text: str
    kind: str
    title: str


def severity(record: Record) -> tuple[int, float, bool]:
    """Orders records, worst last: a kernel that ended its process above every result, failures
    above what was not run, that above known failures, those above passes; overflow above all other
    results; then times of bound, NaN last.
    """
    ratio = record.ratio or 0.0
    order = {"unsupported": -1, "passed": 0, "known_failure": 1, "not_run": 2, "unjudged": 3}
    level = 200 if record.status in ENDED else order.get(record.status, 4)
    overflow = 100 if record.overflow and level > 0 else 0
    return (
        (level + overflow, math.inf if math.isnan(ratio) else ratio, math.isnan(ratio))
        if level >= 0
        else (-1, 0.0, False)
    )


def worst(records: Iterable[Record]) -> Record:
    return max(records, key=severity)


def cell(records: Sequence[Record]) -> Cell:
    """The cell of these records, which share kernel, family and format."""
    if not records:
        return Cell(text="–", kind="absent", title="no record")
    record = worst(records)
    title = f"{record.case} {record.dtype} {record.kernel}: {record.status}"
    if record.status == "unsupported":
        return Cell(text="n/a", kind="absent", title=f"{title}: {record.message}")
    if record.status in ENDED:
        return Cell(text=record.status.replace("_", " "), kind="failed ended", title=_said(title, record))
    if record.status == "not_run":
        return Cell(text="not run", kind="set-aside", title=_said(title, record))
    known = record.status == "known_failure"
    if record.status == "passed":
        return Cell(text=times(record.ratio), kind="passed", title=title)
    if record.overflow:
        share = record.overflow / max(record.entries, 1)
        return Cell(
            text=f"overflow {share:.0%}" if share >= 0.005 else "overflow",
            kind="known overflow" if known else "failed overflow",
            title=title,
        )
    if record.status == "unjudged":
        return Cell(text="unjudged", kind="unjudged", title=title)
    return Cell(text=how_bad(record), kind="known" if known else "failed", title=title)


def _said(title: str, record: Record) -> str:
    return f"{title}: {first_line(record.message)}"


def first_line(message: str) -> str:
    return message.strip().partition("\n")[0]


def formats(records: Iterable[Record]) -> list[str]:
    """The formats of these records, widest first; after them those that this version does not know."""
    found = {record.dtype for record in records}
    return [dtype for dtype in DTYPES if dtype in found] + sorted(found.difference(DTYPES))


def how_bad(record: Record) -> str:
    """The failure of a record in one word or number: overflow, times of the bound, or its status."""
    if record.overflow:
        return "overflow"
    broken = record.broken[0] if record.broken else record.status
    return times(record.ratio) if broken == "inaccurate" else broken.replace("_", " ")


def times(ratio: float | None) -> str:
    """A ratio in times of the bound, short."""
    if ratio is None:
        return "?"
    if math.isinf(ratio):
        return "∞"
    if ratio == 0:
        return "0"
    if ratio < 0.01:
        return "<0.01"
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}" if ratio < 1e5 else f"{ratio:.0e}"


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
    named = who[0] if len(who) == 1 else f"{who[0]} and {_count(len(who) - 1, 'other kernel')}"
    why = first_line(aside[0].message).partition(":")[0]
    text += f" Not run: {_count(len(aside), 'evaluation')} of {named} ({why})."
    return text, worst([*aside, *([record] if record is not None else [])])


def _verdict_of_the_judged(records: Sequence[Record]) -> tuple[str, Record | None]:
    judged = [r for r in records if r.status not in ("unsupported", "not_run")]
    failed = [r for r in judged if r.status not in PASSING]
    known = [r for r in judged if r.status == "known_failure"]
    kernels = {(r.op, r.kernel) for r in judged}
    if not judged:
        return "Nothing was judged.", None
    if not failed:
        if not known:
            return (
                f"{_count(len(kernels), 'kernel')} passed all of {_count(len(judged), 'evaluation')}.",
                None,
            )
        text = (
            f"No unexpected failure: {_count(len(kernels), 'kernel')}, {_count(len(judged), 'evaluation')}; "
        )
        return text + f"{_count(len(known), 'failure')} known or declared, each with its reason.", worst(
            known
        )
    bad = {(r.op, r.kernel) for r in failed}
    text = (
        f"{len(bad)} of {_count(len(kernels), 'kernel')} failed, on {len(failed):,} of"
        f" {_count(len(judged), 'evaluation')}."
    )
    return text, worst(failed)


def known_reasons(records: Sequence[Record]) -> list[tuple[str, str, str, int]]:
    """(op and kernel, dtypes, reason, how many) of the known failures, those outside a declared
    domain among them.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.status == "known_failure":
            reason = record.known.partition(" (")[0] if record.known.startswith("outside") else record.known
            groups.setdefault((f"{record.op} {record.kernel}", reason), []).append(record)
    return [
        (who, ", ".join(dict.fromkeys(r.dtype for r in group)), reason, len(group))
        for (who, reason), group in sorted(groups.items())
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def worst_cases(records: Sequence[Record], *, limit: int = 24) -> list[Record]:
    """The worst record of each op, kernel, format and status among those that did not pass, worst first."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.status not in ("passed", "unsupported"):
            groups.setdefault((record.op, record.kernel, record.dtype, record.status), []).append(record)
    return sorted((worst(group) for group in groups.values()), key=severity, reverse=True)[:limit]

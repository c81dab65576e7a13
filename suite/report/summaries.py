"""What every report says about a set of records: the verdict, the worst of each cell, the counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suite.records import PASSING, STATUSES, Record

ALL_STATUSES = (*reversed(STATUSES), "known_failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the matrix: the worst record of a kernel on a family in a format. kind is its CSS class."""

    text: str
    kind: str
    title: str


def severity(record: Record) -> tuple[int, float, bool]:
    """Orders records, worst last: failures above known ones above passes; overflow above all; then times of bound, NaN last."""
    ratio = record.ratio or 0.0
    if record.status == "unsupported":
        return (-1, 0.0, False)
    level = 0 if record.status == "passed" else 2 if record.status not in PASSING else 1
    overflow = 100 if record.overflow and level else 0
    return (level + overflow, math.inf if math.isnan(ratio) else ratio, math.isnan(ratio))


def worst(records: Iterable[Record]) -> Record:
    return max(records, key=severity)


def cell(records: Sequence[Record]) -> Cell:
    """The cell of these records, which share kernel, family and format."""
    if not records:
        return Cell(text="not run", kind="absent", title="no record")
    record = worst(records)
    title = f"{record.case} {record.dtype} {record.kernel}: {record.status}"
    if record.status == "unsupported":
        return Cell(text="n/a", kind="absent", title=f"{title}: {record.message}")
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
    """The verdict in one or two sentences, and the worst record if any failed."""
    judged = [r for r in records if r.status not in ("unsupported", "not_run")]
    failed = [r for r in judged if r.status not in PASSING]
    known = [r for r in judged if r.status == "known_failure"]
    kernels = {(r.op, r.kernel) for r in judged}
    if not judged:
        return "Nothing was judged.", None
    if not failed:
        if not known:
            return f"{_count(len(kernels), 'kernel')} passed all of {_count(len(judged), 'evaluation')}.", None
        text = f"No unexpected failure: {_count(len(kernels), 'kernel')}, {_count(len(judged), 'evaluation')}; "
        return text + f"{_count(len(known), 'failure')} known or declared, each with its reason.", worst(known)
    bad = {(r.op, r.kernel) for r in failed}
    text = f"{len(bad)} of {_count(len(kernels), 'kernel')} failed, on {len(failed):,} of {_count(len(judged), 'evaluation')}."
    return text, worst(failed)


def known_reasons(records: Sequence[Record]) -> list[tuple[str, str, str, int]]:
    """(op and kernel, dtypes, reason, how many) of the known failures, those outside a declared domain among them."""
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

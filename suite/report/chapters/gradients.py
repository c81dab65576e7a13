"""Gradients that became 0 although the exact gradient is not, for each kernel and format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suite.records.record import PASSING, Record
from suite.report.chapters import Found
from suite.report.tables import Cell, by
from suite.report.words import in_order

PLACE = 30


def context(found: Found) -> dict[str, Any] | None:
    """formats; rows: each kernel that lost a gradient, with a cell a format; kept: how many lost none."""
    judged = [
        r for r in found.of_kernels if r.direction == "backward" and r.judgement.false_zeros is not None
    ]
    if not judged:
        return None
    groups = by(judged, lambda r: (r.op, r.kernel))
    formats = in_order(r.dtype for r in judged)
    rows = []
    for (op, kernel), group in sorted(groups.items(), key=lambda item: item[0]):
        if any(r.judgement.false_zeros or r.judgement.dead_rows for r in group):
            of_format = by(group, lambda r: r.dtype)
            rows.append((f"{op} {kernel}", [_cell(of_format.get(dtype, [])) for dtype in formats]))
    return {"formats": formats, "rows": rows, "kept": len(groups) - len(rows)}


def _cell(records: Sequence[Record]) -> Cell:
    """False zeros of all entries; the title has the counts."""
    if not records:
        return Cell("–", kind="absent", title="no gradient was judged")
    zeros = sum(r.judgement.false_zeros or 0 for r in records)
    flushed = sum(r.judgement.flushed for r in records)
    dead = sum(r.judgement.dead_rows or 0 for r in records)
    entries = sum(r.judgement.entries for r in records)
    failed = sum(r.status not in PASSING for r in records)
    text = "none" if not zeros else f"{zeros / max(entries, 1):.2g}".replace("e-0", "e-")
    known = any(r.status == "known_failure" for r in records)
    counts = (
        f"{zeros:,} false zeros and {flushed - zeros:,} flushed of {entries:,} entries, {dead:,} dead rows"
    )
    return Cell(
        f"{text}, {dead:,} dead" if dead else text,
        kind="failed" if failed else "known" if known else "passed",
        title=f"{counts}; {len(records)} evaluations, {failed} failed",
    )

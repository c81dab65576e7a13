"""The chapter of gradients: per kernel and format, what became exactly 0 although the exact
gradient did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from suite.records.record import PASSING, Record
from suite.report.summaries import formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A cell: false zeros of all entries, as text; kind: its CSS class; title: the counts behind it."""

    text: str
    kind: str
    title: str


def labelled(records: Sequence[Record]) -> list[Record]:
    """The records with the direction in the name of the op where it is the backward, so that tables
    keep both apart.
    """
    return [replace(r, op=f"{r.op} backward") if r.direction == "backward" else r for r in records]


def gradient_context(records: Sequence[Record]) -> dict[str, Any]:
    """What templates/gradients.html needs, of labelled records: formats, a row of cells for each
    kernel that lost a gradient in one of them, and how many kernels lost none.
    """
    judged = [r for r in records if r.direction == "backward" and r.false_zeros is not None]
    groups: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in judged:
        groups.setdefault((record.op, record.kernel), {}).setdefault(record.dtype, []).append(record)
    dtypes = formats(judged)
    losing = {(r.op, r.kernel) for r in judged if r.false_zeros or r.dead_rows}
    lost = {key: found for key, found in groups.items() if key in losing}
    rows = [
        (f"{op} {kernel}", [_cell(found.get(dtype, [])) for dtype in dtypes])
        for (op, kernel), found in sorted(lost.items())
    ]
    return {"gradient_formats": dtypes, "gradients": rows, "gradients_kept": len(groups) - len(lost)}


def _cell(records: Sequence[Record]) -> Lost:
    if not records:
        return Lost(text="–", kind="absent", title="no gradient was judged")
    zeros, flushed, dead = (
        sum(getattr(r, name) or 0 for r in records) for name in ("false_zeros", "flushed", "dead_rows")
    )
    entries = sum(r.entries for r in records)
    failed = sum(r.status not in PASSING for r in records)
    text = "none" if not zeros else f"{zeros / max(entries, 1):.2g}".replace("e-0", "e-")
    if dead:
        text += f", {dead:,} dead"
    kind = "failed" if failed else "known" if any(r.status == "known_failure" for r in records) else "passed"
    title = (
        f"{zeros:,} false zeros and {flushed - zeros:,} flushed of {entries:,} entries, {dead:,} dead rows; "
        f"{len(records)} evaluations, {failed} failed"
    )
    return Lost(text=text, kind=kind, title=title)

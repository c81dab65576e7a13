"""Every kernel of every op: how its evaluations ended, and its errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from suite.records.record import SUMMARY_CLASSES, Record, summary_class
from suite.report.chapters import Found
from suite.report.summaries import ENDED
from suite.report.tables import Cell, Column, Table, by, numbers
from suite.report.words import spaced, times

PLACE = 20
COLUMNS = (
    Column("op"),
    Column("kernel", "row"),
    *numbers(
        "passed",
        "failed",
        "known failure",
        "unjudged",
        "unsupported",
        "worst passing error over the bound",
        "error against torch’s, median",
    ),
    Column("declares", "note"),
)


def context(found: Found) -> dict[str, Any]:
    groups = by(found.of_kernels, lambda r: (r.op, r.kernel))
    rows = [
        _row(op, kernel, group) for (op, kernel), group in sorted(groups.items(), key=lambda item: item[0])
    ]
    return {"kernels": Table(columns=COLUMNS, rows=rows)}


def _row(op: str, kernel: str, group: Sequence[Record]) -> list[str | Cell]:
    statuses = Counter(r.status for r in group)
    count = Counter(summary_class(r.status) for r in group)
    cells: dict[str, str | Cell] = {name: str(count[name] or "") for name in SUMMARY_CLASSES}
    among = [f"{statuses[s]:,} {spaced(s)}" for s in (*ENDED, "not_run") if statuses[s]]
    cells["failed"] = Cell(str(count["failed"] or ""), small=among)
    passed = [r for r in group if r.status == "passed"]
    errors = [r.judgement.ratio for r in passed if r.judgement.ratio is not None]
    against = sorted(r.torch_ratio for r in passed if r.torch_ratio is not None)
    return [
        op,
        kernel,
        *(cells[name] for name in ("passed", "failed", "known_failure", "unjudged", "unsupported")),
        times(max(errors)) if errors else "",
        f"{against[len(against) // 2]:.2f}" if against else "",
        group[0].numerics,
    ]

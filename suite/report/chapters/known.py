"""Known failures: what a list of them explains, and what lies outside a kernel's declared domain."""

from __future__ import annotations

from typing import Any

from suite.records.record import Record
from suite.report.chapters import Found
from suite.report.tables import Column, Table, by, numbers

PLACE = 60
COLUMNS = (Column("kernel", "row"), Column("formats"), Column("reason"), *numbers("evaluations"))


def context(found: Found) -> dict[str, Any] | None:
    groups = by((r for r in found.records if r.status == "known_failure"), _who_and_why)
    rows = [
        (who, ", ".join(dict.fromkeys(r.dtype for r in group)), why, len(group))
        for (who, why), group in sorted(groups.items(), key=lambda item: item[0])
    ]
    return {"known": Table(columns=COLUMNS, rows=rows)} if rows else None


def _who_and_why(record: Record) -> tuple[str, str]:
    outside = record.known.startswith("outside")
    return f"{record.op} {record.kernel}", record.known.partition(" (")[0] if outside else record.known

"""Same bits? For each kernel and law, in how many evaluations both sides agreed bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suite.report.chapters import Found
from suite.report.tables import Column, Table, by

PLACE = 70
LAWS = ("repeat", "replay", "permutation", "shift", "batch", "neighbour", "written", "canaries", "doubled")


def context(found: Found) -> dict[str, Any] | None:
    groups = by((r for r in found.records if r.bitwise), lambda r: (r.op, r.kernel))
    rows = [
        (f"{op} {kernel}", *(_cell([r.bitwise[law] for r in group if law in r.bitwise]) for law in LAWS))
        for (op, kernel), group in sorted(groups.items(), key=lambda item: item[0])
    ]
    return {"bits": Table(columns=(Column("kernel", "row"), *map(Column, LAWS)), rows=rows)} if rows else None


def _cell(same: Sequence[bool]) -> str:
    return "" if not same else "all" if all(same) else f"{sum(same)} of {len(same)}"

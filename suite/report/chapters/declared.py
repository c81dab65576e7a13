"""What kernels declare that is weaker than best practice, and what they do not support."""

from __future__ import annotations

from collections import Counter
from typing import Any

from suite.report.chapters import Found
from suite.report.tables import Column, Table, numbers

PLACE = 140
COLUMNS = (Column("kernel"), Column("reason"), *numbers("evaluations"))


def context(found: Found) -> dict[str, Any]:
    declared = {(f"{r.op} {r.kernel}", r.numerics) for r in found.records if r.numerics != "best practice"}
    reasons = Counter(
        (f"{r.op} {r.kernel} {r.dtype}", r.message) for r in found.records if r.status == "unsupported"
    )
    rows = [(who, why, count) for (who, why), count in sorted(reasons.items())]
    return {"declared": sorted(declared), "unsupported": Table(columns=COLUMNS, rows=rows)}

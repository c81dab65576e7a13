"""Where it breaks: for each op and format kernels down, families of inputs across."""

from __future__ import annotations

from typing import Any

from suite.report.chapters import Found
from suite.report.summaries import cell
from suite.report.tables import by
from suite.report.words import in_order

PLACE = 50


def context(found: Found) -> dict[str, Any]:
    """matrices: (op, format, families, rows of a kernel and its cells)."""
    matrices = []
    for op, of_op in by(found.records, lambda r: r.op).items():
        formats = by(of_op, lambda r: r.dtype)
        for dtype in in_order(formats):
            families = list(dict.fromkeys(r.family for r in formats[dtype]))
            kernels = by(formats[dtype], lambda r: r.kernel)
            rows = []
            for kernel in sorted(kernels):
                of_family = by(kernels[kernel], lambda r: r.family)
                rows.append((kernel, [cell(of_family.get(family, [])) for family in families]))
            matrices.append((op, dtype, families, rows))
    return {"matrices": matrices}

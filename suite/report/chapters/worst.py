"""The worst cases: where in the tensor, got and expected, and the command that runs the case again."""

from __future__ import annotations

from typing import Any

from suite.report.attention import where
from suite.report.chapters import Found
from suite.report.summaries import worst_cases

PLACE = 120


def context(found: Found) -> dict[str, Any]:
    return {"cases": [(record, where(record)) for record in worst_cases(found.records)]}

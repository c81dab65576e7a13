"""Which attention kernel is safe for what: kernels down, what a user asks for across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from suite.report.attention import ANSWERS, Answer, Evaluations, answer, how, matrix, safe, unsafe
from suite.report.attention_columns import PARTS
from suite.report.chapters import Found
from suite.report.summaries import worst
from suite.report.words import first_line, in_order, spaced

PLACE = 10


def context(found: Found) -> dict[str, Any] | None:
    """None where no record of attention stands in a column, or only what was timed was judged."""
    of_case = None if found.timed_alone else matrix(found.of_kernels)
    if of_case is None or not of_case.cells:
        return None
    everywhere, partly = safe(of_case)
    parts = []
    for title, columns in PARTS.items():
        shown = [column for column in columns if column.name in of_case.columns]
        rows = [
            (kernel, [_chips(row.get(column.name, {})) for column in shown])
            for kernel, row in sorted(of_case.cells.items())
        ]
        if shown:
            parts.append({"title": title, "columns": shown, "rows": rows})
    return {
        "everywhere": everywhere,
        "partly": partly,
        "count": len(of_case.columns),
        "unsafe": unsafe(of_case),
        "parts": parts,
        "legend": ANSWERS,
        "astray": of_case.astray,
    }


def _chips(formats: Mapping[str, Evaluations]) -> list[tuple[Answer, list[str], str]]:
    """(answer, short names of the formats that have it, the counts) for each answer in the cell."""
    chips: dict[Answer, tuple[list[str], list[str]]] = {}
    for dtype in in_order(formats):
        names, titles = chips.setdefault(answer(formats[dtype]), ([], []))
        names.append(dtype.replace("float", "f"))
        titles.append(_counted(dtype, formats[dtype]))
    return [(given, names, "\n".join(titles)) for given, (names, titles) in chips.items()]


def _counted(dtype: str, found: Evaluations) -> str:
    """How many cases had which status, and the worst of them."""
    records = [record for record, _ in found]
    count = Counter(record.status for record in records)
    text = f"{dtype}: " + ", ".join(f"{n:,} {spaced(status)}" for status, n in count.most_common())
    failing = [record for record in records if record.status not in ("passed", "unsupported")]
    if failing:
        bad = worst(failing)
        return f"{text}; the worst is {how(bad)}: {bad.case}"
    if count["unsupported"]:
        reason = next(record.message for record in records if record.status == "unsupported")
        return f"{text} ({first_line(reason)})"
    return text

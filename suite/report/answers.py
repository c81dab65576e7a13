"""Three answers for every kernel and format: where it breaks, what its numerics are, how far it is
from the best possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suite.ops import Result, result_of
from suite.records.record import Measurement, Record
from suite.report.profile import FLUSHES, words
from suite.report.summaries import ENDED, formats, how_bad, times, worst

NAMED = 3
HALF_ULP = 0.51
"""A result rounded once from one that is right to a hundredth of its ulp."""


def answers(records: Sequence[Record], measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """For each op a table: rows of kernel, format, and the lines of each answer."""
    measured = {(m.kind, m.op, m.kernel, m.dtype): m.data for m in measurements}
    tables = []
    for op in dict.fromkeys(r.op for r in records):
        rows = []
        for kernel in sorted({r.kernel for r in records if r.op == op}):
            own = [r for r in records if (r.op, r.kernel) == (op, kernel) and r.status != "unsupported"]
            for dtype in formats(own):
                group = [r for r in own if r.dtype == dtype]
                if group:
                    profile = measured.get(("exponential", op, kernel, dtype), {}).get("findings", {})
                    thresholds = measured.get(("thresholds", op, kernel, dtype), {})
                    rows.append(
                        (
                            kernel,
                            dtype,
                            _breaks(group, thresholds),
                            _numerics(group, profile),
                            _distance(op, group),
                        )
                    )
        tables.append({"op": op, "rows": rows})
    return tables


def _breaks(group: Sequence[Record], thresholds: dict[str, Any]) -> list[str]:
    """The families on which it failed, worst first, and the level from which it overflows."""
    judged = [r for r in group if r.status != "not_run"]
    failing = [r for r in judged if r.status != "passed"]
    lines = [f"nowhere in {len(judged):,} cases"] if judged else []
    if failing:
        families = dict.fromkeys(r.family for r in failing)
        named = sorted(
            (worst([r for r in failing if r.family == family]) for family in families),
            key=_badness,
            reverse=True,
        )
        shown = ", ".join(f"{r.family} ({how_bad(r)})" for r in named[:NAMED])
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        lines = [f"{len(failing):,} of {len(judged):,} cases: {shown}{more}"]
    if len(judged) < len(group):
        lines.append(f"not run: {len(group) - len(judged):,} cases")
    for entry in thresholds.get("overflow", [])[:1]:
        if entry.get("measured") is not None:
            lines.append(f"overflows from {entry['measured']:.6g}{_why(entry)}")
    for quantity, text in (("underflow", "loses entries from gap"), ("saturation", "saturates from gap")):
        for entry in [
            e for e in thresholds.get(quantity, []) if e.get("n") == 2 and e.get("measured") is not None
        ]:
            lines.append(f"{text} {entry['measured']:.6g}{_why(entry)}")
    return lines


def _why(entry: dict[str, Any]) -> str:
    return f" ({entry['agrees_with'][0]})" if entry.get("agrees_with") else ""


def _badness(record: Record) -> tuple[bool, int, float]:
    return record.status in ENDED, record.overflow, record.ratio or 0.0


def _numerics(group: Sequence[Record], profile: dict[str, Any]) -> list[str]:
    """What it declares, and what it looks like from outside."""
    lines = [f"declares {group[0].numerics}"]
    for name, label in (("fits", "looks like "), ("base", ""), ("exp_ulp", "exp "), ("accumulate", "sum: ")):
        text = words(name, profile[name]) if name in profile else ""
        lines += [label + text] if text else []
    flushes = profile.get("flushes", {}).get("value")
    return lines + ([FLUSHES[flushes["kind"]]] if flushes else [])


def _distance(op: str, group: Sequence[Record]) -> list[str]:
    """The largest error of passing results beside half an ulp, the best possible, and beside
    torch's own kernel.
    """
    passing = [r for r in group if r.status == "passed"]
    if not passing:
        return ["passes nowhere"]
    lines = [f"{times(max(r.ratio or 0.0 for r in passing))} times of bound"]
    errors = [r.max_ulp for r in passing if r.max_ulp is not None]
    if result_of(op) is Result.PROBABILITY and errors:
        half = max(errors) <= HALF_ULP and len(passing) == len(group)
        lines.append(
            "0.5 ulp: the best possible" if half else f"{max(errors):.3g} ulp; 0.5 is the best possible"
        )
    against = sorted(r.torch_ratio for r in passing if r.torch_ratio is not None)
    if against:
        lines.append(f"{against[len(against) // 2]:.2f} times torch's error")
    return lines

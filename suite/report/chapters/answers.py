"""Three answers for every kernel and format: where it breaks, what its numerics are, and how far it
is from the best possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suite.ops import Result, result_of
from suite.records.record import Record
from suite.report.chapters import Found
from suite.report.chapters.exponential import FLUSHES, words
from suite.report.summaries import ENDED, how_bad, worst
from suite.report.tables import by
from suite.report.words import in_order, some, times

PLACE = 40
NAMED = 3
"""Families on which a kernel breaks that are named."""
HALF_ULP = 0.51
"""A result rounded once from one that is right to a hundredth of its ulp."""


def context(found: Found) -> dict[str, Any]:
    """answers: (op, rows of kernel, format, and the lines of each answer)."""
    measured = {(m.kind, m.op, m.kernel, m.dtype): m.data for m in found.measurements}
    answers = []
    for op, of_op in by(found.records, lambda r: r.op).items():
        rows = []
        kernels = by((r for r in of_op if r.status != "unsupported"), lambda r: r.kernel)
        for kernel, own in sorted(kernels.items()):
            formats = by(own, lambda r: r.dtype)
            for dtype in in_order(formats):
                profile = measured.get(("exponential", op, kernel, dtype), {}).get("findings", {})
                thresholds = measured.get(("thresholds", op, kernel, dtype), {})
                group = formats[dtype]
                rows.append(
                    (
                        kernel,
                        dtype,
                        (_breaks(group, thresholds), _numerics(group, profile), _distance(op, group)),
                    )
                )
        answers.append((op, rows))
    return {"answers": answers}


def _breaks(group: Sequence[Record], thresholds: Mapping[str, Any]) -> list[str]:
    """The families on which it fails, worst first, and the level from which it overflows."""
    judged = [r for r in group if r.status != "not_run"]
    failing = [r for r in judged if r.status != "passed"]
    lines = [f"nowhere in {len(judged):,} cases"] if judged else []
    if failing:
        families = [worst(own) for own in by(failing, lambda r: r.family).values()]
        named = [f"{r.family} ({how_bad(r)})" for r in sorted(families, key=_badness, reverse=True)]
        lines = [f"{len(failing):,} of {len(judged):,} cases: {some(named, NAMED)}"]
    if len(judged) < len(group):
        lines.append(f"not run: {len(group) - len(judged):,} cases")
    entries = [("overflows from", entry) for entry in thresholds.get("overflow", [])[:1]]
    for quantity, text in (("underflow", "loses entries from gap"), ("saturation", "saturates from gap")):
        entries += [(text, entry) for entry in thresholds.get(quantity, []) if entry.get("n") == 2]
    for text, entry in entries:
        if entry.get("measured") is not None:
            why = f" ({entry['agrees_with'][0]})" if entry.get("agrees_with") else ""
            lines.append(f"{text} {entry['measured']:.6g}{why}")
    return lines


def _badness(record: Record) -> tuple[bool, int, float]:
    return record.status in ENDED, record.judgement.overflow, record.judgement.ratio or 0.0


def _numerics(group: Sequence[Record], profile: Mapping[str, Any]) -> list[str]:
    """What it declares, and what it looks like from outside."""
    lines = [f"declares {group[0].numerics}"]
    for name, label in (("fits", "looks like "), ("base", ""), ("exp_ulp", "exp "), ("accumulate", "sum: ")):
        text = words(name, profile[name]) if name in profile else ""
        lines += [label + text] if text else []
    flushes = profile.get("flushes", {}).get("value")
    return lines + ([FLUSHES[flushes["kind"]]] if flushes else [])


def _distance(op: str, group: Sequence[Record]) -> list[str]:
    """The largest error of passing results beside half an ulp, the best possible, and beside the
    error of torch's own kernel.
    """
    passing = [r for r in group if r.status == "passed"]
    if not passing:
        return ["passes nowhere"]
    lines = [f"{times(max(r.judgement.ratio or 0.0 for r in passing))} × bound"]
    errors = [r.judgement.max_ulp for r in passing if r.judgement.max_ulp is not None]
    if result_of(op) is Result.PROBABILITY and errors:
        best = max(errors) <= HALF_ULP and len(passing) == len(group)
        lines.append(
            "0.5 ulp: the best possible" if best else f"{max(errors):.3g} ulp; 0.5 is the best possible"
        )
    against = sorted(r.torch_ratio for r in passing if r.torch_ratio is not None)
    if against:
        lines.append(f"{against[len(against) // 2]:.2f} times torch's error")
    return lines

"""Kernel profiles: what the numerics of each kernel look like from outside, in words and a curve.

Reads measurements of kind "exponential" (suite/studies/exponential/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from suite.formats import DTYPES
from suite.ops import measured_by
from suite.records import schema
from suite.records.record import Measurement
from suite.report.chapters import Found
from suite.report.figures import drawn, dress, figure_of, inline_svg
from suite.report.shapes import (
    COUNT,
    DRAWN,
    FLAG,
    NUMBER,
    REAL,
    TEXT,
    Shape,
    either,
    fields,
    many,
    one_of,
    or_null,
)

PLACE = 80
KIND = "exponential"
Finding = Mapping[str, Any]

HEADINGS = {
    "output": "results",
    "exp_ulp": "its exponential",
    "grows_with_gap": "its error",
    "base": "its base",
    "argument_format": "x − max x",
    "flushes": "0 from gap",
    "saturates": "largest 1 from gap",
    "monotone": "inversions",
    "shift_invariant": "common offset",
    "accumulate": "sum",
    "fits": "looks like",
}
"""The findings, in the order in which they are shown."""
COLUMNS = tuple(
    (("exp_ulp", "grows_with_gap", "base") if name == "exp_ulp" else (name,), heading)
    for name, heading in HEADINGS.items()
    if name not in ("grows_with_gap", "base")
)
"""The columns of the page's table: what each shows, and its heading."""
FLUSHES = {
    "gradual": "keeps subnormals",
    "flushed": "flushes",
    "early": "too early",
    "between": "loses subnormals",
    "other": "",
}
SATURATES = {"in_format": "sum in {format}", "rounded": "wide sum, rounded once", "other": "unexplained"}


def _finding(value: Shape) -> Shape:
    return fields(value=or_null(value), text=TEXT)


FINDINGS = {
    "output": fields(max_ulp=or_null(REAL), correctly_rounded=NUMBER, half_ulp=or_null(FLAG)),
    "exp_ulp": REAL,
    "grows_with_gap": FLAG,
    "base": TEXT,
    "argument_format": TEXT,
    "flushes": fields(zero_at=or_null(NUMBER), kind=one_of(*FLUSHES)),
    "saturates": fields(at=or_null(NUMBER), kind=one_of(*SATURATES), format=or_null(TEXT)),
    "monotone": COUNT | {"minimum": 0},
    "shift_invariant": FLAG,
    "accumulate": TEXT,
    "fits": TEXT,
}
CURVE = fields(gap=many(DRAWN), exp_ulp=many(either(DRAWN, REAL["anyOf"][1])), allowed_u=many(DRAWN))
SHAPE = fields(
    {
        "findings": fields({name: _finding(value) for name, value in FINDINGS.items()}, *FINDINGS),
        "curve": or_null(CURVE),
        "reason": TEXT,
    },
    "findings",
    "curve",
    "reason",
)


def is_sound(m: Measurement) -> bool:
    """A known op and format, the documented shape, and a curve of one length with growing gaps above 0."""
    if m.op not in measured_by(KIND) or m.dtype not in DTYPES or not schema.conforms(m.data, SHAPE):
        return False
    curve = m.data.get("curve")
    if not curve:
        return True
    gap = curve["gap"]
    growing = all(before < after for before, after in pairwise([0.0, *gap]))
    return growing and 0 < len(gap) == len(curve["exp_ulp"]) == len(curve["allowed_u"])


def context(found: Found) -> dict[str, Any] | None:
    """profiles: a row for each profile, by op, kernel and format, widest first; columns: headings."""
    chosen = sorted(found.measured(KIND), key=lambda m: (m.op, m.kernel, m.device, DTYPES.index(m.dtype)))
    return {"profiles": [_row(m) for m in chosen], "columns": COLUMNS} if chosen else None


def words(name: str, finding: Finding) -> str:
    """A finding in a few words, "" where there is none. name: one of HEADINGS."""
    value = finding["value"]
    if value is None:
        return "" if finding["text"].startswith("not measured") else finding["text"].partition(":")[0]
    if name == "output":
        return _results(value)
    if name == "exp_ulp":
        return f"{float(value):.3g} ulp"
    if name == "grows_with_gap":
        return "grows with the gap" if value else "does not grow"
    if name == "base":
        return "base unknown" if value == "unknown" else f"base {value}"
    if name == "flushes":
        return _at(value["zero_at"], FLUSHES[value["kind"]])
    if name == "saturates":
        return _at(value["at"], SATURATES[value["kind"]].format(format=value["format"]))
    if name == "monotone":
        return f"{value:,}" if value else "none"
    if name == "shift_invariant":
        return "same bits" if value else "changes results"
    return str(value)


def _results(value: Finding) -> str:
    if value["half_ulp"]:
        return "0.5-ulp kernel: every result rounded once"
    right = f"{100 * value['correctly_rounded']:.3g} % rounded right"
    return right if value["max_ulp"] is None else f"{float(value['max_ulp']):.3g} ulp, {right}"


def _at(gap: float | None, how: str) -> str:
    if gap is None:
        return "never"
    return f"{gap:.6g}, {how}" if how else f"{gap:.6g}"


def _row(m: Measurement) -> dict[str, Any]:
    """reason: why nothing was measured, else ""."""
    findings = m.data.get("findings", {})
    return {
        "name": f"{m.op} {m.kernel}",
        "format": m.dtype if m.device == "cpu" else f"{m.dtype}, {m.device}",
        "reason": str(m.data.get("reason", "")),
        "cells": [_cell(names, findings) for names, _ in COLUMNS] if findings else [],
        "curve": drawn(_curve, m) if m.data.get("curve") else None,
    }


def _cell(names: Iterable[str], findings: Mapping[str, Finding]) -> tuple[list[str], str]:
    """(the lines of a cell, the evidence for them)."""
    own = {name: findings[name] for name in names if name in findings}
    lines = [words(name, finding) for name, finding in own.items()]
    evidence = dict.fromkeys(finding["text"] for finding in own.values())
    return [line for line in lines if line], "; ".join(evidence)


def _curve(m: Measurement) -> Markup:
    """The largest error of the exponential in each bucket of gaps, with what the verdict allows and
    a correctly rounded exp.
    """
    from matplotlib.ticker import FixedLocator

    curve = m.data["curve"]
    gap, allowed = curve["gap"], curve["allowed_u"]
    error = [max(0.25, float(value)) for value in curve["exp_ulp"]]
    figure, [[axes]] = figure_of(2.6, 1.4)
    axes.semilogy(gap, allowed, color="black", linewidth=0.8, linestyle="--", alpha=0.6)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.semilogy(gap, error, color="#2f7fd1", linewidth=1.4)
    highest = max(*error, *allowed)
    decades = [10.0**k for k in range(0, 60, 1 if highest < 1e5 else 4 if highest < 1e20 else 12)]
    axes.yaxis.set_major_locator(FixedLocator([d for d in decades if d <= highest]))
    axes.set_xlim(0, gap[-1] * 1.02)
    axes.xaxis.set_major_locator(FixedLocator([round(gap[-1] * share, -1) for share in (0, 0.5, 1)]))
    axes.set_ylim(0.25, 2 * highest)
    axes.tick_params(width=0.5, length=2)
    dress(axes, "gap", "ulp", letters=7)
    title = f"{m.op} {m.kernel} {m.dtype} {m.device}: error of the exponential over the gap, in ulps"
    return inline_svg(figure, title=title)

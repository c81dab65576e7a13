"""The page's section on kernel profiles: what the numerics of each kernel look like from outside,
in words and a curve.

Reads measurements of kind "exponential" (suite/measure/exponential.py) and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from suite.formats import DTYPES
from suite.records.record import Measurement
from suite.report.figures import drawn, inline_svg

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


def profile_context(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """A row for each profile, for templates/profile.html: op, kernel, dtype, device, reason, cells
    (lines, evidence), curve.

    reason: why nothing was measured, else "". Rows are in the order of op, kernel and format, widest first.
    """
    chosen = [m for m in measurements if m.kind == "exponential"]
    return [_row(m) for m in sorted(chosen, key=lambda m: (m.op, m.kernel, m.device, _place(m.dtype)))]


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
        how = {
            "in_format": f"sum in {value['format']}",
            "rounded": "wide sum, rounded once",
            "other": "unexplained",
        }
        return _at(value["at"], how[value["kind"]])
    if name == "monotone":
        return "none" if value == 0 else f"{value:,}"
    if name == "shift_invariant":
        return "same bits" if value else "changes results"
    return str(value)


def _results(value: Mapping[str, Any]) -> str:
    if value["half_ulp"]:
        return "0.5-ulp kernel: every result rounded once"
    right = f"{100 * value['correctly_rounded']:.3g} % rounded right"
    return right if value["max_ulp"] is None else f"{float(value['max_ulp']):.3g} ulp, {right}"


def _at(gap: float | None, how: str) -> str:
    if gap is None:
        return "never"
    return f"{gap:.6g}, {how}" if how else f"{gap:.6g}"


def _place(dtype: str) -> int:
    return DTYPES.index(dtype) if dtype in DTYPES else len(DTYPES)


def _row(measurement: Measurement) -> dict[str, Any]:
    data = measurement.data
    findings: Mapping[str, Finding] = data.get("findings", {})
    return {
        "op": measurement.op,
        "kernel": measurement.kernel,
        "dtype": measurement.dtype,
        "device": measurement.device,
        "reason": str(data.get("reason", "")),
        "cells": [_cell(names, findings) for names, _ in COLUMNS] if findings else [],
        "curve": drawn(_curve, measurement) if data.get("curve") else "",
    }


def _cell(names: tuple[str, ...], findings: Mapping[str, Finding]) -> dict[str, Any]:
    """One cell of the table: its lines, and the evidence for them."""
    names = tuple(name for name in names if name in findings)
    lines = [words(name, findings[name]) for name in names]
    evidence = dict.fromkeys(findings[name]["text"] for name in names)
    return {"lines": [line for line in lines if line], "evidence": "; ".join(evidence)}


def _curve(measurement: Measurement) -> Markup:
    """The largest error of the exponential in each bucket of gaps, with what the verdict allows and
    a correctly rounded exp.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    curve = measurement.data["curve"]
    gap, allowed = curve["gap"], curve["allowed_u"]
    error = [max(0.25, float(value)) for value in curve["exp_ulp"]]
    figure = Figure(figsize=(2.6, 1.4), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(gap, allowed, color="black", linewidth=0.8, linestyle="--", alpha=0.6)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.semilogy(gap, error, color="#2f7fd1", linewidth=1.4)
    highest = max(*error, *allowed)
    decades = [10.0**k for k in range(0, 60, 1 if highest < 1e5 else 4 if highest < 1e20 else 12)]
    axes.yaxis.set_major_locator(FixedLocator([d for d in decades if d <= highest]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0, gap[-1] * 1.02)
    axes.xaxis.set_major_locator(FixedLocator([round(gap[-1] * share, -1) for share in (0, 0.5, 1)]))
    axes.set_ylim(0.25, 2 * highest)
    axes.tick_params(labelsize=7, width=0.5, length=2)
    axes.set_xlabel("gap", fontsize=7)
    axes.set_ylabel("ulp", fontsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    m = measurement
    return inline_svg(
        figure,
        title=f"{m.op} {m.kernel} {m.dtype} {m.device}: error of the exponential over the gap, in ulps",
    )

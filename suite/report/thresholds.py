"""The chapter of thresholds: at which level and gap each kernel breaks, and the closed formula that
explains it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from suite.formats import DTYPES
from suite.ops import Result, get_op
from suite.records.record import Measurement
from suite.report.figures import drawn, inline_svg, literal

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

Entry = dict[str, Any]
QUANTITIES = ("overflow", "underflow", "saturation")
TABLE_LENGTHS = (2, 4096)

IDEAS = {
    "shifted": "The row’s maximum is subtracted first: never.",
    "exp": "ln Ω: exp(x) overflows.",
    "sum": (
        "Overflow: ln Ω − ln n, the sum of the exponentials overflows. Saturation: p ln 2 + ln(n − 1), the"
        " competitors are summed first and absorbed together (in a 16-bit format each exponential is rounded"
        " to it before)."
    ),
    "lse": "2^k from which on rounding x + ln n moves it by more than ln 1.5.",
    "base 2": "Ω ln 2: the product x log₂e overflows.",
    "zero": (
        "(p − e_min) ln 2: exp(−g) is below half the smallest subnormal; less ln s in softmax, plus ln(n − 1)"
        " for a sum."
    ),
    "flushed": "−e_min ln 2: exp(−g) is subnormal and flushed to 0; plus ln(n − 1) for a sum.",
    "log domain": "No logarithm of a probability is taken: never.",
    "absorbed": "p ln 2: 1 + exp(−g) is 1, competitor by competitor, for any n.",
    "part": (
        "p ln 2 + ln(n/k): the row is summed in k parts of n/k entries, and 1 absorbs them part by part; k ="
        " 2 is a tree."
    ),
    "rounded": "ln(2^(p+1) − 1) + ln(n − 1): the exact result rounded once, as wide internals give it.",
    "accumulator": "2^p: adding 1 changes nothing.",
    "Ω": "n ≥ Ω: the shifted sum of n ones overflows.",
    "wide": "The accumulator holds the sum of the longest row.",
}
"""What explains a threshold; the format that follows in a name is the arithmetic whose p, e_min and
Ω are meant.
"""

LABELS = {
    Result.PROBABILITY: ("overflows at level", "p is 0 from gap", "p is 1 from gap"),
    Result.LOG_PROBABILITY: ("overflows at level", "log p is −∞ from gap", "log p is 0 from gap"),
    Result.LOG_SUM: ("overflows at level", "fails below, at depth", "is the maximum from gap"),
}
COLORS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559a", "#7a6fd0", "#c2564b")
MARKERS = "osD^vX"
GRAY = "#888888"
TICKS = (1, 10, 100, 1000, 10000, 100000)
NAMED = 4
LETTERS = 28
LINE = 60
LARGEST_DRAWN = 1e150
"""Axes reach beyond what they show, and must stay in the range of float64."""


def threshold_context(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What thresholds.html shows: {"thresholds": a list of tables with their charts, [] without
    measurements, "ideas": the formulas that explain something on the page, with their text}.
    Measurements of other kinds are left out.
    """
    chosen = [m for m in measurements if m.kind == "thresholds"]
    tables = []
    for op in dict.fromkeys(m.op for m in chosen):
        for dtype in DTYPES:
            group = [m for m in chosen if (m.op, m.dtype) == (op, dtype)]
            if group:
                tables.append(_table(op, dtype, group))
    used = {_idea(name) for m in chosen for entry in _entries(m) for name in entry.get("agrees_with", ())}
    return {"thresholds": tables, "ideas": [(idea, text) for idea, text in IDEAS.items() if idea in used]}


def _table(op: str, dtype: str, group: Sequence[Measurement]) -> dict[str, Any]:
    measured = sorted((m for m in group if "reason" not in m.data), key=lambda m: m.kernel)
    rows: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for m in measured:
        cells = [_cell(_at(m.data[quantity], n)) for quantity in QUANTITIES for n in TABLE_LENGTHS]
        rows.setdefault((*cells, _stagnation(m.data["stagnation"])), []).append(_name(m))
    return {
        "op": op,
        "dtype": dtype,
        "labels": LABELS[get_op(op).result],
        "lengths": TABLE_LENGTHS,
        "rows": [(", ".join(kernels), cells) for cells, kernels in rows.items()],
        "notes": sorted({(_name(m), m.data["note"]) for m in measured if m.data["note"]}),
        "missing": sorted((_name(m), m.data["reason"]) for m in group if "reason" in m.data),
        "chart": drawn(_chart, op, dtype, measured),
    }


def _name(measurement: Measurement) -> str:
    return (
        measurement.kernel if measurement.device == "cpu" else f"{measurement.kernel} ({measurement.device})"
    )


def _entries(measurement: Measurement) -> list[Entry]:
    """Every threshold of a measurement."""
    data = measurement.data
    return [entry for quantity in QUANTITIES for entry in data.get(quantity, ())] + [
        data.get("stagnation", {})
    ]


def _at(entries: Sequence[Entry], n: int) -> Entry | None:
    return next((entry for entry in entries if entry["n"] == n), None)


def _cell(entry: Entry | None) -> tuple[str, str]:
    """(value, what explains it) for people."""
    if entry is None:
        return "", ""
    if "reason" in entry:
        return "not measured", entry["reason"]
    value, names = entry["measured"], entry["agrees_with"]
    if value is None:
        return "never", "" if names else "no formula"
    return f"{value:.6g}", explained(names) or _between(value, entry["formulas"])


def _stagnation(entry: Entry) -> tuple[str, str]:
    if "reason" in entry:
        return "not measured", entry["reason"]
    if entry["measured"] is None:
        return f"not up to {entry['n']:,}", ""
    wrong = f"; wrong at {entry['first_wrong']:,}" if entry["first_wrong"] is not None else ""
    return f"{entry['measured']:,}", explained(entry["agrees_with"]) or f"no formula{wrong}"


def explained(names: Sequence[str]) -> str:
    """ "sum float16", or "sum bfloat16 or float32" where the grid cannot tell them apart."""
    parts = []
    for position, name in enumerate(names):
        idea, _, arithmetic = name.rpartition(" ")
        parts.append(
            arithmetic if position and idea and names[position - 1].rpartition(" ")[0] == idea else name
        )
    return " or ".join(parts)


def _between(value: float, formulas: dict[str, float | None]) -> str:
    """The formulas next to a value that none explains."""
    values = sorted((float(v), name) for name, v in formulas.items() if v is not None)
    below = [name for v, name in values if v <= value][-1:]
    above = [name for v, name in values if v > value][:1]
    if below and above:
        return f"no formula: between {below[0]} and {above[0]}"
    return f"no formula: {'above ' + below[0] if below else 'below ' + above[0] if above else 'none is near'}"


def _idea(name: str) -> str:
    """The key of IDEAS: "part n/2 float32" -> "part", "base 2 float32" -> "base 2"."""
    return next(
        (
            idea
            for idea in sorted(IDEAS, key=len, reverse=True)
            if name == idea or name.startswith(f"{idea} ")
        ),
        name,
    )


# The chart: a panel for each quantity with a finite threshold; formulas as lines, kernels as markers.


def _chart(op: str, dtype: str, group: Sequence[Measurement]) -> Markup | None:
    from matplotlib.figure import Figure

    series = {quantity: _series(group, quantity) for quantity in QUANTITIES}
    panels = [
        quantity
        for quantity in QUANTITIES
        if any(v > 0 for points in series[quantity] for v in points[1].values())
    ]
    if not panels:
        return None
    figure = Figure(figsize=(4.6 * len(panels), 3.9), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, series[quantity], _lines(group, quantity, dtype))
        axes.set_title(
            f"{op}, {dtype}: {LABELS[get_op(op).result][QUANTITIES.index(quantity)]}", fontsize=9, loc="left"
        )
    return inline_svg(figure, title=f"Thresholds of {op} in {dtype} against the length of the row")


def _series(group: Sequence[Measurement], quantity: str) -> list[tuple[list[str], dict[int, float]]]:
    """(kernels, threshold by n) of kernels whose markers would cover each other at every length; {}
    where it is never.
    """
    found: list[tuple[list[str], dict[int, float | None]]] = []
    points = [
        (_name(m), {e["n"]: e["measured"] for e in m.data[quantity] if "reason" not in e}) for m in group
    ]
    for name, values in sorted(points, key=lambda pair: -len(pair[1])):
        for names, known in found:
            if all(n in known and _covers(known[n], v) for n, v in values.items()):
                names.append(name)
                break
        else:
            found.append(([name], values))
    return [(sorted(names), {n: v for n, v in values.items() if v is not None}) for names, values in found]


def _covers(known: float | None, value: float | None) -> bool:
    if known is None or value is None:
        return known is value
    return math.isclose(known, value, rel_tol=1e-4)


def _lines(group: Sequence[Measurement], quantity: str, dtype: str) -> dict[str, dict[int, float]]:
    """Formula -> value by n: those that explain a kernel, and those of the tensor's own format."""
    own = {
        "overflow": ("sum",),
        "underflow": ("zero", "flushed"),
        "saturation": ("absorbed", "sum", "rounded"),
    }[quantity]
    entries = [e for m in group for e in m.data[quantity] if "reason" not in e and e["n"] > 1]
    names = {f"{idea} {dtype}" for idea in own} | {
        e["agrees_with"][0] for e in entries if e["agrees_with"] and e["measured"]
    }
    lines: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name in names & entry["formulas"].keys():
            if entry["formulas"][name] is not None:
                lines.setdefault(name, {})[entry["n"]] = entry["formulas"][name]
    return {name: dict(sorted(values.items())) for name, values in sorted(lines.items())}


def _draw(
    axes: Axes, series: list[tuple[list[str], dict[int, float]]], lines: dict[str, dict[int, float]]
) -> None:
    series = [(names, _drawable(points)) for names, points in series]
    lines = {name: _drawable(values) for name, values in lines.items()}
    shown = [v for _, points in series for v in points.values() if v > 0]
    shown += [v for values in lines.values() for v in values.values() if v > 0]
    logarithmic = max(shown) > 50 * min(shown)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{n:,}" for n in TICKS])
    axes.set_yscale("log" if logarithmic else "linear")
    for values in lines.values():
        inside = {n: v for n, v in values.items() if v > 0}
        axes.plot(
            list(inside),
            list(inside.values()),
            color=GRAY,
            linewidth=1,
            linestyle="--",
            clip_on=False,
            zorder=1,
        )
    number = 0
    for names, points in series:
        drawn = {n: v for n, v in points.items() if v > 0}
        if drawn and number < len(MARKERS):
            axes.plot(
                list(drawn),
                list(drawn.values()),
                linestyle="none",
                marker=MARKERS[number],
                markersize=7 - 0.5 * number,
                markeredgewidth=0,
                clip_on=False,
                color=COLORS[number],
                label=_shortened(names),
                zorder=2 + number,
            )
        number += bool(drawn)
    if number > len(MARKERS):
        axes.plot([], [], " ", label=f"not drawn, only in the table: {number - len(MARKERS)} more groups")
    never = [name for names, points in series if not points for name in names]
    if never:
        axes.plot([], [], " ", label=f"never: {_shortened(sorted(never))}")
    axes.margins(y=0.12)
    _label_lines(axes, lines, logarithmic)
    axes.set_xlabel("n", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize=8, handletextpad=0.3, borderaxespad=0)


def _drawable(values: dict[int, float]) -> dict[int, float]:
    return {n: min(value, LARGEST_DRAWN) for n, value in values.items()}


def _label_lines(axes: Axes, lines: dict[str, dict[int, float]], logarithmic: bool) -> None:
    """The name of each formula at the right end of its line, moved apart where lines end close together."""
    bottom, top = (math.log(side) if logarithmic else side for side in axes.get_ylim())
    ends = []
    for name, values in lines.items():
        last = list(values.values())[-1]
        if last > 0:
            ends.append((((math.log(last) if logarithmic else last) - bottom) / (top - bottom), name))
    height = -1.0
    for wanted, name in sorted(ends):
        height = max(wanted, height + 0.06)
        axes.text(
            1.02,
            height,
            literal(_short(name)),
            transform=axes.transAxes,
            fontsize=7.5,
            verticalalignment="center",
        )


def _shortened(names: Sequence[str]) -> str:
    """The ends of at most NAMED names and the number of the others, in lines that fit a panel: the
    table lists all.
    """
    shown = [_short(name) for name in names[:NAMED]]
    return literal(
        textwrap.fill(
            ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else ""), LINE
        )
    )


def _short(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"

"""Thresholds: at which level and gap each kernel breaks, and the closed formula that explains it.

Reads measurements of kind "thresholds" (suite/studies/thresholds.py).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from suite.formats import DTYPES
from suite.ops import Result, get_op, measured_by
from suite.records import schema
from suite.records.record import Measurement
from suite.report.chapters import Found
from suite.report.figures import COLORS, GRAY, drawn, dress, figure_of, inline_svg, literal, names_in_legend
from suite.report.shapes import COUNT, LARGEST_DRAWN, NUMBER, TEXT, by_name, either, fields, many, or_null
from suite.report.tables import alike, by, kernel_of, reasons
from suite.report.words import in_order, shortened

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

PLACE = 90
KIND = "thresholds"
Entry = Mapping[str, Any]
Points = Mapping[int, float]
"""A threshold by the length n of the row."""
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
"""What explains a threshold. The format that follows in a name is the arithmetic whose p, e_min and
Ω are meant.
"""
LABELS = {
    Result.PROBABILITY: ("overflows at level", "p is 0 from gap", "p is 1 from gap"),
    Result.LOG_PROBABILITY: ("overflows at level", "log p is −∞ from gap", "log p is 0 from gap"),
    Result.LOG_SUM: ("overflows at level", "fails below, at depth", "is the maximum from gap"),
}
OWN_FORMULAS = {
    "overflow": ("sum",),
    "underflow": ("zero", "flushed"),
    "saturation": ("absorbed", "sum", "rounded"),
}
"""The formulas that a chart always shows, in the format of the tensor."""
MARKERS = "osD^vX"
TICKS = (1, 10, 100, 1000, 10000, 100000)
LINE = 60
"""Letters of a line in a legend."""

_UNMEASURED = fields(n=COUNT, reason=TEXT)
_FORMULAS = {"formulas": by_name(or_null(NUMBER)), "agrees_with": many(TEXT)}
_ENTRY = either(_UNMEASURED, fields(_FORMULAS, n=COUNT, measured=or_null(NUMBER)))
_SUM = fields(n=COUNT, measured=or_null(COUNT), first_wrong=or_null(COUNT), agrees_with=many(TEXT))
SHAPE = either(
    fields(reason=TEXT),
    fields(dict.fromkeys(QUANTITIES, many(_ENTRY)), note=TEXT, stagnation=either(_UNMEASURED, _SUM)),
)


def is_sound(m: Measurement) -> bool:
    return m.op in measured_by(KIND) and m.dtype in DTYPES and schema.conforms(m.data, SHAPE)


def context(found: Found) -> dict[str, Any] | None:
    """thresholds: a section for each op and format; ideas: the formulas that explain something there."""
    chosen = found.measured(KIND)
    if not chosen:
        return None
    sections = []
    for op, of_op in by(chosen, lambda m: m.op).items():
        formats = by(of_op, lambda m: m.dtype)
        sections += [_section(op, dtype, formats[dtype]) for dtype in in_order(formats)]
    used = {_idea(name) for m in chosen for entry in _entries(m) for name in entry.get("agrees_with", ())}
    return {"thresholds": sections, "ideas": [(idea, text) for idea, text in IDEAS.items() if idea in used]}


def _section(op: str, dtype: str, group: Sequence[Measurement]) -> dict[str, Any]:
    measured = sorted((m for m in group if "reason" not in m.data), key=lambda m: m.kernel)
    return {
        "op": op,
        "dtype": dtype,
        "rows": alike((kernel_of(m), _cells(m)) for m in measured),
        "labels": LABELS[get_op(op).result],
        "lengths": TABLE_LENGTHS,
        "notes": reasons(measured, "note"),
        "missing": reasons(group, "reason"),
        "chart": drawn(_chart, op, dtype, measured),
    }


def _cells(m: Measurement) -> tuple[tuple[str, str], ...]:
    """(value, what explains it), quantity by quantity and length by length; then the sum of ones."""
    by_length = [{entry["n"]: entry for entry in m.data[quantity]} for quantity in QUANTITIES]
    cells = [_cell(entries.get(n)) for entries in by_length for n in TABLE_LENGTHS]
    return (*cells, _stagnation(m.data["stagnation"]))


def _entries(m: Measurement) -> list[Entry]:
    """Every threshold of a measurement."""
    entries = [entry for quantity in QUANTITIES for entry in m.data.get(quantity, ())]
    return [*entries, m.data.get("stagnation", {})]


def _cell(entry: Entry | None) -> tuple[str, str]:
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
    parts, before = [], ""
    for name in names:
        idea, _, arithmetic = name.rpartition(" ")
        parts.append(arithmetic if idea and idea == before else name)
        before = idea
    return " or ".join(parts)


def _between(value: float, formulas: Mapping[str, float | None]) -> str:
    """The formulas next to a value that none explains."""
    values = sorted((float(v), name) for name, v in formulas.items() if v is not None)
    below = [name for v, name in values if v <= value][-1:]
    above = [name for v, name in values if v > value][:1]
    if below and above:
        return f"no formula: between {below[0]} and {above[0]}"
    return f"no formula: {'above ' + below[0] if below else 'below ' + above[0] if above else 'none is near'}"


def _idea(name: str) -> str:
    """The key of IDEAS: "part n/2 float32" -> "part", "base 2 float32" -> "base 2"."""
    longest_first = sorted(IDEAS, key=len, reverse=True)
    return next((idea for idea in longest_first if name == idea or name.startswith(f"{idea} ")), name)


# The chart: a panel for each quantity with a finite threshold; formulas as lines, kernels as markers.


def _chart(op: str, dtype: str, group: Sequence[Measurement]) -> Markup | None:
    series = {quantity: _series(group, quantity) for quantity in QUANTITIES}
    shown = [q for q in QUANTITIES if any(v > 0 for _, points in series[q] for v in points.values())]
    if not shown:
        return None
    figure, [panels] = figure_of(4.6 * len(shown), 3.9, columns=len(shown))
    for axes, quantity in zip(panels, shown, strict=True):
        _draw(axes, series[quantity], _lines(group, quantity, dtype))
        title = f"{op}, {dtype}: {LABELS[get_op(op).result][QUANTITIES.index(quantity)]}"
        dress(axes, "n", title=title)
    return inline_svg(figure, title=f"Thresholds of {op} in {dtype} against the length of the row")


def _series(group: Sequence[Measurement], quantity: str) -> list[tuple[list[str], Points]]:
    """(kernels, threshold by n) of kernels whose markers would cover each other at every length; {}
    where it is never.
    """
    points = [
        (kernel_of(m), {e["n"]: e["measured"] for e in m.data[quantity] if "reason" not in e}) for m in group
    ]
    found = covered(sorted(points, key=lambda pair: -len(pair[1])), _covers)
    return [(sorted(names), {n: v for n, v in values.items() if v is not None}) for names, values in found]


T = TypeVar("T")


def covered(named: Iterable[tuple[str, T]], covers: Callable[[T, T], bool]) -> list[tuple[list[str], T]]:
    """(names, what is drawn for them): a name joins the first whose drawing covers its own."""
    found: list[tuple[list[str], T]] = []
    for name, one in named:
        for names, known in found:
            if covers(known, one):
                names.append(name)
                break
        else:
            found.append(([name], one))
    return found


def _covers(known: Mapping[int, float | None], other: Mapping[int, float | None]) -> bool:
    return all(n in known and _close(known[n], value) for n, value in other.items())


def _close(known: float | None, value: float | None) -> bool:
    if known is None or value is None:
        return known is value
    return math.isclose(known, value, rel_tol=1e-4)


def _lines(group: Sequence[Measurement], quantity: str, dtype: str) -> dict[str, Points]:
    """Formula -> value by n: those that explain a kernel, and those of the tensor's own format."""
    entries = [e for m in group for e in m.data[quantity] if "reason" not in e and e["n"] > 1]
    names = {f"{idea} {dtype}" for idea in OWN_FORMULAS[quantity]}
    names |= {e["agrees_with"][0] for e in entries if e["agrees_with"] and e["measured"]}
    lines: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name in names & entry["formulas"].keys():
            if entry["formulas"][name] is not None:
                lines.setdefault(name, {})[entry["n"]] = entry["formulas"][name]
    return {name: dict(sorted(values.items())) for name, values in sorted(lines.items())}


def _drawable(values: Points) -> Points:
    """What stands on an axis that may be logarithmic."""
    return {n: min(value, LARGEST_DRAWN) for n, value in values.items() if value > 0}


def _draw(axes: Axes, series: Sequence[tuple[list[str], Points]], formulas: Mapping[str, Points]) -> None:
    markers = [(names, _drawable(points)) for names, points in series]
    lines = {name: _drawable(values) for name, values in formulas.items()}
    every = [v for points in (*(points for _, points in markers), *lines.values()) for v in points.values()]
    logarithmic = max(every) > 50 * min(every)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{n:,}" for n in TICKS])
    axes.set_yscale("log" if logarithmic else "linear")
    look: dict[str, Any] = {"clip_on": False, "zorder": 1}
    for values in lines.values():
        axes.plot(list(values), list(values.values()), color=GRAY, linewidth=1, linestyle="--", **look)
    shown = [(names, points) for names, points in markers if points]
    for number, ((names, points), marker, color) in enumerate(zip(shown, MARKERS, COLORS, strict=False)):
        axes.plot(
            list(points),
            list(points.values()),
            linestyle="none",
            marker=marker,
            markersize=7 - 0.5 * number,
            markeredgewidth=0,
            clip_on=False,
            color=color,
            label=_label(names),
            zorder=2 + number,
        )
    if len(shown) > len(MARKERS):
        axes.plot([], [], " ", label=f"not drawn, only in the table: {len(shown) - len(MARKERS)} more groups")
    never = sorted(name for names, points in series if not points for name in names)
    if never:
        axes.plot([], [], " ", label=f"never: {_label(never)}")
    axes.margins(y=0.12)
    _label_lines(axes, lines, logarithmic)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize=8, handletextpad=0.3, borderaxespad=0)


def _label_lines(axes: Axes, lines: Mapping[str, Points], logarithmic: bool) -> None:
    """The name of each formula at the right end of its line, moved apart where lines end close together."""
    scale: Callable[[float], float] = math.log if logarithmic else float
    bottom, top = map(scale, axes.get_ylim())
    ends = [
        ((scale(list(values.values())[-1]) - bottom) / (top - bottom), name)
        for name, values in lines.items()
        if values
    ]
    height = -1.0
    for wanted, name in sorted(ends):
        height = max(wanted, height + 0.06)
        look: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 7.5, "verticalalignment": "center"}
        axes.text(1.02, height, literal(shortened(name)), **look)


def _label(names: Sequence[str]) -> str:
    """Some of the names, in lines that fit a panel."""
    return textwrap.fill(names_in_legend(names), LINE)
